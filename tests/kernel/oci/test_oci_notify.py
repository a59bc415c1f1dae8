"""NOTIFY_SOCKET: what a container says of its readiness reaches whoever has started the runtime."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_lab import ENV, RUNC, Runtime, pair, until

# In Python, because busybox has nothing that sends datagrams.
PROGRAM = """
import os, socket
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect(os.environ["NOTIFY_SOCKET"])
sock.send(b"STATUS=not for the host")
sock.send(b"READY=1\\nSTATUS=there\\n")
print(os.environ["NOTIFY_SOCKET"], flush=True)
"""


class Manager:
    """A service manager's socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))

    def messages(self, timeout: float = 10.0) -> list[str]:
        """Return the messages up to the barrier, which is answered."""
        found = []
        while select.select([self.sock], [], [], timeout)[0]:
            data, fds, _, _ = socket.recv_fds(self.sock, 4096, 4)
            for fd in fds:
                os.close(fd)
            if data == b"BARRIER=1":
                assert fds
                return found
            found.append(data.decode())
        return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "manager.sock")
    yield made
    made.sock.close()


def use_python(box: Runtime, then: str = "") -> None:
    """Let the program be Python, of the host."""
    for name in ("usr", "lib", "lib64"):
        if os.path.isdir(f"/{name}"):
            (box.rootfs / name).mkdir(exist_ok=True)
            box.config["mounts"].append(
                {
                    "destination": f"/{name}",
                    "type": "bind",
                    "source": os.path.realpath(f"/{name}"),
                    "options": ["rbind", "ro"],
                }
            )
    box.args("/usr/bin/python3", "-c", PROGRAM + then)


SLEEP = "import time; time.sleep(100)"


def background(box: Runtime, manager: Manager, *args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        box.argv(*args),
        env={**ENV, "NOTIFY_SOCKET": str(manager.path)},
        stdout=subprocess.DEVNULL,
        cwd=box.directory,
    )


def lines(messages: list[str]) -> set[str]:
    return {line for message in messages for line in message.splitlines()}


@pytest.mark.parametrize("message", ["READY=1", "STATUS=x\\nREADY=1\\n"])
def test_start_returns_when_the_program_is_ready(box: Runtime, manager: Manager, message: str) -> None:
    use_python(box, SLEEP)
    box.process["args"][2] = box.process["args"][2].replace("READY=1\\nSTATUS=there\\n", message)
    box.write()
    env = {"NOTIFY_SOCKET": str(manager.path)}
    assert box("create", "--bundle", str(box.bundle), box.id, env=env).code == 0
    pid = box.state()["pid"]
    assert not select.select([manager.sock], [], [], 0.1)[0]
    starting = background(box, manager, "start", box.id)
    assert lines(manager.messages()) == {"READY=1", f"MAINPID={pid}"}
    assert starting.wait(10) == 0
    assert box.state()["status"] == "running"


def test_run_in_the_foreground_is_the_main_process_itself(box: Runtime, manager: Manager) -> None:
    use_python(box, SLEEP)
    box.write()
    running = background(box, manager, "run", "--bundle", str(box.bundle), box.id)
    assert lines(manager.messages()) == {"READY=1", f"MAINPID={running.pid}"}
    running.send_signal(signal.SIGKILL)
    running.wait(10)


def test_run_detached_waits_too_and_a_user_namespace_is_no_obstacle(box: Runtime, manager: Manager) -> None:
    use_python(box, SLEEP)
    box.user_namespace()
    (box.rootfs / "run/notify").mkdir(parents=True)
    box.write()
    running = background(box, manager, "run", "--detach", "--bundle", str(box.bundle), box.id)
    said = lines(manager.messages())
    assert running.wait(10) == 0
    assert said == {"READY=1", f"MAINPID={box.state()['pid']}"}


def test_a_program_that_ends_unready_holds_nobody(box: Runtime, manager: Manager) -> None:
    box.args("true")
    box.write()
    env = {"NOTIFY_SOCKET": str(manager.path)}
    assert box("run", "--bundle", str(box.bundle), box.id, env=env).code == 0
    assert not select.select([manager.sock], [], [], 0)[0]
    assert box("create", "--bundle", str(box.bundle), box.id, env=env).code == 0
    assert box("start", box.id, env=env).code == 0
    until(lambda: box.state()["status"] == "stopped")
    assert box("delete", box.id).code == 0


def test_a_service_manager_that_is_gone(box: Runtime, tmp_path: Path) -> None:
    """`start` says so; a container that runs already, and whoever waits for its end, go on."""
    use_python(box)
    box.write()
    env = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    result = box("run", "--bundle", str(box.bundle), box.id, env=env)
    assert result.code == 0 and "unable to notify" in result.err
    assert not list(box.root.iterdir())
    use_python(box, SLEEP)
    box.write()
    result = box("run", "--detach", "--bundle", str(box.bundle), box.id, env=env)
    assert result.code == 0 and "unable to notify" in result.err
    assert box.state()["status"] == "running"
    box.ok("delete", "--force", box.id)
    assert box("create", "--bundle", str(box.bundle), box.id, env=env).code == 0
    result = box("start", box.id, env=env)
    assert result.code == 1 and "unable to notify" in result.err


def test_a_container_that_was_created_without_has_no_socket(box: Runtime, manager: Manager) -> None:
    box.sh("echo ${NOTIFY_SOCKET-unset}; ls /run/notify 2>&1 | head -1")
    assert box.output().startswith("unset")
    assert box.create().code == 0
    result = box("start", box.id, env={"NOTIFY_SOCKET": str(manager.path)})
    assert result.code == 1 and "notify.sock" in result.err
    assert box.state()["status"] == "created"


@pytest.mark.skipif(RUNC is None, reason="runc is not installed")
def test_the_host_hears_the_same_as_from_runc(tmp_path: Path) -> None:
    heard = []
    short = Path(tempfile.mkdtemp(prefix="oci-"))  # runc can make its socket only where the path is short
    for number, box in enumerate(pair(tmp_path)):
        box.root = short / str(number)
        manager = Manager(tmp_path / f"{number}.sock")
        if number == 0:
            use_python(box, SLEEP)
        box.write()
        env = {"NOTIFY_SOCKET": str(manager.path)}
        try:
            assert box("create", "--bundle", str(box.bundle), box.id, env=env).code == 0
            pid = box.state()["pid"]
            starting = background(box, manager, "start", box.id)
            heard.append({line.replace(str(pid), "PID") for line in lines(manager.messages())})
            assert starting.wait(10) == 0
        finally:
            box.close()
            manager.sock.close()
    shutil.rmtree(short)
    assert heard[0] == heard[1] == {"READY=1", "MAINPID=PID"}
