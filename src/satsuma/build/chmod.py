"""The value of `--chmod`: octal, or the symbolic form of chmod(1).

Source: docs.docker.com/reference/dockerfile/#copy---chown---chmod; POSIX chmod.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass

from satsuma.base.errors import InvalidParameter

__all__ = ["Chmod", "parse_chmod"]

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*)+)")
_ACTION = re.compile(r"([-+=])([rwxXst]*)")
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}


@dataclass(frozen=True, slots=True)
class Chmod:
    """A change of mode: a fixed one, or (who, operator, permissions) in order."""

    fixed: int | None
    actions: tuple[tuple[int, str, str], ...] = ()

    def apply(self, mode: int) -> int:
        """Return the new permission bits of something whose `st_mode` is *mode*."""
        if self.fixed is not None:
            return self.fixed
        bits = stat.S_IMODE(mode)
        for who, operator, permissions in self.actions:
            change = self._change(permissions, bits, stat.S_ISDIR(mode)) & who
            if operator == "+":
                bits |= change
            elif operator == "-":
                bits &= ~change
            else:
                bits = bits & ~who | change
        return bits

    @staticmethod
    def _change(permissions: str, bits: int, directory: bool) -> int:
        change = 0
        for letter in permissions:
            if letter == "X":
                change |= 0o111 if directory or bits & 0o111 else 0
            elif letter == "s":
                change |= 0o6000
            elif letter == "t":
                change |= 0o1000
            else:
                change |= _BITS[letter]
        return change


def parse_chmod(text: str) -> Chmod:
    """Parse the value of `--chmod`.

    Raises:
        InvalidParameter: neither an octal number up to 7777 nor a symbolic mode.
    """
    if re.fullmatch(r"[0-7]+", text) and int(text, 8) <= 0o7777:
        return Chmod(int(text, 8))
    actions: list[tuple[int, str, str]] = []
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if not found:
            raise InvalidParameter(
                f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            )
        who = 0
        for letter in found[1] or "a":
            who |= _WHO[letter]
        actions += [(who, operator, permissions) for operator, permissions in _ACTION.findall(found[2])]
    return Chmod(None, tuple(actions))
