"""Command line flags as Go's `urfave/cli` reads them: -flag and --flag, "--flag v" and "--flag=v".

`argparse` costs 10 ms, and it abbreviates; unknown flags are errors here.
"""

from __future__ import annotations

from satsuma.runtime.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class UsageError(RuntimeFailure):
    """The command line cannot be understood.

    Attributes:
        count: only the number of arguments is wrong.
    """

    def __init__(self, message: str, *, count: bool = False) -> None:
        super().__init__(message)
        self.count = count


class Flags:
    """Names, kinds and aliases of the flags of one command.

    Written as "name,alias:kind"; the kinds are bool, str, int, list and ints (which may be repeated).
    """

    __slots__ = ("_kinds", "_names")

    def __init__(self, text: str) -> None:
        self._names: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        for word in text.split():
            names, _, kind = word.partition(":")
            first = names.split(",")[0]
            self._kinds[first] = kind or "bool"
            for name in names.split(","):
                self._names[name] = first

    def listed(self) -> list[tuple[str, str, list[str]]]:
        """Return (name, kind, aliases) of each flag."""
        return [
            (name, kind, [alias for alias, first in self._names.items() if first == name and alias != name])
            for name, kind in self._kinds.items()
        ]

    def parse(self, args: list[str], *, stop_at_positional: bool = True) -> tuple[dict[str, Any], list[str]]:
        """Return ({flag: value}, the other arguments).

        Raises:
            UsageError: an unknown flag or a missing or wrong value.
        """
        values: dict[str, Any] = {}
        rest = list(args)
        positional: list[str] = []
        while rest:
            word = rest.pop(0)
            if word == "--":
                return values, positional + rest
            if not word.startswith("-") or word == "-":
                if stop_at_positional:
                    return values, [word, *rest]
                positional.append(word)
                continue
            self._take(word, rest, values)
        return values, positional

    def _take(self, word: str, rest: list[str], values: dict[str, Any]) -> None:
        name, equals, value = word.lstrip("-").partition("=")
        flag = self._names.get(name)
        if flag is None:
            raise UsageError(f"flag provided but not defined: -{name}")
        kind = self._kinds[flag]
        if kind == "bool":
            if equals and value not in ("true", "false", "1", "0"):
                raise UsageError(f'invalid boolean value "{value}" for -{name}')
            values[flag] = value not in ("false", "0")
            return
        if not equals:
            if not rest:
                raise UsageError(f"flag needs an argument: -{name}")
            value = rest.pop(0)
        if kind in ("int", "ints"):
            number = _integer(name, value)
            if kind == "int":
                values[flag] = number
            else:
                values.setdefault(flag, []).append(number)
        elif kind == "list":
            values.setdefault(flag, []).append(value)
        else:
            values[flag] = value


def _integer(name: str, value: str) -> int:
    digits = value[1:] if value.startswith("-") else value
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise UsageError(f'invalid value "{value}" for flag -{name}: parse error')
    return int(value)
