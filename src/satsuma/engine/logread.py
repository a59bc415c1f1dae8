"""Read back what the monitor logs: json-file and local, over rotated files, from the end, and following.

Owns the reading side of the log files; the formats are described in `monitor.logformat`.  Synchronous and
without locks: the monitor appends whole records, so an incomplete one at the end is simply not there yet.

Source: moby daemon/logger/{jsonfilelog,local,loggerutils}.
"""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import msgspec

from satsuma.base.clock import format_rfc3339nano_fixed

CHUNK = 256 * 1024
_SIZE = struct.Struct(">L")


class Entry(NamedTuple):
    """One record: *time* is RFC 3339 with nine digits, so that comparing texts compares times."""

    stream: int
    time: str
    line: bytes
    attrs: dict[str, str]


class _JsonEntry(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] = {}


_decode_json = msgspec.json.Decoder(_JsonEntry).decode
_STREAMS = {"stdout": 1, "stderr": 2}


def fixed_time(text: str) -> str:
    """Return an RFC 3339 UTC time with nine digits of fraction."""
    head, point, fraction = text.removesuffix("Z").partition(".")
    return f"{head}.{fraction.ljust(9, '0') if point else '000000000'}Z"


def split_json(data: bytes) -> tuple[list[Entry], int]:
    """Return the whole records at the start of *data*, and how many bytes they take; broken lines are skipped."""
    end = data.rfind(b"\n") + 1
    entries = []
    for line in data[:end].splitlines():
        try:
            found = _decode_json(line)
        except msgspec.DecodeError:
            continue
        entries.append(
            Entry(
                _STREAMS.get(found.stream, 1),
                fixed_time(found.time),
                found.log.encode("utf-8", "replace"),
                found.attrs,
            )
        )
    return entries, end


def split_local(data: bytes) -> tuple[list[Entry], int]:
    """The same for the frames of the local driver."""
    entries = []
    offset = 0
    while offset + 4 <= len(data):
        (size,) = _SIZE.unpack_from(data, offset)
        if offset + size + 8 > len(data):
            break
        entries.append(_decode_local(data[offset + 4 : offset + 4 + size]))
        offset += size + 8
    return entries, offset


