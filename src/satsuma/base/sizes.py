"""Sizes and durations, in the spellings of docker's flags and tables.

Source: docker/go-units (RAMInBytes, HumanSize, HumanDuration) and Go's time.ParseDuration, as observed.
"""

from __future__ import annotations

_DIGITS = frozenset("0123456789")
_BINARY_EXPONENT = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION_UNIT = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}


def parse_size(text: str) -> int:
    """Parse `10m`, `1.5GiB`, `512`, `64 kB` to bytes; every unit is binary, as for `--memory`.

    Raises:
        ValueError: `invalid size: 'x'`, `invalid suffix: 'x'`.
    Source: docker/go-units size.go `parseSize`.
    """
    body = text.strip()
    split = len(body)
    while split and body[split - 1] not in "0123456789.":
        split -= 1
    number, suffix = body[:split], body[split:].strip()
    unit = suffix = suffix.lower() if len(suffix) <= 3 else suffix
    if (len(unit) == 3 and unit.endswith("ib")) or (len(unit) == 2 and unit.endswith("b")):
        unit = unit[0]
    elif unit == "b":
        unit = ""
    whole, _, fraction = number.removeprefix("-").partition(".")
    if not whole or not _DIGITS.issuperset(whole + fraction):
        raise ValueError(f"invalid size: '{text}'")
    value = float(number) if fraction else int(number)
    if value < 0 or number.startswith("-"):
        raise ValueError(f"invalid size: '{text}'")
    if unit not in _BINARY_EXPONENT:
        raise ValueError(f"invalid suffix: '{suffix}'")
    return int(value * 1024 ** _BINARY_EXPONENT[unit])


def format_size(size: float, *, precision: int = 4) -> str:
    """Return decimal units with at most *precision* significant digits: `12.3MB`, `1.23kB`, `0B`."""
    return _human(float(size), 1000.0, ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"), precision)


def format_size_binary(size: float, *, precision: int = 4) -> str:
    """Return binary units: `1.5GiB`, `512KiB`."""
    return _human(
        float(size), 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"), precision
    )


def _human(size: float, base: float, units: tuple[str, ...], precision: int) -> str:
    index = 0
    while size >= base and index < len(units) - 1:
        size /= base
        index += 1
    return f"{size:.{precision}g}{units[index]}"


def parse_duration(text: str) -> float:
    """Parse a Go duration such as `1h2m3.5s`, `500ms`, `-1m`, `0` to seconds.

    Raises:
        ValueError: in Go's words, `time: invalid duration "x"`.
    """
    body = text
    sign = 1.0
    if body[:1] in ("+", "-"):
        sign = -1.0 if body[0] == "-" else 1.0
        body = body[1:]
    if body == "0":
        return 0.0
    if not body:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0.0
    while body:
        split = 0
        while split < len(body) and (body[split] in _DIGITS or body[split] == "."):
            split += 1
        number, body = body[:split], body[split:]
        if not number or number == "." or number.count(".") > 1:
            raise ValueError(f'time: invalid duration "{text}"')
        split = 0
        while split < len(body) and body[split] not in _DIGITS and body[split] != ".":
            split += 1
        unit, body = body[:split], body[split:]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATION_UNIT:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += float(number) * _DURATION_UNIT[unit]
    return sign * total


def format_duration_go(seconds: float) -> str:
    """Return the text of Go's Duration.String: `1m30s`, `1h0m0s`, `250ms`, `0s`."""
    ns = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 else ""
    if ns == 0:
        return "0s"
    if ns < 1_000_000_000:
        for unit, scale in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
            if ns < scale * 1000:
                return f"{sign}{_trim(ns / scale)}{unit}"
    minutes, rest = divmod(ns, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_trim(rest / 1e9)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def _trim(value: float) -> str:
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return text or "0"


_STEPS = (  # (upper limit in seconds, seconds per unit, text): the first step whose limit is above wins
    (60, 1, "{} seconds"),
    (120, 60, "About a minute"),
    (46 * 60, 60, "{} minutes"),
    (90 * 60, 3600, "About an hour"),
    (48 * 3600, 3600, "{} hours"),
    (14 * 86400, 86400, "{} days"),
    (60 * 86400, 7 * 86400, "{} weeks"),
    (730 * 86400, 30 * 86400, "{} months"),
)


def human_duration(seconds: float) -> str:
    """Return an age in Docker's words: `Less than a second`, `About a minute`, `3 hours`, `5 weeks`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if 3600 * 1.5 > whole >= 46 * 60:
        return "About an hour"
    if whole >= 90 * 60 and whole < 48 * 3600:
        return f"{round(seconds / 3600)} hours"
    for limit, unit, text in _STEPS:
        if whole < limit:
            return text.format(whole // unit)
    return f"{whole // (365 * 86400)} years"
