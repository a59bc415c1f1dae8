"""Mount points: the small languages of -v and --mount."""

from __future__ import annotations

import pytest

from satsuma.base.errors import InvalidParameter
from satsuma.container.mounts import (
    is_valid_mode,
    merge_points,
    parse_bind,
    parse_mount,
    parse_volumes_from,
    tmpfs_options,
)
from satsuma.container.oci import merge_tmpfs_options
from satsuma.spec.docker import BindOptions, Mount, TmpfsOptions, VolumeOptions


def test_a_host_path_is_a_bind_and_is_made_when_missing() -> None:
    point = parse_bind("/host//x:/in/./side:ro,z,rshared")
    assert (point.type, point.source, point.destination) == ("bind", "/host/x", "/in/side")
    assert (point.rw, point.propagation, point.mode) == (False, "rshared", "ro,z,rshared")
    assert point.create_source


def test_a_name_is_a_volume() -> None:
    point = parse_bind("data:/d:nocopy")
    assert (point.type, point.name, point.copy_data, point.rw) == ("volume", "data", False, True)


def test_a_lone_path_is_an_anonymous_volume() -> None:
    point = parse_bind("/data")
    assert (point.type, point.name, point.anonymous, point.copy_data) == ("volume", "", True, True)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "invalid volume specification: ''"),
        (":/x", "invalid volume specification: ':/x'"),
        ("/x:ro", "invalid volume specification: '/x:ro'"),
        ("a:/b:ro:x", "invalid volume specification: 'a:/b:ro:x'"),
        ("a:/b:zz", "invalid mode: zz"),
        ("a:/b:ro,rw", "invalid mode: ro,rw"),
        (
            "v:/v"[0:1] + ":relative",
            "invalid volume specification: 'v:relative': invalid mount config for type \"volume\": "
            "invalid mount path: 'relative' mount path must be absolute",
        ),
        (
            "/a:/",
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'",
        ),
    ],
)
def test_bad_binds(raw: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_bind(raw)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (Mount(type="bind", source="/a"), "field Target must not be empty"),
        (Mount(type="bind", target="/a"), "field Source must not be empty"),
        (Mount(type="nope", target="/a"), "mount type unknown"),
        (Mount(type="tmpfs", target="/a", source="x"), "field Source must not be specified"),
        (
            Mount(type="volume", target="/a", read_only=True),
            "must not set ReadOnly mode when using anonymous volumes",
        ),
        (
            Mount(type="volume", target="/a", volume_options=VolumeOptions(subpath="x")),
            "must not set Subpath when using anonymous volumes",
        ),
        (
            Mount(type="volume", source="v", target="/a", volume_options=VolumeOptions(subpath="../x")),
            "subpath must be a relative path within the volume",
        ),
        (
            Mount(type="bind", source="/a", target="/b", bind_options=BindOptions(propagation="x")),
            "invalid propagation mode: x",
        ),
        (
            Mount(
                type="bind",
                source="/a",
                target="/b",
                bind_options=BindOptions(read_only_force_recursive=True),
            ),
            "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive",
        ),
    ],
)
def test_bad_mounts(mount: Mount, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_mount(mount, lambda path: True)
    assert str(caught.value) == f'invalid mount config for type "{mount.type}": {words}'


def test_later_sources_win_and_doubles_are_refused() -> None:
    inherited = [parse_bind("old:/d"), parse_bind("keep:/k")]
    merged = merge_points([inherited, [parse_bind("new:/d")], []], None)
    assert {point.name for point in merged.values()} == {"new", "keep"}
    with pytest.raises(InvalidParameter, match=r"^Duplicate mount point: /d$"):
        merge_points([[], [parse_bind("a:/d"), parse_bind("b:/d")], []], None)
    with pytest.raises(InvalidParameter, match=r"^Duplicate mount point: /d$"):
        merge_points([[], [parse_bind("a:/d")], []], {"/d": ""})


def test_volumes_from() -> None:
    assert parse_volumes_from("web") == ("web", "rw")
    assert parse_volumes_from("web:ro") == ("web", "ro")
    for bad in ("", "web:shared", "web:nocopy", "web:x"):
        with pytest.raises(InvalidParameter):
            parse_volumes_from(bad)


def test_modes() -> None:
    assert is_valid_mode("ro,Z,rslave,nocopy,cached")
    assert not is_valid_mode("ro,ro")


def test_tmpfs_options() -> None:
    assert tmpfs_options(TmpfsOptions(size_bytes=1024, mode=0o1777), read_only=True) == [
        "ro",
        "mode=1777",
        "size=1024",
    ]
    assert merge_tmpfs_options(["noexec", "nosuid", "exec", "size=1m", "size=2m"]) == [
        "nosuid",
        "exec",
        "size=2m",
    ]
    with pytest.raises(InvalidParameter, match='invalid tmpfs option "bogus"'):
        merge_tmpfs_options(["bogus"])


def test_nocopy_is_for_volumes_only() -> None:
    with pytest.raises(InvalidParameter, match="field VolumeOptions must not be specified"):
        parse_bind("/host:/d:nocopy")
    assert parse_bind("/host:/d", volume_driver="local").driver == ""
