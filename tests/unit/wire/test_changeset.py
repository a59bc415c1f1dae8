"""Whiteout names and extended attributes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.wire.changeset import ChangesetError, keeps_xattr, opaque_name, whiteout_name, whiteout_target

names = st.binary(min_size=1, max_size=50).filter(lambda n: b"/" not in n and b"\0" not in n)


@given(names.filter(lambda n: n not in (b".", b"..") and not n.startswith(b".wh.")))
def test_whiteout_of_a_name_deletes_it(name):
    assert whiteout_target(whiteout_name(b"dir/" + name)[4:]) == name
    assert whiteout_target(name) is None


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh..."])
def test_whiteouts_of_nothing_and_of_parents_are_errors(name):
    with pytest.raises(ChangesetError):
        whiteout_target(name)


def test_aufs_entries_are_ordinary_names():
    assert whiteout_target(b".wh..wh.plnk") is None


def test_opaque_marks():
    assert opaque_name(b"a/b/") == b"a/b/.wh..wh..opq"
    assert opaque_name(b"") == b".wh..wh..opq"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"security.capability", True),
        (b"user.comment", True),
        (b"trusted.overlay.opaque", False),
        (b"trusted.x", False),
        (b"user.overlay.redirect", False),
        (b"security.selinux", False),
        (b"system.posix_acl_access", False),
    ],
)
def test_only_harmless_attributes_are_kept(name, kept):
    assert keeps_xattr(name) is kept
