"""After the daemon was killed: live containers are taken up from their records, everything else goes."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from satsuma.base.ids import short_id
from satsuma.linux import rtnetlink as rt
from satsuma.linux.netlink import NETLINK_ROUTE
from satsuma.network.firewall import Firewall, PortRule
from satsuma.network.host import Host
from satsuma.network.model import EndpointInfo, PortSpec, Sandbox
from satsuma.network.netns import Netns, open_sockets
from satsuma.network.pool import Veth
from satsuma.network.ports import Binding, PortAllocator
from satsuma.network.registry import Registry
from satsuma.network.sandbox import Attachment, Live

_log = logging.getLogger(__name__)


async def reopen_netns(record: Mapping[str, Any], fd: int | None) -> Netns | None:
    """Return a live container's namespace with a socket inside it; None for the host's.

    Args:
        fd: the namespace; becomes ours.
    """
    if fd is None:
        return None
    if not record["has_netns"]:
        os.close(fd)
        return None
    try:
        (sock,) = await open_sockets(fd, [(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)])
    except BaseException:
        os.close(fd)
        raise
    return Netns(fd=fd, route=rt.Route(sock))


def rebuild(
    container_id: str, record: Mapping[str, Any], netns: Netns | None, registry: Registry, host: Host
) -> Live:
    """Return a live container as its record describes it; in the kernel thread.

    Raises:
        KeyError, TypeError, ValueError: the record is not one of ours.
    """
    live = Live(
        container_id=container_id,
        name=record["name"],
        hostname=record["hostname"],
        sandbox=Sandbox(sandbox_id=record["sandbox_id"], netns_fd=netns.fd if netns else None),
        netns=netns,
        gateway_id=record["gateway_id"],
        dns=tuple(record["dns"]),
        port_specs=tuple(PortSpec(**spec) for spec in record["port_specs"]),
    )
    for fields in record["endpoints"]:
        info = EndpointInfo(**fields)
        network = registry.by_id(info.network_id)
        if network is None:
            _log.warning("network %s of container %s is gone", info.network_name, short_id(container_id))
            continue
        attachment = Attachment(
            network=network, info=info, container_id=container_id, container_name=live.name
        )
        near = host.route.link(info.host_interface) if info.host_interface else None
        far = netns.route.link(info.interface) if netns and info.interface else None
        if far is not None:
            attachment.veth = Veth(
                name=info.host_interface,
                index=near.index if near else 0,
                inner_index=far.index,
                mac=far.address,
                mtu=far.mtu,
            )
        live.attachments[network.record.id] = attachment
    live.bindings = [Binding(rule=PortRule(**fields)) for fields in record["ports"]]
    return live


def enter(live: Live, ports: PortAllocator) -> None:
    """Enter a recovered container into address pools, port table and networks."""
    for attachment in live.attachments.values():
        network, info = attachment.network, attachment.info
        if (
            network.addresses is not None
            and info.ip_address
            and not network.addresses.is_used(info.ip_address)
        ):
            network.addresses.request(info.ip_address)
        network.given.add(info.ip_address)
        network.attachments[live.container_id] = attachment
        network.changed()
    ports.adopt(live.port_rules())
    live.update_sandbox()


def drop_leftovers(
    lives: Iterable[Live], registry: Registry, host: Host, firewall: Firewall, *, veth_prefix: str, group: int
) -> bool:
    """Make firewall and links hold what live containers own and nothing else; in the kernel thread.

    Returns: whether links were moved to *group*, to be deleted.
    """
    everyone = list(lives)
    rules = [rules for network in registry if (rules := network.rules()) is not None]
    firewall.restore(rules, [rule for live in everyone for rule in live.published_rules()])
    owned = {a.info.host_interface for live in everyone for a in live.attachments.values()}
    stray = [
        link
        for link in host.route.links()
        if link.kind == "veth" and link.name.startswith(veth_prefix) and link.name not in owned
    ]
    if stray:
        # Those of containers that ended while the daemon was dead go by themselves, now or in a moment.
        host.route.run(
            *(rt.set_link(link.index, master=0, group=group) for link in stray),
            ignore=(errno.ENODEV, errno.EINVAL),
        )
    registry.delete_stray_bridges()
    return bool(stray)
