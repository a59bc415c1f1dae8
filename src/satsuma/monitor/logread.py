"""Reading the files that the log drivers write: tail, since, until, across rotated files, again and again.

A `LogReader` is a position in the log of one container.  `read` returns what is there from the position on;
an empty list means "nothing now": call it again when the file has changed (`logfollow` does) and it goes on,
through rotations and truncations.  Blocking file work, no threads, no asyncio: the daemon calls it in its pool.

Order of filters as in Docker: the last *tail* records first, then *since* and *until* (moby daemon/logger/
loggerutils/logfile.go).  A rotated file may be compressed or deleted while it is read; the position is then
found again by time, which the writer makes strictly increasing.
"""

from __future__ import annotations

import collections
import os
import zlib

from satsuma.base.errors import Unsupported
from satsuma.monitor.logdecode import SIZE, Entry, JsonDecoder, LocalDecoder

__all__ = ["Entry", "LogReader"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from satsuma.monitor.logdecode import Decoder

    Tail = Callable[[int, int, int], "tuple[int, int]"]


_CHUNK = 256 * 1024
_TAIL_CHUNK = 64 * 1024
_FAR = 1 << 63


def _tail_lines(fd: int, size: int, count: int) -> tuple[int, int]:
    """Find the last *count* lines of a file: (offset at which they start, how many there are)."""
    position = size
    found = -1  # the newline at the very end opens no line
    while position > 0:
        start = max(0, position - _TAIL_CHUNK)
        data = os.pread(fd, position - start, start)
        index = len(data)
        while (index := data.rfind(b"\n", 0, index)) >= 0:
            found += 1
            if found == count:
                return start + index + 1, count
        position = start
    return 0, max(0, found + 1) if size else 0


def _tail_frames(fd: int, size: int, count: int) -> tuple[int, int]:
    """Find the last *count* frames of the local driver: (offset at which they start, how many there are)."""
    position = size
    found = 0
    while position >= 8 and found < count:
        (length,) = SIZE.unpack(os.pread(fd, 4, position - 4))
        start = position - 8 - length
        if start < 0 or os.pread(fd, 4, start) != SIZE.pack(length):
            break
        position = start
        found += 1
    return position, found


_DRIVERS: dict[str, tuple[Callable[[], Decoder], Tail]] = {
    "json-file": (JsonDecoder, _tail_lines),
    "local": (LocalDecoder, _tail_frames),
}


class _Segment:
    """One file of the log, open, with its own decoder."""

    __slots__ = ("_decoder", "_gzip", "_skip", "fd", "identity", "position")

    def __init__(self, fd: int, decoder: Decoder, *, compressed: bool) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self.identity = (status.st_dev, status.st_ino)
        self.position = 0
        self._decoder = decoder
        self._gzip = zlib.decompressobj(31) if compressed else None
        self._skip = 0

    def keep_last(self, count: int, tail: Tail, new_decoder: Callable[[], Decoder]) -> int:
        """Move to the last *count* records and return how many there are."""
        if self._gzip is None:
            self.position, found = tail(self.fd, os.fstat(self.fd).st_size, count)
            return found
        total = 0
        while (entries := self.read()) is not None:
            total += len(entries)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self.position = 0
        self._gzip = zlib.decompressobj(31)
        self._decoder = new_decoder()
        self._skip = max(0, total - count)
        return min(total, count)

    def read(self) -> list[Entry] | None:
        """Return the next records (perhaps none in this chunk), or None at the end of what is there."""
        data = os.pread(self.fd, _CHUNK, self.position)
        if not data:
            return None
        self.position += len(data)
        if self._gzip is not None:
            try:
                data = self._gzip.decompress(data)
            except zlib.error:
                return None
        entries = self._decoder.feed(data)
        if self._skip:
            skipped = min(self._skip, len(entries))
            self._skip -= skipped
            entries = entries[skipped:]
        return entries

    def close(self) -> None:
        os.close(self.fd)


class LogReader:
    """A position in one container's log.

    Args:
        driver: "json-file" or "local".
        path: the current file.
        tail: how many of the last records to start with; None is all.
        since_ns, until_ns: nanoseconds since the epoch, inclusive; 0 is no limit.
    Raises:
        Unsupported: a driver whose logs cannot be read.
    """

    def __init__(
        self, driver: str, path: str, *, tail: int | None = None, since_ns: int = 0, until_ns: int = 0
    ) -> None:
        if driver not in _DRIVERS:
            raise Unsupported("configured logging driver does not support reading")
        self._new_decoder, self._tail = _DRIVERS[driver]
        self.path = path
        self._since_ns = since_ns
        self._until_ns = until_ns or _FAR
        self._after_ns = -1
        self._last_ns = -1
        self._segments: collections.deque[_Segment] = collections.deque()
        self.done = False
        """True when a record behind *until* was met: there is nothing more to wait for."""
        self._open(tail)

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, tail: int | None) -> None:
        """Open the files from the newest to the oldest, as many as *tail* needs."""
        wanted = _FAR if tail is None else max(0, tail)
        for segment in _open_segments(self.path, self._new_decoder):
            self._segments.appendleft(segment)
            if wanted != _FAR:
                wanted -= segment.keep_last(wanted, self._tail, self._new_decoder)
                if wanted <= 0:
                    break

    def read(self, limit: int = 1000) -> list[Entry]:
        """Return the next records, about *limit* at most; an empty list means nothing now."""
        found: list[Entry] = []
        while len(found) < limit and not self.done:
            if not self._segments and not self._reopen():
                break
            segment = self._segments[0]
            entries = segment.read()
            if entries is not None:
                self._take(entries, found)
            elif len(self._segments) > 1:
                self._segments.popleft().close()
                self._after_ns = -1 if len(self._segments) == 1 else self._after_ns
            elif not self._advance(segment, found):
                break
        return found

    def _take(self, entries: list[Entry], found: list[Entry]) -> None:
        for entry in entries:
            if entry.time_ns > self._until_ns:
                self.done = True
                return
            if entry.time_ns >= self._since_ns and entry.time_ns > self._after_ns:
                found.append(entry)
        if entries:
            self._last_ns = entries[-1].time_ns

    def _reopen(self) -> bool:
        """Look for files that were not there before; False when there are still none."""
        self._open(None)
        return bool(self._segments)

    def _advance(self, segment: _Segment, found: list[Entry]) -> bool:
        """At the end of the current file: follow a rotation or truncation; False when there was none."""
        size = os.fstat(segment.fd).st_size
        if size < segment.position:
            segment.position = 0
            segment._decoder = self._new_decoder()
            return size > 0
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return False
        if (status.st_dev, status.st_ino) == segment.identity:
            return False
        # The writer may have added to our file between our last read and the rename.
        rest = segment.read()
        if rest is not None:
            self._take(rest, found)
            return True
        newer: list[_Segment] = []
        for other in _open_segments(self.path, self._new_decoder):
            if other.identity == segment.identity:
                other.close()
                break
            newer.append(other)
        else:
            # Ours was compressed or deleted: everything behind the last record that we saw is new.
            self._after_ns = self._last_ns if len(newer) > 1 else -1
        self._segments.popleft().close()
        self._segments.extendleft(newer)
        return True

    def close(self) -> None:
        """Close the files."""
        while self._segments:
            self._segments.popleft().close()


