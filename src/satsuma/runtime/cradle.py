"""A container's first process that is born before its container is known.

Of a start's time a fork and the first touch of half a thousand shared pages are a third: the new process has them
behind it when it is born ahead of time, in new pid, ipc and uts namespaces, and has gone through the steps of a
container once on a scratch file system.  When there is a container to start it gets the configuration and the
descriptors, plans by the same rules as its parent, takes its own copy of the mount table, which therefore is no older
than the start, and goes on as every other (`stage.run`).

Only for what `fits`: a process cannot change its pid namespace, and no version 2 group can be changed in less than a
grace period of RCU (10 ms), so the group it is born into would have to be known.  In a hybrid set-up the container
stays out of the version 2 tree, unless a limit belongs to one of the few controllers there.

The parent is single-threaded, and its death is the death of the process.  The container's "started" in procfs is the
time of birth, so a process that is too old is not used (`MAX_AGE_NS`).
"""

from __future__ import annotations

import array
import errno
import mmap
import os
import select
import socket as _socket
import time

from satsuma.linux import caps, pidfd, prctl, seccomp, syscalls
from satsuma.linux import mount as mounts
from satsuma.linux.cgroup import UNIFIED, Cgroup, layout
from satsuma.linux.root import Root
from satsuma.runtime import birth, default_spec, fastjson, finish, resources, stage
from satsuma.runtime.config import parse, parse_process
from satsuma.runtime.errors import StepError
from satsuma.runtime.plan import Extras, Plan, plan_exec, plan_init
from satsuma.runtime.trace import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Json = dict[str, Any]

MAX_AGE_NS = 10 * 10**9
BORN_INTO = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
_MAX_MESSAGE = 128 * 1024
_MAX_FDS = 200
_TRACE_SIZE = 4096
_REHEARSED = frozenset(
    "mount mount_cgroup1 devices dev_links resolve_user make_cwd readonly_paths masked_paths".split()
)
_PLAIN_EXTRAS = (
    "bundle death_signal init_path keyring lsm_optional no_pivot overlay seccomp_flags state".split()
)
_NO_OVERLAY: Json = {"lowerdirs": ["/"], "upperdir": "", "workdir": "", "volatile": False}


def possible() -> bool:
    """Tell whether this machine's control groups let a process in after its birth."""
    return layout().mode in ("v1", "hybrid")


def takes_later(cgroup: Cgroup) -> bool:
    """Tell whether a group lets a process in after its birth."""
    return UNIFIED not in cgroup.dirs


