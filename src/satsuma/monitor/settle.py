"""What turns a fresh child of the launcher into a process of its own: session, signals, descriptors, errors."""

from __future__ import annotations

import os
import signal
import sys

from satsuma.linux.prctl import set_child_subreaper

IGNORED_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


def report() -> None:
    """Write the current exception to the monitor's error file; the monitor goes on."""
    sys.excepthook(*sys.exc_info())


class ErrorFile:
    """Stands in for stderr: appends to a file that is made with the first error."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, text: str) -> int:
        """Append *text*; an error here has nobody left to tell."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, text.encode("utf-8", "backslashreplace"))
            finally:
                os.close(fd)
        except OSError:
            pass
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""


def settle(exec_root: str) -> None:
    """Turn a fresh child of the launcher into a process of its own."""
    os.setsid()
    set_child_subreaper()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for signum in IGNORED_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd, inheritable=False)
    os.close(null)
    os.chdir("/")
    sys.stdin = sys.stdout = None
    sys.stderr = ErrorFile(f"{exec_root}/monitor.log")
