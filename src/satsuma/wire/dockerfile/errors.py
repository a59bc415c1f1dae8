"""The one error of this package, and the suggestions that go with unknown words."""

from __future__ import annotations

from collections.abc import Iterable

from satsuma.base.errors import InvalidParameter

__all__ = ["DockerfileError", "did_you_mean"]

# A word further away than this many edits is another word, not a slip.
_MAX_EDITS = 2


class DockerfileError(InvalidParameter):
    """The Dockerfile says something that cannot be; the lines are 1-based and inclusive, 0 where unknown."""

    def __init__(self, message: str, first_line: int = 0, last_line: int = 0) -> None:
        super().__init__(message)
        self.first_line = first_line
        self.last_line = last_line or first_line


def did_you_mean(word: str, options: Iterable[str], *, case_sensitive: bool) -> str:
    """Return ` (did you mean X?)` for the option nearest to *word*, or an empty string."""
    wanted = word if case_sensitive else word.lower()
    best, best_edits = "", _MAX_EDITS + 1
    for option in sorted(options):
        candidate = option if case_sensitive else option.lower()
        if candidate == wanted:
            return ""
        edits = _edits(wanted, candidate)
        if edits < best_edits:
            best, best_edits = candidate, edits
    if not best:
        return ""
    if not case_sensitive:
        best = best.upper() if word == word.upper() and word != word.lower() else best
    return f" (did you mean {best}?)"


def _edits(left: str, right: str) -> int:
    """Return the Levenshtein distance, or a large number when it is plainly too large."""
    if abs(len(left) - len(right)) > _MAX_EDITS:
        return _MAX_EDITS + 1
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
