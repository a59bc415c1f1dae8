"""Type-directed decoding of JSON bodies with the habits of Go's encoding/json.

Owns how bytes of a client become a `Body` of `satsuma.spec.docker`: keys of objects that are structs match
case-insensitively (keys of maps, such as labels, never), `null` leaves the default, unknown fields are ignored,
a repeated key counts the last time, integers must fit their range, and an error says what Go's would.  Must not
know HTTP, nor what a field means.

One decoder per type is compiled on first use.

Source: Go encoding/json `Unmarshal`; moby api/server/httputils `ReadJSON`, api/types/strslice.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct

from satsuma.base.errors import InvalidParameter

B = TypeVar("B", bound=Struct)

MAX_DEPTH = 200
"""Deeper than any body of the API; Python's own recursion limit lies behind it."""

Decode = Callable[[Any, str], Any]
"""(JSON value, path of the field) → value; raises `_Mismatch`."""

_INT64 = (-(1 << 63), (1 << 63) - 1)
_decoders: dict[Any, Decode] = {}


class _Mismatch(Exception):
    """A JSON value of the wrong kind: kind, path, Go's name of the wanted type."""

    def __init__(self, kind: str, path: str, wanted: str) -> None:
        where = f"Go struct field {path}" if path else "Go value"
        super().__init__(f"json: cannot unmarshal {kind} into {where} of type {wanted}")


def decode_json(raw: bytes, cls: type[B]) -> B:
    """Decode a body.

    Args:
        raw: one JSON document; nothing may follow it.
    Raises:
        InvalidParameter: in Docker's words, `invalid JSON: …`.
    """
    value = parse_json(raw)
    if value is None:
        value = {}
    try:
        decoded: B = _decoder(cls)(value, cls.__name__)
    except _Mismatch as error:
        raise InvalidParameter(f"invalid JSON: {error}") from None
    return decoded


def parse_json(raw: bytes) -> Any:
    """Parse one JSON document into builtins.

    Raises:
        InvalidParameter: in Docker's words.
    """
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        raise InvalidParameter("invalid JSON: json: exceeded max depth") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _parse_slowly(raw)
    _check_depth(raw)
    return value


def _check_depth(raw: bytes) -> None:
    """Refuse absurd nesting before our own recursion meets it; a count of brackets bounds the depth."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    quoted = escaped = False
    for byte in raw:
        if escaped:
            escaped = False
        elif quoted:
            escaped = byte == 0x5C
            quoted = byte != 0x22
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidParameter("invalid JSON: json: exceeded max depth")
        elif byte in b"]}":
            depth -= 1


def _parse_slowly(raw: bytes) -> Any:
    """Parse what the fast parser refused: either Go accepts it (bad UTF-8), or this finds Go's words."""
    text = raw.decode("utf-8", "replace")
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    stripped = text.lstrip(" \t\r\n")
    if not stripped:
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    try:
        value, end = decoder.raw_decode(stripped)
    except RecursionError:
        raise InvalidParameter("invalid JSON: json: exceeded max depth") from None
    except json.JSONDecodeError as error:
        raise InvalidParameter(f"invalid JSON: {_go_syntax_error(stripped, error)}") from None
    if stripped[end:].strip(" \t\r\n"):
        raise InvalidParameter("unexpected content after JSON")
    _check_depth(raw)
    return value


def _no_constant(word: str) -> Any:
    raise InvalidParameter(f"invalid JSON: invalid character {word[0]!r} looking for beginning of value")


def _go_syntax_error(text: str, error: json.JSONDecodeError) -> str:
    position = error.pos
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    if position >= len(text) or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    character = text[position]
    quoted = "'\\''" if character == "'" else f"'{character}'"
    context = {
        "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
        "Expecting ':' delimiter": "after object key",
        "Expecting ',' delimiter": "after "
        + ("array element" if character != "}" else "object key:value pair"),
        "Illegal trailing comma before end of object": "looking for beginning of object key string",
    }.get(error.msg, "looking for beginning of value")
    if error.msg.startswith(("Invalid control character", "Invalid \\")):
        context = "in string literal"
    return f"invalid character {quoted} {context}"


def _decoder(annotation: Any) -> Decode:
    found = _decoders.get(annotation)
    if found is None:
        found = _decoders[annotation] = _compile(annotation)
    return found


