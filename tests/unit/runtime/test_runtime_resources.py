"""Limits as files of cgroupfs, for both versions."""

from __future__ import annotations

import pytest

from satsuma.linux.cgroup import Cgroup, Layout
from satsuma.runtime import resources
from satsuma.runtime.errors import ConfigError

MIB = 1 << 20


def _lines(limits: dict, *, v2: bool) -> list[str]:
    return [f"{w.name}={w.value}" for w in resources.plan_resources(limits, v2=v2)]


@pytest.mark.parametrize(
    ("limits", "v1", "v2"),
    [
        ({"memory": {"limit": 9}}, ["memory.limit_in_bytes=9"], ["memory.max=9"]),
        (
            {"memory": {"limit": 9, "swap": 20}},
            ["memory.limit_in_bytes=9", "memory.memsw.limit_in_bytes=20"],
            ["memory.swap.max=11", "memory.max=9"],
        ),
        ({"memory": {"limit": 9, "swap": 9}}, None, ["memory.swap.max=0", "memory.max=9"]),
        ({"memory": {"limit": 9, "swap": -1}}, None, ["memory.swap.max=max", "memory.max=9"]),
        ({"memory": {"limit": -1}}, ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"], None),
        ({"memory": {"reservation": 5}}, ["memory.soft_limit_in_bytes=5"], ["memory.low=5"]),
        ({"memory": {"reservation": -1}}, ["memory.soft_limit_in_bytes=-1"], ["memory.low=max"]),
        (
            {"memory": {"limit": 9, "swap": -1}},
            ["memory.limit_in_bytes=9", "memory.memsw.limit_in_bytes=-1"],
            None,
        ),
        ({"memory": {"limit": -1}}, None, ["memory.swap.max=max", "memory.max=max"]),
        ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, [], []),
        ({"memory": {"limit": 9, "checkBeforeUpdate": True}}, ["memory.limit_in_bytes=9"], ["memory.max=9"]),
        # The kernel has had no limit of its own memory since 5.16: as in runc, the deprecated field says nothing.
        ({"memory": {"kernel": 9}}, [], []),
        ({"memory": {"kernelTCP": 9}}, ["memory.kmem.tcp.limit_in_bytes=9"], None),
        ({"memory": {"disableOOMKiller": False}}, [], []),
        ({"memory": {"useHierarchy": False}}, ["memory.use_hierarchy=0"], None),
        ({"memory": {"swappiness": 0}}, ["memory.swappiness=0"], None),
        ({"memory": {"swappiness": (1 << 64) - 1}}, [], []),
        ({"memory": {"useHierarchy": True}}, ["memory.use_hierarchy=1"], []),
        ({"memory": {"disableOOMKiller": True}}, ["memory.oom_control=1"], None),
        ({"cpu": {"shares": 1024}}, ["cpu.shares=1024"], ["cpu.weight=100"]),
        (
            {"cpu": {"quota": 50000, "period": 100000}},
            ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"],
            ["cpu.max=50000 100000"],
        ),
        ({"cpu": {"quota": -1}}, ["cpu.cfs_quota_us=-1"], ["cpu.max=max 100000"]),
        ({"cpu": {"quota": 0, "period": 0, "shares": 0, "cpus": "", "mems": ""}}, [], []),
        ({"cpu": {"period": 5000}}, ["cpu.cfs_period_us=5000"], ["cpu.max=max 5000"]),
        (
            {"cpu": {"quota": 50000, "burst": 20000}},
            ["cpu.cfs_burst_us=20000", "cpu.cfs_quota_us=50000"],
            ["cpu.max.burst=20000", "cpu.max=50000 100000"],
        ),
        ({"cpu": {"burst": 0}}, ["cpu.cfs_burst_us=0"], ["cpu.max.burst=0"]),
        # An idle group has no weight.
        ({"cpu": {"idle": 1, "shares": 512}}, ["cpu.idle=1"], ["cpu.idle=1"]),
        (
            {"cpu": {"idle": 0, "shares": 512}},
            ["cpu.idle=0", "cpu.shares=512"],
            ["cpu.idle=0", "cpu.weight=59"],
        ),
        (
            {"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 950000}},
            ["cpu.rt_period_us=1000000", "cpu.rt_runtime_us=950000"],
            None,
        ),
        (
            {"cpu": {"cpus": "0-1", "mems": "0"}},
            ["cpuset.cpus=0-1", "cpuset.mems=0"],
            ["cpuset.cpus=0-1", "cpuset.mems=0"],
        ),
        ({"pids": {"limit": 0}}, ["pids.max=0"], ["pids.max=0"]),
        ({"pids": {"limit": -1}}, ["pids.max=max"], ["pids.max=max"]),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}]}},
            ["blkio.throttle.read_bps_device=8:0 7"],
            ["io.max=8:0 rbps=7"],
        ),
        (
            {
                "blockIO": {
                    "throttleWriteBpsDevice": [
                        {"major": 8, "minor": 0, "rate": 1},
                        {"major": 8, "minor": 16, "rate": 2},
                    ],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
                }
            },
            [
                "blkio.throttle.write_bps_device=8:0 1",
                "blkio.throttle.write_bps_device=8:16 2",
                "blkio.throttle.read_iops_device=8:0 3",
                "blkio.throttle.write_iops_device=8:0 0",
            ],
            ["io.max=8:0 wbps=1", "io.max=8:16 wbps=2", "io.max=8:0 riops=3", "io.max=8:0 wiops=max"],
        ),
        (
            {"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 700}]}},
            ["blkio.weight|blkio.bfq.weight=500", "blkio.weight_device|blkio.bfq.weight_device=8:0 700"],
            ["io.bfq.weight=default 500|io.weight=default 4950=", "io.bfq.weight=8:0 700"],
        ),
        (
            {"blockIO": {"leafWeight": 300, "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 200}]}},
            ["blkio.leaf_weight=300", "blkio.leaf_weight_device=8:0 200"],
            None,
        ),
        (
            {"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]}},
            ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 500"],
            None,
        ),
        (
            {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 0}}},
            ["rdma.max=mlx5_1 hca_handle=3 hca_object=10000", "rdma.max=mlx4_0 hca_object=0"],
            ["rdma.max=mlx5_1 hca_handle=3 hca_object=10000", "rdma.max=mlx4_0 hca_object=0"],
        ),
        (
            {
                "unified": {
                    "misc.max": "res_a 3\nres_b max",
                    "io.max": "8:0 rbps=5\n8:16 wiops=7\n",
                    "memory.high": "5",
                }
            },
            None,
            [
                "misc.max=res_a 3",
                "misc.max=res_b max",
                "io.max=8:0 rbps=5",
                "io.max=8:16 wiops=7",
                "memory.high=5",
            ],
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]},
            ["hugetlb.2MB.limit_in_bytes=4", "hugetlb.2MB.rsvd.limit_in_bytes=4"],
            ["hugetlb.2MB.max=4", "hugetlb.2MB.rsvd.max=4"],
        ),
    ],
)
def test_tables(limits: dict, v1: list[str] | None, v2: list[str] | None) -> None:
    if v1 is not None:
        assert _lines(limits, v2=False) == v1
    if v2 is not None:
        assert _lines(limits, v2=True) == v2


