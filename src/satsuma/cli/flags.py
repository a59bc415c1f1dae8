"""Flags of one command: the table's lines to values, in the dialect of Go's pflag.

Owns the syntax: `--name=value`, `--name value`, clusters such as `-it`, `--flag=false`, flags after arguments, `--`.
What a value may be is in `cli.values`.

Source: behaviour of spf13/pflag as docker uses it, measured on docker 28.2.
"""

from __future__ import annotations

from satsuma.cli.errors import FlagError, HelpWanted
from satsuma.cli.flagtable import ABBREVIATIONS
from satsuma.wire.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MULTIPLE = frozenset({"list", "strings", "mount", "network", "gpu-request", "filter"})
"""Types whose values pile up in a list."""
MAPPING = frozenset({"map", "stringToString", "ulimit"})
"""Types whose values pile up in a dictionary."""


class Flag:
    """One line of the table."""

    __slots__ = ("default", "help", "hidden", "kind", "letter", "name", "rule")

    def __init__(self, line: str) -> None:
        self.hidden = line.startswith("!")
        self.letter, self.name, kind, text = line.removeprefix("!").split("|", 3)
        self.kind, _, self.rule = kind.partition(":")
        self.help = ABBREVIATIONS.get(text, text).replace("\\n", "\n")
        self.default = _default(self.kind, self.help)

    def label(self) -> str:
        """Return the flag as error texts name it: `-m, --memory`."""
        return f"-{self.letter}, --{self.name}" if self.letter else f"--{self.name}"


def _default(kind: str, text: str) -> Any:
    """Read the default out of the help text, where docker writes it: `(default "missing")`."""
    if kind in MULTIPLE or kind in MAPPING:
        return None
    _, found, rest = text.rpartition("(default ")
    value = rest.removesuffix(")").strip('"') if found and rest.endswith(")") else ""
    if kind == "bool":
        return value == "true"
    if kind in ("int", "uint", "uint16"):
        return int(value or 0)
    if kind in ("bytes", "decimal", "duration"):
        return 0
    return value


class Flags:
    """What was given on the command line."""

    __slots__ = ("args", "changed", "notices", "values")

    def __init__(self, table: list[Flag]) -> None:
        self.values: dict[str, Any] = {}
        for flag in table:
            self.values[flag.name] = _empty(flag)
        self.changed: set[str] = set()
        self.args: list[str] = []
        self.notices: list[str] = []

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a flag that this command may not have."""
        return self.values.get(name, default)


def _empty(flag: Flag) -> Any:
    if flag.kind in MULTIPLE:
        return []
    return {} if flag.kind in MAPPING else flag.default


def read_table(text: str) -> list[Flag]:
    """Parse the lines of a command, visible and hidden flags alike."""
    return [Flag(line) for line in text.split("\n") if line]


class Parser:
    """Parses one command line against a table."""

    def __init__(self, table: list[Flag], *, stop_at_argument: bool = False) -> None:
        self.table = table
        self.by_name = {flag.name: flag for flag in table}
        self.by_letter = {flag.letter: flag for flag in table if flag.letter}
        self.stop = stop_at_argument
        self.flags = Flags(table)

    def parse(self, argv: list[str]) -> Flags:
        """Return flags and arguments.

        Raises:
            FlagError: in pflag's words.
            HelpWanted: `--help`, or `-h` where that letter is free.
        """
        rest = list(argv)
        want_help = False
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.flags.args += rest
                break
            if word.startswith("--"):
                want_help |= self._long(word, rest)
            elif word.startswith("-") and word != "-":
                want_help |= self._cluster(word, rest)
            elif self.stop:
                self.flags.args += [word, *rest]
                break
            else:
                self.flags.args.append(word)
        if want_help:
            raise HelpWanted
        return self.flags

    def _long(self, word: str, rest: list[str]) -> bool:
        name, equals, value = word[2:].partition("=")
        if not name or name.startswith("-"):
            raise FlagError(f"bad flag syntax: {word}")
        flag = self.by_name.get(name)
        if name == "help" and (flag is None or flag.kind == "bool"):
            return not equals or parse_bool(value, "--help")
        if flag is None:
            raise FlagError(f"unknown flag: --{name}")
        if not equals:
            if flag.kind == "bool":
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise FlagError(f"flag needs an argument: {word}")
        self._set(flag, value)
        return False

    def _cluster(self, word: str, rest: list[str]) -> bool:
        letters = word[1:]
        want_help = False
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self.by_letter.get(letter)
            if flag is None and letter == "h":
                self.flags.notices.append("Flag shorthand -h has been deprecated, use --help")
                want_help = True
                continue
            if flag is None:
                raise FlagError(f"unknown shorthand flag: {letter!r} in -{letter}{letters}")
            if letters.startswith("=") and len(letters) > 1:
                value, letters = letters[1:], ""
            elif flag.kind == "bool":
                value = "true"
            elif letters:
                value, letters = letters, ""
            elif rest:
                value = rest.pop(0)
            else:
                raise FlagError(f"flag needs an argument: {letter!r} in {word}")
            self._set(flag, value)
        return want_help

    def _set(self, flag: Flag, text: str) -> None:
        from satsuma.cli.values import convert

        flags = self.flags
        try:
            if flag.kind == "bool":
                value: Any = parse_bool(text, flag.label())
            elif flag.kind == "string" and not flag.rule:
                value = text
            else:
                value = convert(flag.kind, flag.rule, text)
        except ValueError as error:
            raise FlagError(f'invalid argument {quote(text)} for "{flag.label()}" flag: {error}') from None
        if flag.kind == "strings":
            flags.values[flag.name] += value
        elif flag.kind in MULTIPLE:
            if value is not None:
                flags.values[flag.name].append(value)
        elif flag.kind in MAPPING:
            flags.values[flag.name].update(value)
        else:
            flags.values[flag.name] = value
        flags.changed.add(flag.name)
        _, found, note = flag.help.rpartition("(deprecated: ")
        if found:
            flags.notices.append(f"Flag --{flag.name} has been deprecated, {note.removesuffix(')')} instead")


def parse_bool(text: str, label: str) -> bool:
    """Parse a boolean as Go's strconv does.

    Raises:
        FlagError: anything else than 1, t, T, TRUE, true, True and their opposites.
    """
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise FlagError(
        f'invalid argument {quote(text)} for "{label}" flag: '
        f"strconv.ParseBool: parsing {quote(text)}: invalid syntax"
    )
