"""The container's side of the embedded DNS: two sockets inside its namespace, and the rules that lead to them.

The sockets have ports that the kernel chose; two nf_tables rules inside the namespace lead 127.0.0.11 port 53
there.  A container may have a name server of its own on 0.0.0.0:53, which must find the port free.

Source: moby v28.5.2 libnetwork/resolver_unix.go.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass

from satsuma.linux import nftables as nft
from satsuma.linux.netlink import Message
from satsuma.linux.nfnetlink import Netfilter
from satsuma.network.netns import run_inside

ADDRESS = "127.0.0.11"
TABLE = "satsuma_dns"
BACKLOG = 64


@dataclass(slots=True, kw_only=True)
class NameSockets:
    """A UDP and a listening TCP socket inside a container's namespace."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        """Close both; idempotent."""
        self.udp.close()
        self.tcp.close()


def redirect_rules(udp_port: int, tcp_port: int) -> list[Message]:
    """Return the transaction that leads 127.0.0.11:53 to the two sockets, inside a container's namespace."""
    table = nft.Table(TABLE)
    messages = [
        table.add(),
        table.add_chain("output", kind="nat", hook=nft.NF_INET_LOCAL_OUT, priority=nft.NF_IP_PRI_NAT_DST),
        table.flush_rules(),
    ]
    address = socket.inet_aton(ADDRESS)
    for protocol, port in ((socket.IPPROTO_UDP, udp_port), (socket.IPPROTO_TCP, tcp_port)):
        messages.append(
            table.add_rule(
                "output",
                nft.payload(nft.NFT_PAYLOAD_NETWORK_HEADER, 16, 4, nft.NFT_REG_1),
                nft.compare(nft.NFT_REG_1, nft.NFT_CMP_EQ, address),
                nft.meta(nft.NFT_META_L4PROTO, nft.NFT_REG_1),
                nft.compare(nft.NFT_REG_1, nft.NFT_CMP_EQ, bytes((protocol,))),
                nft.payload(nft.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, nft.NFT_REG_1),
                nft.compare(nft.NFT_REG_1, nft.NFT_CMP_EQ, struct.pack(">H", 53)),
                nft.immediate(nft.NFT_REG_1, address),
                nft.immediate(nft.NFT_REG_2, struct.pack(">H", port)),
                nft.dnat(nft.NFT_REG_1, nft.NFT_REG_2),
            )
        )
    return messages


async def open_name_sockets(netns_fd: int) -> NameSockets:
    """Open the sockets inside a namespace and lead port 53 of 127.0.0.11 to them.

    Rules of an earlier daemon in the namespace are replaced.
    """

    def inside() -> NameSockets:
        with contextlib.ExitStack() as undo:
            udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            tcp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            udp.bind((ADDRESS, 0))
            tcp.bind((ADDRESS, 0))
            tcp.listen(BACKLOG)
            udp.setblocking(False)
            tcp.setblocking(False)
            with Netfilter() as netfilter:
                netfilter.run(redirect_rules(udp.getsockname()[1], tcp.getsockname()[1]))
            undo.pop_all()
            return NameSockets(udp=udp, tcp=tcp)

    return await run_inside(netns_fd, inside, NameSockets.close)
