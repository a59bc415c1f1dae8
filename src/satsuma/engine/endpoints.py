"""What a container wants from networks, and what it got: between the API's EndpointSettings and the network room."""

from __future__ import annotations

import ipaddress
from typing import Any

from msgspec import structs

from satsuma.base.errors import InvalidParameter, NotFound
from satsuma.container import NetworkState, Record
from satsuma.container.ports import split_port
from satsuma.engine.core import Core
from satsuma.network import EndpointSpec, PortSpec, Sandbox
from satsuma.spec.docker import CreateRequest, EndpointSettings, to_json_object

Json = dict[str, Any]

_OUTPUT_ONLY: Json = {
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
}
_UNNAMED = frozenset({"bridge", "host", "none"})


def settings_json(settings: EndpointSettings) -> Json:
    """Return EndpointSettings as inspect shows them before the container has started."""
    ipam = settings.ipam_config
    return {
        "IPAMConfig": to_json_object(ipam) if ipam else None,
        "Links": settings.links or None,
        "Aliases": settings.aliases or None,
        "MacAddress": settings.mac_address,
        "DriverOpts": settings.driver_opts or None,
        "GwPriority": settings.gw_priority,
        "NetworkID": settings.network_id,
        **_OUTPUT_ONLY,
        "DNSNames": None,
    }


def wanted_endpoints(core: Core, body: CreateRequest, record: Record) -> NetworkState:
    """Return the networks that a new container will join.

    Raises:
        InvalidParameter: `invalid config for network x: …`.
    """
    mode = record.host.network_mode
    asked = {
        ("bridge" if name == "default" else name): settings
        for name, settings in (body.networking_config.endpoints_config or {}).items()
    }
    if mode.startswith("container:"):
        if asked:
            raise InvalidParameter(
                "conflicting options: cannot attach user-defined networks to a container "
                "that uses the network of another one"
            )
        return NetworkState()
    for name, settings in asked.items():
        if settings is None:
            raise InvalidParameter(f"invalid config for network {name}: EndpointsConfig is nil")
        check_settings(name, settings)
    if mode not in asked:
        asked = {mode: EndpointSettings(), **asked}
    if body.mac_address and mode not in ("host", "none"):
        first = asked[mode] or EndpointSettings()
        if not first.mac_address:
            asked[mode] = structs.replace(first, mac_address=body.mac_address)
    if len(asked) > 1 and ("none" in asked or "host" in asked):
        raise InvalidParameter(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
            if "none" in asked
            else "container cannot be connected to host network - container must be created in host network mode"
        )
    names = {canonical_name(core, name): settings for name, settings in asked.items()}
    return NetworkState(
        endpoints={name: settings_json(settings or EndpointSettings()) for name, settings in names.items()},
        asked={name: settings_json(settings or EndpointSettings()) for name, settings in names.items()},
    )


def canonical_name(core: Core, reference: str) -> str:
    """Return the name of a network that a client may have named by id; unknown ones are left for the start."""
    try:
        return core.networks.get(reference).name
    except NotFound:
        return reference


def check_settings(name: str, settings: EndpointSettings) -> None:
    """Check what can be checked before the network is known.

    Raises:
        InvalidParameter: in dockerd's words.
    """
    faults = []
    ipam = settings.ipam_config
    if name in _UNNAMED:
        if ipam and (ipam.ipv4_address or ipam.ipv6_address):
            faults.append("user specified IP address is supported on user defined networks only")
        if settings.aliases:
            faults.append("network-scoped aliases are only supported for user-defined networks")
    for address in (ipam.ipv4_address, ipam.ipv6_address) if ipam else ():
        if address:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                faults.append(f"invalid IPv4 address: {address}")
    mac = settings.mac_address
    if mac and not _is_mac(mac):
        faults.append(f"invalid MAC address {mac}")
    if faults:
        lines = faults[0] if len(faults) == 1 else "\n".join(f"* {fault}" for fault in faults)
        raise InvalidParameter(f"invalid config for network {name}: invalid endpoint settings:\n{lines}")


def _is_mac(text: str) -> bool:
    parts = text.replace("-", ":").split(":")
    return len(parts) == 6 and all(
        len(part) == 2 and all(c in "0123456789abcdefABCDEF" for c in part) for part in parts
    )


def endpoint_specs(record: Record) -> list[EndpointSpec]:
    """Return the endpoints to allocate when the container starts."""
    if record.config.network_disabled:
        return [EndpointSpec(network="none")]
    return [endpoint_spec(name, asked) for name, asked in record.network.asked.items()]


def endpoint_spec(name: str, asked: Json) -> EndpointSpec:
    """Return one endpoint from the stored JSON of what was asked."""
    ipam = asked.get("IPAMConfig") or {}
    return EndpointSpec(
        network=name,
        aliases=tuple(asked.get("Aliases") or ()),
        links=tuple(asked.get("Links") or ()),
        ipv4_address=ipam.get("IPv4Address", ""),
        ipv6_address=ipam.get("IPv6Address", ""),
        link_local_ips=tuple(ipam.get("LinkLocalIPs") or ()),
        mac_address=asked.get("MacAddress", ""),
        driver_opts=asked.get("DriverOpts") or {},
        gw_priority=asked.get("GwPriority", 0),
        ipam_config=asked.get("IPAMConfig"),
    )


def port_specs(record: Record) -> list[PortSpec]:
    """Return the ports to publish: what was bound by `-p`, and for `-P` every exposed one."""
    host = record.host
    if host.network_mode in ("host", "none") or host.network_mode.startswith("container:"):
        return []
    answer = []
    for port, bindings in (host.port_bindings or {}).items():
        number, protocol = split_port(port)
        for binding in bindings or []:
            answer.append(
                PortSpec(
                    port=int(number),
                    protocol=protocol,
                    host_ip=binding.host_ip,
                    host_port=binding.host_port,
                )
            )
        if not bindings:
            answer.append(PortSpec(port=int(number), protocol=protocol))
    if host.publish_all_ports:
        for port in record.config.exposed_ports or {}:
            if port not in (host.port_bindings or {}):
                number, protocol = split_port(port)
                answer.append(PortSpec(port=int(number), protocol=protocol))
    return answer


def live_state(record: Record, sandbox: Sandbox) -> NetworkState:
    """Return the network part of a record while the container runs."""
    ports: dict[str, list[dict[str, str]] | None] = dict(sandbox.ports)
    if record.host.network_mode not in ("host", "none"):
        for port in record.config.exposed_ports or {}:
            ports.setdefault(port, None)
    return structs.replace(
        record.network,
        sandbox_id=sandbox.sandbox_id,
        sandbox=sandbox.record,
        endpoints={name: info.settings() for name, info in sandbox.endpoints.items()},
        ports=ports,
    )


def stopped_state(network: NetworkState) -> NetworkState:
    """Return the network part of a record after the container has ended: addresses are given back."""
    endpoints = {}
    for name, asked in network.asked.items():
        known = network.endpoints.get(name, {})
        endpoints[name] = asked | {
            "NetworkID": known.get("NetworkID", ""),
            "DNSNames": known.get("DNSNames"),
            "MacAddress": asked.get("MacAddress", ""),
        }
    return structs.replace(network, sandbox_id="", sandbox={}, ports={}, endpoints=endpoints)
