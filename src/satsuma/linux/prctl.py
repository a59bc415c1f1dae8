"""Names for the prctl(2) options we use.

Source: prctl(2), include/uapi/linux/prctl.h.
"""

from __future__ import annotations

import ctypes

from satsuma.linux import syscalls

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4


def set_dumpable(*, dumpable: bool) -> None:
    """Allow or refuse other processes of our uid to look into /proc/PID and to ptrace us."""
    syscalls.prctl(PR_SET_DUMPABLE, int(dumpable))


def set_no_new_privs() -> None:
    """Give up, for ever, all gains of privilege by execve(2)."""
    syscalls.prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_child_subreaper() -> None:
    """Become the parent of all orphans below us."""
    syscalls.prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(signum: int) -> None:
    """Ask for *signum* when the thread that made us ends; cleared by a change of credentials."""
    syscalls.prctl(PR_SET_PDEATHSIG, signum)


def set_keep_caps(*, keep: bool) -> None:
    """Keep the permitted set when all user ids become non-zero."""
    syscalls.prctl(PR_SET_KEEPCAPS, int(keep))


def set_name(name: str) -> None:
    """Set the name that ps(1) shows (15 bytes)."""
    buffer = ctypes.create_string_buffer(syscalls.encode(name)[:15])
    syscalls.prctl(PR_SET_NAME, ctypes.addressof(buffer))
