"""One line to one node: keyword, flags, and the arguments as this instruction splits them.

Source: docs.docker.com/reference/dockerfile/#shell-and-exec-form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from satsuma.wire.dockerfile.errors import DockerfileError
from satsuma.wire.dockerfile.nodes import Node
from satsuma.wire.goquote import quote

__all__ = ["make_node"]

_BLANKS = re.compile(r"[\t\v\f\r ]+")


def make_node(line: str, escape: str, first: int, last: int, comments: tuple[str, ...]) -> Node:
    """Return the node of an instruction that has been joined to one line."""
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


def _split_words(text: str, escape: str) -> list[str]:
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
    return _Arguments(tuple(_split_words(rest, escape)))


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
        words = _split_words(rest, escape)
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
    child = make_node(rest, escape, 0, 0, ())
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
