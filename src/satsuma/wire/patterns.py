"""Glob patterns of the builder: Go's `filepath.Match`, and the richer patterns of .dockerignore.

Owns the two dialects and nothing else; it must not know files or directories, only strings.  Both are run by one
small automaton whose cost is pattern length times text length in the worst case, so that a hostile `.dockerignore`
or `COPY` wildcard cannot make the daemon backtrack.

    dialect         *            ?               **                      [a-z] [^a]   \\x
    filepath.Match  not `/`      one, not `/`    same as two `*`         one char     literal x
    ignore          not `/`      one, not `/`    any depth               one char     literal x

Source: Go path/filepath.Match; docs.docker.com/build/concepts/context/#dockerignore-files; moby/patternmatcher.
No `re`, `typing` or `dataclasses` here: the command line imports this module.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # Kind; the character (LITERAL) or the ranges (CLASS); whether the class is negated.
    _Token = tuple[int, str | tuple[tuple[str, str], ...] | None, bool]

__all__ = ["BadPattern", "Glob", "Matcher", "clean", "has_wildcards", "match"]


class BadPattern(ValueError):
    """The pattern has no meaning: an open class, a lone escape."""

    def __init__(self, pattern: str) -> None:
        super().__init__("syntax error in pattern")
        self.pattern = pattern


def clean(path: str) -> str:
    """Return the shortest equivalent of *path*, as Go's `filepath.Clean` (never empty, `.` instead).

    Unlike `posixpath.normpath`, two leading slashes become one.
    """
    rooted = path.startswith("/")
    out: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            out.append(part)
        elif out and out[-1] != "..":
            out.pop()
        elif not rooted:
            out.append("..")
    joined = "/".join(out)
    return "/" + joined if rooted else joined or "."


def has_wildcards(path: str) -> bool:
    """Tell whether *path* holds a wildcard that is not escaped."""
    escaped = False
    for ch in path:
        if escaped:
            escaped = False
        elif ch == "\\":
            escaped = True
        elif ch in "*?[":
            return True
    return False


# Kinds of automaton positions.  A position that consumes one character is LITERAL, ANY or CLASS; the others loop.
_LITERAL, _ANY, _CLASS, _STAR, _DEEP, _DIRS_ENTER, _DIRS_INSIDE = range(7)


class Glob:
    """One compiled pattern; `matches` looks at the whole text.

    Positions are bits of an integer: bit *i* set means that everything before position *i* has been matched.
    `_DIRS_ENTER` and `_DIRS_INSIDE` together are the expression `(.*/)?`.
    """

    __slots__ = ("_deep", "_enter", "_inside", "_moves", "_skip", "_star", "_tokens", "pattern")

    def __init__(self, pattern: str, *, deep: bool = False) -> None:
        self.pattern = pattern
        self._tokens = _tokens(pattern, deep)
        self._moves: dict[str, int] = {}
        self._star = self._mask(_STAR)
        self._deep = self._mask(_DEEP)
        self._enter = self._mask(_DIRS_ENTER)
        self._inside = self._mask(_DIRS_INSIDE)
        self._skip = self._star | self._deep | self._enter

    def _mask(self, kind: int) -> int:
        return sum(1 << i for i, token in enumerate(self._tokens) if token[0] == kind)

    @property
    def literal(self) -> str | None:
        """The only text that matches, or None when there are wildcards."""
        if all(token[0] == _LITERAL for token in self._tokens):
            return "".join(str(token[1]) for token in self._tokens)
        return None

    def matches(self, text: str) -> bool:
        """Tell whether the whole of *text* is described by the pattern."""
        states = self._closure(1)
        for ch in text:
            moves = self._moves.get(ch)
            if moves is None:
                moves = self._moves[ch] = self._consumers(ch)
            following = (states & moves) << 1 | states & (self._deep | self._inside)
            if ch == "/":
                following |= (states & self._inside) << 1
            else:
                following |= states & self._star
            states = self._closure(following)
            if not states:
                return False
        return bool(states >> len(self._tokens) & 1)

    def _consumers(self, ch: str) -> int:
        mask = 0
        for i, (kind, value, negated) in enumerate(self._tokens):
            if kind == _LITERAL:
                hit = value == ch
            elif kind == _ANY:
                hit = ch != "/"
            elif kind == _CLASS and isinstance(value, tuple):
                hit = any(low <= ch <= high for low, high in value) != negated
            else:
                hit = False
            if hit:
                mask |= 1 << i
        return mask

    def _closure(self, states: int) -> int:
        # Each round passes one more skippable position, so this ends after at most as many rounds as there are.
        while True:
            following = states | (states & self._skip) << 1 | (states & self._enter) << 2
            if following == states:
                return states
            states = following


def _tokens(pattern: str, deep: bool) -> list[_Token]:
    tokens: list[_Token] = []
    pos, end = 0, len(pattern)
    while pos < end:
        ch = pattern[pos]
        pos += 1
        if ch == "*":
            run = pos
            if deep and pattern.startswith("*", pos):
                pos += 1
                if pattern.startswith("/", pos):
                    pos += 1
                if pos == end:
                    tokens.append((_DEEP, None, False))
                else:
                    tokens += [(_DIRS_ENTER, None, False), (_DIRS_INSIDE, None, False)]
                continue
            while not deep and pattern.startswith("*", run):
                run += 1
            pos = run
            tokens.append((_STAR, None, False))
        elif ch == "?":
            tokens.append((_ANY, None, False))
        elif ch == "[":
            token, pos = _class(pattern, pos)
            tokens.append(token)
        elif ch == "\\":
            if pos == end:
                raise BadPattern(pattern)
            tokens.append((_LITERAL, pattern[pos], False))
            pos += 1
        else:
            tokens.append((_LITERAL, ch, False))
    return tokens


def _class(pattern: str, pos: int) -> tuple[_Token, int]:
    negated = pattern.startswith("^", pos)
    if negated:
        pos += 1
    ranges: list[tuple[str, str]] = []
    while True:
        if pattern.startswith("]", pos) and ranges:
            return (_CLASS, tuple(ranges), negated), pos + 1
        low, pos = _class_char(pattern, pos)
        high = low
        if pattern.startswith("-", pos):
            high, pos = _class_char(pattern, pos + 1)
        ranges.append((low, high))


def _class_char(pattern: str, pos: int) -> tuple[str, int]:
    if pos < len(pattern) and pattern[pos] == "\\":
        pos += 1
    elif pattern[pos : pos + 1] in ("", "-", "]"):
        raise BadPattern(pattern)
    if pos + 1 >= len(pattern):
        # The class must still be closed after this character.
        raise BadPattern(pattern)
    return pattern[pos], pos + 1


def match(pattern: str, name: str) -> bool:
    """Tell whether *name* is described by *pattern* in the dialect of Go's `filepath.Match`.

    Raises:
        BadPattern: also when *name* would have been refused before the bad part.
    """
    return Glob(pattern).matches(name)


class _Rule:
    """One line of an ignore file."""

    __slots__ = ("_glob", "_literal", "_suffix", "keep", "pattern")

    def __init__(self, pattern: str, keep: bool) -> None:
        Glob(pattern)  # raises BadPattern: the syntax is that of filepath.Match
        self.pattern = pattern
        self.keep = keep
        self._suffix: str | None = None
        self._glob = Glob(pattern, deep=True)
        self._literal = self._glob.literal
        if pattern.startswith("**"):
            rest = Glob(pattern[2:], deep=True)
            if rest.literal == pattern[2:]:
                # `**` before plain text is "ends with": `**foo` matches `xfoo`, which `(.*/)?foo` would not.
                self._suffix = pattern[2:]

    def matches(self, path: str) -> bool:
        if self._literal is not None:
            return path == self._literal
        if self._suffix is not None:
            return path.endswith(self._suffix) or (self._suffix[0] == "/" and path == self._suffix[1:])
        return self._glob.matches(path)


class Matcher:
    """The ordered rules of an ignore file: the last one that speaks of a path, or of a parent of it, wins."""

    __slots__ = ("_rules", "negated")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Compile *patterns*, one a line, `!` before those that take a path back.

        Raises:
            ValueError: a lone `!`; `BadPattern` (a ValueError) for broken syntax.
        """
        self._rules: list[_Rule] = []
        for line in patterns:
            text = line.strip()
            if not text:
                continue
            text = clean(text)
            keep = text.startswith("!")
            if keep:
                text = text[1:]
                if not text:
                    raise ValueError('illegal exclusion pattern: "!"')
            self._rules.append(_Rule(text, keep))
        self.negated = any(rule.keep for rule in self._rules)

    def matches(self, path: str) -> bool:
        """Tell whether *path* (relative, `/` between components) is ignored."""
        path = clean(path)
        if path == ".":
            # The root itself can never be ignored; otherwise `*` would leave no context at all.
            return False
        candidates = [path]
        cut = path.rfind("/")
        while cut > 0:
            candidates.append(path[:cut])
            cut = path.rfind("/", 0, cut)
        ignored = False
        for rule in self._rules:
            # A rule that could only repeat what is already decided need not be looked at.
            if rule.keep == ignored and any(rule.matches(candidate) for candidate in candidates):
                ignored = not rule.keep
        return ignored

    def prunes(self, directory: str) -> bool:
        """Tell whether a walk may skip the ignored *directory*: no later `!` rule reaches into it."""
        if not self.matches(directory):
            return False
        inside = clean(directory) + "/"
        for rule in self._rules:
            if not rule.keep:
                continue
            fixed = rule.pattern
            for i, ch in enumerate(rule.pattern):
                if ch in "*?[\\":
                    fixed = rule.pattern[:i]
                    break
            # Either the fixed part leads into the directory, or a wildcard comes before it could lead elsewhere.
            if (fixed + "/").startswith(inside) or (fixed != rule.pattern and inside.startswith(fixed)):
                return False
        return True
