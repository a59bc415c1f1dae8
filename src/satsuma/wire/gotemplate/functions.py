"""The functions that templates can call: Go's built-in ones and those that docker adds.

Source: pkg.go.dev/text/template#hdr-Functions; docker documentation "Format command and log output".
"""

from __future__ import annotations

from satsuma.wire.gotemplate.printing import format_v, sort_keys, sprint, sprintf, sprintln
from satsuma.wire.gotemplate.values import MISSING, GoNil, Record, Struct, TemplateError, truth, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Function:
    """A function and the Go types of its parameters (`any`, `string`, `int`, `[]string`)."""

    __slots__ = ("call", "kinds", "rest")

    def __init__(self, call: Callable[..., Any], kinds: str, rest: str = "") -> None:
        self.call = call
        self.kinds = kinds.split()
        self.rest = rest
        """Type of any number of further parameters; empty for none."""


# -- Go's own -----------------------------------------------------------------------------------------------------


def _basic(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    return "string" if isinstance(value, str) else ""


def _nil(value: Any) -> bool:
    return value is None or value is MISSING or isinstance(value, GoNil)


def _equal(one: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("missing argument for comparison")
    for other in others:
        kind, kind2 = _basic(one), _basic(other)
        if kind != kind2:
            if not (one is None or one is MISSING or other is None or other is MISSING):
                raise TemplateError(
                    f"incompatible types for comparison: {type_name(one)} and {type_name(other)}"
                )
        elif kind:
            if one == other:
                return True
        elif _nil(one) or _nil(other):
            if _nil(one) == _nil(other):
                return True
        else:
            raise TemplateError(f"non-comparable type {format_v(other)}: {type_name(other)}")
    return False


def _less(one: Any, other: Any) -> bool:
    kind, kind2 = _basic(one), _basic(other)
    if not kind or not kind2:
        raise TemplateError("invalid type for comparison")
    if kind != kind2:
        raise TemplateError(f"incompatible types for comparison: {type_name(one)} and {type_name(other)}")
    if kind == "bool":
        raise TemplateError("invalid type for comparison")
    result: bool = one < other
    return result


def _less_or_equal(one: Any, other: Any) -> bool:
    return _less(one, other) or _equal(one, other)


def _index(item: Any, *keys: Any) -> Any:
    if item is None or item is MISSING:
        raise TemplateError("index of untyped nil")
    for key in keys:
        if item is None or item is MISSING or (isinstance(item, GoNil) and item.kind == "pointer"):
            raise TemplateError("index of nil pointer")
        if isinstance(item, dict):
            if not isinstance(key, str):
                if _nil(key):
                    raise TemplateError("value is nil; should be of type string")
                raise TemplateError(f"value has type {type_name(key)}; should be string")
            item = item.get(key, "" if _holds_strings(item) else MISSING)
        elif isinstance(item, GoNil):
            item = MISSING if item.kind == "map" else [][_position(key, 0)]
        elif isinstance(item, str):
            data = item.encode("utf-8", "surrogateescape")
            item = data[_position(key, len(data), last=False)]
        elif isinstance(item, list | tuple):
            item = item[_position(key, len(item), last=False)]
        else:
            raise TemplateError(f"can't index item of type {type_name(item)}")
    return item


def _holds_strings(mapping: dict[Any, Any]) -> bool:
    """Tell whether this is a map[string]string of a Go struct, whose zero value is an empty string."""
    return getattr(mapping, "go_type", "") == "map[string]string" and all(
        isinstance(v, str) for v in mapping.values()
    )


def _position(key: Any, size: int, *, last: bool = True) -> int:
    if _nil(key):
        raise TemplateError("cannot index slice/array with nil")
    if not isinstance(key, int) or isinstance(key, bool):
        raise TemplateError(f"cannot index slice/array with type {type_name(key)}")
    if not 0 <= key <= size:
        raise TemplateError(f"index out of range: {key}")
    if key == size and not last:
        # Go's index check lets the capacity through and reflect panics.
        raise TemplateError("reflect: slice index out of range")
    return key


def _slice(item: Any, *indexes: Any) -> Any:
    if item is None or item is MISSING:
        raise TemplateError("slice of untyped nil")
    if len(indexes) > 3:
        raise TemplateError(f"too many slice indexes: {len(indexes)}")
    if isinstance(item, str):
        if len(indexes) == 3:
            raise TemplateError("cannot 3-index slice a string")
        sequence: Any = item.encode("utf-8", "surrogateescape")
    elif isinstance(item, list | tuple):
        sequence = item
    else:
        raise TemplateError(f"can't slice item of type {type_name(item)}")
    bounds = [0, len(sequence)]
    for place, index in enumerate(indexes):
        position = _position(index, len(sequence))
        if place < 2:
            bounds[place] = position
        elif bounds[1] > position:
            raise TemplateError(f"invalid slice index: {bounds[1]} > {position}")
    if bounds[0] > bounds[1]:
        raise TemplateError(f"invalid slice index: {bounds[0]} > {bounds[1]}")
    part = sequence[bounds[0] : bounds[1]]
    return part.decode("utf-8", "surrogateescape") if isinstance(part, bytes) else part


def _length(item: Any) -> int:
    if item is None or item is MISSING or (isinstance(item, GoNil) and item.kind == "pointer"):
        raise TemplateError("len of nil pointer")
    if isinstance(item, str):
        return len(item.encode("utf-8", "surrogateescape"))
    if isinstance(item, GoNil):
        return 0
    if isinstance(item, list | tuple | dict):
        return len(item)
    raise TemplateError(f"len of type {type_name(item)}")


def _call(function: Any, *_arguments: Any) -> Any:
    if _nil(function):
        raise TemplateError("call of nil")
    raise TemplateError(f"non-function {format_v(function)} of type {type_name(function)}")


_HTML = str.maketrans({"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"})
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def _escaped_operands(values: tuple[Any, ...]) -> str:
    return values[0] if len(values) == 1 and isinstance(values[0], str) else sprint(values)


def _html(*values: Any) -> str:
    return _escaped_operands(values).translate(_HTML)


def _js(*values: Any) -> str:
    out = []
    for char in _escaped_operands(values):
        if char in _JS:
            out.append(_JS[char])
        elif char < " " or not char.isprintable():
            out.append(f"\\u{ord(char):04X}")
        else:
            out.append(char)
    return "".join(out)


def _urlquery(*values: Any) -> str:
    from urllib.parse import quote_plus

    return quote_plus(_escaped_operands(values), safe="")


# -- docker's -----------------------------------------------------------------------------------------------------


def encode_json(value: Any, *, escape_html: bool = False) -> str:
    """Return compact JSON as Go writes it.

    Args:
        value: template data.
        escape_html: write `<`, `>` and `&` as `\\u003c` and so on, as Go does by default.
    """
    import json

    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_jsonable)
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    # A row of a listing is marshalled by its own method, which escapes whatever the caller wants.
    is_row = isinstance(value, Struct) and not isinstance(value, Record)
    return escape_json(text) if escape_html or is_row else text


def escape_json(text: str) -> str:
    """Escape what Go's JSON encoder escapes for HTML."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _jsonable(value: Any) -> Any:
    if isinstance(value, Record):
        named = ((value.json_names.get(name, name), field) for name, field in value.fields.items())
        return {name: field for name, field in named if name}
    if isinstance(value, Struct):
        fields = value.fields
        plain = {
            name: field() if callable(field) else field for name, field in fields.items() if not _needs(field)
        }
        return {name: plain[name] for name in sort_keys(plain)}
    return None


def _needs(field: Any) -> bool:
    """Tell whether a method takes arguments, and so has no place in JSON."""
    return callable(field) and field.__code__.co_argcount > len(field.__defaults__ or ())


def _title(text: str) -> str:
    out, inside = [], False
    for char in text:
        word = char.isalnum() or char in "_'"
        out.append(char if not word else char.lower() if inside else char.upper())
        inside = word
    return "".join(out)


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    data = text.encode("utf-8", "surrogateescape")
    return text if len(data) < length else data[:length].decode("utf-8", "replace")


BUILTINS: dict[str, Function] = {
    "and": Function(lambda *values: None, "any", "any"),
    "or": Function(lambda *values: None, "any", "any"),
    "not": Function(lambda value: not truth(value), "any"),
    "call": Function(_call, "any", "any"),
    "html": Function(_html, "", "any"),
    "index": Function(_index, "any", "any"),
    "slice": Function(_slice, "any", "any"),
    "js": Function(_js, "", "any"),
    "len": Function(_length, "any"),
    "print": Function(lambda *values: sprint(values), "", "any"),
    "printf": Function(lambda template, *values: sprintf(template, values), "string", "any"),
    "println": Function(lambda *values: sprintln(values), "", "any"),
    "urlquery": Function(_urlquery, "", "any"),
    "eq": Function(_equal, "any", "any"),
    "ne": Function(lambda one, other: not _equal(one, other), "any any"),
    "lt": Function(_less, "any any"),
    "le": Function(_less_or_equal, "any any"),
    "gt": Function(lambda one, other: not _less_or_equal(one, other), "any any"),
    "ge": Function(lambda one, other: not _less(one, other), "any any"),
    "json": Function(lambda value: encode_json(None if value is MISSING else value), "any"),
    "split": Function(
        lambda text, separator: text.split(separator) if separator else list(text), "string string"
    ),
    "join": Function(lambda items, separator: separator.join(items), "[]string string"),
    "title": Function(_title, "string"),
    "lower": Function(str.lower, "string"),
    "upper": Function(str.upper, "string"),
    "pad": Function(_pad, "string int int"),
    "truncate": Function(_truncate, "string int"),
}


def header_functions() -> dict[str, Function]:
    """Return the functions for the row of headings: docker's own leave a heading as it is."""
    return {
        "json": Function(lambda value: value, "string"),
        "title": Function(lambda value: value, "string"),
        "lower": Function(lambda value: value, "string"),
        "upper": Function(lambda value: value, "string"),
        "truncate": Function(lambda value, _length: value, "string int"),
        "split": Function(lambda value, _separator: value, "any string"),
        "join": Function(lambda value, _separator: value, "any string"),
    }
