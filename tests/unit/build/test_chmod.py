"""The value of --chmod."""

from __future__ import annotations

import stat

import pytest

from satsuma.base.errors import InvalidParameter
from satsuma.build.chmod import parse_chmod

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR

TABLE = [
    ("755", FILE | 0o600, 0o755),
    ("0644", DIRECTORY | 0o700, 0o644),
    ("7777", FILE, 0o7777),
    ("u+x", FILE | 0o644, 0o744),
    ("+x", FILE | 0o644, 0o755),
    ("a-w", FILE | 0o666, 0o444),
    ("go=", FILE | 0o777, 0o700),
    ("u=rwX,go=rX", FILE | 0o600, 0o644),
    ("u=rwX,go=rX", FILE | 0o700, 0o755),
    ("u=rwX,go=rX", DIRECTORY | 0o700, 0o755),
    ("u=rw,g=r,o=", FILE | 0o777, 0o640),
    ("u+s,g+s", FILE | 0o755, 0o6755),
    ("+t", DIRECTORY | 0o777, 0o1777),
    ("u+r-w", FILE | 0o200, 0o400),
]


@pytest.mark.parametrize(("text", "mode", "expected"), TABLE)
def test_chmod(text: str, mode: int, expected: int) -> None:
    assert oct(parse_chmod(text).apply(mode)) == oct(expected)


@pytest.mark.parametrize("text", ["", "8", "77777", "u", "x+r", "u+q", "755,", "-1", "0x1"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid chmod parameter"):
        parse_chmod(text)
