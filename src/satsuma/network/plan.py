"""From a client's wish to a network record: validation in Docker's words, names of bridges, Docker's JSON shapes.

Pure: nothing here touches the kernel or the database.
Source: moby v28.5.2 daemon/network.go, libnetwork/drivers/bridge/bridge_linux.go, api/types/network/ipam.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from satsuma.base.clock import format_rfc3339nano
from satsuma.base.errors import Conflict, Forbidden, InvalidParameter, NotFound, Unsupported
from satsuma.network.ipam import AddressPool, check_address, check_range, parse_subnet
from satsuma.network.model import EndpointSpec, IpamConfig, NetworkRecord, NetworkSpec, parse_bool

BRIDGE_NAME = "com.docker.network.bridge.name"
BRIDGE_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
BRIDGE_ICC = "com.docker.network.bridge.enable_icc"
BRIDGE_HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
BRIDGE_INHIBIT_IPV4 = "com.docker.network.bridge.inhibit_ipv4"
BRIDGE_GATEWAY_MODE = "com.docker.network.bridge.gateway_mode_ipv4"
BRIDGE_DEFAULT = "com.docker.network.bridge.default_bridge"
BRIDGE_TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"
DRIVER_MTU = "com.docker.network.driver.mtu"
IFACE_PREFIX = "com.docker.network.container_iface_prefix"
HOST_IPV4 = "com.docker.network.host_ipv4"
ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
ENDPOINT_IFNAME = "com.docker.network.endpoint.ifname"

DRIVERS = ("bridge", "host", "null", "macvlan", "ipvlan")
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
_IFNAME_MAX = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeConfig:
    """A bridge network's driver options, decoded."""

    interface: str
    mtu: int
    icc: bool
    masquerade: bool
    inhibit_ipv4: bool
    gateway_mode: str
    host_binding: str
    interface_prefix: str


def bridge_config(record: NetworkRecord, *, default_mtu: int = 1500) -> BridgeConfig:
    """Decode the options of a bridge network.

    Raises:
        InvalidParameter: a value that does not parse.
        Unsupported: an option that this engine does not have.
    """
    options = record.options
    for key in (HOST_IPV4, BRIDGE_TRUSTED):
        if key in options:
            raise Unsupported(f"network option {key} is not supported")
    mode = options.get(BRIDGE_GATEWAY_MODE, "nat")
    if mode == "routed":
        raise Unsupported(f"network option {BRIDGE_GATEWAY_MODE}=routed is not supported")
    if mode not in ("nat", "nat-unprotected", "isolated"):
        raise InvalidParameter(
            f"failed to parse {BRIDGE_GATEWAY_MODE} value: {mode} (unknown gateway mode {mode})"
        )
    if mode == "isolated" and not record.internal:
        raise InvalidParameter("gateway mode 'isolated' can only be used for an internal network")
    interface = options.get(BRIDGE_NAME) or f"br-{record.id[:12]}"
    if (
        len(interface) > _IFNAME_MAX
        or "/" in interface
        or not interface.isascii()
        or interface in (".", "..")
    ):
        raise InvalidParameter(f"invalid bridge name: {interface}")
    host_binding = options.get(BRIDGE_HOST_BINDING, "")
    try:
        if host_binding:
            IPv4Address(host_binding)
    except ValueError:
        raise InvalidParameter(
            f"failed to parse {BRIDGE_HOST_BINDING} value: {host_binding} (nil ip)"
        ) from None
    try:
        return BridgeConfig(
            interface=interface,
            mtu=_mtu(options.get(DRIVER_MTU), default_mtu),
            icc=parse_bool(options, BRIDGE_ICC, True),
            masquerade=parse_bool(options, BRIDGE_MASQUERADE, True),
            inhibit_ipv4=parse_bool(options, BRIDGE_INHIBIT_IPV4, False) or mode == "isolated",
            gateway_mode=mode,
            host_binding=host_binding,
            interface_prefix=options.get(IFACE_PREFIX) or "eth",
        )
    except ValueError as error:
        raise InvalidParameter(str(error)) from None


def _mtu(text: str | None, default: int) -> int:
    if text is None or text == "":
        return default
    try:
        value = int(text)
    except ValueError:
        raise ValueError(
            f'failed to parse {DRIVER_MTU} value: {text} (strconv.Atoi: parsing "{text}": invalid syntax)'
        ) from None
    if value < 0 or value > 65535:
        raise ValueError(f"invalid MTU number: {value}")
    return value or default


