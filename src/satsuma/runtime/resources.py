"""Limits of the runtime-spec's `linux.resources` as files of cgroupfs, for version 1 and version 2.

`plan_resources` is pure: resources in, list of writes out.  `apply` and `update` write them.

Source: runtime-spec config-linux.md#control-groups; runc libcontainer/cgroups/fs, fs2.
"""

from __future__ import annotations

import errno
import math
import os

from satsuma.linux import bpf_devices
from satsuma.linux.cgroup import UNIFIED, Cgroup
from satsuma.runtime.errors import ConfigError, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]
    DeviceRule = tuple[bool, str, int | None, int | None, str]

_UNLIMITED = -1


class Write:
    """One file to write: *optional* ones may be missing on this kernel."""

    __slots__ = ("controller", "name", "optional", "value")

    def __init__(self, controller: str, name: str, value: str | int, *, optional: bool = False) -> None:
        self.controller = controller
        self.name = name
        self.value = str(value)
        self.optional = optional

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Write) and self.describe() == other.describe()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """Return one line for people."""
        return f"cgroup {self.controller or 'unified'}: {self.name} = {self.value}"


# What runc allows every container besides its configured devices: making nodes, the standard nodes, ptys, tun.
_ALWAYS_ALLOWED: tuple[DeviceRule, ...] = (
    (True, "c", None, None, "m"),
    (True, "b", None, None, "m"),
    (True, "c", 1, 3, "rwm"),
    (True, "c", 1, 8, "rwm"),
    (True, "c", 1, 7, "rwm"),
    (True, "c", 5, 0, "rwm"),
    (True, "c", 1, 5, "rwm"),
    (True, "c", 1, 9, "rwm"),
    (True, "c", 136, None, "rwm"),
    (True, "c", 5, 2, "rwm"),
    (True, "c", 10, 200, "rwm"),
)


def parse_devices(entries: list[Json]) -> list[DeviceRule]:
    """Return the rules in the order of their effect, with what every container needs after a "deny all"."""
    rules: list[DeviceRule] = []
    for entry in entries:
        kind = entry.get("type") or "a"
        access = entry.get("access") or "rwm"
        if kind not in ("a", "b", "c") or not set(access) <= set("rwm"):
            raise ConfigError(f"invalid device rule {entry!r}")
        major, minor = (
            None if entry.get(key) in (None, -1) else int(entry[key]) for key in ("major", "minor")
        )
        if kind == "a":
            major = minor = None
            access = "rwm"
        rules.append((bool(entry.get("allow")), kind, major, minor, access))
    if not rules or rules[0] == (False, "a", None, None, "rwm"):
        return [(False, "a", None, None, "rwm"), *_ALWAYS_ALLOWED, *rules[1:]]
    return rules


def _device_text(rule: DeviceRule) -> str:
    _, kind, major, minor, access = rule
    numbers = f"{'*' if major is None else major}:{'*' if minor is None else minor}"
    return f"{kind} {numbers} {access}"


def plan_resources(resources: Json, *, v2: bool) -> list[Write]:
    """Return the writes for all limits but devices, in the order in which they must be made.

    Raises:
        ConfigError: limits which contradict each other or which this version of cgroups cannot express.
    """
    writes: list[Write] = []
    for key, planner in (_V2 if v2 else _V1).items():
        if resources.get(key):
            try:
                writes += planner(resources[key])
            except (TypeError, KeyError, AttributeError) as error:
                raise ConfigError(f"malformed spec file: resources.{key}: {error}") from error
    unified = resources.get("unified")
    if unified:
        if not v2:
            raise ConfigError("cannot set unified resources: cgroup v2 is not in use")
        for name, value in unified.items():
            if "/" in name:
                raise ConfigError(f"unified resource {name!r} must be a file name (no slashes)")
            writes += [Write(UNIFIED, name, line) for line in str(value).splitlines()]
    return writes


def _memory_v1(memory: Json) -> list[Write]:
    writes = []
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None and limit > 0 and swap is not None and 0 < swap < limit:
        raise ConfigError("memory+swap limit must not be below the memory limit")
    if limit == _UNLIMITED and swap is None:
        swap = _UNLIMITED  # the kernel refuses an unlimited memory under a limited memory+swap
    for value, name in ((limit, "memory.limit_in_bytes"), (swap, "memory.memsw.limit_in_bytes")):
        if value:
            writes.append(
                Write("memory", name, value, optional=name.startswith("memory.memsw") and value < 0)
            )
    if memory.get("reservation"):
        writes.append(Write("memory", "memory.soft_limit_in_bytes", memory["reservation"]))
    if memory.get("kernelTCP"):
        writes.append(Write("memory", "memory.kmem.tcp.limit_in_bytes", memory["kernelTCP"]))
    if memory.get("disableOOMKiller"):
        writes.append(Write("memory", "memory.oom_control", 1))
    swappiness = memory.get("swappiness")
    if swappiness is not None and swappiness != (1 << 64) - 1 and swappiness != _UNLIMITED:
        if not 0 <= swappiness <= 100:
            raise ConfigError(f"invalid memory swappiness value: {swappiness} (valid range is 0-100)")
        writes.append(Write("memory", "memory.swappiness", swappiness))
    return writes


