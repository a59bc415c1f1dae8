"""Moments of one start, on the monotonic clock that all processes share: where the milliseconds go.

Off as a rule; then a mark costs one comparison.  The daemon asks a monitor to begin with its launch request, the
process on its way into the container inherits the list and sends its part back.
"""

from __future__ import annotations

import time

_marks: list[tuple[str, int]] | None = None


def begin() -> None:
    """Start collecting, with the present moment."""
    global _marks
    _marks = [("begin", time.monotonic_ns())]


def mark(name: str) -> None:
    """Note that what *name* says has just been done."""
    if _marks is not None:
        _marks.append((name, time.monotonic_ns()))


def encode() -> bytes:
    """Return the marks as lines of text for another process; nothing when off."""
    if _marks is None:
        return b""
    return "".join(f"{name} {moment}\n" for name, moment in _marks).encode()


def adopt(text: bytes) -> None:
    """Go on with the list of a process that inherited ours."""
    global _marks
    if _marks is not None and text:
        pairs = (line.rsplit(" ", 1) for line in text.decode().splitlines())
        _marks = [(name, int(moment)) for name, moment in pairs]


def take() -> list[tuple[str, int]]:
    """Return what was collected, and stop."""
    global _marks
    taken, _marks = _marks or [], None
    return taken