def check_spec(spec: NetworkSpec) -> None:
    """Refuse what can never become a network.

    Raises:
        InvalidParameter, Forbidden, NotFound, Unsupported: in Docker's words.
    """
    if not spec.name.strip():
        raise InvalidParameter("invalid name: name is empty")
    if spec.name in ("bridge", "host", "none", "default"):
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network ")
    if spec.driver == "overlay" or spec.scope in ("swarm", "global") or spec.ingress:
        raise Forbidden(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
            "this node to swarm and try again."
        )
    if spec.driver and spec.driver not in DRIVERS:
        raise NotFound(f'plugin "{spec.driver}" not found')
    if spec.driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{spec.driver}" network is allowed')
    if spec.ipam_driver not in ("", "default"):
        raise InvalidParameter(f'invalid ipam driver: "{spec.ipam_driver}"')
    try:
        ipv4 = (
            spec.enable_ipv4 if spec.enable_ipv4 is not None else parse_bool(spec.options, ENABLE_IPV4, True)
        )
        ipv6 = (
            spec.enable_ipv6 if spec.enable_ipv6 is not None else parse_bool(spec.options, ENABLE_IPV6, False)
        )
    except ValueError:
        raise InvalidParameter(f'driver-opt "{ENABLE_IPV4}" is not a valid bool') from None
    if ipv6:
        raise Unsupported("networks with IPv6 are not supported")
    if not ipv4:
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    if spec.config_only and (spec.options or spec.internal):
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator fields like "
            "[ ingress | internal | attachable | scope ] are not supported."
        )
    if spec.config_from and (spec.ipam_config or spec.options):
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration network"
        )
    check_ipam(spec.ipam_config)


def check_ipam(configs: Iterable[IpamConfig]) -> None:
    """Refuse an address configuration, with all of Docker's complaints at once."""
    errors: list[str] = []
    count = 0
    for config in configs:
        if ":" in config.subnet:
            raise Unsupported("networks with IPv6 are not supported")
        try:
            subnet = parse_subnet(config.subnet)
        except ValueError as error:
            errors.append(str(error))
            continue
        count += 1
        if config.ip_range:
            errors += check_range(config.ip_range, subnet)
        if config.gateway and (complaint := check_address(config.gateway, subnet)):
            errors.append(f"invalid gateway {config.gateway}: {complaint}")
        for name, address in config.aux_addresses.items():
            if complaint := check_address(address, subnet):
                errors.append(f"invalid auxiliary address {name}: {complaint}")
    if errors:
        raise InvalidParameter("invalid network config:\n" + "\n".join(errors))
    if count > 1:
        raise Forbidden("bridge driver doesn't support multiple subnets")


def check_sublink(record: NetworkRecord) -> None:
    """Refuse options of a macvlan or ipvlan network that this engine does not have."""
    known = {"macvlan": {"parent", "macvlan_mode"}, "ipvlan": {"parent", "ipvlan_mode", "ipvlan_flag"}}
    for key, value in record.options.items():
        if key not in known[record.driver]:
            raise InvalidParameter(f"unknown {record.driver} option {key}")
        words = {"macvlan_mode": MACVLAN_MODES, "ipvlan_mode": IPVLAN_MODES, "ipvlan_flag": IPVLAN_FLAGS}.get(
            key
        )
        if words is not None and value and value not in words:
            raise InvalidParameter(f"requested {key.replace('_', ' ')} '{value}' is not valid")


def make_record(
    spec: NetworkSpec, network_id: str, created_ns: int, base: NetworkRecord | None
) -> NetworkRecord:
    """Return the record of a checked spec, without addresses yet.

    Args:
        base: the configuration network that `spec.config_from` names.
    """
    return NetworkRecord(
        id=network_id,
        name=spec.name,
        created_ns=created_ns,
        driver=spec.driver or "bridge",
        internal=spec.internal,
        attachable=spec.attachable,
        config_only=spec.config_only,
        config_from=spec.config_from,
        ipam_options=spec.ipam_options,
        ipam_config=base.ipam_config if base else tuple(spec.ipam_config),
        options=dict(base.options) if base else dict(spec.options),
        labels=dict(spec.labels),
    )


def open_pool(record: NetworkRecord) -> AddressPool:
    """Return the address pool of a record with a subnet; gateway and auxiliary addresses are taken."""
    pool = AddressPool(IPv4Network(record.subnet), IPv4Network(record.ip_range) if record.ip_range else None)
    for address in (record.gateway, *record.aux_addresses.values()):
        if address and not pool.is_used(address):
            pool.request(address)
    return pool


