"""Sessions of `exec`: created, started once, remembered for a while after their end.

Source: moby daemon/exec.go, daemon/exec_linux.go of 28.5.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import Any

from satsuma.base.aio import spawn
from satsuma.base.errors import Conflict, EngineError, InvalidParameter, NotFound, System
from satsuma.base.ids import new_id
from satsuma.container import Record, Status, process_env
from satsuma.container.capabilities import effective_capabilities
from satsuma.container.oci import capability_sets, plan_rlimits
from satsuma.engine import explain
from satsuma.engine.attach import Hijack, console_size, detach_keys_bytes
from satsuma.engine.copying import read_or_empty
from satsuma.engine.core import Core
from satsuma.engine.links import link_env, linked
from satsuma.engine.trace import Trace
from satsuma.linux.passwd import UserError, resolve_user
from satsuma.linux.root import Root
from satsuma.monitor.client import Attachment, AttachSpec, ExecSpec, LaunchError, Monitor
from satsuma.spec.docker import ExecCreateRequest, ExecStartRequest
from satsuma.wire import stdcopy

_log = logging.getLogger(__name__)

FORGET_AFTER = 300.0
"""Seconds for which an ended session can still be inspected (moby's clean-up runs every five minutes)."""


class Session:
    """One exec session.

    Attributes:
        exit_code: None until it has ended.
        explanations: who wants to know how its start goes (`engine.explain`).
        pid: of its process on the host, 0 before the start.
        process: the OCI process, as planned when the session was created (so does moby), or none yet.
    """

    def __init__(
        self, core: Core, record: Record, *, request: ExecCreateRequest, argv: list[str], detach_keys: bytes
    ) -> None:
        self.id = new_id()
        self.container_id = record.id
        self.request = request
        self.argv = argv
        self.detach_keys = detach_keys
        self.running = False
        self.exit_code: int | None = None
        self.explanations: set[Any] = set()
        self.pid = 0
        self.process: dict[str, Any] = {}
        self._core = core
        self._monitor: Monitor | None = None
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def words(self) -> str:
        """The command as events show it: `sh -c true`, and with a space behind a lone word, as Docker has it."""
        return f"{self.argv[0]} {' '.join(self.argv[1:])}"

    def claim(self) -> None:
        """Take the one right to start.

        Raises:
            Conflict: it runs, or has run.
        """
        if self.exit_code is not None:
            raise Conflict(f"exec command {self.id} has already run")
        if self.running:
            raise Conflict(f"exec command {self.id} is already running")
        self.running = True

    async def run(self, core: Core, attach: AttachSpec | None, *, size: list[int] | None = None) -> None:
        """Start the process; returns when its program runs.

        Raises:
            InvalidParameter, System, Conflict: it did not start; `exit_code` is set.
        """
        self.claim()
        trace = Trace("exec", self.id)
        steps: list[list[Any]] | None = [] if self.explanations or trace.wanted else None
        try:
            record = active_container(core, self.container_id)
            core.emit(record, f"exec_start: {self.words}", execID=self.id)
            self._monitor = core.live_monitor(record)
            if attach is not None:
                spawn(
                    f"exec-client:{self.id[:12]}", self._report_detach(self._monitor.exec_attachment(self.id))
                )
            spec = ExecSpec(
                exec_id=self.id,
                process=self.process or plan_process(core, record, self.request, self.argv),
                tty=self.request.tty,
                console_size=console_size(size or self.request.console_size),
                attach=attach,
                steps=steps,
            )
            trace.step("plan")
            self.pid = await self._monitor.exec(spec)
            trace.add_rows(steps or ())
            trace.step("answered")
            explain.answer(self, trace, steps or (), words=explain.EXEC_WORDS)
            trace.end()
        except BaseException as error:
            trace.step("answered")
            explain.answer(self, trace, getattr(error, "steps", ()), str(error), explain.EXEC_WORDS)
            self._finish(error.exit_code if isinstance(error, LaunchError) else 126)
            if isinstance(error, LaunchError):
                raise exec_error(error) from error
            raise
        spawn(f"exec:{self.id[:12]}", self._watch())

    async def _report_detach(self, attachment: Attachment) -> None:
        if await attachment.ended == "detached":
            record = self._core.registry.get(self.container_id)
            if record is not None:
                self._core.emit(record, "exec_detach", execID=self.id)

    async def _watch(self) -> None:
        assert self._monitor is not None, "started"
        self._finish(await self._monitor.exec_wait(self.id))

    def _finish(self, code: int) -> None:
        if self.exit_code is not None:
            return
        self.exit_code = code
        self.running = False
        if not self._ended.done():
            self._ended.set_result(code)
        core = self._core
        record = core.registry.get(self.container_id)
        if record is not None:
            core.actor(record).execs.pop(self.id, None)
            core.emit(record, "exec_die", execID=self.id, exitCode=str(code))
        asyncio.get_running_loop().call_later(FORGET_AFTER, sessions(core).pop, self.id, None)

    def container_ended(self) -> None:
        """The container is gone; so is this, whatever it was."""
        if self.running:
            self._finish(137)
        else:
            sessions(self._core).pop(self.id, None)

    async def settle(self) -> None:
        """Let an exit that the monitor has told already become known here.

        A client asks for the exit code as soon as its stream ends.  The monitor tells the exit before that, but
        the message passes a future and a task, and a request may overtake it in one turn of the loop.
        """
        for _ in range(5):
            if not self.running:
                return
            await asyncio.sleep(0)

    async def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return await asyncio.shield(self._ended)

    async def kill(self) -> None:
        """Kill the session's process."""
        if self._monitor is not None and self.running:
            with contextlib.suppress(EngineError):
                await self._monitor.signal(9, exec_id=self.id)

    async def resize(self, height: int, width: int) -> None:
        if self._monitor is None or not self.running:
            raise Conflict("exec process is not started")
        await self._monitor.resize(width, height, exec_id=self.id)

    def to_json(self) -> dict[str, Any]:
        """Return the object of GET /exec/{id}/json."""
        request = self.request
        return {
            "ID": self.id,
            "Running": self.running,
            "ExitCode": self.exit_code,
            "ProcessConfig": {
                "tty": request.tty,
                "entrypoint": self.argv[0],
                "arguments": self.argv[1:],
                "privileged": request.privileged,
                **({"user": request.user} if request.user else {}),
            },
            "OpenStdin": request.attach_stdin,
            "OpenStderr": request.attach_stderr,
            "OpenStdout": request.attach_stdout,
            "CanRemove": False,
            "ContainerID": self.container_id,
            "DetachKeys": (list(self.detach_keys) and request.detach_keys) or "",
            "Pid": self.pid,
        }


_sessions: dict[int, dict[str, Session]] = {}


def sessions(core: Core) -> dict[str, Session]:
    """Return all sessions of an engine by id."""
    return _sessions.setdefault(id(core), {})


def find(core: Core, exec_id: str) -> Session:
    """Return a session.

    Raises:
        NotFound: `No such exec instance: x`.
    """
    session = sessions(core).get(exec_id)
    if session is None or core.registry.get(session.container_id) is None:
        raise NotFound(f"No such exec instance: {exec_id}")
    return session


def active_container(core: Core, reference: str) -> Record:
    """Return a container in which something can be executed now.

    Raises:
        NotFound; Conflict: stopped, paused or restarting.
    """
    record = core.registry.find(reference)
    status = record.state.status
    if status is Status.PAUSED:
        raise Conflict(f"Container {reference} is paused, unpause the container before exec")
    if status is Status.RESTARTING:
        raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
    if status is not Status.RUNNING:
        raise Conflict(f"container {record.id} is not running")
    return record


def create(core: Core, reference: str, request: ExecCreateRequest) -> str:
    """Set a session up and return its id.

    Raises:
        Conflict: the container does not run; InvalidParameter: no command, or bad detach keys.
    """
    record = active_container(core, reference)
    if not request.cmd:
        raise InvalidParameter("No exec command specified")
    if request.user:
        check_user(core.live_monitor(record).init_pid, request.user)
    session = make(core, record, argv=list(request.cmd), request=request)
    session.process = plan_process(core, record, request, session.argv)
    core.live_monitor(record).expect_exec(session.process)
    return session.id


def check_user(pid: int, user: str) -> None:
    """Refuse a user that the container does not know, before a session exists.

    Raises:
        InvalidParameter: `unable to find user x: no matching entries in passwd file`.
    """
    try:
        with Root.open_path(f"/proc/{pid}/root") as root:
            resolve_user(user, read_or_empty(root, "/etc/passwd"), read_or_empty(root, "/etc/group"))
    except UserError as error:
        raise InvalidParameter(str(error))
    except OSError:
        # It ended this moment; the start will say so.
        return


def make(core: Core, record: Record, *, argv: list[str], request: ExecCreateRequest | None = None) -> Session:
    """Register a session, with its event."""
    request = request or ExecCreateRequest(attach_stdout=True, attach_stderr=True)
    keys = detach_keys_bytes(request.detach_keys)
    session = Session(core, record, request=request, argv=argv, detach_keys=keys)
    sessions(core)[session.id] = session
    core.actor(record).execs[session.id] = session
    core.emit(record, f"exec_create: {session.words}", execID=session.id)
    return session


async def start(core: Core, exec_id: str, body: ExecStartRequest, hijack: Hijack | None) -> None:
    """Start a session with the client's connection, or detached.

    Raises:
        NotFound, Conflict: nothing was sent yet.
    """
    session = find(core, exec_id)
    active_container(core, session.container_id)
    if session.exit_code is not None or session.running:
        session.claim()
    if hijack is None:
        await session.run(core, None, size=body.console_size)
        return
    request = session.request
    # Frames or not is what this request says, not what was said at create (moby container/exec.go).
    stream = await hijack.accept(tty=body.tty)
    try:
        attach = AttachSpec(
            fd=stream.fd,
            stdin=request.attach_stdin,
            stdout=request.attach_stdout,
            stderr=request.attach_stderr,
            framed=not body.tty,
            detach_keys=session.detach_keys,
            initial_stdin=stream.initial if request.attach_stdin else b"",
        )
        try:
            await session.run(core, attach, size=body.console_size)
        except EngineError as error:
            await _say(stream.fd, f"{error}\r\n".encode(), framed=not body.tty)
    finally:
        os.close(stream.fd)


async def _say(fd: int, text: bytes, *, framed: bool) -> None:
    """Write a last line into a stream that was handed over."""
    data = stdcopy.encode(stdcopy.STDOUT, text) if framed else text
    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(sock, data)
            sock.shutdown(socket.SHUT_RDWR)


def exec_error(error: LaunchError) -> EngineError:
    """Return a failed start in Docker's words."""
    text = str(error)
    if not text.startswith("OCI runtime exec failed"):
        text = f"OCI runtime exec failed: exec failed: {text}"
    return InvalidParameter(text) if error.exit_code in (126, 127) else System(text)


def plan_process(core: Core, record: Record, request: ExecCreateRequest, argv: list[str]) -> dict[str, Any]:
    """Return the OCI process of a session: the container's own, with what the client overrides."""
    config, host = record.config, record.host
    links = []
    with contextlib.suppress(EngineError):
        links = linked(core, record)
    env = process_env(
        hostname=config.hostname,
        tty=request.tty,
        linked=link_env(record, links),
        own=[*(config.env or ()), *(request.env or ())],
    )
    capabilities = effective_capabilities(
        host.cap_add,
        host.cap_drop,
        privileged=host.privileged or request.privileged,
        available=core.available_caps,
    )
    return {
        "args": argv,
        "cwd": request.working_dir or config.working_dir or "/",
        "env": env,
        "terminal": request.tty,
        "user": {
            "username": request.user or config.user,
            "additionalGroups": list(host.group_add or ()),
        },
        "capabilities": capability_sets(capabilities),
        "noNewPrivileges": record.security.no_new_privileges,
        "rlimits": plan_rlimits(host.ulimits, core.config.default_ulimits),
        "oomScoreAdj": host.oom_score_adj,
    }
