"""Limits of the runtime-spec's `linux.resources` as files of cgroupfs, for version 1 and version 2.

`plan_resources` is pure: resources in, list of writes out.  `apply` and `update` write them.  In a hybrid set-up a
controller without a v1 hierarchy (hugetlb, rdma, misc) is used in the version 2 half.

Source: runtime-spec config-linux.md#control-groups; runc libcontainer/cgroups/fs, fs2.
"""

from __future__ import annotations

import errno
import math

from satsuma.linux.cgroup import UNIFIED, Cgroup
from satsuma.runtime.devices import apply_devices
from satsuma.runtime.errors import ConfigError, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_UNLIMITED = -1


class Write:
    """One file to write.

    Attributes:
        name: "a|b" is the first file that exists; "a=x|b=y" gives each its own value.
        optional: the file may be missing on this kernel.
        deferrable: when the kernel refuses the value (EINVAL), try it again after the others: two values of one
            group must fit each other at every moment, and which is written first depends on what is set now.
    """

    __slots__ = ("controller", "deferrable", "name", "optional", "value")

    def __init__(
        self,
        controller: str,
        name: str,
        value: str | int,
        *,
        optional: bool = False,
        deferrable: bool = False,
    ) -> None:
        self.controller = controller
        self.name = name
        self.value = str(value)
        self.optional = optional
        self.deferrable = deferrable

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Write) and self.describe() == other.describe()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """Return one line for people."""
        return f"cgroup {self.controller or 'unified'}: {self.name} = {self.value}"


_INT, _UINT, _SHORT, _WORD, _PERCENT = "int64", "uint64", "uint16", "uint32", "percent"
# Go's types of the specification: (lowest, highest).
_RANGES = {
    _INT: (-(1 << 63), (1 << 63) - 1),
    _UINT: (0, (1 << 64) - 1),
    _SHORT: (0, (1 << 16) - 1),
    _WORD: (0, (1 << 32) - 1),
    # The planner says which are none; -1 and its unsigned form mean unset.
    _PERCENT: (-(1 << 63), (1 << 64) - 1),
}
_DEVICE = {"major": _INT, "minor": _INT}
_RATES = [{**_DEVICE, "rate": _UINT}]
# A list stands for a list of such objects, "*" for any key.
_SHAPES: dict[str, Any] = {
    "memory": {
        **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), _INT),
        "swappiness": _PERCENT,
        **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), bool),
    },
    "cpu": {
        **dict.fromkeys(("shares", "period", "burst", "realtimePeriod"), _UINT),
        **dict.fromkeys(("quota", "realtimeRuntime", "idle"), _INT),
        "cpus": str,
        "mems": str,
    },
    "pids": {"limit": _INT},
    "blockIO": {
        "weight": _SHORT,
        "leafWeight": _SHORT,
        "weightDevice": [{**_DEVICE, "weight": _SHORT, "leafWeight": _SHORT}],
        "throttleReadBpsDevice": _RATES,
        "throttleWriteBpsDevice": _RATES,
        "throttleReadIOPSDevice": _RATES,
        "throttleWriteIOPSDevice": _RATES,
    },
    "hugepageLimits": [{"pageSize": str, "limit": _UINT}],
    "network": {"classID": _WORD, "priorities": [{"name": str, "priority": _WORD}]},
    "rdma": {"*": {"hcaHandles": _WORD, "hcaObjects": _WORD}},
    "unified": {"*": str},
}


def check(resources: Json) -> None:
    """Check the types and ranges of all limits but devices.

    Raises:
        ConfigError: which of them is wrong.
    """
    for key, shape in _SHAPES.items():
        _check(resources.get(key), shape, f"linux.resources.{key}")


