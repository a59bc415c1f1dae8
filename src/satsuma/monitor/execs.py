"""Processes of the container as the monitor sees them: their pipes or terminal, and sessions of exec."""

from __future__ import annotations

import collections
import os
import select
import socket

from satsuma.linux import pidfd, pty
from satsuma.monitor.backend import StartError
from satsuma.monitor.loop import READ
from satsuma.monitor.settle import report
from satsuma.monitor.state import exit_code
from satsuma.monitor.streams import STDERR, STDOUT, Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from satsuma.monitor import protocol
    from satsuma.monitor.backend import Backend, Started, Starting
    from satsuma.monitor.loop import Loop

    Body = dict[str, Any]

DETACH_NOTICE = b"exec attach failed: error on attach stdin: read escape sequence\r\n"
"""What dockerd writes into the stream of an exec whose client typed the detach keys."""

REMEMBERED = 1024
"""Exit codes of ended sessions that are kept for askers who come late."""


class Pipes:
    """The pipes of one process that has no terminal: its ends (-1 for /dev/null), and ours."""

    __slots__ = ("_opened", "child", "outputs", "stdin")

    def __init__(self, *, stdin: bool, stdout: bool = True, stderr: bool = True) -> None:
        self._opened: list[int] = []
        self.stdin: int | None = None
        self.outputs: dict[int, int] = {}
        child = [-1, -1, -1]
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


def take_attach(body: Body, message: protocol.Message) -> Body:
    """Take what one `attach` object of a message describes: the arguments of `Stdio.attach`.

    The socket among them belongs to the caller.
    """
    streams = ((STDOUT, "stdout"), (STDERR, "stderr"))
    initial = body.get("initial_stdin")
    return {
        "stdin": bool(body.get("stdin")),
        "streams": frozenset(stream for stream, key in streams if body.get(key)),
        "framed": bool(body.get("framed")),
        "keys": message.blobs[body["detach_keys"]],
        "initial_stdin": b"" if initial is None else message.blobs[initial],
        "sock": socket.socket(fileno=message.take_fd(body["fd"])),
    }


class Session:
    """An exec session on its way: from the request to the running process or the error.

    Args:
        attach: of `take_attach`, or None; its socket is closed here if the process does not start.
        done: called once, with the reply.
    """

    __slots__ = (
        "_attach",
        "_decided",
        "_done",
        "_loop",
        "_pipes",
        "_reaped",
        "_starting",
        "_stdio",
        "process",
    )

    def __init__(
        self, loop: Loop, stdio: Stdio, attach: Body | None, done: Callable[[Session, Body], None]
    ) -> None:
        self._loop = loop
        self._stdio = stdio
        self._attach = attach
        self._done = done
        self._decided = False
        self._pipes: Pipes | None = None
        self._starting: Starting
        self.process: Running | None = None
        self._reaped = (0, 0)

    @property
    def pid(self) -> int:
        """Of the process, or of the helper that gets it ready."""
        return self._starting.pid

    @property
    def early_status(self) -> int | None:
        """Wait status of a process that was reaped before we knew that it had started."""
        pid, status = self._reaped
        return status if self.process is not None and pid == self.process.pid else None

    def reaped(self, status: int) -> None:
        """Take note of the end of `pid` at this moment."""
        self._reaped = (self.pid, status)

    def hear(self) -> None:
        """Take what the process has said already."""
        waiting = select.poll()
        waiting.register(self._starting.fileno(), select.POLLIN)
        while not self._decided and waiting.poll(0):
            self._step()

    def begin(self, backend: Backend, body: Body, size: tuple[int, int] | None) -> None:
        """Start the process.

        Args:
            body: of the request.
        Raises:
            StartError: it did not even begin; `done` is not called.
        """
        wants = self._attach or {"stdin": False, "streams": ()}
        try:
            if not body.get("tty"):
                streams = wants["streams"]
                self._pipes = Pipes(stdin=wants["stdin"], stdout=STDOUT in streams, stderr=STDERR in streams)
            stdio = None if self._pipes is None else self._pipes.child
            self._starting = backend.exec(body["process"], stdio, size, explain=bool(body.get("explain")))
        except BaseException:
            self._abandon()
            raise
        if self._pipes is not None:
            self._pipes.close_child()
        self._loop.add(self._starting.fileno(), READ, lambda _events: self.hear())

    def _step(self) -> None:
        fd = self._starting.fileno()
        try:
            if not self._starting.step():
                return
        except Exception as error:
            self._decided = True
            self._loop.forget(fd)
            self._abandon()
            if not isinstance(error, StartError):
                report()
                error = StartError(f"{type(error).__name__}: {error}", 128)
            reply = {"error": str(error), "kind": "StartError", "exit_code": error.exit_code}
            self._done(self, reply | self._starting.steps())
            return
        self._decided = True
        # The last step has closed the descriptor: epoll has forgotten it, the loop has not.
        self._loop.forget(fd)
        open_stdin = self._attach is not None and self._attach["stdin"]
        self.process = Running(self._starting.started(), self._stdio, self._pipes, open_stdin=open_stdin)
        if self._attach is not None:
            self._stdio.attach(**self._attach)
        self._done(self, {"pid": self.process.pid} | self._starting.steps())

    def _abandon(self) -> None:
        if self._pipes is not None:
            self._pipes.close()
        if self._attach is not None:
            self._attach["sock"].close()


class Sessions:
    """The exec sessions of one container: starting, running, and the exit codes of the last that ended.

    Args:
        on_exit: gets id and exit code of a session before its clients see the end of its output, because they
            ask for the exit code as soon as they do.
        on_complete: called after that.
    """

    __slots__ = ("_by_pid", "_codes", "_on_complete", "_on_exit", "_starting", "running")

    def __init__(self, on_exit: Callable[[str, int], None], on_complete: Callable[[], None]) -> None:
        self.running: dict[str, Running] = {}
        self._starting: dict[str, Session] = {}
        self._by_pid: dict[int, str] = {}
        self._codes: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._on_exit = on_exit
        self._on_complete = on_complete

    @property
    def busy(self) -> bool:
        """True while a session starts or runs."""
        return bool(self.running or self._starting)

    def knows(self, exec_id: str) -> bool:
        """Say whether *exec_id* starts or runs."""
        return exec_id in self.running or exec_id in self._starting

    def starting(self, exec_id: str, session: Session) -> None:
        """Register a session that has begun."""
        self._starting[exec_id] = session

    def decided(self, session: Session) -> None:
        """Take note that a session's process has started, or has not."""
        exec_id = next(known for known, it in self._starting.items() if it is session)
        del self._starting[exec_id]
        if session.process is None:
            return
        self.running[exec_id] = session.process
        self._by_pid[session.process.pid] = exec_id

    def hear(self, pid: int) -> None:
        """Hear who is starting, before a child that has died may be forgotten: it can be one of them."""
        if pid not in self._by_pid:
            for session in tuple(self._starting.values()):
                session.hear()

    def exited(self, pid: int, status: int) -> None:
        """Take the death of a child."""
        for session in self._starting.values():
            if session.pid == pid:
                session.reaped(status)
                return
        exec_id = self._by_pid.pop(pid, None)
        if exec_id is None:
            return

        def complete() -> None:
            del self.running[exec_id]
            self._on_complete()

        code = exit_code(status)
        self._codes[exec_id] = code
        if len(self._codes) > REMEMBERED:
            self._codes.popitem(last=False)
        self._on_exit(exec_id, code)
        self.running[exec_id].ended(status, complete)

    def codes(self) -> dict[str, int]:
        """Return the remembered exit codes."""
        return dict(self._codes)
