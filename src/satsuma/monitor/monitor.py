"""The monitor: one small process per container, from its start to its exit record.

Life: read the launch request → open log and control socket → start init → answer → serve → init exits →
collect output → exit record → clean up → tell everyone → end.

The monitor outlives the daemon.  It is a session leader, ignores every signal that stops a service (HUP,
INT, TERM, QUIT: containers survive `systemctl stop satsuma`, whose unit needs KillMode=process), and is the
subreaper of what its container leaves behind.  When the monitor itself is killed, init gets SIGKILL by its
parent death signal: nothing runs unsupervised; the daemon then counts exit code 137, as containerd does for a
dead shim, and cleans up by monitor.json.

The process that asked for the launch stays connected through the same socket.

Crash: the control socket exists before init runs, so the next daemon finds whatever was started.
"""

from __future__ import annotations

import fcntl
import functools
import os
import socket
import time

from satsuma.base.clock import now_ns
from satsuma.base.errors import Conflict, EngineError, InvalidParameter, NotFound
from satsuma.base.failpoints import failpoint
from satsuma.monitor import protocol, state
from satsuma.monitor.backend import StartError
from satsuma.monitor.control import DEFERRED, Connection, ControlServer
from satsuma.monitor.execs import DETACH_NOTICE, Pipes, Running, Session, Sessions, take_attach
from satsuma.monitor.logs import open_log
from satsuma.monitor.loop import Loop, Timer
from satsuma.monitor.rehearsal import rehearse
from satsuma.monitor.settle import report
from satsuma.monitor.state import ExitStatus, exit_code
from satsuma.monitor.streams import Stdio
from satsuma.monitor.title import set_title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from satsuma.monitor.backend import Backend

    Body = dict[str, Any]

LINGER = 30.0
"""Seconds for which the last output waits for slow clients after the container has ended."""
LINGER_STEP = 0.05
EXPECTATION = 3.0
"""Seconds after the news of an exec, or after an exec, in which the next one is likely."""
HELPER_DELAY = 0.01
"""Seconds after the start of a session in which the next one's helper would be made at its cost."""
SESSION_GRACE = 1.0
"""Seconds for which the exec sessions of an ended container may take to be reaped."""


