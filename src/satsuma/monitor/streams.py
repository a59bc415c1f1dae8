"""Bytes between one process of the container, its log and the clients attached to it.

    client sockets ──stdin──▶ Sink ──▶ process ──▶ Source(s) ──▶ log, then every client

Back-pressure follows moby: each client has a bounded queue (1 MiB), and while one is over it nothing is read
from the process, which then blocks in write(2).  The log is written first, so a slow client delays lines but
never loses one.  A client that goes away is dropped together with its queue.

What the end of a client's stdin does is moby's rule: with `close_stdin` and without a terminal the process
gets EOF; otherwise the client's whole attachment ends.

Source: moby daemon/internal/stream/attach.go.
"""

from __future__ import annotations

from satsuma.monitor.attached import ENDED, STDERR, STDOUT, Client
from satsuma.monitor.ends import Sink, Source

__all__ = ["STDERR", "STDOUT", "Stdio"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Protocol

    from satsuma.monitor.loop import Loop

    class Log(Protocol):
        """What the streams want of a log driver."""

        def write(self, stream: int, data: bytes) -> None: ...
        def close(self) -> None: ...


CLIENT_LIMIT = 1024 * 1024
"""Bytes queued for one client above which the process is not read (moby's BytesPipe: 1e6)."""
IDLE_AFTER_EXIT = 0.1
"""Seconds without output after which a pipe that outlived its process counts as finished."""
LONGEST_AFTER_EXIT = 2.0
"""moby waits two seconds for the streams of a process that has exited (daemon/monitor.go)."""


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
        self.sources = [
            Source(self.loop, fd, stream, self._output, self._source_ended) for stream, fd in outputs.items()
        ]
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
            framed=framed,
            keys=keys if self._tty else b"",
            detach_notice=detach_notice,
            on_end=on_end,
        )
        self.clients.append(client)
        if stdin and initial_stdin:
            client.stdin(initial_stdin)
        client.watch()
        return client

    def _output(self, stream: int, data: bytes) -> None:
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

    def _source_ended(self) -> None:
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