def _compile(annotation: Any) -> Decode:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _compile_union([argument for argument in arguments if argument is not type(None)])
    if origin is list:
        return _list_decoder(_decoder(arguments[0]), _zero(arguments[0]), _go_name(annotation))
    if origin is dict:
        return _map_decoder(_decoder(arguments[1]), _zero(arguments[1]), _go_name(annotation))
    if annotation is Any:
        return _decode_any
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return _struct_decoder(annotation)
    scalar: dict[Any, Decode] = {str: _decode_str, bool: _decode_bool, int: _decode_int}
    return scalar[annotation]


def _compile_union(members: list[Any]) -> Decode:
    if len(members) == 1:
        return _decoder(members[0])
    if set(members) == {list[str], str}:
        return _decode_strslice
    raise AssertionError(f"no decoding rule for the union {members}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "number"
    if isinstance(value, float):
        return f"number {value!r}"
    return "array" if isinstance(value, list) else "object"


def _decode_any(value: Any, path: str) -> Any:
    return value


def _decode_str(value: Any, path: str) -> str:
    if type(value) is str:
        return value
    raise _Mismatch(_kind(value).split()[0], path, "string")


def _decode_bool(value: Any, path: str) -> bool:
    if value is True or value is False:
        return bool(value)
    raise _Mismatch(_kind(value).split()[0], path, "bool")


def _decode_int(value: Any, path: str) -> int:
    if type(value) is int:
        if _INT64[0] <= value <= _INT64[1]:
            return value
        raise _Mismatch(f"number {value}", path, "int64")
    raise _Mismatch(_kind(value), path, "int64")


def _decode_strslice(value: Any, path: str) -> list[str]:
    """Go's `strslice.StrSlice`: an array of strings, or one string that stands for an array of one."""
    if type(value) is str:
        return [value]
    result: list[str] = _decoder(list[str])(value, path)
    return result


def _list_decoder(element: Decode, zero: Any, go_name: str) -> Decode:
    def decode(value: Any, path: str) -> list[Any]:
        if type(value) is not list:
            raise _Mismatch(_kind(value).split()[0], path, go_name)
        return [zero() if item is None else element(item, path) for item in value]

    return decode


def _map_decoder(element: Decode, zero: Any, go_name: str) -> Decode:
    def decode(value: Any, path: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise _Mismatch(_kind(value).split()[0], path, go_name)
        return {key: zero() if item is None else element(item, path) for key, item in value.items()}

    return decode


def _struct_decoder(cls: type[Struct]) -> Decode:
    # The table is filled on first use, because a struct may lie inside of itself.
    exact: dict[str, tuple[str, str, Decode]] = {}
    folded: dict[str, tuple[str, str, Decode]] = {}

    def fill() -> None:
        for info in msgspec.structs.fields(cls):
            assert info.default is not NODEFAULT or info.default_factory is not NODEFAULT, (cls, info.name)
            exact[info.encode_name] = (info.name, info.encode_name, _decoder(info.type))
        folded.update({name.lower(): entry for name, entry in exact.items()})

    def decode(value: Any, path: str) -> Struct:
        if type(value) is not dict:
            raise _Mismatch(_kind(value).split()[0], path if "." in path else "", f"{cls.__name__}")
        if not exact:
            fill()
        given: dict[str, Any] = {}
        for key, item in value.items():
            entry = exact.get(key) or folded.get(key.lower())
            if entry is not None and item is not None:
                given[entry[0]] = entry[2](item, f"{path}.{entry[1]}")
        return cls(**given)

    return decode


def _zero(annotation: Any) -> Callable[[], Any]:
    """Return what makes Go's zero value of an element that is null."""
    if get_origin(annotation) in (Union, types.UnionType) or annotation is Any:
        return lambda: None
    if get_origin(annotation) in (list, dict):
        return lambda: None
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return lambda: annotation()
    return lambda: annotation()


def _go_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _go_name(next(argument for argument in arguments if argument is not type(None)))
    if origin is list:
        return f"[]{_go_name(arguments[0])}"
    if origin is dict:
        return f"map[string]{_go_name(arguments[1])}"
    if annotation is Any:
        return "interface {}"
    names = {str: "string", int: "int64", bool: "bool"}
    return names.get(annotation) or f"{annotation.__name__}"