class Monitor:
    """One container's monitor.

    Args:
        exec_root: where `containers/<id>` is made.
        request: the launch request; its descriptors are taken.
        backend: what starts and kills processes.
    """

    def __init__(self, exec_root: str, request: protocol.Message, backend: Backend) -> None:
        body = request.body
        self._begun = time.monotonic_ns()
        self._opened = 0
        self._request = request
        self._backend = backend
        self._container_id: str = body["container_id"]
        self._exec_root = exec_root
        self._run_dir = state.run_dir(exec_root, self._container_id)
        self._exit_path: str = body["exit_path"]
        self._tty = bool(body.get("tty"))
        self._open_stdin = bool(body.get("open_stdin"))
        self._durable = bool(body.get("durable", True))
        self._loop = Loop(report)
        self._control = ControlServer(
            self._loop,
            {
                "attach": self._attach,
                "exec": self._exec,
                "expect_exec": self._expect_exec,
                "resize": self._resize,
                "signal": self._signal,
                "kill_all": self._kill_all,
                "close_stdin": self._close_stdin,
                "status": self._status,
            },
        )
        self._sessions = Sessions(self._exec_exited, self._end_when_complete)
        self._expectation: Timer | None = None
        self._finished: ExitStatus | None = None
        self._exit: ExitStatus | None = None
        self._started_at_ns = 0
        self._lock_fd = -1
        self._init: Running
        self._stdio: Stdio

    def start(self) -> None:
        """Start init with the clients that were there before it.

        Raises:
            StartError: it did not start; nothing is left behind.
        """
        try:
            self._start()
        except BaseException:
            if self._lock_fd >= 0:
                # Our own end, which follows, kills an init that runs already.
                self._control.stop_listening()
                self._backend.kill_all()
                self._backend.remove()
                state.remove_run_dir(self._run_dir)
            raise

    def _start(self) -> None:
        body = self._request.body
        os.makedirs(self._run_dir, 0o700, exist_ok=True)
        self._lock()
        try:
            os.unlink(self._exit_path)
        except FileNotFoundError:
            pass
        log_spec = body["log"]
        try:
            log = open_log(log_spec["driver"], log_spec["path"], log_spec["options"], log_spec["attrs"])
        except (EngineError, OSError) as error:
            raise StartError(f"failed to initialize logging driver: {error}", 128) from error
        self._stdio = Stdio(self._loop, tty=self._tty, close_stdin=bool(body.get("stdin_once")), log=log)
        self._control.listen(self._run_dir, state.SOCKET)
        failpoint("monitor.listening")
        for number, attach in enumerate(body.get("attaches", ())):
            self._stdio.attach(
                **take_attach(attach, self._request),
                on_end=functools.partial(self._start_attach_ended, number),
            )
        self._opened = time.monotonic_ns()
        self._start_init()
        failpoint("monitor.started")
        self._loop.watch_children(self._child_exited, self._sessions.hear)

    def _lock(self) -> None:
        """Say that we live, for as long as we do (`burial`)."""
        lock = os.open(self._run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"container {self._container_id} has a monitor already", 128) from None
        self._lock_fd = lock
        failpoint("monitor.locked")

    def _start_attach_ended(self, number: int, reason: str) -> None:
        self._control.broadcast({"event": "attach_end", "attach_id": f"start.{number}", "reason": reason})

    def _start_init(self) -> None:
        body = self._request.body
        pipes = None if self._tty else Pipes(stdin=self._open_stdin)
        try:
            started = self._backend.start(
                body["config"],
                _extras(self._request),
                None if pipes is None else pipes.child,
                _size(body),
            )
        except BaseException:
            if pipes is not None:
                pipes.close()
            raise
        self._started_at_ns = now_ns()
        self._init = Running(started, self._stdio, pipes, open_stdin=self._open_stdin)

    def serve(self, launch: socket.socket) -> None:
        """Answer the launch request on its socket, which becomes a control connection; serve to the end."""
        connection = self._control.adopt(launch)
        reply = {"id": 0, **self._state()}
        self.add_steps(reply)
        connection.send(reply)
        # Nobody needs the file while we live, and the asker knows what is in it.
        state.write_state(self._run_dir, self._state())
        self._request = protocol.Message({}, [], [])
        self._loop.run()

    def add_steps(self, reply: Body) -> None:
        """Tell what the start has done, if that was asked for."""
        if (self._request.body.get("extras") or {}).get("explain"):
            opening = ["monitor", "open", [], self._begun, self._opened - self._begun, ""]
            reply["steps"] = [opening, *self._backend.take_steps()] if self._opened else []

    def _state(self) -> Body:
        return {
            "container_id": self._container_id,
            "pid": os.getpid(),
            "init_pid": self._init.pid,
            "start_time": self._init.start_time,
            "started_at_ns": self._started_at_ns,
            "exit_path": self._exit_path,
            "cgroup": self._backend.cgroup_dirs(),
        }

    # Operations of the control socket.

    def _status(self, _connection: Connection, _message: protocol.Message) -> Body:
        reply = self._state()
        reply["execs"] = {exec_id: process.pid for exec_id, process in self._sessions.running.items()}
        reply["exec_codes"] = self._sessions.codes()
        reply["exit"] = self._exit._asdict() if self._exit is not None else None
        return reply

    def _attach(self, connection: Connection, message: protocol.Message) -> Body:
        if self._exit is not None or self._init.status is not None:
            raise Conflict(f"container {self._container_id} is not running")
        self._stdio.attach(
            **take_attach(message.body["attach"], message),
            on_end=_tell_end(connection, message.body["attach_id"]),
        )
        return {}

    def _expect_exec(self, _connection: Connection, message: protocol.Message) -> None:
        """An exec has been created and is going to be started."""
        self._have_helper(message.body["process"], created=True)

    def _have_helper(self, process: Body, *, created: bool = False) -> None:
        """Let a helper wait for the next exec, for a while: it is not worth its memory for long."""
        if self._init.status is not None:
            return
        if self._backend.expect_exec(process, created=created):
            # The fork has made every page of ours a shared one again.
            self._loop.call_later(0, self._rehearse)
        if self._expectation is not None:
            self._expectation.cancel()
        self._expectation = self._loop.call_later(EXPECTATION, self._backend.forget_exec)

    def _rehearse(self) -> None:
        try:
            rehearse(self._exec_root)
        except OSError:
            report()

    def _exec(self, connection: Connection, message: protocol.Message) -> Body:
        body = message.body
        exec_id: str = body["exec_id"]
        request_id = body.get("id")
        tty = bool(body.get("tty"))
        if self._init.status is not None:
            raise Conflict(f"container {self._container_id} is not running")
        if self._sessions.knows(exec_id):
            raise Conflict(f"exec {exec_id} is already running")
        attach = None
        if body.get("attach") is not None:
            attach = take_attach(body["attach"], message)
            attach["detach_notice"] = DETACH_NOTICE
            attach["on_end"] = _tell_end(connection, exec_id)

        def decided(session: Session, reply: Body) -> None:
            self._sessions.decided(session)
            failpoint("monitor.exec.started")
            connection.send({"id": request_id, **reply})
            # Whoever asks again asks for the same, more often than not.
            self._loop.call_later(HELPER_DELAY, lambda: self._have_helper(body["process"]))
            if session.early_status is not None and session.process is not None:
                self._sessions.exited(session.process.pid, session.early_status)
            self._end_when_complete()

        session = Session(self._loop, Stdio(self._loop, tty=tty, close_stdin=True), attach, decided)
        try:
            session.begin(self._backend, body, _size(body))
        except StartError as error:
            return {"error": str(error), "kind": "StartError", "exit_code": error.exit_code}
        self._sessions.starting(exec_id, session)
        return DEFERRED

    def _process(self, message: protocol.Message) -> Running:
        exec_id = message.body.get("exec_id")
        if exec_id is None:
            if self._init.status is not None:
                raise Conflict(f"container {self._container_id} is not running")
            return self._init
        process = self._sessions.running.get(exec_id)
        if process is None or process.status is not None:
            raise NotFound(f"exec {exec_id} is not running")
        return process

    def _resize(self, _connection: Connection, message: protocol.Message) -> None:
        self._process(message).resize(message.body["height"], message.body["width"])

    def _signal(self, _connection: Connection, message: protocol.Message) -> None:
        try:
            self._process(message).signal(message.body["signum"])
        except ProcessLookupError:
            raise Conflict(f"container {self._container_id} is not running") from None
        except OSError as error:
            raise InvalidParameter(f"signal {message.body['signum']}: {error.strerror}") from None

    def _kill_all(self, _connection: Connection, _message: protocol.Message) -> None:
        self._backend.kill_all()

    def _close_stdin(self, _connection: Connection, message: protocol.Message) -> None:
        self._process(message).stdio.close_stdin()

    # The end.

    def _child_exited(self, pid: int, status: int) -> None:
        if pid == self._init.pid and self._init.status is None:
            self._init_exited(status)
        else:
            self._sessions.exited(pid, status)

    def _exec_exited(self, exec_id: str, code: int) -> None:
        self._control.broadcast({"event": "exec_exit", "exec_id": exec_id, "exit_code": code})

    def _init_exited(self, status: int) -> None:
        finished_at_ns = now_ns()
        # First of all: systemd removes an empty group at once, and the kernel's count with it.
        oom_killed = self._backend.oom_killed(status)
        failpoint("monitor.init_exited")
        # The kernel has killed the rest of a private pid namespace by now; a shared one is not its business.
        self._backend.kill_all()

        def complete() -> None:
            starved = oom_killed or self._backend.oom_killed(status)
            self._finished = ExitStatus(exit_code(status), starved, finished_at_ns)
            self._end_when_complete()

        self._loop.call_later(LINGER, self._give_up)
        self._init.ended(status, complete)
        self._loop.call_later(SESSION_GRACE, self._end)

    def _end_when_complete(self) -> None:
        if self._finished is not None and not self._sessions.busy:
            self._end()

    def _end(self) -> None:
        if self._exit is not None:
            return
        if self._finished is None:
            self._loop.call_later(SESSION_GRACE, self._end)
            return
        try:
            state.write_exit(self._exit_path, self._finished)
        except OSError:
            report()
            if not self._control.connections:
                # A full disk, and nobody to tell: the exit code is kept here until one of the two changes.
                self._loop.call_later(SESSION_GRACE, self._end)
                return
        failpoint("monitor.exit_written")
        self._exit = self._finished
        # The next container may bind the same ports at once.  The rest of us concerns only a restart of this
        # one, which waits until we are gone: the news do not.
        self._backend.release()
        self._control.broadcast({"event": "exit", **self._exit._asdict()})
        failpoint("monitor.exit_told")
        self._control.stop_listening()
        try:
            self._backend.remove()
        except OSError:
            report()
        state.remove_run_dir(self._run_dir)
        os.close(self._lock_fd)
        failpoint("monitor.removed")
        self._control.broadcast({"event": "gone"})
        self._linger(int(LINGER / LINGER_STEP))
        if self._durable:
            state.sync_exit(self._exit_path)

    def _give_up(self) -> None:
        """End as a killed monitor would: better than to say for ever that the container runs."""
        if self._finished is None:
            os._exit(70)

    def _linger(self, rounds: int) -> None:
        if not rounds or (self._control.idle and not self._stdio.clients):
            self._loop.stop()
        else:
            self._loop.call_later(LINGER_STEP, lambda: self._linger(rounds - 1))


