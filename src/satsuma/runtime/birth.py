"""The last fork of an exec: what the container can see of us has the rights of its program already.

A process that joins a pid namespace is visible to those in it from its first moment.  With CAP_SYS_PTRACE, which
people give to containers for debuggers, they may look at its root and its working directory, take its
descriptors or trace it; while it still had the host's root and all capabilities that was a way out
(CVE-2016-9962 with one capability more).  So a helper outside of the namespace joins everything else and drops
everything, and forks at the very end.  CLONE_PARENT makes the child a sibling of the helper.

Of what follows the birth some needs the filter's consent when it is loaded before, and CAP_SYS_ADMIN when it is
loaded after (seccomp(2)).  Docker's profile consents; with one that does not, the child keeps that single
capability until the filter is loaded.
"""

from __future__ import annotations

import os

from satsuma.linux import caps, pty, seccomp, syscalls
from satsuma.runtime.errors import StepError, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from satsuma.runtime.plan import Plan
    from satsuma.runtime.stage import Stage

_CAP_SYS_ADMIN = 1 << 21
_SIGCHLD = 17
_CLONE_FLAGS = syscalls.CLONE_PARENT | _SIGCHLD
_BIRTH_FLAGS = _CLONE_FLAGS | syscalls.CLONE_VFORK
"""The helper waits in the kernel for the child's execve.  The memory is not shared: but what the helper touched, or
took down in its own end, the child would have to copy at the same moment."""
_TIOCSCTTY = 0x540E
_PR_SET_PDEATHSIG = 1
_PASSES = (seccomp.ACTIONS["SCMP_ACT_ALLOW"], seccomp.ACTIONS["SCMP_ACT_LOG"])
# (x86_64, aarch64), arguments: all that is called between the load of the filter at the birth and execve, the memory
# of the interpreter included.
_CALLS: tuple[tuple[tuple[int, int], tuple[int, ...]], ...] = (
    ((56, 220), (_BIRTH_FLAGS,)),  # clone
    ((112, 157), ()),  # setsid
    ((16, 29), (0, _TIOCSCTTY)),  # ioctl
    ((157, 167), (_PR_SET_PDEATHSIG,)),  # prctl
    ((126, 91), ()),  # capset
    ((0, 63), ()),  # read
    ((1, 64), ()),  # write
    ((437, 437), ()),  # openat2
    ((138, 44), ()),  # fstatfs
    ((17, 67), ()),  # pread64
    ((3, 57), ()),  # close
    ((9, 222), ()),  # mmap
    ((11, 215), ()),  # munmap
    ((12, 214), ()),  # brk
    ((436, 436), ()),  # close_range
    ((59, 221), ()),  # execve
    ((231, 94), ()),  # exit_group
)
# What there is more of it when the filter is loaded ahead of the request.
_CALLS_AHEAD: tuple[tuple[tuple[int, int], tuple[int, ...]], ...] = (
    ((7, 73), ()),  # poll, ppoll
    ((47, 212), ()),  # recvmsg
    ((33, 24), ()),  # dup2, dup3
    ((125, 90), ()),  # capget
    ((262, 79), ()),  # newfstatat
    ((5, 80), ()),  # fstat
    ((439, 439), ()),  # faccessat2
    ((93, 55), ()),  # fchown
    ((10, 226), ()),  # mprotect
    ((25, 216), ()),  # mremap
    ((28, 233), ()),  # madvise
    ((202, 98), ()),  # futex
)
_known: dict[bytes, tuple[bool, bool]] = {}
_COLUMN = 0 if syscalls.MACHINE == "x86_64" else 1


def _loads_before(plan: Plan) -> bool:
    """Tell whether the filter is loaded before the birth: it has to be, and it lets us go on."""
    if not plan.filter_bpf or plan.process is None or plan.process.no_new_privileges:
        return False
    if plan.listener is not None:
        return False  # the descriptor must be in the process that the parent knows
    return consents(plan.filter_bpf)[0]


def consents(bpf: bytes) -> tuple[bool, bool]:
    """Tell whether a filter lets pass all that follows its load; remembers the last answer.

    Returns:
        (at the birth, ahead of the request).
    """
    if bpf not in _known:

        def passes(calls: tuple[tuple[tuple[int, int], tuple[int, ...]], ...]) -> bool:
            return all(seccomp.verdict(bpf, numbers[_COLUMN], args) in _PASSES for numbers, args in calls)

        _known.clear()
        at_birth = passes(_CALLS)
        _known[bpf] = at_birth, at_birth and passes(_CALLS_AHEAD)
    return _known[bpf]


def load_ahead(plan: Plan) -> bool:
    """Load the filter ahead of the request if it can be loaded before the birth and lets us wait; True if so.

    Raises:
        StepError: the kernel refuses it.
    """
    if not plan.filter_bpf or not (_loads_before(plan) and consents(plan.filter_bpf)[1]):
        return False
    held = syscalls.capget()[1]
    syscalls.capset(held, held, 0)  # another user than root has only the permitted ones
    load_filter(seccomp.Program(plan.filter_bpf), plan.filter_flags)
    return True


def give_birth(
    stage: Stage, sets: tuple[int, int, int, int, int], program: seccomp.Program | None
) -> seccomp.Program | None:
    """Drop all that the program must not have and fork; returns in the child only, with what is left to load.

    The parent learns of the child by its message "P" and answers while the child goes on (`Stage.take_answer`).  The
    child of a helper that was told ahead does not wait for that: it can be dead, but not reaped, before its message
    is read (`monitor.execs.Sessions.hear`).
    """
    _, effective, permitted, inheritable, ambient = sets
    plan = stage.plan
    process = plan.process
    assert process is not None
    before = _loads_before(plan)
    kept = 0 if before or not plan.filter_bpf or process.no_new_privileges else _CAP_SYS_ADMIN
    _close_all_but(stage.sock, 3 + plan.extras.preserve_fds)
    if before:
        stage.at("seccomp")
        if program is not None:  # else it was loaded ahead
            load_filter(program, plan.filter_flags)
    stage.at("birth")
    syscalls.capset(effective | kept, permitted | kept, inheritable)
    if ambient and before:
        caps.raise_ambient(ambient)
    if syscalls.clone(_BIRTH_FLAGS):
        # Who reads the streams, or waits at the socket, waits for the last that holds them, not for our memory to go.
        syscalls.close_range(0)
        os._exit(0)
    os.setsid()
    if process.terminal:
        pty.set_controlling(0)
    os.write(stage.sock, b"P" if stage.is_awaited else b"Q")
    return None if before else program


def load_filter(program: seccomp.Program, flags: int) -> int:
    """Load a filter; return the listener's descriptor, if *flags* ask for one.

    Raises:
        StepError: the kernel refuses it.
    """
    try:
        return program.load(flags)
    except OSError as error:
        text = f"error during container init: unable to load the seccomp filter: {error_text(error)}"
        raise StepError(text) from error


def rebirth(stage: Stage, flags: int) -> None:
    """Step of a plan: a sibling of ours goes on, in new namespaces which belong to the user namespace we are in."""
    if syscalls.clone(_CLONE_FLAGS | flags):
        os._exit(0)
    os.setsid()
    stage.ask_parent(b"P")


def _close_all_but(fd: int, first: int) -> None:
    if fd > first:
        syscalls.close_range(first, fd - 1)
    syscalls.close_range(fd + 1)
