"""A SOCK_SEQPACKET connection on the daemon's event loop: requests, replies, events."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from satsuma.monitor import protocol

Body = dict[str, Any]


class Channel:
    """A SOCK_SEQPACKET connection on the event loop: messages in, messages out, one end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._assembler = protocol.Assembler()
        self._sending = asyncio.Lock()
        self._pending: dict[int, asyncio.Future[protocol.Message]] = {}
        self._next_id = 1
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(sock.fileno(), self._readable)

    def expect(self, request_id: int) -> asyncio.Future[protocol.Message]:
        """Return the future of the reply with this id."""
        future: asyncio.Future[protocol.Message] = self._loop.create_future()
        self._pending[request_id] = future
        future.add_done_callback(lambda _: self._pending.pop(request_id, None))
        if self.closed.done():
            future.set_exception(ConnectionResetError("connection is closed"))
        return future

    async def request(self, body: Body, packer: protocol.Packer | None = None) -> protocol.Message:
        """Send a request and wait for its reply.

        Raises:
            ConnectionError: the peer is gone.
        """
        request_id = self._next_id
        self._next_id += 1
        future = self.expect(request_id)
        try:
            await self.send({"id": request_id, **body}, packer)
        except BaseException:
            future.cancel()
            raise
        return await future

    async def send(self, body: Body, packer: protocol.Packer | None = None) -> None:
        """Send one message; returns when the kernel has it, and its descriptors."""
        packer = packer or protocol.Packer()
        packets = protocol.pack(body, packer.blobs, packer.fds)
        try:
            async with self._sending:
                for data, fds in packets.packets:
                    await self._send_packet(data, fds)
        finally:
            packets.close()

    async def _send_packet(self, data: bytes, fds: Sequence[int]) -> None:
        while True:
            if self._sock.fileno() < 0:
                raise ConnectionResetError("connection is closed")
            try:
                protocol.send_packet(self._sock, data, fds)
                return
            except BlockingIOError:
                writable: asyncio.Future[None] = self._loop.create_future()
                self._loop.add_writer(self._sock.fileno(), wake, writable)
                try:
                    await asyncio.wait((writable, self.closed), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if self._sock.fileno() >= 0:
                        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        while self._sock.fileno() >= 0:
            try:
                data, fds = protocol.receive_packet(self._sock)
                if not data:
                    self.close()
                    return
                message = self._assembler.feed(data, fds)
            except BlockingIOError:
                return
            except (OSError, protocol.ProtocolError):
                self.close()
                return
            if message is not None:
                self._dispatch(message)

    def _dispatch(self, message: protocol.Message) -> None:
        request_id = message.body.get("id")
        if request_id is None:
            self.event(message)
            message.close()
            return
        future = self._pending.pop(request_id, None)
        if future is None or future.done():
            message.close()
        else:
            future.set_result(message)

    def event(self, message: protocol.Message) -> None:
        """Take a message without an id."""

    def close(self) -> None:
        """End the connection; every request that waits fails."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._assembler.close()
        if not self.closed.done():
            self.closed.set_result(None)
        for future in tuple(self._pending.values()):
            if not future.done():
                future.set_exception(ConnectionResetError("connection is closed"))


def wake(future: asyncio.Future[None]) -> None:
    """Set a future that carries no value, once."""
    if not future.done():
        future.set_result(None)


def socketpair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new connection."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