def _check(value: Any, shape: Any, where: str) -> None:
    """Check one value; absent and null are fine, and names that the specification does not know."""
    if value is None:
        return
    kind: Any = int if isinstance(shape, str) else shape if isinstance(shape, type) else type(shape)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"malformed spec file: {where} has the wrong type")
    if kind is int and not _RANGES[shape][0] <= value <= _RANGES[shape][1]:
        raise ConfigError(f"malformed spec file: {where} is out of range")
    if kind is str and "\0" in value:
        raise ConfigError(f"malformed spec file: {where} contains a NUL character")
    if kind is list:
        if None in value:
            raise ConfigError(f"malformed spec file: {where} has the wrong type")
        for entry in value:
            _check(entry, shape[0], where)
    elif kind is dict:
        for name, entry in value.items():
            _check_entry(entry, shape.get(name, shape.get("*")), f"{where}.{name}")


def _check_entry(value: Any, shape: Any, where: str) -> None:
    if shape is not None:
        _check(value, shape, where)


def plan_resources(resources: Json, *, v2: bool, v2_half: frozenset[str] = frozenset()) -> list[Write]:
    """Return the writes for all limits but devices, in the order in which they must be made.

    Args:
        v2: all controllers are in the v2 tree.
        v2_half: otherwise, those which are there nevertheless (`Layout.v2_half`).
    Raises:
        ConfigError: limits which contradict each other or which this version of cgroups cannot express.
    """
    check(resources)
    writes: list[Write] = []
    for key, (controller, in_v1, in_v2) in _PLANNERS.items():
        if resources.get(key):
            planner = in_v2 if v2 or controller in v2_half else in_v1
            try:
                writes += planner(resources[key])
            except (TypeError, KeyError, AttributeError) as error:
                raise ConfigError(f"malformed spec file: resources.{key}: {error}") from error
    unified = resources.get("unified")
    if unified:
        if not v2:
            raise ConfigError("invalid configuration: cannot use unified on cgroup v1")
        for name, value in unified.items():
            if "/" in name:
                raise ConfigError(f"unified resource {name!r} must be a file name (no slashes)")
            if "." not in name:
                raise ConfigError(f"unified resource {name!r} must be in the form CONTROLLER.PARAMETER")
            writes += [Write(UNIFIED, name, line) for line in str(value).splitlines()]
    return writes


def _memory_v1(memory: Json) -> list[Write]:
    writes = []
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None and limit > 0 and swap is not None and 0 < swap < limit:
        raise ConfigError("memory+swap limit must not be below the memory limit")
    if memory.get("useHierarchy") is not None:
        writes.append(Write("memory", "memory.use_hierarchy", int(memory["useHierarchy"])))
    if limit:
        writes.append(Write("memory", "memory.limit_in_bytes", limit))
    if swap:
        writes.append(Write("memory", "memory.memsw.limit_in_bytes", swap))
    elif limit == _UNLIMITED:
        # The kernel refuses an unlimited memory under a limited memory+swap; it may not count swap at all.
        writes.append(Write("memory", "memory.memsw.limit_in_bytes", _UNLIMITED, optional=True))
    if memory.get("reservation"):
        writes.append(Write("memory", "memory.soft_limit_in_bytes", memory["reservation"]))
    if memory.get("kernelTCP"):
        writes.append(Write("memory", "memory.kmem.tcp.limit_in_bytes", memory["kernelTCP"]))
    if memory.get("disableOOMKiller"):
        writes.append(Write("memory", "memory.oom_control", 1))
    swappiness = _swappiness(memory)
    if swappiness is not None:
        writes.append(Write("memory", "memory.swappiness", swappiness))
    return writes


def _swappiness(memory: Json) -> int | None:
    value: int | None = memory.get("swappiness")
    if value is None or value in (_UNLIMITED, (1 << 64) - 1):
        return None
    if not 0 <= value <= 100:
        raise ConfigError(f"invalid memory swappiness value: {value} (valid range is 0-100)")
    return value


def _limit_text(value: int) -> str:
    return "max" if value < 0 else str(value)


