"""The systemd driver: names, properties, annotations, and the order of what it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "linux"))

from fake_systemd import NAME, FakeSystemd

from satsuma.linux import systemd as linux_systemd
from satsuma.linux.cgroup import Cgroup, Layout
from satsuma.runtime import resources, systemd
from satsuma.runtime.default_spec import DEVICE_RULES
from satsuma.runtime.errors import ConfigError

MIB = 1 << 20
INFINITY = (1 << 64) - 1

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_own_manager", lambda: "")


def _properties(limits: dict, *, v2: bool = True, version: int = 252, fresh: bool = False) -> dict:
    found = systemd.resource_properties(limits, v2=v2, version=version, fresh=fresh)
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


# --- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("system.slice", "/system.slice"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
        ("-.slice", ""),
        ("user-1000.slice", "/user.slice/user-1000.slice"),
    ],
)
def test_slices_are_nested_by_their_dashes(name: str, path: str) -> None:
    assert systemd.expand_slice(name) == path


@pytest.mark.parametrize(
    "name", ["x", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "", "a.scope"]
)
def test_what_is_no_slice(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid slice name: "):
        systemd.expand_slice(name)


@pytest.mark.parametrize(
    ("path", "unit", "group"),
    [
        ("system.slice:runc:434234", "runc-434234.scope", "/system.slice/runc-434234.scope"),
        ("a-b.slice:p:n", "p-n.scope", "/a.slice/a-b.slice/p-n.scope"),
        (":p:n", "p-n.scope", "/system.slice/p-n.scope"),
        ("a.slice::n", "n.scope", "/a.slice/n.scope"),
        ("a.slice:x:b-c.slice", "b-c.slice", "/b.slice/b-c.slice"),
        ("", "satsuma-id.scope", "/system.slice/satsuma-id.scope"),
    ],
)
def test_cgroups_paths(path: str, unit: str, group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = systemd.group_for(path, "id", {}, {})
    assert (made.unit, made.path) == (unit, group)


@pytest.mark.parametrize("path", ["/a/b", "a:b", "a.slice:b:c:d", "a.slice:b:", "nope:b:c", "a.slice:b:../x"])
def test_cgroups_paths_of_another_form(path: str) -> None:
    with pytest.raises(ConfigError):
        systemd.group_for(path, "id", {}, {})


def test_what_was_recorded_comes_back() -> None:
    group = systemd.recorded_group(
        "", {"memory": "/sys/fs/cgroup/memory/system.slice/satsuma-x.scope"}, Layout({}, {})
    )
    assert isinstance(group, systemd.SystemdGroup) and group.unit == "satsuma-x.scope"
    assert not systemd.recorded_group("", {"": "/sys/fs/cgroup/docker/x"}, Layout({}, {})).unit


# --- limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "v2", "v1"),
    [
        ({"memory": {"limit": 64 * MIB}}, {"MemoryMax": ("t", 64 * MIB)}, {"MemoryLimit": ("t", 64 * MIB)}),
        (
            {"memory": {"limit": 64, "swap": 96, "reservation": 32}},
            {"MemoryMax": ("t", 64), "MemorySwapMax": ("t", 32), "MemoryLow": ("t", 32)},
            {"MemoryLimit": ("t", 64)},
        ),
        (
            {"memory": {"limit": -1}},
            {"MemoryMax": ("t", INFINITY), "MemorySwapMax": ("t", INFINITY)},
            {"MemoryLimit": ("t", INFINITY)},
        ),
        ({"cpu": {"shares": 1024}}, {"CPUWeight": ("t", 100)}, {"CPUShares": ("t", 1024)}),
        (
            {"cpu": {"quota": 25000, "period": 50000}},
            {"CPUQuotaPeriodUSec": ("t", 50000), "CPUQuotaPerSecUSec": ("t", 500000)},
            {"CPUQuotaPeriodUSec": ("t", 50000), "CPUQuotaPerSecUSec": ("t", 500000)},
        ),
        (
            {"cpu": {"quota": 33333}},
            {"CPUQuotaPerSecUSec": ("t", 340000)},
            {"CPUQuotaPerSecUSec": ("t", 340000)},
        ),
        (
            {"cpu": {"quota": -1}},
            {"CPUQuotaPerSecUSec": ("t", INFINITY)},
            {"CPUQuotaPerSecUSec": ("t", INFINITY)},
        ),
        ({"cpu": {"idle": 1, "shares": 5}}, {"CPUWeight": ("t", 0)}, {"CPUShares": ("t", 5)}),
        (
            {"cpu": {"cpus": "0-1,9", "mems": "0"}},
            {"AllowedCPUs": ("ay", b"\x03\x02"), "AllowedMemoryNodes": ("ay", b"\x01")},
            {"AllowedCPUs": ("ay", b"\x03\x02"), "AllowedMemoryNodes": ("ay", b"\x01")},
        ),
        # systemd takes no 0; the file has it.
        ({"pids": {"limit": 0}}, {"TasksMax": ("t", 1)}, {"TasksMax": ("t", 1)}),
        ({"unified": {"pids.max": "0"}}, {"TasksMax": ("t", 1)}, {}),
        ({"unified": {"cpu.weight": "50", "cpu.idle": "0"}}, {"CPUWeight": ("t", 50)}, {}),
        ({"unified": {"cpu.weight": "50", "cpu.idle": "1"}}, {"CPUWeight": ("t", 0)}, {}),
        (
            {"unified": {"cpu.max": "max"}},
            {"CPUQuotaPeriodUSec": ("t", 100000), "CPUQuotaPerSecUSec": ("t", INFINITY)},
            {},
        ),
        (
            {"unified": {"memory.min": "1", "memory.low": "2", "memory.max": "4", "memory.swap.max": "0"}},
            {
                "MemoryMin": ("t", 1),
                "MemoryLow": ("t", 2),
                "MemoryMax": ("t", 4),
                "MemorySwapMax": ("t", 0),
            },
            {},
        ),
        (
            {"unified": {"cpuset.mems": "0", "misc.max": "res_a 3"}},
            {"AllowedMemoryNodes": ("ay", b"\x01")},
            {},
        ),
        (
            {"memory": {"limit": 64, "swap": 64}},
            {"MemoryMax": ("t", 64), "MemorySwapMax": ("t", 0)},
            {"MemoryLimit": ("t", 64)},
        ),
        (
            {"memory": {"limit": 64, "swap": -1, "reservation": -1}},
            {"MemoryMax": ("t", 64), "MemorySwapMax": ("t", INFINITY), "MemoryLow": ("t", INFINITY)},
            {"MemoryLimit": ("t", 64)},
        ),
        # Limits for which systemd has no property are files only.
        (
            {
                "memory": {
                    "swappiness": 5,
                    "kernelTCP": 9,
                    "disableOOMKiller": True,
                    "checkBeforeUpdate": True,
                },
                "cpu": {"burst": 5, "realtimeRuntime": 5, "realtimePeriod": 9, "idle": 0},
                "blockIO": {
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 5}],
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}],
                },
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
                "rdma": {"mlx5_1": {"hcaHandles": 3}},
                "network": {"classID": 5},
            },
            {},
            {},
        ),
        ({"blockIO": {"weight": 5}}, {"IOWeight": ("t", 1)}, {"BlockIOWeight": ("t", 5)}),
        ({"pids": {"limit": -1}}, {"TasksMax": ("t", INFINITY)}, {"TasksMax": ("t", INFINITY)}),
        ({"blockIO": {"weight": 500}}, {"IOWeight": ("t", 4950)}, {"BlockIOWeight": ("t", 500)}),
        (
            {
                "unified": {
                    "memory.high": "5",
                    "pids.max": "max",
                    "cpu.max": "5000 10000",
                    "cpuset.cpus": "1",
                    "io.max": "x",
                }
            },
            {
                "MemoryHigh": ("t", 5),
                "TasksMax": ("t", INFINITY),
                "CPUQuotaPeriodUSec": ("t", 10000),
                "CPUQuotaPerSecUSec": ("t", 500000),
                "AllowedCPUs": ("ay", b"\x02"),
            },
            {},
        ),
    ],
)
def test_limits(limits: dict, v2: dict, v1: dict) -> None:
    assert _properties(limits) == v2
    assert _properties(limits, v2=False) == v1


@pytest.mark.parametrize(
    "unified",
    [{"memory.max": "64M"}, {"pids.max": ""}, {"cpu.weight": "-5"}, {"cpu.max": "a b"}, {"cpuset.cpus": "x"}],
)
def test_values_of_unified_that_are_none(unified: dict) -> None:
    with pytest.raises(ConfigError):
        _properties({"unified": unified})


def test_old_versions_do_not_get_what_they_do_not_know() -> None:
    assert _properties({"cpu": {"idle": 1, "shares": 1024}}, version=251) == {"CPUWeight": ("t", 100)}
    assert _properties({"unified": {"cpu.idle": "1", "cpu.weight": "7"}}, version=251) == {
        "CPUWeight": ("t", 7)
    }
    assert _properties({"unified": {"cpuset.cpus": "0"}}, version=243) == {}
    limits = {"cpu": {"quota": 5000, "period": 10000, "cpus": "0"}}
    assert set(_properties(limits, version=243)) == {"CPUQuotaPeriodUSec", "CPUQuotaPerSecUSec"}
    assert set(_properties(limits, version=241)) == {"CPUQuotaPerSecUSec"}


@given(st.integers(1000, 1 << 40), st.integers(1000, 1_000_000))
def test_the_quota_is_a_whole_per_cent_and_never_below_what_was_asked(quota: int, period: int) -> None:
    ((_, (_, value)),) = systemd._cpu_quota(quota, period, 0)
    assert value % 10_000 == 0
    assert quota * 1_000_000 // period <= value < quota * 1_000_000 / period + 10_000


@given(st.sets(st.integers(0, 300), min_size=1))
def test_bits_are_the_numbers(numbers: set[int]) -> None:
    mask = systemd.bit_mask(",".join(map(str, numbers)))
    assert {
        8 * place + bit for place, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1
    } == numbers
    assert mask[-1] != 0


@pytest.mark.parametrize("text", ["a", "1-", "3-1", "-1", "1,,2", "99999999"])
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError):
        systemd.bit_mask(text)


def test_devices_of_docker() -> None:
    found = _properties({"devices": list(DEVICE_RULES)}, fresh=True)
    assert found["DevicePolicy"] == ("s", "strict")
    kind, allowed = found["DeviceAllow"]
    assert kind == "a(ss)"
    assert ("/dev/char/1:3", "rwm") in allowed and ("char-*", "m") in allowed and ("block-*", "m") in allowed
    assert ("char-pts", "rwm") in allowed
    assert not any("229" in path for path, _ in allowed)
    assert _properties({}, fresh=True) == _properties({"devices": [{"allow": False, "access": "rwm"}]})
    assert _properties({}) == {}


def test_devices_that_systemd_cannot_express_are_left_to_our_own_rules() -> None:
    hole = [
        {"allow": False},
        {"allow": True, "type": "c", "major": 10, "access": "rw"},
        {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rw"},
    ]
    for entries in ([{"allow": True}], [{"allow": True}, {"allow": False, "type": "c", "major": 1}], hole):
        assert _properties({"devices": entries}) == {
            "DevicePolicy": ("s", "auto"),
            "DeviceAllow": ("a(ss)", []),
        }


# --- annotations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", ("b", True)),
        ("'inactive-or-failed'", ("s", "inactive-or-failed")),
        ('"a\\"b"', ("s", 'a"b')),
        ("5", ("i", 5)),
        ("-0x10", ("i", -16)),
        ("uint64 123456000", ("t", 123456000)),
        ("uint32 7", ("u", 7)),
        ("byte 255", ("y", 255)),
        ("double 2", ("d", 2.0)),
        ("1.5", ("d", 1.5)),
        ("objectpath '/a'", ("o", "/a")),
        ("['a', 'b,c']", ("as", ["a", "b,c"])),
        ("[uint64 1, uint64 2]", ("at", [1, 2])),
        ("[]", ("as", [])),
    ],
)
def test_variants(text: str, value: tuple) -> None:
    assert systemd.parse_variant(text) == value


@pytest.mark.parametrize(
    "text", ["", "nope", "uint32 -1", "byte 256", "[1, 'a']", "{'a': 1}", "(1, 2)", "int32 true", "'"]
)
def test_variants_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError):
        systemd.parse_variant(text)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_variant_or_an_error(text: str) -> None:
    try:
        systemd.parse_variant(text)
    except ConfigError:
        pass


def test_annotations() -> None:
    found = systemd.annotated_properties(
        {
            "org.systemd.property.TimeoutStopUSec": "uint64 123456000",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.JobTimeoutSec": "1.5",
            "other": "x",
        }
    )
    assert found == [
        ("TimeoutStopUSec", ("t", 123456000)),
        ("CollectMode", ("s", "inactive-or-failed")),
        ("JobTimeoutUSec", ("t", 1_500_000)),
    ]
    for key, value in (
        ("org.systemd.property.a1b", "5"),
        ("org.systemd.property.ab", "5"),
        ("org.systemd.property.FooSec", "'5'"),
    ):
        with pytest.raises(ConfigError):
            systemd.annotated_properties({key: value})


# --- the group ------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSystemd]:
    made = FakeSystemd(tmp_path / "socket")
    made.control_group = "/system.slice/p-n.scope"
    monkeypatch.setattr(linux_systemd, "_sockets", lambda: [(str(tmp_path / "socket"), True)])
    yield made
    made.close()


@pytest.fixture
def where(tmp_path: Path) -> Layout:
    for name in ("", "system.slice", "system.slice/p-n.scope"):
        directory = tmp_path / "cg" / name
        directory.mkdir()
        (directory / "cgroup.controllers").write_text("cpu memory pids")
        (directory / "cgroup.subtree_control").write_text("cpu memory pids")
        for file in ("memory.max", "memory.swap.max", "cgroup.events", "cpu.max"):
            (directory / file).write_text("max 100000" if file == "cpu.max" else "max")
    return Layout({"": str(tmp_path / "cg")}, {"": "/"})


def _group(where: Layout, limits: dict) -> systemd.SystemdGroup:
    group = systemd.SystemdGroup("system.slice", "p-n.scope", where)
    group.resources = limits
    return group


def _is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_the_unit_is_made_with_a_placeholder_that_goes_when_the_container_is_there(
    fake: FakeSystemd, where: Layout
) -> None:
    group = _group(where, {"memory": {"limit": 64 * MIB}})
    group.annotations = {"org.systemd.property.CollectMode": "'inactive'"}
    group.create()
    unit = fake.units["p-n.scope"]
    (pid,) = unit.pop("PIDs")[1]
    assert _is_alive(pid)
    allowed = unit.pop("DeviceAllow")
    assert allowed[0] == "a(ss)"
    assert unit == {
        "Description": ("s", "Satsuma container p-n"),
        "Slice": ("s", "system.slice"),
        "Delegate": ("b", True),
        "MemoryAccounting": ("b", True),
        "CPUAccounting": ("b", True),
        "IOAccounting": ("b", True),
        "TasksAccounting": ("b", True),
        "DefaultDependencies": ("b", False),
        "CollectMode": ("s", "inactive"),
        "DevicePolicy": ("s", "strict"),
        "MemoryMax": ("t", 64 * MIB),
    }
    group.settle()
    assert not _is_alive(pid)
    group.settle()


def test_an_update_tells_systemd_first(fake: FakeSystemd, where: Layout) -> None:
    group = _group(where, {})
    resources.update(group, {"memory": {"limit": 32 * MIB}, "cpu": {"quota": 5000}})
    assert fake.units["p-n.scope"] == {
        "MemoryMax": ("t", 32 * MIB),
        "CPUQuotaPeriodUSec": ("t", 100000),
        "CPUQuotaPerSecUSec": ("t", 50000),
    }
    assert group.read("memory", "memory.max") == str(32 * MIB)
    fake.faults["SetUnitProperties"] = ["x.y"]
    with pytest.raises(OSError) as caught:
        resources.update(group, {"memory": {"limit": 16 * MIB}})
    assert (
        resources.failure_text(caught.value)
        == "cannot set limits: unable to set properties of unit 'p-n.scope': no: x.y"
    )
    assert group.read("memory", "memory.max") == str(32 * MIB)


def test_removal_stops_the_unit(fake: FakeSystemd, where: Layout) -> None:
    group = _group(where, {})
    group.create()
    (pid,) = fake.units["p-n.scope"]["PIDs"][1]
    directory = Path(group.dirs[""])
    for file in directory.iterdir():
        file.unlink()
    group.remove()
    assert fake.units == {} and not directory.exists() and not _is_alive(pid)
    assert [member for member, _ in fake.calls][-2:] == ["StopUnit", "ResetFailedUnit"]
    fake.close()
    group.remove()  # without systemd: what is gone is gone


def test_a_refused_unit_leaves_no_placeholder(fake: FakeSystemd, where: Layout) -> None:
    fake.faults["StartTransientUnit"] = [f"{NAME}.BadUnitSetting"]
    group = _group(where, {})
    with pytest.raises(OSError) as caught:
        group.create()
    assert resources.failure_text(caught.value).startswith(
        "cannot create systemd unit: unable to start unit 'p-n.scope': no"
    )
    properties = next(body[2] for member, body in fake.calls if member == "StartTransientUnit")
    assert not _is_alive(dict(properties)["PIDs"][1][0])


def test_a_unit_at_another_place_is_an_error(fake: FakeSystemd, where: Layout) -> None:
    fake.control_group = "/elsewhere/p-n.scope"
    with pytest.raises(OSError, match="it is at /elsewhere/p-n.scope, not at /system.slice/p-n.scope"):
        _group(where, {}).create()


def test_the_other_driver_knows_nothing_of_this(where: Layout) -> None:
    group = Cgroup("/x", where)
    group.settle()
    group.set_properties({"memory": {"limit": 5}})
    assert group.unit == ""


@pytest.mark.parametrize(
    ("before", "after", "starved"),
    [("oom_kill 1", "", True), ("oom_kill 0", "", False), ("oom_kill 0", "oom_kill 1", True)],
)
def test_a_group_that_systemd_removed_is_known_by_what_was_seen(
    tmp_path: Path, before: str, after: str, starved: bool
) -> None:
    directory = tmp_path / "x.scope"
    directory.mkdir()
    events = directory / "memory.events"
    events.write_text("max 0")
    group = systemd.recorded_group("", {"": str(directory)}, Layout({"": str(tmp_path)}, {}))
    assert isinstance(group, systemd.SystemdGroup)
    group._memory_events = group.watch_oom()
    group._hold()
    events.write_text(before)  # of the start
    group.settle()
    assert not group.may_have_starved()  # it is there: its counters tell
    if after:
        events.write_text(after)
    events.unlink()
    directory.rmdir()
    assert group.may_have_starved() is starved
    os.close(group._memory_events)
