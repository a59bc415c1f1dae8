"""Points in time as integers of nanoseconds since the epoch, and the texts that Docker writes them in."""

from __future__ import annotations

import time

from satsuma.base.sizes import parse_duration

ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time, which Docker shows for "never"."""

_NS = 1_000_000_000
_DIGITS = frozenset("0123456789")


def now_ns() -> int:
    """Return the wall clock."""
    return time.time_ns()


def format_rfc3339nano(ns: int) -> str:
    """Return UTC time as Go's RFC3339Nano: trailing zeros of the fraction are dropped."""
    seconds, fraction = divmod(ns, _NS)
    t = time.gmtime(seconds)
    text = f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def format_rfc3339nano_fixed(ns: int) -> str:
    """Return UTC time with all nine digits, as log lines carry it."""
    seconds, fraction = divmod(ns, _NS)
    t = time.gmtime(seconds)
    return (
        f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T"
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}.{fraction:09d}Z"
    )


def parse_rfc3339(text: str) -> int:
    """Parse RFC 3339 with any number of fraction digits, or a prefix of it (a date, or no zone).

    Raises:
        ValueError: the text is no such time.
    """
    date, separator, rest = text.replace(" ", "T", 1).partition("T")
    year, month, day = (int(part) for part in date.split("-"))
    offset = 0
    if separator:
        rest, offset = _split_zone(rest)
    clock, _, fraction = rest.partition(".")
    parts = [int(part) for part in clock.split(":")] if clock else []
    if len(parts) > 3 or (fraction and not _DIGITS.issuperset(fraction)):
        raise ValueError(f"invalid time {text!r}")
    hour, minute, second = (*parts, 0, 0, 0)[:3]
    days = _days_from_civil(year, month, day)
    seconds = days * 86400 + hour * 3600 + minute * 60 + second - offset
    return seconds * _NS + int((fraction + "000000000")[:9])


def parse_time(text: str, *, now: int | None = None) -> int:
    """Parse a point in time as the docker command line takes it.

    Args:
        text: RFC 3339 (or a prefix of it), UNIX seconds with an optional fraction, or a Go duration
            that counts back from *now*.
    Returns: nanoseconds since the epoch.
    Raises:
        ValueError: none of the three.
    """
    whole, _, fraction = text.partition(".")
    if whole and _DIGITS.issuperset(whole.removeprefix("-")) and _DIGITS.issuperset(fraction):
        return int(whole) * _NS + int((fraction + "000000000")[:9])
    try:
        return parse_rfc3339(text)
    except ValueError:
        pass
    try:
        back = parse_duration(text)
    except ValueError:
        raise ValueError(f'failed to parse value as time or duration: "{text}"') from None
    return (now_ns() if now is None else now) - int(back * _NS)


def _split_zone(rest: str) -> tuple[str, int]:
    """Split the zone off a clock; without one the time is UTC (the engine runs no local time)."""
    if rest.endswith(("Z", "z")):
        return rest[:-1], 0
    for sign in "+-":
        clock, found, zone = rest.rpartition(sign)
        if found:
            hours, _, minutes = zone.partition(":")
            seconds = int(hours) * 3600 + int(minutes or 0) * 60
            return clock, seconds if sign == "+" else -seconds
    return rest, 0


def _days_from_civil(year: int, month: int, day: int) -> int:
    """Count days since 1970-01-01 in the proleptic Gregorian calendar (`calendar` would cost an import)."""
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        raise ValueError(f"invalid date {year}-{month}-{day}")
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146097 + day_of_era - 719468
