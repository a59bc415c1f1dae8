"""The daemon's side: start the launcher, launch monitors, talk to them, find them again after a restart.

asyncio; nothing here blocks the loop.  A `Launcher` starts its program again when it died.  A `Monitor` is a
connection; its events (exits) arrive whether somebody waits or not.  Descriptors in specs stay the caller's:
they are duplicated by sending, and may be closed when the call has returned.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from satsuma.base import errors
from satsuma.base.aio import blocking, spawn
from satsuma.linux.sealed import open_sealed
from satsuma.monitor import burial, protocol, rehearsal, state
from satsuma.monitor.channel import Channel, socketpair, wake
from satsuma.monitor.specs import AttachSpec, ExecSpec, LaunchSpec, LogSpec, attach_body, launch_body
from satsuma.monitor.state import ExitStatus, read_exit

__all__ = [
    "AttachSpec",
    "Attachment",
    "ExecSpec",
    "ExitStatus",
    "LaunchError",
    "LaunchSpec",
    "Launcher",
    "LogSpec",
    "Monitor",
    "read_exit",
    "reconnect",
    "running_ids",
]

Body = dict[str, Any]

REMEMBERED = 1024
"""Exit codes of ended sessions that a connection keeps."""
SPARE_AFTER_START = 0.05
SPARE_AFTER_END = 0.002
"""Seconds in which the making of the next spare monitor would hold up the container that has just started, or
the news that one has ended."""
SPARE_FRESH = 5.0
"""Seconds after which a spare is exchanged when a container is created: its first process looks as old as it is."""
LONGEST_SILENCE = 10.0
"""Seconds for which a monitor may live without listening: it starts, or it ends."""


class LaunchError(errors.EngineError):
    """A process did not start; `exit_code` is what Docker reports (125, 126, 127, 128).

    Attributes:
        steps: how far it came, if the launch asked for it.
    """

    def __init__(self, message: str, exit_code: int, steps: Sequence[list[Any]] = ()) -> None:
        super().__init__(message)
        # moby daemon/start.go, setExitCodeFromError: by the words, whatever was missing.
        self.exit_code = 127 if exit_code == 128 and "no such file or directory" in message else exit_code
        self.steps = steps


class Attachment:
    """One attached client; `ended` becomes "closed", "detached" or "ended" (with the process)."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class Launcher:
    """The launcher program, started again when it ended."""

    def __init__(
        self, exec_root: str, command: Sequence[str] | None = None, *, cgroup_driver: str = "cgroupfs"
    ) -> None:
        self._exec_root = exec_root
        self._command = tuple(command) if command is not None else _default_command(cgroup_driver)
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._starting = asyncio.Lock()
        self._spare: socket.socket | None = None
        self._spare_made = 0.0
        self._refill: asyncio.TimerHandle | None = None
        self._closing = False

    @classmethod
    async def start(
        cls, exec_root: str, *, command: Sequence[str] | None = None, cgroup_driver: str = "cgroupfs"
    ) -> Launcher:
        """Start the program and wait until it is ready.

        Args:
            command: what to run instead of the launcher; gets descriptor number and exec-root appended.
            cgroup_driver: "cgroupfs" or "systemd".
        Raises:
            System: it does not start.
        """
        launcher = cls(exec_root, command, cgroup_driver=cgroup_driver)
        await blocking(_clear_rehearsals, exec_root)
        await launcher._ready()
        launcher.prepare()
        return launcher

    async def _ready(self) -> Channel:
        async with self._starting:
            if self._closing:
                raise errors.System("the launcher has been ended")
            if self._channel is not None and not self._channel.closed.done():
                return self._channel
            ours, theirs = socketpair()
            with theirs:
                command = (*self._command, str(theirs.fileno()), self._exec_root)
                self._process = await blocking(_spawn, command, theirs.fileno(), self._process)
            channel = _LauncherChannel(ours)
            await asyncio.wait((channel.ready, channel.closed), return_when=asyncio.FIRST_COMPLETED)
            if not channel.ready.done():
                raise errors.System("the launcher did not start")
            self._channel = channel
            return channel

    @property
    def pid(self) -> int:
        """Process id of the program."""
        assert self._process is not None
        return self._process.pid

    async def _ask(self, body: Body, sock: socket.socket) -> None:
        """Pass *sock* to the program; start the program anew once if it is gone."""
        packer = protocol.Packer()
        packer.fd(sock.fileno())
        channel = await self._ready()
        try:
            await channel.send(body, packer)
        except ConnectionError:
            channel.close()
            await (await self._ready()).send(body, packer)

    async def launch(self, spec: LaunchSpec) -> Monitor:
        """Start a container and return when its program runs.

        Raises:
            LaunchError: it did not start; nothing is left behind.
        """
        body, packer = launch_body(spec)
        monitor, reply = await self._begin(spec, body, packer)
        self._prepare_later(SPARE_AFTER_START)
        try:
            message = await reply
        except ConnectionError:
            monitor.close()
            directory = state.run_dir(self._exec_root, spec.container_id)
            group = (spec.config.get("linux") or {}).get("cgroupsPath") or ""
            await blocking(burial.bury, directory, None, group=group)
            raise LaunchError("the monitor of the container died while it started", 128) from None
        except BaseException:
            monitor.close()
            raise
        monitor._opened(_check(message.body))
        monitor.start_attachments = [monitor._expect_end(f"start.{n}") for n in range(len(spec.attaches))]
        return monitor

    async def _begin(
        self, spec: LaunchSpec, body: Body, packer: protocol.Packer
    ) -> tuple[Monitor, asyncio.Future[protocol.Message]]:
        """Send the request to the spare monitor, or to one that is made for it."""
        spare, self._spare = self._spare, None
        if spare is not None:
            monitor = Monitor(self._exec_root, spare, spec.container_id, spec.exit_path)
            reply = monitor._channel.expect(0)
            try:
                await monitor._channel.send(body, packer)
                return monitor, reply
            except BaseException as error:
                reply.cancel()
                monitor.close()
                if not isinstance(error, ConnectionError):
                    raise
        ours, theirs = socketpair()
        with theirs:
            monitor = Monitor(self._exec_root, ours, spec.container_id, spec.exit_path)
            try:
                # The request waits in the socket before the child that reads it exists.
                reply = monitor._channel.expect(0)
                await monitor._channel.send(body, packer)
                await self._ask({"op": "launch"}, theirs)
            except BaseException:
                monitor.close()
                raise
        return monitor, reply

    def prepare(self) -> None:
        """Have a monitor made ahead of time, if there is none: a container has ended, the moment is a good one."""
        self._prepare_later(SPARE_AFTER_END)

    def freshen(self) -> None:
        """Exchange a spare that has waited for long: a container is being created, and will soon be started."""
        if asyncio.get_running_loop().time() - self._spare_made > SPARE_FRESH:
            self._make_spare()

    def _prepare_later(self, delay: float) -> None:
        if self._refill is not None:
            self._refill.cancel()
        self._refill = asyncio.get_running_loop().call_later(delay, self._refill_now)

    def _refill_now(self) -> None:
        self._refill = None
        if self._spare is None:
            self._make_spare()

    def _make_spare(self) -> None:
        self._spare_made = asyncio.get_running_loop().time()
        if self._channel is not None and not self._channel.closed.done():
            spawn("launcher:spare", self._ask_for_spare())

    async def _ask_for_spare(self) -> None:
        ours, theirs = socketpair()
        with theirs:
            try:
                await self._ask({"op": "spare"}, theirs)
            except BaseException as error:
                ours.close()
                if self._closing and isinstance(error, errors.System):
                    return
                raise
        if self._closing:
            ours.close()
            return
        if self._spare is not None:
            self._spare.close()
        self._spare = ours

    async def make_netns(self) -> tuple[int, int]:
        """Make a network namespace: (namespace descriptor, NETLINK_ROUTE socket inside); lo is up.

        Raises:
            System: the kernel refused.
        """
        ours, theirs = socketpair()
        channel = Channel(ours)
        try:
            with theirs:
                reply = channel.expect(0)
                await self._ask({"op": "netns"}, theirs)
            message = await reply
        except ConnectionError:
            raise errors.System("cannot create a network namespace") from None
        finally:
            channel.close()
        try:
            return message.take_fd(0), message.take_fd(1)
        finally:
            message.close()

    async def close(self) -> None:
        """End the program and the spare; monitors and containers go on.  May be called again."""
        self._closing = True
        if self._refill is not None:
            self._refill.cancel()
        # What asks for a spare just now must not find the channel closed and start the program anew.
        async with self._starting:
            if self._spare is not None:
                self._spare.close()
                self._spare = None
            if self._channel is not None:
                self._channel.close()
        if self._process is not None:
            await blocking(self._process.wait)


