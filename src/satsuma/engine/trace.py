"""Where the milliseconds of one operation go: a debug log line with the steps' times, or a client's explanation."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

_log = logging.getLogger("satsuma.trace")


class Trace:
    """Collects times; costs a clock reading per step, and a log line at debug level."""

    __slots__ = ("_last", "_name", "_rows", "_start", "_steps", "_subject", "wanted")

    def __init__(self, name: str, subject: str) -> None:
        self.wanted = _log.isEnabledFor(logging.DEBUG)
        self._name = name
        self._subject = subject
        self._start = self._last = time.monotonic_ns()
        self._steps: list[tuple[str, int, int]] = []
        self._rows: Sequence[Sequence[Any]] = ()

    def since(self, wall_ns: int) -> None:
        """Begin at a moment in the past, which somebody else has read on the wall clock."""
        self._start = self._last = min(self._start, self._start - (time.time_ns() - wall_ns))

    def step(self, name: str) -> None:
        """Note that the step *name* ends now."""
        now = time.monotonic_ns()
        self._steps.append((name, self._last, now))
        self._last = now

    def add_rows(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add what monitor and runtime did meanwhile, as rows of `runtime.trace`: for the log line only."""
        self._rows = rows

    def spans(self) -> list[tuple[str, int, int]]:
        """Return (name, start, end) of each step, in nanoseconds of the monotonic clock."""
        return list(self._steps)

    def end(self) -> None:
        """Write the line: each step with the milliseconds from the end of the step before to its own."""
        if not self.wanted:
            return
        ends = [(name, end) for name, _, end in self._steps]
        ends += [(row[1], row[3] + row[4]) for row in self._rows]
        ends.sort(key=lambda item: item[1])
        last, words = self._start, []
        for name, end in ends:
            words.append(f"{name}={(end - last) / 1e6:.2f}")
            last = end
        now = time.monotonic_ns()
        total = (now - self._start) / 1e6
        _log.debug("%s %s ms=%.2f at=%d %s", self._name, self._subject[:12], total, now, " ".join(words))
