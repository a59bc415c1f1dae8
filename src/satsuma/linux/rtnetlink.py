"""Links, addresses, routes and neighbours through rtnetlink, as batches of messages.

Builders return `netlink.Message` values; `Route` sends them and knows the dumps.  A veth pair with its peer's
name, hardware address, namespace and the bridge of the near end is one message; the kernel does it in one go.

Must not know: containers, networks, address management.
Source: rtnetlink(7), linux/if_link.h, linux/rtnetlink.h, net/core/rtnetlink.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import namedtuple

from satsuma.linux import netlink
from satsuma.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attr,
    attr_str,
    attr_u32,
    attrs_dict,
    nested,
)

# linux/rtnetlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RT_TABLE_MAIN = 254
RTPROT_BOOT, RTPROT_STATIC = 3, 4
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTN_UNICAST, RTN_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
NUD_REACHABLE, NUD_STALE, NUD_PERMANENT = 0x02, 0x04, 0x80
NDA_DST, NDA_LLADDR = 1, 2
# linux/if_link.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_NET_NS_FD, IFLA_GROUP, IFLA_AF_SPEC, IFLA_PROTINFO, IFLA_ALT_IFNAME = 28, 27, 26, 12, 53
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_INFO_PEER = 1
IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE = 1, 5
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
IFLA_MACVLAN_MODE = 1
IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS = 1, 2
IFLA_IFALIAS = 20
IFLA_INET6_ADDR_GEN_MODE = 8
IN6_ADDR_GEN_MODE_NONE = 1
IFF_UP = 1
# linux/if_addr.h
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST = 1, 2, 3, 4

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")

_SKIP_STATS = attr_u32(29, 1 << 3)
"""IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: the counters of a link are most of its description."""

Link = namedtuple("Link", "index name kind address mtu flags master group alias")
"""One interface: `kind` is "bridge", "veth", … or "" for hardware; `address` six bytes; `master` 0 for none."""
Address = namedtuple("Address", "index address prefix_length scope")
"""One IPv4 address (packed, four bytes) of an interface."""
RouteEntry = namedtuple("RouteEntry", "destination prefix_length gateway index table kind scope")
"""One IPv4 route; `destination` and `gateway` packed, `b""` for the default route or a link route."""


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)


def _link_attrs(
    *,
    name: str | None = None,
    address: bytes | None = None,
    mtu: int | None = None,
    master: int | None = None,
    netns_fd: int | None = None,
    group: int | None = None,
    alias: str | None = None,
) -> bytes:
    parts: list[bytes] = []
    if name is not None:
        parts.append(attr_str(IFLA_IFNAME, name))
    if address is not None:
        parts.append(attr(IFLA_ADDRESS, address))
    if mtu is not None:
        parts.append(attr_u32(IFLA_MTU, mtu))
    if master is not None:
        parts.append(attr_u32(IFLA_MASTER, master))
    if netns_fd is not None:
        parts.append(attr_u32(IFLA_NET_NS_FD, netns_fd))
    if group is not None:
        parts.append(attr_u32(IFLA_GROUP, group))
    if alias is not None:
        parts.append(attr(IFLA_IFALIAS, alias.encode()))
    return b"".join(parts)


def add_bridge(name: str, *, address: bytes | None = None, mtu: int | None = None) -> Message:
    """Create a bridge without spanning tree and without forward delay: a new port forwards at once."""
    data = nested(IFLA_INFO_DATA, attr_u32(IFLA_BR_FORWARD_DELAY, 0), attr_u32(IFLA_BR_STP_STATE, 0))
    info = nested(IFLA_LINKINFO, attr_str(IFLA_INFO_KIND, "bridge"), data)
    body = _ifinfo() + _link_attrs(name=name, address=address, mtu=mtu) + info
    return Message(RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL)


def add_veth(
    name: str,
    *,
    peer_name: str,
    peer_netns_fd: int | None = None,
    peer_address: bytes | None = None,
    address: bytes | None = None,
    mtu: int | None = None,
    master: int | None = None,
    group: int | None = None,
    up: bool = False,
) -> Message:
    """Create a veth pair: near end here (attached to *master*), far end born inside *peer_netns_fd*."""
    peer = _ifinfo() + _link_attrs(name=peer_name, address=peer_address, mtu=mtu, netns_fd=peer_netns_fd)
    data = nested(IFLA_INFO_DATA, attr(VETH_INFO_PEER, peer))
    info = nested(IFLA_LINKINFO, attr_str(IFLA_INFO_KIND, "veth"), data)
    flags = IFF_UP if up else 0
    body = _ifinfo(0, flags, flags)
    body += _link_attrs(name=name, address=address, mtu=mtu, master=master, group=group) + info
    return Message(RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL)


def add_sublink(
    kind: str,
    name: str,
    *,
    parent: int,
    data: bytes,
    netns_fd: int | None = None,
    address: bytes | None = None,
    mtu: int | None = None,
) -> Message:
    """Create a macvlan, ipvlan or vlan link on *parent*, born inside *netns_fd*.

    Args:
        data: the kind's own attributes, encoded (see `macvlan_data`, `ipvlan_data`).
    """
    info = nested(IFLA_LINKINFO, attr_str(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, data))
    body = _ifinfo() + _link_attrs(name=name, address=address, mtu=mtu, netns_fd=netns_fd)
    return Message(RTM_NEWLINK, body + attr_u32(IFLA_LINK, parent) + info, NLM_F_CREATE | NLM_F_EXCL)


def macvlan_data(mode: int) -> bytes:
    """Encode IFLA_INFO_DATA of a macvlan: 1 private, 2 vepa, 4 bridge, 8 passthru."""
    return attr_u32(IFLA_MACVLAN_MODE, mode)


def ipvlan_data(mode: int, flags: int = 0) -> bytes:
    """Encode IFLA_INFO_DATA of an ipvlan: mode 0 l2, 1 l3, 2 l3s; flags 0 bridge, 1 private, 2 vepa."""
    return attr(IFLA_IPVLAN_MODE, struct.pack("=H", mode)) + attr(IFLA_IPVLAN_FLAGS, struct.pack("=H", flags))


def add_dummy(name: str) -> Message:
    """Create a dummy link, the parent Docker makes for an internal macvlan network."""
    info = nested(IFLA_LINKINFO, attr_str(IFLA_INFO_KIND, "dummy"))
    return Message(RTM_NEWLINK, _ifinfo() + attr_str(IFLA_IFNAME, name) + info, NLM_F_CREATE | NLM_F_EXCL)


def set_link(
    index: int,
    *,
    up: bool | None = None,
    name: str | None = None,
    address: bytes | None = None,
    mtu: int | None = None,
    master: int | None = None,
    netns_fd: int | None = None,
    group: int | None = None,
    alias: str | None = None,
    addr_gen_none: bool = False,
) -> Message:
    """Change a link by index.

    Args:
        master: 0 detaches.
        addr_gen_none: no IPv6 link-local address will appear when the link comes up.
    """
    flags = IFF_UP if up else 0
    change = IFF_UP if up is not None else 0
    body = _ifinfo(index, flags, change)
    body += _link_attrs(
        name=name, address=address, mtu=mtu, master=master, netns_fd=netns_fd, group=group, alias=alias
    )
    if addr_gen_none:
        mode = attr(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
        body += nested(IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    return Message(RTM_NEWLINK, body)


def set_bridge_port(index: int, *, isolated: bool | None = None, hairpin: bool | None = None) -> Message:
    """Change a bridge port's own flags; two isolated ports of one bridge cannot reach each other."""
    parts: list[bytes] = []
    if isolated is not None:
        parts.append(attr(IFLA_BRPORT_ISOLATED, bytes([isolated])))
    if hairpin is not None:
        parts.append(attr(IFLA_BRPORT_MODE, bytes([hairpin])))
    body = _IFINFO.pack(socket.AF_BRIDGE, 0, index, 0, 0) + nested(IFLA_PROTINFO, *parts)
    return Message(RTM_SETLINK, body)