class _LauncherChannel(Channel):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.ready: asyncio.Future[None] = self._loop.create_future()

    def event(self, message: protocol.Message) -> None:
        if "ready" in message.body:
            wake(self.ready)


def _clear_rehearsals(exec_root: str) -> None:
    """Remove what spares of a killed launcher have left."""
    for name in os.listdir(exec_root):
        if name.startswith(rehearsal.PREFIX):
            rehearsal.clear(f"{exec_root}/{name}")


def _default_command(cgroup_driver: str) -> tuple[str, ...]:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")
    return (sys.executable, "-I", "-S", "-B", path, cgroup_driver)


def _spawn(
    command: Sequence[str], fd: int, previous: subprocess.Popen[bytes] | None
) -> subprocess.Popen[bytes]:
    if previous is not None:
        previous.wait()
    # Its own session: a terminal's signals are for the daemon.  Few arenas, because each costs every monitor.
    environment = {"PATH": os.defpath, "MALLOC_ARENA_MAX": "1"}
    for name in ("SATSUMA_FAILPOINTS", "DBUS_SYSTEM_BUS_ADDRESS"):
        if name in os.environ:
            environment[name] = os.environ[name]
    # What monitors and containers are forked from must not lead back to the host's interpreter.
    program = open_sealed(command[0])
    try:
        return subprocess.Popen(
            command,
            executable=f"/proc/self/fd/{program}",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(fd, program),
            start_new_session=True,
            env=environment,
        )
    finally:
        os.close(program)


