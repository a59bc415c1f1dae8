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
from satsuma.runtime.config import parse
from satsuma.runtime.errors import StepError
from satsuma.runtime.plan import Extras, Plan, plan_init
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

    __slots__ = ("_born", "_trace_page", "oom_score", "pid", "pidfd", "sock", "used")
    flags = BORN_INTO

    def __init__(self) -> None:
        """Needs: CAP_SYS_ADMIN; a single-threaded caller."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        with theirs:
            self._trace_page = mmap.mmap(-1, _TRACE_SIZE)
            self.used = False
            self.oom_score: int | None = None
            self._born = time.monotonic_ns()
            self.sock = ours
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
            and self.suits(plan)
            and time.monotonic_ns() - self._born < MAX_AGE_NS
        )

    @staticmethod
    def suits(plan: Plan) -> bool:
        """Tell whether a process that exists already can carry out *plan*."""
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
        self.used = True
        self.send(*self.message({"config": config.raw, "cgroup": group}, plan, stdio))
        if plan.extras.trace is not None:
            plan.extras.trace.share(self._trace_page)
        return self.sock

    def send(self, data: bytes, fds: array.array[int]) -> None:
        """Send a message to the process.

        Raises:
            OSError: it is dead, or this is too much to tell.
        """
        if len(data) > _MAX_MESSAGE or len(fds) > _MAX_FDS:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self.sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)] if fds else [])

    @staticmethod
    def message(
        body: Json, plan: Plan, stdio: tuple[int, int, int], fds: array.array[int] | None = None
    ) -> tuple[bytes, array.array[int]]:
        """Return (data, descriptors) that tell the process of *plan*; *fds* are sent before the others."""
        extras, process = plan.extras, plan.process
        fds = fds if fds is not None else array.array("i")
        body |= {
            "console": list(process.console_size) if process is not None else None,
            "stdio": [add(fds, fd) for fd in stdio],
            "ns_fds": {kind: add(fds, fd) for kind, fd in extras.ns_fds.items()},
            "mount_fds": {place: add(fds, fd) for place, fd in extras.mount_fds.items()},
            "trace": extras.trace is not None,
            "extras": {name: getattr(extras, name) for name in _PLAIN_EXTRAS},
        }
        return fastjson.dumps(body).encode() + b"\0" + (extras.seccomp_bpf or b""), fds

    def close(self) -> None:
        """End a process that is not needed."""
        self.sock.close()
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
            while True:
                self.rehearse(lambda: bool(waiting.poll(0)))
                data, ancillary, _, _ = sock.recvmsg(
                    _MAX_MESSAGE, _socket.CMSG_SPACE(_MAX_FDS * 4), _socket.MSG_CMSG_CLOEXEC
                )
                if not data:
                    break
                fds = array.array("i")
                for _, _, payload in ancillary:
                    fds.frombytes(payload)
                text, _, bpf = data.partition(b"\0")
                self.take(sock, fastjson.loads(text), bpf, fds)
        finally:
            os._exit(1)

    def extras(self, body: Json, bpf: bytes, fds: array.array[int]) -> Extras:
        """Return the extras of a message."""
        return Extras(
            ns_fds={kind: fds[index] for kind, index in body["ns_fds"].items()},
            mount_fds={place: fds[index] for place, index in body["mount_fds"].items()},
            seccomp_bpf=bpf or None,
            trace=Trace() if body["trace"] else None,
            **body["extras"],
        )

    def run(self, it: stage.Stage) -> NoReturn:
        """Carry the plan out."""
        if it.plan.extras.trace is not None:
            it.plan.extras.trace.bind(it.plan)
            it.plan.extras.trace.share(self._trace_page)
        it.has_default_signals = True
        stage.run(it)

    def rehearse(self, is_late: Callable[[], bool]) -> None:
        """Go through what is to come, without effect, until *is_late*."""
        rehearse(is_late)

    def take(self, sock: _socket.socket, body: Json, bpf: bytes, fds: array.array[int]) -> None:
        """Do what the parent says: become the container."""
        config = parse(body["config"])
        group = body["cgroup"]
        cgroup = Cgroup(group[0], dirs=group[1]) if group is not None else None
        # The size of the terminal is part of a step: it has to be right before the plan is made.
        if config.process is not None:
            height, width = body["console"]
            config.process.console_size = (height, width)
        plan = plan_init(config, self.extras(body, bpf, fds), cgroup=cgroup)
        syscalls.unshare(plan.clone_flags & ~BORN_INTO)
        # Everything so far was done while the parent was making the group.
        if sock.recv(1) != b"G":
            os._exit(1)
        self.run(stage.Stage(plan, sock.detach(), streams(body, fds)))


def streams(body: Json, fds: array.array[int]) -> tuple[int, int, int]:
    """Return the standard streams of a message, -1 for none."""
    first, second, third = (fds[index] if index >= 0 else -1 for index in body["stdio"])
    return first, second, third


def add(fds: array.array[int], fd: int) -> int:
    """Add a descriptor to those of a message; return its place, -1 for none."""
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
        rehearse_finish(plan)


def rehearse_finish(plan: Plan) -> None:
    """Go through the last part of a new process, without effect."""
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
