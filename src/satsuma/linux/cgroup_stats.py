"""Counters of a control group in the shape of the Docker API's stats.

Must not know who asks or how often; every call reads the files once.  A file or controller that is not there
gives the value which dockerd gives then (zero, an empty list, or no key).

Source: moby daemon/stats_unix.go (v1 and v2 forms), containerd/cgroups v1 memory.go, blkio.go, v2 manager.go.
"""

from __future__ import annotations

import os

from satsuma.linux.cgroup import UNIFIED, Cgroup, parse_flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Stats = dict[str, Any]

_UNLIMITED = (1 << 64) - 1
_TICKS = os.sysconf("SC_CLK_TCK")
_NS_PER_TICK = 1_000_000_000 // _TICKS
_PAGE_COUNTER_MAX = 9223372036854771712  # what v1 prints for "no limit" (PAGE_COUNTER_MAX pages)


def read_stats(group: Cgroup) -> Stats:
    """Return the blocks `pids_stats`, `blkio_stats`, `cpu_stats`, `memory_stats` of Docker's stats.

    Raises:
        FileNotFoundError: the group is gone.
    """
    if not group.exists():
        raise FileNotFoundError(2, "cgroup is gone", group.path)
    if group.is_v2:
        return {
            "pids_stats": _pids(group),
            "blkio_stats": _blkio_v2(group),
            "cpu_stats": _cpu_v2(group) | _machine(),
            "memory_stats": _memory_v2(group),
        }
    return {
        "pids_stats": _pids(group),
        "blkio_stats": _blkio_v1(group),
        "cpu_stats": _cpu_v1(group) | _machine(),
        "memory_stats": _memory_v1(group),
    }


def _text(group: Cgroup, controller: str, name: str) -> str:
    try:
        return group.read(controller, name)
    except OSError:
        return ""


def _number(group: Cgroup, controller: str, name: str) -> int | None:
    text = _text(group, controller, name).strip()
    if text == "max":
        return _UNLIMITED
    return int(text) if text.isdigit() else None


def _pids(group: Cgroup) -> Stats:
    current = _number(group, "pids", "pids.current")
    if current is None:
        return {}
    stats: Stats = {"current": current}
    limit = _number(group, "pids", "pids.max")
    if limit:
        stats["limit"] = limit
    return stats


def system_cpu_usage(stat: str) -> int:
    """Return the CPU time of the whole machine in nanoseconds from the text of /proc/stat."""
    fields = stat.split("\n", 1)[0].split()[1:9]
    if len(fields) < 7:
        return 0
    # user nice system idle iowait irq softirq steal; guest time is contained in user time.
    return sum(int(field) for field in fields) * _NS_PER_TICK


def _machine() -> Stats:
    with open("/proc/stat", "rb") as file:
        text = file.read().decode()
    online = sum(1 for line in text.splitlines() if line.startswith("cpu") and line[3:4].isdigit())
    return {"system_cpu_usage": system_cpu_usage(text), "online_cpus": online}


def _cpu_v1(group: Cgroup) -> Stats:
    split = parse_flat(_text(group, "cpuacct", "cpuacct.stat"))
    throttling = parse_flat(_text(group, "cpu", "cpu.stat"))
    usage: Stats = {"total_usage": _number(group, "cpuacct", "cpuacct.usage") or 0}
    per_cpu = [int(value) for value in _text(group, "cpuacct", "cpuacct.usage_percpu").split()]
    if per_cpu:
        usage["percpu_usage"] = per_cpu
    usage["usage_in_kernelmode"] = split.get("system", 0) * _NS_PER_TICK
    usage["usage_in_usermode"] = split.get("user", 0) * _NS_PER_TICK
    return {
        "cpu_usage": usage,
        "throttling_data": {
            "periods": throttling.get("nr_periods", 0),
            "throttled_periods": throttling.get("nr_throttled", 0),
            "throttled_time": throttling.get("throttled_time", 0),
        },
    }


