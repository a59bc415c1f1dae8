"""The wire format of protocol buffers, as far as anything here needs it: numbers and byte strings.

Source: protobuf.dev "Encoding".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def varint(value: int) -> bytes:
    """Return a number from 0 to 2**64-1 as a varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """Return a field that holds a number; a negative one as its 64-bit complement."""
    return varint(number << 3) + varint(value & 0xFFFFFFFFFFFFFFFF)


def bytes_field(number: int, data: bytes) -> bytes:
    """Return a field that holds bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a message.

    Raises:
        ValueError: it ends too early, or has a value of another kind.
    """
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        if key & 7 == 0:
            value, position = _read_varint(data, position)
            yield key >> 3, value
        elif key & 7 == 2:
            size, position = _read_varint(data, position)
            if position + size > len(data):
                raise ValueError("field is longer than its message")
            yield key >> 3, data[position : position + size]
            position += size
        else:
            raise ValueError("unknown wire type")


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift <= 63:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("varint is too long")
