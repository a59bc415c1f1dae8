"""A builder on a fresh store with a busybox image, whose RUN is chroot(2) on the step's real overlay mount."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from satsuma.build import Builder, BuildOptions, RunStep, StepOutput
from satsuma.image import Image, ImageService
from satsuma.linux.root import Root
from satsuma.store import Store

# Name → content (str, bytes), None for a directory, or a TarInfo to be taken as it is.
Files = dict[str, Any]


def file(
    content: str | bytes, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime: int = 1_600_000_000
) -> Any:
    """Describe a file of a context."""
    return (content.encode() if isinstance(content, str) else content, mode, uid, gid, mtime)


def link(target: str) -> tarfile.TarInfo:
    """Describe a symbolic link of a context."""
    info = tarfile.TarInfo()
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def tar(files: Files, *, mode: str = "w") -> io.BytesIO:
    """Return the tar of *files*; a name that ends in a slash is a directory."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]
        for name, what in files.items():
            if isinstance(what, tarfile.TarInfo):
                what.name = name
                archive.addfile(what)
                continue
            info = tarfile.TarInfo(name.rstrip("/"))
            content, info.mode, info.uid, info.gid, info.mtime = (
                what if isinstance(what, tuple) else file(what or "", 0o755 if name.endswith("/") else 0o644)
            )
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    data.seek(0)
    return data


class ChrootRunner:
    """A step runner that is good enough for tests: no namespaces, no limits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.steps: list[RunStep] = []
        self.kept: list[tuple[str, int]] = []
        self.started = asyncio.Event()
        self.hang = False

    async def run(self, step: RunStep, output: StepOutput) -> int:
        self.steps.append(step)
        self.started.set()
        if self.hang:
            await asyncio.sleep(3600)
        done = await asyncio.to_thread(self._chroot, step)
        for number, data in ((1, done.stdout), (2, done.stderr)):
            if data:
                output(number, data)
        return done.returncode

    def keep(self, step: RunStep, code: int) -> None:
        self.kept.append((step.id, code))
        # Its owner now, it removes the container at once.
        self._store.snapshots.remove(step.id)

    def _chroot(self, step: RunStep) -> subprocess.CompletedProcess[bytes]:
        with self._store.snapshots.mounted(step.id) as root:

            def enter() -> None:
                os.fchdir(root.fd)
                os.chroot(".")
                os.chdir(step.cwd)

            env = dict(item.split("=", 1) for item in step.env)
            return subprocess.run(step.args, env=env, preexec_fn=enter, capture_output=True, check=False)


@dataclass
class Built:
    """What a build said."""

    objects: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(item.get("stream", "") for item in self.objects)

    @property
    def error(self) -> str:
        return "".join(item.get("error", "") for item in self.objects)

    @property
    def cached(self) -> int:
        return self.text.count("Using cache")


class Lab:
    """Store, images and builder of one test."""

    def __init__(self, directory: Path) -> None:
        self.store = Store.open(str(directory), collect=False)
        self.images = ImageService(self.store)
        self.images.bootstrap("busybox", lambda _message: None)
        self.runner = ChrootRunner(self.store)
        self.builder = Builder(self.store, self.images, self.runner)

    def close(self) -> None:
        self.store.close()

    async def build(self, dockerfile: str, files: Files | None = None, **options: Any) -> Built:
        """Build as `t:latest`; *files* is the rest of the context."""
        context = tar({"Dockerfile": dockerfile, **(files or {})})
        return await self.build_tar(context, **options)

    async def build_tar(self, context: Any, **options: Any) -> Built:
        built = Built()
        async for item in self.builder.build(BuildOptions(tags=("t",), **options), context):
            built.objects.append(item)
        return built

    async def ok(self, dockerfile: str, files: Files | None = None, **options: Any) -> Built:
        built = await self.build(dockerfile, files, **options)
        assert not built.error, built.error
        return built

    @property
    def image(self) -> Image:
        return self.images.resolve("t")

    def look(self, see: Callable[[Root], Any]) -> Any:
        """Call *see* with the merged tree of the built image."""
        with self.store.snapshots.view(self.image.chain_ids) as root:
            return see(root)

    def read(self, path: str) -> str:
        return str(self.look(lambda root: root.read_file(path).decode()))

    def status(self, path: str) -> tuple[str, int, int]:
        """Return (type and mode as `ls` shows it, uid, gid) of *path* itself."""
        status = self.look(lambda root: root.lstat(path))
        return stat.filemode(status.st_mode), status.st_uid, status.st_gid

    def tree(self, path: str) -> list[str]:
        """Return the paths below a directory."""
        top = path.strip("/").encode()
        found = self.look(lambda root: [p for p, _ in root.walk(top)])
        return [os.fsdecode(p[len(top) :].lstrip(b"/")) for p in found if p != top]

    def history(self) -> list[tuple[str, bool]]:
        """Return (created_by, empty_layer) of the steps after the base image, oldest first."""
        entries = self.image.config.history or []
        return [(entry.created_by, entry.empty_layer) for entry in entries[1:]]

    def left_behind(self) -> list[str]:
        """Return what a build must not leave: snapshots, layers half made, workspaces, mounts."""
        root = self.store.data_root
        found = [f"{d}/{n}" for d in ("containers", "layers/new", "build/tmp") for n in _names(f"{root}/{d}")]
        mounts = Path("/proc/self/mountinfo").read_text()
        return found + [line for line in mounts.splitlines() if root in line]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
