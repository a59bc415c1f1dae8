"""The terminal: raw mode with a way back, its size, detach keys.

Source: termios(3), tty_ioctl(4); moby/term for the flags of raw mode.
"""

from __future__ import annotations

import os
import sys
import termios

from satsuma.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


class RawMode:
    """Raw mode of the terminal on standard input, for the time of a `with` block."""

    def __init__(self, *, wanted: bool) -> None:
        self._saved: list[Any] | None = None
        self._wanted = wanted and os.isatty(0)

    def __enter__(self) -> RawMode:
        if self._wanted:
            self._saved = termios.tcgetattr(0)
            mode = termios.tcgetattr(0)
            mode[0] &= ~(
                termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
                | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
            )  # fmt: skip
            mode[1] &= ~termios.OPOST
            mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
            mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
            mode[6][termios.VMIN] = 1
            mode[6][termios.VTIME] = 0
            termios.tcsetattr(0, termios.TCSANOW, mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSANOW, self._saved)


def window_size() -> tuple[int, int]:
    """Return height and width of the terminal on standard output; zeros without one."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return 0, 0
    return size.lines, size.columns


def check_tty(*, stdin: bool, tty: bool) -> None:
    """Refuse `-it` where standard input is no terminal.

    Raises:
        CliError: in docker's words.
    """
    if tty and stdin and not os.isatty(0):
        raise CliError("the input device is not a TTY")


def is_terminal(fd: int) -> bool:
    """Tell whether a descriptor is a terminal."""
    return os.isatty(fd)


def colour_wanted() -> bool:
    """Tell whether standard output takes colours."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_detach_keys(text: str) -> bytes:
    """Return the bytes of `ctrl-p,ctrl-q`.

    Raises:
        CliError: a key that is none.
    """
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            keys += key.encode()
            continue
        prefix, _, letter = key.partition("-")
        if prefix != "ctrl" or len(letter) != 1:
            raise CliError(f"invalid detach keys ({text}): Unknown character: '{key}'")
        if "a" <= letter <= "z":
            keys.append(ord(letter) - 96)
        elif letter in _CONTROL:
            keys.append(_CONTROL[letter])
        else:
            raise CliError(f"invalid detach keys ({text}): Unknown character: '{key}'")
    return bytes(keys)


class DetachDetector:
    """Finds the detach keys in what is typed; bytes that may begin them are held back until it is clear."""

    def __init__(self, keys: bytes) -> None:
        self.keys = keys
        self.matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return the bytes to pass on, and whether the keys are complete."""
        if not self.keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self.keys[self.matched]:
                self.matched += 1
                if self.matched == len(self.keys):
                    self.matched = 0
                    return bytes(out), True
                continue
            if self.matched:
                out += self.keys[: self.matched]
                self.matched = 0
                if byte == self.keys[0]:
                    self.matched = 1
                    continue
            out.append(byte)
        return bytes(out), False
