"""What this machine can do, read once when the engine opens."""

from __future__ import annotations

import os

from satsuma.container import HostFacts
from satsuma.container.resources import parse_cpu_list
from satsuma.linux import cgroup


def read_facts() -> HostFacts:
    """Return the facts that validation needs."""
    layout = cgroup.layout()
    cpus = _read("/sys/devices/system/cpu/online") or "0"
    mems = _read("/sys/devices/system/node/online") or "0"
    return HostFacts(
        cpu_count=os.cpu_count() or 1,
        cgroup_version=2 if layout.mode == "v2" else 1,
        cpus=parse_cpu_list(cpus),
        mems=parse_cpu_list(mems),
        cpus_text=cpus,
        mems_text=mems,
        controllers=frozenset(layout.mounts),
        swap_limit=_has_swap_limit(layout),
        cpu_realtime=_exists(layout, "cpu", "cpu.rt_runtime_us"),
        blkio_weight=_exists(layout, "blkio", "blkio.weight")
        or _exists(layout, "blkio", "blkio.bfq.weight")
        or layout.mode == "v2",
        ip_forward=_read("/proc/sys/net/ipv4/ip_forward") != "0",
    )


def _has_swap_limit(layout: cgroup.Layout) -> bool:
    return layout.mode == "v2" or _exists(layout, "memory", "memory.memsw.limit_in_bytes")


def _exists(layout: cgroup.Layout, controller: str, name: str) -> bool:
    mount = layout.mounts.get(controller)
    return mount is not None and os.path.exists(f"{mount}/{name}")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
