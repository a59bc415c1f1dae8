"""Netfilter's netlink: transactions of nf_tables messages that apply as a whole or not at all.

Owns the batch envelope and the socket; the messages are `nftables`.  A transaction is BEGIN, messages, END in
one datagram.  A message that fails makes the kernel drop the whole batch and report each failure.

Source: linux/netfilter/nfnetlink.h, net/netfilter/nfnetlink.c.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from satsuma.linux import netlink
from satsuma.linux.netlink import NLM_F_REQUEST, Failure, Message, iter_messages, parse_error

# linux/netfilter/nfnetlink.h
NFNL_MSG_BATCH_BEGIN = 0x10
NFNL_MSG_BATCH_END = 0x11
NFNL_SUBSYS_NFTABLES = 10
NFNLGRP_NFTABLES = 7
NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_BRIDGE, NFPROTO_IPV6 = 0, 1, 2, 7, 10


def genmsg(family: int, res_id: int = 0) -> bytes:
    """Encode `struct nfgenmsg`."""
    return bytes((family, 0)) + res_id.to_bytes(2, "big")


def encode_transaction(messages: Sequence[Message], first_seq: int) -> bytes:
    """Return the bytes of a transaction; BEGIN carries *first_seq*, message i `first_seq + 1 + i`.

    The acknowledgement is asked of the last message, not of END: kernels before 6.10 do not answer END.
    """
    envelope = genmsg(0, NFNL_SUBSYS_NFTABLES)
    parts = [_header(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, first_seq, envelope)]
    parts.append(netlink.encode_batch(messages, first_seq + 1))
    parts.append(_header(NFNL_MSG_BATCH_END, NLM_F_REQUEST, first_seq + 1 + len(messages), envelope))
    return b"".join(parts)


def _header(kind: int, flags: int, seq: int, body: bytes) -> bytes:
    return netlink._HEADER.pack(16 + len(body), kind, flags, seq & 0xFFFFFFFF, 0) + body


class Netfilter:
    """A NETLINK_NETFILTER socket."""

    __slots__ = ("socket",)

    def __init__(self, fd: int | None = None) -> None:
        self.socket = netlink.Socket(netlink.NETLINK_NETFILTER, fd=fd)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def __enter__(self) -> Netfilter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def transact(self, messages: Sequence[Message]) -> list[Failure]:
        """Apply *messages* as one transaction; return the failures (then nothing was applied).

        Index -1 stands for the transaction itself, as when the commit fails or the caller lacks CAP_NET_ADMIN.
        """
        if not messages:
            return []
        first = self.socket.next_seq(len(messages) + 2)
        self.socket._send(encode_transaction(messages, first))
        failures: list[Failure] = []
        # The kernel has answered everything before send(2) returned, but not always the last message (a refused
        # BEGIN ends the batch): read until the queue is empty.
        while True:
            try:
                data = self.socket._sock.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return failures
            for kind, flags, seq, payload in iter_messages(data):
                index = ((seq - first) & 0xFFFFFFFF) - 1  # BEGIN is -1
                if kind == netlink.NLMSG_ERROR and index <= len(messages):
                    number, text = parse_error(payload, flags)
                    if number:
                        failures.append(Failure(index, number, text))

    def run(self, messages: Sequence[Message]) -> None:
        """Apply *messages* as one transaction.

        Raises:
            OSError: of the first failure's errno; nothing was applied.
        """
        failures = self.transact(messages)
        if failures:
            first = failures[0]
            error = first.as_error("nf_tables")
            if 0 <= first.index < len(messages):
                error.add_note(repr(messages[first.index])[:500])
            raise error
