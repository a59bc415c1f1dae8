"""Groups on the real trees of this machine, whatever their version: made, joined, frozen, killed, removed."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import shutil
import signal
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from satsuma.linux import cgroup_stats, syscalls
from satsuma.linux.cgroup import UNIFIED, Cgroup, Layout, layout, read_text
from satsuma.runtime import resources

MIB = 1 << 20
needs_v2 = pytest.mark.skipif(layout().mode != "v2", reason="this machine's cgroups are not all in version 2")
needs_v1 = pytest.mark.skipif(
    layout().mode not in ("v1", "hybrid"), reason="this machine has no v1 hierarchies"
)
NO_SWAP = "this kernel does not count swap"


@pytest.fixture
def group() -> Iterator[Cgroup]:
    made = Cgroup(f"/satsuma-test-{uuid.uuid4().hex[:8]}/box")
    try:
        made.create()
        yield made
    finally:
        made.kill_all()
        parent = Cgroup(made.path.rpartition("/")[0])
        parent.kill_all()
        parent.remove(timeout=10)
        assert not parent.exists()


def spawn(group: Cgroup, work: Callable[[], None]) -> int:
    """Run *work* in a process that was born in the group; return its pid."""
    unified = group.open_unified()
    flags = syscalls.CLONE_INTO_CGROUP if unified >= 0 else 0
    pid, fd = syscalls.clone3(flags, cgroup=max(unified, 0))
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for path in group.join_files():
                with open(path, "wb", buffering=0) as file:
                    file.write(b"0")
            work()
            code = 0
        finally:
            os._exit(code)
    os.close(fd)
    if unified >= 0:
        os.close(unified)
    return pid


def idle() -> None:
    while True:
        signal.pause()


@contextmanager
def running(group: Cgroup, work: Callable[[], None] = idle) -> Iterator[int]:
    pid = spawn(group, work)
    try:
        until(lambda: Path(f"/proc/{pid}/cgroup").read_text().count(group.path) >= len(group.unique_dirs()))
        yield pid
    finally:
        os.kill(pid, 9)
        if group.is_frozen():
            group.thaw()
        os.waitpid(pid, 0)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork_on() -> None:
    """Fork without end, each child a little later; a group that is not stopped as a whole never gets empty."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            if os.fork():
                time.sleep(0.002)
        except OSError:
            time.sleep(0.002)


# --- making, joining, removing -------------------------------------------------------------------------------


def test_the_process_is_in_the_group_everywhere(group: Cgroup) -> None:
    with running(group) as pid:
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            if names == "" or names.split(",")[0] in group.dirs:
                assert path == group.path, line
        assert group.is_populated()
        with pytest.raises(OSError) as caught:
            group.remove(timeout=0.1)
        assert caught.value.errno == errno.EBUSY
    group.remove()
    assert not group.exists()
    group.remove()  # idempotent


