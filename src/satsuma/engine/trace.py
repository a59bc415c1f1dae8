"""Where the milliseconds of one operation go: a debug log line with the steps' times, or a client's explanation."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

_log = logging.getLogger("satsuma.trace")


class Trace:
    """Collects times; costs a clock reading per step, and a log line at debug level."""

    __slots__ = ("_last", "_name", "_start", "_steps", "_subject", "wanted")

    def __init__(self, name: str, subject: str) -> None:
        self.wanted = _log.isEnabledFor(logging.DEBUG)
        self._name = name
        self._subject = subject
        self._start = self._last = time.monotonic_ns()
        self._steps: list[tuple[str, int, int]] = []

    def step(self, name: str) -> None:
        """Note that the step *name* ends now."""
        self._ended(name, time.monotonic_ns())

    def marks(self, marks: Iterable[tuple[str, int]]) -> None:
        """Add steps that another process noted."""
        for name, moment in marks:
            self._ended(name, moment)

    def _ended(self, name: str, moment: int) -> None:
        self._steps.append((name, self._last, moment))
        self._last = moment

    def spans(self) -> list[tuple[str, int, int]]:
        """Return (name, start, end) of each step, in nanoseconds of the monotonic clock."""
        return list(self._steps)

    def end(self) -> None:
        """Write the line."""
        if self.wanted:
            total = (time.monotonic_ns() - self._start) / 1e6
            steps = " ".join(f"{name}={(end - start) / 1e6:.2f}" for name, start, end in self._steps)
            _log.debug("%s %s ms=%.2f %s", self._name, self._subject[:12], total, steps)
