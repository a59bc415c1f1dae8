"""Tokens to a tree, by recursive descent, with one shared token list for nested definitions.

Source: golang text/template/parse (grammar and texts), measured with Go 1.26.
"""

from __future__ import annotations

from satsuma.wire.goquote import quote
from satsuma.wire.gotemplate.lex import KEYWORDS, Lexer, Token
from satsuma.wire.gotemplate.nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Command,
    Dot,
    Field,
    Identifier,
    Literal,
    Mark,
    Node,
    Pipe,
    Text,
    Variable,
)
from satsuma.wire.gotemplate.values import Rune, TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

_MAX_DEPTH = 200
_OPERANDS = frozenset(
    ("bool", "charconst", "dot", "field", "identifier", "number", "nil", "raw", "string", "variable", "(")
)


class Parser:
    """Parses one text; `templates` collects the bodies of `define` and `block` by name."""

    def __init__(self, name: str, text: str, functions: Container[str]) -> None:
        self.name = name
        self.functions = functions
        self.tokens = Lexer(text).run()
        self.at = 0
        self.templates: dict[str, list[Node]] = {}
        self.variables = ["$"]
        self.range_depth = 0
        self.depth = 0

    # -- tokens -----------------------------------------------------------------------------------------------------

    def _next(self) -> Token:
        token = self.tokens[self.at]
        if self.at < len(self.tokens) - 1:
            self.at += 1
        return token

    def _peek(self) -> Token:
        return self.tokens[self.at]

    def _next_word(self) -> Token:
        token = self._next()
        while token.kind == "space":
            token = self._next()
        return token

    def _peek_word(self) -> Token:
        while self.tokens[self.at].kind == "space":
            self.at += 1
        return self.tokens[self.at]

    def fail(self, message: str) -> TemplateError:
        """Return the error at the token that was read last."""
        token = (
            self.tokens[max(0, self.at - 1)] if self._peek().kind not in ("eof", "error") else self._peek()
        )
        return TemplateError(f"template: {self.name}:{token.line}: {message}")

    def _unexpected(self, token: Token, context: str) -> TemplateError:
        if token.kind == "error":
            return TemplateError(f"template: {self.name}:{token.line}: {token.value}")
        return TemplateError(
            f"template: {self.name}:{token.line}: unexpected {_describe(token)} in {context}"
        )

    def _expect(self, kinds: tuple[str, ...], context: str) -> Token:
        token = self._next_word()
        if token.kind not in kinds:
            raise self._unexpected(token, context)
        return token

    # -- structure --------------------------------------------------------------------------------------------------

    def parse(self) -> list[Node]:
        """Return the body of the whole text."""
        body: list[Node] = []
        while self._peek().kind != "eof":
            if self._peek().kind == "{{":
                start = self.at
                self._next()
                if self._next_word().kind == "define":
                    self._definition()
                    continue
                self.at = start
            node = self._text_or_action()
            if node.kind in ("end", "else"):
                raise self.fail(f"unexpected {node}")
            body.append(node)
        return body

    def _definition(self) -> None:
        token = self._expect(("string", "raw"), "define clause")
        name = unquote(token.value)
        self._expect(("}}",), "define clause")
        self._named_body(name, "define clause")

    def _named_body(self, name: str, context: str) -> None:
        outer, self.variables = self.variables, ["$"]
        depth, self.range_depth = self.range_depth, 0
        body, end = self._items()
        if end.kind != "end":
            raise self.fail(f"unexpected {end} in {context}")
        self.variables, self.range_depth = outer, depth
        # An empty body does not replace one that says something.
        if not _is_empty(body) or name not in self.templates:
            self.templates[name] = body

    def _items(self) -> tuple[list[Node], Node]:
        body: list[Node] = []
        while self._peek_word().kind != "eof":
            node = self._text_or_action()
            if node.kind in ("end", "else"):
                return body, node
            body.append(node)
        raise self.fail("unexpected EOF")

    def _text_or_action(self) -> Node:
        token = self._next_word()
        if token.kind == "text":
            return Text(token.position, token.value)
        if token.kind == "{{":
            return self._action()
        raise self._unexpected(token, "input")

    def _action(self) -> Node:
        start = self.at
        token = self._next_word()
        kind = token.kind
        if kind in ("if", "range", "with"):
            return self._control(kind)
        if kind == "end":
            return Mark(self._expect(("}}",), "end").position, "end")
        if kind == "else":
            following = self._peek_word()
            if following.kind in ("if", "with"):
                return Mark(following.position, "else")
            return Mark(self._expect(("}}",), "else").position, "else")
        if kind in ("break", "continue"):
            closing = self._next_word()
            if closing.kind != "}}":
                raise self._unexpected(closing, "{{" + kind + "}}")
            if not self.range_depth:
                raise self.fail("{{" + kind + "}} outside {{range}}")
            return Mark(token.position, kind)
        if kind in ("block", "template"):
            return self._template(kind)
        self.at = start
        position = self._peek_word().position
        return Action(position, self._pipeline("command", "}}"))

    def _template(self, kind: str) -> Node:
        context = f"{kind} clause"
        token = self._next_word()
        if token.kind not in ("string", "raw"):
            raise self._unexpected(token, context)
        name = unquote(token.value)
        pipe = None
        if kind == "block" or self._peek_word().kind != "}}":
            pipe = self._pipeline(context, "}}")
        else:
            self._next_word()
        if kind == "block":
            self._named_body(name, context)
        return Call(token.position, name, quote(name), pipe)

    def _control(self, kind: str) -> Branch:
        known = len(self.variables)
        pipe = self._pipeline(kind, "}}")
        self.range_depth += kind == "range"
        body, closing = self._items()
        self.range_depth -= kind == "range"
        otherwise: list[Node] | None = None
        if closing.kind == "else":
            if kind in ("if", "with") and self._peek().kind == kind:
                # `else if` is an if of its own that shares our end.
                self._next()
                otherwise = [self._control(kind)]
            else:
                otherwise, closing = self._items()
                if closing.kind != "end":
                    raise self.fail(f"expected end; found {closing}")
        del self.variables[known:]
        return Branch(pipe.position, kind, pipe, body, otherwise)

    # -- pipelines --------------------------------------------------------------------------------------------------

    def _pipeline(self, context: str, end: str) -> Pipe:
        pipe = Pipe(self._peek_word().position)
        self._declarations(pipe, context)
        while True:
            token = self._peek_word()
            if token.kind == end:
                self._next()
                self._check_pipeline(pipe, context)
                return pipe
            if token.kind not in _OPERANDS:
                raise self._unexpected(self._next(), context)
            pipe.commands.append(self._command())

    def _declarations(self, pipe: Pipe, context: str) -> None:
        while self._peek_word().kind == "variable":
            start = self.at
            variable = self._next()
            following = self._peek_word()
            if following.kind in ("=", ":="):
                pipe.assign = following.kind == "="
                self._next()
                pipe.declared.append(Variable(variable.position, [variable.value]))
                self.variables.append(variable.value)
                return
            if following.kind == "char" and following.value == ",":
                self._next()
                pipe.declared.append(Variable(variable.position, [variable.value]))
                self.variables.append(variable.value)
                if context == "range" and len(pipe.declared) < 2:
                    if self._peek_word().kind in ("variable", "}}", ")"):
                        continue
                    raise self.fail("range can only initialize variables")
                raise self.fail(f"too many declarations in {context}")
            self.at = start
            return

    def _check_pipeline(self, pipe: Pipe, context: str) -> None:
        if not pipe.commands:
            raise self.fail(f"missing value for {context}")
        for stage, command in enumerate(pipe.commands[1:], 2):
            if command.args[0].kind in ("bool", "dot", "nil", "number", "string"):
                raise self.fail(f"non executable command in pipeline stage {stage}")

    def _command(self) -> Command:
        command = Command(self._peek_word().position, [])
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                command.args.append(operand)
            token = self._peek()
            if token.kind == "space":
                self._next()
                continue
            if token.kind == "|":
                self._next()
            elif token.kind not in ("}}", ")"):
                raise self._unexpected(self._next(), "operand")
            break
        if not command.args:
            raise self.fail("empty command")
        return command

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self._peek().kind != "field":
            return node
        position = self._peek().position
        names: list[str] = []
        while self._peek().kind == "field":
            names.append(self._next().value[1:])
        if isinstance(node, Field | Variable):
            return type(node)(position, node.names + names)
        if node.kind in ("bool", "string", "number", "nil", "dot"):
            raise self.fail(f"unexpected . after term {quote(str(node))}")
        return Chain(position, node, names)

    def _term(self) -> Node | None:
        token = self._peek_word()
        kind = token.kind
        if kind not in _OPERANDS:
            return None
        self._next()
        if kind == "identifier":
            if token.value not in self.functions:
                raise self.fail(f"function {quote(token.value)} not defined")
            return Identifier(token.position, token.value)
        if kind == "dot":
            return Dot(token.position)
        if kind == "variable":
            if token.value not in self.variables:
                raise self.fail(f"undefined variable {quote(token.value)}")
            return Variable(token.position, [token.value])
        if kind == "field":
            return Field(token.position, [token.value[1:]])
        if kind == "(":
            if self.depth >= _MAX_DEPTH:
                raise self.fail("max expression depth exceeded")
            self.depth += 1
            pipe = self._pipeline("parenthesized pipeline", ")")
            self.depth -= 1
            return pipe
        return self._literal(token)

    def _literal(self, token: Token) -> Literal:
        kind, source = token.kind, token.value
        try:
            if kind in ("string", "raw"):
                return Literal(token.position, "string", source, unquote(source))
            if kind == "bool":
                return Literal(token.position, "bool", source, source == "true")
            if kind == "nil":
                return Literal(token.position, "nil", source, None)
            if kind == "charconst":
                char = unquote(source)
                if len(char) != 1:
                    raise ValueError(f"malformed character constant: {source}")
                return Literal(token.position, "number", source, Rune(ord(char)))
            return Literal(token.position, "number", source, parse_number(source))
        except ValueError as error:
            raise self.fail(str(error)) from None


