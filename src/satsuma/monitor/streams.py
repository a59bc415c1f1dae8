"""Bytes between one process of the container, its log and the clients attached to it.

    client sockets ──stdin──▶ Sink ──▶ process ──▶ Source(s) ──▶ log, then every client

Back-pressure follows moby: each client has a bounded queue (1 MiB), and while one is over it nothing is read
from the process, which then blocks in write(2).  The log is written first, so a slow client delays lines but
never loses one.  A client that goes away is dropped together with its queue.

Half a close is meant: a client that shuts down its writing side has ended its stdin and still reads output.
What the end of stdin does is moby's rule (daemon/internal/stream/attach.go): with `close_stdin` and without
a terminal the process gets EOF; otherwise the client's whole attachment ends.

Source: moby daemon/internal/stream, pkg/stdcopy (frame = type, three zeros, big-endian length, payload).
"""

from __future__ import annotations

import collections
import os
import socket
import struct

from satsuma.monitor.escape import DetachKeys
from satsuma.monitor.loop import HANGUP, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from satsuma.monitor.loop import Loop

    class Log(Protocol):
        """What the streams want of a log driver."""

        def write(self, stream: int, data: bytes) -> None: ...
        def close(self) -> None: ...


STDOUT = 1
STDERR = 2
CLIENT_LIMIT = 1024 * 1024
"""Bytes queued for one client above which the process is not read (moby's BytesPipe: 1e6)."""
SINK_LIMIT = 64 * 1024
READ_SIZE = 64 * 1024
DRAIN_READS = 64
"""More than any pipe holds: 64 KiB by default, at most 1 MiB unless an administrator raised it (pipe(7))."""
SEND_PIECES = 64
IDLE_AFTER_EXIT = 0.1
"""Seconds without output after which a pipe that outlived its process counts as finished."""
LONGEST_AFTER_EXIT = 2.0
"""moby waits two seconds for the streams of a process that has exited (daemon/monitor.go)."""

_HEADER = struct.Struct(">BxxxL")
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

CLOSED = "closed"
DETACHED = "detached"
ENDED = "ended"


def frame_header(stream: int, size: int) -> bytes:
    """Return the eight bytes that stand before *size* bytes of *stream*."""
    return _HEADER.pack(stream, size)


class Sink:
    """The writing end of the process's stdin.  Buffers what the process does not read yet."""

    __slots__ = ("_closing", "_fd", "_loop", "_on_room", "_queue", "_size")

    def __init__(self, loop: Loop, fd: int, on_room: Callable[[], None]) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._queue: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._closing = False
        self._on_room = on_room

    @property
    def full(self) -> bool:
        """True while no more should be written; `on_room` tells the end of it."""
        return self._size >= SINK_LIMIT

    def write(self, data: bytes) -> None:
        """Write now or later.  After the process has closed its stdin the bytes are dropped."""
        if self._fd < 0 or self._closing or not data:
            return
        if not self._queue:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
            if not data:
                return
            self._loop.add(self._fd, WRITE, self._ready)
        self._queue.append(data)
        self._size += len(data)

    def _ready(self, _events: int) -> None:
        was_full = self.full
        while self._queue:
            data = self._queue.popleft()
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                self._queue.appendleft(data)
                break
            except OSError:
                self.close()
                break
            self._size -= written
            if written < len(data):
                self._queue.appendleft(data[written:])
        if not self._queue and self._fd >= 0:
            self._loop.remove(self._fd)
            if self._closing:
                self.close()
        if was_full and not self.full:
            self._on_room()

    def finish(self) -> None:
        """Give the process EOF after the bytes that are still queued."""
        self._closing = True
        if not self._queue:
            self.close()

    def close(self) -> None:
        """Close at once."""
        if self._fd >= 0:
            self._loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._queue.clear()
            self._size = 0


class Source:
    """One reading end of the process's output: a pipe, or the master of its terminal."""

    __slots__ = ("_fd", "_loop", "_paused", "_stdio", "stream")

    def __init__(self, stdio: Stdio, fd: int, stream: int) -> None:
        os.set_blocking(fd, False)
        self._stdio = stdio
        self._loop = stdio.loop
        self._fd = fd
        self._paused = False
        self.stream = stream
        self._loop.add(fd, READ, self._ready)

    @property
    def ended(self) -> bool:
        """True after EOF."""
        return self._fd < 0

    def _ready(self, _events: int) -> None:
        self.read()

    def read(self) -> bool:
        """Read once and hand the bytes on; False when there is nothing (yet, or for good)."""
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: the last descriptor of the terminal's slave side is closed, tty_io(4) speak for EOF.
            data = b""
        if not data:
            self.close()
            self._stdio.source_ended()
            return False
        self._stdio.output(self.stream, data)
        return True

    def drain(self) -> None:
        """Read what is there now, but not for ever from a writer that never stops."""
        for _ in range(DRAIN_READS):
            if self._fd < 0 or not self.read():
                return

    def pause(self) -> None:
        """Stop watching.  An interest of nothing would still report EPOLLHUP for ever."""
        if not self._paused and self._fd >= 0:
            self._paused = True
            self._loop.remove(self._fd)

    def resume(self) -> None:
        """Watch again."""
        if self._paused and self._fd >= 0:
            self._paused = False
            self._loop.add(self._fd, READ, self._ready)

    def close(self) -> None:
        """Close the reading end."""
        if self._fd >= 0:
            if not self._paused:
                self._loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1


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


