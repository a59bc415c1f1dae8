"""Hostile images, bundles and helpers, and a tree of the host that nothing of them may ever touch."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
from satsuma.runtime import default_spec

INTERPRETER = os.path.realpath(sys.executable)
PROBES = Path(__file__).parent
GUARDED = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname")


class Sentinel:
    """A tree of the host; `assert_intact` compares it, and what else must not change, with how it was."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.victim = directory / "victim"
        self.empty = directory / "dir"
        directory.mkdir(mode=0o755)
        self.empty.mkdir()
        self.victim.write_text("victim")
        self.victim.chmod(0o600)
        os.mkfifo(directory / "fifo")
        self.before = self._snapshot()

    def _snapshot(self) -> list[tuple[Any, ...]]:
        answer: list[tuple[Any, ...]] = []
        for path in sorted([self.directory, *self.directory.rglob("*")]):
            info = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
            answer.append(
                (
                    *(str(path), info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_size),
                    *(info.st_mtime_ns, content, os.listxattr(path, follow_symlinks=False)),
                )
            )
        answer.append((digest(INTERPRETER),))
        answer += [(path, Path(path).read_text()) for path in GUARDED if os.path.exists(path)]
        return answer

    def assert_intact(self) -> None:
        assert self._snapshot() == self.before


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def python_binds() -> list[tuple[str, str]]:
    """Return the (host, container) directories that a container needs to run this interpreter."""
    directories = ["/usr", "/lib", "/lib64"]
    if not INTERPRETER.startswith("/usr/"):
        directories.append(os.path.realpath(sys.base_prefix))
    return [(d, d) for d in directories if os.path.isdir(d)] + [(str(PROBES), "/probe")]


def python_flags() -> list[str]:
    """Return the flags of `run` for `python_binds`."""
    return [word for source, target in python_binds() for word in ("-v", f"{source}:{target}:ro")]


class Images:
    """Images made of a few entries each, on one engine."""

    def __init__(self, client: harness.Client, directory: Path) -> None:
        self._client = client
        self._directory = directory
        self._busybox = Path("/bin/busybox").read_bytes()
        applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True)
        self._applets = [name for name in applets.stdout.split() if name != "busybox"]

    def make(
        self,
        entries: dict[str, bytes | tuple[str, str]],
        *changes: str,
        busybox: bool = True,
        xattrs: dict[str, dict[str, str]] | None = None,
        modes: dict[str, int] | None = None,
    ) -> str:
        """Import an image and return its name.

        Args:
            entries: path -> content of a file (ends with "/": a directory), or ("symlink", target), ("fifo", ""),
                ("char", "1:5").
            changes: Dockerfile instructions for the image's config.
        """
        name = f"hostile-{uuid.uuid4().hex[:10]}"
        path = self._directory / f"{name}.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            if busybox:
                _add(tar, "bin/busybox", self._busybox, mode=0o755)
                for applet in self._applets:
                    if f"bin/{applet}" not in entries:
                        _add(tar, f"bin/{applet}", ("symlink", "busybox"))
            for entry, content in entries.items():
                mode = (modes or {}).get(entry, 0o755)
                _add(tar, entry, content, mode=mode, xattrs=(xattrs or {}).get(entry))
        flags = [word for change in changes for word in ("-c", change)]
        self._client("import", *flags, str(path), name)
        path.unlink()
        return name


def _add(
    tar: tarfile.TarFile,
    name: str,
    content: bytes | tuple[str, str],
    *,
    mode: int = 0o755,
    xattrs: dict[str, str] | None = None,
) -> None:
    member = tarfile.TarInfo(name.rstrip("/"))
    member.mode = mode
    for key, value in (xattrs or {}).items():
        member.pax_headers[f"SCHILY.xattr.{key}"] = value
    if isinstance(content, bytes):
        if name.endswith("/"):
            member.type = tarfile.DIRTYPE
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
        return
    kind, argument = content
    if kind == "symlink":
        member.type, member.linkname = tarfile.SYMTYPE, argument
    elif kind == "fifo":
        member.type = tarfile.FIFOTYPE
    else:
        member.type = tarfile.CHRTYPE
        member.devmajor, member.devminor = map(int, argument.split(":"))
    tar.addfile(member)