def _memory_v2(memory: Json) -> list[Write]:
    writes = []
    limit, swap = memory.get("limit"), memory.get("swap")
    if memory.get("disableOOMKiller"):
        raise ConfigError("disabling the OOM killer is not possible with cgroup v2")
    if memory.get("useHierarchy") is False:
        raise ConfigError("memory without a hierarchy is not possible with cgroup v2")
    if memory.get("kernelTCP"):
        raise ConfigError("memory.kernelTCP is not possible with cgroup v2")
    if _swappiness(memory) is not None:
        raise ConfigError("memory.swappiness is not possible with cgroup v2")
    if swap:
        # A kernel without swap has no such file; "none" and "as much as you like" are both true there.
        text = _swap_v2(limit or 0, swap)
        writes.append(Write(UNIFIED, "memory.swap.max", text, optional=text in ("0", "max")))
    elif limit == _UNLIMITED:
        writes.append(Write(UNIFIED, "memory.swap.max", "max", optional=True))
    if limit:
        writes.append(Write(UNIFIED, "memory.max", _limit_text(limit)))
    if memory.get("reservation"):
        writes.append(Write(UNIFIED, "memory.low", _limit_text(memory["reservation"])))
    return writes


def _swap_v2(limit: int, swap: int) -> str:
    """Return the swap alone: the specification counts memory and swap together."""
    if swap == _UNLIMITED:
        return "max"
    if swap < 0:
        raise ConfigError(f"invalid memory+swap value: {swap}")
    if limit <= 0:
        raise ConfigError("unable to set swap limit without memory limit")
    if swap < limit:
        raise ConfigError("memory+swap limit should be >= memory limit")
    return str(swap - limit)


def _cpu_v1(cpu: Json) -> list[Write]:
    writes = []
    idle = cpu.get("idle")
    if idle is not None:
        writes.append(Write("cpu", "cpu.idle", idle))
    if cpu.get("shares") and not idle:
        writes.append(Write("cpu", "cpu.shares", cpu["shares"]))
    # What is left of the period after the quota is not to exceed the parent's; a burst is not to exceed the quota.
    for key, name, deferrable in (
        ("period", "cpu.cfs_period_us", True),
        ("burst", "cpu.cfs_burst_us", True),
        ("quota", "cpu.cfs_quota_us", False),
        ("realtimePeriod", "cpu.rt_period_us", True),
        ("realtimeRuntime", "cpu.rt_runtime_us", False),
    ):
        value = cpu.get(key)
        if value or (key == "burst" and value == 0):
            optional = key == "burst" and value == 0
            writes.append(Write("cpu", name, value, optional=optional, deferrable=deferrable))
    return writes + _cpuset("cpuset", cpu)


