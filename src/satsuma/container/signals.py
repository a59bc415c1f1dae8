"""Signal names and numbers as clients write them: `KILL`, `SIGKILL`, `9`, `RTMIN+3`."""

from __future__ import annotations

import signal

from satsuma.base.errors import InvalidParameter

_RTMIN, RTMAX = 34, 64
MAX_NUMBER = 2**31 - 1
_NAMES = {item.name.removeprefix("SIG"): int(item) for item in signal.Signals} | {
    "POLL": 29,
    "IOT": 6,
    "CLD": 17,
}


def parse_signal(text: str, *, limit: int = RTMAX) -> int:
    """Return the number of a signal.

    Args:
        limit: the highest number taken; who kills has an own message for those that no Linux has.
    Raises:
        InvalidParameter: `invalid signal: X`.
    """
    number = int(text) if _is_number(text) else _by_name(text.upper().removeprefix("SIG"))
    if not 1 <= number <= limit:
        raise InvalidParameter(f"invalid signal: {text}")
    return number


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _by_name(name: str) -> int:
    if name in _NAMES:
        return _NAMES[name]
    base, sign, offset = name.partition("+")
    if base == "RTMIN" and sign and _is_number(offset):
        return min(_RTMIN + int(offset), RTMAX + 1)
    base, sign, offset = name.partition("-")
    if base == "RTMAX" and sign and _is_number(offset):
        number = RTMAX - int(offset)
        return number if number >= _RTMIN else 0
    return {"RTMIN": _RTMIN, "RTMAX": RTMAX}.get(name, 0)
