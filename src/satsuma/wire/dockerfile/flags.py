"""The `--flag[=value]` words of an instruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from satsuma.wire.dockerfile.errors import DockerfileError, did_you_mean

__all__ = ["BOOL", "LIST", "STRING", "Flags", "parse_flags"]

BOOL, STRING, LIST = "bool", "string", "list"


@dataclass(frozen=True, slots=True)
class Flags:
    """What was given; a flag that was not given is absent from all three."""

    bools: dict[str, bool] = field(default_factory=dict)
    strings: dict[str, str] = field(default_factory=dict)
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    used: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        """Return the value of a string flag, empty if it was not given."""
        return self.strings.get(name, "")

    def items(self, name: str) -> tuple[str, ...]:
        """Return the values of a repeatable flag."""
        return self.lists.get(name, ())

    def on(self, name: str) -> bool:
        """Tell whether a boolean flag is on."""
        return self.bools.get(name, False)


def parse_flags(words: tuple[str, ...], known: Mapping[str, str]) -> Flags:
    """Sort *words* into the *known* flags (name → BOOL, STRING or LIST).

    Raises:
        DockerfileError: unknown or repeated flag, missing or senseless value.
    """
    flags = Flags()
    used: list[str] = []
    for word in words:
        shown, equals, value = word.partition("=")
        name = shown[2:]
        kind = known.get(name)
        if kind is None:
            hint = did_you_mean(name, known, case_sensitive=True)
            raise DockerfileError(f"unknown flag: {shown}{hint}")
        if name in used and kind != LIST:
            raise DockerfileError(f"duplicate flag specified: {shown}")
        if name not in used:
            used.append(name)
        if kind == BOOL:
            flags.bools[name] = _boolean(shown, bool(equals), value)
            continue
        if not equals:
            raise DockerfileError(f"missing a value on flag: {shown}")
        if kind == STRING:
            flags.strings[name] = value
        else:
            flags.lists[name] = (*flags.lists.get(name, ()), value)
    return Flags(flags.bools, flags.strings, flags.lists, tuple(used))


def _boolean(shown: str, has_value: bool, value: str) -> bool:
    if not has_value:
        return True
    if not value:
        raise DockerfileError(f"missing a value on flag: {shown}")
    if value.lower() not in ("true", "false"):
        raise DockerfileError(f"expecting boolean value for flag {shown}, not: {value}")
    return value.lower() == "true"
