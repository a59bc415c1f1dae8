"""Template text to tokens.  One pass, no lookahead beyond a word; positions are kept for error texts.

Source: golang text/template/parse (behaviour and texts), measured with Go 1.26.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Token(NamedTuple):
        kind: str
        value: str
        position: int
        line: int
else:
    from collections import namedtuple

    Token = namedtuple("Token", "kind value position line")

KEYWORDS = frozenset("break continue block define else end if nil range template with".split())
_SPACE = " \t\r\n"


class LexError(ValueError):
    """The text ends or goes wrong inside an action."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class Lexer:
    """Turns one template text into a list of tokens, the last of kind `eof` or `error`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.tokens: list[Token] = []
        self.parens = 0
        self._line_at = 0
        self._line = 1

    def run(self) -> list[Token]:
        """Return all tokens."""
        try:
            while self._text():
                self._action()
            self._emit("eof", "", self.at)
        except LexError as error:
            self.tokens.append(Token("error", str(error), self.at, error.line))
        return self.tokens

    def _line_of(self, position: int) -> int:
        if position < self._line_at:
            return self.text.count("\n", 0, position) + 1
        self._line += self.text.count("\n", self._line_at, position)
        self._line_at = position
        return self._line

    def _emit(self, kind: str, value: str, position: int) -> None:
        self.tokens.append(Token(kind, value, position, self._line_of(position)))

    def _fail(self, message: str, position: int | None = None) -> LexError:
        return LexError(message, self._line_of(self.at if position is None else position))

    # -- outside of actions -----------------------------------------------------------------------------------------

    def _text(self) -> bool:
        """Emit the text up to the next action; False at the end."""
        start = self.at
        opening = self.text.find("{{", start)
        if opening < 0:
            if start < len(self.text):
                self._emit("text", self.text[start:], start)
            self.at = len(self.text)
            return False
        trim = self.text[opening + 2 : opening + 3] == "-" and self.text[opening + 3 : opening + 4] in tuple(
            _SPACE
        )
        chunk = self.text[start:opening]
        if trim:
            chunk = chunk.rstrip(_SPACE)
        if chunk:
            self._emit("text", chunk, start)
        self.at = opening + 2 + (2 if trim else 0)
        if self.text.startswith("/*", self.at):
            self._comment()
            return self._text()
        self._emit("{{", "{{", opening)
        self.parens = 0
        return True

    def _comment(self) -> None:
        end = self.text.find("*/", self.at)
        if end < 0:
            raise self._fail("unclosed comment")
        after = end + 2
        if self.text.startswith(" -}}", after) or (
            self.text[after : after + 1] in tuple(_SPACE) and self.text.startswith("-}}", after + 1)
        ):
            self._skip_space_after(after + 4)
        elif self.text.startswith("}}", after):
            self.at = after + 2
        else:
            raise self._fail("comment ends before closing delimiter")

    def _skip_space_after(self, position: int) -> None:
        while position < len(self.text) and self.text[position] in _SPACE:
            position += 1
        self.at = position

    # -- inside of actions ------------------------------------------------------------------------------------------

    def _action(self) -> None:
        text = self.text
        while True:
            char = text[self.at : self.at + 1]
            if text.startswith("}}", self.at) or (
                char in tuple(_SPACE) and text.startswith("-}}", self.at + 1)
            ):
                if self.parens:
                    raise self._fail("unclosed left paren")
                if char == "}":
                    self._emit("}}", "}}", self.at)
                    self.at += 2
                else:
                    self._emit("}}", "}}", self.at + 2)
                    self._skip_space_after(self.at + 4)
                return
            if not char:
                raise self._fail("unclosed action")
            if char in _SPACE:
                self._space()
            else:
                self._token(char)

    def _space(self) -> None:
        start = self.at
        while self.text[self.at : self.at + 1] in tuple(_SPACE) and not self.text.startswith(
            "-}}", self.at + 1
        ):
            self.at += 1
        if self.at > start:
            self._emit("space", self.text[start : self.at], start)

    def _token(self, char: str) -> None:
        start = self.at
        following = self.text[start + 1 : start + 2]
        if char in _STARTS:
            getattr(self, _STARTS[char])()
        elif char == "." and not (following.isdigit() and following.isascii()):
            self._word("field", start + 1)
        elif char in "+-.0123456789":
            self._number()
        elif char == "_" or char.isalnum():
            self._word("identifier", start)
        elif " " < char <= "~":
            self._emit("char", char, start)
            self.at += 1
        else:
            self.at += 1
            raise self._fail(f"unrecognized character in action: {_unicode(char)}")

    def _declare(self) -> None:
        if not self.text.startswith(":=", self.at):
            self.at += 1
            raise self._fail("expected :=")
        self._emit(":=", ":=", self.at)
        self.at += 2

    def _single(self) -> None:
        char = self.text[self.at]
        self._emit(char, char, self.at)
        self.at += 1

    def _variable(self) -> None:
        self._word("variable", self.at + 1)

    def _raw(self) -> None:
        end = self.text.find("`", self.at + 1)
        if end < 0:
            raise self._fail("unterminated raw quoted string")
        self._emit("raw", self.text[self.at : end + 1], self.at)
        self.at = end + 1

    def _open(self) -> None:
        self._emit("(", "(", self.at)
        self.parens += 1
        self.at += 1

    def _close(self) -> None:
        start = self.at
        self.at += 1
        self.parens -= 1
        if self.parens < 0:
            raise self._fail("unexpected right paren")
        self._emit(")", ")", start)

    def _quoted(self) -> None:
        position = self.at + 1
        while True:
            char = self.text[position : position + 1]
            if char == "\\" and self.text[position + 1 : position + 2] not in ("", "\n"):
                position += 2
                continue
            if char in ("", "\n", "\\"):
                raise self._fail("unterminated quoted string")
            position += 1
            if char == '"':
                break
        self._emit("string", self.text[self.at : position], self.at)
        self.at = position

    def _character(self) -> None:
        position = self.at + 1
        while True:
            char = self.text[position : position + 1]
            if char == "\\" and self.text[position + 1 : position + 2] not in ("", "\n"):
                position += 2
                continue
            if char in ("", "\n", "\\"):
                raise self._fail("unterminated character constant")
            position += 1
            if char == "'":
                break
        self._emit("charconst", self.text[self.at : position], self.at)
        self.at = position

    def _word(self, kind: str, position: int) -> None:
        start = self.at
        text = self.text
        while position < len(text) and (text[position] == "_" or text[position].isalnum()):
            position += 1
        self.at = position
        word = text[start:position]
        if not self._ends_here():
            self.at += 1
            raise self._fail(f"bad character {_unicode(text[position])}")
        if kind == "identifier":
            kind = word if word in KEYWORDS else "bool" if word in ("true", "false") else kind
        elif word == ".":
            kind = "dot"
        self._emit(kind, word, start)

    def _ends_here(self) -> bool:
        char = self.text[self.at : self.at + 1]
        return char == "" or char in " \t\r\n.,|:)(" or self.text.startswith("}}", self.at)

    def _number(self) -> None:
        start = self.at
        text = self.text
        position = start + (text[start] in "+-")
        prefix = text[position : position + 2].lower()
        digits = {"0x": "0123456789abcdefABCDEF_", "0o": "01234567_", "0b": "01_"}.get(prefix, "0123456789_")
        if prefix in ("0x", "0o", "0b"):
            position += 2
        position = self._run(position, digits)
        if text[position : position + 1] == ".":
            position = self._run(position + 1, digits)
        if digits == "0123456789_" and text[position : position + 1] in ("e", "E"):
            position = self._run(
                position + 1 + (text[position + 1 : position + 2] in ("+", "-")), "0123456789_"
            )
        if prefix == "0x" and text[position : position + 1] in ("p", "P"):
            position = self._run(
                position + 1 + (text[position + 1 : position + 2] in ("+", "-")), "0123456789_"
            )
        if text[position : position + 1] == "_" or text[position : position + 1].isalnum():
            raise self._fail(f'bad number syntax: "{text[start : position + 1]}"')
        self.at = position
        self._emit("number", text[start:position], start)

    def _run(self, position: int, allowed: str) -> int:
        while position < len(self.text) and self.text[position] in allowed:
            position += 1
        return position


_STARTS = {
    ":": "_declare",
    "=": "_single",
    "|": "_single",
    '"': "_quoted",
    "`": "_raw",
    "'": "_character",
    "$": "_variable",
    "(": "_open",
    ")": "_close",
}
"""First character of a token → the method that reads it."""


def _unicode(char: str) -> str:
    return f"U+{ord(char):04X} '{char}'" if char.isprintable() else f"U+{ord(char):04X}"
