"""Docker's multiplexed stream: frames of an 8-byte header and a payload.

`[stream, 0, 0, 0, length as big-endian uint32] payload`; streams are 0 stdin, 1 stdout, 2 stderr, 3 systemerr.

Imported by the monitor and the command line: no `typing`, `enum`, `re` at run time.

Source: Docker Engine API, "Attach to a container", stream format; moby pkg/stdcopy.
"""

from __future__ import annotations

STDIN = 0
STDOUT = 1
STDERR = 2
SYSTEMERR = 3

MAX_FRAME = 1 << 30
"""A longer length is garbage: no writer makes frames of a gigabyte."""


class ProtocolError(Exception):
    """The bytes are no stdcopy stream."""


def encode(stream: int, data: bytes) -> bytes:
    """Return *data* as one frame of *stream*."""
    return b"%c\0\0\0%b%b" % (stream, len(data).to_bytes(4, "big"), data)


def header(stream: int, size: int) -> bytes:
    """Return the header of a frame whose payload of *size* bytes is written separately."""
    return b"%c\0\0\0%b" % (stream, size.to_bytes(4, "big"))


class Decoder:
    """Takes frames out of bytes that arrive in any pieces.

    Payloads are handed out as they arrive: a large frame comes as several (stream, bytes) pairs.
    """

    __slots__ = ("_buffer", "_remaining", "_stream")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._remaining = 0
        self._stream = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the (stream, payload) pairs that *data* completes.

        Raises:
            ProtocolError: a header names no stream, or an absurd length.
        """
        found: list[tuple[int, bytes]] = []
        buffer = self._buffer
        buffer += data
        position = 0
        while True:
            if self._remaining:
                piece = bytes(buffer[position : position + self._remaining])
                if not piece:
                    break
                found.append((self._stream, piece))
                position += len(piece)
                self._remaining -= len(piece)
            elif len(buffer) - position >= 8:
                self._parse_header(buffer[position : position + 8])
                position += 8
            else:
                break
        del buffer[:position]
        return found

    def close(self) -> None:
        """Take note of the end of the stream.

        Raises:
            ProtocolError: it ends inside a frame.
        """
        if self._buffer or self._remaining:
            raise ProtocolError("unexpected EOF in a stdcopy frame")

    def _parse_header(self, raw: bytearray) -> None:
        size = int.from_bytes(raw[4:], "big")
        if raw[0] > SYSTEMERR or any(raw[1:4]) or size > MAX_FRAME:
            raise ProtocolError(f"unrecognized stdcopy header: {bytes(raw)!r}")
        self._stream = raw[0]
        self._remaining = size
