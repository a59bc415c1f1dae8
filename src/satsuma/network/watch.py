"""Notices when another program removes our firewall table, and has it put back.

`nft flush ruleset`, a restart of firewalld or of an nftables service take every table with them; with ours go
published ports and isolation between networks.  The kernel tells who listens to nf_tables' multicast group.

Source: linux/netfilter/nfnetlink.h NFNLGRP_NFTABLES; CVE-2025-54388 is what happens to an engine that does not look.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Awaitable, Callable

from satsuma.base.aio import spawn
from satsuma.linux import netlink
from satsuma.linux import nftables as nft
from satsuma.linux.netlink import attrs_dict, iter_messages
from satsuma.linux.nfnetlink import NFNLGRP_NFTABLES

_log = logging.getLogger(__name__)

SETTLE = 0.2
"""Seconds after a removal before the repair: a reload deletes and adds in several transactions."""


def concerns(data: bytes, table: str) -> bool:
    """Tell whether notifications say that a table, or a rule of it, was removed."""
    name = table.encode() + b"\0"
    for kind, _flags, _seq, payload in iter_messages(data):
        # Attribute 1 is the table's name in both messages.
        removal = kind in (nft.NFT_MSG_DELTABLE, nft.NFT_MSG_DELRULE)
        if removal and attrs_dict(payload[4:]).get(nft.NFTA_TABLE_NAME) == name:
            return True
    return False


class Watch:
    """Listens while open.  On the event loop.

    Args:
        table: the name of our table.
        own_port: netlink port of the socket whose changes are our own.
        repair: puts the table back if it is missing or damaged.
    """

    def __init__(self, table: str, own_port: int, repair: Callable[[], Awaitable[None]]) -> None:
        self._table = table
        self._own_port = own_port
        self._repair = repair
        self._socket = netlink.Socket(netlink.NETLINK_NETFILTER, groups=1 << (NFNLGRP_NFTABLES - 1))
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start listening."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._on_readable)
        self._task = spawn("network:firewall-watch", self._run())

    async def stop(self) -> None:
        """Stop listening; idempotent."""
        if self._task is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        self._socket.close()

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = self._socket.receive(socket.MSG_DONTWAIT)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    self._wanted.set()  # notifications were lost: look
                    continue
                # The port in a notification's header is that of the socket which made the change.
                if int.from_bytes(data[12:16], sys.byteorder) != self._own_port and concerns(
                    data, self._table
                ):
                    self._wanted.set()

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            await asyncio.sleep(SETTLE)
            self._wanted.clear()
            try:
                await self._repair()
            except OSError as error:
                _log.error("cannot restore the firewall table %s: %s", self._table, error)
