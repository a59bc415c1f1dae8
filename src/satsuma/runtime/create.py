"""The parent's side of a new container: cgroup, clone, conversation with the stage, clean-up after a failure.

For single-threaded callers (the monitor, `satsuma-oci`); import this module ahead of time, it must not be
imported in a hurry.  A call makes no other process than the container's and imports nothing.

    init = create.start(config, extras=Extras(overlay=…), stdio=(0, 1, 2), cgroup=Cgroup("/satsuma/ID"))
    ...                                  # init.pid, init.pidfd, init.console_master_fd
    os.waitid(os.P_PIDFD, init.pidfd, os.WEXITED)
    group.remove()

Source: runc libcontainer/process_linux.go.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import struct

from satsuma.linux import ns, pidfd, syscalls
from satsuma.runtime import resources, rootfs, stage
from satsuma.runtime.birthplace import Birthplace
from satsuma.runtime.config import Config
from satsuma.runtime.errors import ConfigError, StartFailed, error_text
from satsuma.runtime.plan import Extras, Plan, plan_init

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from satsuma.linux.cgroup import Cgroup
    from satsuma.runtime.cradle import Cradle
    from satsuma.runtime.trace import Trace

    Ancillary = list[tuple[int, int, bytes]]

_PREFIX = "unable to start container process: "
_MESSAGE_SIZE = 20000
_HELPER_END_MS = 100


class InitKilled(StartFailed):
    """The new process has vanished without a word."""


class Init:
    """A started process.

    Attributes:
        pid: in the caller's pid namespace; a child of the caller, who must reap it.
        pidfd: close-on-exec.
        start_time: clock ticks after boot, tells a reused pid.
        console_master_fd: terminal master, None without a terminal; the caller owns it.
        warnings: what was left out, one line each.
    """

    __slots__ = ("console_master_fd", "pid", "pidfd", "start_time", "warnings")

    def __init__(
        self, pid: int, pidfd: int, start_time: int, console_master_fd: int | None, warnings: list[str]
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.start_time = start_time
        self.console_master_fd = console_master_fd
        self.warnings = warnings


def start(
    config: Config,
    *,
    extras: Extras | None = None,
    stdio: tuple[int, int, int] = (0, 1, 2),
    cgroup: Cgroup | None = None,
    console: tuple[int, int] | None = None,
    plan: Plan | None = None,
    cradle: Cradle | None = None,
    on_runtime_hooks: Callable[[int], None] | None = None,
    on_created: Callable[[Init], None] | None = None,
) -> Init:
    """Make the container and start its program; return after execve.

    With `extras.exec_fifo_fd` it returns when the process waits for the FIFO to be opened (state "created").

    Args:
        stdio: descriptors for 0, 1 and 2; -1 is /dev/null.  Not used with a terminal.
        cgroup: is created, gets `linux.resources`; removed again only if the start fails.
        console: (height, width) of the terminal, instead of `process.consoleSize`.
        plan: made before with `plan_init` from the same configuration.
        cradle: a process that was born ahead of time; not used (see `Cradle.used`) when it does not fit.
        on_runtime_hooks: called with the pid when the hooks prestart and createRuntime are due.
        on_created: called when the process exists, before it does anything with the root file system.
    Raises:
        StartFailed: nothing is left behind.
        ConfigError: the configuration cannot be carried out; nothing was done.
    Needs: CAP_SYS_ADMIN and what the configuration asks for; a single-threaded caller.
    """
    if plan is None:
        plan = plan_init(config, extras, cgroup=cgroup)
    if console is not None and config.process is not None:
        config.process.console_size = console
    trace = plan.extras.trace
    if trace is not None:
        trace.bind(plan)
    woken: Launching | None = None
    if cradle is not None and cradle.fits(plan, cgroup):
        if cgroup is not None:
            cgroup.leave_out_v2()
        # It plans while we make the group, and waits for `go` then.
        woken = wake(cradle, plan, lambda: cradle.wake(plan, stdio, cgroup), on_created)
    if cgroup is not None:
        _make_group(cgroup, config, trace, woken)
    try:
        init = launch(
            plan,
            stdio,
            cgroup=cgroup,
            woken=woken,
            on_runtime_hooks=on_runtime_hooks,
            on_created=on_created,
        )
        if cgroup is not None:
            cgroup.settle()
        return init
    except BaseException as error:
        starved = (
            cgroup is not None
            and isinstance(error, InitKilled)
            and (cgroup.oom_kills() > 0 or cgroup.may_have_starved())
        )
        if cgroup is not None:
            _remove_quietly(cgroup)
        if starved:
            raise StartFailed(f"{_PREFIX}container init was OOM-killed (memory limit too low?)") from error
        raise


def _make_group(cgroup: Cgroup, config: Config, trace: Trace | None, woken: Launching | None) -> None:
    """Make the group and set its limits; when that fails, *woken* has waited in vain."""
    try:
        if trace is not None:
            trace.at("cgroup", cgroup.unique_dirs())
        cgroup.create()
        if trace is not None:
            trace.at("limits", _limits(config, cgroup))
        resources.apply(cgroup, config.resources)
        _delegate(cgroup, config)
    except (OSError, ConfigError) as error:
        if woken is not None:
            woken.abort()
        _remove_quietly(cgroup)
        text = resources.failure_text(error) if isinstance(error, OSError) else str(error)
        raise StartFailed(_PREFIX + text) from error


def _delegate(cgroup: Cgroup, config: Config) -> None:
    """Give the group to the container's user where the container can use it: v2, a cgroup namespace, mounted rw."""
    if not cgroup.is_v2 or config.process is None or config.namespaces.get("cgroup") != "":
        return
    for mount in config.mounts:
        options = mount.get("options") or []
        if mount.get("type") in ("cgroup", "cgroup2") and mount.get("destination") == "/sys/fs/cgroup":
            uid = config.host_ids(config.process.uid, 0)[0] if config.uid_mappings else config.process.uid
            if "ro" not in options and uid != 0:
                cgroup.delegate(uid)


