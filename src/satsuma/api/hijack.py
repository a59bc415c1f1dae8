"""Handing a client's connection over: the last HTTP that is spoken on it.

Owns the heads that end HTTP on a connection (101 with `Upgrade`, 200 without) and the descriptor's way out.
Must not know what is spoken afterwards.

Source: moby api/server/router/container `postContainersAttach`, `postContainerExecStart`; measured on 28.5.2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from satsuma.api.response import MULTIPLEXED_STREAM, RAW_STREAM

if TYPE_CHECKING:
    from satsuma.api.connection import Connection
    from satsuma.api.request import Version


@dataclass(frozen=True, slots=True)
class HijackedStream:
    """A connection that is ours no more: *fd* belongs to the receiver, *initial* came before it was handed over."""

    fd: int
    initial: bytes


class ConnectionHijack:
    """One request's right to take the connection over; used at most once."""

    __slots__ = ("_connection", "_upgrade", "_version", "accepted", "head_fields", "on_accept")

    def __init__(self, connection: Connection, *, upgrade: bool, version: Version) -> None:
        self._connection = connection
        self._upgrade = upgrade
        self._version = version
        self.accepted = False
        self.head_fields: list[tuple[str, str]] = []
        """Fields besides the type: exec sends the usual ones, attach none (as dockerd)."""
        self.on_accept: Callable[[bool], Awaitable[HijackedStream]] | None = None
        """Takes the place of the plain hand-over: `attach/ws` speaks frames with the client itself."""

    async def accept(self, *, tty: bool) -> HijackedStream:
        """Answer the request and give the connection away.

        Args:
            tty: the stream is raw; otherwise it is multiplexed, which 1.42 says in the content type.
        Raises:
            ConnectionResetError: the client is gone.
        """
        assert not self.accepted, "a connection can be handed over once"
        self.accepted = True
        if self.on_accept is not None:
            return await self.on_accept(tty)
        return await self._connection.give_away(self._head(tty))

    async def give_away(self, head: bytes) -> HijackedStream:
        """Give the connection away with another head than Docker's own."""
        return await self._connection.give_away(head)

    def _head(self, tty: bool) -> bytes:
        content_type = RAW_STREAM
        if self._upgrade and not tty and self._version >= (1, 42):
            content_type = MULTIPLEXED_STREAM
        lines = [
            "HTTP/1.1 101 UPGRADED" if self._upgrade else "HTTP/1.1 200 OK",
            f"Content-Type: {content_type}",
        ]
        if self._upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        lines += [f"{name}: {value}" for name, value in self.head_fields]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
