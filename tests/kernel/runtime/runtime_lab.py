"""Containers from a busybox root, started directly by the runtime."""

from __future__ import annotations

import copy
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from satsuma.linux import syscalls
from satsuma.linux.cgroup import Cgroup
from satsuma.runtime import create, default_spec
from satsuma.runtime import exec as runtime_exec
from satsuma.runtime.config import parse
from satsuma.runtime.cradle import Cradle
from satsuma.runtime.plan import Extras

APPLETS = (
    "sh ls cat id ps mount umount hostname true false sleep env pwd stat grep head tail wc find readlink dd mknod "
    "tty stty echo kill mkdir touch chmod chown rm ln test seq tr cut sort umask ulimit nc ip yes"
).split()


class Lab:
    """A directory with one read-only layer; every container gets its own writable one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.layer = directory / "layer"
        self.prefix = f"/satsuma-test-{uuid.uuid4().hex[:8]}"
        self.counter = 0
        for name in ("bin", "etc", "tmp", "proc", "home/bob"):
            (self.layer / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", self.layer / "bin/busybox")
        for name in APPLETS:
            (self.layer / "bin" / name).symlink_to("busybox")
        (self.layer / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n"
        )
        (self.layer / "etc/group").write_text("root:x:0:\nbob:x:1000:\naudio:x:29:bob\n")

    def spec(self, *args: str, **process: object) -> dict:
        """Return Docker's defaults for a container that runs *args*."""
        caps = default_spec.DEFAULT_CAPABILITIES
        return {
            "ociVersion": "1.2.0",
            "hostname": "lab",
            "process": {
                "args": list(args),
                "env": ["PATH=/bin"],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "capabilities": default_spec.capability_sets(caps),
                **process,
            },
            "mounts": default_spec.default_mounts(),
            "linux": {
                "namespaces": [
                    {"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network", "cgroup")
                ],
                "maskedPaths": default_spec.masked_paths(),
                "readonlyPaths": list(default_spec.READONLY_PATHS),
                "sysctl": dict(default_spec.NET_SYSCTLS),
                "resources": {"devices": copy.deepcopy(list(default_spec.DEVICE_RULES))},
                "seccomp": default_spec.default_seccomp(caps),
            },
        }

    def overlay(self) -> dict:
        """Return a fresh writable layer over the common one."""
        self.counter += 1
        base = self.directory / f"c{self.counter}"
        for name in ("upper", "work"):
            (base / name).mkdir(parents=True)
        return {
            "lowerdirs": [str(self.layer)],
            "upperdir": str(base / "upper"),
            "workdir": str(base / "work"),
        }

    @contextmanager
    def container(
        self, spec: dict, *, stdio=(-1, -1, -1), cradle: Cradle | None = None, **extras: object
    ) -> Iterator[tuple[create.Init, Cgroup]]:
        """Start a container; kill and remove it at the end."""
        group = Cgroup(f"{self.prefix}/c{self.counter + 1}")
        overlay = extras.pop("overlay", None) or self.overlay()
        init = create.start(
            parse(spec),
            extras=Extras(overlay=overlay, **extras),  # type: ignore[arg-type]
            stdio=stdio,
            cgroup=group,
            cradle=cradle,
        )
        reaped = False
        try:
            yield init, group
        finally:
            group.kill_all()
            if not reaped:
                try:
                    os.waitid(os.P_PIDFD, init.pidfd, os.WEXITED)
                except ChildProcessError:
                    pass
            os.close(init.pidfd)
            if init.console_master_fd is not None:
                os.close(init.console_master_fd)
            group.remove()

    def run(self, spec: dict, **extras: object) -> tuple[int, str]:
        """Run a container to its end; return (status, output)."""
        read, write = os.pipe()
        try:
            with self.container(spec, stdio=(-1, write, write), **extras) as (init, _):
                os.close(write)
                write = -1
                output = _read_all(read)
                return _status(init), output
        finally:
            os.close(read)
            if write >= 0:
                os.close(write)

    def sh(
        self, script: str, change: Callable[[dict], None] | None = None, **extras: object
    ) -> tuple[int, str]:
        """Run a shell script in a container."""
        spec = self.spec("sh", "-c", script)
        if change is not None:
            change(spec)
        return self.run(spec, **extras)

    def exec(
        self, init: create.Init, group: Cgroup, spec: dict, process: dict, **kw: object
    ) -> tuple[int, str]:
        """Run a further process; return (status, output)."""
        read, write = os.pipe()
        try:
            try:
                made = runtime_exec.start_exec(
                    init.pid,
                    parse(spec),
                    process,
                    init_pidfd=init.pidfd,
                    stdio=(-1, write, write),
                    cgroup=group,
                    **kw,  # type: ignore[arg-type]
                )
            finally:
                os.close(write)
            output = _read_all(read)
        finally:
            os.close(read)
        status = _status(made)
        os.close(made.pidfd)
        return status, output

    def close(self) -> None:
        """Remove the cgroups."""
        Cgroup(self.prefix).remove()


def _read_all(fd: int) -> str:
    chunks = []
    while chunk := os.read(fd, 65536):
        chunks.append(chunk)
    return b"".join(chunks).decode()


def _status(init: create.Init) -> int:
    result = os.waitid(os.P_PIDFD, init.pidfd, os.WEXITED)
    assert result is not None
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


def run_child(function: Callable[[], None]) -> int:
    """Run *function* in a child process; return its exit status (0: it returned)."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


__all__ = ["Lab", "run_child", "syscalls"]
