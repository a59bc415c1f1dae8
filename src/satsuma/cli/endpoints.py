"""`--network NAME` or `--network name=…,alias=…,ip=…`, and the older flags that describe one endpoint.

Source: docker documentation "docker run, --network"; measured on docker 28.2.
"""

from __future__ import annotations

from satsuma.cli.addresses import parse_mac
from satsuma.wire.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.cli.flags import Flags


def parse_network(text: str) -> dict[str, Any]:
    """Return the network's name (`target`) and endpoint options of one `--network` flag.

    Raises:
        ValueError: in docker's words.
    """
    from satsuma.wire.csvflags import split_fields

    if not _is_long(text):
        return {"target": text}
    spec: dict[str, Any] = {"target": "", "aliases": []}
    for field in split_fields(text):
        key, equals, value = field.lower().partition("=")
        if not equals or not key:
            raise ValueError(f"invalid field {field}")
        _set(spec, key.strip(), value.strip(), field)
    if not spec["target"]:
        raise ValueError("network name/id is not specified")
    return spec


def _is_long(text: str) -> bool:
    """Tell whether there is `word=word` somewhere, as docker's pattern has it."""
    before, equals, after = text.partition("=")
    while equals:
        if before[-1:].replace("_", "a").isalnum() and after[:1].replace("_", "a").isalnum():
            return True
        before, equals, after = after.partition("=")
    return False


def _set(spec: dict[str, Any], key: str, value: str, field: str) -> None:
    if key == "name":
        spec["target"] = value
    elif key == "alias":
        spec["aliases"].append(value)
    elif key in ("ip", "ip6"):
        spec[key] = value
    elif key == "mac-address":
        if parse_mac(value) is None:
            raise ValueError(f"{value} is not a valid mac address")
        spec["mac"] = value
    elif key == "link-local-ip":
        spec.setdefault("link_local", []).append(value)
    elif key == "driver-opt":
        name, equals, option = value.partition("=")
        if not equals or not name:
            raise ValueError("invalid key value pair format in driver options")
        spec.setdefault("driver_opts", {})[name] = option
    elif key == "gw-priority":
        try:
            spec["gw_priority"] = int(value)
        except ValueError:
            raise ValueError(f"invalid gw-priority ({value}): invalid syntax") from None
    else:
        raise ValueError(f"invalid field key {key}")


def is_user_defined(name: str) -> bool:
    """Tell whether *name* is a network of the user's making, not a mode."""
    return name not in ("", "default", "bridge", "host", "none", "nat") and not name.startswith("container:")


def plan_endpoints(flags: Flags, networks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return `EndpointsConfig` of the API.

    The first network takes the older flags (`--ip`, `--network-alias`, …).

    Raises:
        ValueError: flags that contradict each other.
    """
    specs = networks or [{"target": "default"}]
    endpoints: dict[str, dict[str, Any]] = {}
    kinds = set()
    for index, spec in enumerate(specs):
        kinds.add(is_user_defined(spec["target"]))
        if index == 0:
            _apply_flags(spec, flags)
        settings = _settings(spec)
        if spec["target"] in endpoints:
            raise ValueError(f"network {quote(spec['target'])} is specified multiple times")
        if networks and len(networks) == 1 and not any(settings.values()):
            continue
        endpoints[spec["target"]] = settings
    if networks and len(kinds) == 2:
        raise ValueError(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        )
    return endpoints


_PAIRS = (
    ("aliases", "network-alias", "--network-alias and per-network alias"),
    ("ip", "ip", "--ip and per-network IPv4 address"),
    ("ip6", "ip6", "--ip6 and per-network IPv6 address"),
    ("mac", "mac-address", "--mac-address and per-network MAC address"),
    ("link_local", "link-local-ip", "--link-local-ip and per-network link-local IP addresses"),
)


def _apply_flags(spec: dict[str, Any], flags: Flags) -> None:
    for key, flag, what in _PAIRS:
        if not flags[flag]:
            continue
        if spec.get(key):
            raise ValueError(f"conflicting options: cannot specify both {what}")
        spec[key] = flags[flag]
    if flags["link"] and is_user_defined(spec["target"]):
        spec["links"] = flags["link"]


def _settings(spec: dict[str, Any]) -> dict[str, Any]:
    target = spec["target"]
    if not target.strip():
        raise ValueError("no name set for network")
    if not is_user_defined(target):
        if spec.get("aliases"):
            raise ValueError("network-scoped aliases are only supported for user-defined networks")
        if spec.get("links"):
            raise ValueError("links are only supported for user-defined networks")
    ipam = None
    if spec.get("ip") or spec.get("ip6") or spec.get("link_local"):
        ipam = {}
        for key, name in (("ip", "IPv4Address"), ("ip6", "IPv6Address"), ("link_local", "LinkLocalIPs")):
            if spec.get(key):
                ipam[name] = spec[key]
    mac = spec.get("mac") or ""
    if mac and parse_mac(mac) is None:
        raise ValueError(f"{mac} is not a valid mac address")
    return {
        "IPAMConfig": ipam,
        "Links": spec.get("links"),
        "Aliases": spec.get("aliases") or None,
        "MacAddress": mac.strip(),
        "DriverOpts": spec.get("driver_opts"),
        "GwPriority": spec.get("gw_priority", 0),
    }
