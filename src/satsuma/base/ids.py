"""Ids and digests, and types that keep them from being swapped."""

from __future__ import annotations

import hashlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NewType

    ContainerId = NewType("ContainerId", str)
    ImageId = NewType("ImageId", str)
    Digest = NewType("Digest", str)
    ChainId = NewType("ChainId", str)
else:  # plain strings at run time: `typing` costs 11 ms of import
    ContainerId = ImageId = Digest = ChainId = str

SHORT_LENGTH = 12
_HEX = frozenset("0123456789abcdef")


def new_id() -> str:
    """Return a fresh 256-bit id, 64 lower-case hex digits, never all digits in its short form.

    An id whose first twelve characters are all digits could be taken for a number, as a hostname among
    other places; Docker draws again too.
    """
    while True:
        fresh = os.urandom(32).hex()
        if not fresh[:SHORT_LENGTH].isdigit():
            return fresh


def short_id(identifier: str) -> str:
    """Return the twelve hex digits that people see, without an algorithm prefix."""
    return identifier.rpartition(":")[2][:SHORT_LENGTH]


def is_hex_id(text: str) -> bool:
    """Tell whether *text* is a full id of 64 hex digits."""
    return len(text) == 64 and _HEX.issuperset(text)


def is_digest(text: str) -> bool:
    """Tell whether *text* is `sha256:<64 hex>`, the one digest form the engine makes."""
    return text.startswith("sha256:") and is_hex_id(text[7:])


def sha256_digest(data: bytes) -> Digest:
    """Return the digest of exactly these bytes."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
