"""Volumes of the local driver: names, options, users, copy-up."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from satsuma.base.errors import Conflict, InvalidParameter, NotFound
from satsuma.linux.root import Root
from satsuma.volume import VolumeService, copy_up
from satsuma.volume.service import check_options, split_mount_options


class Row(NamedTuple):
    id: str
    doc: bytes


class Rows:
    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.durable: dict[str, bool] = {}

    def insert(self, id: str, doc: bytes, *, created_ns: int = 0, durable: bool = True) -> None:
        self.rows[id] = doc
        self.durable[id] = durable

    def delete(self, id: str) -> bool:
        return self.rows.pop(id, None) is not None

    def all(self) -> list[Row]:
        return [Row(*item) for item in self.rows.items()]


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def volumes(rows: Rows, tmp_path: Path) -> VolumeService:
    service = VolumeService(rows, str(tmp_path / "volumes"))
    service.open([])
    return service


def test_create_is_idempotent_and_makes_the_directory(volumes: VolumeService) -> None:
    first, fresh = volumes.create("data", labels={"a": "b"})
    again, second = volumes.create("data")
    assert (fresh, second) == (True, False)
    assert again is first and again.labels == {"a": "b"}
    assert stat.S_IMODE(os.stat(volumes.mountpoint("data")).st_mode) == 0o755
    shown = volumes.to_json(first)
    assert shown["Mountpoint"].endswith("/volumes/data/_data")
    assert (shown["Options"], shown["Scope"], shown["Driver"]) == (None, "local", "local")
    assert shown["CreatedAt"].endswith("Z") and "." not in shown["CreatedAt"]


def test_anonymous_volumes_are_marked_and_cost_no_sync(volumes: VolumeService, rows: Rows) -> None:
    volume, _ = volumes.create()
    assert len(volume.name) == 64 and volume.is_anonymous
    assert rows.durable[volume.name] is False
    volumes.create("data")
    assert rows.durable["data"] is True


def test_a_volume_in_use_stays(volumes: VolumeService) -> None:
    volumes.create("data")
    volumes.refer("data", "c1")
    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c1\]"):
        volumes.remove("data")
    volumes.release("data", "c1")
    assert volumes.remove("data")
    volumes.discard("data")
    assert not os.path.exists(volumes.mountpoint("data"))
    with pytest.raises(NotFound, match=r"^get data: no such volume$"):
        volumes.find("data")
    assert volumes.remove("data", force=True) is False


def again(rows: Rows, tmp_path: Path) -> VolumeService:
    """The volumes as the next daemon finds them."""
    service = VolumeService(rows, str(tmp_path / "volumes"))
    service.open(rows.all())
    return service


def test_a_directory_without_a_row_is_cleared_away_only_when_it_is_empty(
    volumes: VolumeService, rows: Rows, tmp_path: Path
) -> None:
    volumes.create("kept")
    anonymous = "ab" * 32
    for name in ("stray", "data", anonymous):
        (tmp_path / "volumes" / name / "_data").mkdir(parents=True)
    for name in ("data", anonymous):
        (tmp_path / "volumes" / name / "_data" / "file").write_text("precious")
    found = again(rows, tmp_path)
    assert [volume.name for volume in found.all()] == [anonymous, "data", "kept"]
    assert found.find(anonymous).is_anonymous and not found.find("data").is_anonymous
    assert sorted(os.listdir(tmp_path / "volumes")) == [".removing", anonymous, "data", "kept"]
    assert [volume.name for volume in again(rows, tmp_path).all()] == [anonymous, "data", "kept"]


def test_no_content_is_lost_with_a_row_that_cannot_be_read(
    volumes: VolumeService, rows: Rows, tmp_path: Path
) -> None:
    volumes.create("data")
    Path(volumes.mountpoint("data"), "file").write_text("precious")
    rows.rows["data"] = b"{"
    assert again(rows, tmp_path).all() == []
    assert Path(volumes.mountpoint("data"), "file").read_text() == "precious"


def test_a_removal_that_died_is_finished(
    volumes: VolumeService, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, point in (("early", "volume.marked"), ("late", "volume.row-deleted")):
        volumes.create(name)
        Path(volumes.mountpoint(name), "file").write_text("unwanted")

        def dies(reached: str, point: str = point) -> None:
            if reached == point:
                raise KeyboardInterrupt

        monkeypatch.setattr("satsuma.volume.service.failpoint", dies)
        with pytest.raises(KeyboardInterrupt):
            volumes.remove(name)
        monkeypatch.undo()
    assert sorted(os.listdir(tmp_path / "volumes" / ".removing")) == ["early", "late"]
    assert again(rows, tmp_path).all() == []
    assert rows.rows == {}
    assert os.listdir(tmp_path / "volumes") == [".removing"]


def test_a_name_can_be_used_again_at_once(volumes: VolumeService) -> None:
    volumes.create("data")
    Path(volumes.mountpoint("data"), "old").touch()
    volumes.remove("data")
    volumes.create("data")
    Path(volumes.mountpoint("data"), "new").touch()
    volumes.discard("data")
    assert os.listdir(volumes.mountpoint("data")) == ["new"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "a"}, "volume name is too short"),
        ({"name": "../x"}, "includes invalid characters for a local volume name"),
        ({"name": "ok", "options": {"bogus": "1"}}, 'invalid option: "bogus"'),
        ({"name": "ok", "options": {"type": "tmpfs"}}, 'missing required option: "device"'),
        ({"name": "ok", "options": {"size": "1g"}}, "quota size requested but no quota support"),
    ],
)
def test_refusals(volumes: VolumeService, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        volumes.create(**arguments)
    assert volumes.all() == []


def test_unknown_drivers_are_not_found(volumes: VolumeService) -> None:
    with pytest.raises(NotFound) as caught:
        volumes.create("q", driver="nodriver")
    assert str(caught.value) == (
        'create q: error looking up volume plugin nodriver: plugin "nodriver" not found'
    )


def test_mount_options_are_split() -> None:
    assert split_mount_options(["ro", "size=1m", "uid=5", "noexec", "rw", "x"]) == (
        0x9,
        [("size", "1m"), ("uid", "5"), ("x", None)],
    )
    check_options({"type": "nfs", "device": ":/x", "o": "addr=1.2.3.4"})


@pytest.mark.skipif(os.geteuid() != 0, reason="owners can be kept by root only")
def test_copy_up_keeps_everything_and_happens_once(tmp_path: Path) -> None:
    image, target = tmp_path / "image", tmp_path / "volume"
    data = image / "data"
    (data / "sub").mkdir(parents=True)
    target.mkdir()
    (data / "file").write_bytes(b"x" * 100_000)
    os.link(data / "file", data / "hard")
    (data / "soft").symlink_to("../../../etc/passwd")
    os.mkfifo(data / "pipe", 0o640)
    os.chown(data / "file", 7, 8)
    os.chmod(data / "file", 0o4755)
    os.chown(data, 33, 44)
    os.chmod(data, 0o2775)
    os.utime(data / "sub", ns=(10**9, 2 * 10**9))
    with Root.open_path(str(image)) as source, Root.open_path(str(target)) as root:
        assert copy_up(source, "/data", root)
        assert not copy_up(source, "/data", root)
        assert not copy_up(source, "/nope", root)
    top = os.stat(target)
    assert (top.st_uid, top.st_gid, stat.S_IMODE(top.st_mode)) == (33, 44, 0o2775)
    found = os.stat(target / "file")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (7, 8, 0o4755)
    assert found.st_ino == os.stat(target / "hard").st_ino
    assert os.readlink(target / "soft") == "../../../etc/passwd"
    assert stat.S_ISFIFO(os.stat(target / "pipe").st_mode)
    assert os.stat(target / "sub").st_mtime_ns == 2 * 10**9
    assert (target / "file").read_bytes() == b"x" * 100_000


def test_a_link_in_the_image_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("key")
    (tmp_path / "volume").mkdir()
    (tmp_path / "image" / "data").symlink_to(tmp_path / "secret")
    with Root.open_path(str(tmp_path / "image")) as source, Root.open_path(str(tmp_path / "volume")) as root:
        assert not copy_up(source, "/data", root)
    assert os.listdir(tmp_path / "volume") == []
