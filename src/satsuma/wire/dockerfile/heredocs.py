"""The words that open here-documents: `<<EOF`, `<<-EOF`, `3<<"EOF"`.

Source: docs.docker.com/reference/dockerfile/#here-documents.
"""

from __future__ import annotations

import re

from satsuma.wire.dockerfile.nodes import Heredoc
from satsuma.wire.shell_words import Expander, ExpansionError

__all__ = ["heredocs_of", "parse_heredoc_word"]

_HEREDOC = re.compile(r"([0-9]*)<<(-?)\s*([^<]*)", re.DOTALL)


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


def heredocs_of(line: str) -> list[Heredoc]:
    """Return the here-documents that a line opens, in order, without content."""
    try:
        words = Expander(raw_quotes=True, raw_escapes=True, keep_unset=True).run(line, {}).words
    except ExpansionError:
        # The line is shell, not Dockerfile: quotes that do not pair here are the shell's business.
        return []
    found = (parse_heredoc_word(word) for word in words)
    return [heredoc for heredoc in found if heredoc is not None]
