"""Terminals of `satsuma-oci`: handing the master to a manager, or standing between it and our own terminal.

Source: runc contrib/recvtty, tty.go; runtime.md of runc "Terminals".
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os
import select
import struct

from satsuma.linux import pidfd, pty
from satsuma.runtime.errors import RuntimeFailure, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.runtime.sdnotify import Relay

_SIGCHLD, _SIGURG, _SIGPIPE, _SIGWINCH = 17, 23, 13, 28
_NOT_FORWARDED = frozenset((9, 19, 32, 33, _SIGCHLD, _SIGURG, _SIGPIPE, _SIGWINCH))


def send_fd(path: str, fd: int, name: bytes) -> None:
    """Connect to a UNIX socket and send one descriptor with *name* as data."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path)
        sock.sendmsg([name], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))])
    except OSError as error:
        raise RuntimeFailure(f"unable to send to socket {path}: {error_text(error)}") from error
    finally:
        sock.close()


class Foreground:
    """Waits for a process in the foreground: forwards signals, relays a terminal, returns the exit status."""

    def __init__(self) -> None:
        """Catch signals from here on, so that none is lost while the process is being made."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        _signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for signum in range(1, 65):
            if signum in (9, 19, 32, 33):
                continue
            try:
                _signal.signal(signum, _ignore)
            except (OSError, ValueError):
                continue
        self._tty = -1
        self._saved: list[Any] = []

    def open_terminal(self) -> tuple[int, int]:
        """Put the controlling terminal into raw mode; return its size."""
        try:
            self._tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise RuntimeFailure(f"open /dev/tty: {error_text(error)}") from error
        self._saved = pty.set_raw(self._tty)
        return pty.get_size(self._tty)

    def close(self) -> None:
        """Give the terminal back as it was."""
        if self._tty >= 0:
            pty.restore(self._tty, self._saved)
            os.close(self._tty)
            self._tty = -1

    def wait(self, process_fd: int, master: int | None, relay: Relay | None = None) -> int:
        """Serve until the process ends; return its status, 128+N for a signal.

        Args:
            relay: passes on what the container says of its readiness.
        """
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        poller.register(process_fd, select.POLLIN)
        if master is not None:
            poller.register(master, select.POLLIN)
            poller.register(self._tty, select.POLLIN)
        if relay is not None:
            poller.register(relay, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == self._wake_read:
                    self._forward(process_fd, master)
                elif fd == process_fd:
                    self._drain(master)
                    code, signum = pidfd.wait(process_fd) or (0, 0)
                    return 128 + signum if signum else code
                elif fd == master:
                    if not _copy(master, self._tty):
                        poller.unregister(master)
                elif relay is not None and fd == relay.fileno():
                    relay.take(os.getpid())
                elif not _copy(self._tty, master if master is not None else -1):
                    poller.unregister(self._tty)

    def _drain(self, master: int | None) -> None:
        if master is None:
            return
        os.set_blocking(master, False)
        while _copy(master, self._tty):
            pass

    def _forward(self, process_fd: int, master: int | None) -> None:
        try:
            pending = os.read(self._wake_read, 4096)
        except BlockingIOError:
            return
        for signum in pending:
            if signum == _SIGWINCH and master is not None:
                pty.set_size(master, *pty.get_size(self._tty))
            elif signum not in _NOT_FORWARDED:
                try:
                    pidfd.send_signal(process_fd, signum)
                except ProcessLookupError:
                    return


def _ignore(signum: int, frame: object) -> None:
    # A handler that does nothing: the number arrives by the wake-up descriptor.
    return


def _copy(source: int, target: int) -> bool:
    """Copy what is there; False at the end."""
    try:
        data = os.read(source, 65536)
    except OSError:  # EIO: all slaves are closed
        return False
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
    return bool(data)
