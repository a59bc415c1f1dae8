"""The values that cross the wall of the network room: options, specifications, endpoints, sandboxes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_ADDRESS_POOLS: tuple[tuple[str, int], ...] = (
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
)
"""Docker's local pools (moby libnetwork/ipamutils/utils.go): 31 networks."""

DEFAULT_BRIDGE = "satsuma0"

PREDEFINED = ("bridge", "host", "none", "default")
"""Names that a client can neither create nor remove."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """What the daemon's flags say about networking.

    `bridge` "none" leaves the default bridge network out, as dockerd's --bridge=none.
    """

    exec_root: str
    bridge: str = DEFAULT_BRIDGE
    bip: str | None = None
    fixed_cidr: str | None = None
    default_gateway: str | None = None
    mtu: int = 1500
    icc: bool = True
    ip_masq: bool = True
    ip_forward: bool = True
    default_ip: str = "0.0.0.0"
    address_pools: tuple[tuple[str, int], ...] = DEFAULT_ADDRESS_POOLS
    pool_size: int = 6
    """Network namespaces kept ready with a veth on the default bridge; 0 prepares none ahead."""
    user_pool_size: int = 2
    """Namespaces kept ready for user-defined networks."""
    bare_pool_size: int = 2
    """Namespaces kept ready for containers without a network, and for other network drivers."""
    dns: tuple[str, ...] = ()
    """Upstream servers of the embedded DNS; empty: those of the host's resolv.conf."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpamConfig:
    """One address pool as the client gave it; empty strings for what was left out."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A network to be made: the body of `POST /networks/create`."""

    name: str
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: str = ""
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    ipam_driver: str = ""
    ipam_options: dict[str, str] | None = None
    ipam_config: tuple[IpamConfig, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """A container's wish for one network (Docker's EndpointSettings, the inbound half)."""

    network: str
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: dict[str, str] = field(default_factory=dict)
    gw_priority: int = 0
    ipam_config: dict[str, Any] | None = None
    """The client's IPAMConfig object, shown again by inspect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortSpec:
    """One published port: `-p HOST_IP:HOST_PORT:PORT/PROTOCOL`.

    `host_port` is "" or "0" (any free port), "8080", or a range "8000-8010" of which one is taken.
    """

    port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: str = ""


@dataclass(slots=True, kw_only=True)
class EndpointInfo:
    """A container's live attachment to one network."""

    network_id: str
    network_name: str
    endpoint_id: str
    interface: str = ""
    """Name inside the container, "" for host and none."""
    host_interface: str = ""
    """Name of the near end of the veth pair."""
    mac_address: str = ""
    ip_address: str = ""
    prefix_length: int = 0
    gateway: str = ""
    aliases: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    dns_names: list[str] = field(default_factory=list)
    ipam_config: dict[str, Any] | None = None
    driver_opts: dict[str, str] = field(default_factory=dict)
    gw_priority: int = 0

    def settings(self) -> dict[str, Any]:
        """Return Docker's EndpointSettings object."""
        return {
            "IPAMConfig": self.ipam_config,
            "Links": list(self.links) or None,
            "Aliases": list(self.aliases) or None,
            "MacAddress": self.mac_address,
            "DriverOpts": dict(self.driver_opts) or None,
            "GwPriority": self.gw_priority,
            "NetworkID": self.network_id,
            "EndpointID": self.endpoint_id,
            "Gateway": self.gateway,
            "IPAddress": self.ip_address,
            "IPPrefixLen": self.prefix_length,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": list(self.dns_names) or None,
        }


@dataclass(slots=True, kw_only=True)
class Sandbox:
    """A container's network: its namespace, its endpoints and its published ports.

    `netns_fd` (None: the host's namespace) is borrowed: the service closes it at `release`.  `hold_fds` are
    sockets bound to the published host ports; whoever keeps the container alive keeps a copy, so that the
    ports stay reserved when the daemon dies.  `close_hold_fds` drops the daemon's copies after the hand-over.
    """

    sandbox_id: str
    netns_fd: int | None
    endpoints: dict[str, EndpointInfo] = field(default_factory=dict)
    ports: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    hold_fds: list[int] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    """Plain JSON, to be stored with the container and given to `NetworkService.recover`."""
    uses_embedded_dns: bool = False
    """The container's resolv.conf shall name 127.0.0.11, option ndots:0."""

    def close_hold_fds(self) -> None:
        """Close this process's copies of the port sockets; idempotent."""
        while self.hold_fds:
            os.close(self.hold_fds.pop())


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecord:
    """A network as the database has it."""

    id: str
    name: str
    created_ns: int
    driver: str
    internal: bool = False
    attachable: bool = False
    config_only: bool = False
    config_from: str = ""
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    ipam_config: tuple[IpamConfig, ...] = ()
    """As the client gave it; an entry with a subnet makes static addresses possible."""
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def has_user_subnet(self) -> bool:
        """Tell whether the client chose the subnet."""
        return any(config.subnet for config in self.ipam_config)

    @property
    def is_predefined(self) -> bool:
        """Tell whether this is one of bridge, host, none."""
        return self.name in PREDEFINED

    def option(self, key: str, default: str = "") -> str:
        """Return a driver option."""
        return self.options.get(key, default)


def parse_bool(options: Mapping[str, str], key: str, default: bool) -> bool:
    """Parse an option with Go's strconv.ParseBool.

    Raises:
        ValueError: another word; the caller names the option.
    """
    value = options.get(key)
    if value is None:
        return default
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(
        f'failed to parse {key} value: {value} (strconv.ParseBool: parsing "{value}": invalid syntax)'
    )
