"""WebSocket frames and handshake, as much as `attach/ws` needs; no sockets.

Messages are not put together: attach is a byte stream, so every data frame is handed out as it comes.

Source: RFC 6455.
"""

from __future__ import annotations

import base64
import hashlib

TEXT = 1
BINARY = 2
CLOSE = 8
PING = 9
PONG = 10
_CONTINUATION = 0

MAX_FRAME = 16 << 20
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class ProtocolError(Exception):
    """The peer breaks RFC 6455."""


def accept_key(key: str) -> str:
    """Return `Sec-WebSocket-Accept` for the client's `Sec-WebSocket-Key`.

    Raises:
        ProtocolError: the key is not 16 bytes in base64.
    """
    try:
        raw = base64.b64decode(key, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise ProtocolError("bad Sec-WebSocket-Key")
    return base64.b64encode(
        hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    ).decode()


def encode(opcode: int, data: bytes, *, mask: bytes | None = None) -> bytes:
    """Return one final frame; clients must give a four-byte *mask*, servers none."""
    size = len(data)
    flag = 0x80 if mask is not None else 0
    if size < 126:
        head = bytes((0x80 | opcode, flag | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, flag | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, flag | 127)) + size.to_bytes(8, "big")
    if mask is None:
        return head + data
    return head + mask + apply_mask(data, mask)


def apply_mask(data: bytes, mask: bytes) -> bytes:
    """Return *data* XOR the repeated four-byte *mask* (its own inverse)."""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


class Decoder:
    """Takes frames out of bytes that arrive in any pieces; a server wants them masked."""

    __slots__ = ("_buffer", "_fragmented", "_masked")

    def __init__(self, *, masked: bool = True) -> None:
        self._buffer = bytearray()
        self._masked = masked
        self._fragmented = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return (opcode, payload) of the frames that *data* completes; a continuation has its first opcode.

        Raises:
            ProtocolError: reserved bits or opcodes, wrong masking, fragments out of order, too large.
        """
        self._buffer += data
        frames = []
        while (frame := self._take()) is not None:
            frames.append(frame)
        return frames

    def _take(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, size = buffer[0], buffer[1] & 0x7F
        if bool(buffer[1] & 0x80) != self._masked:
            raise ProtocolError("frame with wrong masking")
        position = 2
        if size >= 126:
            position = 4 if size == 126 else 10
            if len(buffer) < position:
                return None
            size = int.from_bytes(buffer[2:position], "big")
        if size > MAX_FRAME:
            raise ProtocolError("frame too large")
        opcode = self._check(first & 0x0F, final=bool(first & 0x80), reserved=first & 0x70, size=size)
        start = position + (4 if self._masked else 0)
        if len(buffer) < start + size:
            return None
        payload = bytes(buffer[start : start + size])
        if self._masked:
            payload = apply_mask(payload, bytes(buffer[position:start]))
        del buffer[: start + size]
        if opcode < CLOSE:
            self._fragmented = 0 if first & 0x80 else opcode
        return opcode, payload

    def _check(self, opcode: int, *, final: bool, reserved: int, size: int) -> int:
        if reserved or opcode not in (_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise ProtocolError("reserved bits or opcode")
        if opcode >= CLOSE:
            if not final or size > 125:
                raise ProtocolError("fragmented or long control frame")
            return opcode
        if (opcode == _CONTINUATION) != bool(self._fragmented):
            raise ProtocolError("fragments out of order")
        return opcode or self._fragmented
