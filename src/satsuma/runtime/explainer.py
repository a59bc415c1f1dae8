"""The steps of `run --explain`, `exec --explain` and `plan` of `satsuma-oci` on paper.

On standard error, because standard output is the container's.
"""

from __future__ import annotations

import os

from satsuma.runtime import explain
from satsuma.runtime.trace import INSIDE, OUTSIDE, Trace
from satsuma.wire.steps import Drawer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from satsuma.runtime.plan import Plan

_TITLES = {
    OUTSIDE: "the runtime, on the host",
    INSIDE: "the new process, on its way to be the container's program",
}


def _drawer(fd: int) -> Drawer:
    width = 100
    terminal = os.isatty(fd)
    if terminal:
        width = os.get_terminal_size(fd).columns or width
    return Drawer(_TITLES, width, colour=terminal and not os.environ.get("NO_COLOR"))


def _write(fd: int, lines: list[str]) -> None:
    data = memoryview("".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace"))
    while data:
        data = data[os.write(fd, data) :]


def print_plan(plan: Plan) -> None:
    """Print what would be done."""
    drawer = _drawer(1)
    steps = explain.planned(plan)
    _write(1, [*drawer.heading(), *drawer.draw(steps), *(f"warning: {text}" for text in plan.warnings)])


class Explainer:
    """Prints the steps of a start as they are done; steps that take long do not hold up those before them."""

    __slots__ = ("_drawer", "_shown", "_words", "trace")

    def __init__(self, words: Mapping[str, tuple[str, str]] | None = None) -> None:
        """
        Args:
            words: for `explain.document`.
        """
        self._words = words
        self.trace = Trace()
        self.trace.on_progress = self._show
        self._drawer = _drawer(2)
        self._shown: list[dict[str, Any]] = []
        _write(2, self._drawer.heading())

    def _show(self) -> None:
        steps = explain.document(self.trace.rows(), self._words)
        fresh = steps[len(self._shown) :]
        _write(2, self._drawer.draw(fresh))
        self._shown += fresh

    def started(self) -> None:
        """Print the rest; the program runs."""
        self.trace.end()
        self._show()
        _write(2, [self._drawer.total(self._shown)])

    def failed(self) -> None:
        """Print how far it came."""
        self.trace.end(failed=True)
        self._show()

    def ended(self) -> None:
        """Print what was done after the end of the program."""
        self.trace.rest()
        self._show()
