"""Names of archive entries, and the rule for single references."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.image.changes import apply_change
from satsuma.image.extract import clean
from satsuma.image.removal import is_single_reference
from satsuma.wire import reference


@given(st.binary(max_size=60))
def test_cleaned_names_stay_inside(name):
    cleaned = clean(name)
    assert not cleaned.startswith(b"/")
    assert not {b"", b".", b".."} & set(cleaned.split(b"/")) or cleaned == b""
    assert clean(cleaned) == cleaned
    assert clean(b"/" + name) == cleaned


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (b"./a", b"a"),
        (b"/a/b/", b"a/b"),
        (b"a/../../../b", b"b"),
        (b"..", b""),
        (b".wh.x", b".wh.x"),
        (b"a//b", b"a/b"),
        (b"...", b"..."),
    ],
)
def test_clean(name, wanted):
    assert clean(name) == wanted


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("refs", "single"),
    [
        ([], True),
        (["a:1"], True),
        (["a:1", "a:2"], False),
        (["a:1", "b:1"], False),
        (["a:1", f"a@{DIGEST}"], True),
        (["a:1", f"b@{DIGEST}"], False),
        ([f"a@{DIGEST}", f"b@{DIGEST}"], False),
    ],
)
def test_single_reference_as_docker_counts(refs, single):
    assert is_single_reference([reference.parse(ref) for ref in refs]) is single


def test_apply_change_returns_a_changed_copy():
    config = {"Cmd": ["a"]}
    assert apply_change(config, 'CMD ["b"]')["Cmd"] == ["b"]
    assert config == {"Cmd": ["a"]}
