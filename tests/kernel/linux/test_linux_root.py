"""`Root` and detached mounts on the real kernel."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from satsuma.linux import mount, mountinfo
from satsuma.linux.root import Root


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Root, Path]]:
    top = tmp_path / "top"
    top.mkdir()
    (tmp_path / "outside").write_text("secret")
    with Root.open_path(str(top)) as root:
        yield root, top


def test_paths_stay_inside(tree: tuple[Root, Path], tmp_path: Path) -> None:
    root, top = tree
    (top / "abs").symlink_to(tmp_path / "outside")
    (top / "rel").symlink_to("../outside")
    (top / "up").symlink_to("../../../../../etc")
    for path in ("abs", "rel", "../outside", "/../outside", "up/passwd", "/proc/self/root"):
        with pytest.raises(OSError):
            root.read_file(path)
    root.mkdirs("up/new", 0o700)
    assert (top / "etc/new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "outside").read_text() == "secret"


def test_magic_links_are_refused(tree: tuple[Root, Path]) -> None:
    with Root.open_path("/") as host:
        for path in ("/proc/self/exe", "/proc/self/cwd/x", "/proc/self/fd/0", "/proc/self/root/etc"):
            with pytest.raises(OSError) as caught:
                host.open(path, os.O_PATH)
            assert caught.value.errno == errno.ELOOP


def test_entries(tree: tuple[Root, Path]) -> None:
    root, top = tree
    os.umask(0o077)
    try:
        root.mkdir("d", 0o755)
        root.write_file("d/f", b"content", 0o644)
        root.mknod("d/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    finally:
        os.umask(0o022)
    assert [oct((top / "d" / name).stat().st_mode & 0o777) for name in ("", "f", "null")] == [
        "0o755",
        "0o644",
        "0o666",
    ]
    root.symlink("f", "d/link")
    root.link("d/link", "d/hard")
    assert root.readlink("d/hard") == b"f"
    root.chmod("d/link", 0o600)  # not followed
    assert root.stat("d/f").st_mode & 0o777 == 0o644
    root.lchown("d/link", 5, 6)
    assert (root.lstat("d/link").st_uid, root.stat("d/link").st_uid) == (5, 0)
    root.utimens("d/f", 1_000, 2_000)
    assert root.stat("d/f").st_mtime_ns == 2_000
    root.setxattr("d/f", "user.a", b"v")
    assert root.listxattr("d/f") == ["user.a"] and root.getxattr("d/f", "user.a") == b"v"
    root.removexattr("d/f", "user.a")
    root.rename("d/f", "g")
    assert root.listdir() == [b"d", b"g"]
    assert [path for path, _ in root.walk()] == [b"", b"d", b"d/hard", b"d/link", b"d/null", b"g"]
    assert [path for path, _ in root.walk("/d/null")] == [b"d/null"]
    root.rmtree("d")
    root.unlink("g")
    assert root.listdir() == []
    assert not root.exists("g/x")


def test_open_parent_of_odd_paths(tree: tuple[Root, Path]) -> None:
    root, top = tree
    for path, name in (("/", b"."), ("", b"."), ("a", b"a"), ("/a/", b"a"), ("x/..", b"."), ("n/ew", b"ew")):
        root.mkdirs("x")
        fd, last = root.open_parent(path, create=True)
        os.close(fd)
        assert last == name
    assert (top / "n").is_dir()


def test_links_in_circles_and_files_as_parents(tree: tuple[Root, Path]) -> None:
    root, top = tree
    (top / "loop").symlink_to("loop")
    with pytest.raises(OSError) as caught:
        root.mkdirs("loop/x")
    assert caught.value.errno == errno.ELOOP
    (top / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        root.mkdirs("file/x")
    (top / "dangling").symlink_to("/made/here")
    root.mkdirs("dangling/deep")
    assert (top / "made/here/deep").is_dir()


def test_special_and_large_files_are_not_read(tree: tuple[Root, Path]) -> None:
    root, top = tree
    os.mkfifo(top / "fifo")
    (top / "zero").symlink_to("/dev/zero")
    (top / "big").write_bytes(b"x" * 100)
    with pytest.raises(OSError) as caught:
        root.read_file("fifo")
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(FileNotFoundError):
        root.read_file("zero")
    with pytest.raises(OSError) as caught:
        root.read_file("big", 99)
    assert caught.value.errno == errno.EFBIG
    assert root.read_file("big", 100) == b"x" * 100


def test_very_deep_trees_can_be_removed(tree: tuple[Root, Path]) -> None:
    root, top = tree
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    root.rmtree("d")
    assert root.listdir() == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_overlay_is_detached_and_usable(tree: tuple[Root, Path], tmp_path: Path) -> None:
    names = [f"l{i}" for i in range(40)]
    for name in (*names, "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "l0/both").write_text("top")
    (tmp_path / "l39/both").write_text("bottom")
    (tmp_path / "l39/old").write_text("x")
    lower = [str(tmp_path / name) for name in names]
    before = len(mountinfo.read())
    with Root(mount.overlay(lower, str(tmp_path / "upper"), str(tmp_path / "work"))) as merged:
        assert len(mountinfo.read()) == before
        assert merged.read_file("both") == b"top"
        merged.unlink("old")
        merged.write_file("added", b"1")
    assert sorted(os.listdir(tmp_path / "upper")) == ["added", "old"]
    assert stat.S_ISCHR((tmp_path / "upper/old").stat().st_mode)
    with Root(mount.overlay(lower, None, None)) as view, pytest.raises(OSError) as caught:
        view.write_file("x", b"")
    assert caught.value.errno == errno.EROFS
    with Root(mount.overlay(lower[:1], None, None)) as single, pytest.raises(OSError):
        single.write_file("x", b"")


def test_overlay_of_older_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "_have_lowerdir_plus", False)
    names = [f"l{i}:,x" for i in range(30)]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / names[-1] / "f").write_text("x")
    for count in (2, 30):
        lower = [str(tmp_path / name) for name in [*names[: count - 1], names[-1]]]
        with Root(mount.overlay(lower, None, None)) as view:
            assert view.listdir() == [b"f"]


def test_errors_carry_the_kernels_explanation(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        mount.create("tmpfs", [("nonsense", "1")])
    assert any("nonsense" in note.lower() for note in caught.value.__notes__)
