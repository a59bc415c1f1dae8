"""Text as Go's `fmt` prints it, where that text is part of Docker's contract.

`%q` of a string and of a list appears in image histories (`CMD ["cat" "/out"]`) and in error messages, and clients
compare both.  Owns the format only; no I/O.

Source: pkg.go.dev/strconv#Quote; pkg.go.dev/fmt.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["quote", "quote_list"]

_SHORT = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def quote(text: str) -> str:
    """Return *text* as a Go string literal (`%q`); undecodable bytes (surrogate escapes) become `\\xNN`."""
    out = ['"']
    for ch in text:
        code = ord(ch)
        if ch in '"\\':
            out.append("\\" + ch)
        elif ch in _SHORT:
            out.append(_SHORT[ch])
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif ch.isprintable():
            out.append(ch)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            out.append(f"\\U{code:08x}")
    out.append('"')
    return "".join(out)


def quote_list(items: Iterable[str] | None) -> str:
    """Return a list of strings as Go prints it with `%q`: `["a" "b"]`."""
    return "[" + " ".join(quote(item) for item in items or ()) + "]"
