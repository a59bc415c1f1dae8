"""What is written where and in which order, in each of the three layouts; nothing here touches a real cgroup."""

from __future__ import annotations

import errno
import math
import os
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.linux.cgroup import Cgroup, Layout, parse_layout
from satsuma.runtime import create, resources
from satsuma.runtime.errors import ConfigError

V1_CONTROLLERS = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "rdma",
)
ALL_V2 = "cpuset cpu io memory hugetlb pids rdma misc"
MIB = 1 << 20


class Paper(Cgroup):
    """A group whose files are a dictionary; writes are noted, and refused where *refuse* says so."""

    def __init__(self, kind: str, files: dict[str, str] | None = None, missing: tuple[str, ...] = ()) -> None:
        mounts = (
            {} if kind == "v2" else {name: f"/cg/{name}" for name in V1_CONTROLLERS if name not in missing}
        )
        if kind != "v1":
            mounts[""] = "/cg/unified" if kind == "hybrid" else "/cg"
        where = Layout(mounts, {})
        where._v2_half = frozenset(missing) if kind == "hybrid" else frozenset()
        super().__init__("/box", where)
        self.files = files or {}
        self.absent = missing
        self.written: list[str] = []
        self.enabled: list[str] = []
        self.refuse = lambda name, value: 0

    def write(self, controller: str, name: str, value: str) -> None:
        path = self.file(controller, name).replace("/box/", "/")
        if any(name.startswith(prefix + ".") for prefix in self.absent) and controller:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        if self.files.get(name, "") is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        if code := self.refuse(name, value):
            raise OSError(code, os.strerror(code), path)
        self.files[name] = value
        self.written.append(f"{path.removeprefix('/cg/')}={value}")

    def read(self, controller: str, name: str) -> str:
        self.file(controller, name)
        try:
            # The kernel shows "no limit" of memory as the largest counter.
            return "9223372036854771712\n" if self.files[name] == "-1" else self.files[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file", name) from None

    def enable(self, controllers=None) -> None:
        self.enabled = list(controllers)


FULL = {
    "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
    "cpu": {"shares": 512, "quota": 20000, "period": 50000, "cpus": "0-1", "mems": "0"},
    "pids": {"limit": 10},
    "blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 5}]},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
}
V1_LINES = [
    f"memory/memory.limit_in_bytes={64 * MIB}",
    f"memory/memory.memsw.limit_in_bytes={96 * MIB}",
    f"memory/memory.soft_limit_in_bytes={32 * MIB}",
    "cpu/cpu.shares=512",
    "cpu/cpu.cfs_period_us=50000",
    "cpu/cpu.cfs_quota_us=20000",
    "cpuset/cpuset.cpus=0-1",
    "cpuset/cpuset.mems=0",
    "pids/pids.max=10",
    "blkio/blkio.throttle.write_iops_device=8:0 5",
]
V1_REST = [
    f"hugetlb/hugetlb.2MB.limit_in_bytes={4 * MIB}",
    f"hugetlb/hugetlb.2MB.rsvd.limit_in_bytes={4 * MIB}",
    "rdma/rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
]
V2_REST = [
    f"hugetlb.2MB.max={4 * MIB}",
    f"hugetlb.2MB.rsvd.max={4 * MIB}",
    "rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
]


def _write(group: Paper, limits: dict) -> list[str]:
    resources._apply_writes(group, resources.plan_for(group, limits))
    return group.written


def test_everything_in_v1() -> None:
    assert _write(Paper("v1"), FULL) == V1_LINES + V1_REST


def test_hybrid_uses_the_v2_half_for_what_v1_lacks() -> None:
    group = Paper("hybrid", missing=("hugetlb", "rdma"))
    assert _write(group, FULL) == V1_LINES + [f"unified/{line}" for line in V2_REST]
    assert group.enabled == ["hugetlb", "rdma"]


def test_people_are_told_what_is_written() -> None:
    for group in (Paper("v1"), Paper("hybrid", missing=("hugetlb", "rdma")), Paper("v2")):
        shown = create._limits(SimpleNamespace(resources=FULL), group)
        assert shown == [*(line.rpartition("/")[2] for line in _write(group, FULL)), "devices: 0 rules"]


def test_everything_in_v2() -> None:
    assert _write(Paper("v2"), FULL) == [
        f"memory.swap.max={32 * MIB}",
        f"memory.max={64 * MIB}",
        f"memory.low={32 * MIB}",
        "cpu.weight=59",
        "cpu.max=20000 50000",
        "cpuset.cpus=0-1",
        "cpuset.mems=0",
        "pids.max=10",
        "io.max=8:0 wiops=5",
        *V2_REST,
    ]


@pytest.mark.parametrize("kind", ["v1", "hybrid"])
def test_a_missing_v1_controller_matters_only_for_its_own_limits(kind: str) -> None:
    group = Paper(kind, missing=("net_cls", "pids"))
    group.layout._v2_half = frozenset()
    assert _write(group, {"cpu": {"shares": 512}}) == ["cpu/cpu.shares=512"]
    for limits, name in (({"pids": {"limit": 5}}, "pids"), ({"network": {"classID": 5}}, "net_cls")):
        with pytest.raises(OSError) as caught:
            _write(group, limits)
        assert resources.failure_text(caught.value) == (
            f"cannot set {name} limit: container could not join or create cgroup"
        )


def test_a_missing_v2_controller_is_named() -> None:
    group = Paper("v2", {"cgroup.controllers": "cpu pids", "memory.max": None, "cpu.idle": None})
    for limits, text in (
        ({"memory": {"limit": 5}}, "cannot set memory.max: controller 'memory' not available"),
        ({"unified": {"memory.max": "5"}}, "cannot set memory.max: controller 'memory' not available"),
        ({"cpu": {"idle": 1}}, "cannot set cpu limit: this kernel has no cpu.idle"),
    ):
        with pytest.raises(OSError) as caught:
            _write(group, limits)
        assert resources.failure_text(caught.value) == text


# --- order of what belongs together --------------------------------------------------------------------------


def _cfs(group: Paper, parent: float = math.inf):
    """Refuse like the kernel: quota/period not above the parent's share, burst not above the quota."""

    def refuse(name: str, value: str) -> int:
        now = {key: int(group.files[f"cpu.cfs_{key}_us"]) for key in ("period", "quota", "burst")}
        key = name.removeprefix("cpu.cfs_").removesuffix("_us")
        if key in now:
            now[key] = int(value)
            share = now["quota"] / now["period"] if now["quota"] > 0 else math.inf
            if share > parent or (now["quota"] > 0 and now["burst"] > now["quota"]):
                return errno.EINVAL
        return 0

    return refuse


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((100000, 50000, 0), (10000, 5000, 0)),
        ((10000, 5000, 0), (100000, 50000, 0)),
        ((100000, 50000, 40000), (100000, 20000, 10000)),
        ((100000, 20000, 10000), (100000, 50000, 40000)),
        ((100000, 50000, 50000), (1000, 500, 100)),
    ],
)
def test_period_quota_and_burst_in_whatever_order_is_legal(before: tuple, after: tuple) -> None:
    names = ("period", "quota", "burst")
    group = Paper("v1", {f"cpu.cfs_{name}_us": str(value) for name, value in zip(names, before, strict=True)})
    group.refuse = _cfs(group, parent=0.5)
    resources.update(group, {"cpu": dict(zip(names, after, strict=True))})
    assert tuple(int(group.files[f"cpu.cfs_{name}_us"]) for name in names) == after


