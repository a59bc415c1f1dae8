"""Values as Go's fmt prints them: Sprint and Printf.

Source: pkg.go.dev/fmt, measured with Go 1.26.
"""

from __future__ import annotations

from satsuma.wire.goquote import quote
from satsuma.wire.gotemplate.values import MISSING, GoNil, GoStruct, Struct, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def sprint_value(value: Any) -> str:
    """Print one value the way an action does; nothing at all is `<no value>`."""
    return "<no value>" if value is MISSING else format_v(value, top=True)


def sprint(values: Sequence[Any]) -> str:
    """Print operands side by side, a blank between two that are no strings (fmt.Sprint)."""
    out: list[str] = []
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            out.append(" ")
        out.append(format_v(value, top=True))
    return "".join(out)


def sprintln(values: Sequence[Any]) -> str:
    """Print operands with blanks between all of them and a newline (fmt.Sprintln)."""
    return " ".join(format_v(value, top=True) for value in values) + "\n"


def sort_keys(mapping: dict[Any, Any]) -> list[Any]:
    """Return the keys in the order in which Go prints and ranges over a map."""
    try:
        return sorted(mapping)
    except TypeError:
        return list(mapping)


def format_v(value: Any, *, top: bool = False, sharp: str = "") -> str:
    """Format for `%v` (*sharp* "" or "+") or `%#v` (*sharp* "#")."""
    if sharp == "#":
        return _go_syntax(value)
    if value is None or value is MISSING:
        return "<nil>"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return format_float(value, "g", -1)
    if isinstance(value, GoStruct):
        return (
            "{" + " ".join(f"{key}:{format_v(v)}" if sharp else format_v(v) for key, v in value.items()) + "}"
        )
    if isinstance(value, dict):
        return "map[" + " ".join(f"{format_v(key)}:{format_v(value[key])}" for key in sort_keys(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(format_v(item, sharp=sharp) for item in value) + "]"
    if isinstance(value, GoNil):
        return {"pointer": "<nil>", "slice": "[]", "map": "map[]"}[value.kind]
    if isinstance(value, Struct):
        fields = [(name, field) for name, field in value.fields.items() if not callable(field)]
        plus = sharp == "+"
        return "{" + " ".join(f"{name}:{format_v(v)}" if plus else format_v(v) for name, v in fields) + "}"
    return str(value)


def _go_syntax(value: Any) -> str:
    if value is None or value is MISSING:
        return "interface {}(nil)" if value is None else "<nil>"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, dict):
        inner = ", ".join(f"{_go_syntax(key)}:{_go_syntax(value[key])}" for key in sort_keys(value))
        return f"{type_name(value)}{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"{type_name(value)}{{{', '.join(_go_syntax(item) for item in value)}}}"
    return format_v(value)


def format_float(value: float, verb: str, precision: int) -> str:
    """Format like strconv.FormatFloat; a precision of -1 gives the shortest text that reads back."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if precision >= 0:
        text = f"{value:.{max(precision, 1) if verb in 'gG' else precision}{verb}}"
        return text
    digits, exponent = _shortest(value)
    sign = "-" if str(value).startswith("-") else ""
    # %g of the shortest digits turns to scientific notation from 1e+06 on (strconv).
    if verb in "eE" or (verb in "gG" and not -4 <= exponent < 6):
        return sign + _scientific(digits, exponent, "E" if verb in "EG" else "e")
    return sign + _plain(digits, exponent)


def _shortest(value: float) -> tuple[str, int]:
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    power = (
        int(exponent or 0) + len(whole) - 1 - (len(whole + fraction) - len((whole + fraction).lstrip("0")))
    )
    digits = digits.rstrip("0")
    return (digits, power) if digits else ("0", 0)


def _scientific(digits: str, exponent: int, letter: str) -> str:
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{tail}{letter}{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _plain(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    if len(digits) <= exponent + 1:
        return digits + "0" * (exponent + 1 - len(digits))
    return digits[: exponent + 1] + "." + digits[exponent + 1 :]


# -- Printf -------------------------------------------------------------------------------------------------------


def sprintf(template: str, values: Sequence[Any]) -> str:
    """Format like fmt.Sprintf; what does not fit becomes Go's `%!verb(type=value)`."""
    return _Printf(template, values).run()


class _Printf:
    """One call of Printf: a cursor in the template, another one in the operands."""

    def __init__(self, template: str, values: Sequence[Any]) -> None:
        self.template = template
        self.values = values
        self.at = 0
        self.operand = 0
        self.reordered = False

    def run(self) -> str:
        out: list[str] = []
        template = self.template
        while self.at < len(template):
            percent = template.find("%", self.at)
            if percent < 0:
                out.append(template[self.at :])
                break
            out.append(template[self.at : percent])
            self.at = percent + 1
            out.append(self._directive())
        if not self.reordered and self.operand < len(self.values):
            rest = self.values[self.operand :]
            shown = ", ".join(
                "<nil>" if v is None or v is MISSING else f"{_type(v)}={format_v(v)}" for v in rest
            )
            out.append(f"%!(EXTRA {shown})")
        return "".join(out)

    def _directive(self) -> str:
        flags = ""
        while self.template[self.at : self.at + 1] in ("+", "-", "#", " ", "0") and self.at < len(
            self.template
        ):
            flags += self.template[self.at]
            self.at += 1
        if not self._index():
            return self._bad_index()
        width, problem = self._number("BADWIDTH")
        if width is not None and width < 0:
            flags, width = flags + "-", -width
        precision: int | None = None
        if self.template[self.at : self.at + 1] == ".":
            self.at += 1
            if not self._index():
                return self._bad_index()
            precision, wrong = self._number("BADPREC")
            problem += wrong
            precision = 0 if precision is None and not wrong else precision
        if not self._index():
            return self._bad_index()
        if self.at >= len(self.template):
            return problem + "%!(NOVERB)"
        verb = self.template[self.at]
        self.at += 1
        if verb == "%":
            return problem + "%"
        if self.operand >= len(self.values):
            return f"{problem}%!{verb}(MISSING)"
        value = self.values[self.operand]
        self.operand += 1
        return problem + _verb(value, verb, flags, width, precision)

    def _bad_index(self) -> str:
        verb = self.template[self.at : self.at + 1]
        self.at += 1
        return f"%!{verb}(BADINDEX)"

    def _index(self) -> bool:
        if self.template[self.at : self.at + 1] != "[":
            return True
        end = self.template.find("]", self.at)
        number = self.template[self.at + 1 : end] if end > 0 else ""
        self.reordered = True
        self.at = end + 1 if end > 0 else self.at + 1
        if not number.isdigit() or not 1 <= int(number) <= len(self.values):
            return False
        self.operand = int(number) - 1
        return True

    def _number(self, bad: str) -> tuple[int | None, str]:
        template = self.template
        if template[self.at : self.at + 1] == "*":
            self.at += 1
            value = self.values[self.operand] if self.operand < len(self.values) else None
            self.operand += 1
            if not isinstance(value, int) or isinstance(value, bool) or (bad == "BADPREC" and value < 0):
                return None, f"%!({bad})"
            return value, ""
        start = self.at
        while template[self.at : self.at + 1].isdigit():
            self.at += 1
        return (int(template[start : self.at]), "") if self.at > start else (None, "")


def _type(value: Any) -> str:
    return "*struct" if isinstance(value, GoNil) else type_name(value)


def _bad_verb(value: Any, verb: str) -> str:
    if value is None or value is MISSING:
        return f"%!{verb}(<nil>)"
    return f"%!{verb}({_type(value)}={format_v(value)})"


def _verb(value: Any, verb: str, flags: str, width: int | None, precision: int | None) -> str:
    if verb == "T":
        return _pad("<nil>" if value is None or value is MISSING else _type(value), flags, width)
    if verb == "v":
        if isinstance(value, bool | int | float | str) and "#" not in flags:
            default = {bool: "t", float: "g", str: "s"}
            return _verb(value, default.get(type(value), "d"), flags, width, precision)
        return _pad(format_v(value, sharp="#" if "#" in flags else "+" if "+" in flags else ""), flags, width)
    if isinstance(value, list | tuple):
        return "[" + " ".join(_verb(item, verb, flags, width, precision) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (
            f"{_verb(key, verb, flags, width, precision)}:{_verb(value[key], verb, flags, width, precision)}"
            for key in sort_keys(value)
        )
        return "map[" + " ".join(pairs) + "]"
    if isinstance(value, bool):
        return _pad("true" if value else "false", flags, width) if verb == "t" else _bad_verb(value, verb)
    if isinstance(value, int):
        return _integer(value, verb, flags, width, precision)
    if isinstance(value, float):
        return _float(value, verb, flags, width, precision)
    if isinstance(value, str):
        return _string(value, verb, flags, width, precision)
    return _bad_verb(value, verb)


def _pad(text: str, flags: str, width: int | None) -> str:
    if width is None or len(text) >= width:
        return text
    if "-" in flags:
        return text.ljust(width)
    return text.rjust(width, "0" if "0" in flags else " ")


def _signed(text: str, *, negative: bool, flags: str, width: int | None) -> str:
    """Put sign, zeros and blanks around the digits of a number."""
    sign = "-" if negative else "+" if "+" in flags else " " if " " in flags else ""
    if "0" in flags and "-" not in flags and width is not None:
        text = text.rjust(width - len(sign), "0")
    return _pad(sign + text, flags.replace("0", ""), width)


def _integer(value: int, verb: str, flags: str, width: int | None, precision: int | None) -> str:
    if verb == "c":
        return _pad(chr(value) if 0 <= value < 0x110000 else "\ufffd", flags, width)
    if verb == "q":
        char = chr(value) if 0 <= value < 0x110000 else "\ufffd"
        inner = quote(char)[1:-1]
        return _pad("'" + {'\\"': '"', "'": "\\'"}.get(inner, inner) + "'", flags, width)
    if verb == "U":
        text = f"U+{value:04X}" + (f" '{chr(value)}'" if "#" in flags and chr(value).isprintable() else "")
        return _pad(text, flags.replace("0", ""), width)
    base = {"d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}.get(verb)
    if base is None:
        return _bad_verb(value, verb)
    digits = format(abs(value), base)
    if precision is not None:
        digits = "" if precision == 0 and value == 0 else digits.rjust(precision, "0")
        flags = flags.replace("0", "")
    prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") if "#" in flags else ""
    prefix = "0o" if verb == "O" else prefix
    if prefix and "0" in flags and width is not None:
        return _signed(
            prefix + digits.rjust(width, "0"), negative=value < 0, flags=flags.replace("0", ""), width=None
        )
    return _signed(prefix + digits, negative=value < 0, flags=flags, width=width)


def _float(value: float, verb: str, flags: str, width: int | None, precision: int | None) -> str:
    if verb not in "eEfFgG":
        return _bad_verb(value, verb)
    if precision is None:
        precision = -1 if verb in "gG" else 6
    text = format_float(abs(value), "f" if verb == "F" else verb, precision).lstrip("+")
    return _signed(text, negative=value < 0, flags=flags, width=width)


def _string(value: str, verb: str, flags: str, width: int | None, precision: int | None) -> str:
    if verb not in "sqxX":
        return _bad_verb(value, verb)
    if verb in "sq" and precision is not None:
        value = value[:precision]
    if verb == "s":
        return _pad(value, flags, width)
    if verb == "q":
        backquoted = "#" in flags and "`" not in value and value.isprintable()
        return _pad(f"`{value}`" if backquoted else quote(value), flags, width)
    data = value.encode("utf-8", "surrogateescape")
    data = data if precision is None else data[:precision]
    text = data.hex(" ") if " " in flags and data else data.hex()
    if "#" in flags and data:
        text = "0x" + text.replace(" ", " 0x")
    return _pad(text.upper() if verb == "X" else text, flags, width)