def _limit_text(value: int) -> str:
    return "max" if value < 0 else str(value)


def _memory_v2(memory: Json) -> list[Write]:
    writes = []
    limit, swap = memory.get("limit"), memory.get("swap")
    if memory.get("disableOOMKiller"):
        raise ConfigError("disabling the OOM killer is not possible with cgroup v2")
    if swap:
        writes.append(Write(UNIFIED, "memory.swap.max", _swap_v2(limit or 0, swap)))
    elif limit == _UNLIMITED:
        writes.append(Write(UNIFIED, "memory.swap.max", "max", optional=True))
    if limit:
        writes.append(Write(UNIFIED, "memory.max", _limit_text(limit)))
    if memory.get("reservation"):
        writes.append(Write(UNIFIED, "memory.low", _limit_text(memory["reservation"])))
    return writes


def _swap_v2(limit: int, swap: int) -> str:
    """Return the swap alone: the specification counts memory and swap together."""
    if swap < 0:
        return "max"
    if limit <= 0:
        raise ConfigError("unable to set swap limit without memory limit")
    if swap < limit:
        raise ConfigError("memory+swap limit should be >= memory limit")
    return str(swap - limit)


def _cpu_v1(cpu: Json) -> list[Write]:
    writes = []
    for key, name in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("burst", "cpu.cfs_burst_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ):
        value = cpu.get(key)
        if value or (key == "burst" and value == 0):
            writes.append(Write("cpu", name, value))
    if cpu.get("idle") is not None:
        writes.append(Write("cpu", "cpu.idle", cpu["idle"]))
    return writes + _cpuset("cpuset", cpu)


def _cpuset(controller: str, cpu: Json) -> list[Write]:
    keys = (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems"))
    return [Write(controller, name, cpu[key]) for key, name in keys if cpu.get(key)]


def cpu_weight(shares: int) -> int:
    """Convert cpu.shares (2-262144) to cpu.weight (1-10000): 2 → 1, 1024 → 100, 262144 → 10000.

    Source: runc 1.3.2 and crun, https://github.com/kubernetes/enhancements (KEP on the conversion).
    """
    if shares <= 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def _cpu_v2(cpu: Json) -> list[Write]:
    for key in ("realtimePeriod", "realtimeRuntime"):
        if cpu.get(key):
            raise ConfigError(f"cpu.{key} is not possible with cgroup v2")
    writes = []
    idle = cpu.get("idle")
    if idle is not None:
        writes.append(Write(UNIFIED, "cpu.idle", idle))
    if cpu.get("shares") and not idle:
        writes.append(Write(UNIFIED, "cpu.weight", cpu_weight(cpu["shares"])))
    quota, period = cpu.get("quota"), cpu.get("period")
    if quota or period:
        quota_text = str(quota) if quota is not None and quota > 0 else "max"
        writes.append(Write(UNIFIED, "cpu.max", f"{quota_text} {period or 100000}"))
    if cpu.get("burst") is not None:
        writes.append(Write(UNIFIED, "cpu.max.burst", cpu["burst"]))
    return writes + _cpuset(UNIFIED, cpu)


def _pids(controller: str, pids: Json) -> list[Write]:
    limit = pids.get("limit")
    return [] if limit is None else [Write(controller, "pids.max", _limit_text(limit))]


def _rate_writes(controller: str, block_io: Json) -> list[Write]:
    writes = []
    for key, name, tag in (
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
    ):
        for entry in block_io.get(key) or []:
            device, rate = f"{entry['major']}:{entry['minor']}", entry["rate"]
            if controller == UNIFIED:
                writes.append(Write(UNIFIED, "io.max", f"{device} {tag}={rate or 'max'}"))
            else:
                writes.append(Write("blkio", name, f"{device} {rate}"))
    return writes


def _block_io_v1(block_io: Json) -> list[Write]:
    writes = []
    if block_io.get("weight"):
        writes.append(Write("blkio", "blkio.weight|blkio.bfq.weight", block_io["weight"]))
    if block_io.get("leafWeight"):
        writes.append(Write("blkio", "blkio.leaf_weight", block_io["leafWeight"]))
    for entry in block_io.get("weightDevice") or []:
        device = f"{entry['major']}:{entry['minor']}"
        if entry.get("weight"):
            name = "blkio.weight_device|blkio.bfq.weight_device"
            writes.append(Write("blkio", name, f"{device} {entry['weight']}"))
        if entry.get("leafWeight"):
            writes.append(Write("blkio", "blkio.leaf_weight_device", f"{device} {entry['leafWeight']}"))
    return writes + _rate_writes("blkio", block_io)


def io_weight(weight: int) -> int:
    """Convert blkio.weight (10-1000) to io.weight (1-10000)."""
    return 1 + (weight - 10) * 9999 // 990


def _block_io_v2(block_io: Json) -> list[Write]:
    writes = []
    weight = block_io.get("weight")
    if weight:
        # "a|b": the first file that exists; after "=" its own value.
        names = f"io.bfq.weight=default {weight}|io.weight=default {io_weight(weight)}"
        writes.append(Write(UNIFIED, names, ""))
    for entry in block_io.get("weightDevice") or []:
        if entry.get("weight"):
            device = f"{entry['major']}:{entry['minor']}"
            writes.append(Write(UNIFIED, "io.bfq.weight", f"{device} {entry['weight']}"))
    return writes + _rate_writes(UNIFIED, block_io)


def _hugepages(limits: list[Json], suffix: str, controller: str) -> list[Write]:
    writes = []
    for entry in limits:
        size = entry["pageSize"]
        writes.append(Write(controller, f"hugetlb.{size}.{suffix}", entry["limit"]))
        writes.append(Write(controller, f"hugetlb.{size}.rsvd.{suffix}", entry["limit"], optional=True))
    return writes


def _network_v1(network: Json) -> list[Write]:
    writes = []
    if network.get("classID"):
        writes.append(Write("net_cls", "net_cls.classid", network["classID"]))
    for entry in network.get("priorities") or []:
        writes.append(Write("net_prio", "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}"))
    return writes


def _network_v2(network: Json) -> list[Write]:
    if network.get("classID") or network.get("priorities"):
        raise ConfigError("network resources are not possible with cgroup v2")
    return []


def _rdma(controller: str, rdma: Json) -> list[Write]:
    writes = []
    for device, limits in rdma.items():
        parts = [device]
        for key, name in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            if limits.get(key) is not None:
                parts.append(f"{name}={limits[key]}")
        writes.append(Write(controller, "rdma.max", " ".join(parts)))
    return writes


_V1: Json = {
    "memory": _memory_v1,
    "cpu": _cpu_v1,
    "pids": lambda pids: _pids("pids", pids),
    "blockIO": _block_io_v1,
    "hugepageLimits": lambda limits: _hugepages(limits, "limit_in_bytes", "hugetlb"),
    "network": _network_v1,
    "rdma": lambda rdma: _rdma("rdma", rdma),
}
_V2: Json = {
    "memory": _memory_v2,
    "cpu": _cpu_v2,
    "pids": lambda pids: _pids(UNIFIED, pids),
    "blockIO": _block_io_v2,
    "hugepageLimits": lambda limits: _hugepages(limits, "max", UNIFIED),
    "network": _network_v2,
    "rdma": lambda rdma: _rdma(UNIFIED, rdma),
}


def apply(group: Cgroup, resources: Json) -> None:
    """Set the limits of a new group, devices included.

    Raises:
        ConfigError: impossible limits.
        OSError: the kernel refused; the text names file and value.
    """
    for write in plan_resources(resources, v2=group.is_v2):
        apply_write(group, write)
    apply_devices(group, resources.get("devices"), fresh=True)


def update(group: Cgroup, resources: Json) -> None:
    """Change limits of a group in use; what *resources* does not mention stays.

    Raises:
        ConfigError: impossible limits.
        OSError: the kernel refused (EBUSY: the memory is in use already).
    """
    writes = plan_resources(resources, v2=group.is_v2)
    memory = resources.get("memory") or {}
    if group.is_v2:
        _check_memory_v2(group, memory)
    elif memory.get("limit") and memory.get("swap"):
        writes = _order_memory_v1(group, writes, memory["swap"])
    for write in writes:
        apply_write(group, write)
    if resources.get("devices"):
        apply_devices(group, resources["devices"], fresh=False)


def _order_memory_v1(group: Cgroup, writes: list[Write], swap: int) -> list[Write]:
    # At every moment memory <= memory+swap must hold: growing needs the second first.
    try:
        current = int(group.read("memory", "memory.limit_in_bytes"))
    except OSError:
        return writes
    if swap >= 0 and current >= swap:
        return writes
    names = [write.name for write in writes]
    first, second = names.index("memory.limit_in_bytes"), names.index("memory.memsw.limit_in_bytes")
    writes[first], writes[second] = writes[second], writes[first]
    return writes


def _check_memory_v2(group: Cgroup, memory: Json) -> None:
    limit = memory.get("limit") or 0
    if not memory.get("checkBeforeUpdate") or limit <= 0:
        return
    current = int(group.read(UNIFIED, "memory.current"))
    if current > limit:
        raise OSError(errno.EBUSY, f"unable to set memory limit to {limit} (current usage: {current})")


def apply_write(group: Cgroup, write: Write) -> None:
    """Make one write; a name "a|b" takes the first file that exists."""
    names = write.name.split("|")
    for name in names:
        name, _, own_value = name.partition("=")
        value = own_value or write.value
        try:
            _write(group, write.controller, name, value)
            return
        except FileNotFoundError as error:
            if name.partition("=")[0] != names[-1].partition("=")[0]:
                continue
            if write.optional:
                return
            if write.controller not in group.dirs and not group.is_v2:
                raise FileNotFoundError(
                    errno.ENOENT,
                    f"cannot set {write.controller} limit: container could not join or create cgroup",
                ) from error
            raise


def _write(group: Cgroup, controller: str, name: str, value: str) -> None:
    try:
        group.write(controller, name, value)
    except OSError as error:
        if error.errno != errno.EINVAL or name != "cpu.cfs_period_us":
            raise
        # A shorter period can be too short for the quota that is still set: lift that one first.
        group.write("cpu", "cpu.cfs_quota_us", "-1")
        group.write(controller, name, value)


def apply_devices(group: Cgroup, entries: list[Json] | None, *, fresh: bool) -> None:
    """Apply the device rules; None leaves the group as it is, an empty list denies all but the standard ones."""
    if entries is None:
        return
    rules = parse_devices(entries)
    if group.is_v2:
        fd = os.open(group.dirs[UNIFIED], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bpf_devices.replace(fd, rules)
        finally:
            os.close(fd)
        return
    if "devices" not in group.dirs:
        raise FileNotFoundError(
            errno.ENOENT, "cannot set devices limit: container could not join or create cgroup"
        )
    writes = plan_devices_v1(rules)
    if not fresh:
        writes = _difference_v1(group, writes)
    for write in writes:
        group.write("devices", write.name, write.value)


def plan_devices_v1(rules: list[DeviceRule]) -> list[Write]:
    """Return the writes to devices.allow and devices.deny.

    A list which starts by allowing all needs no write for that: the parent's "a *:* rwm" is inherited.
    """
    writes = [
        Write(
            "devices",
            "devices.allow" if rule[0] else "devices.deny",
            "a" if rule[1] == "a" else _device_text(rule),
        )
        for rule in rules
    ]
    if rules and rules[0][:2] == (True, "a"):
        return writes[1:]
    # A deny after "deny all" which takes nothing back is superfluous.
    allowed: set[str] = set()
    needed = []
    for write in writes:
        if write.name == "devices.allow":
            if write.value in allowed:
                continue
            allowed.add(write.value)
        elif write.value != "a" and not _takes_something(write.value, allowed):
            continue
        needed.append(write)
    return needed


def _takes_something(denied: str, allowed: set[str]) -> bool:
    kind, numbers, access = denied.split()
    for entry in allowed:
        other_kind, other_numbers, other_access = entry.split()
        same = all(
            "*" in pair or pair[0] == pair[1]
            for pair in zip(numbers.split(":"), other_numbers.split(":"), strict=True)
        )
        if kind == other_kind and same and set(access) & set(other_access):
            return True
    return False


def _difference_v1(group: Cgroup, writes: list[Write]) -> list[Write]:
    # Running processes must not lose a device for a moment: allow what is new, then deny what is too much.
    current = set(group.read("devices", "devices.list").split("\n")) - {""}
    if not writes or writes[0].value != "a":
        return writes or [Write("devices", "devices.allow", "a")]
    wanted = {write.value for write in writes[1:] if write.name == "devices.allow"}
    if "a *:* rwm" in current:
        return writes
    changes = [Write("devices", "devices.allow", value) for value in sorted(wanted - current)]
    changes += [Write("devices", "devices.deny", value) for value in sorted(current - wanted)]
    return changes + [write for write in writes[1:] if write.name == "devices.deny"]


def failure_text(error: OSError) -> str:
    """Return runc's words for a limit that the kernel refused."""
    notes = getattr(error, "__notes__", [])
    detail = notes[-1] if notes else ""
    if error.strerror and error.strerror.startswith(("cannot set", "unable to set")):
        return error.strerror
    return f"unable to apply cgroup configuration: {detail + ': ' if detail else ''}{error_text(error)}"
