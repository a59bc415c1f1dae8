"""The document of `--explain`: what was done to start a container, step by step, and its form on paper.

    {"Steps": [{"Process": "init", "Step": "pivot_root", "Arguments": "…", "Reason": "…",
                "Start": 4711000, "Duration": 61000, "Failed": false}, …]}

Start and Duration are nanoseconds; Start counts from the first step.  Duration is null in a plan that was not
carried out.

Pure; imports nothing, because programs with an import budget draw it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_TIME, _NAME = 9, 17
_INDENT = " " * (_TIME + _NAME + 4)
_BOLD, _DIM, _RED, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"


class Drawer:
    """Turns steps into lines, also piece by piece as they are done.

    Args:
        titles: process -> what to call it in a heading.
        width: of the paper.
        colour: use the terminal's attributes.
    """

    def __init__(self, titles: Mapping[str, str], width: int = 100, *, colour: bool = False) -> None:
        self._titles = titles
        self._width = max(width, len(_INDENT) + 30)
        self._colour = colour
        self._process = ""

    def heading(self) -> list[str]:
        """Return the names of the columns."""
        return [self._paint(f"{'µs':>{_TIME}}  {'step':<{_NAME}}  on what, and why", _DIM)]

    def draw(self, steps: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the lines for the next steps."""
        lines: list[str] = []
        for step in steps:
            if step["Process"] != self._process:
                self._process = step["Process"]
                title = self._titles.get(self._process, self._process)
                lines.append(self._paint(f"{'':{_TIME}}  -- {title} --", _BOLD))
            lines += self._step(step)
        return lines

    def _step(self, step: Mapping[str, Any]) -> list[str]:
        took = step["Duration"]
        time = "" if took is None else f"{took / 1000:.0f}"
        name = self._paint(f"{step['Step']:<{_NAME}}", _BOLD)
        room = self._width - len(_INDENT)
        arguments = wrap(step["Arguments"], room) or [""]
        lines = [f"{time:>{_TIME}}  {name}  {arguments[0]}".rstrip()]
        lines += [_INDENT + more for more in arguments[1:]]
        if step.get("Failed"):
            lines.append(_INDENT + self._paint("failed here", _RED))
        lines += [_INDENT + self._paint("# " + text, _DIM) for text in wrap(step["Reason"], room - 2)]
        return lines

    def total(self, steps: Sequence[Mapping[str, Any]]) -> str:
        """Return the line below all steps."""
        end = max((step["Start"] + (step["Duration"] or 0) for step in steps), default=0)
        return f"{end / 1000:>{_TIME}.0f}  in all, {len(steps)} steps"

    def _paint(self, text: str, style: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._colour else text


def wrap(text: str, width: int) -> list[str]:
    """Break *text* at spaces; a longer word has a line of its own.  Control characters are made visible."""
    safe = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    lines: list[str] = []
    for word in safe.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines
