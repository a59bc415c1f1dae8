"""Boxes of text for the terminal: rows of styled pieces, stacked sections, two boxes side by side.

Owns widths, borders and colours; what stands in the boxes is the caller's.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Piece = tuple[str, str]
    """Text and its style."""

_STYLES = {
    "title": "1;36",
    "strong": "1",
    "dim": "2",
    "good": "32",
    "note": "33",
    "bad": "1;31",
    "value": "36",
}
_UNICODE = {"h": "─", "v": "│", "tl": "┌", "tr": "┐", "bl": "└", "br": "┘", "ml": "├", "mr": "┤"}
_ASCII = {"h": "-", "v": "|", "tl": "+", "tr": "+", "bl": "+", "br": "+", "ml": "+", "mr": "+"}


class Row:
    """One line of a box: pieces from the left, pieces from the right."""

    __slots__ = ("left", "right")

    def __init__(self, *left: Piece | str, right: Sequence[Piece | str] = ()) -> None:
        self.left = [_piece(item) for item in left]
        self.right = [_piece(item) for item in right]


class Section:
    """A part of a box with a title in the line above it."""

    __slots__ = ("note", "rows", "title")

    def __init__(self, title: str, rows: Sequence[Row], note: str = "") -> None:
        self.title = title
        self.rows = list(rows)
        self.note = note
        """Stands at the right end of the title line."""


def _piece(item: Piece | str) -> Piece:
    return (item, "") if isinstance(item, str) else item


class Painter:
    """Draws for one output: as wide as it is, in colour if it takes it, in plain letters if it must."""

    def __init__(self, *, width: int, colour: bool, unicode: bool) -> None:
        self.width = width
        self.colour = colour
        self.lines = _UNICODE if unicode else _ASCII
        self.dots = "…" if unicode else "~"
        self.full, self.empty = ("█", "░") if unicode else ("#", ".")
        self.branch, self.last = ("├─ ", "└─ ") if unicode else ("|- ", "`- ")

    @classmethod
    def for_output(cls) -> Painter:
        """Return the painter for standard output."""
        from satsuma.cli.terminal import colour_wanted

        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = int(os.environ.get("COLUMNS") or 0) or 92
        encoding = (sys.stdout.encoding or "").lower().replace("-", "")
        return cls(
            width=max(56, min(columns, 120)), colour=colour_wanted(), unicode=encoding.startswith("utf")
        )

    def paint(self, text: str, style: str) -> str:
        """Return *text* in a style."""
        code = _STYLES.get(style)
        return f"\033[{code}m{text}\033[0m" if code and self.colour and text else text

    def bar(self, used: float, limit: float, size: int = 12) -> str:
        """Return a bar for how much of a limit is used."""
        filled = min(size, round(used / limit * size)) if limit > 0 else 0
        if used > 0 and not filled:
            filled = 1
        return self.full * filled + self.empty * (size - filled)

    def _fit(self, pieces: list[Piece], width: int) -> tuple[str, int]:
        """Return the pieces cut to *width*, painted, and how many columns they take."""
        out, used = [], 0
        for text, style in pieces:
            room = width - used
            if len(text) > room:
                text = text[: max(0, room - 1)] + self.dots if room > 0 else ""
            out.append(self.paint(text, style))
            used += len(text)
            if used >= width:
                break
        return "".join(out), used

    def _row(self, row: Row, width: int) -> str:
        side = self.paint(self.lines["v"], "dim")
        inner = width - 4
        right, right_width = self._fit(row.right, inner)
        left, left_width = self._fit(row.left, inner - right_width - (1 if right_width else 0))
        gap = " " * (inner - left_width - right_width)
        return f"{side} {left}{gap}{right} {side}"

    def _edge(self, left: str, right: str, width: int, section: Section | None) -> str:
        line = self.lines["h"]
        if section is None or not section.title:
            return self.paint(left + line * (width - 2) + right, "dim")
        room = width - 6
        note = f" {section.note} " if section.note else ""
        title = section.title[: max(0, room - len(note) - 2)]
        fill = line * max(0, room - len(title) - len(note))
        return (
            self.paint(f"{left}{line} ", "dim")
            + self.paint(title, "title")
            + self.paint(f" {fill}", "dim")
            + self.paint(note, "strong")
            + self.paint(f"{line}{right}", "dim")
        )

    def box(self, sections: Sequence[Section], *, width: int = 0, height: int = 0) -> list[str]:
        """Return the lines of a box whose sections stand on each other.

        Args:
            sections: from the top.
            width: columns; the painter's own without it.
            height: fill up to so many lines.
        """
        width = width or self.width
        names = self.lines
        lines: list[str] = []
        for index, section in enumerate(sections):
            left, right = (names["tl"], names["tr"]) if index == 0 else (names["ml"], names["mr"])
            lines.append(self._edge(left, right, width, section))
            lines += [self._row(row, width) for row in section.rows]
        while len(lines) < height - 1:
            lines.append(self._row(Row(), width))
        lines.append(self._edge(names["bl"], names["br"], width, None))
        return lines

    def beside(self, one: Sequence[Section], other: Sequence[Section]) -> list[str]:
        """Return two boxes side by side, or one above the other where there is no room."""
        if self.width < 88:
            return self.box(one) + self.box(other)
        left = (self.width - 1) // 2
        height = max(sum(len(section.rows) + 1 for section in box) + 1 for box in (one, other))
        pairs = zip(
            self.box(one, width=left, height=height),
            self.box(other, width=self.width - 1 - left, height=height),
            strict=True,
        )
        return [f"{a} {b}" for a, b in pairs]

    def wrap(self, words: Sequence[str], width: int, separator: str = " ") -> list[str]:
        """Return words joined to lines of at most *width* columns."""
        lines: list[str] = []
        for word in words:
            if lines and len(lines[-1]) + len(separator) + len(word) <= width:
                lines[-1] += separator + word
            else:
                lines.append(word)
        return lines

    def tail(self, path: str, width: int) -> str:
        """Return a path shortened from its front, because its end tells more."""
        return path if len(path) <= width else self.dots + path[len(path) - width + 1 :]
