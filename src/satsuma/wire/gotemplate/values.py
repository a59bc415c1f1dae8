"""Values that templates see and JSON has no word for, and the names of Go types."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


class TemplateError(ValueError):
    """The template is wrong, or does not fit the data; the text is Go's."""


class GoMap(dict):  # type: ignore[type-arg]
    """A map of a Go struct: a missing key is no error but `<no value>`."""

    go_type = "map[string]string"


class GoNil:
    """A nil of a known type, which prints differently from a nil interface."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind
        """`pointer`, `slice` or `map`."""

    def __bool__(self) -> bool:
        return False


class Struct:
    """A Go struct: named fields and methods; asking for another one is an error.

    A callable value is a method and is called with the arguments that the template gives.
    """

    __slots__ = ("fields", "go_type")

    def __init__(self, go_type: str, fields: Mapping[str, Any | Callable[..., Any]]) -> None:
        self.go_type = go_type
        self.fields = fields


class Missing:
    """The invalid reflect.Value: no such key, or nothing at all."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


MISSING = Missing()


class Rune(int):
    """A character constant: an integer that Go calls int32."""


def type_name(value: Any) -> str:
    """Return what Go calls the type of *value* in its error texts."""
    if value is None or value is MISSING:
        return "interface {}"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Rune):
        return "int32"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list | tuple):
        return "[]interface {}"
    if isinstance(value, GoMap | Struct):
        return value.go_type
    if isinstance(value, dict):
        return "map[string]interface {}"
    if isinstance(value, GoNil):
        return {"slice": "[]string", "map": "map[string]string"}.get(value.kind, "*struct")
    return type(value).__name__


def truth(value: Any) -> bool:
    """Tell what `if` makes of a value: zero, empty and nil are false."""
    return True if isinstance(value, Struct) else bool(value)
