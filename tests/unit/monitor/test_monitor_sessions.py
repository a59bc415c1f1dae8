"""Sessions of exec: whoever dies before we know of it has not been forgotten."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import traceback

import pytest

from satsuma.monitor.execs import Session, Sessions
from satsuma.monitor.loop import Loop
from satsuma.monitor.streams import Stdio


class Started:
    """A process that `Starting` has heard of."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.start_time = 0
        self.console = None


class Starting:
    """The conversation with a process on its way: a helper's words, then those of the process that it has made.

    The messages of these processes lie in the socket already, and both are dead.
    """

    def __init__(self, helper: int, process: int, *, closes: bool) -> None:
        self._sock, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs.send(str(process).encode())
        self._started: Started | None = None
        self.pid = helper
        if closes:
            self.close()

    def close(self) -> None:
        self._theirs.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def step(self) -> bool:
        data = self._sock.recv(100)
        if not data:
            self._sock.close()
            return True
        self.pid = int(data)
        self._started = Started(self.pid)
        return False

    def started(self) -> Started:
        assert self._started is not None
        return self._started

    def steps(self) -> dict:
        return {}


class Backend:
    def __init__(self, starting: Starting) -> None:
        self.starting = starting

    def exec(self, process, stdio, size, *, explain):
        return self.starting


def child(code: int) -> int:
    """Return the pid of a process that has ended, and waits to be reaped."""
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def scenario(*, closes: bool, helper_first: bool) -> tuple[int, list, list, dict, bool]:
    """Return (the process, replies, exits, remembered codes, whether a child is left); reaps every child we have."""
    loop = Loop(traceback.print_exc)
    exits: list[tuple[str, int]] = []
    replies: list[dict] = []
    pids: list[int] = []
    sessions = Sessions(lambda exec_id, code: exits.append((exec_id, code)), loop.stop)

    def decided(session: Session, reply: dict) -> None:
        sessions.decided(session)
        replies.append(reply)
        if session.early_status is not None and session.process is not None:
            sessions.exited(session.process.pid, session.early_status)

    def begin() -> None:
        # The news of the deaths comes before the words of the dead: epoll keeps the order.
        if helper_first:
            helper, process = child(0), child(7)
        else:
            process, helper = child(7), child(0)
        pids.append(process)
        starting = Starting(helper, process, closes=closes)
        session = Session(loop, Stdio(loop, tty=False, close_stdin=True), None, decided)
        session.begin(Backend(starting), {"process": {}}, None)  # type: ignore[arg-type]
        sessions.starting("e1", session)
        if not closes:
            loop.call_later(0.05, starting.close)

    loop.watch_children(sessions.exited, sessions.hear)
    loop.call_later(0.01, begin)
    loop.call_later(10, loop.stop)
    loop.run()
    try:
        os.waitpid(-1, os.WNOHANG)
        left = True
    except ChildProcessError:
        left = False
    return pids[0], replies, exits, sessions.codes(), left


@pytest.mark.parametrize("closes", [True, False], ids=["after the helper", "before the helper"])
@pytest.mark.parametrize("helper_first", [True, False])
def test_a_process_that_is_dead_before_it_was_heard_of(closes: bool, helper_first: bool) -> None:
    # In a process of its own: the monitor reaps whatever dies.
    command = [sys.executable, __file__, str(int(closes)), str(int(helper_first))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert not done.stderr
    process, replies, exits, codes, left = json.loads(done.stdout)
    assert replies == [{"pid": process}]
    assert exits == [["e1", 7]]
    assert codes == {"e1": 7}
    assert not left


if __name__ == "__main__":
    print(json.dumps(scenario(closes=sys.argv[1] == "1", helper_first=sys.argv[2] == "1")))