def check_endpoint(record: NetworkRecord, spec: EndpointSpec) -> None:
    """Refuse endpoint settings that do not fit a network.

    Raises:
        InvalidParameter: all of Docker's complaints at once.
    """
    errors: list[str] = []
    if record.is_predefined:
        if spec.ipv4_address or spec.ipv6_address:
            errors.append("user specified IP address is supported on user defined networks only")
        if spec.aliases:
            errors.append("network-scoped alias is supported only for containers in user defined networks")
    if spec.ipv4_address and (complaint := _static_address(record, spec.ipv4_address)):
        errors.append(complaint)
    if spec.mac_address:
        parse_mac(spec.mac_address)
    if errors:
        # Go's multierror: a list has bullets.
        lines = errors[0] if len(errors) == 1 else "\n".join(f"* {error}" for error in errors)
        raise InvalidParameter(f"invalid endpoint settings:\n{lines}")
    if spec.ipv6_address or spec.link_local_ips:
        raise Unsupported("IPv6 and link-local addresses of endpoints are not supported")
    for key in spec.driver_opts:
        if key.startswith("com.docker.network.endpoint.") and key != ENDPOINT_IFNAME:
            raise Unsupported(f"endpoint option {key} is not supported")


def _static_address(record: NetworkRecord, text: str) -> str | None:
    """Return Docker's complaint about a static address; its check is against the subnet, not the ip-range."""
    try:
        address = IPv4Address(text)
    except ValueError:
        return f"invalid IPv4 address: {text}"
    if address.is_unspecified:
        return f"invalid IPv4 address: {text}"
    if not record.has_user_subnet:
        return "user specified IP address is supported only when connecting to networks with user configured subnets"
    if not any(address in IPv4Network(config.subnet) for config in record.ipam_config if config.subnet):
        return f"no configured subnet or ip-range contain the IP address {text}"
    return None


def parse_mac(text: str) -> bytes:
    """Parse a hardware address of six bytes, with colons, dashes or Cisco's dots.

    Raises:
        InvalidParameter: Docker's words.
    """
    digits = text.replace(":", "").replace("-", "").replace(".", "")
    try:
        address = bytes.fromhex(digits)
    except ValueError:
        address = b""
    if len(address) != 6 or len(digits) != 12:
        raise InvalidParameter(f"invalid MAC address {text}")
    return address


def check_free_name(name: str, records: Iterable[NetworkRecord]) -> None:
    """Refuse a name that is taken."""
    if any(record.name == name for record in records):
        raise Conflict(f"network with name {name} already exists")


def find(ref: str, records: Iterable[NetworkRecord]) -> NetworkRecord:
    """Return the network that *ref* names: full id, then name, then unique id prefix.

    Raises:
        NotFound, InvalidParameter: none, or several.
    """
    by_name: list[NetworkRecord] = []
    by_prefix: list[NetworkRecord] = []
    for record in records:
        if record.id == ref:
            return record
        if record.name == ref:
            by_name.append(record)
        if ref and record.id.startswith(ref):
            by_prefix.append(record)
    if len(by_name) == 1:
        return by_name[0]
    if len(by_name) > 1:
        raise InvalidParameter(f"network {ref} is ambiguous ({len(by_name)} matches found on name)")
    if len(by_prefix) == 1:
        return by_prefix[0]
    if len(by_prefix) > 1:
        raise InvalidParameter(
            f"network {ref} is ambiguous ({len(by_prefix)} matches found based on ID prefix)"
        )
    raise NotFound(f"network {ref} not found")


def inspect_shape(record: NetworkRecord, containers: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    """Return Docker's JSON object of a network."""
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": format_rfc3339nano(record.created_ns),
        "Scope": "local",
        "Driver": record.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": record.ipam_driver, "Options": record.ipam_options, "Config": _ipam_shape(record)},
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": record.config_from},
        "ConfigOnly": record.config_only,
        "Containers": dict(containers),
        "Options": dict(record.options),
        "Labels": dict(record.labels),
    }


def _ipam_shape(record: NetworkRecord) -> list[dict[str, Any]] | None:
    configs = [c for c in record.ipam_config if c.subnet]
    if not configs:
        if not record.subnet:
            return None
        return [{"Subnet": record.subnet, "Gateway": record.gateway}]
    found = []
    for config in configs:
        shape: dict[str, Any] = {"Subnet": config.subnet}
        if config.ip_range:
            shape["IPRange"] = config.ip_range
        if config.gateway:
            shape["Gateway"] = config.gateway
        if config.aux_addresses:
            shape["AuxiliaryAddresses"] = dict(config.aux_addresses)
        found.append(shape)
    return found