def test_attach_moves_a_process(group: Cgroup) -> None:
    pid = os.fork()
    if pid == 0:
        idle()
    try:
        group.attach(pid)
        assert group.pids() == [pid]
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _nest(directory: str, depth: int) -> int:
    """Make groups in groups, each relative to the one above; return how many there are."""
    made = 0
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(depth):
            try:
                os.mkdir("deeper", dir_fd=fd)
            except OSError:
                break
            child = os.open("deeper", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = child
            made += 1
    finally:
        os.close(fd)
    return made


def test_groups_nested_deeper_than_a_path_are_found_and_removed(group: Cgroup) -> None:
    directory = group.dirs.get("pids") or group.dirs[UNIFIED]
    depth = _nest(directory, 1100)
    assert depth * len("/deeper") > 4096 and depth > 1000
    only = Cgroup(group.path, Layout({"pids": layout().mounts.get("pids", layout().mounts.get("", ""))}, {}))
    assert only.pids() == []
    group.remove(timeout=20)
    assert not group.exists()


def test_many_groups_side_by_side_are_removed(group: Cgroup) -> None:
    directory = group.dirs.get("pids") or group.dirs[UNIFIED]
    for number in range(50):
        os.makedirs(f"{directory}/a{number}/b")
    group.remove(timeout=10)
    assert not group.exists()


def test_removal_waits_for_processes_that_are_dying(group: Cgroup) -> None:
    with running(group, lambda: bytearray(32 * MIB) and idle()):  # type: ignore[func-returns-value]
        group.kill_all()
        group.remove(timeout=10)
        assert not group.exists()


@needs_v1
def test_cpuset_of_a_parent_that_somebody_else_made(group: Cgroup) -> None:
    if "cpuset" not in group.dirs:
        pytest.skip("no v1 cpuset")
    foreign = group.dirs["cpuset"] + "/foreign"
    os.mkdir(foreign)
    assert read_text(foreign + "/cpuset.cpus").strip() == ""
    below = Cgroup(group.path + "/foreign/box")
    below.create()
    assert below.read("cpuset", "cpuset.mems").strip() == group.read("cpuset", "cpuset.mems").strip() != ""
    with running(below):
        pass


# --- freezing and killing -------------------------------------------------------------------------------------


def test_a_frozen_group_does_nothing(group: Cgroup) -> None:
    read, write = os.pipe()

    def tick() -> None:
        while True:
            os.write(write, b".")
            time.sleep(0.001)

    with running(group, tick):
        os.read(read, 1)
        group.freeze()
        assert group.is_frozen()
        os.set_blocking(read, False)
        while True:
            try:
                os.read(read, 65536)
            except BlockingIOError:
                break
        assert not select.select([read], [], [], 0.2)[0]
        group.thaw()
        assert not group.is_frozen()
        assert select.select([read], [], [], 10)[0]
    os.close(read)
    os.close(write)


def test_only_the_frozen_group_itself_counts_as_frozen(group: Cgroup) -> None:
    below = Cgroup(group.path + "/below")
    below.create()
    with running(below):
        group.freeze()
        assert group.is_frozen() and not below.is_frozen()
        group.thaw()


def test_pause_and_resume_race(group: Cgroup) -> None:
    """Many turns, with processes that come and go all the time."""
    resources.apply(group, {"pids": {"limit": 64}})
    with running(group, fork_on):
        for _ in range(25):
            group.freeze()
            assert group.is_frozen()
            group.thaw()
        group.freeze()
        before = group.pids()
        time.sleep(0.1)
        assert group.pids() == before
        group.kill_all()
        until(lambda: not group.is_populated())


def test_killing_a_fork_bomb(group: Cgroup) -> None:
    resources.apply(group, {"pids": {"limit": 200}})
    with running(group, fork_on):
        until(lambda: len(group.pids()) > 50)
        group.kill_all()
        until(lambda: not group.is_populated())


def test_killing_a_fork_bomb_with_the_means_of_v1(group: Cgroup) -> None:
    dirs = {name: path for name, path in group.dirs.items() if name != UNIFIED}
    if "freezer" not in dirs:
        pytest.skip("no v1 freezer")
    resources.apply(group, {"pids": {"limit": 200}})
    with running(group, fork_on):
        until(lambda: len(group.pids()) > 50)
        old = Cgroup(
            group.path, Layout({k: v for k, v in layout().mounts.items() if k in dirs}, {}), dirs=dirs
        )
        old.kill_all()
        assert not old.is_frozen()
        until(lambda: not old.is_populated())


def test_a_signal_reaches_all(group: Cgroup) -> None:
    pids = [spawn(group, idle) for _ in range(3)]
    until(lambda: len(group.pids()) == 3)
    time.sleep(0.1)
    group.kill_all(signal.SIGTERM)
    assert [status_of(pid) for pid in pids] == [-signal.SIGTERM] * 3
    assert not group.is_frozen()


# --- limits ---------------------------------------------------------------------------------------------------


def test_out_of_memory(group: Cgroup) -> None:
    limits = {"limit": 24 * MIB, "swap": 24 * MIB}
    if not group.is_v2 and not os.path.exists(group.dirs["memory"] + "/memory.memsw.limit_in_bytes"):
        limits.pop("swap")
    resources.apply(group, {"memory": limits})
    event = group.watch_oom()

    def eat() -> None:
        time.sleep(0.1)
        kept = [bytearray(MIB) for _ in range(512)]
        assert kept

    pid = spawn(group, eat)
    try:
        assert select.select([event], [], [], 30)[0]
        assert status_of(pid) == -9
        assert group.oom_kills() >= 1
        stats = cgroup_stats.read_stats(group)["memory_stats"]
        assert stats["limit"] == 24 * MIB
        assert stats["failcnt"] >= 1 if group.is_v2 else 0 < stats["max_usage"] <= 24 * MIB
    finally:
        os.close(event)


def test_number_of_processes(group: Cgroup) -> None:
    resources.apply(group, {"pids": {"limit": 3}})

    def fork_often() -> None:
        for _ in range(2):
            if os.fork() == 0:
                idle()
        try:
            os.fork()
        except BlockingIOError:
            return
        os._exit(7)

    assert status_of(spawn(group, fork_often)) == 0
    stats = cgroup_stats.read_stats(group)["pids_stats"]
    assert stats == {"current": 2, "limit": 3}


def test_no_process_at_all(group: Cgroup) -> None:
    resources.apply(group, {"pids": {"limit": 0}})
    pid = -1
    try:
        pid = spawn(group, lambda: None)
    except OSError as error:
        assert error.errno == errno.EAGAIN  # v2: the birth itself is refused
    if pid > 0:  # v1 limits forks, not joining
        assert status_of(pid) == 0

    def fork() -> None:
        os.fork()

    if not group.is_v2:
        assert status_of(spawn(group, fork)) == 1


def _spin() -> None:
    while True:
        pass


def test_cpu_quota_and_its_counters(group: Cgroup) -> None:
    resources.apply(group, {"cpu": {"quota": 10000, "period": 100000, "shares": 2048}})
    with running(group, _spin):
        time.sleep(1.0)
        first = cgroup_stats.read_stats(group)["cpu_stats"]
        began = time.monotonic()
        time.sleep(2.0)
        second = cgroup_stats.read_stats(group)["cpu_stats"]
        seconds = time.monotonic() - began
    used = (second["cpu_usage"]["total_usage"] - first["cpu_usage"]["total_usage"]) / 1e9
    assert 0.02 < used / seconds < 0.3
    assert second["throttling_data"]["throttled_periods"] > first["throttling_data"]["throttled_periods"]
    assert second["throttling_data"]["throttled_time"] > 0
    assert second["system_cpu_usage"] > first["system_cpu_usage"] > 0
    kernel, user = (second["cpu_usage"][f"usage_in_{mode}mode"] for mode in ("kernel", "user"))
    assert kernel + user <= second["cpu_usage"]["total_usage"] * 1.5 + 1e8
    if group.is_v2:
        assert group.read(UNIFIED, "cpu.weight").strip() == str(resources.cpu_weight(2048))


def test_cpu_set(group: Cgroup) -> None:
    resources.apply(group, {"cpu": {"cpus": "0", "mems": "0"}})

    def check() -> None:
        assert os.sched_getaffinity(0) == {0}

    assert status_of(spawn(group, check)) == 0


def test_memory_counters(group: Cgroup) -> None:
    read, write = os.pipe()

    def hold() -> None:
        kept = bytearray(b"x" * (24 * MIB))
        os.write(write, b".")
        idle()
        assert kept

    before = cgroup_stats.read_stats(group)["memory_stats"]["usage"]
    with running(group, hold):
        os.read(read, 1)
        stats = cgroup_stats.read_stats(group)["memory_stats"]
        assert 24 * MIB <= stats["usage"] - before < 80 * MIB
        assert stats["limit"] == cgroup_stats.total_memory()
        anonymous = stats["stats"]["anon" if group.is_v2 else "total_rss"]
        assert 20 * MIB < anonymous < 80 * MIB
    os.close(read)
    os.close(write)


def test_any_order_of_memory_and_swap(group: Cgroup) -> None:
    if not group.is_v2 and not os.path.exists(group.dirs["memory"] + "/memory.memsw.limit_in_bytes"):
        pytest.skip(NO_SWAP)
    pairs = [(64, 64), (128, 256), (32, 32), (512, -1), (16, 48), (-1, -1), (64, 128)]
    for limit, swap in pairs:
        wanted = [size * MIB if size > 0 else size for size in (limit, swap)]
        resources.update(group, {"memory": {"limit": wanted[0], "swap": wanted[1]}})
        if group.is_v2:
            shown = "max" if limit < 0 else str(wanted[0])
            assert group.read(UNIFIED, "memory.max").strip() == shown
            both = "max" if swap < 0 else str(wanted[1] - wanted[0])
            assert group.read(UNIFIED, "memory.swap.max").strip() == both
        elif limit > 0:
            assert group.read("memory", "memory.limit_in_bytes").strip() == str(wanted[0])
            if swap > 0:
                assert group.read("memory", "memory.memsw.limit_in_bytes").strip() == str(wanted[1])
    resources.update(group, {"memory": {"limit": -1}})
    resources.update(group, {"memory": {"limit": 64 * MIB}})


def test_memory_in_use_cannot_be_taken(group: Cgroup) -> None:
    read, write = os.pipe()

    def hold() -> None:
        libc = ctypes.CDLL(None)
        libc.mlockall(3)
        kept = bytearray(b"x" * (48 * MIB))
        os.write(write, b".")
        idle()
        assert kept

    with running(group, hold):
        os.read(read, 1)
        with pytest.raises(OSError) as caught:
            resources.update(group, {"memory": {"limit": 8 * MIB, "checkBeforeUpdate": True}})
        text = resources.failure_text(caught.value)
        assert caught.value.errno == errno.EBUSY
        assert (
            "rejecting limit" if group.is_v2 else "unable to set memory limit to 8388608 (current usage: "
        ) in text
    os.close(read)
    os.close(write)


def test_period_and_quota_in_any_order(group: Cgroup) -> None:
    parent = Cgroup(group.path.rpartition("/")[0])
    resources.update(parent, {"cpu": {"quota": 50000, "period": 100000}})
    steps = [
        {"period": 100000, "quota": 50000},
        {"period": 10000, "quota": 5000},
        {"period": 1000000, "quota": 500000},
        {"period": 2000, "quota": 1000},
        {"quota": -1},
    ]
    for step in steps:
        if not group.is_v2 and step.get("quota", 0) == 500000:
            step = {**step, "burst": 0}
        resources.update(group, {"cpu": step})
    if not group.is_v2:
        # A share above the parent's is refused, and what was set stays.
        resources.update(group, {"cpu": {"period": 100000, "quota": 50000}})
        with pytest.raises(OSError):
            resources.update(group, {"cpu": {"period": 10000}})
        assert group.read("cpu", "cpu.cfs_quota_us").strip() == "50000"
    else:
        resources.update(group, {"cpu": {"period": 20000}})
        assert group.read(UNIFIED, "cpu.max").strip() == "max 20000"
        resources.update(group, {"cpu": {"quota": 7000}})
        assert group.read(UNIFIED, "cpu.max").strip() == "7000 20000"


def test_burst_and_quota_grow_and_shrink_together(group: Cgroup) -> None:
    name = "cpu.max.burst" if group.is_v2 else "cpu.cfs_burst_us"
    if not os.path.exists(group.file("cpu", name)):
        pytest.skip("this kernel has no burst")
    for quota, burst in ((50000, 40000), (20000, 10000), (90000, 90000), (10000, 0)):
        resources.update(group, {"cpu": {"quota": quota, "burst": burst, "period": 100000}})
        assert group.read("cpu", name).strip() == str(burst)


def test_huge_pages(group: Cgroup) -> None:
    limits = {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}
    if "hugetlb" in group.dirs:
        resources.apply(group, limits)
        assert group.read("hugetlb", "hugetlb.2MB.limit_in_bytes").strip() == str(4 * MIB)
    elif group.is_v2 or "hugetlb" in group.layout.v2_half():
        resources.apply(group, limits)
        assert group.read(UNIFIED, "hugetlb.2MB.max").strip() == str(4 * MIB)
        assert group.read(UNIFIED, "hugetlb.2MB.rsvd.max").strip() == str(4 * MIB)
        with running(group):
            resources.update(group, {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * MIB}]})
    else:
        with pytest.raises(OSError) as caught:
            resources.apply(group, limits)
        assert "cannot set hugetlb limit" in resources.failure_text(caught.value)