def _describe(token: Token) -> str:
    kind, value = token.kind, token.value
    if kind == "eof":
        return "EOF"
    if kind in KEYWORDS or kind == "dot":
        return f"<{value}>"
    return f"{quote(value[:10])}..." if len(value) > 10 else quote(value)


def _is_empty(body: list[Node]) -> bool:
    return all(isinstance(node, Text) and not node.text.strip() for node in body)


def parse_number(source: str) -> int | float:
    """Parse a number constant: an integer in any base, or a float.

    Raises:
        ValueError: in Go's words.
    """
    text = source.replace("_", "")
    sign = -1 if text.startswith("-") else 1
    body = text.lstrip("+-")
    try:
        if body[:2].lower() in ("0x", "0o", "0b"):
            if "p" in body.lower():
                return sign * float.fromhex(body)
            return sign * int(body, 0)
        if body.isdigit():
            return sign * int(body, 8 if len(body) > 1 and body[0] == "0" else 10)
        return sign * float(body)
    except ValueError:
        raise ValueError(f"illegal number syntax: {quote(source)}") from None


_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}


def unquote(source: str) -> str:
    """Return the text of a Go string or character literal.

    Raises:
        ValueError: `invalid syntax`.
    """
    if source[0] == "`":
        return source[1:-1].replace("\r", "")
    body, out, at = source[1:-1], bytearray(), 0
    while at < len(body):
        char = body[at]
        if char != "\\":
            out += char.encode("utf-8", "surrogateescape")
            at += 1
            continue
        letter = body[at + 1 : at + 2]
        size = {"x": 2, "u": 4, "U": 8}.get(letter)
        if letter in _ESCAPES and letter != ("'" if source[0] == '"' else '"'):
            out += _ESCAPES[letter].encode()
            at += 2
            continue
        digits = body[at + 2 : at + 2 + size] if size else body[at + 1 : at + 4]
        base = 16 if size else 8
        try:
            code = int(digits, base)
            if len(digits) != (size or 3):
                raise ValueError
            out += bytes((code,)) if letter == "x" or not size else chr(code).encode()
        except (ValueError, OverflowError):
            raise ValueError("invalid syntax") from None
        at += 2 + size if size else 4
    if source[0] == "'" and len(out) == 1:
        return chr(out[0])
    return out.decode("utf-8", "replace")
