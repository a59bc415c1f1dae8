"""One attached client: a socket that gets output and may give stdin.

Half a close is meant: a client that shuts down its writing side has ended its stdin and still reads output.

Source: moby pkg/stdcopy (frame = type, three zeros, big-endian length, payload).
"""

from __future__ import annotations

import collections
import socket
import struct

from satsuma.monitor.escape import DetachKeys
from satsuma.monitor.loop import HANGUP, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from satsuma.monitor.streams import Stdio

STDOUT = 1
STDERR = 2
READ_SIZE = 64 * 1024
SEND_PIECES = 64

CLOSED = "closed"
DETACHED = "detached"
ENDED = "ended"

_HEADER = struct.Struct(">BxxxL")
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Client:
    """One attached socket.  Made by `Stdio.attach`."""

    __slots__ = (
        "_events",
        "_finishing",
        "_keys",
        "_on_end",
        "_queue",
        "_stdin",
        "_stdio",
        "detach_notice",
        "framed",
        "queued",
        "sock",
        "streams",
    )

    def __init__(
        self,
        stdio: Stdio,
        sock: socket.socket,
        *,
        stdin: bool,
        streams: frozenset[int],
        framed: bool,
        keys: bytes = b"",
        detach_notice: bytes = b"",
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.streams = streams
        self.framed = framed
        self.queued = 0
        self.detach_notice = detach_notice
        self._stdio = stdio
        self._stdin = stdin
        self._keys = DetachKeys(keys)
        self._on_end = on_end
        self._queue: collections.deque[bytes | memoryview] = collections.deque()
        self._finishing = ""
        self._events = READ if stdin else 0
        stdio.loop.add(sock.fileno(), self._events, self._ready)

    def send(self, stream: int, data: bytes) -> None:
        """Send one chunk of output now, or queue it."""
        pieces: list[bytes | memoryview] = [_HEADER.pack(stream, len(data)), data] if self.framed else [data]
        if self.queued:
            self._queue.extend(pieces)
            self.queued += sum(map(len, pieces))
            return
        self._queue.extend(pieces)
        self.queued = sum(map(len, pieces))
        self._flush()

    def _flush(self) -> None:
        while self.queued:
            pieces = [self._queue[i] for i in range(min(SEND_PIECES, len(self._queue)))]
            try:
                sent = self.sock.sendmsg(pieces, (), _NOW)
            except BlockingIOError:
                break
            except OSError:
                self.drop(CLOSED)
                return
            self._sent(sent)
        self.watch()

    def _sent(self, sent: int) -> None:
        self.queued -= sent
        while sent:
            first = self._queue.popleft()
            if len(first) > sent:
                self._queue.appendleft(memoryview(first)[sent:])
                return
            sent -= len(first)

    def watch(self) -> None:
        """Adapt what is watched to what can be done now."""
        if self.sock.fileno() < 0:
            return
        if self._finishing and not self.queued:
            self.drop(self._finishing)
            return
        events = WRITE if self.queued else 0
        if self._stdin and not self._finishing and self._stdio.wants_stdin():
            events |= READ
        if events != self._events:
            self._events = events
            self._stdio.loop.modify(self.sock.fileno(), events)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
            self._stdio.throttle()
        if self.sock.fileno() >= 0 and events & (READ | HANGUP) and self._stdin and not self._finishing:
            self._read(everything=bool(events & HANGUP))
        if self.sock.fileno() >= 0 and events & HANGUP:
            # Both directions are shut: nobody will read what is queued.
            self.drop(CLOSED)

    def _read(self, *, everything: bool) -> None:
        while self._stdin and not self._finishing and self.sock.fileno() >= 0:
            try:
                data = self.sock.recv(READ_SIZE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                self.stdin(data)
            else:
                self._stdin_ended()
            if not everything:
                return

    def stdin(self, data: bytes) -> None:
        """Pass bytes of the client on to the process, unless they complete the detach keys."""
        data, detached = self._keys.feed(data)
        self._stdio.stdin(data)
        if detached:
            if self.detach_notice:
                self.send(STDOUT, self.detach_notice)
            self.finish(DETACHED)

    def _stdin_ended(self) -> None:
        self._stdin = False
        self._stdio.stdin(self._keys.flush())
        if self._stdio.stdin_ended():
            self.watch()
        else:
            self.finish(CLOSED)

    def finish(self, reason: str) -> None:
        """End the attachment once the queued output is with the client."""
        if not self._finishing:
            self._finishing = reason
            self.watch()

    def drop(self, reason: str) -> None:
        """End the attachment now."""
        if self.sock.fileno() < 0:
            return
        self._stdio.loop.remove(self.sock.fileno())
        try:
            self.sock.shutdown(socket.SHUT_WR)
            # Closing with unread input would turn the peer's end of file into ECONNRESET (unix(7), tcp(7)).
            while self.sock.recv(READ_SIZE, socket.MSG_DONTWAIT):
                pass
        except OSError:
            pass
        self.sock.close()
        self._queue.clear()
        self.queued = 0
        had_stdin, self._stdin = self._stdin, False
        self._stdio.client_left(self, had_stdin=had_stdin)
        if self._on_end is not None:
            self._on_end(reason)
