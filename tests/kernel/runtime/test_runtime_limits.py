"""Limits bind, groups freeze, die and disappear."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest
from runtime_lab import Lab

from harness import cgroup_directories
from satsuma.linux import cgroup_stats
from satsuma.linux.cgroup import Cgroup
from satsuma.runtime import devices, resources
from satsuma.runtime.errors import StartFailed

MIB = 1 << 20


def _limits(**limits: object):
    return lambda spec: spec["linux"]["resources"].update(limits)


def test_memory_limit_kills_and_is_noticed(lab: Lab) -> None:
    spec = lab.spec("sh", "-c", "x=a; while :; do x=$x$x; done")
    spec["linux"]["resources"]["memory"] = {"limit": 12 * MIB, "swap": 12 * MIB}
    spec["process"]["args"] = ["sh", "-c", "read go; x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"]
    read, write = os.pipe()
    with lab.container(spec, stdio=(read, -1, -1)) as (init, group):
        os.close(read)
        event = group.watch_oom()
        os.write(write, b"go\n")
        os.close(write)
        assert select.select([event], [], [], 10)[0]
        result = os.waitid(os.P_PIDFD, init.pidfd, os.WEXITED | os.WNOWAIT)
        assert result is not None and (result.si_code, result.si_status) == (os.CLD_KILLED, 9)
        assert group.oom_kills() >= 1
        os.close(event)


def test_pids_limit(lab: Lab) -> None:
    status, out = lab.sh("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait", _limits(pids={"limit": 5}))
    assert status != 0 or "can't fork" in out


def test_cpu_quota_throttles(lab: Lab) -> None:
    def change(spec: dict) -> None:
        spec["linux"]["resources"]["cpu"] = {"quota": 10000, "period": 100000, "shares": 512}

    spec = lab.spec("sh", "-c", "i=0; while [ $i -lt 100000000 ]; do i=$((i+1)); done")
    change(spec)
    with lab.container(spec) as (_, group):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            stats = cgroup_stats.read_stats(group)["cpu_stats"]
            if stats["throttling_data"]["throttled_periods"] >= 2:
                break
            time.sleep(0.05)
        assert stats["throttling_data"]["throttled_periods"] >= 2
        assert stats["cpu_usage"]["total_usage"] > 0
        assert stats["online_cpus"] == os.cpu_count()
        if not group.is_v2:
            assert group.read("cpu", "cpu.shares").strip() == "512"


def test_stats_have_dockers_blocks(lab: Lab) -> None:
    with lab.container(lab.spec("sleep", "100")) as (_, group):
        stats = cgroup_stats.read_stats(group)
        assert stats["pids_stats"]["current"] == 1
        assert stats["memory_stats"]["usage"] > 0
        assert stats["memory_stats"]["limit"] == cgroup_stats.total_memory()
        assert set(stats["blkio_stats"]) >= {"io_service_bytes_recursive", "sectors_recursive"}
    with pytest.raises(FileNotFoundError):
        cgroup_stats.read_stats(group)


def test_update(lab: Lab) -> None:
    with lab.container(lab.spec("sleep", "100")) as (_, group):
        resources.update(group, {"memory": {"limit": 32 * MIB, "swap": 64 * MIB}, "pids": {"limit": 7}})
        resources.update(group, {"memory": {"limit": 128 * MIB, "swap": 256 * MIB}})
        resources.update(
            group, {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}, "cpu": {"quota": 5000, "period": 10000}}
        )
        resources.update(group, {"cpu": {"period": 100000, "quota": 20000}})
        if not group.is_v2:
            assert group.read("memory", "memory.memsw.limit_in_bytes").strip() == str(16 * MIB)
            assert group.read("pids", "pids.max").strip() == "7"
            assert group.read("cpu", "cpu.cfs_quota_us").strip() == "20000"
        with pytest.raises(OSError):
            resources.update(group, {"memory": {"limit": 4096, "swap": 4096, "checkBeforeUpdate": True}})


def test_device_list_is_that_of_docker(lab: Lab) -> None:
    with lab.container(lab.spec("sleep", "100")) as (_, group):
        if group.is_v2:
            pytest.skip("v1 only")
        lines = set(group.read("devices", "devices.list").split("\n")) - {""}
        assert lines == {
            "b *:* m", "c *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm",
            "c 5:1 rwm", "c 5:2 rwm", "c 10:200 rwm", "c 136:* rwm",
        }  # fmt: skip
        resources.update(
            group,
            {
                "devices": [
                    {"allow": False, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
                ]
            },
        )
        lines = set(group.read("devices", "devices.list").split("\n")) - {""}
        assert "c 1:11 r" in lines and "c 5:1 rwm" not in lines and "c 1:3 rwm" in lines


def test_freeze_and_kill(lab: Lab) -> None:
    spec = lab.spec("sh", "-c", "trap '' TERM; sleep 100 & sleep 100 & wait")
    with lab.container(spec) as (init, group):
        deadline = time.monotonic() + 5
        while len(group.pids()) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert init.pid in group.pids()
        group.freeze()
        assert group.is_frozen()
        group.thaw()
        assert not group.is_frozen()
        group.freeze()
        group.kill_all()
        os.waitid(os.P_PIDFD, init.pidfd, os.WEXITED | os.WNOWAIT)
        assert not group.is_frozen()


def test_groups_made_by_the_container_are_removed_too(lab: Lab) -> None:
    def change(spec: dict) -> None:
        for mount in spec["mounts"]:
            if mount["type"] == "cgroup":
                mount["options"].remove("ro")

    top = Path("/sys/fs/cgroup/pids")
    inside = top if top.is_dir() else top.parent
    status, out = lab.sh(f"mkdir -p {inside}/a/b && echo made", change)
    assert (status, out) == (0, "made\n")
    assert not list(inside.glob(f"{lab.prefix.strip('/')}/c[0-9]*"))


def test_impossible_limits_start_nothing(lab: Lab) -> None:
    with pytest.raises(StartFailed, match=r"cpuset\.cpus"):
        lab.sh("true", _limits(cpu={"cpus": "4000"}))
    with pytest.raises(StartFailed, match="net_cls|network resources are not possible with cgroup v2"):
        lab.sh("true", _limits(network={"classID": 1}))
    for top in cgroup_directories(lab.prefix.strip("/")):
        assert [entry.path for entry in os.scandir(top) if entry.is_dir()] == []


def test_device_program_of_version_2_binds() -> None:
    group = Cgroup("/satsuma-test-bpf")
    unified = group.dirs.get("")
    if unified is None:
        pytest.skip("no v2 hierarchy")
    group.dirs = {"": unified}
    os.mkdir(unified)
    try:
        fd = os.open(unified, os.O_RDONLY | os.O_DIRECTORY)
        from satsuma.linux import bpf_devices, syscalls

        deny_zero = devices.parse_devices(
            [
                {"allow": False, "access": "rwm"},
                {"allow": False, "type": "c", "major": 1, "minor": 5, "access": "r"},
            ]
        )
        for _ in range(2):  # the second one replaces the first
            bpf_devices.replace(fd, deny_zero)
        pid, child = syscalls.clone3(syscalls.CLONE_INTO_CGROUP, cgroup=fd)
        if pid == 0:
            code = 0
            for path, flags, allowed in (
                ("/dev/null", os.O_RDWR, True),
                ("/dev/zero", os.O_RDONLY, False),
                ("/dev/zero", os.O_WRONLY, True),
                ("/dev/kmsg", os.O_RDONLY, False),
            ):
                try:
                    os.open(path, flags)
                    code |= 0 if allowed else 1
                except OSError:
                    code |= 2 if allowed else 0
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        os.close(child)
        assert len(bpf_devices._attached(fd)) == 1
        os.close(fd)
    finally:
        group.remove()
