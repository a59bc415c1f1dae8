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


class GoStruct(dict):  # type: ignore[type-arg]
    """A Go struct as its JSON: a missing key is an error, and it prints as `{a b}`."""

    go_type = "struct"

    def __init__(
        self,
        fields: Mapping[str, Any],
        *,
        names: Mapping[str, str] | None = None,
        omitted: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(fields)
        self.names = names or {}
        """Go field → JSON name, where they differ; such a field goes by its Go name only."""
        self.omitted = omitted or {}
        """Fields that JSON leaves out when they are empty."""

    def find(self, name: str) -> Any:
        """Return a field by its Go name.

        Raises:
            KeyError: no such field.
        """
        json_name = self.names.get(name)
        if json_name in self:
            return self[json_name]
        if name in self and name not in self.names.values():
            return self[name]
        return self.omitted[name]


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


class Record(Struct):
    """A Go struct that is marshalled as it stands: fields in their order, under their JSON names."""

    __slots__ = ("json_names",)

    def __init__(
        self, go_type: str, fields: Mapping[str, Any], json_names: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(go_type, fields)
        self.json_names = json_names or {}
        """Field → its name in JSON; empty to leave it out, and the field's own name where there is no entry."""


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
