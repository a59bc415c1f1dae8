"""Readiness of a container's program, told to the service manager that started us (sd_notify(3)).

With NOTIFY_SOCKET in our environment the container gets a socket of its own at /run/notify/notify.sock, and the
variable that names it.  `create` makes the directory, which is bound into the container; `start` and `run` make the
socket in it, wait for "READY=1" from inside and pass it on with MAINPID: the service manager knows neither the
container's sockets nor its process ids.  Other lines stay where they are, as with runc.

Imported only when the variable is set.

Source: runc notify_socket.go; sd_notify(3) "READY=1", "MAINPID=", "BARRIER=1".
"""

from __future__ import annotations

import _socket
import os
import select
import struct

from satsuma.runtime import manager
from satsuma.runtime.errors import RuntimeFailure, error_text
from satsuma.runtime.state import NOTIFY_DIRECTORY, Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from satsuma.runtime.config import Config

_NAME = "notify.sock"
_INSIDE = "/run/notify"
_BARRIER_MS = 30_000


def prepare(container: Container, config: Config) -> None:
    """Make the directory, and let *config* bind it and tell the program of it."""
    directory = f"{container.directory}/{NOTIFY_DIRECTORY}"
    os.mkdir(directory, 0o755)
    os.chmod(directory, 0o755)  # root of a user namespace is one of the others
    options = ["bind", "nosuid", "noexec", "nodev", "ro"]
    config.mounts.append({"destination": _INSIDE, "source": directory, "options": options})
    if config.process is not None:
        config.process.env.append(f"NOTIFY_SOCKET={_INSIDE}/{_NAME}")


class Relay:
    """The container's socket, and the way to the service manager's."""

    __slots__ = ("_host", "_sock", "_warn")

    def __init__(self, container: Container, host: str, warn: Callable[[str], None] | None = None) -> None:
        """
        Args:
            host: value of our NOTIFY_SOCKET.
            warn: told when the service manager cannot be reached, instead of an error: for whoever must go on.
        Raises:
            RuntimeFailure: the container was created without one.
        """
        self._host = host
        self._warn = warn
        self._sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        path = f"{container.directory}/{NOTIFY_DIRECTORY}"
        try:
            directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                place = f"/proc/self/fd/{directory}/{_NAME}"  # a root directory may have any length, an address not
                self._sock.bind(place)
                os.chmod(place, 0o777)  # for whatever user the program runs as
            finally:
                os.close(directory)
        except OSError as error:
            self._sock.close()
            raise RuntimeFailure(f"unable to make {path}/{_NAME}: {error_text(error)}") from error

    def fileno(self) -> int:
        """Return the descriptor which becomes readable when `take` has something to do."""
        return self._sock.fileno()

    def close(self) -> None:
        """Listen no longer."""
        self._sock.close()

    def take(self, main_pid: int) -> bool:
        """Read one message of the container's and pass on what it says of readiness; True if it did.

        Args:
            main_pid: the process that the service manager shall watch.
        Raises:
            RuntimeFailure: the service manager cannot be reached, and there is no `warn`.
        """
        lines = self._sock.recv(65536).split(b"\n")
        ready = next((line for line in lines if line.startswith(b"READY=")), b"")
        if not ready:
            return False
        try:
            self._tell(ready, main_pid)
        except OSError as error:
            text = f"unable to notify {self._host}: {error_text(error)}"
            if self._warn is None:
                raise RuntimeFailure(text) from error
            self._warn(text)
        return True

    def _tell(self, ready: bytes, main_pid: int) -> None:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        read, write = os.pipe()
        try:
            address = os.fsencode(self._host)
            sock.connect(b"\0" + address[1:] if address.startswith(b"@") else address)
            sock.send(ready + b"\nMAINPID=%d\n" % main_pid)
            # The manager looks up the sender of a message when it reads it; it closes the pipe when it has.
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", write))]
            sock.sendmsg([b"BARRIER=1"], rights)
            os.close(write)
            write = -1
            waiting = select.poll()
            waiting.register(read, 0)
            waiting.poll(_BARRIER_MS)
        finally:
            sock.close()
            for fd in (read, write):
                if fd >= 0:
                    os.close(fd)

    def wait(self, pidfd: int, main_pid: int) -> None:
        """Return when the container is ready, or has ended."""
        waiting = select.poll()
        waiting.register(self._sock, select.POLLIN)
        waiting.register(pidfd, select.POLLIN)
        while True:
            events = [fd for fd, _ in waiting.poll()]
            if self.fileno() in events:
                if self.take(main_pid):
                    return
            elif events:
                return


def start(container: Container, host: str) -> None:
    """Start a created container; return when it is ready."""
    relay = Relay(container, host)
    try:
        pidfd = os.pidfd_open(container.pid)
        try:
            manager.start_container(container)
            relay.wait(pidfd, container.pid)
        finally:
            os.close(pidfd)
    except ProcessLookupError as error:
        raise RuntimeFailure("cannot start a container that has stopped") from error
    finally:
        relay.close()