def _open_segments(path: str, new_decoder: Callable[[], Decoder]) -> Iterator[_Segment]:
    """Open the current file, then path.1, path.2, …: newest first, each file once.

    A rotation in between moves files to higher numbers, so that going upwards meets one twice, never misses
    one.
    """
    seen = set()
    for name, compressed in _names(path):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        segment = _Segment(fd, new_decoder(), compressed=compressed)
        if segment.identity in seen:
            segment.close()
            continue
        seen.add(segment.identity)
        yield segment


def _names(path: str) -> Iterator[tuple[str, bool]]:
    yield path, False
    directory, _, base = path.rpartition("/")
    number = 1
    while True:
        yield f"{path}.{number}", False
        yield f"{path}.{number}.gz", True
        number += 1
        # A crash can leave a gap in the numbers: look for the highest in the directory.
        there = any(os.path.lexists(f"{path}.{number}{suffix}") for suffix in ("", ".gz"))
        if not there and number > _highest(directory or ".", base):
            return


def _highest(directory: str, base: str) -> int:
    highest = 0
    for name in os.listdir(directory):
        if name.startswith(base + "."):
            digits = name[len(base) + 1 :].removesuffix(".gz")
            if digits.isascii() and digits.isdigit():
                highest = max(highest, int(digits))
    return highest
