"""Records of log files, decoded: the counterpart of `logformat`.  Pure: bytes in, entries out."""

from __future__ import annotations

import collections
import json
import struct

from satsuma.base.clock import parse_rfc3339
from satsuma.base.protobuf import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Decoder(Protocol):
        """Cuts bytes into records and decodes them."""

        def feed(self, data: bytes) -> list[Entry]: ...


Entry = collections.namedtuple("Entry", ["stream", "time_ns", "line", "attrs"])
"""One record: "stdout" or "stderr", its time, its bytes, the driver's extra attributes (a dict).

`line` ends with a newline, unless it is a piece of a longer line or the unfinished end of the output.
"""

_NO_ATTRS: dict[str, str] = {}


class JsonDecoder:
    """Decodes json-file; a line that is damaged is skipped."""

    __slots__ = ("_rest", "_second", "_second_ns")

    def __init__(self) -> None:
        self._rest = b""
        self._second = ""
        self._second_ns = 0

    def feed(self, data: bytes) -> list[Entry]:
        """Take bytes in any cuts; a record that is not complete yet waits."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        entries = []
        for line in lines:
            try:
                record = json.loads(line)
                entries.append(
                    Entry(
                        record.get("stream", ""),
                        self._time(record["time"]),
                        record.get("log", "").encode("utf-8", "surrogatepass"),
                        record.get("attrs") or _NO_ATTRS,
                    )
                )
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
        return entries

    def _time(self, text: str) -> int:
        second, fraction = text[:19], text[20:-1]
        if text[19:20] not in (".", "Z") or not text.endswith("Z"):
            return parse_rfc3339(text)
        if second != self._second:
            self._second_ns = parse_rfc3339(second)
            self._second = second
        return self._second_ns + int((fraction + "000000000")[:9])


SIZE = struct.Struct(">L")
_MAX_RECORD = 1024 * 1024
"""A frame holds a line of 16 KiB and its attributes; a size above this is damage."""


class LocalDecoder:
    """Decodes the frames of the local driver; behind a damaged frame nothing can be found any more."""

    __slots__ = ("_broken", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._broken = False

    def feed(self, data: bytes) -> list[Entry]:
        """Take bytes in any cuts; a record that is not complete yet waits."""
        if self._broken:
            return []
        data = self._rest + data
        entries = []
        position = 0
        while position + 4 <= len(data):
            (size,) = SIZE.unpack_from(data, position)
            if size > _MAX_RECORD:
                self._broken = True
                break
            end = position + 8 + size
            if end > len(data):
                break
            try:
                entries.append(_parse_entry(data[position + 4 : end - 4]))
            except (ValueError, IndexError):
                pass
            position = end
        self._rest = b"" if self._broken else data[position:]
        return entries


def _parse_entry(data: bytes) -> Entry:
    """Decode one LogEntry.

    Raises:
        ValueError, IndexError: no such message.
    """
    stream, time_ns, line = "", 0, b""
    partial, last = False, False
    attrs: dict[str, str] = {}
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            stream = value.decode("utf-8", "replace")
        elif number == 2 and isinstance(value, int):
            time_ns = value
        elif number == 3 and isinstance(value, bytes):
            line = value
        elif number == 4:
            partial = bool(value)
        elif number == 5 and isinstance(value, bytes):
            last = any(inner == 1 and flag for inner, flag in fields(value))
        elif number == 6 and isinstance(value, bytes):
            pair = {inner: text for inner, text in fields(value) if isinstance(text, bytes)}
            attrs[pair.get(1, b"").decode()] = pair.get(2, b"").decode()
    if not partial or last:
        line += b"\n"
    return Entry(stream, time_ns, line, attrs or _NO_ATTRS)
