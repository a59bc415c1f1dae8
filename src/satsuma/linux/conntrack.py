"""Connection tracking through ctnetlink: forget flows.

A UDP flow has no end of its own; as long as its client sends, the kernel goes on rewriting its packets to where
they went at first.  Whoever moves a UDP service to another address has to delete the flows.

Must not know: containers.
Source: linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import socket
import struct

from satsuma.linux.netlink import NLM_F_DUMP, Message, attrs_dict, nested
from satsuma.linux.nfnetlink import NFPROTO_IPV4, Netfilter, genmsg

NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_NEW = NFNL_SUBSYS_CTNETLINK << 8 | 0
IPCTNL_MSG_CT_GET = NFNL_SUBSYS_CTNETLINK << 8 | 1
IPCTNL_MSG_CT_DELETE = NFNL_SUBSYS_CTNETLINK << 8 | 2
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY = 1, 2
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST = 1, 2
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3


def _parts(tuple_data: bytes) -> tuple[dict[int, bytes], dict[int, bytes]]:
    attrs = attrs_dict(tuple_data)
    return attrs_dict(attrs.get(CTA_TUPLE_IP, b"")), attrs_dict(attrs.get(CTA_TUPLE_PROTO, b""))


def forget_udp(netfilter: Netfilter, *, host_ports: frozenset[int], addresses: frozenset[bytes]) -> int:
    """Delete the IPv4 UDP flows to one of *host_ports* or answered by one of *addresses* (packed).

    Returns: how many were deleted.
    Needs: CAP_NET_ADMIN.
    """
    deleted = 0
    for kind, body in netfilter.socket.dump(Message(IPCTNL_MSG_CT_GET, genmsg(NFPROTO_IPV4), NLM_F_DUMP)):
        if kind != IPCTNL_MSG_CT_NEW:
            continue
        attrs = attrs_dict(body[4:])
        original = attrs.get(CTA_TUPLE_ORIG, b"")
        _, protocol = _parts(original)
        if protocol.get(CTA_PROTO_NUM) != bytes((socket.IPPROTO_UDP,)):
            continue
        (port,) = struct.unpack(">H", protocol.get(CTA_PROTO_DST_PORT, b"\0\0"))
        answerer, _ = _parts(attrs.get(CTA_TUPLE_REPLY, b""))
        if port in host_ports or answerer.get(CTA_IP_V4_SRC) in addresses:
            request = Message(IPCTNL_MSG_CT_DELETE, genmsg(NFPROTO_IPV4) + nested(CTA_TUPLE_ORIG, original))
            netfilter.socket.run([request], ignore=(errno.ENOENT,))
            deleted += 1
    return deleted