def _limits(config: Config, cgroup: Cgroup) -> list[str]:
    """Return for people what is going to be written."""
    writes = resources.plan_for(cgroup, config.resources)
    devices = config.resources.get("devices")
    count = len(devices) if isinstance(devices, list) else 0  # checked when they are applied
    return [*(f"{write.name}={write.value}" for write in writes), f"devices: {count} rules"]


def _remove_quietly(cgroup: Cgroup) -> None:
    try:
        cgroup.kill_all()
        cgroup.remove()
    except OSError:
        return


def launch(
    plan: Plan,
    stdio: tuple[int, int, int],
    *,
    cgroup: Cgroup | None = None,
    init_pidfd: int = -1,
    woken: Launching | None = None,
    on_runtime_hooks: Callable[[int], None] | None = None,
    on_created: Callable[[Init], None] | None = None,
) -> Init:
    """Clone a process for *plan*, or let the woken one go, and wait until it has become the program."""
    launching = woken
    if launching is None:
        launching = begin(plan, stdio, cgroup=cgroup, init_pidfd=init_pidfd, on_created=on_created)
    else:
        launching.go()
    launching.on_runtime_hooks = on_runtime_hooks
    return complete(launching, plan.extras.trace)


def complete(launching: Launching, trace: Trace | None = None) -> Init:
    """Take all steps of a process on its way; note them if somebody asks."""
    if trace is None:
        while not launching.step():
            pass
        return launching.init
    try:
        done = False
        while not done:
            trace.rest()
            trace.watch(launching.fileno())
            done = launching.step()
    except BaseException:
        trace.end(failed=True)
        raise
    if not launching.waits_for_start:
        trace.end()
    return launching.init