class _MonitorChannel(Channel):
    def __init__(self, sock: socket.socket, monitor: Monitor) -> None:
        super().__init__(sock)
        self._monitor = monitor

    def event(self, message: protocol.Message) -> None:
        self._monitor._event(message.body)


class Monitor:
    """A connection to one monitor.

    Attributes:
        pid, init_pid, start_time: of the monitor, of init, and of init in clock ticks after boot.
        started_at_ns: when init had passed execve.
        cgroup: controller name → directory.
        start_attachments: the clients that were attached before the start, in their order.
    """

    def __init__(self, exec_root: str, sock: socket.socket, container_id: str, exit_path: str) -> None:
        self.container_id = container_id
        self.pid = 0
        self.init_pid = 0
        self.start_time = 0
        self.started_at_ns = 0
        self.cgroup: dict[str, str] = {}
        self.steps: list[list[Any]] = []
        self._exec_root = exec_root
        self._exit_path = exit_path
        self._channel = _MonitorChannel(sock, self)
        self._exit: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._exec_exits: collections.OrderedDict[str, asyncio.Future[int]] = collections.OrderedDict()
        self._attachments: dict[str, Attachment] = {}
        self._attach_count = 0
        self.start_attachments: list[Attachment] = []
        self._abandoned = False
        self._channel.closed.add_done_callback(lambda _: self._lost())

    def _opened(self, body: Body) -> None:
        self.pid = body["pid"]
        self.init_pid = body["init_pid"]
        self.start_time = body["start_time"]
        self.started_at_ns = body["started_at_ns"]
        self.cgroup = body["cgroup"]
        self.steps = body.get("steps", [])
        self._exit_path = body["exit_path"]

    def _recovered(self, body: Body) -> Monitor:
        """Take over what another daemon's connection would know."""
        self._opened(body)
        if body["exit"] is not None:
            self._set_exit(ExitStatus(**body["exit"]))
        for exec_id, code in body["exec_codes"].items():
            self._set_exec_exit(exec_id, code)
        for exec_id in body["execs"]:
            self._exec_future(exec_id)
        return self

    def _expect_end(self, attach_id: str) -> Attachment:
        attachment = self._attachments[attach_id] = Attachment()
        return attachment

    def exec_attachment(self, exec_id: str) -> Attachment:
        """Return the client of an exec session; ask before the session starts."""
        return self._expect_end(exec_id)

    def _event(self, body: Body) -> None:
        match body.get("event"):
            case "exit":
                self._set_exit(ExitStatus(body["exit_code"], body["oom_killed"], body["finished_at_ns"]))
            case "gone":
                wake(self._gone)
            case "exec_exit":
                self._set_exec_exit(body["exec_id"], body["exit_code"])
            case "attach_end":
                attachment = self._attachments.pop(body["attach_id"], None)
                if attachment is not None and not attachment.ended.done():
                    attachment.ended.set_result(body["reason"])

    def _set_exit(self, status: ExitStatus) -> None:
        if not self._exit.done():
            self._exit.set_result(status)

    def _exec_future(self, exec_id: str) -> asyncio.Future[int]:
        future = self._exec_exits.get(exec_id)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._exec_exits[exec_id] = future
        return future

    def _set_exec_exit(self, exec_id: str, code: int) -> None:
        future = self._exec_future(exec_id)
        if not future.done():
            future.set_result(code)
        while len(self._exec_exits) > REMEMBERED and next(iter(self._exec_exits.values())).done():
            self._exec_exits.popitem(last=False)

    def _lost(self) -> None:
        """Settle everything when the connection has ended: the monitor ended, or was killed."""
        for attachment in self._attachments.values():
            if not attachment.ended.done():
                attachment.ended.set_result("ended")
        self._attachments.clear()
        if self._abandoned and not self._gone.done():
            return
        for future in self._exec_exits.values():
            if not future.done():
                future.set_result(state.KILLED_WITH_MONITOR)
        if self.init_pid and not self._gone.done():
            spawn(f"monitor:bury:{self.container_id[:12]}", self._bury())

    async def _bury(self) -> None:
        """Find out how the container ended when the connection was lost before the news."""
        known = {"init_pid": self.init_pid, "start_time": self.start_time, "cgroup": self.cgroup}
        directory = state.run_dir(self._exec_root, self.container_id)
        for _ in range(int(LONGEST_SILENCE / burial.PAUSE)):
            if await blocking(burial.bury, directory, self._exit_path, known):
                break
            await asyncio.sleep(burial.PAUSE)
        self._set_exit(read_exit(self._exit_path) or burial.killed())
        wake(self._gone)

    @property
    def exited(self) -> bool:
        """True when `wait` would answer at once."""
        return self._exit.done()

    async def wait(self) -> ExitStatus:
        """Wait until the container has ended and nothing of it is left; any number of callers may."""
        await asyncio.shield(self._gone)
        return await asyncio.shield(self._exit)

    async def ended(self) -> ExitStatus:
        """Wait for the end of the container's init; its cgroup and the monitor's files are still being removed."""
        return await asyncio.shield(self._exit)

    async def exec_wait(self, exec_id: str) -> int:
        """Wait for the end of an exec session and return its exit code."""
        return await asyncio.shield(self._exec_future(exec_id))

    async def _call(self, body: Body, packer: protocol.Packer | None = None) -> Body:
        try:
            message = await self._channel.request(body, packer)
        except ConnectionError:
            raise errors.Conflict(f"container {self.container_id} is not running") from None
        message.close()
        return _check(message.body)

    async def status(self) -> Body:
        """Return the monitor's own account: pids, running sessions, exit codes of ended ones."""
        return await self._call({"op": "status"})

    async def attach(self, spec: AttachSpec) -> Attachment:
        """Attach a client; the bytes then flow between monitor and client without the daemon.

        Raises:
            Conflict: the container is not running.
        """
        self._attach_count += 1
        attach_id = f"{id(self):x}.{self._attach_count}"
        packer = protocol.Packer()
        body = {"op": "attach", "attach_id": attach_id, "attach": attach_body(spec, packer)}
        attachment = self._attachments[attach_id] = Attachment()
        try:
            await self._call(body, packer)
        except BaseException:
            self._attachments.pop(attach_id, None)
            raise
        return attachment

    def expect_exec(self, process: Body) -> None:
        """Say that *process* (as in `ExecSpec`) is going to be started."""
        spawn(f"expect-exec:{self.container_id[:12]}", self._expect_exec(process))

    async def _expect_exec(self, process: Body) -> None:
        with contextlib.suppress(errors.EngineError):
            await self._call({"op": "expect_exec", "process": process})

    async def exec(self, spec: ExecSpec) -> int:
        """Start a session and return its pid once its program runs; `exec_wait` tells its end.

        Raises:
            LaunchError: it did not start.  The client's socket is still the caller's, to say so.
            Conflict: the container is not running.
        """
        packer = protocol.Packer()
        body: Body = {
            "op": "exec",
            "exec_id": spec.exec_id,
            "process": spec.process,
            "tty": spec.tty,
            "console_size": spec.console_size,
        }
        if spec.attach is not None:
            body["attach"] = attach_body(spec.attach, packer)
        if spec.steps is not None:
            body["explain"] = True
        reply = await self._call(body, packer)
        if spec.steps is not None:
            spec.steps.extend(reply.get("steps", []))
        self._exec_future(spec.exec_id)
        pid: int = reply["pid"]
        return pid

    async def resize(self, width: int, height: int, exec_id: str | None = None) -> None:
        """Set the size of a terminal; a process without one ignores it."""
        await self._call({"op": "resize", "width": width, "height": height, "exec_id": exec_id})

    async def signal(self, signum: int, exec_id: str | None = None) -> None:
        """Send a signal to init, or to the first process of a session.

        Raises:
            Conflict: the container is not running.
        """
        await self._call({"op": "signal", "signum": signum, "exec_id": exec_id})

    async def kill_all(self) -> None:
        """Send SIGKILL to every process of the container's cgroup."""
        await self._call({"op": "kill_all"})

    async def close_stdin(self, exec_id: str | None = None) -> None:
        """Give the process EOF on stdin."""
        await self._call({"op": "close_stdin", "exec_id": exec_id})

    def close(self) -> None:
        """Let go of the connection; the monitor goes on.  Waiters stay unanswered: cancel them."""
        self._abandoned = True
        self._channel.close()


