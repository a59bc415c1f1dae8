"""The monitor's control socket: requests with an id, replies with the same id, events without one.

    {"id": 7, "op": "resize", …}  →  {"id": 7, …}  or  {"id": 7, "error": text, "kind": class, "exit_code": n}
    {"event": "exit", …}, {"event": "exec_exit", …}, {"event": "attach_end", …}   to everyone connected

Several daemons' worth of connections may be open; one that does not read is dropped, never waited for.
"""

from __future__ import annotations

import collections
import os
import socket

from satsuma.base.errors import EngineError, InvalidParameter
from satsuma.monitor import protocol
from satsuma.monitor.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from satsuma.monitor.loop import Loop

    Operation = Callable[["Connection", protocol.Message], "dict[str, Any] | None"]

DEFERRED: dict[str, Any] = {"deferred": True}
"""What an operation returns that will answer later, with `Connection.send` and the request's id."""

_BACKLOG = 64
_MAX_QUEUED = 4096


class Connection:
    """One peer of the control socket."""

    __slots__ = ("_assembler", "_queue", "_server", "sock")

    def __init__(self, server: ControlServer, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._server = server
        self._assembler = protocol.Assembler()
        self._queue: collections.deque[bytes] = collections.deque()
        server.loop.add(sock.fileno(), READ, self._ready)

    @property
    def idle(self) -> bool:
        """True when nothing waits to be sent."""
        return not self._queue

    def send(self, body: dict[str, Any]) -> None:
        """Send a message now or queue it; without descriptors, and below 64 KiB."""
        if self.sock.fileno() < 0:
            return
        packets = protocol.pack(body)
        was_idle = not self._queue
        try:
            self._queue.append(packets.packets[0][0])
        finally:
            packets.close()
        if was_idle:
            self._flush()
        if len(self._queue) > _MAX_QUEUED:
            self.close()
        elif was_idle and self._queue:
            self._server.loop.modify(self.sock.fileno(), READ | WRITE)

    def _flush(self) -> None:
        while self._queue:
            try:
                protocol.send_packet(self.sock, self._queue[0], (), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            self._queue.popleft()

    def _ready(self, events: int) -> None:
        if events & WRITE and self._queue:
            self._flush()
            if not self._queue and self.sock.fileno() >= 0:
                self._server.loop.modify(self.sock.fileno(), READ)
        if self.sock.fileno() < 0 or not events & ~WRITE:
            return
        try:
            data, fds = protocol.receive_packet(self.sock, socket.MSG_DONTWAIT)
            if not data:
                self.close()
                return
            message = self._assembler.feed(data, fds)
        except BlockingIOError:
            return
        except (OSError, protocol.ProtocolError):
            self.close()
            return
        if message is not None:
            try:
                self._server.handle(self, message)
            finally:
                message.close()

    def close(self) -> None:
        """End the connection."""
        if self.sock.fileno() >= 0:
            self._server.loop.remove(self.sock.fileno())
            self.sock.close()
            self._assembler.close()
            self._queue.clear()
            self._server.closed(self)


class ControlServer:
    """Listens on `<directory>/monitor.sock` and dispatches requests.

    Args:
        operations: by name of `op`; each returns the reply's body.
    """

    __slots__ = ("_listener", "_operations", "connections", "loop")

    def __init__(self, loop: Loop, operations: dict[str, Operation]) -> None:
        self.loop = loop
        self.connections: list[Connection] = []
        self._operations = operations
        self._listener: socket.socket | None = None

    def listen(self, directory: str, name: str) -> None:
        """Create the socket, readable for its owner only; one that a dead monitor left is replaced."""
        path = f"{directory}/{name}"
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        # sun_path holds 108 bytes and a container id takes 64 of them: bind through the directory.
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(f"/proc/self/fd/{directory_fd}/{name}")
        finally:
            os.close(directory_fd)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        self.loop.add(listener.fileno(), READ, self._accept)

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        self.adopt(sock)

    def adopt(self, sock: socket.socket) -> Connection:
        """Serve a socket that is connected already."""
        connection = Connection(self, sock)
        self.connections.append(connection)
        return connection

    def handle(self, connection: Connection, message: protocol.Message) -> None:
        """Answer one request."""
        request = message.body.get("id")
        try:
            operation = self._operations.get(str(message.body.get("op")))
            if operation is None:
                raise InvalidParameter(f"unknown operation {message.body.get('op')}")
            reply = operation(connection, message) or {}
        except EngineError as error:
            reply = {"error": str(error), "kind": type(error).__name__}
        except (OSError, KeyError, TypeError, ValueError, protocol.ProtocolError) as error:
            reply = {"error": f"{type(error).__name__}: {error}", "kind": "System"}
        if reply is not DEFERRED:
            connection.send({"id": request, **reply})

    def broadcast(self, body: dict[str, Any]) -> None:
        """Send an event to every connection."""
        for connection in tuple(self.connections):
            connection.send(body)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection in self.connections:
            self.connections.remove(connection)

    def stop_listening(self) -> None:
        """Accept nobody any more; the connections stay."""
        if self._listener is not None:
            self.loop.remove(self._listener.fileno())
            self._listener.close()
            self._listener = None

    @property
    def idle(self) -> bool:
        """True when no connection has anything left to send."""
        return all(connection.idle for connection in self.connections)
