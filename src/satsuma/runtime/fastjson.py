"""JSON for programs that count milliseconds: the C scanner and encoder of `json` without its Python half.

`import json` costs 7 ms because of re and enum, which `satsuma-oci` does not need otherwise.

Source: CPython Modules/_json.c.
"""

from __future__ import annotations

from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Context:
    # The attributes which make_scanner reads (json.decoder.JSONDecoder).
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")


_scan = make_scanner(_Context())  # type: ignore[arg-type]
_SPACE = " \t\n\r"


def loads(data: str | bytes) -> Any:
    """Parse one JSON text.

    Raises:
        ValueError: it is none.
    """
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except StopIteration as error:
        raise ValueError(f"invalid JSON at character {error.value}") from None
    except SystemError:
        # The scanner looks for json.decoder to raise its error, and does not find it.
        raise ValueError(_complaint(text)) from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    if text[end:].strip(_SPACE):
        raise ValueError(f"invalid JSON: extra data at character {end}")
    return value


def _complaint(text: str) -> str:
    import json

    try:
        json.loads(text)
    except ValueError as error:
        return f"invalid JSON: {error}"
    return "invalid JSON"


def _default(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON serialisable")


_encode = make_encoder(None, _default, encode_basestring_ascii, None, ":", ",", False, False, False)


def dumps(value: Any) -> str:
    """Encode without spaces."""
    return "".join(_encode(value, 0))


def check_text(value: Any) -> None:
    """Refuse halves of UTF-16 pairs, which "\\ud800" stands for: no path and no argument can be made of them.

    Raises:
        ValueError: there is one.
    """
    encode = make_encoder(None, _default, encode_basestring, None, ":", ",", False, False, False)
    try:
        "".join(encode(value, 0)).encode()
    except UnicodeEncodeError as error:
        raise ValueError("invalid JSON: half of a surrogate pair") from error


def dumps_indented(value: Any, indent: int = 2, level: int = 0) -> str:
    """Encode with one member a line, as Go's MarshalIndent does."""
    pad = " " * (indent * (level + 1))
    close = " " * (indent * level)
    if isinstance(value, dict) and value:
        members = [
            f"{pad}{encode_basestring_ascii(str(key))}: {dumps_indented(item, indent, level + 1)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(members) + "\n" + close + "}"
    if isinstance(value, (list, tuple)) and value:
        items = [pad + dumps_indented(item, indent, level + 1) for item in value]
        return "[\n" + ",\n".join(items) + "\n" + close + "]"
    return dumps(value)