def test_a_period_that_is_refused_leaves_the_quota_alone() -> None:
    group = Paper("v1", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000", "cpu.cfs_burst_us": "0"})
    group.refuse = _cfs(group, parent=0.5)
    with pytest.raises(OSError):
        resources.update(group, {"cpu": {"period": 10000}})
    assert group.files["cpu.cfs_quota_us"] == "50000"


def _memsw(group: Paper):
    def refuse(name: str, value: str) -> int:
        number = math.inf if value == "-1" else int(value)
        other = {"memory.limit_in_bytes": "memory.memsw.limit_in_bytes"}.get(name, "memory.limit_in_bytes")
        now = math.inf if group.files[other] == "-1" else int(group.files[other])
        memory, both = (number, now) if name == "memory.limit_in_bytes" else (now, number)
        return errno.EINVAL if memory > both else 0

    return refuse


SIZES = st.one_of(st.just(-1), st.integers(1, 1 << 40))


@given(SIZES, SIZES, SIZES, SIZES)
def test_memory_and_swap_can_go_from_any_pair_to_any_other(a: int, b: int, c: int, d: int) -> None:
    def pair(x: int, y: int) -> tuple[int, int]:
        x, y = sorted((x, y)) if min(x, y) > 0 else (max(x, y), -1)
        return x, y

    (limit, swap), (new_limit, new_swap) = pair(a, b), pair(c, d)
    group = Paper("v1", {"memory.limit_in_bytes": str(limit), "memory.memsw.limit_in_bytes": str(swap)})
    group.refuse = _memsw(group)
    resources.update(group, {"memory": {"limit": new_limit, "swap": new_swap}})
    assert group.files["memory.limit_in_bytes"] == str(new_limit)
    assert group.files["memory.memsw.limit_in_bytes"] == str(new_swap)


def test_unlimited_memory_lifts_the_sum_first() -> None:
    group = Paper("v1", {"memory.limit_in_bytes": "5", "memory.memsw.limit_in_bytes": "5"})
    group.refuse = _memsw(group)
    resources.update(group, {"memory": {"limit": -1}})
    assert group.written == ["memory/memory.memsw.limit_in_bytes=-1", "memory/memory.limit_in_bytes=-1"]
    without = Paper("v1", {"memory.limit_in_bytes": "5", "memory.memsw.limit_in_bytes": None})
    resources.update(without, {"memory": {"limit": -1}})
    assert without.written == ["memory/memory.limit_in_bytes=-1"]


def test_memory_in_use_says_how_much() -> None:
    group = Paper("v1", {"memory.usage_in_bytes": "70\n", "memory.max_usage_in_bytes": "90\n"})
    group.refuse = lambda name, value: errno.EBUSY
    with pytest.raises(OSError) as caught:
        _write(group, {"memory": {"limit": 60}})
    assert resources.failure_text(caught.value) == (
        "unable to set memory limit to 60 (current usage: 70, peak usage: 90)"
    )


def test_shares_that_the_kernel_clamps_are_refused() -> None:
    class Clamping(Paper):
        def write(self, controller: str, name: str, value: str) -> None:
            super().write(controller, name, str(min(max(int(value), 2), 262144)))

    for shares, text in (
        (1, "the minimum allowed cpu-shares is 2"),
        (300000, "the maximum allowed cpu-shares is 262144"),
    ):
        with pytest.raises(ConfigError, match=text):
            _write(Clamping("v1"), {"cpu": {"shares": shares}})


# --- update in v2: a file holds more than what is asked for -----------------------------------------------------


@pytest.mark.parametrize(
    ("files", "change", "written"),
    [
        ({"cpu.max": "50000 100000\n"}, {"cpu": {"period": 50000}}, ["cpu.max=50000 50000"]),
        ({"cpu.max": "50000 20000\n"}, {"cpu": {"quota": 10000}}, ["cpu.max=10000 20000"]),
        ({"cpu.max": "max 100000\n"}, {"cpu": {"period": 5000}}, ["cpu.max=max 5000"]),
        ({"cpu.max": "5000 7000\n"}, {"cpu": {"quota": -1}}, ["cpu.max=max 7000"]),
        (
            {"memory.max": "100\n", "memory.swap.max": "50\n"},
            {"memory": {"limit": 120}},
            ["memory.swap.max=30", "memory.max=120"],
        ),
        ({"memory.max": "100\n", "memory.swap.max": "max\n"}, {"memory": {"limit": 120}}, ["memory.max=120"]),
        ({"memory.max": "max\n", "memory.swap.max": "max\n"}, {"memory": {"limit": 120}}, ["memory.max=120"]),
        (
            {"memory.max": "100\n", "memory.swap.max": "0\n"},
            {"memory": {"swap": 130}},
            ["memory.swap.max=30", "memory.max=100"],
        ),
        ({"memory.max": "100\n"}, {"memory": {"limit": 90}}, ["memory.max=90"]),
        ({"memory.max": "100\n"}, {"memory": {"swap": -1}}, ["memory.swap.max=max"]),
        ({"memory.max": "7", "memory.swap.max": "0"}, {"memory": {"limit": -1}}, ["memory.swap.max=max", "memory.max=max"]),
    ],
)  # fmt: skip
def test_v2_update_keeps_the_other_half(files: dict, change: dict, written: list[str]) -> None:
    group = Paper("v2", files)
    resources.update(group, change)
    assert group.written == written


def test_v2_update_refuses_what_contradicts_the_sum() -> None:
    with pytest.raises(ConfigError, match=r"memory\+swap limit should be >= memory limit"):
        resources.update(
            Paper("v2", {"memory.max": "100", "memory.swap.max": "0"}), {"memory": {"limit": 120}}
        )
    with pytest.raises(ConfigError, match="without memory limit"):
        resources.update(
            Paper("v2", {"memory.max": "max", "memory.swap.max": "max"}), {"memory": {"swap": 9}}
        )


def test_check_before_update() -> None:
    files = {"memory.current": "500\n", "memory.max": "max", "memory.swap.max": "max"}
    for change, text in (
        ({"limit": 400}, "rejecting limit 400 <= usage 500"),
        ({"limit": 400, "swap": 450}, "memory+swap limit: rejecting limit 450 <= usage 500"),
    ):
        with pytest.raises(OSError) as caught:
            resources.update(Paper("v2", dict(files)), {"memory": {**change, "checkBeforeUpdate": True}})
        assert caught.value.errno == errno.EBUSY and text in resources.failure_text(caught.value)
    group = Paper("v2", dict(files))
    resources.update(group, {"memory": {"limit": 400}})
    assert group.written == ["memory.max=400"]


@pytest.mark.parametrize(
    ("bfq", "line"), [("100", "io.bfq.weight=default 500"), (None, "io.weight=default 4950")]
)
def test_v2_io_weight_is_bfqs_or_its_own_scale(bfq: str | None, line: str) -> None:
    assert _write(Paper("v2", {"io.bfq.weight": bfq}), {"blockIO": {"weight": 500}}) == [line]


def test_idle_groups_have_no_weight() -> None:
    for kind in ("v1", "v2"):
        assert _write(Paper(kind), {"cpu": {"idle": 1, "shares": 5}})[-1].endswith("cpu.idle=1")
    assert _write(Paper("v2"), {"cpu": {"idle": 0, "shares": 2}}) == ["cpu.idle=0", "cpu.weight=1"]


@given(st.integers(2, 262144), st.integers(2, 262144))
def test_weight_grows_with_the_shares(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert 1 <= resources.cpu_weight(low) <= resources.cpu_weight(high) <= 10000


@given(st.integers(10, 1000))
def test_io_weight_stays_in_its_range(weight: int) -> None:
    assert 1 <= resources.io_weight(weight) <= 10000


# --- layouts ------------------------------------------------------------------------------------------------

NESTED = rb"""30 1 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
31 1 0:27 /docker/abc /sys/fs/cgroup/unified ro - cgroup2 cgroup2 rw
32 1 0:26 / /mnt/memory rw - cgroup cgroup rw,memory
"""


def test_mounts_that_show_only_a_part_and_second_mounts() -> None:
    where = parse_layout(NESTED, b"2:memory:/docker/abc/x\n0::/docker/abc\n")
    assert where.mounts == {"memory": "/sys/fs/cgroup/memory", "": "/sys/fs/cgroup/unified"}
    assert where.own == {"memory": "/x", "": "/"}
    other = parse_layout(b"32 1 0:26 / /mnt/memory rw - cgroup cgroup rw,memory\n" + NESTED, b"2:memory:/y\n")
    assert other.mounts["memory"] == "/sys/fs/cgroup/memory"


def test_nothing_mounted() -> None:
    where = parse_layout(b"", b"")
    assert where.mode == "none"
    with pytest.raises(FileNotFoundError, match="cgroup mountpoint does not exist"):
        Cgroup("/x", where).create()
    assert Cgroup("/x", where).pids() == []


def _v2_tree(tmp_path, *groups: str) -> Layout:
    for group in ("", *groups):
        directory = tmp_path / group
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text(ALL_V2)
        (directory / "cgroup.subtree_control").write_text("pids")
    return Layout({"": str(tmp_path)}, {"": "/"})


def test_v2_controllers_are_handed_on_from_the_top_to_the_parent(tmp_path) -> None:
    where = _v2_tree(tmp_path, "a", "a/b", "a/b/c")
    Cgroup("/a/b/c", where).create()
    rest = " ".join("+" + name for name in ALL_V2.split() if name != "pids")
    assert [
        (tmp_path / name / "cgroup.subtree_control").read_text() for name in ("", "a", "a/b", "a/b/c")
    ] == [
        rest,
        rest,
        rest,
        "pids",
    ]


@pytest.mark.parametrize(
    ("kind", "text"), [("domain invalid", "an invalid state"), ("threaded", "threaded mode")]
)
def test_v2_places_for_threads_are_refused(tmp_path, kind: str, text: str) -> None:
    where = _v2_tree(tmp_path, "a")
    (tmp_path / "a/cgroup.type").write_text(kind + "\n")
    with pytest.raises(OSError, match=f"with domain controllers -- it is in {text}"):
        Cgroup("/a", where).create()


def test_cpuset_of_a_foreign_parent_is_filled_too(tmp_path) -> None:
    top = tmp_path / "cpuset"
    for directory, value in (("", "0-3"), ("docker", "\n"), ("docker/x", "")):
        (top / directory).mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            (top / directory / name).write_text(value)
    Cgroup("/docker/x", Layout({"cpuset": str(top)}, {})).create()
    assert (top / "docker/cpuset.cpus").read_text() == (top / "docker/x/cpuset.mems").read_text() == "0-3"
