"""Networks: ls, create, rm, connect, disconnect.

Source: docker documentation of these commands; measured on docker 28.2.
"""

from __future__ import annotations

from satsuma.cli.client import as_filters, escape
from satsuma.cli.errors import ApiError, CliError, ExitStatus
from satsuma.cli.formatting import Listing, join_labels, short_id
from satsuma.cli.lookup import natural_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

LISTING = Listing(
    "*network.networkContext",
    "ID Name Driver Scope",
    {
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "CreatedAt": "CREATED AT",
    },
    "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
)


def ls(session: Session, flags: Flags) -> None:
    """List networks."""
    found = session.engine.get("/networks", {"filters": as_filters(flags["filter"])}) or []
    found.sort(key=lambda item: natural_key(item.get("Name") or ""))
    source = flags["format"] or ("" if flags["quiet"] else str(session.config.get("networksFormat") or ""))
    rows = [_row(item, truncate=not flags["no-trunc"]) for item in found]
    LISTING.write(source, rows, quiet="ID" if flags["quiet"] else "")


def _row(item: Mapping[str, Any], *, truncate: bool) -> dict[str, Any]:
    labels = item.get("Labels") or {}
    identifier = item.get("Id") or ""
    return {
        "ID": short_id(identifier) if truncate else identifier,
        "Name": item.get("Name") or "",
        "Driver": item.get("Driver") or "",
        "Scope": item.get("Scope") or "",
        "IPv4": _bool(item.get("EnableIPv4")),
        "IPv6": _bool(item.get("EnableIPv6")),
        "Internal": _bool(item.get("Internal")),
        "Labels": join_labels(labels),
        "Label": lambda name: labels.get(name, ""),
        "CreatedAt": go_time(item.get("Created") or ""),
    }


def _bool(value: Any) -> str:
    return "true" if value else "false"


def go_time(text: str) -> str:
    """Return an RFC 3339 time as Go's Time.String prints it: `2026-11-25 02:45:12.5 +0000 UTC`."""
    date, _, rest = text.partition("T")
    if rest.endswith("Z"):
        return f"{date} {rest[:-1]} +0000 UTC"
    for sign in "+-":
        clock, found, zone = rest.rpartition(sign)
        if found:
            offset = sign + zone.replace(":", "")
            return f"{date} {clock} {offset} {offset}"
    return text


def create(session: Session, flags: Flags) -> None:
    """Create a network."""
    body: dict[str, Any] = {
        "Name": flags.args[0],
        "Driver": flags["driver"],
        "Scope": flags["scope"],
        "IPAM": _ipam(flags),
        "Internal": flags["internal"],
        "Attachable": flags["attachable"],
        "Ingress": flags["ingress"],
        "ConfigOnly": flags["config-only"],
        "ConfigFrom": {"Network": flags["config-from"]} if flags["config-from"] else None,
        "Options": flags["opt"],
        "Labels": {key: value for key, _, value in (label.partition("=") for label in flags["label"])},
    }
    for flag, field in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if flag in flags.changed:
            body[field] = flags[flag]
    answer = session.engine.post("/networks/create", None, body)
    if answer.get("Warning"):
        session.warn(f"WARNING: {answer['Warning']}")
    session.line(answer["Id"])


def _ipam(flags: Flags) -> dict[str, Any]:
    subnets, ranges, gateways = flags["subnet"], flags["ip-range"], flags["gateway"]
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise CliError("every ip-range or gateway must have a corresponding subnet")
    if len(subnets) == 1 and not (ranges or gateways or any(flags["aux-address"].values())):
        # Nothing to be compared with it: the engine judges it.
        config = [{"Subnet": subnets[0], "AuxiliaryAddresses": {}}]
    else:
        config = _pools(flags, subnets, ranges, gateways)
    return {"Driver": flags["ipam-driver"], "Options": flags["ipam-opt"], "Config": config}


def _pools(flags: Flags, subnets: list[str], ranges: list[str], gateways: list[str]) -> list[dict[str, Any]]:
    """Put ranges and addresses to the subnets that they are in."""
    import ipaddress

    try:
        networks = {text: ipaddress.ip_network(text, strict=False) for text in subnets}
        pools: dict[str, dict[str, Any]] = {
            text: {"Subnet": text, "AuxiliaryAddresses": {}} for text in networks
        }
        _refuse_overlap(list(networks.values()))

        def place(address: str, what: str) -> dict[str, Any]:
            inner = ipaddress.ip_interface(address).ip
            for text, network in networks.items():
                if inner in network:
                    return pools[text]
            raise CliError(f"no matching subnet for {what} {address}")

        for text in ranges:
            pool = place(text, "range")
            if "IPRange" in pool:
                raise CliError(
                    f"cannot configure multiple ranges ({text}, {pool['IPRange']}) "
                    f"on the same subnet ({pool['Subnet']})"
                )
            pool["IPRange"] = text
        for text in gateways:
            pool = place(text, "gateway")
            if "Gateway" in pool:
                raise CliError(
                    f"cannot configure multiple gateways ({text}, {pool['Gateway']}) "
                    f"for the same subnet ({pool['Subnet']})"
                )
            pool["Gateway"] = text
        for name, text in flags["aux-address"].items():
            if text:
                place(text, "aux-address")["AuxiliaryAddresses"][name] = text
    except ValueError as error:
        # Python's words begin with the address in quotes.
        raise CliError(f"invalid CIDR address: {str(error).partition(' ')[0].strip(chr(39))}") from None
    return list(pools.values())


def _refuse_overlap(networks: list[Any]) -> None:
    for index, network in enumerate(networks):
        for other in networks[:index]:
            if network.version == other.version and network.overlaps(other):
                raise CliError("multiple overlapping subnet configuration is not supported")


def rm(session: Session, flags: Flags) -> None:
    """Remove networks."""
    failed = False
    for name in flags.args:
        try:
            session.engine.delete(f"/networks/{escape(name)}")
        except ApiError as error:
            if flags["force"] and error.http_status == 404:
                continue
            session.warn(str(error))
            failed = True
            continue
        session.line(name)
    if failed:
        session.warn("exit status 1")
        raise ExitStatus(1)


def connect(session: Session, flags: Flags) -> None:
    """Join a container to a network."""
    network, container = flags.args
    options = {}
    for text in flags["driver-opt"]:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise CliError("invalid key/value pair format in driver options")
        options[key] = value
    endpoint: dict[str, Any] = {
        "IPAMConfig": {
            key: value
            for key, value in (
                ("IPv4Address", flags["ip"]),
                ("IPv6Address", flags["ip6"]),
                ("LinkLocalIPs", flags["link-local-ip"]),
            )
            if value
        },
        "Links": flags["link"] or None,
        "Aliases": flags["alias"] or None,
        "DriverOpts": options or None,
        "GwPriority": flags["gw-priority"],
    }
    body = {"Container": container, "EndpointConfig": endpoint}
    session.engine.post(f"/networks/{escape(network)}/connect", None, body)


def disconnect(session: Session, flags: Flags) -> None:
    """Take a container off a network."""
    network, container = flags.args
    body = {"Container": container, "Force": flags["force"]}
    session.engine.post(f"/networks/{escape(network)}/disconnect", None, body)
