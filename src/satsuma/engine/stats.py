"""`stats` and `top`: what a container uses, and which processes it has.

Source: moby daemon/stats.go, daemon/top_unix.go of 28.5.2.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from satsuma.base.aio import blocking
from satsuma.base.clock import format_rfc3339nano, now_ns
from satsuma.base.errors import Conflict, InvalidParameter, NotFound, System
from satsuma.container import Record, Status
from satsuma.container.inspect import time_text
from satsuma.engine.core import Core
from satsuma.engine.supervise import cgroup_of
from satsuma.linux import cgroup_stats

Json = dict[str, Any]

INTERVAL = 1.0
UNLIMITED = 1 << 62
_PS_RENAME = re.compile(r"\s*(\S*)=\s*(PID\S*)")
_EMPTY_CPU: Json = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


async def stats(core: Core, reference: str, *, stream: bool, one_shot: bool) -> AsyncIterator[Json]:
    """Yield samples, one each second; without *stream* one sample, after a first one to compare with.

    Raises:
        NotFound: before the first sample.
    """
    record = core.registry.find(reference)
    previous: Json | None = None
    if not stream and not one_shot and record.state.is_live:
        previous = await sample(core, record)
        await asyncio.sleep(INTERVAL)
    while True:
        current = core.registry.get(record.id)
        if current is None:
            return
        taken = await sample(core, current)
        yield _with_previous(taken, previous)
        if not stream:
            return
        previous = taken
        await asyncio.sleep(INTERVAL)


def _with_previous(taken: Json, previous: Json | None) -> Json:
    answer = dict(taken)
    answer["preread"] = previous["read"] if previous else time_text(0)
    answer["precpu_stats"] = previous["cpu_stats"] if previous else _EMPTY_CPU
    return answer


async def sample(core: Core, record: Record) -> Json:
    """Return one sample; a container that does not run has zeros."""
    head: Json = {
        "name": record.display_name,
        "id": record.id,
        "read": format_rfc3339nano(now_ns()),
        "preread": time_text(0),
        "num_procs": 0,
        "storage_stats": {},
    }
    actor = core.actors.get(record.id)
    if actor is None or actor.monitor is None or not record.state.is_live:
        return head | {
            "read": time_text(0),
            "pids_stats": {},
            "blkio_stats": _no_blkio(),
            "cpu_stats": _EMPTY_CPU,
            "memory_stats": {},
        }
    group, pid = cgroup_of(actor.monitor), actor.monitor.init_pid
    try:
        found = await blocking(cgroup_stats.read_stats, group)
    except OSError:
        return head | {
            "pids_stats": {},
            "blkio_stats": _no_blkio(),
            "cpu_stats": _EMPTY_CPU,
            "memory_stats": {},
        }
    networks = {}
    if record.host.network_mode not in ("host", "none"):
        networks = await blocking(interface_counters, pid)
    if found["pids_stats"].get("limit", 0) >= UNLIMITED:
        found["pids_stats"] = {"current": found["pids_stats"]["current"]}
    return head | found | ({"networks": networks} if networks else {})


def _no_blkio() -> Json:
    return {
        name: None
        for name in (
            "io_service_bytes_recursive",
            "io_serviced_recursive",
            "io_queue_recursive",
            "io_service_time_recursive",
            "io_wait_time_recursive",
            "io_merged_recursive",
            "io_time_recursive",
            "sectors_recursive",
        )
    }


def interface_counters(pid: int) -> Json:
    """Return the counters of a process's network interfaces, loopback left out."""
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return {}
    answer = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        fields = [int(field) for field in numbers.split()]
        if name.strip() == "lo" or len(fields) < 12:
            continue
        answer[name.strip()] = {
            "rx_bytes": fields[0],
            "rx_packets": fields[1],
            "rx_errors": fields[2],
            "rx_dropped": fields[3],
            "tx_bytes": fields[8],
            "tx_packets": fields[9],
            "tx_errors": fields[10],
            "tx_dropped": fields[11],
        }
    return answer


async def top(core: Core, reference: str, ps_args: str) -> Json:
    """Return the processes of a container as the host's ps shows them.

    Raises:
        Conflict: not running; System: ps is missing, or does not know its arguments.
    """
    args = ps_args or "-ef"
    if _PS_RENAME.search(args) and any(key != "PID" for _, key in _PS_RENAME.findall(args)):
        raise InvalidParameter(f"specifying {args!r} is not allowed")
    record = core.registry.find(reference)
    if record.state.status is Status.RESTARTING:
        raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
    monitor = core.live_monitor(record)
    pids = await blocking(cgroup_of(monitor).pids)
    text = await run_ps(args.split(), pids)
    answer = parse_ps(text, set(pids))
    core.emit(record, "top")
    return answer


async def run_ps(args: list[str], pids: list[int]) -> str:
    """Return the output of the host's ps, asked for *pids* only where it understands that."""
    try:
        code, out, err = await _ps([*args, "-q" + ",".join(map(str, pids))])
        if code:
            code, out, err = await _ps(args)
    except FileNotFoundError:
        raise System('exec: "ps": executable file not found in $PATH')
    if code:
        raise System(f"ps: {err.strip().partition(chr(10))[0] or f'exit status {code}'}")
    return out


async def _ps(args: list[str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        "ps", *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def parse_ps(text: str, pids: set[int]) -> Json:
    """Return `{"Titles", "Processes"}`: rows of *pids*; the last column takes the rest of the line.

    Raises:
        NotFound: no PID column.
    """
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise NotFound("Couldn't find PID field in ps output")
    column = titles.index("PID")
    processes = []
    previous_wanted = False
    for line in lines[1:]:
        if not line.strip():
            continue
        fields = line.split(None, len(titles) - 1)
        if len(fields) <= column:
            continue
        # With thread output, a dash stands for the pid of the line above.
        if fields[column] == "-":
            if previous_wanted:
                processes.append(fields)
            continue
        if not fields[column].isdigit():
            raise System(
                f"Unexpected pid {fields[column]!r}: strconv.Atoi: parsing {fields[column]!r}: invalid syntax"
            )
        previous_wanted = int(fields[column]) in pids
        if previous_wanted:
            processes.append(fields)
    return {"Titles": titles, "Processes": processes}
