"""Variable expansion, as a table over every form."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.wire.shell_words import Expander, ExpansionError, expand, expand_words

ENV = {
    "HOME": "/home/ada",
    "EMPTY": "",
    "FILE": "/srv/app/archive.tar.gz",
    "STARS": "a*b*c",
    "LINES": "one\ntwo",
    "SPACED": " x  y ",
    "UNI": "grün",
    "_": "underscore",
    "a1": "digits",
}

TEXT = [
    # plain and quoted
    ("plain", "plain"),
    ("two words", "two words"),
    ("'single $HOME'", "single $HOME"),
    ('"double $HOME"', "double /home/ada"),
    ('"it\'s"', "it's"),
    ("'say \"hi\"'", 'say "hi"'),
    ("a'b'c\"d\"e", "abcde"),
    ("''", ""),
    ('""', ""),
    # escapes
    ("\\$HOME", "$HOME"),
    ("\\\\$HOME", "\\/home/ada"),
    ("a\\b", "ab"),
    ("a\\\\b", "a\\b"),
    ("trailing\\", "trailing"),
    ('"a\\"b"', 'a"b'),
    ('"a\\$HOME"', "a$HOME"),
    ('"a\\\\b"', "a\\b"),
    ('"a\\nb"', "a\\nb"),
    ("'a\\b'", "a\\b"),
    # names
    ("$HOME", "/home/ada"),
    ("${HOME}", "/home/ada"),
    ("$HOME/x", "/home/ada/x"),
    ("x${HOME}y", "x/home/aday"),
    ("$HOMEx", ""),
    ("$_", "underscore"),
    ("$a1-", "digits-"),
    ("$UNI", "grün"),
    ("$NOPE", ""),
    ("${NOPE}", ""),
    ("$", "$"),
    ("$.", "$."),
    ("a$", "a$"),
    ("$ x", "$ x"),
    ("$1x", "x"),
    ("$12", ""),
    ("$@$*$#$?$-$$$!$0", ""),
    ("$$HOME", "HOME"),
    # defaults and alternatives
    ("${NOPE:-word}", "word"),
    ("${NOPE-word}", "word"),
    ("${EMPTY:-word}", "word"),
    ("${EMPTY-word}", ""),
    ("${HOME:-word}", "/home/ada"),
    ("${HOME-word}", "/home/ada"),
    ("${NOPE:-$HOME}", "/home/ada"),
    ("${NOPE:-${EMPTY:-deep}}", "deep"),
    ("${NOPE:-'quoted }'}", "quoted }"),
    ('${NOPE:-"$HOME}"}', "/home/ada}"),
    ("${NOPE:-a\\}b}", "a}b"),
    ("${NOPE:-}", ""),
    ("${NOPE:+word}", ""),
    ("${NOPE+word}", ""),
    ("${EMPTY:+word}", ""),
    ("${EMPTY+word}", "word"),
    ("${HOME:+word}", "word"),
    ("${HOME:+$UNI}", "grün"),
    ("${HOME:?must}", "/home/ada"),
    ("${EMPTY?must}", ""),
    ('"${NOPE:-a b}"', "a b"),
    # prefixes and suffixes
    ("${FILE#*/}", "srv/app/archive.tar.gz"),
    ("${FILE##*/}", "archive.tar.gz"),
    ("${FILE%.*}", "/srv/app/archive.tar"),
    ("${FILE%%.*}", "/srv/app/archive"),
    ("${FILE#nope}", "/srv/app/archive.tar.gz"),
    ("${FILE%nope}", "/srv/app/archive.tar.gz"),
    ("${FILE#}", "/srv/app/archive.tar.gz"),
    ("${FILE#?}", "srv/app/archive.tar.gz"),
    ("${FILE%??}", "/srv/app/archive.tar."),
    ("${STARS#a\\*}", "b*c"),
    ("${STARS##a*\\*}", "c"),
    ("${STARS%\\*c}", "a*b"),
    ("${STARS%%\\**}", "a"),
    ("${NOPE#x}", ""),
    ("${UNI%ün}", "gr"),
    ("${LINES##*o}", "ne\ntwo"),
    # replacing
    ("${FILE/a/A}", "/srv/App/archive.tar.gz"),
    ("${FILE//a/A}", "/srv/App/Archive.tAr.gz"),
    ("${FILE//a/}", "/srv/pp/rchive.tr.gz"),
    ("${FILE//\\//:}", ":srv:app:archive.tar.gz"),
    ("${FILE/.*/}", "/srv/app/archive"),
    ("${FILE//?a/_}", "/srv_pp_rchive._r.gz"),
    ("${STARS//\\*/+}", "a+b+c"),
    ("${HOME/ada/$UNI}", "/home/grün"),
    ("${NOPE/a/b}", ""),
    ("${UNI//*/all}", "all"),
    ("${UNI///x}", "xgxrxüxnx"),
]

ERRORS = [
    ("'open", "unexpected end of statement while looking for matching single-quote"),
    ('"open', "unexpected end of statement while looking for matching double-quote"),
    ('"open\\"', "unexpected end of statement while looking for matching double-quote"),
    ("${", "syntax error: missing '}'"),
    ("${}", "syntax error: bad substitution"),
    ("${{x}}", "syntax error: bad substitution"),
    ("${:x}", "syntax error: bad substitution"),
    ("${HOME", "unsupported modifier () in substitution"),
    ("${HOME:-x", "syntax error: missing '}'"),
    ("${HOME:=x}", "unsupported modifier (:=) in substitution"),
    ("${HOME=x}", "unsupported modifier (=) in substitution"),
    ("${HOME:#x}", "unsupported modifier (:#) in substitution"),
    ("${HOME:%x}", "unsupported modifier (:%) in substitution"),
    ("${HOME!x}", "unsupported modifier (!) in substitution"),
    ("${NOPE:?}", "NOPE: is not allowed to be unset"),
    ("${NOPE?}", "NOPE: is not allowed to be unset"),
    ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
    ("${NOPE:?say why}", "NOPE: say why"),
    ("${HOME/a", "syntax error: missing '/' in ${}"),
    ("${HOME/a/b", "syntax error: missing '}'"),
    ("${HOME#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"),
]


@pytest.mark.parametrize(("word", "result"), TEXT)
def test_expand(word: str, result: str) -> None:
    assert expand(word, ENV) == result


@pytest.mark.parametrize(("word", "message"), ERRORS)
def test_errors_have_dockers_words(word: str, message: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        expand(word, ENV)
    assert str(caught.value).startswith("failed to process ")
    assert str(caught.value).endswith(message)


WORDS = [
    ("a b  c", ["a", "b", "c"]),
    (" a ", ["a"]),
    ("'a b' c", ["a b", "c"]),
    ("a\\ b c", ["a b", "c"]),
    ("$SPACED", ["x", "y"]),
    ('"$SPACED"', [" x  y "]),
    ("a${SPACED}b", ["a", "x", "y", "b"]),
    ("''", []),
    ("$NOPE", []),
    ("80${NOPE:-8} 90", ["808", "90"]),
    ("$LINES", ["one", "two"]),
]


@pytest.mark.parametrize(("word", "words"), WORDS)
def test_expand_words(word: str, words: list[str]) -> None:
    assert expand_words(word, ENV) == words


def test_backquote_as_escape() -> None:
    assert expand("C:\\dir `$HOME $UNI", ENV, escape="`") == "C:\\dir $HOME grün"


def test_plain_quotes_are_text() -> None:
    how = Expander(plain_quotes=True)
    assert how.run('it\'s "$UNI" \\$UNI', ENV).text == 'it\'s "grün" $UNI'


@pytest.mark.parametrize("word", ["$NOPE", "${NOPE}", "${NOPE:-x}", "${NOPE#x}", "${NOPE/a/b}"])
def test_keep_unset(word: str) -> None:
    assert Expander(keep_unset=True).run(word, {}).text == word


def test_raw_quotes_and_escapes() -> None:
    how = Expander(raw_quotes=True, raw_escapes=True)
    assert how.run("'a b' \"c\" d\\ e", {}).words == ["'a b'", '"c"', "d\\ e"]


def test_it_tells_which_variables_were_read() -> None:
    result = Expander().run("$HOME ${NOPE:-$UNI} ${MISSING}", ENV)
    assert result.used == {"HOME", "UNI"}
    assert result.missing == {"NOPE", "MISSING"}


def test_nesting_is_bounded() -> None:
    with pytest.raises(ExpansionError, match="nested too deeply"):
        expand("${x:-" * 500 + "}" * 500, {})


def test_patterns_take_linear_time() -> None:
    start = time.monotonic()
    assert expand("${x##" + "*a" * 40 + "b}", {"x": "a" * 2000}) == "a" * 2000
    assert time.monotonic() - start < 5


@given(st.text(alphabet="aX$\\{}'\":-+?#%/ *", max_size=14))
def test_any_text_expands_or_is_an_error(word: str) -> None:
    try:
        expand(word, {"a": "1", "X": ""})
    except ExpansionError:
        pass
