"""The command `events`: statistics and out-of-memory events as JSON, one a line.

Source: runc events.go, types/events.go.
"""

from __future__ import annotations

import os
import select
import time

from satsuma.linux import cgroup_stats, inotify
from satsuma.linux.cgroup import UNIFIED, Cgroup
from satsuma.runtime import fastjson
from satsuma.runtime.cliargs import UsageError
from satsuma.runtime.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from satsuma.runtime.state import Container


_CPUSET = (
    "cpu_exclusive mem_hardwall mem_exclusive memory_migrate memory_spread_page memory_spread_slab "
    "memory_pressure sched_load_balance sched_relax_domain_level"
).split()
_BLKIO = (
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
    ("ioServicedRecursive", "io_serviced_recursive"),
    ("ioQueueRecursive", "io_queue_recursive"),
    ("ioServiceTimeRecursive", "io_service_time_recursive"),
    ("ioWaitTimeRecursive", "io_wait_time_recursive"),
    ("ioMergedRecursive", "io_merged_recursive"),
    ("ioTimeRecursive", "io_time_recursive"),
    ("sectorsRecursive", "sectors_recursive"),
)
_UNLIMITED = (1 << 64) - 1


def _filled(**values: Any) -> dict[str, Any]:
    """Leave out what Go's "omitempty" leaves out."""
    return {key: value for key, value in values.items() if value}


def stats(container: Container) -> dict[str, Any]:
    """Return the data of one "stats" event."""
    group = container.cgroup()
    blocks = cgroup_stats.read_stats(group)
    pids = blocks["pids_stats"]
    limit = pids.get("limit", 0)
    return {
        "cpu": _cpu(group, blocks["cpu_stats"]),
        "cpuset": _cpuset(group),
        "memory": _memory(group, blocks["memory_stats"]),
        "pids": _filled(current=pids.get("current"), limit=0 if limit == _UNLIMITED else limit),
        "blkio": _blkio(blocks["blkio_stats"]),
        "hugetlb": _hugetlb(group),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpu(group: Cgroup, block: dict[str, Any]) -> dict[str, Any]:
    usage, throttling = block["cpu_usage"], block["throttling_data"]
    per_cpu = _filled(percpu=usage.get("percpu_usage"), **_per_cpu_modes(group))
    return {
        "usage": {
            **_filled(total=usage["total_usage"]),
            **per_cpu,
            "kernel": usage["usage_in_kernelmode"],
            "user": usage["usage_in_usermode"],
        },
        "throttling": _filled(
            periods=throttling["periods"],
            throttledPeriods=throttling["throttled_periods"],
            throttledTime=throttling["throttled_time"],
        ),
    }


def _per_cpu_modes(group: Cgroup) -> dict[str, list[int]]:
    """Parse cpuacct.usage_all: a header "cpu user system", then a line for each processor."""
    try:
        lines = group.read("cpuacct", "cpuacct.usage_all").splitlines()[1:]
    except OSError:
        return {}
    rows = [list(map(int, line.split())) for line in lines]
    return {"percpu_kernel": [row[2] for row in rows], "percpu_user": [row[1] for row in rows]}


def _cpuset(group: Cgroup) -> dict[str, Any]:
    from satsuma.runtime.config import parse_cpu_list

    result: dict[str, Any] = {}
    for key in ("cpus", "mems"):
        try:
            result[key] = parse_cpu_list(group.read("cpuset", f"cpuset.{key}").strip())
        except OSError:
            continue
    for key in _CPUSET:
        result[key] = _number(group, "cpuset", f"cpuset.{key}")
    return result


def _number(group: Cgroup, controller: str, name: str) -> int:
    try:
        text = group.read(controller, name).strip()
        return _UNLIMITED if text == "max" else int(text)
    except (OSError, ValueError):
        return 0


def _memory_entry(group: Cgroup, prefix: str) -> dict[str, int]:
    usage, most = (
        _number(group, "memory", f"{prefix}.{name}") for name in ("usage_in_bytes", "max_usage_in_bytes")
    )
    return {
        "limit": _number(group, "memory", f"{prefix}.limit_in_bytes"),
        **_filled(usage=usage, max=most),
        "failcnt": _number(group, "memory", f"{prefix}.failcnt"),
    }


def _memory(group: Cgroup, block: dict[str, Any]) -> dict[str, Any]:
    raw = block.get("stats", {})
    if group.is_v2:
        names = ("memory.max", "memory.current", "memory.peak")
        limit, usage, most = (_number(group, UNIFIED, name) for name in names)
        swap_limit, swap = (_number(group, UNIFIED, f"memory.swap.{name}") for name in ("max", "current"))
        return {
            **_filled(cache=raw.get("file")),
            "usage": {"limit": limit, **_filled(usage=usage, max=most), "failcnt": 0},
            "swap": {
                "limit": min(limit + swap_limit, _UNLIMITED),
                **_filled(usage=usage + swap),
                "failcnt": 0,
            },
            "raw": raw,
        }
    return {
        **_filled(cache=raw.get("cache")),
        "usage": _memory_entry(group, "memory"),
        "swap": _memory_entry(group, "memory.memsw"),
        "kernel": _memory_entry(group, "memory.kmem"),
        "kernelTCP": _memory_entry(group, "memory.kmem.tcp"),
        "raw": raw,
    }


def _blkio(block: dict[str, Any]) -> dict[str, Any]:
    result = {}
    for name, key in _BLKIO:
        entries = block.get(key) or []
        if entries:
            result[name] = [{**entry, "op": entry["op"].capitalize()} for entry in entries]
    return result


def _hugetlb(group: Cgroup) -> dict[str, Any]:
    """Return the use of each page size of which the controller has files."""
    directory = group.dirs.get(UNIFIED if group.is_v2 else "hugetlb")
    try:
        names = os.listdir(directory) if directory else []
    except OSError:
        names = []
    sizes = sorted({name.split(".")[1] for name in names if name.startswith("hugetlb.")})
    files = ("current", "", "") if group.is_v2 else ("usage_in_bytes", "max_usage_in_bytes", "failcnt")
    result = {}
    for size in sizes:
        usage, most, failures = (
            _number(group, "hugetlb", f"hugetlb.{size}.{name}") if name else 0 for name in files
        )
        result[size] = {**_filled(usage=usage, max=most), "failcnt": failures}
    return result


def parse_interval(text: str) -> float:
    """Return a Go duration in seconds."""
    from satsuma.base.sizes import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f'invalid value "{text}" for flag -interval: parse error') from error
    if seconds <= 0:
        raise RuntimeFailure("duration interval must be greater than 0")
    return seconds