def _extras(message: protocol.Message) -> Body:
    """Put descriptors and blobs of the request back into the runtime's extras."""
    body = message.body
    extras: Body = dict(body.get("extras") or {})
    for name, index in body.get("extra_fds", {}).items():
        extras[name] = message.take_fd(index)
    for name, index in body.get("extra_blobs", {}).items():
        extras[name] = message.blobs[index]
    extras["hold_fds"] = [message.take_fd(index) for index in body.get("hold_fds", ())]
    return extras


def _tell_end(connection: Connection, attach_id: str) -> Callable[[str], None]:
    """Return what tells the asker that its client has left."""

    def tell(reason: str) -> None:
        connection.send({"event": "attach_end", "attach_id": attach_id, "reason": reason})

    return tell


def _size(body: Body) -> tuple[int, int] | None:
    size = body.get("console_size")
    return (size[0], size[1]) if size else None


def warm_up(exec_root: str, backend: Backend) -> None:
    """Touch in a spare monitor what a launch touches, so that its copies of the pages are made by then."""
    set_title("satsuma-spare", "satsuma-monitor (waits for a container)")
    backend.warm_up()
    try:
        rehearse(exec_root)
    except OSError:
        report()


def run(exec_root: str, launch: socket.socket, backend: Backend) -> None:
    """Be the monitor for the request that waits in *launch*.  Runs in a settled child of the launcher."""
    assembler = protocol.Assembler()
    request = protocol.receive(launch, assembler)
    if request is None:
        return
    container_id = request.body["container_id"]
    set_title(f"satsuma:{container_id[:7]}", f"satsuma-monitor {container_id}")
    monitor = Monitor(exec_root, request, backend)
    try:
        monitor.start()
    except StartError as error:
        reply = {"id": 0, "error": str(error), "kind": "StartError", "exit_code": error.exit_code}
        monitor.add_steps(reply)
        protocol.send(launch, reply)
        return
    except Exception as error:
        report()
        text = f"{type(error).__name__}: {error}"
        protocol.send(launch, {"id": 0, "error": text, "kind": "StartError", "exit_code": 128})
        return
    monitor.serve(launch)
