"""A log file that rotates: path, path.1, path.2, … with the newest number lowest, `.gz` when compressed.

The file may grow above its limit by one record, as moby's does: the limit is looked at before a record is
written.  With one file the file is emptied instead.  Compression runs in a child process, so that the
container's output is not held up; the next rotation waits until it has finished.

Crash: a rotation is a series of renames, oldest first; a crash in between leaves a gap in the numbers, which
readers skip and the next rotation closes.  A half-written `.gz.tmp` is replaced by the next compression.

Source: moby daemon/logger/loggerutils/logfile.go.
"""

from __future__ import annotations

import os
import sys
import zlib

from satsuma.base.failpoints import failpoint
from satsuma.linux.syscalls import close_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_MODE = 0o640
"""moby: NewLogFile(…, 0640, …)."""
_CHUNK = 256 * 1024


class LogFile:
    """Appends records to *path*.

    Args:
        max_size: bytes above which the file is rotated; 0 is never.
        max_file: how many files there are at most, the current one included.
        compress: rotated files are gzipped.
    """

    __slots__ = ("_compress", "_compressor", "_failed", "_fd", "_max_file", "_max_size", "_path", "_size")

    def __init__(self, path: str, *, max_size: int = 0, max_file: int = 1, compress: bool = False) -> None:
        self._path = path
        self._max_size = max_size
        self._max_file = max_file
        self._compress = compress
        self._compressor = -1
        self._failed = False
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self, flags: int = 0) -> None:
        self._fd = os.open(self._path, _FLAGS | flags, _MODE)
        self._size = os.fstat(self._fd).st_size

    def fileno(self) -> int:
        """Return the descriptor of the current file."""
        return self._fd

    def adopt(self, fd: int) -> None:
        """Go on with *fd*, which is the same file at another number."""
        self._fd = fd

    def append(self, records: Sequence[bytes]) -> None:
        """Write records, each into one file as a whole; what the disk does not take is lost.

        Never raises: a full disk must not end the container.  The first loss is told on stderr.
        """
        try:
            self._append(records)
        except OSError as error:
            if not self._failed:
                self._failed = True
                sys.stderr.write(f"log {self._path}: {error}; output is lost until it can be written\n")
        else:
            self._failed = False

    def _append(self, records: Sequence[bytes]) -> None:
        if not self._max_size:
            self._write(b"".join(records))
            return
        batch: list[bytes] = []
        size = self._size
        for record in records:
            if size >= self._max_size:
                self._write(b"".join(batch))
                batch.clear()
                self._rotate()
                size = self._size
            batch.append(record)
            size += len(record)
        self._write(b"".join(batch))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        start = self._size
        try:
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
        except OSError:
            # A cut record would damage the next one too.
            self._size = start
            os.ftruncate(self._fd, start)
            raise

    def _rotate(self) -> None:
        if self._max_file < 2:
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        self._wait_for_compressor()
        for number in range(self._max_file - 1, 0, -1):
            older = f"{self._path}.{number}"
            newer = f"{self._path}.{number - 1}" if number > 1 else self._path
            for suffix in (".gz", ""):
                if number == self._max_file - 1:
                    _unlink(older + suffix)
                if number > 1:
                    _rename(newer + suffix, older + suffix)
            failpoint("monitor.log.rotated")
        os.rename(self._path, f"{self._path}.1")
        failpoint("monitor.log.renamed")
        os.close(self._fd)
        self._open(os.O_TRUNC)
        if self._compress:
            self._start_compressor(f"{self._path}.1")

    def _start_compressor(self, path: str) -> None:
        # The end of the child is the end of file of a pipe: its pid may be reaped by anybody.
        finished, held = os.pipe2(os.O_CLOEXEC)
        if os.fork():
            os.close(held)
            self._compressor = finished
            return
        status = 1
        try:
            # A copy of a client's socket or of a container's pipe in here would keep it open.
            os.dup2(held, 3, inheritable=False)
            close_range(4)
            os.nice(10)
            compress(path)
            status = 0
        finally:
            os._exit(status)

    def _wait_for_compressor(self) -> None:
        if self._compressor >= 0:
            os.read(self._compressor, 1)
            os.close(self._compressor)
            self._compressor = -1

    def close(self) -> None:
        """Close the file; a compression that still runs finishes on its own."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._compressor >= 0:
            os.close(self._compressor)
            self._compressor = -1


def compress(path: str) -> None:
    """Replace *path* by *path*.gz."""
    temporary = f"{path}.gz.tmp"
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    gzip = zlib.compressobj(6, zlib.DEFLATED, 31)
    while data := os.read(source, _CHUNK):
        _write_all(target, gzip.compress(data))
    _write_all(target, gzip.flush())
    failpoint("monitor.log.compressed")
    os.rename(temporary, f"{path}.gz")
    os.unlink(path)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _rename(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        pass