def run(container: Container, *, once: bool, interval: str, out: Callable[[str], None]) -> None:
    """Print one set of statistics, or statistics and events until the container has stopped."""
    seconds = parse_interval(interval)

    def emit(kind: str, data: object) -> None:
        event = {"type": kind, "id": container.id}
        out(fastjson.dumps(event if data is None else event | {"data": data}))

    if container.status() == "stopped":
        raise RuntimeFailure(f"container with id {container.id} is not running")
    if once:
        emit("stats", stats(container))
        return
    group = container.cgroup()
    hunger = Hunger(group)
    init = os.pidfd_open(container.pid)
    poller = select.poll()
    poller.register(hunger.fd, select.POLLIN)
    poller.register(init, select.POLLIN)
    due = time.monotonic()
    while container.is_alive():
        left = max(0.0, due - time.monotonic())
        if not poller.poll(left * 1000):
            emit("stats", stats(container))
            due = time.monotonic() + seconds
            continue
        if hunger.has_killed():
            emit("oom", None)
    if hunger.has_killed():  # while statistics were read
        emit("oom", None)


class Hunger:
    """Notices that the kernel has killed processes of a group for lack of memory.

    Also when the group was removed behind our back, with its counters: systemd does that to an empty scope at once.
    Then the group had at least reached its limit.

    Attributes:
        fd: readable when there may be news.
    """

    __slots__ = ("_group", "_reached", "_seen", "fd")

    def __init__(self, group: Cgroup) -> None:
        self._group = group
        self.fd = group.watch_oom()
        self._seen = group.oom_kills()
        self._reached = False

    def has_killed(self) -> bool:
        """Tell whether it has since the last call."""
        # The counter first: if the group goes after that, what was reported before is in the queue.
        count = self._group.oom_kills()
        reached = self._take_news()
        if count > self._seen:
            self._seen, self._reached = count, False
            return True
        if (reached or self._reached) and not self._group.exists():
            self._reached = False
            return True
        self._reached = reached
        return False

    def _take_news(self) -> bool:
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return False
        return self._group.is_v2 and any(mask & inotify.IN_MODIFY for _, mask, _ in inotify.parse(data))