class Bundles:
    """OCI bundles with a busybox root, run by satsuma-oci."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.prefix = f"sec{uuid.uuid4().hex[:8]}"
        self._count = 0

    def make(self, *args: str) -> tuple[Path, dict[str, Any]]:
        """Return the directory of a new bundle, with Docker's defaults, and its configuration (not yet written)."""
        self._count += 1
        bundle = self.directory / f"b{self._count}"
        rootfs = bundle / "rootfs"
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            (rootfs / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", rootfs / "bin/busybox")
        for name in "sh ls cat id sleep true readlink stat grep pwd echo tty mount umount head mknod".split():
            (rootfs / "bin" / name).symlink_to("busybox")
        (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (rootfs / "etc/group").write_text("root:x:0:\n")
        caps = default_spec.DEFAULT_CAPABILITIES
        return bundle, {
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "hostname": "bundle",
            "process": {
                "args": list(args),
                "env": ["PATH=/bin"],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "capabilities": default_spec.capability_sets(caps),
            },
            "mounts": default_spec.default_mounts(),
            "linux": {
                "cgroupsPath": f"/{self.prefix}/{self._count}",
                "namespaces": [
                    {"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network", "cgroup")
                ],
                "maskedPaths": default_spec.masked_paths(),
                "readonlyPaths": list(default_spec.READONLY_PATHS),
                "resources": {"devices": [dict(rule) for rule in default_spec.DEVICE_RULES]},
                "seccomp": default_spec.default_seccomp(caps),
            },
        }

    def oci(self, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run the program."""
        return subprocess.run(
            [str(harness.BIN / "satsuma-oci"), "--root", str(self.state), *args],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            **kwargs,
        )

    def run(self, bundle: Path, config: dict[str, Any], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Write the configuration and `run` the bundle to its end."""
        (bundle / "config.json").write_text(json.dumps(config))
        name = f"{self.prefix}-{bundle.name}"
        try:
            return self.oci("run", "-b", str(bundle), name, **kwargs)
        finally:
            self.oci("delete", "--force", name)

    @contextlib.contextmanager
    def running(self, bundle: Path, config: dict[str, Any]) -> Iterator[str]:
        """`run` the bundle detached; yield its name."""
        (bundle / "config.json").write_text(json.dumps(config))
        name = f"{self.prefix}-{bundle.name}"
        command = [
            str(harness.BIN / "satsuma-oci"),
            "--root",
            str(self.state),
            "run",
            "-d",
            "-b",
            str(bundle),
            name,
        ]
        log = bundle / "log"
        # A file: the container keeps its streams, and a pipe would never end.
        with open(log, "wb") as stderr:
            null = subprocess.DEVNULL
            done = subprocess.run(command, stdin=null, stdout=null, stderr=stderr, timeout=60, check=False)
        assert done.returncode == 0, log.read_text()
        try:
            yield name
        finally:
            self.oci("delete", "--force", name)


class Container:
    """A container on the engine that sleeps until the test is over."""

    def __init__(
        self, client: harness.Client, *flags: str, image: str = "busybox", command: tuple[str, ...] = ()
    ) -> None:
        self._client = client
        self.id = client("run", "-d", *flags, image, *(command or ("sleep", "1000")))

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.run("rm", "-f", "-v", self.id, check=False)

    def exec(self, *words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """`exec`; flags first, then the command."""
        flags = []
        rest = list(words)
        while rest and rest[0].startswith("-"):
            flags.append(rest.pop(0))
            if flags[-1] in ("-u", "-w", "-e"):
                flags.append(rest.pop(0))
        return self._client.run("exec", *flags, self.id, *rest, check=False, **kwargs)

    @property
    def pid(self) -> int:
        return int(self._client("inspect", "--format", "{{.State.Pid}}", self.id))


class Swapper:
    """A process that exchanges two names in a directory as fast as it can."""

    def __init__(self, directory: Path, one: str, other: str) -> None:
        code = (
            "import ctypes, sys\n"
            "libc = ctypes.CDLL(None)\n"
            "a, b = (sys.argv[i].encode() for i in (1, 2))\n"
            "while True: libc.syscall(316, -100, a, -100, b, 2)\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-ISB", "-c", code, str(directory / one), str(directory / other)]
        )

    def __enter__(self) -> Swapper:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
