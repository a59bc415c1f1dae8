"""`inspect` of everything, as JSON or by a Go template.

A template runs twice, as in docker: first on what Go's types would hold (a missing label is `<no value>`), and if
that fails on the raw JSON, where a missing key is an error.

Source: docker documentation "docker inspect"; measured on docker 28.2.
"""

from __future__ import annotations

import sys

from satsuma.cli.client import escape
from satsuma.cli.errors import ApiError, CliError
from satsuma.wire.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session
    from satsuma.wire.gotemplate import Template

_KINDS = ", ".join(
    f'"{kind}"' for kind in "config container image network node plugin secret service task volume".split()
)

_MAPS = frozenset(
    (
        "Labels Ports Networks ExposedPorts PortBindings Volumes Options DriverOpts Tmpfs Sysctls Config Data"
        " Annotations StorageOpt Containers Status EndpointsConfig Services"
    ).split()
)
"""Names of fields that are maps in Go: there a missing key is no error (`Config` of LogConfig, see `_typed`)."""
_NIL_POINTERS = frozenset(
    (
        "Init OomKillDisable PidsLimit MemorySwappiness StopTimeout Healthcheck Health IPAMConfig UsageData"
        " ClusterVolume State GraphDriver ImageManifestDescriptor"
    ).split()
)
"""Fields whose null is a nil pointer; other nulls are empty lists or maps."""


_GO_NAMES = {
    "ID": "Id",
    "DNS": "Dns",
    "DNSOptions": "DnsOptions",
    "DNSSearch": "DnsSearch",
    "NanoCPUs": "NanoCpus",
    "CPUShares": "CpuShares",
    "CPUPeriod": "CpuPeriod",
    "CPUQuota": "CpuQuota",
    "CPURealtimePeriod": "CpuRealtimePeriod",
    "CPURealtimeRuntime": "CpuRealtimeRuntime",
    "CPUCount": "CpuCount",
    "CPUPercent": "CpuPercent",
    "HostIP": "HostIp",
}
"""Go field → JSON name, where they differ: the Go name is what a typed template knows."""
_OMITTED: dict[str, dict[str, Any]] = {
    "HostConfig": {
        "Tmpfs": "map",
        "Sysctls": "map",
        "StorageOpt": "map",
        "Annotations": "map",
        "Mounts": "slice",
        "Init": "pointer",
        "Runtime": "",
    },
    "Config": {
        "ExposedPorts": "map",
        "Healthcheck": "pointer",
        "StopSignal": "",
        "StopTimeout": "pointer",
        "Shell": "slice",
        "NetworkDisabled": False,
        "ArgsEscaped": False,
    },
    "State": {"Health": "pointer"},
}
"""Fields that the engine leaves out when they are empty, and what Go has in their place."""


def inspect(session: Session, flags: Flags) -> int:
    """Show containers, images, networks, volumes: whatever has the name."""
    kind = flags["type"]
    if kind and kind not in _LOADERS and kind not in _REMOTE:
        raise CliError(f"unknown type: {quote(kind)}: must be one of {_KINDS}")
    if "type" in flags.changed and not kind:
        raise CliError(f"type is empty: must be one of {_KINDS}")
    size = flags["size"]
    return show(session, flags.args, flags["format"], lambda name: _find(session, name, kind, size=size))


def inspect_containers(session: Session, flags: Flags) -> int:
    """Show containers."""
    size = flags["size"]
    return show(session, flags.args, flags["format"], lambda name: _container(session, name, size=size))


def inspect_images(session: Session, flags: Flags) -> int:
    """Show images."""
    platform = _platform(flags["platform"], "")
    return show(session, flags.args, flags["format"], lambda name: _image(session, name, platform=platform))


def inspect_networks(session: Session, flags: Flags) -> int:
    """Show networks."""
    verbose = flags["verbose"]
    return show(session, flags.args, flags["format"], lambda name: _network(session, name, verbose=verbose))


def inspect_volumes(session: Session, flags: Flags) -> int:
    """Show volumes."""
    return show(session, flags.args, flags["format"], lambda name: _volume(session, name))


# -- where things come from ---------------------------------------------------------------------------------------


def _platform(text: str, prefix: str = "invalid platform: ") -> str | None:
    if not text:
        return None
    import json

    from satsuma.base.errors import InvalidParameter
    from satsuma.wire import platforms

    try:
        fields = platforms.parse(text)._asdict()
    except InvalidParameter as error:
        raise CliError(f"{prefix}{error}") from None
    return json.dumps({key: value for key, value in fields.items() if value}, separators=(",", ":"))


def _container(session: Session, name: str, *, size: bool = False) -> bytes:
    return session.engine.request("GET", f"/containers/{escape(name)}/json", {"size": size}).read()


def _image(session: Session, name: str, *, platform: str | None = None) -> bytes:
    return session.engine.request("GET", f"/images/{escape(name, '/:@')}/json", {"platform": platform}).read()


def _network(session: Session, name: str, *, verbose: bool = False) -> bytes:
    return session.engine.request("GET", f"/networks/{escape(name)}", {"verbose": verbose}).read()


