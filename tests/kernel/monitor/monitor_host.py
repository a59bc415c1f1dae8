"""Monitors whose container is a plain process, and clients for their sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import struct
import sys
import tempfile

import satsuma
from satsuma.monitor import client

SOURCE = str(pathlib.Path(satsuma.__file__).parent.parent)
FAKE = str(pathlib.Path(__file__).with_name("fake_launcher.py"))
FAKE_COMMAND = (sys.executable, "-I", "-S", "-B", FAKE, SOURCE)


class Peer:
    """The client's end of an attached stream socket."""

    def __init__(self):
        self.sock, self.theirs = socket.socketpair()
        self.sock.setblocking(False)

    def spec(self, **options):
        return client.AttachSpec(fd=self.theirs.fileno(), **options)

    def sent(self):
        """Close our copy of the end that was handed over."""
        self.theirs.close()

    async def read_all(self):
        loop = asyncio.get_running_loop()
        data = b""
        while chunk := await loop.sock_recv(self.sock, 65536):
            data += chunk
        return data

    async def read_until(self, text):
        loop = asyncio.get_running_loop()
        data = b""
        while text not in data:
            chunk = await loop.sock_recv(self.sock, 65536)
            assert chunk, data
            data += chunk
        return data

    async def send(self, data):
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()
        self.theirs.close()


def frames(data):
    """Decode stdcopy frames to (stream, payload) pairs."""
    result = []
    while data:
        stream, size = struct.unpack(">BxxxL", data[:8])
        assert len(data) >= 8 + size
        result.append((stream, data[8 : 8 + size]))
        data = data[8 + size :]
    return result


def joined(data, stream):
    return b"".join(payload for number, payload in frames(data) if number == stream)


class Host:
    """A launcher with directories of its own."""

    def __init__(self, root, launcher):
        self.root = root
        self.exec_root = f"{root}/exec"
        self.launcher = launcher
        self.peers = []
        self.count = 0

    def peer(self):
        peer = Peer()
        self.peers.append(peer)
        return peer

    def spec(self, *args, **options):
        self.count += 1
        container_id = options.pop("container_id", f"{self.count:064x}")
        directory = f"{self.root}/{container_id}"
        os.makedirs(directory, exist_ok=True)
        log = options.pop("log", None) or {"driver": "json-file"}
        config = options.pop("config", None) or {"process": {"args": list(args)}}
        return client.LaunchSpec(
            container_id=container_id,
            config=config,
            exit_path=f"{directory}/exit.json",
            log=client.LogSpec(**{"path": f"{directory}/log", **log}),
            **options,
        )

    async def launch(self, *args, **options):
        return await self.launcher.launch(self.spec(*args, **options))

    def log(self, number=1):
        return pathlib.Path(f"{self.root}/{number:064x}/log").read_bytes()


@contextlib.asynccontextmanager
async def open_host(command):
    with tempfile.TemporaryDirectory(prefix="satsuma-monitor-") as root:
        os.mkdir(f"{root}/exec")
        launcher = await client.Launcher.start(f"{root}/exec", command=command)
        host = Host(root, launcher)
        yield host
        await launcher.close()
        for peer in host.peers:
            peer.close()
        for container_id in client.running_ids(host.exec_root):
            monitor = await client.reconnect(host.exec_root, container_id)
            if monitor is not None:
                await monitor.signal(9)
                await monitor.wait()
        errors = pathlib.Path(f"{root}/exec/monitor.log")
        assert not errors.exists(), errors.read_text()
