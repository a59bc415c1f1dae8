"""Engines under the clock: a private satsumad and, where it is installed, a private dockerd."""

from __future__ import annotations

import contextlib
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
from pathlib import Path

DOCKER_BRIDGE = "dockerbench0"


class UnixConnection(http.client.HTTPConnection):
    """http.client over a UNIX socket, kept alive between requests."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class Engine:
    """One daemon with its own roots; `client` is the docker command line that drives it."""

    def __init__(self, name: str, argv: list[str], root: Path, client: str) -> None:
        self.name = name
        self.socket = str(root / "engine.sock")
        self.root = root
        self.client = client
        self._argv = argv
        self._log = open(root / "log", "wb")
        self.process = self._start()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "DOCKER_HOST": f"unix://{self.socket}",
        }
        self._wait()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._argv, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def die_and_come_back(self) -> None:
        """Kill the daemon and start the next one; returns when it answers."""
        self.process.kill()
        self.process.wait()
        self.process = self._start()
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/_ping")[0] == 200:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise SystemExit(f"{self.name} did not start:\n{(self.root / 'log').read_text()[-2000:]}")

    def connection(self) -> UnixConnection:
        """Return a fresh connection to the API."""
        return UnixConnection(self.socket)

    def request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Send one request over a connection of its own."""
        connection = self.connection()
        try:
            return exchange(connection, method, path, body)
        finally:
            connection.close()

    def docker(
        self, *arguments: str, check: bool = True, **kwargs: object
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the stock command line against this engine."""
        return subprocess.run(
            [self.client, *arguments],
            env=self.environment,
            check=check,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )

    def stop(self) -> None:
        """Remove all containers, end the daemon and its files."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            for container in json.loads(self.request("GET", "/containers/json?all=1")[1]):
                self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()


def exchange(connection: UnixConnection, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Send one request over a kept-alive connection and read the whole answer."""
    data = None if body is None else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    response = connection.getresponse()
    return response.status, response.read()


@contextlib.contextmanager
def engines(wanted: set[str], *flags: str):  # type: ignore[no-untyped-def]
    """Start the wanted engines and yield them; their directories are gone afterwards.

    Args:
        flags: more of them for satsumad.
    """
    root = Path(tempfile.mkdtemp(prefix="satsuma-bench-"))
    running: list[Engine] = []
    rules = (
        subprocess.run(["iptables-save"], capture_output=True, check=False)
        if shutil.which("iptables")
        else None
    )
    try:
        client = shutil.which("docker")
        if client is None:
            raise SystemExit(
                "the benchmark drives the engine with the stock docker command line, which is not installed"
            )
        if "satsuma" in wanted:
            running.append(start_satsuma(root / "satsuma", client, *flags))
        if "dockerd" in wanted and shutil.which("dockerd"):
            running.append(start_dockerd(root / "dockerd", client))
        for engine in running:
            load_busybox(engine)
        yield running
    finally:
        for engine in running:
            engine.stop()
        if any(engine.name == "dockerd" for engine in running):
            # dockerd leaves its chains and a FORWARD policy of DROP behind.
            subprocess.run(["ip", "link", "del", DOCKER_BRIDGE], check=False, stderr=subprocess.DEVNULL)
            if rules is not None:
                subprocess.run(["iptables-restore"], input=rules.stdout, check=False)
        for mount in reversed([line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]):
            if mount.startswith(str(root)):
                subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(root, ignore_errors=True)


def start_satsuma(root: Path, client: str, *flags: str) -> Engine:
    """Start the satsumad of this environment."""
    root.mkdir()
    argv = [
        str(Path(sys.executable).with_name("satsumad")),
        *(
            "--host",
            f"unix://{root}/engine.sock",
            "--data-root",
            f"{root}/data",
            "--exec-root",
            f"{root}/run",
        ),
        *("--bridge", "satsumabench0"),
        *flags,
    ]
    return Engine("satsuma", argv, root, client)


def start_dockerd(root: Path, client: str) -> Engine:
    """Start the installed dockerd beside it, with its usual overlay storage and iptables."""
    root.mkdir()
    subprocess.run(
        ["ip", "link", "add", "dockerbench0", "type", "bridge"], check=False, stderr=subprocess.DEVNULL
    )
    subprocess.run(
        ["ip", "addr", "add", "172.30.0.1/16", "dev", "dockerbench0"], check=False, stderr=subprocess.DEVNULL
    )
    argv = [
        "dockerd",
        *(
            "--host",
            f"unix://{root}/engine.sock",
            "--data-root",
            f"{root}/data",
            "--exec-root",
            f"{root}/run",
        ),
        *("--pidfile", f"{root}/pid", "--bridge", DOCKER_BRIDGE, "--log-level", "error"),
    ]
    return Engine("dockerd", argv, root, client)


def load_busybox(engine: Engine) -> None:
    """Give every engine the same one-layer image of the static busybox."""
    rootfs = engine.root / "rootfs"
    for directory in ("bin", "etc", "tmp", "proc", "sys", "dev"):
        (rootfs / directory).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for applet in ("sh", "true", "sleep", "httpd", "cat", "echo", "nc"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (rootfs / "index.html").write_text("hello\n")
    archive = subprocess.run(["tar", "-C", str(rootfs), "-c", "."], check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(
        [engine.client, "import", "-", "busybox:latest"],
        input=archive,
        env=engine.environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(rootfs)
