"""The monitor's ends of a process's streams: a sink for its stdin, sources of its output."""

from __future__ import annotations

import collections
import os

from satsuma.monitor.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from satsuma.monitor.loop import Loop

SINK_LIMIT = 64 * 1024
READ_SIZE = 64 * 1024
DRAIN_READS = 64
"""More than any pipe holds: 64 KiB by default, at most 1 MiB unless an administrator raised it (pipe(7))."""


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

    __slots__ = ("_fd", "_loop", "_on_data", "_on_end", "_paused", "stream")

    def __init__(
        self,
        loop: Loop,
        fd: int,
        stream: int,
        on_data: Callable[[int, bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._on_data = on_data
        self._on_end = on_end
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
            self._on_end()
            return False
        self._on_data(self.stream, data)
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
