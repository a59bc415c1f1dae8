"""What a container is made of, measured on the real one: layers, mounts, namespaces, limits, processes.

The data behind `satsuma anatomy`.  A stopped container shows what it has: layers, volumes, what it would ask for.
"""

from __future__ import annotations

import os
from typing import Any

from satsuma.base.aio import blocking
from satsuma.base.clock import now_ns
from satsuma.base.errors import EngineError
from satsuma.container import Record
from satsuma.container.inspect import time_text
from satsuma.container.listing import status_text
from satsuma.engine.core import Core
from satsuma.engine.supervise import cgroup_of
from satsuma.linux import caps, cgroup_stats
from satsuma.monitor.client import Monitor
from satsuma.store import Layer

Json = dict[str, Any]

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_SECCOMP = {"0": "off", "1": "strict", "2": "filter"}
_NAME_LIMIT = 4096


async def anatomy(core: Core, reference: str) -> Json:
    """Return the picture of a container as data.

    Raises:
        NotFound: no such container.
    """
    record = core.registry.find(reference)
    actor = core.actors.get(record.id)
    monitor = actor.monitor if actor and record.state.is_live else None
    answer: Json = {
        "Id": record.id,
        "Name": record.display_name,
        "Image": record.config.image,
        "ImageID": record.image_id,
        "Status": status_text(record.state, now_ns()),
        "State": str(record.state.status),
        "Created": time_text(record.created_ns),
        "Command": [record.path, *record.args],
    }
    answer["Layers"] = await blocking(_layers, core, record)
    answer["Mounts"] = [point.to_json() for point in record.mounts] + [
        {"Type": "tmpfs", "Source": "", "Destination": destination, "Mode": options, "RW": True}
        for destination, options in (record.host.tmpfs or {}).items()
    ]
    answer["EtcFiles"] = {
        f"/etc/{name}": f"{core.directory(record.id)}/{name}" for name in ("hosts", "hostname", "resolv.conf")
    }
    answer["Network"] = _network(record)
    answer["Limits"] = _limits(record)
    answer["Namespaces"], answer["Processes"], answer["Security"], answer["Usage"] = [], [], {}, {}
    if monitor is not None:
        others = {other.id: other for other in core.registry if other.state.pid and other.id != record.id}
        answer |= await blocking(_live, record, monitor, others)
    return answer


def _layers(core: Core, record: Record) -> Json:
    """Return the stack from the top: upperdir, init layer, image layers with their sharers."""
    snapshots = core.store.snapshots
    try:
        active, chain = snapshots.active(record.id), snapshots.chain(record.id)
    except EngineError:
        return {}
    users = _layer_users(core, record)
    known: dict[str, Layer] = {layer.chain_id: layer for layer in core.store.layers.all()}
    read_only = []
    for chain_id in reversed(chain):
        layer = known.get(str(chain_id))
        read_only.append(
            {
                "ChainID": chain_id,
                "DiffID": layer.diff_id if layer else "",
                "Size": layer.size if layer else 0,
                "Directory": snapshots.layer_dir(chain_id),
                "Images": users["images"].get(chain_id, []),
                "Containers": users["containers"].get(chain_id, []),
            }
        )
    return {
        "Upper": {"Directory": active.upperdir, "Size": snapshots.usage(record.id), "Work": active.workdir},
        "Init": {"Directory": snapshots.init_layer()},
        "ReadOnly": read_only,
    }


def _layer_users(core: Core, record: Record) -> dict[str, dict[str, list[str]]]:
    images: dict[str, list[str]] = {}
    for image in core.images.list():
        name = image.repo_tags[0] if image.repo_tags else image.id[7:19]
        for chain_id in image.chain_ids:
            images.setdefault(chain_id, []).append(name)
    containers: dict[str, list[str]] = {}
    for other in core.registry:
        if other.id != record.id and not other.hidden:
            for chain in other.chain:
                containers.setdefault(chain, []).append(other.name)
    return {"images": images, "containers": containers}


def _network(record: Record) -> Json:
    return {
        "Mode": record.host.network_mode,
        "SandboxID": record.network.sandbox_id,
        "Hostname": record.config.hostname,
        "Endpoints": {
            name: {
                key: point.get(key)
                for key in ("IPAddress", "IPPrefixLen", "Gateway", "MacAddress", "NetworkID", "Aliases")
            }
            for name, point in record.network.endpoints.items()
        },
        "Ports": record.network.ports,
    }


