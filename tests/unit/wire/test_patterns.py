"""Go's filepath.Match and the rules of .dockerignore, as tables."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.wire.patterns import BadPattern, Glob, Matcher, clean, has_wildcards, match

MATCH = [
    # pattern, name, matches
    ("abc", "abc", True),
    ("*", "abc", True),
    ("*", "", True),
    ("*c", "abc", True),
    ("a*", "a", True),
    ("a*", "abc", True),
    ("a*", "ab/c", False),
    ("a*/b", "abc/b", True),
    ("a*/b", "a/c/b", False),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
    ("a*b?c*x", "abxbbxdbxebxczzx", True),
    ("a*b?c*x", "abxbbxdbxebxczzy", False),
    ("ab[c]", "abc", True),
    ("ab[b-d]", "abc", True),
    ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False),
    ("ab[^b-d]", "abc", False),
    ("ab[^e-g]", "abc", True),
    ("a\\*b", "a*b", True),
    ("a\\*b", "ab", False),
    ("a?b", "a☺b", True),
    ("a[^a]b", "a☺b", True),
    ("a???b", "a☺b", False),
    ("[a-ζ]*", "α", True),
    ("*[a-ζ]", "A", False),
    ("a?b", "a/b", False),
    ("a*b", "a/b", False),
    ("[\\]a]", "]", True),
    ("[\\-]", "-", True),
    ("[x\\-]", "x", True),
    ("[x\\-]", "z", False),
    ("[\\-x]", "a", False),
    ("*x", "xxx", True),
    ("**", "ab", True),
    ("**", "a/b", False),
    ("a**b", "axxb", True),
]

BAD = ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "\\", "a\\", "[a-", "x[]", "a[\\"]


@pytest.mark.parametrize(("pattern", "name", "matches"), MATCH)
def test_match_is_gos(pattern: str, name: str, matches: bool) -> None:
    assert match(pattern, name) is matches


@pytest.mark.parametrize("pattern", BAD)
@pytest.mark.parametrize("name", ["a", "", "zzz"])
def test_bad_pattern_is_reported_whatever_the_name(pattern: str, name: str) -> None:
    with pytest.raises(BadPattern, match="syntax error in pattern"):
        match(pattern, name)


CLEAN = [
    ("", "."),
    (".", "."),
    ("./", "."),
    ("a//b", "a/b"),
    ("a/./b/", "a/b"),
    ("a/../b", "b"),
    ("../a", "../a"),
    ("a/../../b", "../b"),
    ("/../a", "/a"),
    ("/", "/"),
    ("//a", "/a"),
    ("a/..", "."),
    ("../../", "../.."),
]


@pytest.mark.parametrize(("path", "cleaned"), CLEAN)
def test_clean(path: str, cleaned: str) -> None:
    assert clean(path) == cleaned


@given(st.text(alphabet="/.ab", max_size=12))
def test_clean_is_idempotent(path: str) -> None:
    assert clean(clean(path)) == clean(path)


@pytest.mark.parametrize(
    ("path", "wild"),
    [("a*", True), ("a?", True), ("[a]", True), ("a\\*", False), ("a", False), ("a\\\\*", True)],
)
def test_has_wildcards(path: str, wild: bool) -> None:
    assert has_wildcards(path) is wild


IGNORE = [
    # patterns, path, ignored
    (["**"], "file", True),
    (["**"], "dir/file", True),
    (["**/"], "dir/file", True),
    (["**/**"], "dir/dir2/file", True),
    (["dir/**"], "dir/file", True),
    (["dir/**"], "dir", False),
    (["dir/**"], "dirx/file", False),
    (["**/dir2/*"], "dir/dir2/file", True),
    (["**/dir2/*"], "dir/dir2", False),
    (["**/dir2/**"], "dir/dir2/dir3/file", True),
    (["**file"], "file", True),
    (["**file"], "dir/dirfile", True),
    (["**/file"], "file", True),
    (["**/file"], "dir/file", True),
    (["**/file"], "dir/xfile", False),
    (["**/*.txt"], "file.txt", True),
    (["**/*.txt"], "dir/dir/file.txt", True),
    (["**/*.txt"], "file.txtx", False),
    (["a**/*.txt"], "a/file.txt", True),
    (["a**/*.txt"], "a/dir/file.txt", True),
    (["a**/*.txt"], "afile.txt", True),
    (["a/*.txt"], "a/file.txt", True),
    (["a/*.txt"], "a/dir/file.txt", False),
    (["a/b/c"], "a/b/c/d/e", True),
    (["a"], "a/b", True),
    (["a"], "b/a", False),
    (["*"], "a/b/c", True),
    (["*.md"], "README.md", True),
    (["*.md"], "docs/README.md", False),
    (["*.md", "!README.md"], "README.md", False),
    (["*.md", "!README.md"], "x.md", True),
    (["!README.md", "*.md"], "README.md", True),
    (["docs", "!docs/README.md"], "docs/README.md", False),
    (["docs", "!docs/README.md"], "docs/x", True),
    (["docs/*", "!docs/keep", "docs/keep/not"], "docs/keep/not", True),
    (["docs/*", "!docs/keep", "docs/keep/not"], "docs/keep/yes", False),
    (["/a"], "a", False),
    (["a?c"], "abc", True),
    (["a?c"], "a/c", False),
    (["[a-c]x"], "bx", True),
    (["[^a-c]x"], "bx", False),
    (["a\\*"], "a*", True),
    (["a\\*"], "ab", False),
    (["a.b"], "axb", False),
    (["a+b(c){2}|d$"], "a+b(c){2}|d$", True),
    ([" a "], "a", True),
    (["", "  "], "a", False),
    (["a/../b"], "b", True),
    (["./a"], "a", True),
    ([".git"], ".git/HEAD", True),
    (["**/.git"], "sub/.git/HEAD", True),
    (["**/*"], "a", True),
    (["abc/**/z"], "abc/z", True),
    (["abc/**/z"], "abc/x/y/z", True),
    (["*/"], "dir/x", True),
    (["foo/bar/*", "!foo/bar/baz"], "foo/bar/baz/x", False),
]


@pytest.mark.parametrize(("patterns", "path", "ignored"), IGNORE)
def test_ignore_rules(patterns: list[str], path: str, ignored: bool) -> None:
    assert Matcher(patterns).matches(path) is ignored


def test_the_root_is_never_ignored() -> None:
    assert Matcher(["*", "**", "."]).matches(".") is False


def test_lone_exclamation_mark_is_refused_with_dockers_words() -> None:
    with pytest.raises(ValueError, match='^illegal exclusion pattern: "!"$'):
        Matcher(["!"])


def test_broken_class_is_refused() -> None:
    with pytest.raises(ValueError, match="syntax error in pattern"):
        Matcher(["a[b-"])


@pytest.mark.parametrize(
    ("patterns", "directory", "prunes"),
    [
        (["a"], "a", True),
        (["a"], "b", False),
        (["a", "!b"], "a", True),
        (["a", "!a/keep"], "a", False),
        (["a", "!a/*/keep"], "a", False),
        (["a", "!**/keep"], "a", False),
        (["*", "!x*"], "abc", True),
        (["a", "!a/b/c"], "a/b", False),
    ],
)
def test_prunes_only_what_cannot_be_taken_back(patterns: list[str], directory: str, prunes: bool) -> None:
    assert Matcher(patterns).prunes(directory) is prunes


@given(
    st.lists(st.sampled_from(["*", "**", "a", "b", "?", "a*", "*b", "[ab]", "a?"]), min_size=1, max_size=4),
    st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=4),
)
def test_prunes_agrees_with_matches(parts: list[str], names: list[str]) -> None:
    matcher = Matcher(["*", "!" + "/".join(parts)])
    path = "/".join(names)
    if not matcher.matches(path):
        for i in range(1, len(names)):
            assert not matcher.prunes("/".join(names[:i]))


def test_hostile_patterns_take_linear_time() -> None:
    text = "a" * 3000
    start = time.monotonic()
    for pattern in ("*a" * 60 + "b", "**/a" * 30 + "/b", "[ab]*" * 60 + "c"):
        assert not Glob(pattern, deep=True).matches(text)
    assert time.monotonic() - start < 5


@given(st.text(alphabet="ab*?[]^-\\/", max_size=10), st.text(alphabet="ab/]-", max_size=8))
def test_any_pattern_matches_or_is_bad(pattern: str, name: str) -> None:
    try:
        match(pattern, name)
    except BadPattern:
        pass
