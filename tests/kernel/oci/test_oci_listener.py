"""Seccomp filters that ask an agent: the listener arrives there with its state, and the agent decides."""

from __future__ import annotations

import array
import fcntl
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_lab import Runtime

# seccomp_unotify(2), on x86_64 and aarch64
RECV, SEND = 0xC0502100, 0xC0182101
ENOSPC = 28


class Agent:
    """Listens for listeners; answers every call that it is asked about with ENOSPC."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.documents: list[dict] = []
        self.fds: list[int] = []
        self.asked = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(self._stop, select.POLLIN)
        while True:
            for fd, event in poller.poll():
                if fd == self._stop:
                    return
                if fd == self._socket.fileno():
                    connection = self._socket.accept()[0]
                    data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 1)
                    connection.close()
                    self.documents.append(json.loads(data))
                    self.fds += fds
                    poller.register(fds[0], select.POLLIN)
                elif event & select.POLLIN:
                    self._answer(fd)
                else:
                    poller.unregister(fd)

    def _answer(self, fd: int) -> None:
        request = array.array("B", bytes(80))
        try:
            fcntl.ioctl(fd, RECV, request, True)
        except OSError:
            return
        self.asked += 1
        identity = struct.unpack_from("Q", request)[0]
        fcntl.ioctl(fd, SEND, struct.pack("QqiI", identity, 0, -ENOSPC, 0))

    def close(self) -> None:
        os.write(self._stopper, b"x")
        self._thread.join()
        self._socket.close()
        for fd in (*self.fds, self._stop, self._stopper):
            os.close(fd)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "agent.sock")
    yield made
    made.close()


def ask(box: Runtime, path: Path, **more: object) -> None:
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(path),
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        **more,
    }


@pytest.mark.parametrize("strict", [True, False])
def test_the_agent_decides(box: Runtime, agent: Agent, strict: bool) -> None:
    ask(box, agent.path, listenerMetadata="some words")
    box.process["noNewPrivileges"] = strict
    box.config["annotations"] = {"key": "value"}
    box.sh("mkdir /tmp/x; echo $?")
    result = box.run()
    assert result.out == "1\n" and "No space left on device" in result.err
    assert agent.asked == 1
    document = agent.documents[0]
    assert (document["fds"], document["metadata"]) == (["seccompFd"], "some words")
    state = document["state"]
    assert document["pid"] == state["pid"] > 0
    assert (state["id"], state["status"], state["bundle"]) == (box.id, "creating", str(box.bundle))
    assert state["annotations"] == {"key": "value"}


def test_exec_has_a_listener_of_its_own(box: Runtime, agent: Agent) -> None:
    ask(box, agent.path)
    state = box.start()
    result = box("exec", box.id, "sh", "-c", "mkdir /tmp/x; echo $?")
    assert result.out == "1\n" and "No space left on device" in result.err
    assert [document["state"]["status"] for document in agent.documents] == ["creating", "running"]
    assert agent.documents[1]["pid"] != state["pid"] == agent.documents[1]["state"]["pid"]


def test_filters_with_other_rules_still_hold(box: Runtime, agent: Agent) -> None:
    ask(box, agent.path)
    box.linux["seccomp"]["syscalls"].append(
        {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    )
    box.sh("chmod 700 /tmp; echo $?")
    result = box.run()
    assert result.out == "1\n" and "Function not implemented" in result.err and agent.asked == 0


def test_nobody_listens(box: Runtime, tmp_path: Path) -> None:
    ask(box, tmp_path / "nobody")
    assert "unable to send the seccomp listener to" in box.refused()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"listenerPath": ""}, "SCMP_ACT_NOTIFY without listenerPath"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "cannot be used as default action"),
        (
            {"syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]},
            "cannot be used for the write syscall",
        ),
    ],
)
def test_impossible_listeners(box: Runtime, tmp_path: Path, change: dict[str, object], text: str) -> None:
    ask(box, tmp_path / "x", **change)
    assert text in box.refused()