class Cradle:
    """The process, from its parent's side."""

    __slots__ = ("_born", "_sock", "_trace_page", "pid", "pidfd", "used")
    flags = BORN_INTO

    def __init__(self) -> None:
        """Needs: CAP_SYS_ADMIN; a single-threaded caller."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        with theirs:
            self._trace_page = mmap.mmap(-1, _TRACE_SIZE)
            self.used = False
            self._born = time.monotonic_ns()
            self._sock = ours
            try:
                self.pid, self.pidfd = syscalls.clone3(self.flags)
            except OSError:
                ours.close()
                raise
            if self.pid == 0:
                self._live(theirs.fileno())

    def fits(self, plan: Plan, cgroup: Cgroup | None) -> bool:
        """Tell whether the process can become the container of *plan*."""
        if cgroup is not None and cgroup.unit:
            return False  # systemd's, which comes with a placeholder
        if cgroup is not None and plan.config is not None:
            limits = resources.plan_for(cgroup, plan.config.resources)
            if any(limit.controller == UNIFIED for limit in limits):
                return False
        return (
            plan.clone_flags == BORN_INTO | syscalls.CLONE_NEWNS
            and self._suits(plan)
            and time.monotonic_ns() - self._born < MAX_AGE_NS
        )

    @staticmethod
    def _suits(plan: Plan) -> bool:
        return (
            plan.join_pid is None
            and plan.time_offsets is None
            and plan.listener is None
            and not (plan.in_userns or plan.reborn)
            and plan.extras.exec_fifo_fd < 0
            and not plan.extras.preserve_fds
            and len(plan.steps) < _TRACE_SIZE // 8 - 32
        )

    def wake(self, plan: Plan, stdio: tuple[int, int, int], cgroup: Cgroup | None) -> _socket.socket:
        """Let the process carry out *plan*; return the socket of the conversation with it.

        Raises:
            OSError: it is dead, or this is too much to tell; `close` it.
        """
        config = plan.config
        assert config is not None, "a plan of plan_init"
        group = [cgroup.path, cgroup.dirs] if cgroup is not None else None
        return self._tell({"config": config.raw, "cgroup": group}, plan, stdio)

    def _tell(
        self, body: Json, plan: Plan, stdio: tuple[int, int, int], others: dict[str, int] | None = None
    ) -> _socket.socket:
        data, fds = self._message(body, plan, stdio, others)
        if len(data) > _MAX_MESSAGE or len(fds) > _MAX_FDS:
            self.used = True
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self.used = True
        if plan.extras.trace is not None:
            plan.extras.trace.share(self._trace_page)
        self._sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)] if fds else [])
        return self._sock

    @staticmethod
    def _message(
        body: Json, plan: Plan, stdio: tuple[int, int, int], others: dict[str, int] | None
    ) -> tuple[bytes, array.array[int]]:
        extras, process = plan.extras, plan.process
        fds = array.array("i")
        body |= {
            "console": list(process.console_size) if process is not None else None,
            "stdio": [_add(fds, fd) for fd in stdio],
            "others": {name: _add(fds, fd) for name, fd in (others or {}).items()},
            "ns_fds": {kind: _add(fds, fd) for kind, fd in extras.ns_fds.items()},
            "mount_fds": {place: _add(fds, fd) for place, fd in extras.mount_fds.items()},
            "trace": extras.trace is not None,
            "extras": {name: getattr(extras, name) for name in _PLAIN_EXTRAS},
        }
        return fastjson.dumps(body).encode() + b"\0" + (extras.seccomp_bpf or b""), fds

    def close(self) -> None:
        """End a process that is not needed."""
        self._sock.close()
        try:
            syscalls.pidfd_send_signal(self.pidfd, 9)
        except ProcessLookupError:
            pass
        try:
            pidfd.wait(self.pidfd)
        except ChildProcessError:  # reaped by somebody who waits for all children
            pass
        os.close(self.pidfd)

    # In the process.

    def _live(self, sock_fd: int) -> NoReturn:
        """Get ready, wait, become what is wanted."""
        try:
            prctl.set_parent_death_signal(9)
            # The parent's connections have to end with the parent.
            syscalls.close_range(3, sock_fd - 1)
            syscalls.close_range(sock_fd + 1)
            sock = _socket.socket(fileno=sock_fd)
            stage.reset_signals()
            waiting = select.poll()
            waiting.register(sock, select.POLLIN)
            self._rehearse(lambda: bool(waiting.poll(0)))
            data, ancillary, _, _ = sock.recvmsg(
                _MAX_MESSAGE, _socket.CMSG_SPACE(_MAX_FDS * 4), _socket.MSG_CMSG_CLOEXEC
            )
            if data:
                fds = array.array("i")
                for _, _, payload in ancillary:
                    fds.frombytes(payload)
                text, _, bpf = data.partition(b"\0")
                self._become(sock.detach(), fastjson.loads(text), bpf, fds)
        finally:
            os._exit(1)

    def _extras(self, body: Json, bpf: bytes, fds: array.array[int]) -> Extras:
        return Extras(
            ns_fds={kind: fds[index] for kind, index in body["ns_fds"].items()},
            mount_fds={place: fds[index] for place, index in body["mount_fds"].items()},
            seccomp_bpf=bpf or None,
            trace=Trace() if body["trace"] else None,
            **body["extras"],
        )

    def _run(
        self, plan: Plan, sock: int, body: Json, fds: array.array[int], init_pidfd: int = -1
    ) -> NoReturn:
        if plan.extras.trace is not None:
            plan.extras.trace.bind(plan)
            plan.extras.trace.share(self._trace_page)
        streams = tuple(fds[index] if index >= 0 else -1 for index in body["stdio"])
        it = stage.Stage(plan, sock, streams, init_pidfd)  # type: ignore[arg-type]
        it.has_default_signals = True
        stage.run(it)

    def _rehearse(self, is_late: Callable[[], bool]) -> None:
        rehearse(is_late)

    def _become(self, sock: int, body: Json, bpf: bytes, fds: array.array[int]) -> NoReturn:
        config = parse(body["config"])
        group = body["cgroup"]
        cgroup = Cgroup(group[0], dirs=group[1]) if group is not None else None
        # The size of the terminal is part of a step: it has to be right before the plan is made.
        if config.process is not None:
            height, width = body["console"]
            config.process.console_size = (height, width)
        plan = plan_init(config, self._extras(body, bpf, fds), cgroup=cgroup)
        syscalls.unshare(plan.clone_flags & ~BORN_INTO)
        # Everything so far was done while the parent was making the group.
        if os.read(sock, 1) != b"G":
            os._exit(1)
        self._run(plan, sock, body, fds)


class ExecCradle(Cradle):
    """The helper of an exec (see `birth`), born ahead of time outside of everything that is the container's."""

    __slots__ = ("_filter",)
    flags = 0

    def __init__(self, bpf: bytes | None = None) -> None:
        """As `Cradle`.

        Args:
            bpf: the filter that the process will probably get.
        """
        self._filter = bpf
        super().__init__()

    def fits_exec(self, plan: Plan, cgroup: Cgroup | None) -> bool:
        """Tell whether the process can carry out *plan*."""
        compiled = plan.extras.seccomp_bpf is not None or plan.filter_bpf is None
        return compiled and (cgroup is None or takes_later(cgroup)) and self._suits(plan)

    def wake_exec(
        self, plan: Plan, process: Json, stdio: tuple[int, int, int], namespaces: int, init_pidfd: int
    ) -> _socket.socket:
        """As `wake`.

        Args:
            process: from which *plan* was made.
            namespaces: which to join by *init_pidfd*.
        """
        if plan.born_last:
            self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        return self._tell(_exec_body(plan, process, namespaces), plan, stdio, {"init": init_pidfd})

    def rehearse_wake(self, plan: Plan, process: Json, namespaces: int) -> None:
        """Do what `wake_exec` does but the sending, for the pages that it touches."""
        self._message(_exec_body(plan, process, namespaces), plan, (0, 1, 2), {"init": 0})

    def _rehearse(self, is_late: Callable[[], bool]) -> None:
        if is_late():
            return
        plan = plan_exec(
            parse_process(sample()["process"]), Extras(seccomp_bpf=self._filter), join_cgroup=[], namespaces=1
        )
        scratch = stage.Stage(plan, -1, (-1, -1, -1))
        with Root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            scratch.root = root
            stage.resolve(scratch)
        if not is_late():
            _rehearse_finish(plan)

    def _become(self, sock: int, body: Json, bpf: bytes, fds: array.array[int]) -> NoReturn:
        process = parse_process(body["process"])
        height, width = body["console"]
        process.console_size = (height, width)
        plan = plan_exec(
            process,
            self._extras(body, bpf, fds),
            join_cgroup=body["join_cgroup"],
            namespaces=body["namespaces"],
        )
        self._run(plan, sock, body, fds, fds[body["others"]["init"]])