def del_link(index: int) -> Message:
    """Delete a link; of a veth pair both ends go.  Blocks for the kernel's grace periods, 16 to 50 ms."""
    return Message(RTM_DELLINK, _ifinfo(index))


def del_group(group: int) -> Message:
    """Delete all links of a group; any number of them costs the grace periods of one."""
    return Message(RTM_DELLINK, _ifinfo() + attr_u32(IFLA_GROUP, group))


def _broadcast(address: bytes, prefix_length: int) -> bytes:
    mask = (1 << (32 - prefix_length)) - 1
    return (int.from_bytes(address, "big") | mask).to_bytes(4, "big")


def add_addr(index: int, address: bytes, prefix_length: int, *, scope: int = RT_SCOPE_UNIVERSE) -> Message:
    """Give an interface an IPv4 address, with the broadcast address of its prefix (ip-address(8) "brd +")."""
    body = _IFADDR.pack(socket.AF_INET, prefix_length, 0, scope, index)
    body += attr(IFA_LOCAL, address) + attr(IFA_ADDRESS, address)
    if prefix_length < 31:
        body += attr(IFA_BROADCAST, _broadcast(address, prefix_length))
    return Message(RTM_NEWADDR, body, NLM_F_CREATE | NLM_F_EXCL)


def del_addr(index: int, address: bytes, prefix_length: int) -> Message:
    """Take an IPv4 address from an interface."""
    body = _IFADDR.pack(socket.AF_INET, prefix_length, 0, 0, index)
    return Message(RTM_DELADDR, body + attr(IFA_LOCAL, address) + attr(IFA_ADDRESS, address))


