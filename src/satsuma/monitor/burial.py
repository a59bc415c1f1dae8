"""What the daemon does about a monitor that is not there any more.

A monitor holds a lock (flock) on its directory from its first moment to its last.  While somebody holds the
lock the monitor lives, even if it does not listen (yet, or any more); when the lock is free and the directory
is still there, the monitor was killed: this module kills what it left, removes its cgroup and files, and
writes the exit record in its place.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
from typing import Any

from satsuma.base.clock import now_ns
from satsuma.linux import pidfd as linux_pidfd
from satsuma.linux.cgroup import Cgroup
from satsuma.monitor import state
from satsuma.monitor.state import ExitStatus, read_exit
from satsuma.runtime.systemd import recorded_group

Body = dict[str, Any]

_log = logging.getLogger(__name__)


PAUSE = 0.02
"""Seconds between two looks at a monitor that lives and does not listen."""


def connect(directory: str) -> socket.socket | None:
    """Connect to the monitor of *directory*; None when nobody listens."""
    try:
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    try:
        # Not by its whole path: sun_path holds 108 bytes.
        sock.connect(f"/proc/self/fd/{directory_fd}/{state.SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
        sock.close()
        return None
    finally:
        os.close(directory_fd)
    return sock


def killed() -> ExitStatus:
    """Return the exit status of a container whose monitor was killed."""
    return ExitStatus(state.KILLED_WITH_MONITOR, False, now_ns())


def bury(directory: str, exit_path: str | None, known: Body | None = None, *, group: str = "") -> bool:
    """Clean up after the monitor of *directory*; False when it lives, and nothing was done.

    Args:
        exit_path: where the exit record has to be; None takes it from monitor.json.
        known: what monitor.json says, if the caller knows it.
        group: the container's cgroup as config.json names it, for a monitor that has not come to write it down.
    """
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clean_up(directory, exit_path, known or state.read_state(directory) or {}, group)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _clean_up(directory: str, exit_path: str | None, known: Body, group: str) -> None:
    try:
        _kill_leftovers(known, group)
    except OSError:
        _log.warning("cannot clean up after the killed monitor of %s", directory, exc_info=True)
    path = exit_path or known.get("exit_path")
    if path and read_exit(path) is None and os.path.isdir(os.path.dirname(path)):
        state.write_exit(path, killed())
    state.remove_run_dir(directory)


def _kill_leftovers(known: Body, group: str) -> None:
    """Kill what a dead monitor left: its init has the parent death signal, its cgroup may have more."""
    if "init_pid" in known:
        _kill(known["init_pid"], known["start_time"])
    if known.get("cgroup"):
        cgroup = recorded_group("", known["cgroup"])
    elif group.startswith("/"):
        cgroup = Cgroup(group)
    else:
        return  # systemd removes a scope that is empty
    cgroup.kill_all()
    cgroup.remove()


def _kill(pid: int, start_time: int) -> None:
    try:
        pidfd = linux_pidfd.open_pidfd(pid)
    except ProcessLookupError:
        return
    try:
        if linux_pidfd.start_time(pid) == start_time:
            linux_pidfd.send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