def _cpuset(controller: str, cpu: Json) -> list[Write]:
    keys = (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems"))
    return [Write(controller, name, cpu[key]) for key, name in keys if cpu.get(key)]


def cpu_weight(shares: int) -> int:
    """Convert cpu.shares (2-262144) to cpu.weight (1-10000): 2 → 1, 1024 → 100, 262144 → 10000.

    Source: runc 1.3.2 and crun use the same curve.
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
    burst = cpu.get("burst")
    if burst is not None:
        writes.append(Write(UNIFIED, "cpu.max.burst", burst, optional=burst == 0, deferrable=True))
    quota, period = cpu.get("quota"), cpu.get("period")
    if quota or period:
        quota_text = str(quota) if quota is not None and quota > 0 else "max"
        writes.append(Write(UNIFIED, "cpu.max", f"{quota_text} {period or 100000}"))
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
    """Convert blkio.weight (10-1000; less counts as 10) to io.weight (1-10000)."""
    return 1 + max(0, weight - 10) * 9999 // 990


def _block_io_v2(block_io: Json) -> list[Write]:
    writes = []
    weight = block_io.get("weight")
    if block_io.get("leafWeight") or any(
        entry.get("leafWeight") for entry in block_io.get("weightDevice") or []
    ):
        raise ConfigError("blockIO.leafWeight is not possible with cgroup v2")
    if weight:
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
        if "/" in size:
            raise ConfigError(f"invalid hugepage size: {size!r}")
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


# Key -> (controller, planner for v1, planner for v2); blockIO's controller has two names and no v2 half beside v1.
_PLANNERS: Json = {
    "memory": ("memory", _memory_v1, _memory_v2),
    "cpu": ("cpu", _cpu_v1, _cpu_v2),
    "pids": ("pids", lambda pids: _pids("pids", pids), lambda pids: _pids(UNIFIED, pids)),
    "blockIO": ("blkio", _block_io_v1, _block_io_v2),
    "hugepageLimits": (
        "hugetlb",
        lambda limits: _hugepages(limits, "limit_in_bytes", "hugetlb"),
        lambda limits: _hugepages(limits, "max", UNIFIED),
    ),
    "network": ("net_cls", _network_v1, _network_v2),
    "rdma": ("rdma", lambda rdma: _rdma("rdma", rdma), lambda rdma: _rdma(UNIFIED, rdma)),
}


def plan_for(group: Cgroup, resources: Json) -> list[Write]:
    """Return the writes for this group; see `plan_resources`."""
    return plan_resources(resources, v2=group.is_v2, v2_half=group.layout.v2_half())


def apply(group: Cgroup, resources: Json) -> None:
    """Set the limits of a new group, devices included (without rules: the standard ones, as runc does).

    Raises:
        ConfigError: impossible limits.
        OSError: the kernel refused; the text names file and value.
    """
    _apply_writes(group, plan_for(group, resources))
    devices = resources.get("devices")
    if devices is not None or group.is_v2 or "devices" in group.dirs:
        apply_devices(group, devices or [], fresh=True)


def update(group: Cgroup, resources: Json) -> None:
    """Change limits of a group in use; what *resources* does not mention stays.

    Raises:
        ConfigError: impossible limits.
        OSError: the kernel refused (EBUSY: the memory is in use already).
    """
    if group.is_v2:
        resources = _completed_v2(group, resources)
        writes = plan_for(group, resources)
        _check_memory_v2(group, resources.get("memory") or {})
    else:
        writes = _order_memory_v1(group, plan_for(group, resources))
    group.set_properties(resources)
    _apply_writes(group, writes)
    if resources.get("devices"):
        apply_devices(group, resources["devices"], fresh=False)


def _order_memory_v1(group: Cgroup, writes: list[Write]) -> list[Write]:
    # At every moment memory <= memory+swap must hold: growing needs the second first.
    places = {write.name: place for place, write in enumerate(writes)}
    first, second = places.get("memory.limit_in_bytes"), places.get("memory.memsw.limit_in_bytes")
    if first is None or second is None:
        return writes
    swap = int(writes[second].value)
    if swap >= 0 and _number(group, "memory", "memory.limit_in_bytes") >= swap:
        return writes
    writes[first], writes[second] = writes[second], writes[first]
    return writes


def _number(group: Cgroup, controller: str, name: str) -> int:
    """Return a counter; 0 when there is none, a huge number for "max"."""
    try:
        text = group.read(controller, name).strip()
    except OSError:
        return 0
    return 1 << 63 if text == "max" else int(text)


def _completed_v2(group: Cgroup, resources: Json) -> Json:
    """Add what a value of v2 says besides the one that is to change: it is in the file now."""
    memory, cpu = dict(resources.get("memory") or {}), dict(resources.get("cpu") or {})
    result = dict(resources)
    if bool(cpu.get("quota")) != bool(cpu.get("period")):
        quota, _, period = group.read(UNIFIED, "cpu.max").strip().partition(" ")
        cpu["quota"] = cpu.get("quota") or (_UNLIMITED if quota == "max" else int(quota))
        cpu["period"] = cpu.get("period") or int(period)
        result["cpu"] = cpu
    limit, swap = memory.get("limit"), memory.get("swap")
    if ((swap or 0) > 0) != ((limit or 0) > 0) and not (swap and limit):
        now = _number(group, UNIFIED, "memory.max")
        swap_now = _number(group, UNIFIED, "memory.swap.max")
        if not limit:
            memory["limit"] = now if now < 1 << 63 else 0
        elif now < 1 << 63 and swap_now < 1 << 63 and _exists(group, "memory.swap.max"):
            memory["swap"] = now + swap_now  # the sum stays what it was
        result["memory"] = memory
    return result


def _exists(group: Cgroup, name: str) -> bool:
    try:
        group.read(UNIFIED, name)
    except OSError:
        return False
    return True


def _check_memory_v2(group: Cgroup, memory: Json) -> None:
    if not memory.get("checkBeforeUpdate"):
        return
    usage = _number(group, UNIFIED, "memory.current")
    for key, what in (("swap", "memory+swap"), ("limit", "memory")):
        wanted = memory.get(key) or 0
        if 0 < wanted <= usage:
            raise OSError(errno.EBUSY, f"cannot set {what} limit: rejecting limit {wanted} <= usage {usage}")


def _apply_writes(group: Cgroup, writes: list[Write]) -> None:
    if not group.is_v2:
        _enable_v2_half(group, writes)
    later = []
    for write in writes:
        try:
            apply_write(group, write)
        except OSError as error:
            if error.errno != errno.EINVAL or not write.deferrable:
                raise
            later.append((write, error))
    names = {write.name for write in writes}
    for write, refusal in later:
        if _PARTNER[write.name] not in names:
            raise refusal
        apply_write(group, write)


# Of a deferrable write: without this one among the others, nothing will have changed when it is tried again.
_PARTNER = {
    "cpu.cfs_period_us": "cpu.cfs_quota_us",
    "cpu.cfs_burst_us": "cpu.cfs_quota_us",
    "cpu.rt_period_us": "cpu.rt_runtime_us",
    "cpu.max.burst": "cpu.max",
}


def _enable_v2_half(group: Cgroup, writes: list[Write]) -> None:
    controllers = {write.name.partition(".")[0] for write in writes if write.controller == UNIFIED}
    if controllers:
        group.enable(sorted(controllers))


def apply_write(group: Cgroup, write: Write) -> None:
    """Make one write."""
    names = write.name.split("|")
    for place, name in enumerate(names):
        name, _, own_value = name.partition("=")
        try:
            group.write(write.controller, name, own_value or write.value)
        except FileNotFoundError as error:
            if place < len(names) - 1:
                continue
            if not write.optional:
                raise _missing(group, write, name) from error
        except OSError as error:
            _explain_busy(group, write, error)
            raise
        else:
            _check_shares(group, write)
        return


def _missing(group: Cgroup, write: Write, name: str) -> OSError:
    """Return the reason why a file is missing: its controller, or this kernel."""
    controller = name.partition(".")[0]
    if not group.is_v2 and write.controller != UNIFIED:
        if write.controller not in group.dirs:
            text = f"cannot set {write.controller} limit: container could not join or create cgroup"
        else:
            text = f"cannot set {write.controller} limit: this kernel has no {name}"
        return FileNotFoundError(errno.ENOENT, text)
    try:
        available = controller == "cgroup" or controller in group.read(UNIFIED, "cgroup.controllers").split()
    except OSError:
        available = False
    if available:
        return FileNotFoundError(errno.ENOENT, f"cannot set {controller} limit: this kernel has no {name}")
    return FileNotFoundError(errno.ENOENT, f"cannot set {name}: controller {controller!r} not available")


def _explain_busy(group: Cgroup, write: Write, error: OSError) -> None:
    if error.errno == errno.EBUSY and write.name == "memory.limit_in_bytes":
        usage, peak = (_number(group, "memory", f"memory.{name}_in_bytes") for name in ("usage", "max_usage"))
        text = f"unable to set memory limit to {write.value} (current usage: {usage}, peak usage: {peak})"
        raise OSError(errno.EBUSY, text) from error


def _check_shares(group: Cgroup, write: Write) -> None:
    # The kernel clamps without a word.
    if write.name != "cpu.shares":
        return
    kept, wanted = _number(group, "cpu", "cpu.shares"), int(write.value)
    if kept < wanted:
        raise ConfigError(f"the maximum allowed cpu-shares is {kept}")
    if kept > wanted:
        raise ConfigError(f"the minimum allowed cpu-shares is {kept}")


def failure_text(error: OSError) -> str:
    """Return runc's words for a limit that the kernel refused."""
    notes = getattr(error, "__notes__", [])
    detail = notes[-1] if notes else ""
    if error.strerror and error.strerror.startswith(("cannot ", "unable to set")):
        return error.strerror
    return f"unable to apply cgroup configuration: {detail + ': ' if detail else ''}{error_text(error)}"