def _in_vm(why: str) -> None:
    if not os.environ.get("SATSUMA_VM"):
        pytest.skip(f"{why} are the whole machine's: only in the virtual machine")


def test_huge_pages_bind(group: Cgroup) -> None:
    _in_vm("huge pages")
    if not group.is_v2 and "hugetlb" not in group.dirs:
        pytest.skip("no hugetlb controller")
    pool = Path("/proc/sys/vm/nr_hugepages")
    pool.write_text("4")
    try:
        assert int(pool.read_text()) == 4
        resources.apply(group, {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * MIB}]})

        def take() -> None:
            hugetlb = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000  # MAP_HUGETLB
            kept = mmap.mmap(-1, 2 * MIB, flags=hugetlb)
            kept[0] = 1
            try:
                mmap.mmap(-1, 2 * MIB, flags=hugetlb)
            except OSError as error:
                os._exit(0 if error.errno == errno.ENOMEM else 4)
            os._exit(3)

        assert status_of(spawn(group, take)) == 0
    finally:
        pool.write_text("0")


@pytest.fixture
def rdma_device() -> Iterator[str]:
    """A device for remote memory access, made of a network interface."""
    _in_vm("devices for remote memory access")
    if not Path("/sys/module/rdma_rxe").exists() or shutil.which("rdma") is None:
        pytest.skip("no rdma_rxe, or no program `rdma`")

    def do(*argv: str) -> None:
        subprocess.run(argv, check=True, timeout=60)

    do("ip", "link", "add", "satsuma-rdma", "type", "dummy")
    do("ip", "link", "set", "satsuma-rdma", "up")
    do("rdma", "link", "add", "rxe_test", "type", "rxe", "netdev", "satsuma-rdma")
    yield "rxe_test"
    do("rdma", "link", "delete", "rxe_test")
    do("ip", "link", "delete", "satsuma-rdma")