def _decode_local(frame: bytes) -> Entry:
    source, at, line, partial = b"stdout", 0, b"", False
    attrs: dict[str, str] = {}
    for number, value in _fields(frame):
        if isinstance(value, int):
            at = value if number == 2 else at
            partial = bool(value) if number == 4 else partial
        elif number == 1:
            source = value
        elif number == 3:
            line = value
        elif number == 6:
            pair = {key: text for key, text in _fields(value) if isinstance(text, bytes)}
            attrs[pair.get(1, b"").decode()] = pair.get(2, b"").decode()
    if not partial:
        line += b"\n"
    return Entry(_STREAMS.get(source.decode(), 1), format_rfc3339nano_fixed(at), line, attrs)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a protobuf message with varints and byte strings only."""
    offset = 0
    while offset < len(data):
        key, offset = _varint(data, offset)
        value, offset = _varint(data, offset)
        if key & 7 == 0:
            yield key >> 3, value
        else:
            yield key >> 3, data[offset : offset + value]
            offset += value


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
        shift += 7


def log_files(path: str) -> list[str]:
    """Return the files of a log that are there, oldest first."""
    directory, base = os.path.split(path)
    found: list[tuple[int, str]] = []
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    for name in names:
        number = name[len(base) + 1 :].removesuffix(".gz")
        if name.startswith(base + ".") and number.isdigit():
            found.append((int(number), f"{directory}/{name}"))
    files = [file for _, file in sorted(found, reverse=True)]
    return [*files, path] if base in names else files


class LogReader:
    """Reads one container's log record by record; `read` returns [] at the present end.

    Not thread-safe; may be moved between threads.
    """

    def __init__(self, path: str, driver: str) -> None:
        self._path = path
        self._split = split_local if driver == "local" else split_json
        self._local = driver == "local"
        self._pending: list[str] = log_files(path)
        self._file: BinaryIO | None = None
        self._inode = 0
        self._data = b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def seek_tail(self, count: int) -> None:
        """Start so that `read` gives the last *count* records, as far as there are that many."""
        left = count
        files = self._pending
        for index in range(len(files) - 1, -1, -1):
            offset, found = _tail_offset(files[index], left, local=self._local)
            left -= found
            if left <= 0 or index == 0:
                self._pending = files[index:]
                self._next_file(offset)
                return

    def _next_file(self, offset: int = 0) -> bool:
        while self._pending:
            name = self._pending.pop(0)
            try:
                file: BinaryIO = gzip.open(name) if name.endswith(".gz") else open(name, "rb")  # type: ignore[assignment]
            except FileNotFoundError:
                continue
            self.close()
            self._file = file
            self._data = b""
            self._inode = 0 if name.endswith(".gz") else os.fstat(file.fileno()).st_ino
            if offset:
                file.seek(offset)
            return True
        return False

    def read(self) -> list[Entry]:
        """Return some records, [] when there are none now."""
        if self._file is None and not self._next_file():
            self._pending = log_files(self._path)
            if not self._next_file():
                return []
        while self._file is not None:
            chunk = self._file.read(CHUNK)
            if chunk:
                entries, used = self._split(self._data + chunk)
                self._data = (self._data + chunk)[used:]
                if entries:
                    return entries
                continue
            if self._pending:
                self._next_file()
            elif not self._follow_rotation():
                return []
        return []

    def _follow_rotation(self) -> bool:
        """At the end of the newest file: go on with its successor if the log was rotated meanwhile."""
        assert self._file is not None
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return False
        if status.st_ino != self._inode:
            # Rotated: our file got a number.  What is newer than it comes next.
            newer: list[str] = []
            for name in reversed(log_files(self._path)):
                # A compressed file is at least as old as ours, which was read to its end.
                if name.endswith(".gz") or os.stat(name).st_ino == self._inode:
                    break
                newer.insert(0, name)
            self._pending = newer or [self._path]
            return self._next_file()
        if status.st_size < self._file.tell():
            # max-file=1: the file was emptied in place.
            self._file.seek(0)
            self._data = b""
            return status.st_size > 0
        return False


def _tail_offset(name: str, count: int, *, local: bool) -> tuple[int, int]:
    """Return (offset of the record *count* from the end, number of records from there on)."""
    if count <= 0:
        size = 0 if name.endswith(".gz") else os.path.getsize(name)
        return size, 0
    file: BinaryIO
    with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as file:  # type: ignore[assignment]
        if name.endswith(".gz"):
            return _tail_of_text(file.read(), count, local=local)
        return _local_tail(file, count) if local else _json_tail(file, count)


def _tail_of_text(data: bytes, count: int, *, local: bool) -> tuple[int, int]:
    offsets = [0]
    if local:
        offset = 0
        while offset + 4 <= len(data):
            offset += _SIZE.unpack_from(data, offset)[0] + 8
            offsets.append(offset)
    else:
        position = data.find(b"\n")
        while position >= 0:
            offsets.append(position + 1)
            position = data.find(b"\n", position + 1)
    records = len(offsets) - 1
    start = max(0, records - count)
    return offsets[start], records - start


def _json_tail(file: BinaryIO, count: int) -> tuple[int, int]:
    """Count newlines backwards, a block at a time."""
    position = file.seek(0, os.SEEK_END)
    found = -1  # the newline that ends the last record
    while position > 0:
        size = min(CHUNK, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        newline = block.rfind(b"\n")
        while newline >= 0:
            found += 1
            if found == count:
                return position + newline + 1, count
            newline = block.rfind(b"\n", 0, newline)
    return 0, found + 1


def _local_tail(file: BinaryIO, count: int) -> tuple[int, int]:
    """Step from frame to frame backwards: each ends with its size."""
    position = file.seek(0, os.SEEK_END)
    found = 0
    while position >= 8 and found < count:
        file.seek(position - 4)
        size = _SIZE.unpack(file.read(4))[0] + 8
        if size > position:
            break
        position -= size
        found += 1
    return position, found
