"""A further process in a running container.

A helper joins the namespaces of the container's init by its pidfd, all at once, and gets everything ready; the
process itself is born last, into the container's pid namespace, when it has no more rights than the program
(`satsuma.runtime.birth`).  It is a direct child of the caller, who must reap it.

Source: runc libcontainer/setns_init_linux.go; CVE-2016-9962, CVE-2024-21626.
"""

from __future__ import annotations

import os

from satsuma.linux import ns, syscalls
from satsuma.linux.cgroup import UNIFIED, layout
from satsuma.runtime.config import Config, Process, parse_process
from satsuma.runtime.create import Init, Launching, begin, complete, set_oom_score, wake
from satsuma.runtime.errors import StartFailed
from satsuma.runtime.plan import Extras, inherited_steps, plan_exec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.linux.cgroup import Cgroup
    from satsuma.runtime.execcradle import ExecCradle
    from satsuma.runtime.plan import Plan


_own: dict[str, int] = {}
"""Inodes of the namespaces of this process, which stays where it is."""


def start_exec(
    init_pid: int,
    config: Config | None,
    process: dict[str, Any] | Process,
    *,
    init_pidfd: int = -1,
    extras: Extras | None = None,
    stdio: tuple[int, int, int] = (0, 1, 2),
    cgroup: Cgroup | None = None,
    console: tuple[int, int] | None = None,
) -> Init:
    """Start *process* in the container whose first process is *init_pid*; return after execve.

    Args:
        config: the container's; gives the seccomp profile (unless *extras* has a compiled one), the personality
            and the memory policy.
        init_pidfd: of *init_pid*, if the caller has one: then a reused pid can do no harm.
        cgroup: the container's group, which the process joins.
        console: (height, width) of the terminal, if `process.terminal`.
    Raises:
        StartFailed: texts and exit codes as of `create.start`.
    """
    launching = begin_exec(
        init_pid,
        config,
        process,
        init_pidfd=init_pidfd,
        extras=extras,
        stdio=stdio,
        cgroup=cgroup,
        console=console,
    )
    return complete(launching, extras.trace if extras is not None else None)


def begin_exec(
    init_pid: int,
    config: Config | None,
    process: dict[str, Any] | Process,
    *,
    init_pidfd: int = -1,
    extras: Extras | None = None,
    stdio: tuple[int, int, int] = (0, 1, 2),
    cgroup: Cgroup | None = None,
    console: tuple[int, int] | None = None,
    cradle: ExecCradle | None = None,
) -> Launching:
    """Start *process* without waiting for its program: call `step` of the result (arguments of `start_exec`).

    Args:
        cradle: a helper that was born ahead of time; not used when it does not fit, or *process* is no dictionary.
    Raises:
        StartFailed: texts and exit codes as of `create.start`.
    """
    borrowed = init_pidfd >= 0
    try:
        pidfd = init_pidfd if borrowed else os.pidfd_open(init_pid)
    except ProcessLookupError as error:
        raise StartFailed("cannot exec in a stopped container") from error
    try:
        told = _told_ahead(cradle, process, extras, console)
        if told is not None:
            plan, flags = told
        else:
            flags = _foreign_namespaces(init_pid)
            plan = _plan(config, process, extras, cgroup, flags, console)
        # What was read by pid is true if the process still lives: the pid cannot have been reused then.
        syscalls.pidfd_send_signal(pidfd, 0)
        if plan.extras.trace is not None:
            plan.extras.trace.bind(plan)
        # The helper makes the plan anew, from the process alone.
        fits = cradle is not None and not inherited_steps(config) and cradle.fits_exec(plan, cgroup)
        if cradle is not None and fits and isinstance(process, dict):
            woken = wake(cradle, plan, lambda: cradle.wake_exec(plan, process, stdio, flags, pidfd))
            if woken is not None:
                return woken
        return begin(
            plan, stdio, cgroup=cgroup, init_pidfd=pidfd, busy_fallback=lambda: _open_group_of(init_pid)
        )
    except (ProcessLookupError, FileNotFoundError) as error:
        raise StartFailed("cannot exec in a stopped container") from error
    finally:
        if not borrowed:
            os.close(pidfd)


def get_ready(
    init_pid: int,
    config: Config | None,
    process: dict[str, Any],
    *,
    extras: Extras | None,
    cgroup: Cgroup | None,
    cradle: ExecCradle,
    init_pidfd: int,
) -> None:
    """Do all that `begin_exec` does before it wakes the helper, which gets to know *process*.

    Raises:
        OSError: the container is about to end, or the helper is dead.
        RuntimeFailure: *process* cannot be planned.
    """
    flags = _foreign_namespaces(init_pid)
    plan = _plan(config, process, extras, cgroup, flags, None)
    if not inherited_steps(config) and cradle.fits_exec(plan, cgroup):
        set_oom_score(plan, cradle)
        cradle.tell_ahead(plan, process, flags, init_pidfd)


def _plan(
    config: Config | None,
    process: dict[str, Any] | Process,
    extras: Extras | None,
    cgroup: Cgroup | None,
    namespaces: int,
    console: tuple[int, int] | None,
) -> Plan:
    parsed = process if isinstance(process, Process) else parse_process(process)
    if console is not None:
        parsed.console_size = console
    return plan_exec(
        parsed,
        extras,
        seccomp_profile=config.seccomp if config is not None else None,
        join_cgroup=cgroup.join_files() if cgroup is not None else None,
        namespaces=namespaces,
        inherited=inherited_steps(config),
    )


def _told_ahead(
    cradle: ExecCradle | None,
    process: dict[str, Any] | Process,
    extras: Extras | None,
    console: tuple[int, int] | None,
) -> tuple[Plan, int] | None:
    """Return (plan, namespaces) of what the helper was told a moment ago, if this is it."""
    if cradle is None or isinstance(process, Process) or console is not None:
        return None
    told = cradle.planned(process)
    if told is not None:
        told[0].extras.trace = extras.trace if extras is not None else None
    return told


def _foreign_namespaces(pid: int) -> int:
    """Return the CLONE_NEW* flags of the namespaces in which *pid* is and we are not."""
    flags = 0
    for kind, flag in ns.FLAGS.items():
        try:
            if kind not in _own:
                _own[kind] = ns.ns_inode("self", kind)
            if ns.ns_inode(pid, kind) != _own[kind]:
                flags |= flag
        except FileNotFoundError:
            if kind != "time":
                raise
    return flags


def _open_group_of(pid: int) -> int:
    """Open the v2 group in which a process is."""
    with open(f"/proc/{pid}/cgroup", "rb") as file:
        line = next(line for line in file if line.startswith(b"0::"))
    path = layout().mounts[UNIFIED] + line[3:].rstrip(b"\n").decode("utf-8", "surrogateescape")
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
