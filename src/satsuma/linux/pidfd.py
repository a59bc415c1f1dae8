"""Processes by descriptor, so that a reused pid is never hit; start times and states from procfs.

Source: pidfd_open(2), proc(5) /proc/pid/stat.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` needs enum; ctypes would cost 2 ms more
import os


def open_pidfd(pid: int) -> int:
    """pidfd_open(2); close-on-exec by definition."""
    return os.pidfd_open(pid)


def send_signal(pidfd: int, signum: int) -> None:
    """pidfd_send_signal(2).

    Raises:
        ProcessLookupError: the process has ended (also as a zombie that was waited for).
    """
    _signal.pidfd_send_signal(pidfd, signum)


def wait(pidfd: int, *, block: bool = True) -> tuple[int, int] | None:
    """Reap a child by pidfd: (exit code, signal number), one of them 0; None when it still runs."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | (0 if block else os.WNOHANG))
    if result is None:
        return None
    return (result.si_status, 0) if result.si_code == os.CLD_EXITED else (0, result.si_status)


def parse_stat(stat: bytes) -> tuple[str, int, int]:
    """Return (state letter, parent pid, start time in clock ticks) of a /proc/PID/stat text."""
    # The command name may contain anything, also ") R 1": the last parenthesis ends it.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[1]), int(fields[19])


def start_time(pid: int) -> int:
    """Return when the process started, in clock ticks after boot (field 22 of stat).

    Raises:
        ProcessLookupError: no such process.
    """
    return read_stat(pid)[2]


def read_stat(pid: int) -> tuple[str, int, int]:
    """Return `parse_stat` of a live or zombie process.

    Raises:
        ProcessLookupError: no such process.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ProcessLookupError(3, os.strerror(3)) from error
    try:
        return parse_stat(os.read(fd, 4096))
    finally:
        os.close(fd)


def is_alive(pid: int, started: int | None = None) -> bool:
    """Tell whether *pid* runs and, with *started*, is still the same process; a zombie is not alive."""
    try:
        state, _, ticks = read_stat(pid)
    except ProcessLookupError:
        return False
    return state not in "ZX" and (started is None or ticks == started)
