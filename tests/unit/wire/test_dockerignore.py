"""The file format of .dockerignore."""

from __future__ import annotations

import pytest

from satsuma.wire import dockerignore

TABLE = [
    (b"", []),
    (b"\n\n", []),
    (b"# comment\na\n", ["a"]),
    (b" # no comment\n", ["# no comment"]),
    (b"a#b\n", ["a#b"]),
    (b"\xef\xbb\xbf# comment\na", ["a"]),
    (b"\xef\xbb\xbfa", ["a"]),
    (b"  spaced  \r\n", ["spaced"]),
    (b"/rooted\n", ["rooted"]),
    (b"//rooted\n", ["rooted"]),
    (b"/\n", ["/"]),
    (b"a/../b/./c/\n", ["b/c"]),
    (b"!keep\n", ["!keep"]),
    (b"! /keep \n", ["!keep"]),
    (b"!\n", ["!"]),
    (b"!!\n", ["!!"]),
    (b"\\#hash\n", ["\\#hash"]),
]


@pytest.mark.parametrize(("data", "patterns"), TABLE)
def test_parse(data: bytes, patterns: list[str]) -> None:
    assert dockerignore.parse(data) == patterns


def test_load_matches() -> None:
    matcher = dockerignore.load(b"*\n!src\nsrc/*.o\n")
    assert matcher.matches("Makefile")
    assert not matcher.matches("src/main.c")
    assert matcher.matches("src/main.o")


def test_names_that_are_not_utf8_survive() -> None:
    matcher = dockerignore.load(b"caf\xe9\n")
    assert matcher.matches("caf\udce9")


def test_lone_exclamation_mark() -> None:
    with pytest.raises(ValueError, match="illegal exclusion pattern"):
        dockerignore.load(b"!\n")
