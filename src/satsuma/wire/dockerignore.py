"""The `.dockerignore` file: bytes in, rules out.

Owns the line format (comments, `!`, leading slash); what a pattern means is `satsuma.wire.patterns`.  It must not
know directories: who walks a context asks `Matcher.matches` for each path.

Source: docs.docker.com/build/concepts/context/#dockerignore-files; moby/patternmatcher ignorefile.
No `re`, `typing` or `dataclasses` here: the command line imports this module.
"""

from __future__ import annotations

from satsuma.wire.patterns import Matcher, clean

__all__ = ["load", "parse"]


def parse(data: bytes) -> list[str]:
    """Return the patterns of a `.dockerignore` file, in order, cleaned, `!` kept in front.

    A comment starts with `#` in the first column only; one leading slash means nothing.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    patterns: list[str] = []
    for raw in data.split(b"\n"):
        line = raw.decode("utf-8", "surrogateescape")
        if line.startswith("#"):
            continue
        line = line.strip()
        if not line:
            continue
        keep = line.startswith("!")
        if keep:
            line = line[1:].strip()
        if line:
            line = clean(line)
            if len(line) > 1 and line.startswith("/"):
                line = line[1:]
        patterns.append("!" + line if keep else line)
    return patterns


def load(data: bytes) -> Matcher:
    """Return the compiled rules of a `.dockerignore` file.

    Raises:
        ValueError: a pattern is broken, with Docker's words (`illegal exclusion pattern: "!"`).
    """
    return Matcher(parse(data))
