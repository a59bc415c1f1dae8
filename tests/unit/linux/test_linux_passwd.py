"""Users and groups from the bytes of a container's files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.linux.passwd import UserError, find_home, parse_id, resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
bob:x:1000:1001::/home/bob:/bin/sh
broken
4294967296:x:0:0::/evil:
1_0:x:0:0::/evil:
"""
GROUP = b"root:x:0:\nwheel:x:10:root,bob\naudio:x:29:bob\nbob:x:1001:\n"


def _ids(spec: str, **kw: object) -> tuple[int, int, list[int]]:
    user = resolve_user(spec, PASSWD, GROUP, **kw)  # type: ignore[arg-type]
    return user.uid, user.gid, user.groups


@pytest.mark.parametrize(
    ("spec", "ids"),
    [
        ("", (0, 0, [10])),
        ("root", (0, 0, [10])),
        ("0", (0, 0, [10])),
        ("bob", (1000, 1001, [10, 29])),
        ("bob:audio", (1000, 29, [])),
        ("bob:7", (1000, 7, [])),
        ("1000", (1000, 1001, [10, 29])),
        ("1234", (1234, 0, [])),
        ("1234:5678", (1234, 5678, [])),
        ("00", (0, 0, [10])),
    ],
)
def test_specifications(spec: str, ids: tuple[int, int, list[int]]) -> None:
    assert _ids(spec) == ids


def test_home() -> None:
    assert resolve_user("bob", PASSWD, GROUP).home == "/home/bob"
    assert resolve_user("77", PASSWD, GROUP).home == "/"
    assert find_home(PASSWD, 1000) == "/home/bob"
    assert find_home(b"", 0) == "/"


@pytest.mark.parametrize("spec", ["-1", "+1", "4294967296", "2147483648", "99999999999999999999"])
def test_numbers_out_of_range_are_never_names(spec: str) -> None:
    with pytest.raises(UserError, match="range"):
        resolve_user(spec, PASSWD, GROUP)


@pytest.mark.parametrize("spec", ["foo", " 1", "1 ", "0x0", "\u0661\u0662", "\u00b2"])
def test_unknown_names(spec: str) -> None:
    with pytest.raises(UserError, match=r"unable to find user .*: no matching entries in passwd file"):
        resolve_user(spec, PASSWD, GROUP)


def test_unknown_groups() -> None:
    with pytest.raises(UserError, match="unable to find group foo: no matching entries in group file"):
        resolve_user("bob:foo", PASSWD, GROUP)
    with pytest.raises(UserError, match="Unable to find group nope"):
        resolve_user("bob", PASSWD, GROUP, additional=["nope"])
    assert _ids("1234", additional=["audio", "55"]) == (1234, 0, [29, 55])


def test_parse_id_is_ascii_digits_only() -> None:
    assert parse_id("1_0") is None
    assert parse_id("\u0661") is None
    assert parse_id("2147483647") == 2147483647


@given(st.binary(max_size=300), st.binary(max_size=300), st.text(max_size=20))
def test_any_bytes_give_a_user_or_a_user_error(passwd: bytes, group: bytes, spec: str) -> None:
    try:
        user = resolve_user(spec, passwd, group)
    except UserError:
        return
    assert 0 <= user.uid < 1 << 31
