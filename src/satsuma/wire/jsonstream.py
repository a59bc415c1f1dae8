"""A stream of JSON documents: find where one ends and the next begins, whatever the pieces.

Docker's event, progress and stats streams are documents one after another, with or without white space between
them.  This module splits; parsing is the caller's.

Imported by the command line: no `typing`, `enum`, `re` at run time.
"""

from __future__ import annotations

MAX_DOCUMENT = 64 << 20

_SPACE = frozenset(b" \t\r\n\x1e")
"""White space of JSON, and the record separator of RFC 7464 (`application/json-seq`)."""
_QUOTE, _BACKSLASH = 0x22, 0x5C
_OPEN, _CLOSE = frozenset(b"{["), frozenset(b"}]")
_INTERESTING = frozenset(b'"{}[]\\')


class ProtocolError(Exception):
    """The bytes are no stream of JSON documents."""


class Splitter:
    """Feed bytes, get whole documents (objects or arrays) as bytes."""

    __slots__ = ("_buffer", "_depth", "_escaped", "_position", "_quoted")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the documents that *data* completes.

        Raises:
            ProtocolError: something other than an object or an array, or a document without an end.
        """
        buffer = self._buffer
        buffer += data
        if self._position == 0 and buffer.endswith(b"\n") and (found := self._whole_lines()) is not None:
            return found
        documents: list[bytes] = []
        start = 0
        position = self._position
        while position < len(buffer):
            if self._depth == 0:
                if buffer[position] in _SPACE:
                    position += 1
                    start = position
                    continue
                if buffer[position] not in _OPEN:
                    raise ProtocolError(f"unexpected byte {buffer[position]:#x} between JSON documents")
            position = self._scan(position)
            if self._depth == 0 and position > start and not self._quoted:
                documents.append(bytes(buffer[start:position]))
                start = position
        del buffer[:start]
        self._position = position - start
        if len(buffer) > MAX_DOCUMENT:
            raise ProtocolError("JSON document too large")
        return documents

    def close(self) -> None:
        """Take note of the end of the stream.

        Raises:
            ProtocolError: it ends inside a document.
        """
        if self._buffer.strip(b" \t\r\n\x1e"):
            raise ProtocolError("unexpected EOF in a JSON document")

    def _scan(self, position: int) -> int:
        """Run over bytes until a document ends or the buffer does; return the new position."""
        buffer = self._buffer
        for index in range(position, len(buffer)):
            byte = buffer[index]
            if self._escaped:
                self._escaped = False
            elif byte not in _INTERESTING:
                continue
            elif self._quoted:
                self._quoted = byte != _QUOTE
                self._escaped = byte == _BACKSLASH
            elif byte == _QUOTE:
                self._quoted = True
            elif byte in _OPEN:
                self._depth += 1
            elif byte in _CLOSE:
                self._depth -= 1
                if self._depth <= 0:
                    self._depth = 0
                    return index + 1
        return len(buffer)

    def _whole_lines(self) -> list[bytes] | None:
        """Split at line ends if that is certainly right: every line an object, braces balanced by count.

        Nearly every message of an engine is one line; this spares them the loop over bytes.  A string may hold
        braces, so the count can only be trusted when there is none to be counted besides one pair per level; a
        raw line break cannot be inside of a string (RFC 8259 7), so a balanced line is a document.
        """
        lines = [line for line in bytes(self._buffer).splitlines() if line.strip(b" \t\x1e")]
        for line in lines:
            if not line.startswith(b"{") or not line.endswith(b"}") or b'"' not in line:
                return None
            if line.count(b"{") != 1 or line.count(b"}") != 1:
                return None
        self._buffer.clear()
        return lines
