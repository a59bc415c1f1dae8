"""Intel RDT groups, on an ordinary directory in the shape of a resctrl file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from satsuma.runtime import resctrl
from satsuma.runtime.errors import ConfigError, RuntimeFailure


def make_top(tmp_path: Path) -> Path:
    (tmp_path / "schemata").write_text("L3:0=fff\nMB:0=100\n")
    (tmp_path / "tasks").write_text("")
    return tmp_path


def prepared(top: Path, name: str, schemata: str = "L3:0=fff;1=0ff\nMB:0=100\n") -> Path:
    """The kernel fills a new directory; here it is made beforehand."""
    directory = top / name
    (directory / "mon_groups").mkdir(parents=True)
    (directory / "schemata").write_text(schemata)
    (directory / "tasks").write_text("")
    return directory


def test_schemata_are_in_the_order_of_the_specification(tmp_path: Path) -> None:
    config = {"schemata": ["L2:0=f"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f\nMB:0=90"}
    assert resctrl.Group(config, "id", str(tmp_path)).lines == ["L3:0=f", "MB:0=20", "L2:0=f"]


def test_a_group_of_its_own_goes_with_the_container(tmp_path: Path) -> None:
    top = make_top(tmp_path)
    group = resctrl.Group({}, "id", str(top))
    group.create()
    assert group.made == [f"{top}/id"] and (top / "id").is_dir()
    group.remove()
    assert not (top / "id").exists()


def test_a_named_group_is_shared_and_stays(tmp_path: Path) -> None:
    top = make_top(tmp_path)
    prepared(top, "guests")
    group = resctrl.Group({"closID": "guests", "l3CacheSchema": "L3: 0=FFF ; 1=ff"}, "id", str(top))
    group.create()
    assert group.made == []
    group.join(77)
    assert (top / "guests/tasks").read_text() == "77"
    group.remove()
    assert (top / "guests").is_dir()


def test_a_shared_group_with_other_values_is_refused(tmp_path: Path) -> None:
    top = make_top(tmp_path)
    prepared(top, "guests")
    with pytest.raises(RuntimeFailure, match="does not hold there"):
        resctrl.Group({"closID": "guests", "l3CacheSchema": "L3:0=1;1=1"}, "id", str(top)).create()


def test_monitoring_group(tmp_path: Path) -> None:
    top = make_top(tmp_path)
    prepared(top, "guests")
    group = resctrl.Group({"closID": "guests", "enableMonitoring": True}, "id", str(top))
    group.create()
    monitor = top / "guests/mon_groups/id"
    assert group.made == [str(monitor)] and monitor.is_dir()
    (monitor / "tasks").write_text("")
    group.join(5)
    assert (monitor / "tasks").read_text() == "5"


def test_the_default_group(tmp_path: Path) -> None:
    group = resctrl.Group({"closID": "/"}, "id", str(make_top(tmp_path)))
    group.create()
    assert group.directory == str(tmp_path) and group.made == []


def test_what_fails_is_undone(tmp_path: Path) -> None:
    group = resctrl.Group({"l3CacheSchema": "L3:0=f"}, "id", str(make_top(tmp_path)))
    with pytest.raises(RuntimeFailure, match="schemata"):
        group.create()  # an ordinary directory has no such file
    assert not (tmp_path / "id").exists()


@pytest.mark.parametrize(
    "config",
    [{"closID": ".."}, {"closID": "a/b"}, {"closID": 5}, {"schemata": "x"}, {"l3CacheSchema": ["x"]}],
)
def test_impossible_configurations(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        resctrl.Group(config, "id", str(tmp_path))


@pytest.mark.parametrize("key", ["enableMonitoring", "enableCMT", "enableMBM"])
def test_monitoring_by_its_name_in_each_version(tmp_path: Path, key: str) -> None:
    top = make_top(tmp_path)
    prepared(top, "guests")
    group = resctrl.Group({"closID": "guests", key: True}, "id", str(top))
    group.create()
    assert group.made == [f"{top}/guests/mon_groups/id"]
    with pytest.raises(ConfigError, match=f"{key} has the wrong type"):
        resctrl.Group({key: "yes"}, "id", str(top))


def test_a_further_process_enters_the_groups_of_the_container(tmp_path: Path) -> None:
    top = make_top(tmp_path)
    directory = prepared(top, "guests")
    monitor = directory / "mon_groups/id"
    monitor.mkdir()
    (monitor / "tasks").write_text("")
    resctrl.enter(str(directory), [str(monitor)], 88)
    assert (directory / "tasks").read_text() == (monitor / "tasks").read_text() == "88"
    own = prepared(top, "own")
    resctrl.enter(str(own), [str(own)], 89)
    assert (own / "tasks").read_text() == "89"