def _exec_body(plan: Plan, process: Json, namespaces: int) -> Json:
    joins = next((step.args[0] for step in plan.steps if step.name == "join_cgroup"), None)
    return {"process": process, "join_cgroup": joins, "namespaces": namespaces}


def _add(fds: array.array[int], fd: int) -> int:
    if fd < 0:
        return -1
    fds.append(fd)
    return len(fds) - 1


def sample() -> Json:
    """Return the configuration of a container of no effect, as Docker's are."""
    process = {"args": ["x"], "cwd": "/", "env": ["a=b"], "terminal": False, "user": {"username": ""}}
    kinds = ("mount", "pid", "ipc", "uts", "network", "cgroup")
    return {
        "ociVersion": "1.0.2",
        "process": {**process, "capabilities": default_spec.capability_sets(["CAP_CHOWN"])},
        "root": {"path": "rootfs"},
        "mounts": default_spec.default_mounts(),
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "maskedPaths": list(default_spec.READONLY_PATHS),
            "readonlyPaths": list(default_spec.READONLY_PATHS),
        },
    }


def rehearse(is_late: Callable[[], bool]) -> None:
    """Go through a start without effect, until *is_late*, on a detached file system that vanishes in the end."""
    if is_late():
        return
    plan = plan_init(parse(sample()), Extras(overlay=_NO_OVERLAY), cgroup=Cgroup("/satsuma"))
    scratch = stage.Stage(plan, -1, (-1, -1, -1))
    with Root(mounts.create("tmpfs", [("mode", "755")])) as root:
        scratch.root = root
        for step in plan.steps:
            if is_late():
                break
            if step.name in _REHEARSED:
                try:
                    stage.OPERATIONS[step.name](scratch, *step.args)
                except (StepError, OSError):
                    # Kernels before 6.15 attach nothing to a detached mount; the way there has been gone.
                    continue
    if scratch.procfs >= 0:
        os.close(scratch.procfs)
    if not is_late():
        _rehearse_finish(plan)


def _rehearse_finish(plan: Plan) -> None:
    assert plan.process is not None
    env = ["PATH=/usr/bin:/bin"]
    try:
        finish.refuse_unsafe_program(finish.look_path("true", env))
    except (StepError, OSError):
        pass
    caps.drop_bounding(-1)
    seccomp.Program(plan.filter_bpf or bytes(8))
    if plan.filter_bpf:
        birth.consents(plan.filter_bpf)
    syscalls.string_array([syscalls.encode(item) for item in env])
    os.getgroups()
    syscalls.getcwd()
