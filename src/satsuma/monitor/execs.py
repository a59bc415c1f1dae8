"""Processes of the container as the monitor sees them: their pipes or terminal, and sessions of exec."""

from __future__ import annotations

import collections
import os
import socket

from satsuma.linux import pidfd, pty
from satsuma.monitor.state import exit_code
from satsuma.monitor.streams import STDERR, STDOUT, Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from satsuma.monitor import protocol
    from satsuma.monitor.backend import Started

    Body = dict[str, Any]

DETACH_NOTICE = b"exec attach failed: error on attach stdin: read escape sequence\r\n"
"""What dockerd writes into the stream of an exec whose client typed the detach keys."""

REMEMBERED = 1024
"""Exit codes of ended sessions that are kept for askers who come late."""


class Pipes:
    """The pipes of one process that has no terminal: its ends, and ours."""

    __slots__ = ("_opened", "child", "outputs", "stdin")

    def __init__(self, *, stdin: bool, stdout: bool = True, stderr: bool = True) -> None:
        self._opened: list[int] = []
        self.stdin: int | None = None
        self.outputs: dict[int, int] = {}
        null = -1
        if not (stdin and stdout and stderr):
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            self._opened.append(null)
        child = [null, null, null]
        if stdin:
            child[0], self.stdin = self._pipe()
        for stream, wanted in ((STDOUT, stdout), (STDERR, stderr)):
            if wanted:
                self.outputs[stream], child[stream] = self._pipe(ours_reads=True)
        self.child = (child[0], child[1], child[2])

    def _pipe(self, *, ours_reads: bool = False) -> tuple[int, int]:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self._opened.append(write_end if ours_reads else read_end)
        return read_end, write_end

    def close_child(self) -> None:
        """Close the process's ends: it has its own copies."""
        for fd in self._opened:
            os.close(fd)
        self._opened.clear()

    def close(self) -> None:
        """Close everything: the process did not start."""
        self.close_child()
        for fd in (self.stdin, *self.outputs.values()):
            if fd is not None:
                os.close(fd)


class Running:
    """One started process with its streams."""

    __slots__ = ("_console", "pid", "pidfd", "start_time", "status", "stdio")

    def __init__(self, started: Started, stdio: Stdio, pipes: Pipes | None, *, open_stdin: bool) -> None:
        self.pid = started.pid
        self.pidfd = started.pidfd
        self.start_time = started.start_time
        self.status: int | None = None
        self.stdio = stdio
        self._console = started.console
        if pipes is not None:
            pipes.close_child()
            stdio.open(stdin=pipes.stdin, outputs=pipes.outputs)
        elif self._console is not None:
            # epoll knows a descriptor once: reading, writing and resizing have one each.
            stdio.open(
                stdin=os.dup(self._console) if open_stdin else None,
                outputs={STDOUT: os.dup(self._console)},
            )

    def resize(self, height: int, width: int) -> None:
        """Set the size of the terminal; a process without one ignores it, as in Docker."""
        if self._console is not None:
            pty.set_size(self._console, height, width)

    def signal(self, signum: int) -> None:
        """Send a signal.

        Raises:
            ProcessLookupError: it has ended.
        """
        pidfd.send_signal(self.pidfd, signum)

    def ended(self, status: int, on_complete: Callable[[], None]) -> None:
        """Note the wait status, collect the rest of the output, then call *on_complete*."""
        self.status = exit_code(status)
        os.close(self.pidfd)
        if self._console is not None:
            os.close(self._console)
            self._console = None
        self.stdio.process_ended(on_complete)


def attach_body(
    stdio: Stdio,
    body: Body,
    message: protocol.Message,
    *,
    notice: bytes = b"",
    on_end: Callable[[str], None] | None = None,
) -> None:
    """Attach the client that one `attach` object of a message describes."""
    streams = frozenset(stream for stream, key in ((STDOUT, "stdout"), (STDERR, "stderr")) if body.get(key))
    initial = body.get("initial_stdin")
    stdio.attach(
        socket.socket(fileno=message.take_fd(body["fd"])),
        stdin=bool(body.get("stdin")),
        streams=streams,
        framed=bool(body.get("framed")),
        keys=message.blobs[body["detach_keys"]],
        initial_stdin=b"" if initial is None else message.blobs[initial],
        detach_notice=notice,
        on_end=on_end,
    )


class Sessions:
    """The exec sessions of one container: running ones, and the exit codes of the last that ended."""

    __slots__ = ("_by_pid", "_codes", "running")

    def __init__(self) -> None:
        self.running: dict[str, Running] = {}
        self._by_pid: dict[int, str] = {}
        self._codes: collections.OrderedDict[str, int] = collections.OrderedDict()

    def add(self, exec_id: str, process: Running) -> None:
        """Register a started session."""
        self.running[exec_id] = process
        self._by_pid[process.pid] = exec_id

    def exited(
        self, pid: int, status: int, on_exit: Callable[[str, int], None], on_complete: Callable[[], None]
    ) -> None:
        """Take the death of a child.

        Order: *on_exit* gets id and exit code before the session's clients see the end of its output, because
        they ask for the exit code as soon as they do; *on_complete* comes after that.
        """
        exec_id = self._by_pid.pop(pid, None)
        if exec_id is None:
            return

        def complete() -> None:
            del self.running[exec_id]
            on_complete()

        code = exit_code(status)
        self._codes[exec_id] = code
        if len(self._codes) > REMEMBERED:
            self._codes.popitem(last=False)
        on_exit(exec_id, code)
        self.running[exec_id].ended(status, complete)

    def codes(self) -> dict[str, int]:
        """Return the remembered exit codes."""
        return dict(self._codes)
