"""What the value of a flag may be: types and rules of the flag table, with docker's error texts.

Every function takes the text of one flag and returns its value or raises ValueError; the parser adds which flag it
was.  Mini languages with a file of their own: ports in `cli.ports`, volumes in `cli.mounts`.

Source: measured on docker 28.2; docker documentation "docker run".
"""

from __future__ import annotations

import os

from satsuma.base.sizes import parse_duration, parse_size
from satsuma.wire.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def convert(kind: str, rule: str, text: str) -> Any:
    """Return the value that *text* stands for in a flag of this type and rule."""
    if rule:
        text = _RULES[rule](text)
    if rule == "swap" and text == "-1":
        return -1
    return _TYPES[kind](text) if kind in _TYPES else text


# -- types --------------------------------------------------------------------------------------------------------


def parse_int(text: str, bits: int = 64) -> int:
    """Parse like strconv.ParseInt with base 0."""
    try:
        value = int(text, 0) if text.strip() == text else int("x")
    except ValueError:
        # Go takes a leading zero for octal, Python refuses it.
        digits = text.lstrip("+-")
        if digits.startswith("0") and digits.isdigit() and not set(digits) - set("01234567"):
            value = int(text, 8)
        else:
            raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax") from None
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return value


def parse_uint(text: str, bits: int = 64) -> int:
    """Parse like strconv.ParseUint with base 0."""
    try:
        value = parse_int(text, 65)
    except ValueError as error:
        raise ValueError(str(error).replace("ParseInt", "ParseUint")) from None
    if text[:1] in ("-", "+"):
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax")
    if value >= 1 << bits:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return value


def parse_cpus(text: str) -> int:
    """Parse `--cpus`: a decimal or a fraction, to billionths of a processor."""
    top, slash, bottom = text.partition("/")
    whole, dot, fraction = top.partition(".")
    sign = -1 if whole[:1] == "-" else 1
    digits = (whole[1:] if whole[:1] in ("+", "-") else whole) + fraction
    mantissa, _, exponent = digits.lower().partition("e")
    if not mantissa.isdigit() or (slash and not bottom.isdigit()) or (dot and "e" in whole.lower()):
        raise ValueError(f"failed to parse {text} as a rational number")
    if exponent and not exponent.lstrip("+-").isdigit():
        raise ValueError(f"failed to parse {text} as a rational number")
    places = len(fraction.lower().partition("e")[0]) - int(exponent or 0)
    numerator = int(mantissa) * 1_000_000_000 * (10 ** max(0, -places))
    denominator = 10 ** max(0, places) * int(bottom or 1)
    if not denominator:
        raise ValueError(f"failed to parse {text} as a rational number")
    if numerator % denominator:
        raise ValueError("value is too precise")
    nano: int = numerator // denominator
    return sign * nano


def parse_filter(text: str) -> tuple[str, str] | None:
    """Parse `--filter name=value`; an empty text filters nothing."""
    if not text:
        return None
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return name.strip().lower(), value.strip()


def parse_pairs(text: str) -> dict[str, str]:
    """Parse one `key=value` of a map flag; without `=` the value is empty."""
    key, _, value = text.partition("=")
    return {key: value}


def parse_csv_pairs(text: str) -> dict[str, str]:
    """Parse `k=v,k=v` of pflag's StringToString."""
    from satsuma.wire.csvflags import split_fields

    pairs = {}
    for field in split_fields(text) if text else []:
        key, equals, value = field.partition("=")
        if not equals:
            raise ValueError(f"{field} must be formatted as key=value")
        pairs[key] = value
    return pairs


def parse_strings(text: str) -> list[str]:
    """Parse a comma separated list of pflag's StringSlice."""
    from satsuma.wire.csvflags import split_fields

    return split_fields(text) if text else []


_ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


def parse_ulimit(text: str) -> dict[str, tuple[int, int]]:
    """Parse `nofile=1024:2048`; one number is both limits, -1 is none."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    numbers = []
    parts = value.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {value}, can only have up to two, `soft[:hard]`")
    for part in parts:
        try:
            numbers.append(int(part))
        except ValueError:
            raise ValueError(f"strconv.ParseInt: parsing {quote(part)}: invalid syntax") from None
    soft, hard = numbers[0], numbers[-1]
    if hard != -1:
        if soft == -1:
            raise ValueError(
                f"ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
            )
        if soft > hard:
            raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {name: (soft, hard)}


def parse_ns(text: str) -> int:
    """Parse a Go duration to nanoseconds."""
    return round(parse_duration(text) * 1_000_000_000)


def _network(text: str) -> dict[str, Any]:
    from satsuma.cli.endpoints import parse_network

    return parse_network(text)


def _mount(text: str) -> dict[str, Any]:
    from satsuma.cli.mounts import parse_mount

    return parse_mount(text)


def _gpus(text: str) -> dict[str, Any]:
    from satsuma.cli.devices import parse_gpus

    return parse_gpus(text)


_TYPES: dict[str, Callable[[str], Any]] = {
    "int": parse_int,
    "uint": parse_uint,
    "uint16": lambda text: parse_uint(text, 16),
    "bytes": parse_size,
    "decimal": parse_cpus,
    "duration": parse_ns,
    "filter": parse_filter,
    "map": parse_pairs,
    "stringToString": parse_csv_pairs,
    "strings": parse_strings,
    "ulimit": parse_ulimit,
    "mount": _mount,
    "network": _network,
    "gpu-request": _gpus,
}


# -- rules --------------------------------------------------------------------------------------------------------


def check_env(text: str) -> str:
    """Take `NAME=value`; a bare NAME gets the value that the client's environment has for it."""
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if not equals and name in os.environ:
        return f"{name}={os.environ[name]}"
    return text


