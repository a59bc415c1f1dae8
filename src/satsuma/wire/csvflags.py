"""Flags that are one record of comma separated values: `--mount`, `--network`, `--gpus`.

Owns the record syntax of Go's encoding/csv; which keys mean what is the caller's.  Fields that start with a double
quote may hold commas, and `""` inside them is one quote: `type=volume,"volume-opt=o=addr=a,rw"`.

Source: RFC 4180; golang encoding/csv (texts of its ParseError).
"""

from __future__ import annotations


class CsvError(ValueError):
    """The text is not one record."""


def split_fields(text: str) -> list[str]:
    """Split one record to its fields.

    Raises:
        CsvError: a stray quote, or nothing at all (`EOF`).
    """
    line = text.split("\n", 1)[0].removesuffix("\r") if '"' not in text else text
    if not line:
        raise CsvError("EOF")
    fields: list[str] = []
    position = 0
    while True:
        if line[position : position + 1] == '"':
            field, position = _quoted(line, position + 1)
        else:
            end = line.find(",", position)
            end = len(line) if end < 0 else end
            field = line[position:end]
            if '"' in field:
                column = position + field.index('"') + 1
                raise CsvError(f'parse error on line 1, column {column}: bare " in non-quoted-field')
            position = end
        fields.append(field)
        if position >= len(line):
            return fields
        position += 1


def _quoted(line: str, position: int) -> tuple[str, int]:
    """Read a quoted field from behind its first quote; return it and where the comma or the end is."""
    parts: list[str] = []
    while True:
        end = line.find('"', position)
        if end < 0:
            where = f"record on line 1; parse error on line 1, column {len(line) + 1}"
            raise CsvError(f'{where}: extraneous or missing " in quoted-field')
        parts.append(line[position:end])
        following = line[end + 1 : end + 2]
        if following == '"':
            parts.append('"')
            position = end + 2
        elif following in (",", ""):
            return "".join(parts), end + 1
        else:
            raise CsvError(
                f'parse error on line 1, column {end + 1}: extraneous or missing " in quoted-field'
            )


def split_pairs(text: str) -> list[tuple[str, str, bool]]:
    """Split a record of `key=value` fields: (key, value, whether there was an equals sign)."""
    pairs = []
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        pairs.append((key, value, bool(equals)))
    return pairs
