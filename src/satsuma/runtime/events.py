"""The command `events`: statistics and out-of-memory events as JSON, one a line.

Source: runc events.go, types/events.go.
"""

from __future__ import annotations

import os
import select
import time

from satsuma.linux import cgroup_stats
from satsuma.linux.cgroup import Cgroup
from satsuma.runtime import fastjson
from satsuma.runtime.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from satsuma.runtime.state import Container


def _memory_entry(group: Cgroup, prefix: str) -> dict[str, int]:
    entry = {}
    for key, name in (
        ("limit", "limit_in_bytes"),
        ("usage", "usage_in_bytes"),
        ("max", "max_usage_in_bytes"),
        ("failcnt", "failcnt"),
    ):
        try:
            entry[key] = int(group.read("memory", f"{prefix}.{name}"))
        except (OSError, ValueError):
            entry[key] = 0
    return entry


def stats(container: Container) -> dict[str, Any]:
    """Return the data of one "stats" event."""
    group = container.cgroup()
    blocks = cgroup_stats.read_stats(group)
    cpu, memory, pids = blocks["cpu_stats"], blocks["memory_stats"], blocks["pids_stats"]
    usage = cpu["cpu_usage"]
    throttling = cpu["throttling_data"]
    data: dict[str, Any] = {
        "cpu": {
            "usage": {
                "total": usage["total_usage"],
                "percpu": usage.get("percpu_usage", []),
                "kernel": usage["usage_in_kernelmode"],
                "user": usage["usage_in_usermode"],
            },
            "throttling": {
                "periods": throttling["periods"],
                "throttledPeriods": throttling["throttled_periods"],
                "throttledTime": throttling["throttled_time"],
            },
        },
        "cpuset": _cpuset(group),
        "memory": _memory(group, memory),
        "pids": {key: pids[key] for key in ("current", "limit") if key in pids},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }
    return data


def _cpuset(group: Cgroup) -> dict[str, Any]:
    from satsuma.runtime.config import parse_cpu_list

    result = {}
    for key, name in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        try:
            result[key] = parse_cpu_list(group.read("cpuset", name).strip())
        except OSError:
            result[key] = []
    return result


def _memory(group: Cgroup, block: dict[str, Any]) -> dict[str, Any]:
    raw = block.get("stats", {})
    if group.is_v2:
        entry = {"limit": block.get("limit", 0), "usage": block.get("usage", 0), "max": 0, "failcnt": 0}
        return {"cache": raw.get("file", 0), "usage": entry, "raw": raw}
    return {
        "cache": raw.get("cache", 0),
        "usage": _memory_entry(group, "memory"),
        "swap": _memory_entry(group, "memory.memsw"),
        "kernel": _memory_entry(group, "memory.kmem"),
        "kernelTCP": _memory_entry(group, "memory.kmem.tcp"),
        "raw": raw,
    }


def parse_interval(text: str) -> float:
    """Return a Go duration in seconds."""
    from satsuma.base.sizes import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise RuntimeFailure(f'invalid value "{text}" for flag -interval: parse error') from error
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
    oom = group.watch_oom()
    seen = group.oom_kills()
    init = os.pidfd_open(container.pid)
    poller = select.poll()
    poller.register(oom, select.POLLIN)
    poller.register(init, select.POLLIN)
    due = time.monotonic()
    while container.is_alive():
        left = max(0.0, due - time.monotonic())
        if not poller.poll(left * 1000):
            emit("stats", stats(container))
            due = time.monotonic() + seconds
            continue
        _drain(oom)
        count = group.oom_kills()
        if count > seen:
            seen = count
            emit("oom", None)


def _drain(fd: int) -> None:
    try:
        os.read(fd, 65536)
    except BlockingIOError:
        return