def test_remote_memory_access_binds(group: Cgroup, rdma_device: str) -> None:
    limits = {"rdma": {rdma_device: {"hcaHandles": 1, "hcaObjects": 50}}}
    resources.apply(group, {**limits, "devices": [{"allow": True, "access": "rwm"}]})
    shown = group.read("rdma" if "rdma" in group.dirs else UNIFIED, "rdma.max")
    assert shown.split() == [rdma_device, "hca_handle=1", "hca_object=50"]

    def take() -> None:
        answer = ctypes.create_string_buffer(8)
        # IB_USER_VERBS_CMD_GET_CONTEXT of rdma/ib_user_verbs.h: lengths in words of four bytes.
        ask = struct.pack("=IHHQ", 0, 4, 2, ctypes.addressof(answer))
        (node,) = Path("/dev/infiniband").glob("uverbs*")
        os.write(os.open(node, os.O_RDWR), ask)
        try:
            os.write(os.open(node, os.O_RDWR), ask)
        except OSError as error:
            os._exit(0 if error.errno == errno.EAGAIN else 4)
        os._exit(3)

    assert status_of(spawn(group, take)) == 0


def test_what_this_kernel_lacks_is_an_error_only_when_asked_for(group: Cgroup) -> None:
    resources.apply(group, {"cpu": {"shares": 100}})
    for limits in (
        {"rdma": {"nodevice": {"hcaHandles": 3}}},
        {"hugepageLimits": [{"pageSize": "3MB", "limit": 4}]},
        {"cpu": {"realtimeRuntime": 1000}},
        {"blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 4000, "rate": 9}]}},
        {"unified": {"no.such": "1"}},
    ):
        with pytest.raises((OSError, resources.ConfigError)):
            resources.apply(group, limits)


def _block_device() -> tuple[str, int, int]:
    """Return a disk of our own to write to (only in the virtual machine), or one whose limits can be set."""
    name = "vdb" if os.environ.get("SATSUMA_VM") else next(
        (d.name for d in Path("/sys/block").iterdir() if d.name.startswith(("vd", "sd", "nvme"))), ""
    )  # fmt: skip
    if not name:
        pytest.skip("no disk")
    major, minor = map(int, Path(f"/sys/block/{name}/dev").read_text().split(":"))
    return name, major, minor


def test_io_limits_and_counters(group: Cgroup) -> None:
    name, major, minor = _block_device()
    device = {"major": major, "minor": minor}
    resources.update(
        group,
        {
            "blockIO": {
                "throttleWriteBpsDevice": [{**device, "rate": 2 * MIB}],
                "throttleReadIOPSDevice": [{**device, "rate": 1000}],
            }
        },
    )
    if group.is_v2:
        assert (
            group.read(UNIFIED, "io.max").strip()
            == f"{major}:{minor} rbps=max wbps={2 * MIB} riops=1000 wiops=max"
        )
    if os.environ.get("SATSUMA_VM"):

        def write() -> None:
            fd = os.open(f"/dev/{name}", os.O_WRONLY | os.O_DIRECT)
            page = mmap.mmap(-1, MIB)
            began = time.monotonic()
            for _ in range(5):
                os.write(fd, page)
            os._exit(0 if time.monotonic() - began > 1.0 else 3)

        assert status_of(spawn(group, write)) == 0
        stats = cgroup_stats.read_stats(group)["blkio_stats"]["io_service_bytes_recursive"]
        written = [entry["value"] for entry in stats if (entry["op"], entry["major"]) == ("write", major)]
        assert written == [5 * MIB]
    if group.is_v2:
        resources.update(group, {"blockIO": {"throttleWriteBpsDevice": [{**device, "rate": 0}]}})
        assert "wbps=max" in group.read(UNIFIED, "io.max")


@needs_v2
def test_io_weight(group: Cgroup) -> None:
    resources.apply(group, {"blockIO": {"weight": 700}})
    names = [name for name in ("io.bfq.weight", "io.weight") if os.path.exists(group.file("io", name))]
    assert group.read("io", names[0]).split()[:2] in (
        ["default", "700"],
        ["default", str(resources.io_weight(700))],
    )


# --- devices --------------------------------------------------------------------------------------------------

DENY_ALL = {"allow": False, "access": "rwm"}


def _opens(group: Cgroup, *wanted: tuple[str, int]) -> list[bool]:
    """Return for each (path, flags) whether a process of the group may open it."""

    def work() -> None:
        code = 0
        for place, (path, flags) in enumerate(wanted):
            try:
                os.close(os.open(path, flags))
                code |= 1 << place
            except PermissionError:
                pass
        os._exit(code)

    code = status_of(spawn(group, work))
    return [bool(code & 1 << place) for place in range(len(wanted))]


def _rule(allow: bool, major: int, minor: int, access: str) -> dict:
    return {"allow": allow, "type": "c", "major": major, "minor": minor, "access": access}


def test_device_rules_bind_and_change(group: Cgroup) -> None:
    if not group.is_v2 and "devices" not in group.dirs:
        pytest.skip("no devices controller")
    probes = (
        ("/dev/null", os.O_RDWR),
        ("/dev/zero", os.O_RDONLY),
        ("/dev/zero", os.O_WRONLY),
        ("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK),
        ("/dev/kmsg", os.O_WRONLY),
    )
    resources.apply(group, {})
    assert _opens(group, *probes) == [True, True, True, False, False]
    resources.update(group, {"devices": [DENY_ALL, _rule(True, 1, 11, "r"), _rule(False, 1, 5, "w")]})
    assert _opens(group, *probes) == [True, True, False, True, False]
    resources.update(group, {"devices": [DENY_ALL, _rule(True, 1, 11, "r"), _rule(True, 1, 11, "w")]})
    assert _opens(group, *probes) == [True] * 5
    resources.update(group, {"devices": [{"allow": True, "access": "rwm"}, _rule(False, 1, 11, "rwm")]})
    assert _opens(group, *probes) == [True, True, True, False, False]
    resources.update(group, {"devices": [{"allow": True, "access": "rwm"}]})
    assert _opens(group, *probes) == [True] * 5


# --- version 2 only -------------------------------------------------------------------------------------------


@needs_v2
def test_controllers_are_there_down_to_the_group(group: Cgroup) -> None:
    below = Cgroup(group.path + "/a/b")
    below.create()
    everything = set(read_text(layout().mounts[UNIFIED] + "/cgroup.controllers").split())
    assert set(below.read(UNIFIED, "cgroup.controllers").split()) == everything


@needs_v2
def test_no_processes_in_inner_groups(group: Cgroup) -> None:
    """A parent that has processes itself cannot hand controllers on: limits say so, the rest works."""
    with running(group):
        below = Cgroup(group.path + "/below")
        below.create()
        assert "memory" not in below.read(UNIFIED, "cgroup.controllers")
        with pytest.raises(OSError) as caught:
            resources.apply(below, {"memory": {"limit": 64 * MIB}})
        assert (
            resources.failure_text(caught.value) == "cannot set memory.max: controller 'memory' not available"
        )
        with running(below):
            pass


@needs_v2
def test_places_for_threads_are_refused(group: Cgroup) -> None:
    child = Cgroup(group.path + "/threads")
    os.mkdir(child.dirs[UNIFIED])
    child.write(UNIFIED, "cgroup.type", "threaded")
    for place in (child, Cgroup(child.path + "/x"), group):
        with pytest.raises(
            OSError, match="with domain controllers -- it is in (threaded|domain threaded|an invalid)"
        ):
            place.create()


@needs_v2
def test_delegation_lets_a_user_manage_groups_below(group: Cgroup) -> None:
    group.delegate(4711)
    directory = group.dirs[UNIFIED]
    assert os.stat(directory).st_uid == os.stat(directory + "/cgroup.procs").st_uid == 4711
    assert os.stat(directory + "/memory.max").st_uid == 0

    def use() -> None:
        os.setresgid(4711, 4711, 4711)
        os.setresuid(4711, 4711, 4711)
        os.mkdir(directory + "/leaf")
        with open(directory + "/leaf/cgroup.procs", "w") as file:
            file.write("0")
        with open(directory + "/cgroup.subtree_control", "w") as file:
            file.write("+memory +pids")
        with open(directory + "/leaf/memory.max", "w") as file:
            file.write("100M")
        for path in ("/memory.max", "/../cgroup.procs"):
            try:
                with open(directory + path, "w") as file:
                    file.write("0")
            except PermissionError:
                continue
            os._exit(9)

    assert status_of(spawn(group, use)) == 0


@needs_v2
def test_unified_writes_any_file_line_by_line(group: Cgroup) -> None:
    _, major, minor = _block_device()
    resources.apply(
        group,
        {
            "unified": {
                "memory.high": str(32 * MIB),
                "cgroup.max.descendants": "5",
                "io.max": f"{major}:{minor} rbps=1048576\n{major}:{minor} wiops=120",
                "misc.max": "",
            }
        },
    )
    assert group.read(UNIFIED, "memory.high").strip() == str(32 * MIB)
    assert (
        group.read(UNIFIED, "io.max").strip() == f"{major}:{minor} rbps=1048576 wbps=max riops=max wiops=120"
    )
    assert group.read(UNIFIED, "cgroup.max.descendants").strip() == "5"
    with pytest.raises(OSError, match="'rubbish' not available"):
        resources.apply(group, {"unified": {"rubbish.max": "1"}})


@needs_v2
def test_swap_is_what_is_left_of_the_sum(group: Cgroup) -> None:
    if not os.path.exists(group.file("memory", "memory.swap.max")):
        pytest.skip(NO_SWAP)
    resources.apply(group, {"memory": {"limit": 16 * MIB, "swap": 64 * MIB}})
    assert group.read(UNIFIED, "memory.swap.max").strip() == str(48 * MIB)
    if len(Path("/proc/swaps").read_text().splitlines()) > 1:
        # More than the memory limit fits, because the rest goes to swap.
        assert status_of(spawn(group, lambda: [bytearray(b"x" * MIB) for _ in range(40)] and None)) == 0  # type: ignore[func-returns-value]
        assert group.oom_kills() == 0
    resources.update(group, {"memory": {"limit": 32 * MIB}})
    assert group.read(UNIFIED, "memory.swap.max").strip() == str(32 * MIB)


@needs_v1
def test_unified_is_refused_in_version_1(group: Cgroup) -> None:
    with pytest.raises(resources.ConfigError, match="cannot use unified on cgroup v1"):
        resources.apply(group, {"unified": {"memory.max": "5"}})