def _limits(record: Record) -> Json:
    host = record.host
    return {
        "Memory": host.memory,
        "MemorySwap": host.memory_swap,
        "NanoCpus": host.nano_cpus,
        "CpuShares": host.cpu_shares,
        "CpuPeriod": host.cpu_period,
        "CpuQuota": host.cpu_quota,
        "CpusetCpus": host.cpuset_cpus,
        "PidsLimit": host.pids_limit,
    }


def _live(record: Record, monitor: Monitor, others: dict[str, Record]) -> Json:
    """Return what only a running container has.  Runs in a thread."""
    pid = monitor.init_pid
    group = cgroup_of(monitor)
    answer: Json = {
        "Pid": pid,
        "MonitorPid": monitor.pid,
        "Namespaces": _namespaces(pid, others),
        "Security": _security(record, pid),
        "Cgroup": dict(monitor.cgroup),
    }
    try:
        answer["Usage"] = _usage(cgroup_stats.read_stats(group))
        answer["Processes"] = process_tree(group.pids(), pid)
    except OSError:
        answer["Usage"], answer["Processes"] = {}, []
    return answer


def namespace_inode(pid: int | str, kind: str) -> int:
    """Return the inode of a process's namespace, 0 when it cannot be read."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return 0


def _namespaces(pid: int, others: dict[str, Record]) -> list[Json]:
    answer = []
    for kind in _NAMESPACES:
        inode = namespace_inode(pid, kind)
        if not inode:
            continue
        answer.append(
            {
                "Type": kind,
                "Inode": inode,
                "Host": inode == namespace_inode("self", kind),
                "SharedWith": [
                    other.name
                    for other in others.values()
                    if namespace_inode(other.state.pid, kind) == inode and not other.hidden
                ],
            }
        )
    return answer


def _security(record: Record, pid: int) -> Json:
    status = read_status(pid)
    return {
        "User": record.config.user,
        "Uid": (status.get("Uid", "").split() or [""])[0],
        "Gid": (status.get("Gid", "").split() or [""])[0],
        "Privileged": record.host.privileged,
        "ReadonlyRootfs": record.host.readonly_rootfs,
        "Effective": capability_names(status.get("CapEff", "0")),
        "Bounding": capability_names(status.get("CapBnd", "0")),
        "NoNewPrivileges": status.get("NoNewPrivs") == "1",
        "Seccomp": _SECCOMP.get(status.get("Seccomp", "0"), "unknown"),
    }


def read_status(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def capability_names(mask: str) -> list[str]:
    """Return the names of a capability mask of /proc/PID/status."""
    value = int(mask or "0", 16)
    return caps.names(value)


def _usage(stats: Json) -> Json:
    memory = stats.get("memory_stats", {})
    return {
        "Memory": memory.get("usage", 0),
        "MemoryLimit": memory.get("limit", 0),
        "CpuTotal": stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0),
        "Pids": stats.get("pids_stats", {}).get("current", 0),
    }


def process_tree(pids: list[int], init: int) -> list[Json]:
    """Return the processes, each with its pid on the host and inside, parents before children."""
    found: dict[int, Json] = {}
    for pid in pids:
        status = read_status(pid)
        if not status:
            continue
        inner = status.get("NSpid", str(pid)).split()
        found[pid] = {
            "HostPid": pid,
            "ContainerPid": int(inner[-1]),
            "HostParent": int(status.get("PPid", "0")),
            "Command": _command_line(pid) or f"[{status.get('Name', '')}]",
            "User": (status.get("Uid", "0").split() or ["0"])[0],
        }
    children: dict[int, list[int]] = {}
    for pid, process in found.items():
        children.setdefault(process["HostParent"], []).append(pid)
    answer: list[Json] = []

    def add(pid: int, depth: int) -> None:
        answer.append(found[pid] | {"Depth": depth})
        for child in sorted(children.get(pid, [])):
            add(child, depth + 1)

    tops = [pid for pid, process in found.items() if process["HostParent"] not in found]
    for pid in sorted(tops, key=lambda pid: (pid != init, pid)):
        add(pid, 0)
    return answer


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            raw = file.read(_NAME_LIMIT)
    except OSError:
        return ""
    return raw.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
