"""Variable expansion and word splitting as Dockerfile instructions have it: a small piece of the POSIX shell.

Owns `$x`, `${x}` and all its modifiers, the two kinds of quotes, the escape character, and splitting into words.
It must not know instructions or where variables come from: it is given a mapping.

    ${x:-w} ${x-w}   default          ${x#p} ${x##p}   without shortest, longest prefix
    ${x:+w} ${x+w}   alternative      ${x%p} ${x%%p}   without shortest, longest suffix
    ${x:?m} ${x?m}   error            ${x/p/r} ${x//p/r}   replace first, all

Patterns know `*` and `?`; they run on sets of positions, so no value can make them backtrack.

Source: POSIX XCU 2.2 and 2.6.2; docs.docker.com/reference/dockerfile/#environment-replacement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from satsuma.wire.goquote import quote

__all__ = ["Expansion", "ExpansionError", "expand", "expand_words"]

_SPECIAL_PARAMETERS = frozenset("@*#?-$!0")
# Nested `${a:-${b:-…}}` is read recursively; real files nest two or three deep.
_MAX_DEPTH = 100


class ExpansionError(ValueError):
    """The word cannot be expanded; the text is Docker's."""


@dataclass(slots=True)
class Expansion:
    """What came out of a word."""

    text: str
    words: list[str]
    used: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)


def expand(word: str, env: Mapping[str, str], **options: object) -> str:
    """Expand *word* as one string: quotes go, blanks stay.

    Args:
        options: as for `Expander`.
    Raises:
        ExpansionError: open quote or brace, unknown modifier, `${x:?message}` of an unset variable.
    """
    return Expander(**options).run(word, env).text  # type: ignore[arg-type]


