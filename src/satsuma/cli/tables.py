"""Columns of text, aligned as Go's text/tabwriter aligns docker's tables.

A cell ends with a tab; a column is a run of lines that have a cell there; it is as wide as its widest cell and three
blanks, at least ten.  The last text of a line belongs to no column.

Source: pkg.go.dev/text/tabwriter with minwidth 10, padding 3.
"""

from __future__ import annotations

MIN_WIDTH = 10
PADDING = 3


def align(text: str, *, minimum: int = MIN_WIDTH, padding: int = PADDING) -> str:
    """Return *text* with its tabs turned to columns."""
    lines = [line.split("\t") for line in text.split("\n")]
    widths: list[list[int]] = [[0] * len(line) for line in lines]
    _measure(lines, widths, 0, len(lines), 0, minimum, padding)
    out = []
    for line, columns in zip(lines, widths, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(line[:-1], columns[:-1], strict=True)]
        out.append("".join(cells) + line[-1])
    return "\n".join(out)


def _measure(
    lines: list[list[str]],
    widths: list[list[int]],
    first: int,
    last: int,
    column: int,
    minimum: int,
    padding: int,
) -> None:
    """Find the widths of *column* and of those to its right, for the lines from *first* to before *last*."""
    index = first
    while index < last:
        if column >= len(lines[index]) - 1:
            index += 1
            continue
        end = index
        width = minimum
        while end < last and column < len(lines[end]) - 1:
            width = max(width, len(lines[end][column]) + padding)
            end += 1
        for line in range(index, end):
            widths[line][column] = width
        _measure(lines, widths, index, end, column + 1, minimum, padding)
        index = end