def begin(
    plan: Plan,
    stdio: tuple[int, int, int],
    *,
    cgroup: Cgroup | None = None,
    init_pidfd: int = -1,
    busy_fallback: Callable[[], int] | None = None,
    on_created: Callable[[Init], None] | None = None,
) -> Launching:
    """Clone a process for *plan*; call `step` until it has become the program.

    Args:
        busy_fallback: opens another v2 group, for when *cgroup* takes no processes any more because it has
            handed its controllers to groups below it.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    if plan.born_last or plan.reborn:
        ours.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    if plan.listener is not None:
        from satsuma.runtime.notify import Mailbox

        plan.mailbox = Mailbox()
    unified = cgroup.open_unified() if cgroup is not None else -1
    flags = plan.clone_flags | (syscalls.CLONE_INTO_CGROUP if unified >= 0 else 0)
    try:
        if plan.in_userns and plan.extras.overlay is not None:
            # Mounted by us: root of the new user namespace may not even be able to walk to the layers.
            plan.root_fd = rootfs.open_overlay(plan.extras.overlay)
        with Birthplace(plan):
            pid, child_fd = _clone(plan, flags, unified, busy_fallback)
            if pid == 0:
                stage.run(stage.Stage(plan, theirs.fileno(), stdio, init_pidfd))
    except OSError as error:
        ours.close()
        raise StartFailed(f"{_PREFIX}error creating new process: {error_text(error)}") from error
    finally:
        for fd in (unified, plan.root_fd):
            if fd >= 0:
                os.close(fd)
        theirs.close()
    return _born(plan, pid, child_fd, ours, on_created)


def wake(
    cradle: Cradle,
    plan: Plan,
    tell: Callable[[], _socket.socket],
    on_created: Callable[[Init], None] | None = None,
) -> Launching | None:
    """Let a process that was born ahead carry out *plan*, which *tell* tells it; None when it cannot."""
    if plan.extras.trace is not None:
        plan.extras.trace.at("wake", plan.clone_flags)
    try:
        set_oom_score(plan, cradle)
        sock = tell()
    except (OSError, StartFailed):
        cradle.close()
        return None
    return _born(plan, cradle.pid, cradle.pidfd, sock, on_created, has_score=True)


def _born(
    plan: Plan,
    pid: int,
    child_fd: int,
    sock: _socket.socket,
    on_created: Callable[[Init], None] | None,
    *,
    has_score: bool = False,
) -> Launching:
    launching = Launching(plan, Init(pid, child_fd, 0, None, list(plan.warnings)), sock)
    launching.on_created = on_created
    try:
        launching.init.start_time = pidfd.start_time(pid)
        if not has_score:
            _set_oom_score(plan, pid)
        if on_created is not None:
            on_created(launching.init)
    except BaseException:
        launching.abort()
        raise
    return launching


def _clone(plan: Plan, flags: int, unified: int, busy_fallback: Callable[[], int] | None) -> tuple[int, int]:
    if plan.extras.trace is not None:
        plan.extras.trace.at("clone3", flags)
    try:
        return syscalls.clone3(flags, cgroup=max(unified, 0))
    except OSError as error:
        if error.errno != errno.EBUSY or busy_fallback is None or unified < 0:
            raise
    fd = busy_fallback()
    try:
        return syscalls.clone3(flags, cgroup=fd)
    finally:
        os.close(fd)


class Launching:
    """A process on its way to its program, and the conversation with it.

    A caller that must not block waits until `fileno` is readable before each `step`: the process can be held
    up for any time, by a freezer that catches it half way for one.

    Attributes:
        init: what `launch` returns in the end.
        loop_reaps: somebody waits for all children, so nobody needs to wait for a helper here.
    """

    __slots__ = (
        "_helper",
        "_plan",
        "_ready",
        "_sock",
        "init",
        "loop_reaps",
        "on_created",
        "on_runtime_hooks",
    )

    def __init__(self, plan: Plan, init: Init, sock: _socket.socket) -> None:
        self.init = init
        self.on_runtime_hooks: Callable[[int], None] | None = None
        self.on_created: Callable[[Init], None] | None = None
        self._plan = plan
        self._sock = sock
        self.loop_reaps = False
        self._ready = False
        self._helper = -1

    @property
    def waits_for_start(self) -> bool:
        """True when the process waits for the exec FIFO in the end."""
        return self._plan.extras.exec_fifo_fd >= 0

    def fileno(self) -> int:
        """Return the descriptor which becomes readable when `step` has something to do."""
        return self._sock.fileno()

    def go(self) -> None:
        """Tell a woken process that its group is there."""
        try:
            self._sock.send(b"G")
        except OSError:
            return  # it is dead, as the next step will find

    def step(self) -> bool:
        """Take one message of the process; True when it runs its program (or waits for the exec FIFO).

        Raises:
            StartFailed: it has failed, and is gone.
        """
        try:
            done = self._step()
        except OSError as error:
            # Whoever may kill inside the container may kill the process at any moment.
            self.abort()
            text = f"container process was killed before it could start: {error_text(error)}"
            raise StartFailed(_PREFIX + text) from error
        except BaseException:
            self.abort()
            raise
        if done:
            self._sock.close()
            self._reap_helper()
        return done

    def _step(self) -> bool:
        data, ancillary, _, _ = self._sock.recvmsg(_MESSAGE_SIZE, 64, _socket.MSG_CMSG_CLOEXEC)
        kind = data[:1]
        if not data:
            if not self._ready:
                raise InitKilled(f"{_PREFIX}container init was killed before it could start the program")
            return True
        if kind == b"R":
            self._ready = True
            return self._plan.extras.exec_fifo_fd >= 0
        handle = self._handlers.get(kind)
        if handle is not None:
            handle(self, data, ancillary)
        elif self._helper < 0 or not self._plan.born_last:
            _answer(self._plan, self.init, self._sock, kind, self.on_runtime_hooks)
        return False

    def _warned(self, data: bytes, ancillary: Ancillary) -> None:
        self.init.warnings.append(data[1:].decode("utf-8", "replace"))

    def _failed(self, data: bytes, ancillary: Ancillary) -> None:
        raise StartFailed(_PREFIX + data[2:].decode("utf-8", "replace"), data[1])

    def _take_console(self, data: bytes, ancillary: Ancillary) -> None:
        for level, what, payload in ancillary:
            if level == _socket.SOL_SOCKET and what == _socket.SCM_RIGHTS:
                self.init.console_master_fd = struct.unpack("i", payload[:4])[0]

    def _pass_listener(self, data: bytes, ancillary: Ancillary) -> None:
        """The process loads its filter now: take the listener and hand it to the agent."""
        from satsuma.runtime import notify

        plan = self._plan
        if plan.mailbox is None or plan.listener is None:
            raise StartFailed(f"{_PREFIX}unexpected message of the container's process")
        state = {"status": "creating", "pid": self.init.pid, **plan.extras.state}
        notify.serve(plan.mailbox, self.init.pidfd, self.init.pid, plan.listener, state)

    def _send_source(self, data: bytes, ancillary: Ancillary) -> None:
        """Make the mount of a step of the plan, which the process cannot make itself."""
        from satsuma.runtime import sources

        step = self._plan.steps[int.from_bytes(data[1:], "big")]
        failure = sources.send_mount(self._sock, self.init.pid, step)
        if failure:
            self._sock.send(b"E" + failure.encode())

    def _born(self, data: bytes, ancillary: Ancillary) -> None:
        """Take the sender, whose pid the kernel tells, for the process; the one before was its helper."""
        if not (self._plan.born_last or self._plan.reborn) or self._helper >= 0:
            raise StartFailed(f"{_PREFIX}unexpected message of the container's process")
        credentials = next(payload for _, what, payload in ancillary if what == _socket.SCM_CREDENTIALS)
        pid = struct.unpack("3i", credentials[:12])[0]
        try:
            born = os.pidfd_open(pid)
        except OSError as error:
            raise StartFailed(f"{_PREFIX}container process was killed before it could start") from error
        self._helper, self.init.pidfd, self.init.pid = self.init.pidfd, born, pid
        try:
            # Fails for what is no child of ours: then the pid has been reused already.
            os.waitid(os.P_PIDFD, born, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            self.init.start_time = pidfd.start_time(pid)
        except (ChildProcessError, ProcessLookupError) as error:
            raise StartFailed(f"{_PREFIX}container process was killed before it could start") from error
        if self.on_created is not None:
            self.on_created(self.init)
        self._reap_helper(keep=True)
        if data == b"P":
            if self._plan.born_last:
                self._repeat_oom_score()
            self._sock.send(b"K")

    def _repeat_oom_score(self) -> None:
        """Set the score that the helper may have got too late to hand down."""
        try:
            _set_oom_score(self._plan, self.init.pid)
        except StartFailed:
            return  # who may not write here could write there, in time

    def _reap_helper(self, *, keep: bool = False) -> None:
        """Reap the helper, which ends by itself; waits, but not for long, because a freezer may hold it."""
        if self._helper < 0:
            return
        if not keep and not self.loop_reaps:
            ending = select.poll()
            ending.register(self._helper, select.POLLIN)
            ending.poll(_HELPER_END_MS)
        try:
            os.waitid(os.P_PIDFD, self._helper, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass  # somebody waits for all children
        if not keep:
            os.close(self._helper)
            self._helper = -1

    _handlers = {
        b"W": _warned,
        b"C": _take_console,
        b"P": _born,
        b"Q": _born,
        b"E": _failed,
        b"N": _pass_listener,
        b"S": _send_source,
    }

    def abort(self) -> None:
        """Kill and reap the process."""
        self._sock.close()
        _destroy(self.init)
        self._reap_helper()


def set_oom_score(plan: Plan, cradle: Cradle) -> None:
    """Give a process that was born ahead the score of *plan*, if it has not got it: its children inherit it.

    Raises:
        StartFailed: it cannot be set.
    """
    value = plan.process.oom_score_adj if plan.process is not None else None
    if value != cradle.oom_score:
        _set_oom_score(plan, cradle.pid)
        cradle.oom_score = value


def _set_oom_score(plan: Plan, pid: int) -> None:
    value = plan.process.oom_score_adj if plan.process is not None else None
    if value is None:
        return
    if plan.extras.trace is not None:
        plan.extras.trace.at("oom_score_adj", value)
    try:
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise StartFailed(f"{_PREFIX}write /proc/{pid}/oom_score_adj: {error_text(error)}") from error


def _answer(
    plan: Plan,
    init: Init,
    sock: _socket.socket,
    kind: bytes,
    on_runtime_hooks: Callable[[int], None] | None,
) -> None:
    trace = plan.extras.trace
    try:
        if kind == b"U":
            if trace is not None and plan.config is not None:
                trace.at("id_maps", plan.config.uid_mappings, plan.config.gid_mappings)
            if plan.config is not None:
                ns.write_maps(init.pid, plan.config.uid_mappings, plan.config.gid_mappings)
        elif kind == b"D" and plan.config is not None:
            from satsuma.runtime import netdevices

            netdevices.move(init.pid, plan.config.net_devices)
        elif kind == b"H" and on_runtime_hooks is not None:
            if trace is not None:
                trace.at("runtime_hooks")
            on_runtime_hooks(init.pid)
        sock.send(b"K")
    except OSError as error:
        raise StartFailed(f"{_PREFIX}{error_text(error)}") from error


def _destroy(init: Init) -> None:
    """Kill and reap a process whose start has failed."""
    try:
        syscalls.pidfd_send_signal(init.pidfd, 9)
    except OSError:
        pass
    try:
        os.waitid(os.P_PIDFD, init.pidfd, os.WEXITED)
    except ChildProcessError:
        pass
    os.close(init.pidfd)
    if init.console_master_fd is not None:
        os.close(init.console_master_fd)