def check_label(text: str) -> str:
    """Take `key=value` with a key that has no blanks inside."""
    key = text.partition("=")[0].lstrip(" \t")
    if not key:
        raise ValueError(f"invalid label '{text}': empty name")
    if " " in key or "\t" in key:
        raise ValueError(f"label '{key}' contains whitespaces")
    return text


def check_attach(text: str) -> str:
    """Take the name of a standard stream."""
    word = text.lower()
    if word not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return word


def check_ip(text: str) -> str:
    """Take an IPv4 or IPv6 address and return its canonical form."""
    from satsuma.cli.addresses import canonical_ip

    address = canonical_ip(text.strip())
    if address is None:
        raise ValueError(f"IP address is not correctly formatted: {text}")
    return address


def check_host(text: str) -> str:
    """Take `host:ip` or `host=ip` for /etc/hosts; `host-gateway` is the engine's to fill in."""
    from satsuma.cli.addresses import canonical_ip

    host, separator, address = text.partition("=")
    if not separator:
        host, separator, address = text.partition(":")
    if not separator or not host:
        raise ValueError(f"bad format for add-host: {quote(text)}")
    if len(address) > 2 and address[0] == "[" and address[-1] == "]":
        address = address[1:-1]
    if address != "host-gateway" and canonical_ip(address) is None:
        raise ValueError(f"invalid IP address in add-host: {quote(address)}")
    return f"{host}:{address}"


def check_dns_search(text: str) -> str:
    """Take a domain, or `.` for none."""
    name = text.strip(" ")
    if name == ".":
        return name
    labels = name.removesuffix(".").split(".")
    plain = all(
        label
        and label.replace("-", "").isascii()
        and label.replace("-", "").isalnum()
        and label[0] != "-"
        and label[-1] != "-"
        for label in labels
    )
    if not plain or not any(char.isalpha() for char in name) or len(name) >= 255:
        raise ValueError(f"{name} is not a valid domain")
    return name.removesuffix(".")


def check_link(text: str) -> str:
    """Take `container[:alias]`."""
    if not text:
        raise ValueError("empty string specified for links")
    if text.count(":") > 1:
        raise ValueError(f"bad format for links: {text}")
    return text


def check_cgroup_rule(text: str) -> str:
    """Take `c 42:* rmw`."""
    parts = text.split(" ")
    numbers = parts[1].split(":") if len(parts) == 3 else []
    if (
        len(numbers) != 2
        or parts[0] not in ("a", "b", "c")
        or any(number != "*" and not number.isdigit() for number in numbers)
        or not 1 <= len(parts[2]) <= 3
        or set(parts[2]) - set("rwm")
    ):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def check_tag(text: str) -> str:
    """Take the name of an image to tag."""
    from satsuma.base.errors import EngineError
    from satsuma.wire.reference import parse

    try:
        parse(text)
    except EngineError as error:
        raise ValueError(str(error)) from None
    return text


_SYSCTLS = frozenset(
    "kernel." + name for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)


def check_sysctl(text: str) -> str:
    """Take `name=value` of a setting that belongs to a namespace of the container."""
    name, equals, _ = text.partition("=")
    if not equals or not (name in _SYSCTLS or name.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return text


_RATE = (
    "The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. "
    "Unit is optional and can be kb, mb, or gb"
)


def _device_value(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon or not path:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def check_bps(text: str) -> str:
    """Take `/dev/sda:1mb`."""
    _, value = _device_value(text)
    try:
        parse_size(value)
    except ValueError:
        raise ValueError(f"invalid rate for device: {text}. {_RATE}") from None
    return text


def check_iops(text: str) -> str:
    """Take `/dev/sda:1000`."""
    _, value = _device_value(text)
    if not value.isdigit():
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return text


def check_weight(text: str) -> str:
    """Take `/dev/sda:500`, a weight from 10 to 1000 or 0."""
    _, value = _device_value(text)
    if not value.isdigit() or not (int(value) == 0 or 10 <= int(value) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return text


_RULES: dict[str, Callable[[str], str]] = {
    "env": check_env,
    "label": check_label,
    "attach": check_attach,
    "ip": check_ip,
    "host": check_host,
    "dnssearch": check_dns_search,
    "link": check_link,
    "cgrouprule": check_cgroup_rule,
    "tag": check_tag,
    "bps": check_bps,
    "iops": check_iops,
    "weight": check_weight,
    "sysctl": check_sysctl,
    "swap": str,
}
