"""Where the milliseconds of one operation go: a debug log line with the steps' times."""

from __future__ import annotations

import logging
import time

_log = logging.getLogger("satsuma.trace")


class Trace:
    """Collects times; costs a clock reading per step, and a log line at debug level."""

    __slots__ = ("_last", "_name", "_start", "_steps", "_subject")

    def __init__(self, name: str, subject: str) -> None:
        self._name = name
        self._subject = subject
        self._start = self._last = time.perf_counter()
        self._steps: list[str] = []

    def step(self, name: str) -> None:
        """Note that the step *name* ends now."""
        now = time.perf_counter()
        self._steps.append(f"{name}={(now - self._last) * 1000:.2f}")
        self._last = now

    def end(self) -> None:
        """Write the line."""
        if _log.isEnabledFor(logging.DEBUG):
            total = (time.perf_counter() - self._start) * 1000
            _log.debug("%s %s ms=%.2f %s", self._name, self._subject[:12], total, " ".join(self._steps))
