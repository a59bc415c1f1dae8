"""A private engine for tests: its own roots, socket and bridge; nothing of it may be left afterwards.

Every black-box test drives a real `satsumad` through a real client, `satsuma` or the stock `docker` command line.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from satsuma.linux.cgroup import layout

BIN = Path(sys.executable).parent
DOCKER = shutil.which("docker")
REFERENCE = os.environ.get("SATSUMA_TEST_REFERENCE", "")
"""Path of a dockerd: the black-box tests then judge that one, so that the suite is verified before it judges ours."""
FLAGS = os.environ.get("SATSUMA_TEST_FLAGS", "").split()
"""More flags for every daemon, so that all tests can be run in another mode."""
START_LIMIT = 60.0
"""Seconds after which a daemon that does not answer is broken; far above what a slow machine needs."""


class UnixConnection(http.client.HTTPConnection):
    """http.client over a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Daemon:
    """One satsumad with roots of its own; can be killed and started again on the same roots."""

    def __init__(self, *flags: str, root: Path | None = None) -> None:
        self.root = root or Path(tempfile.mkdtemp(prefix="satsuma-test-"))
        self.data_root = self.root / "data"
        self.exec_root = self.root / "run"
        self.socket = self.root / "satsuma.sock"
        self.log = self.root / "satsumad.log"
        self.bridge = "st" + self.root.name[-8:].replace("_", "x")
        self.flags = flags
        self.process: subprocess.Popen[bytes] | None = None
        self._bridges = set(bridges())

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def argv(self) -> list[str]:
        """Return the command line of this daemon."""
        if REFERENCE:
            flags = [flag for flag in self.flags if not flag.startswith("--live-restore")]
            subprocess.run(
                ["ip", "link", "add", self.bridge, "type", "bridge"], check=False, stderr=subprocess.DEVNULL
            )
            subprocess.run(
                ["ip", "addr", "add", f"10.{self.root.stat().st_ino % 250}.0.1/24", "dev", self.bridge],
                check=False,
                stderr=subprocess.DEVNULL,
            )
            return [
                REFERENCE,
                *(
                    "--host",
                    self.host,
                    "--data-root",
                    str(self.data_root),
                    "--exec-root",
                    str(self.exec_root),
                ),
                *("--pidfile", str(self.root / "pid"), "--bridge", self.bridge, "--live-restore", *flags),
            ]
        return [
            str(BIN / "satsumad"),
            *("--host", self.host, "--data-root", str(self.data_root), "--exec-root", str(self.exec_root)),
            *("--bridge", self.bridge, *FLAGS, *self.flags),
        ]

    def spawn(self, **environment: str) -> None:
        """Start it and do not wait for it."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **environment},
            )

    def start(self, **environment: str) -> Daemon:
        """Start it and return when it answers."""
        self.spawn(**environment)
        assert self.process is not None
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.api("GET", "/_ping")[0] == 200:
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"satsumad did not start:\n{self.log.read_text()[-4000:]}")

    def api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send one request; return the status and the decoded answer (text when it is not JSON)."""
        connection = UnixConnection(str(self.socket))
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            text = response.read().decode()
            try:
                return response.status, json.loads(text)
            except ValueError:
                return response.status, text
        finally:
            connection.close()

    def kill(self) -> None:
        """End it as a crash does: SIGKILL, to the daemon alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> float:
        """End it as an administrator does; return how long that took in seconds."""
        assert self.process is not None
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return time.monotonic() - started

    def remove_containers(self) -> None:
        """Remove every container, with its anonymous volumes."""
        for container in self.api("GET", "/containers/json?all=1")[1]:
            self.api("DELETE", f"/containers/{container['Id']}?force=1&v=1")

    def close(self) -> None:
        """Remove all that it made, end it, and check that nothing of it is left on the host."""
        try:
            if self.process is None or self.process.poll() is not None:
                self.start()
            self.remove_containers()
            self.terminate()
        finally:
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if REFERENCE:
                subprocess.run(["ip", "link", "del", self.bridge], check=False)
            left = [] if REFERENCE else self.leftovers() + self._remove_parent_group()
            shutil.rmtree(self.root, ignore_errors=True)
        assert not left, f"left behind by {self.root}: {left}"

    def _remove_parent_group(self) -> list[str]:
        """Remove the group that was named for all containers, which no engine does; return what stays."""
        if "--cgroup-parent" not in self.flags:
            return []
        name = self.flags[self.flags.index("--cgroup-parent") + 1].strip("/")
        for directory in cgroup_directories(name):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        return [f"group {directory}" for directory in cgroup_directories(name)]

    def leftovers(self, *, wait: float = 10.0) -> list[str]:
        """Return what is left of this daemon: mounts, interfaces, processes, cgroups.  What is deferred gets time."""
        deadline = time.monotonic() + wait
        while True:
            left = self._leftovers()
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def _leftovers(self) -> list[str]:
        root = str(self.root)
        left = [
            f"mount {line}" for line in Path("/proc/self/mounts").read_text().splitlines() if root in line
        ]
        # Veths and the nf_tables table are named after the exec-root.
        digest = hashlib.sha256(str(self.exec_root).encode()).hexdigest()
        left += [
            f"interface {name}"
            for name in os.listdir("/sys/class/net")
            if name == self.bridge or name.startswith(f"sts{digest[:4]}")
        ]
        # Those of other engines have their alias; one without an alias may be half made.
        left += [
            f"interface {name}"
            for name, alias in bridges().items()
            if alias == f"satsuma_{digest[:8]}" or (not alias and name not in self._bridges)
        ]
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
        left += [line for line in tables.splitlines() if line.endswith(f"satsuma_{digest[:8]}")]
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    command = (
                        Path(f"/proc/{entry}/cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode("utf-8", "replace")
                    )
                    if root in command:
                        left.append(f"process {entry} {command}")
        return left


def bridges() -> dict[str, str]:
    """Return name → alias of the bridges of networks that are there now."""
    found = {}
    for path in Path("/sys/class/net").glob("br-*/ifalias"):
        with contextlib.suppress(OSError):
            found[path.parent.name] = path.read_text().strip()
    return found


class Client:
    """A command line, `satsuma` or `docker`, that talks to one daemon."""

    def __init__(self, program: str, daemon: Daemon) -> None:
        self.program = program
        self.daemon = daemon
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(daemon.root),
            "DOCKER_HOST": daemon.host,
            "DOCKER_BUILDKIT": "0",
            "LC_ALL": "C.UTF-8",
        }

    @property
    def argv0(self) -> str:
        return str(BIN / "satsuma") if self.program == "satsuma" else str(DOCKER)

    def run(
        self,
        *arguments: str,
        input: bytes | str = b"",
        check: bool = True,
        timeout: float = 120,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run one command; without *check* the caller looks at returncode, stdout and stderr."""
        data = input.decode("utf-8", "surrogateescape") if isinstance(input, bytes) else input
        done = subprocess.run(
            [self.argv0, *arguments],
            input=data,
            env=self.environment,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            check=False,
            cwd=cwd,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{self.program} {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def __call__(self, *arguments: str, **kwargs: Any) -> str:
        """Run one command that must succeed and return what it printed, without the last line end."""
        return self.run(*arguments, **kwargs).stdout.rstrip("\n")

    def popen(self, *arguments: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        """Start one command; the caller owns it."""
        return subprocess.Popen([self.argv0, *arguments], env=self.environment, **kwargs)


def clients() -> list[str]:
    """Return the command lines that can be tried on this machine."""
    if REFERENCE:
        return ["docker"]
    return ["satsuma", "docker"] if DOCKER else ["satsuma"]


def bootstrap_busybox(daemon: Daemon) -> None:
    """Put the image `busybox:latest` on an engine."""
    if not REFERENCE:
        Client("satsuma", daemon)("image", "bootstrap", "busybox")
        return
    rootfs = daemon.root / "busybox"
    for directory in ("bin", "etc", "tmp", "root", "proc", "sys", "dev"):
        (rootfs / directory).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin")
    for applet in subprocess.run(
        ["/bin/busybox", "--list"], capture_output=True, text=True, check=True
    ).stdout.split():
        if applet != "busybox":
            (rootfs / "bin" / applet).hardlink_to(rootfs / "bin" / "busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (rootfs / "etc/group").write_text("root:x:0:\n")
    archive = subprocess.run(["tar", "-C", str(rootfs), "-c", "."], check=True, capture_output=True).stdout
    environment = Client("docker", daemon).environment
    subprocess.run(
        [str(DOCKER), "import", "-c", 'CMD ["sh"]', "-", "busybox"],
        input=archive,
        env=environment,
        check=True,
    )
    shutil.rmtree(rootfs)


@contextlib.contextmanager
def private_daemon(*flags: str) -> Iterator[Daemon]:
    """Start a daemon for one test and remove all of it."""
    daemon = Daemon(*flags)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def descriptors(pid: int) -> Counter[str]:
    """Return the open files of a process by kind or path; none when it has ended."""
    found: Counter[str] = Counter()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            found[os.readlink(f"/proc/{pid}/fd/{name}").partition(":[")[0]] += 1
    return found


def eventually(check: Any, *, limit: float = 30.0, message: str | Callable[[], str] = "") -> Any:
    """Call *check* until it returns something true and return that; the limit is generous, never a timing test.

    Args:
        message: what a failure says; a function is asked when it fails.
    """
    deadline = time.monotonic() + limit
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            text = message() if callable(message) else message
            raise AssertionError(text or f"{check} never became true")
        time.sleep(0.02)


def cgroup_directories(name: str) -> list[str]:
    """Return the directories of the control groups of that name (or systemd's, with a prefix), in every hierarchy."""
    found = []
    for point in dict.fromkeys(layout().mounts.values()):
        for directory, below, _ in os.walk(point):
            found += [f"{directory}/{one}" for one in below if one.removesuffix(".scope").endswith(name)]
    return found
