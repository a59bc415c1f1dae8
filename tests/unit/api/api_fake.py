"""An engine without containers: answers are canned, calls are recorded, streams are driven by the test."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from satsuma.base.errors import Conflict, InvalidParameter, NotFound, System
from satsuma.spec.docker import CreateResponse
from satsuma.wire import stdcopy

ID = "a3a5534c3af8f27320e6f9be240d679543936651fce939ede5535d9eaeb91c57"


class Waiter:
    def __init__(self, engine: Any) -> None:
        self.future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.closed = False
        engine.waiters.append(self)

    async def result(self) -> dict[str, Any]:
        return await self.future

    def close(self) -> None:
        self.closed = True


class Log:
    def __init__(self, tty: bool, frames: Any) -> None:
        self.tty = tty
        self.frames = frames


class Containers:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    def _note(self, *call: Any) -> None:
        self.engine.calls.append(call)

    def _find(self, ref: str) -> None:
        if ref == "nope":
            raise NotFound("No such container: nope")

    async def create(self, name: Any, body: Any, platform: str) -> CreateResponse:
        self._note("create", name, body, platform)
        if body.image == "nope":
            raise NotFound("No such image: nope:latest")
        return CreateResponse(id=ID, warnings=[])

    async def list(self, *, all: bool, limit: int, size: bool, filters: Any) -> Any:
        self._note("list", all, limit, size, filters)
        return [
            {
                "Id": ID,
                "Names": ["/web"],
                "Image": "bb:latest",
                "ImageID": "sha256:" + ID,
                "Command": "sleep 100",
                "Created": 1795494164,
                "Ports": [],
                "Labels": {},
                "State": "running",
                "Status": "Up 3 seconds",
                "HostConfig": {"NetworkMode": "bridge", "Annotations": {"a": "b"}},
                "NetworkSettings": {"Networks": {}},
                "Mounts": [],
            }
        ]

    async def inspect(self, ref: str, *, size: bool = False) -> Any:
        self._find(ref)
        return {
            "Id": ID,
            "Name": "/web",
            "Config": {"Hostname": "host", "Tty": False},
            "NetworkSettings": {"Networks": {"mine": {"Aliases": ["web"]}, "bridge": {"Aliases": None}}},
        }

    async def start(self, ref: str, *, detach_keys: Any = None) -> bool:
        self._find(ref)
        if ref == "broken":
            raise System("no space left on device")
        if ref == "bug":
            raise RuntimeError("programming error")
        if ref == "slow":
            await self.engine.gate.wait()
            self._note("started")
        return ref != "running"

    async def stop(self, ref: str, *, signal: Any = None, timeout: Any) -> bool:
        self._note("stop", signal, timeout)
        return True

    async def kill(self, ref: str, signal: str) -> None:
        self._note("kill", signal)
        raise Conflict(f"container {ref} is not running")

    async def wait(self, ref: str, condition: str) -> Waiter:
        self._find(ref)
        self._note("wait", condition)
        return Waiter(self.engine)

    async def resize(self, ref: str, h: int, w: int) -> None:
        self._note("resize", h, w)

    async def changes(self, ref: str) -> Any:
        return None

    async def logs(self, ref: str, **options: Any) -> Log:
        self._find(ref)
        self._note("logs", options)
        return Log(ref == "tty", self._frames(ref))

    async def _frames(self, ref: str) -> Any:
        try:
            for number in range(100_000 if ref == "endless" else 3):
                yield 1 + number % 2, b"line %d\n" % number
            if ref == "failing":
                raise System("disk is gone")
            if ref in ("endless", "follow"):
                await asyncio.Event().wait()
        finally:
            self._note("logs closed")

    async def attach(self, ref: str, *, hijack: Any, **options: Any) -> None:
        self._find(ref)
        self._note("attach", options)
        await asyncio.sleep(self.engine.attach_delay)
        stream = await hijack.accept(tty=ref == "tty")
        await self.engine.echo(stream, framed=ref != "tty")

    async def _export(self, ref: str) -> Any:
        self._find(ref)
        for _ in range(3):
            yield b"x" * 100_000
        if ref == "failing":
            raise System("disk is gone")

    def export(self, ref: str) -> Any:
        return self._export(ref)

    async def archive_stat(self, ref: str, path: str) -> Any:
        self._find(ref)
        return {
            "name": "etc",
            "size": 4096,
            "mode": 2147484141,
            "mtime": "2026-01-01T00:00:00Z",
            "linkTarget": "",
        }

    async def archive_get(self, ref: str, path: str) -> Any:
        self._find(ref)
        return await self.archive_stat(ref, path), self._export("x")

    async def archive_put(self, ref: str, path: str, body: Any, **options: Any) -> None:
        self._find(ref)

        def consume() -> int:
            if ref == "partial":
                body.read(10)
                raise InvalidParameter("container rootfs is marked read-only")
            size = 0
            while piece := body.read(50_000):
                size += len(piece)
            return size

        size = await asyncio.get_running_loop().run_in_executor(None, consume)
        self._note("put", ref, path, size)

    async def commit(self, **options: Any) -> str:
        self._note("commit", options)
        return "sha256:" + ID

    async def exec_create(self, ref: str, body: Any) -> str:
        self._find(ref)
        return ID

    async def exec_start(self, exec_id: str, body: Any, hijack: Any) -> None:
        self._note("exec_start", body)
        if exec_id == "nope":
            raise NotFound("No such exec instance: nope")
        if exec_id == "unstartable":
            raise InvalidParameter("OCI runtime exec failed: nope")
        if hijack is not None:
            await self.engine.echo(await hijack.accept(tty=body.tty), framed=not body.tty)


class Images:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    async def list(self, **options: Any) -> Any:
        return [
            {"Id": "sha256:1", "RepoTags": [], "RepoDigests": [], "Size": 5, "Containers": 2},
            {"Id": "sha256:2", "RepoTags": ["a:b"], "RepoDigests": [], "Size": 5, "Containers": 2},
        ]

    async def inspect(self, ref: str) -> Any:
        if ref == "nope":
            raise NotFound("No such image: nope:latest")
        return {"Id": "sha256:1", "Name": ref, "Size": 5, "Created": "", "Config": {"Cmd": ["sh"]}}

    async def remove(self, ref: str, *, force: bool, noprune: bool) -> Any:
        return [{"Untagged": ref}]

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        self.engine.calls.append(("tag", ref, repo, tag))

    async def load(self, body: Any, *, quiet: bool) -> Any:
        data = await asyncio.get_running_loop().run_in_executor(None, body.read)
        self.engine.calls.append(("load", len(data)))
        if data == b"bad":
            raise InvalidParameter("invalid archive")
        yield {"stream": "Loaded image: <a&b>\n"}

    async def pull(self, ref: str, **options: Any) -> Any:
        self.engine.calls.append(("pull", ref, options))
        if ref == "nope":
            raise NotFound("pull access denied for nope")
        yield {"status": "Pulling"}
        raise System("network is gone")


class System_:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    async def ping(self) -> dict[str, str]:
        return {"Builder-Version": "1", "Swarm": "inactive"}

    async def version(self) -> Any:
        return {
            "Version": "28.5.2",
            "ApiVersion": "1.51",
            "MinAPIVersion": "1.24",
            "Os": "linux",
            "Arch": "amd64",
        }

    async def info(self) -> Any:
        return {
            "Containerd": {},
            "FirewallBackend": {},
            "Runtimes": {"runc": {"path": "runc", "status": {}}},
            "RegistryConfig": {},
            "RuncCommit": {"ID": "x"},
        }

    async def events(self, *, since_ns: Any, until_ns: Any, filters: Any) -> Any:
        self.engine.calls.append(("events", since_ns, until_ns, filters))
        queue = self.engine.event_queue
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self.engine.calls.append(("events closed",))


class Networks:
    async def inspect(self, ref: str, *, verbose: bool, scope: str) -> Any:
        raise NotFound(f"network {ref} not found")


class Volumes:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    async def prune(self, filters: Any) -> Any:
        self.engine.calls.append(("volumes prune", filters))
        return {"VolumesDeleted": [], "SpaceReclaimed": 0}


class Builds:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    async def build(self, options: Any, context: Any) -> Any:
        self.engine.calls.append(("build", options))
        if context is None:
            yield {"stream": "no context\n"}
            return
        data = await asyncio.get_running_loop().run_in_executor(None, context.read)
        yield {"stream": f"context {len(data)}\n"}
        yield {"aux": {"ID": "sha256:" + ID}}


class FakeEngine:
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.waiters: list[Waiter] = []
        self.event_queue: asyncio.Queue[Any] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.attach_delay = 0.0
        self.containers = Containers(self)
        self.images = Images(self)
        self.system = System_(self)
        self.networks = Networks()
        self.volumes = Volumes(self)
        self.builder = Builds(self)

    async def echo(self, stream: Any, *, framed: bool) -> None:
        """Send back what the client sends, in capitals; at its half-close say so and close."""
        loop = asyncio.get_running_loop()
        with socket.socket(fileno=stream.fd) as sock:
            sock.setblocking(False)
            data = stream.initial
            while True:
                if data:
                    upper = data.upper()
                    await loop.sock_sendall(sock, stdcopy.encode(1, upper) if framed else upper)
                data = await loop.sock_recv(sock, 65536)
                if not data:
                    break
            bye = b"EOF seen"
            await loop.sock_sendall(sock, stdcopy.encode(2, bye) if framed else bye)
