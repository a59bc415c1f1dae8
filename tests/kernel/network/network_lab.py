"""A maker of namespaces, a database in memory, and a look at what is left on the host."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from satsuma.linux import nftables as nft
from satsuma.linux import rtnetlink as rt
from satsuma.linux.nfnetlink import Netfilter
from satsuma.network import NetworkOptions, NetworkService
from satsuma.network.netns import make_netns

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespaces:
    """Makes network namespaces and runs code inside them, in one thread that leaves and comes back."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        self._pool.shutdown()
        os.close(self._home)

    def _setns(self, fd: int) -> None:
        if _libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    async def make(self) -> tuple[int, int]:
        """Make a namespace: its descriptor, and a NETLINK_ROUTE socket inside."""
        made = await make_netns()
        sock = os.dup(made.route.socket.fileno())
        made.route.close()
        return made.fd, sock

    def run(self, netns_fd: int, fn: Callable[[], T]) -> T:
        """Run *fn* inside a namespace."""

        def inside() -> T:
            self._setns(netns_fd)
            try:
                return fn()
            finally:
                self._setns(self._home)

        return self._pool.submit(inside).result()

    def serve_tcp(self, netns_fd: int, port: int, greeting: bytes) -> socket.socket:
        """Serve a greeting and the client's address on a TCP port inside a namespace."""

        def listen() -> socket.socket:
            server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("0.0.0.0", port))
            server.listen(16)
            return server

        server = self.run(netns_fd, listen)

        def loop() -> None:
            while True:
                try:
                    client, address = server.accept()
                except OSError:
                    return
                with client:
                    client.sendall(greeting + b" " + address[0].encode())

        threading.Thread(target=loop, daemon=True).start()
        return server

    def tcp_get(self, netns_fd: int | None, address: tuple[str, int], timeout: float = 1.0) -> bytes:
        """Connect from a namespace (or from the host) and return what the server says."""

        def get() -> bytes:
            with socket.create_connection(address, timeout) as client:
                data = b""
                while chunk := client.recv(4096):
                    data += chunk
                return data

        return get() if netns_fd is None else self.run(netns_fd, get)


class Rows:
    """The database's collection, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    class Row:
        def __init__(self, id: str, doc: bytes) -> None:
            self.id = id
            self.doc = doc

    def insert(self, id: str, doc: bytes, *, name: str | None = None, created_ns: int = 0) -> None:
        assert id not in self.rows
        self.rows[id] = doc

    def update(self, id: str, doc: bytes) -> None:
        assert id in self.rows
        self.rows[id] = doc

    def all(self) -> list[Rows.Row]:
        return [self.Row(id, doc) for id, doc in self.rows.items()]

    def delete(self, id: str) -> bool:
        return self.rows.pop(id, None) is not None


def left_of(service: NetworkService) -> set[str]:
    """Return the links and the table of one engine that are on the host now."""
    with rt.Route() as route, Netfilter() as netfilter:
        links = {
            link.name
            for link in route.links()
            if link.alias == service.table or link.name.startswith(service.stock.veth_prefix)
        }
        return links | ({service.table} & set(nft.list_tables(netfilter)))


async def settled(service: NetworkService) -> set[str]:
    """Wait until the kernel has taken dead namespaces apart; return what is left all the same."""
    for _ in range(100):
        if not left_of(service):
            break
        await asyncio.sleep(0.05)
    return left_of(service)


def new_service(rows: Rows, options: NetworkOptions) -> NetworkService:
    return NetworkService(rows, options=options)


def nft_list(table: str) -> str:
    """Return what nft(8) says about a table."""
    return subprocess.run(
        ["nft", "list", "table", "ip", table], capture_output=True, text=True, check=True
    ).stdout
