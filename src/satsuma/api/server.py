"""The API's server: sockets in, connections out, and an orderly end.

Owns listening and shutting down.  Must not know endpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import satsuma
from satsuma.api.application import Application
from satsuma.api.connection import Connection
from satsuma.api.listen import Host, identity, open_sockets, parse_host
from satsuma.api.router import Router
from satsuma.api.routes import ROUTES

if TYPE_CHECKING:
    from satsuma.api.facade import Engine

_log = logging.getLogger("satsuma.api")

BACKLOG = 4096
GRACE = 1.0
"""Seconds that requests in progress may take after `close`; a longer `stop -t 30` is cut off, not waited for."""


class Server:
    """A running server; `hosts` says where it listens."""

    def __init__(self, app: Application, servers: list[asyncio.Server], hosts: list[Host]) -> None:
        self._app = app
        self._servers = servers
        self.hosts = hosts
        self._files = {host.address: identity(host.address) for host in hosts if host.kind == "unix"}

    async def close(self, grace: float = GRACE) -> None:
        """Stop listening, cancel streams, let everything else finish within *grace* seconds."""
        for path, file in self._files.items():
            if file is not None and identity(path) == file:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        for server in self._servers:
            server.close()
        for connection in list(self._app.connections):
            connection.shut_down()
            if connection.is_streaming:
                connection.cancel()
        deadline = asyncio.get_running_loop().time() + grace
        while self._app.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self._app.connections):
            connection.cancel()
            connection.abort()
        for server in self._servers:
            await server.wait_closed()


async def serve(
    engine: Engine,
    hosts: Sequence[str],
    *,
    group: str = "docker",
    experimental: bool = False,
    product_version: str = satsuma.__version__,
) -> Server:
    """Start to answer clients.

    Args:
        hosts: `-H` values: `unix:///run/satsuma.sock`, `tcp://127.0.0.1:2375`, `fd://`.
        group: owner group of unix sockets.
    Raises:
        System: an address cannot be had.
        InvalidParameter: a malformed host, an unknown group.
    """
    app = Application(engine, Router(ROUTES), product_version=product_version, experimental=experimental)
    loop = asyncio.get_running_loop()
    parsed = [parse_host(host) for host in hosts]
    sockets: list[socket.socket] = []
    servers: list[asyncio.Server] = []
    try:
        for host in parsed:
            sockets += open_sockets(host, group=group)
        for sock in sockets:
            sock.setblocking(False)
            servers.append(await _listen(loop, app, sock))
    except BaseException:
        for server in servers:
            server.close()
        for sock in sockets:
            sock.close()
        raise
    return Server(app, servers, parsed)


async def _listen(loop: asyncio.AbstractEventLoop, app: Application, sock: socket.socket) -> asyncio.Server:
    def connect() -> Connection:
        return Connection(app, loop)

    if sock.family == socket.AF_UNIX:
        return await loop.create_unix_server(connect, sock=sock, backlog=BACKLOG)
    return await loop.create_server(connect, sock=sock, backlog=BACKLOG)