def _volume(session: Session, name: str) -> bytes:
    return session.engine.request("GET", f"/volumes/{escape(name)}").read()


def _remote(session: Session, path: str, name: str) -> bytes:
    return session.engine.request("GET", f"/{path}/{escape(name)}").read()


_LOADERS: dict[str, Callable[..., bytes]] = {
    "container": _container,
    "image": _image,
    "network": _network,
    "volume": _volume,
}
_REMOTE = {
    "service": "services",
    "task": "tasks",
    "node": "nodes",
    "plugin": "plugins",
    "secret": "secrets",
    "config": "configs",
}
"""What only a swarm has, and plugins: asked for when the type is named."""


def _find(session: Session, name: str, kind: str, *, size: bool) -> bytes:
    if kind in _REMOTE:
        return _remote(session, _REMOTE[kind], name)
    for candidate in (kind,) if kind else tuple(_LOADERS):
        load = _LOADERS[candidate]
        try:
            return (
                load(session, name, size=True) if candidate == "container" and size else load(session, name)
            )
        except ApiError as error:
            if kind or error.http_status != 404:
                raise
    raise ApiError(f"Error: No such object: {name}", 404)


# -- output -------------------------------------------------------------------------------------------------------


def show(session: Session, names: Iterable[str], source: str, load: Callable[[str], bytes]) -> int:
    """Show each thing; errors come last, the rest is shown all the same.

    Raises:
        CliError: 64 for a template that does not parse, else 1.
    """
    template = _parse(source)
    errors: list[str] = []
    raws: list[str] = []
    out: list[str] = []
    for name in names:
        if not name:
            errors.append("Error: invalid name: empty")
            continue
        try:
            raw = load(name).decode("utf-8", "surrogateescape").strip()
        except ApiError as error:
            errors.append(str(error))
            continue
        if template is None:
            raws.append(raw)
            continue
        try:
            out.append(_apply(template, raw) + "\n")
        except ValueError as error:
            errors.append(f"template parsing error: {error}")
    shown = "".join(out) or "\n"
    text = shown if template else format_array(raws, indented=source != "json") + "\n"
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()
    if errors:
        raise CliError("\n".join(errors))
    return 0


def _parse(source: str) -> Template | None:
    if source in ("", "json"):
        return None
    from satsuma.wire.gotemplate import TemplateError, parse

    try:
        return parse(source)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}", 64) from None


def _apply(template: Template, raw: str) -> str:
    import json

    from satsuma.wire.gotemplate import TemplateError

    data = json.loads(raw)
    try:
        return template.execute(_typed(data, ""), missing_is_error=True)
    except TemplateError:
        return template.execute(data, missing_is_error=True)


def _typed(value: Any, name: str, parent: str = "") -> Any:
    """Return JSON data with what Go's types add: structs and maps told apart, and what kind of nil a null is."""
    from satsuma.wire.gotemplate import GoMap, GoNil, GoStruct

    if isinstance(value, dict):
        inner = {key: _typed(item, key, name) for key, item in value.items()}
        if (
            name in _MAPS
            and not (name == "Config" and parent != "LogConfig")
            and not (name == "Status" and not parent)
        ):
            return GoMap(inner)
        omitted = {
            key: GoNil(kind) if kind in ("map", "slice", "pointer") else kind
            for key, kind in _OMITTED.get(name, {}).items()
            if key not in inner
        }
        return GoStruct(inner, names=_GO_NAMES, omitted=omitted)
    if isinstance(value, list):
        return [_typed(item, "", name) for item in value]
    if value is None and name:
        if name in _NIL_POINTERS:
            return GoNil("pointer")
        return GoNil("map" if name in _MAPS else "slice")
    return value


def format_array(documents: list[str], *, indented: bool) -> str:
    """Return documents as one JSON array, their numbers and escapes as the engine wrote them."""
    text = "[" + ",".join(documents) + "]"
    return indent_json(text, "    " if indented else None)


def indent_json(text: str, step: str | None) -> str:
    """Lay JSON text out anew without parsing values; *step* None makes it compact.

    Source: pkg.go.dev/encoding/json#Indent.
    """
    out: list[str] = []
    depth = 0
    position = 0
    size = len(text)
    while position < size:
        char = text[position]
        if char == '"':
            end = position + 1
            while text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            out.append(text[position : end + 1])
            position = end + 1
            continue
        position += 1
        if char in " \t\r\n":
            continue
        if step is None:
            out.append(char)
        elif char in "{[":
            rest = (
                text[position:].lstrip(" \t\r\n")
                if text[position : position + 1] in " \t\r\n"
                else text[position : position + 1]
            )
            if rest[:1] in "}]":
                out.append(char + rest[0])
                position = text.index(rest[0], position) + 1
                continue
            depth += 1
            out.append(f"{char}\n{step * depth}")
        elif char in "}]":
            depth -= 1
            out.append(f"\n{step * depth}{char}")
        elif char == ",":
            out.append(f",\n{step * depth}")
        elif char == ":":
            out.append(": ")
        else:
            out.append(char)
    return "".join(out)
