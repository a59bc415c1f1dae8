"""What the service knows about live networks and live containers, and the kernel work of one container.

The functions that end in the kernel run in the network room's kernel thread, one at a time; they change nothing
in memory but the values they are given.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from satsuma.linux import rtnetlink as rt
from satsuma.network.firewall import BridgeRules, Firewall, PortRule
from satsuma.network.host import Host, format_mac
from satsuma.network.ipam import AddressPool
from satsuma.network.model import EndpointInfo, NetworkRecord, PortSpec, Sandbox
from satsuma.network.nameport import NameSockets
from satsuma.network.netns import Netns
from satsuma.network.plan import (
    IPVLAN_FLAGS,
    IPVLAN_MODES,
    MACVLAN_MODES,
    BridgeConfig,
    parse_mac,
)
from satsuma.network.pool import Veth, make_veth, plug
from satsuma.network.ports import Binding


@dataclass(slots=True, kw_only=True)
class Network:
    """A network with its live state."""

    record: NetworkRecord
    config: BridgeConfig | None = None
    """None unless the driver is bridge."""
    link_index: int = 0
    """The bridge, or the parent of a macvlan or ipvlan network."""
    addresses: AddressPool | None = None
    attachments: dict[str, Attachment] = field(default_factory=dict)
    """By container id."""
    given: set[str] = field(default_factory=set)
    """Addresses given out before: their next owner must announce itself."""
    _names: dict[str, list[IPv4Address]] | None = None

    @property
    def is_user_defined(self) -> bool:
        """Tell whether containers on it find each other by name."""
        return not self.record.is_predefined

    @property
    def prefix_length(self) -> int:
        """Return the subnet's prefix length."""
        return IPv4Network(self.record.subnet).prefixlen

    def names(self) -> dict[str, list[IPv4Address]]:
        """Return the addresses of each name on this network, names in lower case."""
        if self._names is None:
            self._names = {}
            for attachment in self.attachments.values():
                for name in attachment.info.dns_names:
                    self._names.setdefault(name.lower(), []).append(IPv4Address(attachment.info.ip_address))
        return self._names

    def changed(self) -> None:
        """Forget the table of names, after an attachment came, went or was renamed."""
        self._names = None

    def rules(self) -> BridgeRules | None:
        """Return what the firewall shall hold about it."""
        if self.config is None or self.record.config_only:
            return None
        return BridgeRules(
            interface=self.config.interface,
            subnets=(IPv4Network(self.record.subnet),),
            icc=self.config.icc,
            internal=self.record.internal,
            masquerade=self.config.masquerade,
            unprotected=self.config.gateway_mode == "nat-unprotected",
        )


@dataclass(slots=True, kw_only=True)
class Attachment:
    """A container on a network: what the client sees and the link behind it."""

    network: Network
    info: EndpointInfo
    container_id: str
    container_name: str
    wanted_mac: bytes | None = None
    veth: Veth | None = None
    announce: bool = False

    def resource(self) -> dict[str, str]:
        """Return Docker's EndpointResource object for the inspection of a network."""
        info = self.info
        return {
            "Name": self.container_name,
            "EndpointID": info.endpoint_id,
            "MacAddress": info.mac_address,
            "IPv4Address": f"{info.ip_address}/{info.prefix_length}" if info.ip_address else "",
            "IPv6Address": "",
        }


@dataclass(slots=True, kw_only=True)
class Live:
    """A container that has a sandbox."""

    container_id: str
    name: str
    hostname: str
    sandbox: Sandbox
    netns: Netns | None = None
    names: NameSockets | None = None
    attachments: dict[str, Attachment] = field(default_factory=dict)
    """By network id, in the order of connection."""
    dns: tuple[str, ...] = ()
    """Upstream name servers of its own (--dns)."""
    port_specs: tuple[PortSpec, ...] = ()
    bindings: list[Binding] = field(default_factory=list)
    gateway_id: str = ""
    """Network id of the endpoint that has the default route and the published ports, "" for none."""

    def choose_gateway(self) -> Attachment | None:
        """Return the attachment that gets the default route: highest priority, then name of the network."""
        able = [a for a in self.attachments.values() if a.info.gateway]
        if not able:
            return None
        return min(able, key=lambda a: (-a.info.gw_priority, a.network.record.name))

    def next_interface(self, prefix: str) -> str:
        """Return the first free interface name: eth0, eth1, …"""
        taken = {a.info.interface for a in self.attachments.values()}
        number = 0
        while f"{prefix}{number}" in taken:
            number += 1
        return f"{prefix}{number}"

    def port_rules(self) -> list[PortRule]:
        """Return the firewall's view of the published ports."""
        return [binding.rule for binding in self.bindings]

    def published_rules(self) -> list[PortRule]:
        """Return the ports that are published now: none while no endpoint leads outside."""
        return self.port_rules() if self.gateway_id else []

    def update_sandbox(self) -> None:
        """Bring the sandbox that the engine holds up to date, its record included."""
        sandbox = self.sandbox
        sandbox.endpoints = {a.network.record.name: a.info for a in self.attachments.values()}
        sandbox.ports = port_map(self.bindings) if self.gateway_id else {}
        sandbox.uses_embedded_dns = any(a.network.is_user_defined for a in self.attachments.values())
        sandbox.record = {
            "sandbox_id": sandbox.sandbox_id,
            "name": self.name,
            "hostname": self.hostname,
            "gateway_id": self.gateway_id,
            "has_netns": self.netns is not None,
            "dns": list(self.dns),
            "endpoints": [endpoint_record(a.info) for a in self.attachments.values()],
            "ports": [binding.as_record() for binding in self.bindings],
            "port_specs": [
                {"port": s.port, "protocol": s.protocol, "host_ip": s.host_ip, "host_port": s.host_port}
                for s in self.port_specs
            ],
        }


