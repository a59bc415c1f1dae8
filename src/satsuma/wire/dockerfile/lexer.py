"""Bytes of a Dockerfile to nodes: one node an instruction, with its flags, arguments and here-documents.

Variables are not touched here and nothing is looked up: a node says what is written, not what it means.

Source: docs.docker.com/reference/dockerfile/#format, #parser-directives, #here-documents; reference parser of BuildKit
observed for the order of the rules (directive before comment, comment inside a continuation, JSON before shell form).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from satsuma.wire.dockerfile.arguments import make_node
from satsuma.wire.dockerfile.errors import DockerfileError
from satsuma.wire.dockerfile.heredocs import heredocs_of
from satsuma.wire.dockerfile.nodes import Directive, Dockerfile, Heredoc, Node, ParseWarning
from satsuma.wire.shell_words import ExpansionError

__all__ = ["parse"]

# bufio.Scanner's default token limit, less the newline: Docker's parser refuses longer lines.
_MAX_LINE = 65535

_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$", re.DOTALL)
_KNOWN_DIRECTIVES = frozenset({"syntax", "escape", "check"})
_WITH_HEREDOCS = frozenset({"add", "copy", "run"})


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
            node = make_node(line, self._escape, first, self._line, tuple(self._comments))
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
        return tuple(self._heredoc_body(heredoc) for heredoc in heredocs_of(line))

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