def expand_words(word: str, env: Mapping[str, str], **options: object) -> list[str]:
    """Expand *word* and split it at blanks that were not quoted, also those that came out of a variable."""
    return Expander(**options).run(word, env).words  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expander:
    """How to expand.

    Attributes:
        escape: the escape character, a backslash or a backquote.
        raw_quotes: leave the quote characters in the result.
        raw_escapes: leave the escape characters in the result.
        plain_quotes: quotes are ordinary characters (bodies of here-documents).
        keep_unset: leave `$x` as it is when x is not set.
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    plain_quotes: bool = False
    keep_unset: bool = False

    def run(self, word: str, env: Mapping[str, str]) -> Expansion:
        """Expand *word*; the result says also which variables were read."""
        reader = _Reader(self, word, env)
        try:
            text, words = reader.read("", self.raw_escapes, 0)
        except ExpansionError as exc:
            raise ExpansionError(f"failed to process {quote(word)}: {exc}") from None
        return Expansion(text, words, reader.used, reader.missing)


class _Words:
    """Collects characters into words."""

    __slots__ = ("_buffer", "words")

    def __init__(self) -> None:
        self.words: list[str] = []
        self._buffer: list[str] = []

    def split(self, text: str) -> None:
        for ch in text:
            if ch.isspace():
                self.end()
            else:
                self._buffer.append(ch)

    def raw(self, text: str) -> None:
        if text:
            self._buffer.append(text)

    def end(self) -> None:
        if self._buffer:
            self.words.append("".join(self._buffer))
            self._buffer.clear()


class _Reader:
    """A cursor over one word."""

    __slots__ = ("_env", "_how", "_pos", "_source", "missing", "used")

    def __init__(self, how: Expander, source: str, env: Mapping[str, str]) -> None:
        self._how = how
        self._source = source
        self._env = env
        self._pos = 0
        self.used: set[str] = set()
        self.missing: set[str] = set()

    def _peek(self) -> str:
        return self._source[self._pos : self._pos + 1]

    def _next(self) -> str:
        ch = self._source[self._pos : self._pos + 1]
        self._pos += 1
        return ch

    def read(self, stop: str, raw_escapes: bool, depth: int) -> tuple[str, list[str]]:
        """Read up to *stop* (which is eaten) or, with none, to the end."""
        if depth > _MAX_DEPTH:
            raise ExpansionError("substitution is nested too deeply")
        out: list[str] = []
        words = _Words()
        while ch := self._peek():
            if stop and ch == stop:
                self._pos += 1
                words.end()
                return "".join(out), words.words
            piece, quoted = self._piece(ch, raw_escapes, depth)
            out.append(piece)
            if quoted:
                words.raw(piece)
            else:
                words.split(piece)
        if stop:
            raise ExpansionError(f"unexpected end of statement while looking for matching {stop}")
        words.end()
        return "".join(out), words.words

    def _piece(self, ch: str, raw_escapes: bool, depth: int) -> tuple[str, bool]:
        """Read the next character or group; the flag says that its blanks do not split words."""
        if ch == "$":
            return self._dollar(raw_escapes, depth), False
        if ch == "'" and not self._how.plain_quotes:
            return self._single_quoted(), True
        if ch == '"' and not self._how.plain_quotes:
            return self._double_quoted(raw_escapes, depth), True
        if ch == "<":
            return self._less_than(), True
        self._pos += 1
        if ch != self._how.escape:
            return ch, False
        # An escape at the very end escapes nothing and is dropped.
        escaped = self._next()
        return (ch if raw_escapes else "") + escaped, True

    def _less_than(self) -> str:
        # `<< EOF` is one word, so blanks behind `<<` belong to it.
        start = self._pos
        self._pos += 1
        if self._peek() == "<":
            self._pos += 1
            while self._peek() and self._peek() in "\t\r ":
                self._pos += 1
        return self._source[start : self._pos]

    def _single_quoted(self) -> str:
        end = self._source.find("'", self._pos + 1)
        if end < 0:
            self._pos = len(self._source)
            raise ExpansionError("unexpected end of statement while looking for matching single-quote")
        start, self._pos = self._pos, end + 1
        return self._source[start : end + 1] if self._how.raw_quotes else self._source[start + 1 : end]

    def _double_quoted(self, raw_escapes: bool, depth: int) -> str:
        self._pos += 1
        mark = '"' if self._how.raw_quotes else ""
        out = [mark]
        while ch := self._peek():
            if ch == "$":
                out.append(self._dollar(raw_escapes, depth))
                continue
            self._pos += 1
            if ch == '"':
                out.append(mark)
                return "".join(out)
            if ch == self._how.escape:
                if raw_escapes:
                    out.append(ch)
                following = self._peek()
                if not following:
                    continue
                if following in ('"', "$", self._how.escape):
                    ch = following
                    self._pos += 1
                elif raw_escapes:
                    continue
            out.append(ch)
        raise ExpansionError("unexpected end of statement while looking for matching double-quote")

    def _name(self) -> str:
        start = self._pos
        first = self._peek()
        if first.isdigit():
            while self._peek().isdigit():
                self._pos += 1
        elif first in _SPECIAL_PARAMETERS and first:
            self._pos += 1
        else:
            while (ch := self._peek()) and (ch.isalpha() or ch.isdigit() or ch == "_"):
                self._pos += 1
        return self._source[start : self._pos]

    def _lookup(self, name: str) -> str | None:
        value = self._env.get(name)
        (self.missing if value is None else self.used).add(name)
        return value

    def _dollar(self, raw_escapes: bool, depth: int) -> str:
        self._pos += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._lookup(name)
            if value is None:
                return f"${name}" if self._how.keep_unset else ""
            return value
        self._pos += 1
        if not self._peek():
            raise ExpansionError("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise ExpansionError("syntax error: bad substitution")
        name = self._name()
        operator = self._next()
        if operator == "}":
            value = self._lookup(name)
            if value is None:
                return f"${{{name}}}" if self._how.keep_unset else ""
            return value
        if operator == "/":
            return self._replace(name, depth)
        return self._modified(name, operator, raw_escapes, depth)

    def _modified(self, name: str, operator: str, raw_escapes: bool, depth: int) -> str:
        shown, colon = operator, operator == ":"
        if colon:
            operator = self._next()
            shown += operator
        if not operator or operator not in "+-?#%" or (colon and operator in "#%"):
            raise ExpansionError(f"unsupported modifier ({shown}) in substitution")
        word = self._until("}", operator in "#%", depth, "syntax error: missing '}'")
        value = self._lookup(name)
        if value is None and self._how.keep_unset:
            return f"${{{name}{shown}{word}}}"
        absent = value is None or (colon and value == "")
        if operator == "-":
            return word if absent else value or ""
        if operator == "+":
            return "" if absent else word
        if operator == "?":
            if absent:
                state = "unset" if value is None else "empty"
                raise ExpansionError(f"{name}: {word or f'is not allowed to be {state}'}")
            return value or ""
        longest = word.startswith(operator)
        return _trim(value or "", word[1:] if longest else word, longest=longest, suffix=operator == "%")

    def _until(self, stop: str, raw_escapes: bool, depth: int, at_end: str) -> str:
        try:
            return self.read(stop, raw_escapes, depth + 1)[0]
        except ExpansionError:
            if self._pos >= len(self._source):
                raise ExpansionError(at_end) from None
            raise

    def _replace(self, name: str, depth: int) -> str:
        every = self._peek() == "/"
        if every:
            self._pos += 1
        pattern = self._until("/", True, depth, "syntax error: missing '/' in ${}")
        replacement = self._until("}", True, depth, "syntax error: missing '}'")
        value = self._lookup(name)
        if value is None:
            if self._how.keep_unset:
                return f"${{{name}/{pattern}/{replacement}}}"
            value = ""
        return _substitute(value, pattern, replacement, every=every)


_Token = str | None  # one character; "" is `?`; None is `*`


def _pattern(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    pos = 0
    while pos < len(text):
        ch = text[pos]
        pos += 1
        if ch == "*":
            tokens.append(None)
        elif ch == "?":
            tokens.append("")
        elif ch == "\\":
            escaped = text[pos : pos + 1]
            if escaped and escaped in "}/":
                # `}` and `/` are escaped for the sake of `${}`; the escape is not part of the pattern.
                continue
            if not escaped or escaped not in "*?\\":
                raise ExpansionError(
                    f"invalid pattern ({text}) in substitution: invalid escape '\\{escaped}'"
                )
            tokens.append(escaped)
            pos += 1
        else:
            tokens.append(ch)
    return tokens


def _ends(tokens: list[_Token], value: str, start: int) -> list[int]:
    """Return every end of a match that begins at *start*, ascending."""

    def skip_stars(states: set[int]) -> set[int]:
        work = list(states)
        while work:
            state = work.pop()
            if state < len(tokens) and tokens[state] is None and state + 1 not in states:
                states.add(state + 1)
                work.append(state + 1)
        return states

    states = skip_stars({0})
    ends = [start] if len(tokens) in states else []
    for pos in range(start, len(value)):
        ch = value[pos]
        following: set[int] = set()
        for state in states:
            token = tokens[state] if state < len(tokens) else "end"
            if token is None:
                if ch != "\n":
                    following.add(state)
            elif (token == "" and ch != "\n") or token == ch:
                following.add(state + 1)
        if not following:
            break
        states = skip_stars(following)
        if len(tokens) in states:
            ends.append(pos + 1)
    return ends


def _trim(value: str, pattern: str, *, longest: bool, suffix: bool) -> str:
    tokens = _pattern(pattern)
    if suffix:
        tokens.reverse()
        value = value[::-1]
    ends = _ends(tokens, value, 0)
    if ends:
        value = value[ends[-1] if longest else ends[0] :]
    return value[::-1] if suffix else value


def _substitute(value: str, pattern: str, replacement: str, *, every: bool) -> str:
    tokens = _pattern(pattern)
    out: list[str] = []
    pos, previous_end = 0, -1
    while pos <= len(value):
        ends = _ends(tokens, value, pos)
        # An empty match right behind the match before it does not count.
        if ends and not (ends[-1] == pos == previous_end):
            out.append(replacement)
            previous_end = ends[-1]
            if not every:
                return "".join(out) + value[previous_end:]
            if previous_end > pos:
                pos = previous_end
                continue
        out.append(value[pos : pos + 1])
        pos += 1
    return "".join(out)