def port_map(bindings: list[Binding]) -> dict[str, list[dict[str, str]]]:
    """Return Docker's NetworkSettings.Ports of published ports."""
    found: dict[str, list[dict[str, str]]] = {}
    for binding in bindings:
        rule = binding.rule
        entry = {"HostIp": rule.host_ip, "HostPort": str(rule.host_port)}
        found.setdefault(f"{rule.port}/{rule.protocol}", []).append(entry)
    return found


def endpoint_record(info: EndpointInfo) -> dict[str, Any]:
    """Return an endpoint as plain JSON."""
    return {name: getattr(info, name) for name in EndpointInfo.__slots__}


def attach_link(host: Host, netns: Netns, attachment: Attachment, veth_name: str) -> None:
    """Make the interface of one attachment inside a namespace."""
    network, info = attachment.network, attachment.info
    if network.config is not None:
        attachment.veth = make_veth(
            host.route,
            netns,
            name=veth_name,
            mtu=network.config.mtu,
            inner_name=info.interface,
            mac=attachment.wanted_mac,
        )
        plug_in(host, netns, attachment)
    else:
        attachment.veth = _attach_sublink(host, netns, attachment)
    info.host_interface = attachment.veth.name
    info.mac_address = format_mac(attachment.veth.mac)


def plug_in(host: Host, netns: Netns, attachment: Attachment) -> None:
    """Connect the near end of an attachment's veth to the network's bridge."""
    network, veth = attachment.network, attachment.veth
    assert network.config is not None and veth is not None, "only bridge networks have ports"
    plug(
        host.route,
        netns,
        veth,
        bridge_index=network.link_index,
        mtu=network.config.mtu,
        isolated=not network.config.icc,
    )


def _attach_sublink(host: Host, netns: Netns, attachment: Attachment) -> Veth:
    """Make a macvlan or ipvlan interface; it has no near end."""
    network, info = attachment.network, attachment.info
    options = network.record.options
    mac = None
    if network.record.driver == "macvlan":
        data = rt.macvlan_data(MACVLAN_MODES[options.get("macvlan_mode") or "bridge"])
        mac = attachment.wanted_mac
    else:
        mode = IPVLAN_MODES[options.get("ipvlan_mode") or "l2"]
        data = rt.ipvlan_data(mode, IPVLAN_FLAGS[options.get("ipvlan_flag") or "bridge"])
    host.route.run(
        rt.add_sublink(
            network.record.driver,
            info.interface,
            parent=network.link_index,
            data=data,
            netns_fd=netns.fd,
            address=mac,
        )
    )
    link = netns.route.link(info.interface)
    if link is None:
        raise OSError(errno.ENODEV, f"{info.interface} vanished")
    netns.route.run(rt.set_link(link.index, up=True))
    return Veth(name="", index=0, inner_index=link.index, mac=link.address)


def give_address(host: Host, netns: Netns, attachment: Attachment, *, gateway: bool) -> None:
    """Configure an interface that is up: hardware address, IPv4 address, default route; tell the neighbours."""
    veth, info = attachment.veth, attachment.info
    assert veth is not None, "attach_link comes first"
    messages = []
    if attachment.wanted_mac and attachment.wanted_mac != veth.mac and attachment.network.config is not None:
        messages.append(rt.set_link(veth.inner_index, address=attachment.wanted_mac))
        veth.mac = attachment.wanted_mac
        info.mac_address = format_mac(veth.mac)
    address = IPv4Address(info.ip_address).packed
    messages.append(rt.add_addr(veth.inner_index, address, info.prefix_length))
    if gateway:
        messages.append(rt.add_route(veth.inner_index, gateway=IPv4Address(info.gateway).packed))
    netns.route.run(*messages)
    config = attachment.network.config
    if config is None:
        return
    # The host may remember the hardware address of the last owner of this address for half a minute.
    host.route.run(rt.add_neighbour(attachment.network.link_index, address, veth.mac))
    if attachment.announce:
        host.announce(config.interface, IPv4Address(info.ip_address), veth.mac)


def set_default_route(netns: Netns, attachment: Attachment | None, previous: Attachment | None) -> None:
    """Move the default route of a running container to another of its interfaces."""
    if previous is not None and previous.veth is not None:
        netns.route.run(
            rt.del_route(previous.veth.inner_index, gateway=IPv4Address(previous.info.gateway).packed),
            ignore=(errno.ESRCH, errno.ENODEV),
        )
    if attachment is not None and attachment.veth is not None:
        gateway = IPv4Address(attachment.info.gateway).packed
        netns.route.run(rt.add_route(attachment.veth.inner_index, gateway=gateway, replace=True))


def withdraw(host: Host, firewall: Firewall, live: Live, group: int) -> None:
    """Take a container off its networks: its ports stop at once, its interfaces reach nobody any more.

    Best effort in every step: a container must be removable however broken its network is.
    """
    if live.bindings:
        firewall.remove_ports(live.port_rules())
        firewall.forget_flows(live.port_rules())
    for attachment in live.attachments.values():
        veth = attachment.veth
        if veth is not None and veth.index:
            host.route.run(
                rt.set_link(veth.index, master=0, group=group), ignore=(errno.ENODEV, errno.EINVAL)
            )


def wanted_mac(text: str) -> bytes | None:
    """Return the hardware address a client asked for."""
    return parse_mac(text) if text else None