@pytest.mark.parametrize(
    ("limits", "v2", "text"),
    [
        ({"memory": {"limit": 9, "swap": 5}}, True, "memory\\+swap limit should be >= memory limit"),
        ({"memory": {"swap": 5}}, True, "without memory limit"),
        ({"memory": {"limit": 9, "swap": 5}}, False, "memory\\+swap"),
        ({"memory": {"limit": -1, "swap": 5}}, True, "without memory limit"),
        ({"memory": {"kernelTCP": 5}}, True, "not possible"),
        ({"memory": {"swappiness": -2}}, False, "valid range is 0-100"),
        ({"cpu": {"realtimePeriod": 5}}, True, "not possible"),
        ({"network": {"priorities": [{"name": "eth0", "priority": 5}]}}, True, "not possible"),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 5}]}}, True, "leafWeight"),
        ({"hugepageLimits": [{"pageSize": "../2MB", "limit": 4}]}, False, "invalid hugepage size"),
        ({"hugepageLimits": [{"limit": 4}]}, True, "malformed spec file: resources.hugepageLimits"),
        ({"memory": {"swappiness": 101}}, False, "valid range is 0-100"),
        ({"memory": {"disableOOMKiller": True}}, True, "OOM killer"),
        ({"cpu": {"realtimeRuntime": 5}}, True, "not possible"),
        ({"network": {"classID": 5}}, True, "not possible"),
        ({"unified": {"memory.max": "5"}}, False, "cannot use unified on cgroup v1"),
        ({"unified": {"memory": "5"}}, True, "CONTROLLER.PARAMETER"),
        ({"memory": {"swappiness": 5}}, True, "not possible"),
        ({"memory": {"useHierarchy": False}}, True, "not possible"),
        ({"memory": {"limit": 9, "swap": -7}}, True, "invalid memory.swap value"),
        ({"blockIO": {"leafWeight": 10}}, True, "leafWeight"),
        ({"unified": {"../x": "5"}}, True, "no slashes"),
    ],
)
def test_refused(limits: dict, v2: bool, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        resources.plan_resources(limits, v2=v2)


def test_conversions() -> None:
    assert [resources.cpu_weight(shares) for shares in (0, 2, 1024, 262144, 1 << 20)] == [
        0,
        1,
        100,
        10000,
        10000,
    ]
    assert [resources.io_weight(weight) for weight in (1, 10, 500, 1000)] == [1, 1, 4950, 10000]


def test_a_kernel_without_swap_can_do_without_it() -> None:
    for swap, is_needed in ((-1, False), (9, False), (20, True)):
        writes = resources.plan_resources({"memory": {"limit": 9, "swap": swap}}, v2=True)
        assert [not write.optional for write in writes if write.name == "memory.swap.max"] == [is_needed]


def _group(tmp_path, *names: str) -> Cgroup:
    directory = tmp_path / "c"
    directory.mkdir()
    for name in names:
        (directory / name).write_text("0")
    return Cgroup("/c", Layout(dict.fromkeys(("memory", "blkio", "cpu"), str(tmp_path)), {}))


def test_growing_memory_raises_the_sum_first(tmp_path) -> None:
    group = _group(tmp_path, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    order: list[str] = []
    real = Cgroup.write

    class Spy(Cgroup):
        def write(self, controller: str, name: str, value: str) -> None:
            order.append(name)
            real(self, controller, name, value)

    spy = Spy("/c", group.layout)
    (tmp_path / "c/memory.limit_in_bytes").write_text(str(100 * MIB))
    resources.update(spy, {"memory": {"limit": 50 * MIB, "swap": 90 * MIB}})
    assert order[0] == "memory.limit_in_bytes"
    order.clear()
    (tmp_path / "c/memory.limit_in_bytes").write_text(str(50 * MIB))
    resources.update(spy, {"memory": {"limit": 150 * MIB, "swap": 190 * MIB}})
    assert order[0] == "memory.memsw.limit_in_bytes"


def test_first_existing_file_takes_the_value(tmp_path) -> None:
    group = _group(tmp_path, "blkio.bfq.weight")
    resources.apply(group, {"blockIO": {"weight": 300}})
    assert (tmp_path / "c/blkio.bfq.weight").read_text() == "300"


def test_missing_controller_is_named(tmp_path) -> None:
    group = _group(tmp_path)
    with pytest.raises(OSError) as caught:
        resources.apply(group, {"network": {"classID": 1}})
    assert resources.failure_text(caught.value) == (
        "cannot set net_cls limit: container could not join or create cgroup"
    )