def _cpu_v2(group: Cgroup) -> Stats:
    stat = parse_flat(_text(group, UNIFIED, "cpu.stat"))
    return {
        "cpu_usage": {
            "total_usage": stat.get("usage_usec", 0) * 1000,
            "usage_in_kernelmode": stat.get("system_usec", 0) * 1000,
            "usage_in_usermode": stat.get("user_usec", 0) * 1000,
        },
        "throttling_data": {
            "periods": stat.get("nr_periods", 0),
            "throttled_periods": stat.get("nr_throttled", 0),
            "throttled_time": stat.get("throttled_usec", 0) * 1000,
        },
    }


def total_memory() -> int:
    """Return the memory of the machine in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limit(value: int | None) -> int:
    # dockerd shows the machine's memory instead of "no limit".
    total = total_memory()
    return total if value is None or value > total else value


def _memory_v1(group: Cgroup) -> Stats:
    usage = _number(group, "memory", "memory.usage_in_bytes")
    if usage is None:
        return {}
    stats: Stats = {
        "usage": usage,
        "max_usage": _number(group, "memory", "memory.max_usage_in_bytes") or 0,
        "stats": parse_flat(_text(group, "memory", "memory.stat")),
    }
    failures = _number(group, "memory", "memory.failcnt")
    if failures:
        stats["failcnt"] = failures
    stats["limit"] = _limit(_number(group, "memory", "memory.limit_in_bytes"))
    return stats


def _memory_v2(group: Cgroup) -> Stats:
    usage = _number(group, "memory", "memory.current")
    if usage is None:
        return {}
    stats: Stats = {"usage": usage, "stats": parse_flat(_text(group, "memory", "memory.stat"))}
    events = parse_flat(_text(group, "memory", "memory.events"))
    if events.get("oom"):
        stats["failcnt"] = events["oom"]
    stats["limit"] = _limit(_number(group, "memory", "memory.max"))
    return stats


# Key of the API -> file of the v1 controller; bfq's own counters exist only where it is the scheduler.
_BLKIO_V1 = {
    "io_service_bytes_recursive": "io_service_bytes_recursive",
    "io_serviced_recursive": "io_serviced_recursive",
    "io_queue_recursive": "io_queued_recursive",
    "io_service_time_recursive": "io_service_time_recursive",
    "io_wait_time_recursive": "io_wait_time_recursive",
    "io_merged_recursive": "io_merged_recursive",
    "io_time_recursive": "time_recursive",
    "sectors_recursive": "sectors_recursive",
}


def _blkio_v1(group: Cgroup) -> Stats:
    stats: Stats = {}
    for key, name in _BLKIO_V1.items():
        entries = parse_blkio(_text(group, "blkio", f"blkio.bfq.{name}"))
        if not entries and key in ("io_service_bytes_recursive", "io_serviced_recursive"):
            entries = parse_blkio(_text(group, "blkio", f"blkio.throttle.{name}"))
        stats[key] = entries
    return stats


def parse_blkio(text: str) -> list[Stats]:
    """Parse lines "8:0 Read 4096" and "8:0 4096"; the closing "Total N" line is left out."""
    entries: list[Stats] = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 2 or ":" not in fields[0]:
            continue
        major, _, minor = fields[0].partition(":")
        operation = fields[1].lower() if len(fields) == 3 else ""
        entries.append({"major": int(major), "minor": int(minor), "op": operation, "value": int(fields[-1])})
    return entries


_BLKIO_V2 = {
    "rbytes": ("io_service_bytes_recursive", "read"),
    "wbytes": ("io_service_bytes_recursive", "write"),
    "rios": ("io_serviced_recursive", "read"),
    "wios": ("io_serviced_recursive", "write"),
}


def _blkio_v2(group: Cgroup) -> Stats:
    stats: Stats = {key: None for key in _BLKIO_V1}
    for line in _text(group, UNIFIED, "io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name in _BLKIO_V2 and minor.isdigit():
                key, operation = _BLKIO_V2[name]
                entry = {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}
                stats[key] = [*(stats[key] or []), entry]
    return stats
