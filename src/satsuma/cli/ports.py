"""`-p` and `--expose`: `[ip:][hostPort|range]:containerPort|range[/protocol]`, and the long form `target=…`.

Source: docker documentation "Port publishing and mapping"; measured on docker 28.2.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Bindings = dict[str, list[dict[str, str]]]

_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_publish(specs: Iterable[str]) -> Bindings:
    """Return `PortBindings` of the API for all `-p` flags: `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`.

    Raises:
        ValueError: in docker's words.
    """
    bindings: Bindings = {}
    for spec in specs:
        for port, binding in parse_spec(_long_form(spec) if "=" in spec else spec):
            bindings.setdefault(port, []).append(binding)
    return bindings


def _long_form(spec: str) -> str:
    values = {"protocol": "tcp"}
    for field in spec.split(","):
        key, equals, value = field.partition("=")
        if not equals or not key:
            raise ValueError(f"invalid publish opts format (should be name=value but got '{field}')")
        values[key] = value
    return f"{values.get('published', '')}:{values.get('target', '')}/{values['protocol']}"


def parse_spec(spec: str) -> list[tuple[str, dict[str, str]]]:
    """Return (container port with protocol, binding) for each port of one specification.

    Raises:
        ValueError: in docker's words.
    """
    address, host, container = _split(spec)
    container, _, protocol = container.partition("/")
    if not container:
        raise ValueError(f"no port specified: {spec}<empty>")
    protocol = (protocol or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    address = _address(address)
    try:
        first, last = parse_range(container)
    except ValueError:
        raise ValueError(f"invalid containerPort: {container}") from None
    host_first = host_last = 0
    if host:
        try:
            host_first, host_last = parse_range(host)
        except ValueError:
            raise ValueError(f"invalid hostPort: {host}") from None
        # A range on the host for a single port of the container means: any one of them.
        if last - first != host_last - host_first and last != first:
            raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    found = []
    for offset in range(last - first + 1):
        host_port = str(host_first + offset) if host else ""
        if host and last == first and host_first != host_last:
            host_port += f"-{host_last}"
        found.append((f"{first + offset}/{protocol}", {"HostIp": address, "HostPort": host_port}))
    return found


def _split(spec: str) -> tuple[str, str, str]:
    parts = spec.split(":")
    if len(parts) == 1:
        return "", "", parts[0]
    if len(parts) == 2:
        return "", parts[0], parts[1]
    return ":".join(parts[:-2]), parts[-2], parts[-1]


def _address(text: str) -> str:
    from satsuma.cli.addresses import canonical_ip

    if not text:
        return ""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if text.startswith("[") and bare == text:
        raise ValueError(f"invalid IP address {text}: address {text}:: missing ']' in address")
    if canonical_ip(bare) is None:
        raise ValueError(f"invalid IP address: {bare}")
    return bare


def parse_range(text: str) -> tuple[int, int]:
    """Parse `80` or `8000-8010`.

    Raises:
        ValueError: not a port, out of range, or backwards.
    """
    start, dash, end = text.partition("-")
    first = _port(start, "start")
    if not dash or start == end:
        return first, first
    last = _port(end, "end")
    if last < first:
        raise ValueError(f"invalid port range: {text}")
    return first, last


def _port(text: str, which: str) -> int:
    if not text:
        raise ValueError(f"invalid {which} port '': value is empty")
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"invalid {which} port '{text}': invalid syntax")
    if int(text) > 65535:
        raise ValueError(f"invalid {which} port '{text}': value out of range (0–65535)")
    return int(text)


def parse_expose(specs: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return `ExposedPorts` for all `--expose` flags, ranges spelt out.

    Raises:
        ValueError: in docker's words.
    """
    exposed: dict[str, dict[str, str]] = {}
    for spec in specs:
        if ":" in spec:
            raise ValueError(f"invalid port format for --expose: {spec}")
        port, _, protocol = spec.partition("/")
        try:
            first, last = _plain_range(port)
        except ValueError as error:
            raise ValueError(f"invalid range format for --expose: {spec}, error: {error}") from None
        for number in range(first, last + 1):
            exposed[f"{number}/{(protocol or 'tcp').lower()}"] = {}
    return exposed


def _plain_range(text: str) -> tuple[int, int]:
    """Parse `80` or `80-90` in the words of Go's go-connections/nat, which differ from those of `-p`."""
    if not text:
        raise ValueError("empty string specified for ports")
    first, dash, last = text.partition("-")
    start = _plain_port(first)
    end = _plain_port(last) if dash else start
    if end < start:
        raise ValueError(f"invalid range specified for port: {text}")
    return start, end


def _plain_port(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)