def _route(
    kind: int, flags: int, index: int, gateway: bytes, destination: bytes, prefix_length: int
) -> Message:
    scope = RT_SCOPE_UNIVERSE if gateway else RT_SCOPE_LINK
    body = _RTMSG.pack(socket.AF_INET, prefix_length, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    if destination:
        body += attr(RTA_DST, destination)
    if gateway:
        body += attr(RTA_GATEWAY, gateway)
    return Message(kind, body + attr_u32(RTA_OIF, index), flags)


def add_route(
    index: int,
    *,
    gateway: bytes = b"",
    destination: bytes = b"",
    prefix_length: int = 0,
    replace: bool = False,
) -> Message:
    """Add an IPv4 route through *gateway* (or on the link); the default route when *destination* is empty."""
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    return _route(RTM_NEWROUTE, flags, index, gateway, destination, prefix_length)


def del_route(
    index: int, *, gateway: bytes = b"", destination: bytes = b"", prefix_length: int = 0
) -> Message:
    """Delete the route that `add_route` with the same arguments made."""
    return _route(RTM_DELROUTE, 0, index, gateway, destination, prefix_length)


def add_neighbour(index: int, address: bytes, lladdr: bytes, *, state: int = NUD_STALE) -> Message:
    """Enter or replace a neighbour: the next packet to *address* needs no ARP question."""
    body = _NDMSG.pack(socket.AF_INET, index, state, 0, RTN_UNICAST)
    body += attr(NDA_DST, address) + attr(NDA_LLADDR, lladdr)
    return Message(RTM_NEWNEIGH, body, NLM_F_CREATE | NLM_F_REPLACE)


def parse_link(payload: bytes) -> Link:
    """Parse RTM_NEWLINK."""
    _family, _type, index, flags, _change = _IFINFO.unpack_from(payload)
    attrs = attrs_dict(payload[16:])
    info = attrs_dict(attrs.get(IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=attrs.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        kind=info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        address=attrs.get(IFLA_ADDRESS, b""),
        mtu=_u32(attrs, IFLA_MTU),
        flags=flags,
        master=_u32(attrs, IFLA_MASTER),
        group=_u32(attrs, IFLA_GROUP),
        alias=attrs.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
    )


def _u32(attrs: dict[int, bytes], kind: int) -> int:
    data = attrs.get(kind)
    return int(struct.unpack("=I", data)[0]) if data and len(data) == 4 else 0


class Route:
    """A NETLINK_ROUTE socket with the dumps and the few lookups that callers need."""

    __slots__ = ("socket",)

    def __init__(self, fd: int | None = None) -> None:
        self.socket = netlink.Socket(netlink.NETLINK_ROUTE, fd=fd)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def __enter__(self) -> Route:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, *messages: Message, ignore: tuple[int, ...] = ()) -> None:
        """Send one batch; raise OSError of the first refusal whose errno is not in *ignore*."""
        self.socket.run(messages, ignore=ignore)

    def link(self, name: str) -> Link | None:
        """Return the link of that name, or None."""
        request = Message(RTM_GETLINK, _ifinfo() + attr_str(IFLA_IFNAME, name) + _SKIP_STATS)
        try:
            answers = self.socket.dump(request)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return parse_link(answers[0][1]) if answers else None

    def links(self) -> list[Link]:
        """Return all links."""
        answers = self.socket.dump(Message(RTM_GETLINK, _ifinfo() + _SKIP_STATS, NLM_F_DUMP))
        return [parse_link(payload) for kind, payload in answers if kind == RTM_NEWLINK]

    def addresses(self) -> list[Address]:
        """Return all IPv4 addresses."""
        body = _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0)
        found: list[Address] = []
        for kind, payload in self.socket.dump(Message(RTM_GETADDR, body, NLM_F_DUMP)):
            family, length, _flags, scope, index = _IFADDR.unpack_from(payload)
            attrs = attrs_dict(payload[8:])
            local = attrs.get(IFA_LOCAL) or attrs.get(IFA_ADDRESS)
            if kind == RTM_NEWADDR and family == socket.AF_INET and local:
                found.append(Address(index, local, length, scope))
        return found

    def routes(self) -> list[RouteEntry]:
        """Return all IPv4 routes of all tables."""
        body = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        found: list[RouteEntry] = []
        for kind, payload in self.socket.dump(Message(RTM_GETROUTE, body, NLM_F_DUMP)):
            family, length, _src, _tos, table, _proto, scope, rtype, _flags = _RTMSG.unpack_from(payload)
            if kind != RTM_NEWROUTE or family != socket.AF_INET:
                continue
            attrs = attrs_dict(payload[12:])
            found.append(
                RouteEntry(
                    attrs.get(RTA_DST, b""),
                    length,
                    attrs.get(RTA_GATEWAY, b""),
                    _u32(attrs, RTA_OIF),
                    _u32(attrs, RTA_TABLE) or table,
                    rtype,
                    scope,
                )
            )
        return found
