"""A container's life without a container, for a monitor that waits for one.

A forked process shares its memory with its parent until it writes to it, and Python writes wherever it counts a
reference: the first pass through any code copies the pages that it touches.  A spare monitor makes that pass before it
is needed: log, control socket, pipes, a client, the exit record, in a directory of its own that is gone afterwards.
"""

from __future__ import annotations

import os
import socket

from satsuma.monitor import protocol, state
from satsuma.monitor.control import ControlServer
from satsuma.monitor.execs import Pipes
from satsuma.monitor.logs import open_log
from satsuma.monitor.loop import Loop
from satsuma.monitor.settle import report
from satsuma.monitor.state import ExitStatus
from satsuma.monitor.streams import STDERR, STDOUT, Stdio

PREFIX = "spare-"
_LOG, _EXIT = "log", "exit"
_PATIENCE = 1.0


def rehearse(exec_root: str) -> None:
    """Make the pass.

    Raises:
        OSError: it was not to be; nothing depends on it.
    """
    directory = f"{exec_root}/{PREFIX}{os.getpid()}"
    os.mkdir(directory, 0o700)
    try:
        _live(directory)
    finally:
        clear(directory)


def clear(directory: str) -> None:
    """Remove the directory of a rehearsal, also of one that was killed in the middle."""
    for name in (_LOG, _EXIT):
        try:
            os.unlink(f"{directory}/{name}")
        except FileNotFoundError:
            pass
    state.remove_run_dir(directory)


def _live(directory: str) -> None:
    loop = Loop(report)
    control = ControlServer(loop, {})
    control.listen(directory, state.SOCKET)
    log = open_log("json-file", f"{directory}/{_LOG}", {}, {})
    stdio = Stdio(loop, tty=False, close_stdin=False, log=log)
    client, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    daemon, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with client, daemon:
        stdio.attach(ours, stdin=False, streams=frozenset((STDOUT, STDERR)), framed=True)
        pipes = Pipes(stdin=False)
        os.write(pipes.child[STDOUT], b"one line\n")
        stdio.open(stdin=None, outputs=pipes.outputs)
        pipes.close_child()
        protocol.send(daemon, {"id": 0, "config": {"a": ["b", 1]}})
        connection = control.adopt(theirs)
        connection.send({"id": 0, "pid": os.getpid()})
        state.write_state(directory, {"pid": os.getpid()})
        loop.call_later(0, lambda: stdio.process_ended(loop.stop))
        loop.call_later(_PATIENCE, loop.stop)
        loop.run()
        state.write_exit(f"{directory}/{_EXIT}", ExitStatus(0, False, 0))
        control.broadcast({"event": "exit"})
        control.stop_listening()
        connection.close()
    for waiting in tuple(stdio.clients):
        waiting.drop("ended")
    loop.close()
