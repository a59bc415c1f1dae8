"""One daemon per data root and per exec root: flock on a file that names the holder.

A lock of the kernel goes with its process, so a pid file of a dead daemon, or a pid that someone else has by now,
never keeps a new one from starting (dockerd trusts `kill(pid, 0)` and needs a second try after a crash).
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from satsuma.base.errors import Conflict

FILE_NAME = "satsumad.lock"


class RootLock:
    """Holds the lock of one directory until `release`, or the end of the process."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    @classmethod
    def acquire(cls, directory: str) -> RootLock:
        """Lock *directory*.

        Raises:
            Conflict: another daemon holds it; the message has its pid.
        """
        path = os.path.join(directory, FILE_NAME)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise Conflict(
                f"failed to start daemon: {directory} is in use by another satsumad: "
                f"process with PID {holder or 'unknown'} is still running"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return cls(fd, path)

    def release(self) -> None:
        """Give the lock back.  The file stays: removing it would let two daemons lock two files of one name."""
        os.close(self._fd)


class PidFile:
    """`--pidfile`: says who runs, and is locked by who runs, so that two daemons cannot write the same one."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    @classmethod
    def write(cls, path: str) -> PidFile:
        """Write our pid; what a dead daemon left is written over.

        Raises:
            Conflict: the daemon that wrote it lives.
        """
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise Conflict(
                "failed to start daemon, ensure satsumad is not running or use another --pidfile than "
                f"{path}: process with PID {holder or 'unknown'} is still running"
            ) from None
        os.fchmod(fd, 0o644)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d" % os.getpid(), 0)
        return cls(fd, path)

    def remove(self) -> None:
        """Take the file away, and the lock with it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._fd)