def _check(body: Body) -> Body:
    """Return a reply, or raise the error that it carries."""
    if "error" not in body:
        return body
    if body["kind"] == "StartError":
        raise LaunchError(body["error"], body["exit_code"], body.get("steps", []))
    kind = getattr(errors, body["kind"], errors.System)
    raise kind(body["error"])


def running_ids(exec_root: str) -> list[str]:
    """Return the ids of the containers whose monitor runs, or was killed and not cleaned up after."""
    try:
        return sorted(os.listdir(state.containers_dir(exec_root)))
    except FileNotFoundError:
        return []


async def reconnect(
    exec_root: str, container_id: str, exit_path: str | None = None, *, group: str = ""
) -> Monitor | None:
    """Connect to the monitor of a container that another daemon started.

    Returns None when the monitor is gone; the exit record then exists if the container ever ran: a monitor
    that was killed is cleaned up after here, and its record written in its place.

    Args:
        group: the container's cgroup as config.json names it.
    Raises:
        System: it lives, but does not answer.
    """
    directory = state.run_dir(exec_root, container_id)
    for _ in range(int(LONGEST_SILENCE / burial.PAUSE)):
        sock = burial.connect(directory)
        if sock is not None:
            monitor = Monitor(exec_root, sock, container_id, exit_path or "")
            try:
                return monitor._recovered(await monitor.status())
            except errors.Conflict:
                monitor.close()  # It ended just now; its record is in place, or its directory is left.
        if await blocking(burial.bury, directory, exit_path, group=group):
            return None
        await asyncio.sleep(burial.PAUSE)
    raise errors.System(f"the monitor of container {container_id} does not answer")
