"""Bytes of a Dockerfile to nodes: one node an instruction, with its flags, arguments and here-documents.

Variables are not touched here and nothing is looked up: a node says what is written, not what it means.

Source: docs.docker.com/reference/dockerfile/#format, #parser-directives, #here-documents; reference parser of BuildKit
observed for the order of the rules (directive before comment, comment inside a continuation, JSON before shell form).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from satsuma.wire.dockerfile.errors import DockerfileError
from satsuma.wire.goquote import quote
from satsuma.wire.shell_words import Expander, ExpansionError

__all__ = [
    "Directive",
    "Dockerfile",
    "Heredoc",
    "Node",
    "ParseWarning",
    "parse",
    "parse_heredoc_word",
    "split_words",
]

# bufio.Scanner's default token limit, less the newline: Docker's parser refuses longer lines.
_MAX_LINE = 65535

_BLANKS = re.compile(r"[\t\v\f\r ]+")
_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$", re.DOTALL)
_HEREDOC = re.compile(r"([0-9]*)<<(-?)\s*([^<]*)", re.DOTALL)
_KNOWN_DIRECTIVES = frozenset({"syntax", "escape", "check"})
_WITH_HEREDOCS = frozenset({"add", "copy", "run"})


@dataclass(frozen=True, slots=True)
class Directive:
    """A parser directive: `# escape=…`."""

    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Heredoc:
    """The text behind `<<NAME`.

    Attributes:
        expand: the delimiter was not quoted, so variables in the text are expanded.
        chomp: `<<-`, leading tabs are to be dropped.
        content: the raw text, tabs still in it.
    """

    name: str
    fd: int
    expand: bool
    chomp: bool
    content: str

    @property
    def text(self) -> str:
        """The content, without leading tabs where that was asked for."""
        return re.sub(r"(?m)^\t+", "", self.content) if self.chomp else self.content


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One instruction as written.

    Attributes:
        keyword: as written, any case.
        flags: the leading `--x[=y]` words, quotes and escapes resolved.
        args: the arguments, split as this instruction splits them.
        json: the arguments were a JSON array (exec form).
        pairs: key, value of ENV and LABEL (args is empty then).
        original: the whole instruction on one line.
        comments: the comment block directly above.
        child: the instruction behind ONBUILD.
    """

    keyword: str
    flags: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    json: bool = False
    pairs: tuple[tuple[str, str], ...] = ()
    original: str = ""
    heredocs: tuple[Heredoc, ...] = ()
    first_line: int = 0
    last_line: int = 0
    comments: tuple[str, ...] = ()
    child: Node | None = None


