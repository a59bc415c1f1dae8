"""The descriptor of a seccomp filter that asks: from the new process to the agent at `listenerPath`.

After the filter is loaded the process can make no call that the profile might stop, not even one to pass the
descriptor on.  It writes the number into a page that it shares with its parent, and spins without a system call
until the parent has taken the descriptor with pidfd_getfd(2) and handed it to the agent.

Source: runtime-spec config-linux.md#seccomp (listenerPath, the container process state); seccomp_unotify(2).
"""

from __future__ import annotations

import _socket
import mmap
import os
import select
import struct

from satsuma.linux import syscalls
from satsuma.runtime import fastjson
from satsuma.runtime.errors import StartFailed, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TAKEN = 4
_PATIENCE_MS = 1


class Mailbox:
    """A page shared by both sides: the number of the descriptor plus one, and whether it has been taken."""

    __slots__ = ("_page",)

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 8)

    def post(self, fd: int) -> None:
        """Say which descriptor it is and wait, without any system call, until it has been taken."""
        page = self._page
        page[0:4] = struct.pack("I", fd + 1)
        while not page[_TAKEN]:
            pass

    def take(self, pidfd: int) -> int:
        """Return a copy of the descriptor of the process *pidfd*.

        Raises:
            StartFailed: it has ended.
        """
        ending = select.poll()
        ending.register(pidfd, select.POLLIN)
        while True:
            number = struct.unpack("I", self._page[0:4])[0]
            if number:
                return syscalls.pidfd_getfd(pidfd, number - 1)
            if ending.poll(_PATIENCE_MS):
                raise StartFailed(
                    "unable to start container process: it ended before its seccomp filter was loaded"
                )

    def let_go(self) -> None:
        """Let the process continue."""
        self._page[_TAKEN] = 1


def deliver(path: str, fd: int, pid: int, metadata: str, state: dict[str, Any]) -> None:
    """Hand a listener to the agent: one message with the state of the container process.

    Raises:
        StartFailed: nobody listens there.
    """
    document = {
        "ociVersion": state.get("ociVersion", "1.0.0"),
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": metadata,
        "state": state,
    }
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))]
        sock.sendmsg([fastjson.dumps(document).encode("utf-8", "surrogateescape")], rights)
    except OSError as error:
        text = f"unable to start container process: unable to send the seccomp listener to {path}: {error_text(error)}"
        raise StartFailed(text) from error
    finally:
        sock.close()


def serve(mailbox: Mailbox, pidfd: int, pid: int, profile: dict[str, Any], state: dict[str, Any]) -> None:
    """The parent's part, when the process has said that it is about to load its filter."""
    fd = mailbox.take(pidfd)
    try:
        deliver(
            profile["listenerPath"], fd, pid, profile.get("listenerMetadata") or "", {"pid": pid, **state}
        )
    finally:
        os.close(fd)
    mailbox.let_go()