class Stdio:
    """The three streams of one process and everyone who listens to them.

    Args:
        tty: output is one stream, the end of a client's stdin is no EOF for the process.
        close_stdin: the first client whose stdin ends gives the process EOF (Docker's StdinOnce; exec).
    """

    __slots__ = (
        "_close_stdin",
        "_early",
        "_log",
        "_on_complete",
        "_paused",
        "_quiet",
        "_tty",
        "clients",
        "loop",
        "sink",
        "sources",
    )

    def __init__(self, loop: Loop, *, tty: bool, close_stdin: bool, log: Log | None = None) -> None:
        self.loop = loop
        self.clients: list[Client] = []
        self.sources: list[Source] = []
        self.sink: Sink | None = None
        self._tty = tty
        self._close_stdin = close_stdin
        self._log = log
        self._early: list[bytes] | None = []
        self._paused = False
        self._quiet = 0
        self._on_complete: Callable[[], None] | None = None

    def open(self, *, stdin: int | None, outputs: dict[int, int]) -> None:
        """Start to serve the descriptors of the process; they belong to this object from now on.

        Args:
            stdin: writing end, or None.
            outputs: reading end per stream number.
        """
        if stdin is not None:
            self.sink = Sink(self.loop, stdin, self._watch_clients)
            for data in self._early or ():
                self.sink.write(data)
        self._early = None
        self.sources = [Source(self, fd, stream) for stream, fd in outputs.items()]
        self._watch_clients()

    def attach(
        self,
        sock: socket.socket,
        *,
        stdin: bool,
        streams: frozenset[int],
        framed: bool,
        keys: bytes = b"",
        initial_stdin: bytes = b"",
        detach_notice: bytes = b"",
        on_end: Callable[[str], None] | None = None,
    ) -> Client:
        """Add a client; *initial_stdin* are bytes that someone read from its socket before."""
        client = Client(
            self,
            sock,
            stdin=stdin,
            streams=streams,
            framed=framed and not self._tty,
            keys=keys if self._tty else b"",
            detach_notice=detach_notice,
            on_end=on_end,
        )
        self.clients.append(client)
        if stdin and initial_stdin:
            client.stdin(initial_stdin)
        client.watch()
        return client

    def output(self, stream: int, data: bytes) -> None:
        """Hand one chunk of the process's output to the log and to every client that wants it."""
        self._quiet = 0
        if self._log is not None:
            self._log.write(stream, data)
        if self.clients:
            for client in tuple(self.clients):
                if stream in client.streams:
                    client.send(stream, data)
            self.throttle()

    def throttle(self) -> None:
        """Read the process or let it wait, as the longest queue says."""
        longest = max((client.queued for client in self.clients), default=0)
        if not self._paused and longest > CLIENT_LIMIT:
            self._paused = True
            for source in self.sources:
                source.pause()
        elif self._paused and longest <= CLIENT_LIMIT // 2:
            self._paused = False
            for source in self.sources:
                source.resume()

    def wants_stdin(self) -> bool:
        """True while bytes from clients can be taken.  Before the process is there they wait in the socket."""
        return self.sink is not None and not self.sink.full

    def stdin(self, data: bytes) -> None:
        """Write bytes of a client to the process, or keep them until it is there."""
        if self.sink is not None:
            self.sink.write(data)
        elif self._early is not None and data:
            self._early.append(data)

    def stdin_ended(self) -> bool:
        """Note that a client's stdin ended; False when that ends its whole attachment."""
        if self._tty or not self._close_stdin:
            return False
        self.close_stdin()
        return True

    def close_stdin(self) -> None:
        """Give the process EOF after what is queued for it."""
        if self.sink is not None:
            self.sink.finish()

    def client_left(self, client: Client, *, had_stdin: bool) -> None:
        """Forget a client whose socket is closed."""
        if client in self.clients:
            self.clients.remove(client)
        if had_stdin and self._close_stdin and not self._tty:
            self.close_stdin()
        self.throttle()

    def _watch_clients(self) -> None:
        for client in tuple(self.clients):
            client.watch()

    def source_ended(self) -> None:
        """Note an end of output."""
        if self._on_complete is not None and all(source.ended for source in self.sources):
            self._complete()

    def process_ended(self, on_complete: Callable[[], None]) -> None:
        """Collect the rest of the output, end the clients, then call *on_complete*.

        A background process can hold the pipes long after; when they are silent for a moment the output
        counts as complete.  They are read on (into nowhere) so that such a process does not get SIGPIPE.
        """
        self._on_complete = on_complete
        if self.sink is not None:
            self.sink.close()
        for source in self.sources:
            source.drain()
        if all(source.ended for source in self.sources):
            self._complete()
            return
        self._wait_for_silence(int(LONGEST_AFTER_EXIT / IDLE_AFTER_EXIT))

    def _wait_for_silence(self, rounds: int) -> None:
        def look() -> None:
            if self._on_complete is None:
                return
            if self._quiet or not rounds:
                self._complete()
            else:
                self._wait_for_silence(rounds - 1)

        self._quiet = 1
        self.loop.call_later(IDLE_AFTER_EXIT, look)

    def _complete(self) -> None:
        done, self._on_complete = self._on_complete, None
        if done is None:
            return
        if self._log is not None:
            self._log.close()
            self._log = None
        for client in tuple(self.clients):
            client.finish(ENDED)
        done()

    def close(self) -> None:
        """Drop everything."""
        for client in tuple(self.clients):
            client.drop(ENDED)
        for source in self.sources:
            source.close()
        if self.sink is not None:
            self.sink.close()
