"""Progress streams on the terminal: lines as they come, bars where there is room for them.

Source: Docker Engine API "ImageCreate" (JSON messages); behaviour of docker 28.2.
"""

from __future__ import annotations

import os

from satsuma.base.sizes import format_size
from satsuma.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TextIO

_BAR = 50
_ROOM_FOR_BAR = 110


class Display:
    """Shows the messages of one stream."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.terminal = out.isatty()
        self.lines: dict[str, int] = {}
        """Id → how many lines of progress stood above it when it first came."""

    def show(self, message: Mapping[str, Any]) -> None:
        """Show one message.

        Raises:
            CliError: the message is the error that ends the stream.
        """
        detail = message.get("errorDetail") or {}
        error = detail.get("message") or message.get("error")
        if error:
            self.out.flush()
            # A build hands on the exit code of the command that failed.
            raise CliError(str(error), int(detail.get("code") or 1))
        identifier = message.get("id") or ""
        moves = message.get("progressDetail") or message.get("progress")
        up = 0
        if identifier and moves:
            if identifier not in self.lines:
                self.lines[identifier] = len(self.lines)
                if self.terminal:
                    self.out.write("\n")
            up = len(self.lines) - self.lines[identifier]
        elif identifier and identifier in self.lines and self.terminal:
            up = len(self.lines) - self.lines[identifier]
        else:
            self.lines.clear()
        if self.terminal and up:
            self.out.write(f"\033[{up}A")
        self._line(message, identifier)
        if self.terminal and up:
            self.out.write(f"\033[{up}B")
        self.out.flush()

    def _line(self, message: Mapping[str, Any], identifier: str) -> None:
        detail = message.get("progressDetail") or {}
        bar = format_progress(detail, _width(self.out) if self.terminal else 0) if detail else ""
        end = "\n"
        if self.terminal and not message.get("stream") and (detail or identifier in self.lines):
            self.out.write("\033[2K\r")
            end = "\r"
        elif bar:
            return  # bars are for terminals only
        text = f"{identifier}: " if identifier else ""
        if message.get("from"):
            text += f"(from {message['from']}) "
        if detail and self.terminal:
            text += f"{message.get('status', '')} {bar}{end}"
        elif message.get("stream"):
            text += message["stream"]
        else:
            text += f"{message.get('status', '')}{end}"
        self.out.write(text)


def _width(out: TextIO) -> int:
    try:
        return os.get_terminal_size(out.fileno()).columns
    except (OSError, ValueError):
        return 200


def format_progress(detail: Mapping[str, Any], width: int) -> str:
    """Return `[====>   ]  1.2MB/3.4MB` for what a message says of its progress."""
    current, total = detail.get("current") or 0, detail.get("total") or 0
    if current <= 0 and total <= 0:
        return ""
    units = detail.get("units") or ""

    def amount(number: int) -> str:
        return f"{number} {units}" if units else format_size(number)

    if total <= 0:
        return f"{amount(current):>8}"
    filled = min(_BAR, int(current / total * 100) // 2)
    bar = f"[{'=' * filled}>{' ' * (_BAR - filled)}] " if width > _ROOM_FOR_BAR else ""
    if detail.get("hidecounts"):
        return bar.rstrip()
    return bar + (f"{amount(current):>8}" if current > total else f"{amount(current):>8}/{amount(total)}")


def show_stream(
    messages: Iterable[Mapping[str, Any]],
    out: TextIO,
    on_aux: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Show all messages of a stream.

    Args:
        messages: as they arrive.
        out: where to.
        on_aux: gets what is for programs, not for people.
    Raises:
        CliError: the stream ends with an error.
    """
    display = Display(out)
    for message in messages:
        if message.get("aux") is not None:
            if on_aux is not None:
                on_aux(message["aux"])
            continue
        display.show(message)
