"""GET /containers/{id}/attach/ws: attach over a WebSocket.

The engine gets one end of a socket pair and thinks that it is the client's connection; this module stands
between the other end and the client's frames.  Streams are never multiplexed here: what the engine frames is
taken apart again.

Source: RFC 6455; moby v28.5.2 api/server/router/container `wsContainersAttach`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from satsuma.api.hijack import HijackedStream
from satsuma.api.request import Request
from satsuma.api.response import Answer, Hijacked, empty
from satsuma.base.aio import spawn
from satsuma.base.errors import InvalidParameter
from satsuma.wire import stdcopy, websocket

if TYPE_CHECKING:
    from satsuma.api.facade import Engine

_PIECE = 1 << 16


async def attach(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/attach/ws."""
    query = request.query
    session = _Session(request)
    request.hijack.on_accept = session.accept
    every = request.version < (1, 42)
    await engine.containers.attach(
        request.name,
        stdin=every or query.flag("stdin"),
        stdout=every or query.flag("stdout"),
        stderr=every or query.flag("stderr"),
        stream=query.flag("stream"),
        logs=query.flag("logs"),
        detach_keys=query.get("detachKeys") or None,
        hijack=request.hijack,
    )
    return Hijacked() if request.hijack.accepted else empty()


class _Session:
    """One client: its handshake, and two pumps."""

    def __init__(self, request: Request) -> None:
        headers = request.head.headers
        if "websocket" not in headers.tokens("upgrade") or "upgrade" not in headers.tokens("connection"):
            raise InvalidParameter("not websocket protocol")
        if headers.get("sec-websocket-version") != "13":
            raise InvalidParameter("missing or bad WebSocket Version")
        try:
            self._key = websocket.accept_key(headers.get("sec-websocket-key"))
        except websocket.ProtocolError as error:
            raise InvalidParameter(str(error)) from None
        self._request = request
        self._opcode = websocket.BINARY if request.version >= (1, 28) else websocket.TEXT

    async def accept(self, tty: bool) -> HijackedStream:
        """Finish the handshake; return the engine's end of the pair."""
        head = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {self._key}\r\n\r\n"
        )
        client = await self._request.hijack.give_away(head.encode())
        ours, theirs = socket.socketpair()
        outer = socket.socket(fileno=client.fd)
        outer.setblocking(False)
        ours.setblocking(False)
        spawn(f"attach/ws:{self._request.name}", self._pump(outer, ours, client.initial, tty=tty))
        return HijackedStream(theirs.detach(), b"")

    async def _pump(self, outer: socket.socket, inner: socket.socket, initial: bytes, *, tty: bool) -> None:
        loop = asyncio.get_running_loop()
        with outer, inner:
            upward = spawn(f"attach/ws:{self._request.name}:stdin", self._from_client(outer, inner, initial))
            try:
                await self._to_client(outer, inner, tty=tty)
                await loop.sock_sendall(outer, websocket.encode(websocket.CLOSE, (1000).to_bytes(2, "big")))
            except OSError:
                pass
            finally:
                upward.cancel()
                await asyncio.wait([upward])

    async def _to_client(self, outer: socket.socket, inner: socket.socket, *, tty: bool) -> None:
        loop = asyncio.get_running_loop()
        decoder = stdcopy.Decoder()
        while data := await loop.sock_recv(inner, _PIECE):
            for _, payload in [(0, data)] if tty else decoder.feed(data):
                await loop.sock_sendall(outer, websocket.encode(self._opcode, payload))

    async def _from_client(self, outer: socket.socket, inner: socket.socket, initial: bytes) -> None:
        loop = asyncio.get_running_loop()
        decoder = websocket.Decoder()
        data = initial
        try:
            while True:
                for opcode, payload in decoder.feed(data):
                    if opcode == websocket.CLOSE:
                        return
                    if opcode == websocket.PING:
                        await loop.sock_sendall(outer, websocket.encode(websocket.PONG, payload))
                    elif opcode in (websocket.TEXT, websocket.BINARY):
                        await loop.sock_sendall(inner, payload)
                data = await loop.sock_recv(outer, _PIECE)
                if not data:
                    return
        except (OSError, websocket.ProtocolError):
            return
        finally:
            with contextlib.suppress(OSError):
                inner.shutdown(socket.SHUT_WR)
