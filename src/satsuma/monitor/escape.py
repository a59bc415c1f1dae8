"""The detach keys: a sequence of bytes from a terminal that ends the attachment and not the container.

Behaves like the escape proxy of moby/term: a started sequence is held back; when the next byte breaks it,
the held bytes and that byte go on to the container, and the byte does not start a new sequence.
"""

from __future__ import annotations

DEFAULT = b"\x10\x11"
"""ctrl-p ctrl-q."""


class DetachKeys:
    """Recognises one sequence in a stream that arrives in any pieces."""

    __slots__ = ("_keys", "_matched")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what goes on to the container, and whether the sequence is complete.

        Bytes behind a complete sequence are dropped: their sender has left.
        """
        keys = self._keys
        if not keys or (not self._matched and keys[0] not in data):
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == keys[self._matched]:
                self._matched += 1
                if self._matched == len(keys):
                    self._matched = 0
                    return bytes(passed), True
            else:
                passed += keys[: self._matched]
                passed.append(byte)
                self._matched = 0
        return bytes(passed), False

    def flush(self) -> bytes:
        """Return the bytes that are still held back, when the stream has ended."""
        held = self._keys[: self._matched]
        self._matched = 0
        return held