@dataclass(frozen=True, slots=True)
class ParseWarning:
    """Something that works today and should be written otherwise."""

    message: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A parsed file."""

    directives: tuple[Directive, ...]
    nodes: tuple[Node, ...]
    escape: str
    warnings: tuple[ParseWarning, ...]

    def directive(self, name: str) -> str | None:
        """Return the value of a directive, or None."""
        return next((d.value for d in self.directives if d.name == name), None)


def parse(data: bytes) -> Dockerfile:
    """Parse the bytes of a Dockerfile into nodes.

    Raises:
        DockerfileError: with the lines it is about.
    """
    return _Parser(data).run()


class _Parser:
    def __init__(self, data: bytes) -> None:
        if data.startswith(b"\xef\xbb\xbf"):
            data = data[3:]
        # Bytes that are not UTF-8 must survive as they are: a name in COPY may hold any byte.
        self._lines: Iterator[str] = iter(_split_lines(data.decode("utf-8", "surrogateescape")))
        self._line = 0
        self._escape = "\\"
        self._directives: list[Directive] = []
        self._in_directives = True
        self._comments: list[str] = []
        self._warnings: list[ParseWarning] = []

    def run(self) -> Dockerfile:
        nodes: list[Node] = []
        while (raw := self._next()) is not None:
            node = self._instruction(raw)
            if node is not None:
                nodes.append(node)
        if not nodes:
            raise DockerfileError("file with no instructions", self._line)
        return Dockerfile(
            directives=tuple(self._directives),
            nodes=tuple(nodes),
            escape=self._escape,
            warnings=tuple(self._warnings),
        )

    def _next(self) -> str | None:
        """Return the next line with its line end, or None."""
        line = next(self._lines, None)
        if line is None:
            return None
        self._line += 1
        if (
            len(line) > _MAX_LINE // 4
            and len(line.encode("utf-8", "surrogateescape").rstrip(b"\n")) > _MAX_LINE
        ):
            message = f"dockerfile line greater than max allowed size of {_MAX_LINE}"
            raise DockerfileError(message, self._line)
        return line

    def _instruction(self, raw: str) -> Node | None:
        line = raw.rstrip("\r\n").lstrip()
        if self._directive(line):
            return None
        if line.startswith("#"):
            comment = line[1:].strip()
            if comment:
                self._comments.append(comment)
            else:
                self._comments.clear()
            return None
        first = self._line
        line, more = self._trim_continuation(line)
        if not more and not line:
            return None
        line = self._continue(line) if more else line
        try:
            node = _node(line, self._escape, first, self._line, tuple(self._comments))
            heredocs = self._heredocs(node, line)
        except DockerfileError as exc:
            if not exc.first_line:
                exc.first_line, exc.last_line = first, self._line
            raise
        except ExpansionError as exc:
            raise DockerfileError(str(exc), first, self._line) from None
        self._comments.clear()
        if not heredocs:
            return node
        return replace(node, heredocs=heredocs, last_line=self._line)

    def _directive(self, line: str) -> bool:
        if not self._in_directives:
            return False
        found = _DIRECTIVE.match(line[1:].lstrip()) if line.startswith("#") else None
        if not found or found[1].lower() not in _KNOWN_DIRECTIVES:
            # The first line that is no directive ends them, even a blank one.
            self._in_directives = False
            return False
        name, value = found[1].lower(), found[2]
        if any(d.name == name for d in self._directives):
            raise DockerfileError(f"only one {name} parser directive can be used", self._line)
        if name == "escape":
            if value not in ("\\", "`"):
                message = f"invalid escape token '{value}' does not match ` or \\"
                raise DockerfileError(message, self._line)
            self._escape = value
        self._directives.append(Directive(name, value, self._line))
        return True

    def _trim_continuation(self, line: str) -> tuple[str, bool]:
        text = line.rstrip(" \t")
        if text.endswith(self._escape) and not text.endswith(self._escape * 2):
            return text[:-1], True
        return line, False

    def _continue(self, line: str) -> str:
        parts = [line]
        empty_line = 0
        more = True
        while more and (raw := self._next()) is not None:
            stripped = raw.strip()
            if stripped.startswith("#"):
                continue
            if not stripped:
                empty_line = self._line
                continue
            part, more = self._trim_continuation(raw.rstrip("\r\n"))
            parts.append(part)
        whole = "".join(parts)
        if empty_line:
            self._warnings.append(ParseWarning(f"Empty continuation line found in: {whole}", self._line))
        return whole

    def _heredocs(self, node: Node, line: str) -> tuple[Heredoc, ...]:
        inner = node.child if node.keyword.lower() == "onbuild" and node.child else node
        if "<<" not in line or inner.json or inner.keyword.lower() not in _WITH_HEREDOCS:
            return ()
        return tuple(self._heredoc_body(heredoc) for heredoc in _heredocs_of(line))

    def _heredoc_body(self, heredoc: Heredoc) -> Heredoc:
        start = self._line
        body: list[str] = []
        while (raw := self._next()) is not None:
            candidate = raw.rstrip("\r\n")
            if heredoc.chomp:
                candidate = candidate.lstrip("\t")
            if candidate == heredoc.name:
                return Heredoc(heredoc.name, heredoc.fd, heredoc.expand, heredoc.chomp, "".join(body))
            body.append(raw)
        raise DockerfileError("unterminated heredoc", start, self._line)


def _split_lines(text: str) -> Iterator[str]:
    # str.splitlines would also cut at form feeds and Unicode separators.
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _node(line: str, escape: str, first: int, last: int, comments: tuple[str, ...]) -> Node:
    keyword, flags, rest = _split_command(line, escape)
    arguments = _ARGUMENTS.get(keyword.lower(), _ignored)(rest, escape)
    return Node(
        keyword=keyword,
        flags=flags,
        args=arguments.args,
        json=arguments.json,
        pairs=arguments.pairs,
        child=arguments.child,
        original=line,
        first_line=first,
        last_line=last,
        comments=comments,
    )


def _split_command(line: str, escape: str) -> tuple[str, tuple[str, ...], str]:
    parts = _BLANKS.split(line.strip(), maxsplit=1)
    if len(parts) < 2:
        return parts[0], (), ""
    flags, rest = _split_flags(parts[1], escape)
    return parts[0], flags, rest.strip()


def _split_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    flags: list[str] = []
    pos = 0
    while True:
        while pos < len(text) and text[pos].isspace():
            pos += 1
        if not text.startswith("--", pos):
            return tuple(flags), text[pos:]
        word, pos = _flag_word(text, pos, escape)
        if word == "--":
            return tuple(flags), text[pos:]
        flags.append(word)


def _flag_word(text: str, pos: int, escape: str) -> tuple[str, int]:
    out: list[str] = []
    mark = ""
    while pos < len(text):
        ch = text[pos]
        pos += 1
        if ch == escape:
            out.append(text[pos : pos + 1])
            pos += 1
        elif mark:
            if ch == mark:
                mark = ""
            else:
                out.append(ch)
        elif ch in "'\"":
            mark = ch
        elif ch.isspace():
            return "".join(out), pos - 1
        else:
            out.append(ch)
    return "".join(out), len(text)


# --- arguments, one function for each way to write them -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Arguments:
    args: tuple[str, ...] = ()
    json: bool = False
    pairs: tuple[tuple[str, str], ...] = ()
    child: Node | None = None


def split_words(text: str, escape: str) -> list[str]:
    """Split *text* at blanks outside quotes; quotes and escapes stay for the expansion that comes later."""
    words: list[str] = []
    word: list[str] = []
    mark = ""
    quoted_any = False
    pos = 0
    while pos < len(text):
        ch = text[pos]
        pos += 1
        if not mark and ch.isspace():
            if word or quoted_any:
                words.append("".join(word))
            word, quoted_any = [], False
            continue
        if ch == escape and mark != "'":
            if pos == len(text):
                # An escape at the very end escapes nothing.
                break
            word.append(ch + text[pos])
            pos += 1
            continue
        if mark and ch == mark:
            mark = ""
        elif not mark and ch in "'\"":
            mark, quoted_any = ch, True
        word.append(ch)
    if word or quoted_any:
        words.append("".join(word))
    return words


def _blank_separated(rest: str, _escape: str) -> _Arguments:
    return _Arguments(tuple(_BLANKS.split(rest))) if rest else _Arguments()


def _one_string(rest: str, _escape: str) -> _Arguments:
    return _Arguments((rest,)) if rest else _Arguments()


def _ignored(_rest: str, _escape: str) -> _Arguments:
    return _Arguments()


def _names(rest: str, escape: str) -> _Arguments:
    return _Arguments(tuple(split_words(rest, escape)))


def _json_array(rest: str) -> tuple[str, ...] | None:
    """Return the strings of a JSON array, or None when *rest* is no JSON array at all."""
    text = rest.lstrip()
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in value):
        raise DockerfileError("when using JSON array syntax, arrays must be comprised of strings only")
    return tuple(value)


def _no_constant(name: str) -> object:
    # NaN and Infinity are Python's additions to JSON.
    raise ValueError(name)


def _json_or_string(rest: str, escape: str) -> _Arguments:
    items = _json_array(rest)
    return _one_string(rest, escape) if items is None else _Arguments(items, json=True)


def _json_or_list(rest: str, escape: str) -> _Arguments:
    items = _json_array(rest)
    return _blank_separated(rest, escape) if items is None else _Arguments(items, json=True)


def _key_values(keyword: str) -> Callable[[str, str], _Arguments]:
    def parse_pairs(rest: str, escape: str) -> _Arguments:
        words = split_words(rest, escape)
        if not words:
            return _Arguments()
        if "=" not in words[0]:
            # The old form `ENV name the rest is the value`.
            parts = _BLANKS.split(rest, maxsplit=1)
            if len(parts) < 2:
                raise DockerfileError(f"{keyword} must have two arguments")
            return _Arguments(pairs=((parts[0], parts[1]),))
        pairs: list[tuple[str, str]] = []
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                message = f"Syntax error - can't find = in {quote(word)}. Must be of the form: name=value"
                raise DockerfileError(message)
            pairs.append((key, value))
        return _Arguments(pairs=tuple(pairs))

    return parse_pairs


def _health(rest: str, escape: str) -> _Arguments:
    parts = rest.split(maxsplit=1)
    if not parts:
        return _Arguments()
    command = _json_or_string(parts[1].strip(), escape) if len(parts) > 1 else _Arguments()
    return _Arguments((parts[0], *command.args), json=command.json)


def _sub_instruction(rest: str, escape: str) -> _Arguments:
    if not rest:
        return _Arguments()
    child = _node(rest, escape, 0, 0, ())
    return _Arguments((child.keyword, *child.args), child=child)


_ARGUMENTS: dict[str, Callable[[str, str], _Arguments]] = {
    "add": _json_or_list,
    "arg": _names,
    "cmd": _json_or_string,
    "copy": _json_or_list,
    "entrypoint": _json_or_string,
    "env": _key_values("ENV"),
    "expose": _blank_separated,
    "from": _blank_separated,
    "healthcheck": _health,
    "label": _key_values("LABEL"),
    "maintainer": _one_string,
    "onbuild": _sub_instruction,
    "run": _json_or_string,
    "shell": _json_or_string,
    "stopsignal": _one_string,
    "user": _one_string,
    "volume": _json_or_list,
    "workdir": _one_string,
}


# --- here-documents -------------------------------------------------------------------------------------------------


def parse_heredoc_word(word: str) -> Heredoc | None:
    """Return the here-document that *word* (`<<EOF`, `3<<-"EOF"`) opens, without content, or None.

    Raises:
        ExpansionError: an open quote in the delimiter.
    """
    found = _HEREDOC.fullmatch(word)
    if not found or not found[3]:
        return None
    plain = Expander(keep_unset=True).run(found[3], {}).words
    if len(plain) != 1:
        return None
    raw = Expander(keep_unset=True, raw_quotes=True).run(found[3], {}).words
    # A quote that disappears when quotes are resolved was one: the text is then literal.
    expand = _quotes(plain[0]) == _quotes(" ".join(raw))
    return Heredoc(plain[0], int(found[1] or 0), expand, found[2] == "-", "")


def _quotes(word: str) -> int:
    return word.count("'") + word.count('"')


def _heredocs_of(line: str) -> list[Heredoc]:
    try:
        words = Expander(raw_quotes=True, raw_escapes=True, keep_unset=True).run(line, {}).words
    except ExpansionError:
        # The line is shell, not Dockerfile: quotes that do not pair here are the shell's business.
        return []
    found = (parse_heredoc_word(word) for word in words)
    return [heredoc for heredoc in found if heredoc is not None]
