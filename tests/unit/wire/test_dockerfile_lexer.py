"""From bytes to nodes: directives, comments, continuation, flags, JSON forms, here-documents, errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.base.errors import InvalidParameter
from satsuma.wire.dockerfile import Dockerfile, DockerfileError, Node, parse, parse_heredoc_word


def one(text: str | bytes) -> Node:
    nodes = parse(text.encode() if isinstance(text, str) else text).nodes
    assert len(nodes) == 1, nodes
    return nodes[0]


ARGUMENTS: list[tuple[str, tuple[str, ...], bool]] = [
    ("FROM busybox", ("busybox",), False),
    ("from  busybox \t AS  x", ("busybox", "AS", "x"), False),
    ("RUN echo hi", ("echo hi",), False),
    ("RUN   echo   hi  ", ("echo   hi",), False),
    ('RUN ["echo", "hi"]', ("echo", "hi"), True),
    ('RUN  [ "echo" ,"h i" ] ', ("echo", "h i"), True),
    ("RUN []", (), True),
    ("RUN [ -e /x ]", ("[ -e /x ]",), False),
    ("RUN ['single']", ("['single']",), False),
    ('RUN ["a" "b"]', ('["a" "b"]',), False),
    ('RUN ["a"] x', ('["a"] x',), False),
    ("RUN [NaN]", ("[NaN]",), False),
    ('RUN ["\\u00e9\\n"]', ("é\n",), True),
    ("CMD", (), False),
    ("COPY a b c", ("a", "b", "c"), False),
    ('COPY ["a b", "c"]', ("a b", "c"), True),
    ("VOLUME /a /b", ("/a", "/b"), False),
    ('VOLUME ["/a"]', ("/a",), True),
    ("EXPOSE 80  90/udp", ("80", "90/udp"), False),
    ("WORKDIR /a b", ("/a b",), False),
    ("USER u:g", ("u:g",), False),
    ("MAINTAINER Ada <a@b>", ("Ada <a@b>",), False),
    ('ARG a b=1 c="x y" d=x\\ y', ("a", "b=1", 'c="x y"', "d=x\\ y"), False),
    ("HEALTHCHECK NONE", ("NONE",), False),
    ("HEALTHCHECK CMD curl -f x", ("CMD", "curl -f x"), False),
    ('HEALTHCHECK CMD ["curl", "x"]', ("CMD", "curl", "x"), True),
    ("ONBUILD RUN echo hi", ("RUN", "echo hi"), False),
    ("ONBUILD", (), False),
    ("UNKNOWN a b", (), False),
]


@pytest.mark.parametrize(("line", "args", "is_json"), ARGUMENTS)
def test_arguments(line: str, args: tuple[str, ...], is_json: bool) -> None:
    node = one(line)
    assert (node.args, node.json) == (args, is_json)


PAIRS = [
    ("ENV a=1", (("a", "1"),)),
    ("ENV a=1 b=2", (("a", "1"), ("b", "2"))),
    ("ENV a b c", (("a", "b c"),)),
    ('ENV a "b c"', (("a", '"b c"'),)),
    ("ENV a=", (("a", ""),)),
    ("ENV a='x y' b=\"z=1\"", (("a", "'x y'"), ("b", '"z=1"'))),
    ("ENV a=x\\ y b=1", (("a", "x\\ y"), ("b", "1"))),
    ("ENV a=b=c", (("a", "b=c"),)),
    ('LABEL "a.b"="c d" e=f', (('"a.b"', '"c d"'), ("e", "f"))),
    ("LABEL a b", (("a", "b"),)),
    ("ENV", ()),
]


@pytest.mark.parametrize(("line", "pairs"), PAIRS)
def test_pairs(line: str, pairs: tuple[tuple[str, str], ...]) -> None:
    assert one(line).pairs == pairs


FLAGS = [
    ("COPY --from=x --chown=1:2 a b", ("--from=x", "--chown=1:2"), ("a", "b")),
    ("COPY --link a b", ("--link",), ("a", "b")),
    ("RUN --mount=type=bind,target=/x  make", ("--mount=type=bind,target=/x",), ("make",)),
    ("RUN --x='a b' c", ("--x=a b",), ("c",)),
    ('RUN --x="a\\"b" c', ('--x=a"b',), ("c",)),
    ("RUN --x=a\\ b c", ("--x=a b",), ("c",)),
    ("RUN -- --y", (), ("--y",)),
    ("RUN --x=1 -- y", ("--x=1",), ("y",)),
    ("RUN -x y", (), ("-x y",)),
    ("RUN echo --x", (), ("echo --x",)),
    ("RUN --x=ä y", ("--x=ä",), ("y",)),
    ("RUN --only", ("--only",), ()),
]


@pytest.mark.parametrize(("line", "flags", "args"), FLAGS)
def test_flags(line: str, flags: tuple[str, ...], args: tuple[str, ...]) -> None:
    node = one(line)
    assert (node.flags, node.args) == (flags, args)


CONTINUATION = [
    ("RUN a \\\n b", "RUN a  b"),
    ("RUN a\\\nb", "RUN ab"),
    ("RUN a \\  \t\n  b", "RUN a   b"),
    ("RUN a \\\r\n b\r\n", "RUN a  b"),
    ("RUN a \\\n# comment\n b", "RUN a  b"),
    ("RUN a \\\n  # comment\n b", "RUN a  b"),
    ("RUN a \\\n\n b", "RUN a  b"),
    ("RUN a \\\n", "RUN a "),
    ("RUN a \\\\\n", "RUN a \\\\"),
    ("\\\nRUN a", "RUN a"),
    ("RUN a \\\n\\\n b", "RUN a  b"),
    ("   RUN a", "RUN a"),
]


@pytest.mark.parametrize(("text", "original"), CONTINUATION)
def test_continuation(text: str, original: str) -> None:
    assert one(text).original == original


def test_line_numbers_cover_the_whole_instruction() -> None:
    nodes = parse(b"\n# c\nFROM x\n\nRUN a \\\n  b \\\n  c\nCOPY <<E /x\n1\n2\nE\nCMD x\n").nodes
    assert [(n.keyword, n.first_line, n.last_line) for n in nodes] == [
        ("FROM", 3, 3),
        ("RUN", 5, 7),
        ("COPY", 8, 11),
        ("CMD", 12, 12),
    ]


def test_empty_continuation_line_is_a_warning() -> None:
    parsed = parse(b"FROM x\nRUN a \\\n\n  b\n")
    assert [w.message for w in parsed.warnings] == ["Empty continuation line found in: RUN a   b"]


def test_comments_above_an_instruction_belong_to_it() -> None:
    nodes = parse(b"# one\n# two\nFROM x\n# lost\n#\n# kept\nRUN y\nRUN z\n").nodes
    assert [n.comments for n in nodes] == [("one", "two"), ("kept",), ()]


DIRECTIVES: list[tuple[bytes, dict[str, str]]] = [
    (b"# syntax=docker/dockerfile:1\nFROM x", {"syntax": "docker/dockerfile:1"}),
    (b"#syntax = a b \nFROM x", {"syntax": "a b"}),
    (
        b"# SYNTAX=a\n# escape=`\n# check=skip=all\nFROM x",
        {"syntax": "a", "escape": "`", "check": "skip=all"},
    ),
    (b"\xef\xbb\xbf# escape=`\nFROM x", {"escape": "`"}),
    (b"# comment\n# escape=`\nFROM x", {}),
    (b"\n# escape=`\nFROM x", {}),
    (b"# unknown=1\n# escape=`\nFROM x", {}),
    (b"FROM x\n# escape=`\n", {}),
    (b"# escape=`\nFROM x\n# syntax=y\n", {"escape": "`"}),
]


@pytest.mark.parametrize(("data", "directives"), DIRECTIVES)
def test_directives(data: bytes, directives: dict[str, str]) -> None:
    parsed = parse(data)
    assert {d.name: d.value for d in parsed.directives} == directives
    assert parsed.escape == directives.get("escape", "\\")


def test_backquote_continues_lines() -> None:
    parsed = parse(b"# escape=`\nFROM x\nRUN dir C:\\ `\n  /s\n")
    assert parsed.nodes[1].args == ("dir C:\\   /s",)


HEREDOCS = [
    ("<<EOF", ("EOF", 0, True, False)),
    ("<<-EOF", ("EOF", 0, True, True)),
    ("3<<EOF", ("EOF", 3, True, False)),
    ("<<'EOF'", ("EOF", 0, False, False)),
    ('<<"E O F"', ("E O F", 0, False, False)),
    ("<<E'O'F", ("EOF", 0, False, False)),
    ("<< EOF", ("EOF", 0, True, False)),
    ("<<", None),
    ("<<<EOF", None),
    ("<EOF", None),
    ("EOF", None),
    ("a<<EOF", None),
    ("<<a b", None),
]


@pytest.mark.parametrize(("word", "expected"), HEREDOCS)
def test_heredoc_words(word: str, expected: tuple[str, int, bool, bool] | None) -> None:
    found = parse_heredoc_word(word)
    assert (found and (found.name, found.fd, found.expand, found.chomp)) == expected


def test_several_heredocs_in_one_instruction() -> None:
    node = one("COPY <<a <<-'b' /x/\nline $1\n\ta\na\n\tin b\n\tb\n")
    assert [(h.name, h.text, h.expand) for h in node.heredocs] == [
        ("a", "line $1\n\ta\n", True),
        ("b", "in b\n", False),
    ]


def test_heredoc_bodies_are_not_dockerfile() -> None:
    nodes = parse(b"FROM x\nRUN <<EOF\n# not a comment\nCOPY \\\n\nEOF\nCMD y\n").nodes
    assert nodes[1].heredocs[0].content == "# not a comment\nCOPY \\\n\n"
    assert nodes[2].keyword == "CMD"


def test_heredoc_keeps_carriage_returns_but_ends_with_them() -> None:
    node = one("RUN <<EOF\r\na\r\nEOF\r\n")
    assert node.heredocs[0].content == "a\r\n"


def test_no_heredoc_in_other_instructions_or_json() -> None:
    assert not one("CMD cat <<EOF").heredocs
    assert not one('RUN ["<<EOF"]').heredocs
    assert not one("RUN echo '<<EOF'").heredocs
    assert one("ONBUILD RUN <<EOF\nx\nEOF\n").heredocs[0].content == "x\n"


def test_shift_in_shell_arithmetic_is_no_heredoc() -> None:
    assert not one("RUN echo $((1<<2))").heredocs


ERRORS: list[tuple[bytes, str, int]] = [
    (b"", "file with no instructions", 0),
    (b"# only a comment\n\n", "file with no instructions", 2),
    (b"FROM x\nENV a\n", "ENV must have two arguments", 2),
    (b"FROM x\nLABEL a\n", "LABEL must have two arguments", 2),
    (
        b"FROM x\nENV a=1 b\n",
        'Syntax error - can\'t find = in "b". Must be of the form: name=value',
        2,
    ),
    (b'FROM x\nCMD ["a", 1]\n', "when using JSON array syntax, arrays must be comprised of strings only", 2),
    (b"FROM x\nRUN <<EOF\nbody\n", "unterminated heredoc", 2),
    (b"# escape=x\nFROM x\n", "invalid escape token 'x' does not match ` or \\", 1),
    (b"# escape=`\n# escape=`\nFROM x\n", "only one escape parser directive can be used", 2),
    (b"FROM x\nRUN " + b"a" * 65536, "dockerfile line greater than max allowed size of 65535", 2),
]


@pytest.mark.parametrize(("data", "message", "line"), ERRORS)
def test_errors_say_where(data: bytes, message: str, line: int) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(data)
    assert str(caught.value) == message
    assert caught.value.first_line == line
    assert isinstance(caught.value, InvalidParameter)


def test_the_longest_line_is_allowed() -> None:
    assert len(one(b"RUN " + b"a" * (65535 - 4) + b"\n").original) == 65535


def test_bytes_that_are_not_utf8_survive() -> None:
    assert one(b"COPY caf\xe9 /x").args[0] == "caf\udce9"


_PIECES = st.sampled_from(
    [
        "FROM x",
        "RUN a",
        "\\\n",
        "\n",
        " ",
        "#",
        "<<E",
        "E\n",
        "'",
        '"',
        "--f=",
        "=",
        "ENV ",
        "[",
        "]",
        "`",
        "ONBUILD ",
    ]
)


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_any_text_parses_or_is_the_declared_error(text: str) -> None:
    try:
        parsed: Any = parse(text.encode())
    except DockerfileError:
        return
    assert isinstance(parsed, Dockerfile)
    assert all(node.first_line <= node.last_line for node in parsed.nodes)
