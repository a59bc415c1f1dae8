"""What the lexer makes: nodes, here-documents, directives, and the file as a whole."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Directive", "Dockerfile", "Heredoc", "Node", "ParseWarning"]


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
