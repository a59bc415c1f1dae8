"""Records of log files: Docker's json-file lines and the protobuf frames of its local driver.

json-file: `{"log":"text\\n","stream":"stdout","attrs":{…},"time":"2026-01-02T03:04:05.000000006Z"}` and a
newline.  A line without its `\\n` in `log` is a part of a longer one: output is cut after 16 KiB, and at its
end.  Strings are escaped like moby's jsonlog does it, which is Go's JSON with HTML escapes: `<` is `\\u003c`,
a byte that is no UTF-8 is `\\ufffd`.

local: a frame is big-endian size, protobuf LogEntry, size again, so that it can be read from the end.

    message LogEntry { string source = 1; int64 time_nano = 2; bytes line = 3; bool partial = 4;
                       PartialLogEntryMetadata partial_log_metadata = 5; repeated LogAttr attrs = 6; }
    message PartialLogEntryMetadata { bool last = 1; string id = 2; int32 ordinal = 3; }
    message LogAttr { string key = 1; string value = 2; }

Pure.  Source: moby daemon/logger/{copier.go,jsonfilelog/jsonlog/jsonlogbytes.go,local/local.go}.
"""

from __future__ import annotations

import os
import struct
import time

from satsuma.base.protobuf import bytes_field, varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LINE = 16 * 1024

WHOLE = 0
"""A complete line; the piece ends with a newline."""
PART = 1
"""A piece of a longer line, or the unfinished end of the output."""
LAST = 2
"""The last piece of a longer line; it ends with a newline."""

NAMES = {1: "stdout", 2: "stderr"}


class Splitter:
    """Cuts one stream of output into lines and pieces of at most 16 KiB."""

    __slots__ = ("_pending", "_within")

    def __init__(self) -> None:
        self._pending = b""
        self._within = False

    def feed(self, data: bytes) -> list[tuple[bytes, int]]:
        """Take output in any cuts and return what is complete."""
        if self._pending:
            data = self._pending + data
        lines = data.splitlines(keepends=True) if _plain(data) else _split(data)
        self._pending = b""
        if lines and not lines[-1].endswith(b"\n"):
            self._pending = lines.pop()
        if not self._within and not any(len(line) > MAX_LINE for line in lines):
            pieces = [(line, WHOLE) for line in lines]
        else:
            pieces = [piece for line in lines for piece in self._cut(line)]
        while len(self._pending) >= MAX_LINE:
            pieces.append((self._pending[:MAX_LINE], PART))
            self._pending = self._pending[MAX_LINE:]
            self._within = True
        return pieces

    def _cut(self, line: bytes) -> list[tuple[bytes, int]]:
        pieces = []
        # The newline does not count: a full buffer goes out before its newline is seen.
        while len(line) > MAX_LINE:
            pieces.append((line[:MAX_LINE], PART))
            line = line[MAX_LINE:]
            self._within = True
        pieces.append((line, LAST if self._within else WHOLE))
        self._within = False
        return pieces

    def close(self) -> list[tuple[bytes, int]]:
        """Return the unfinished line, if there is one."""
        pending, self._pending = self._pending, b""
        return [(pending, PART)] if pending else []


def _plain(data: bytes) -> bool:
    """Say whether `splitlines`, which also cuts at a carriage return, cuts at newlines only."""
    return b"\r" not in data


def _split(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    last = lines.pop()
    result = [line + b"\n" for line in lines]
    if last:
        result.append(last)
    return result


_SAFE = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'\\"<>&')
_ESCAPES: dict[int, str] = {
    **{code: f"\\u{code:04x}" for code in range(0x20)},
    **{ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"},
    **{0xDC00 + byte: "\\ufffd" for byte in range(0x80, 0x100)},
    ord("\\"): "\\\\",
    ord('"'): '\\"',
    ord("\n"): "\\n",
    ord("\r"): "\\r",
}


def escape_json(data: bytes) -> bytes:
    """Return *data* as the inside of a JSON string, as moby's jsonlog writes it."""
    unsafe = data.translate(None, _SAFE)
    if not unsafe:
        return data
    if unsafe == b"\n" and data.endswith(b"\n"):
        return data[:-1] + b"\\n"
    # surrogateescape marks each byte that is no UTF-8 on its own, as Go counts them.
    return data.decode("utf-8", "surrogateescape").translate(_ESCAPES).encode("utf-8")


class _Clock:
    """Formats RFC3339Nano; the date and the second are formatted once per second."""

    __slots__ = ("_prefix", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._prefix = b""

    def format(self, ns: int) -> bytes:
        second, fraction = divmod(ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = b"%04d-%02d-%02dT%02d:%02d:%02d" % time.gmtime(second)[:6]
        digits = (b"%09d" % fraction).rstrip(b"0")
        return self._prefix + b"." + digits + b"Z" if digits else self._prefix + b"Z"


class JsonFormat:
    """Docker's json-file."""

    __slots__ = ("_clock", "_middle")

    def __init__(self, attrs: Mapping[str, str]) -> None:
        extra = b""
        if attrs:
            pairs = (b'"%s":"%s"' % (_escape_text(key), _escape_text(attrs[key])) for key in sorted(attrs))
            extra = b',"attrs":{' + b",".join(pairs) + b"}"
        self._middle = {
            stream: b'","stream":"' + name.encode() + b'"' + extra + b',"time":"'
            for stream, name in NAMES.items()
        }
        self._clock = _Clock()

    def encode(self, stream: int, pieces: list[tuple[bytes, int]], time_ns: int) -> list[bytes]:
        """Return one record per piece; the first has *time_ns*, each next one a nanosecond more."""
        middle = self._middle[stream]
        stamp = self._clock.format
        return [
            b'{"log":"' + escape_json(piece) + middle + stamp(time_ns + index) + b'"}\n'
            for index, (piece, _) in enumerate(pieces)
        ]


def _escape_text(text: str) -> bytes:
    return escape_json(text.encode("utf-8", "surrogateescape"))


_SIZE = struct.Struct(">L")


class LocalFormat:
    """Docker's local driver."""

    __slots__ = ("_attrs", "_id", "_ordinal")

    def __init__(self, attrs: Mapping[str, str]) -> None:
        self._attrs = b"".join(
            bytes_field(6, bytes_field(1, key.encode()) + bytes_field(2, attrs[key].encode()))
            for key in sorted(attrs)
        )
        self._id = {stream: b"" for stream in NAMES}
        self._ordinal = {stream: 0 for stream in NAMES}

    def encode(self, stream: int, pieces: list[tuple[bytes, int]], time_ns: int) -> list[bytes]:
        """Return one frame per piece; times as in JsonFormat."""
        source = bytes_field(1, NAMES[stream].encode())
        records = []
        for index, (piece, kind) in enumerate(pieces):
            line = piece if kind == PART else piece[:-1]
            entry = source + b"\x10" + varint(time_ns + index)
            if line:
                entry += bytes_field(3, line)
            if kind != WHOLE:
                entry += b"\x20\x01" + bytes_field(5, self._partial(stream, last=kind == LAST))
            entry += self._attrs
            size = _SIZE.pack(len(entry))
            records.append(size + entry + size)
        return records

    def _partial(self, stream: int, *, last: bool) -> bytes:
        if not self._id[stream]:
            self._id[stream] = os.urandom(32).hex().encode()
        self._ordinal[stream] += 1
        data = bytes_field(2, self._id[stream]) + b"\x18" + varint(self._ordinal[stream])
        if last:
            self._id[stream], self._ordinal[stream] = b"", 0
            data = b"\x08\x01" + data
        return data
