"""Query strings as Docker reads them.

Owns percent decoding, Docker's idea of a boolean, repeated keys, integers, points in time and platforms.  Must
not know endpoints.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import unquote_to_bytes

from satsuma.base.clock import parse_time
from satsuma.base.errors import InvalidParameter, NotFound

_FALSE = frozenset(("", "0", "no", "false", "none"))
_HEX = frozenset("0123456789abcdefABCDEF")
_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


def decode_percent(text: str, *, plus: bool = False) -> str:
    """Decode percent escapes; bytes that are no UTF-8 become lone surrogates, as in file names.

    Raises:
        InvalidParameter: a `%` without two hexadecimal digits, in Go's words.
    """
    if plus and "+" in text:
        text = text.replace("+", " ")
    position = text.find("%")
    if position < 0:
        return text
    while position >= 0:
        escape = text[position : position + 3]
        if len(escape) < 3 or not _HEX.issuperset(escape[1:]):
            raise InvalidParameter(f'invalid URL escape "{escape}"')
        position = text.find("%", position + 3)
    return os.fsdecode(unquote_to_bytes(text))


class Query:
    """The parameters of a request, in order, keys may repeat."""

    __slots__ = ("_values",)

    def __init__(self, raw: str) -> None:
        values: dict[str, list[str]] = {}
        if ";" in raw:
            raise InvalidParameter("invalid semicolon separator in query")
        for pair in raw.split("&") if raw else ():
            if pair:
                key, _, value = pair.partition("=")
                values.setdefault(decode_percent(key, plus=True), []).append(decode_percent(value, plus=True))
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of *name*."""
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """Return every value of *name*."""
        return self._values.get(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a flag: false is the empty text, 0, no, false, none, whatever the case."""
        values = self._values.get(name)
        return default if values is None else values[0].strip().lower() not in _FALSE

    def number(self, name: str) -> int | None:
        """Return a number, or None when it is absent or empty.

        Raises:
            InvalidParameter: no number, in Go's words.
        """
        text = self.get(name)
        if not text:
            return None
        return parse_int(text, "strconv.Atoi")

    def size(self, name: str, what: str) -> int:
        """Return a terminal dimension, a uint32 that must be there.

        Raises:
            InvalidParameter: in Docker's words, `invalid resize height "x": invalid syntax`.
        """
        text = self.get(name)
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise InvalidParameter(f'invalid resize {what} "{text}": invalid syntax')
        if digits != text or len(digits) > 18 or int(digits) >= 1 << 32:
            raise InvalidParameter(f'invalid resize {what} "{text}": value out of range')
        return int(digits)

    def time_ns(self, name: str) -> int | None:
        """Return a point in time, nanoseconds since the epoch; None when it is absent, empty or 0.

        Raises:
            InvalidParameter: no time.
        """
        text = self.get(name)
        if not text:
            return None
        try:
            return parse_time(text) or None
        except ValueError:
            raise InvalidParameter(
                f'invalid value for "{name}": failed to parse value as time: "{text}"'
            ) from None


def parse_int(text: str, function: str) -> int:
    """Parse an int64 as Go's strconv does.

    Raises:
        InvalidParameter: with the text of Go's `NumError` of *function*.
    """
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidParameter(f'{function}: parsing "{text}": invalid syntax')
    value = int(text) if len(digits) < 30 else 1 << 64
    if not -(1 << 63) <= value < 1 << 63:
        raise InvalidParameter(f'{function}: parsing "{text}": value out of range')
    return value


def host_platform() -> tuple[str, str]:
    """Return OS and architecture of this host in the words of the image specification."""
    machine = os.uname().machine
    return "linux", _MACHINES.get(machine, machine)


def require_host_platform(platforms: list[str], name: str) -> None:
    """Check platforms that a client asks for as JSON; this engine keeps images of its host's platform only.

    Raises:
        InvalidParameter: malformed, in Docker's words.
        NotFound: a platform that no image here has.
    """
    for text in platforms:
        if not text:
            continue
        wanted = _parse_platform(text)
        if (wanted["os"], wanted["architecture"]) != host_platform():
            here = "/".join(host_platform())
            raise NotFound(
                f"image with reference {name} was found but its platform ({here}) does not match the "
                f"specified platform ({wanted['os']}/{wanted['architecture']})"
            )


def _parse_platform(text: str) -> dict[str, Any]:
    try:
        wanted = json.loads(text)
    except ValueError as error:
        raise InvalidParameter(f"failed to parse platform: {error}") from None
    if not isinstance(wanted, dict):
        raise InvalidParameter("failed to parse platform: not an object")
    if not wanted.get("os") and not wanted.get("architecture") and wanted.get("variant"):
        raise InvalidParameter("optional platform fields provided, but OS and Architecture are missing")
    if not wanted.get("os") or not wanted.get("architecture"):
        raise InvalidParameter("both OS and Architecture must be provided")
    return wanted
