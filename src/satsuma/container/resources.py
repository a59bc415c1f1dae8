"""cgroup limits: checked against the machine, changed by `update`, and as the OCI `resources` object.

Source: moby daemon/daemon_unix.go `verifyPlatformContainerResources`, `getMemoryResources`, `getCPUResources`.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import structs

from satsuma.base.errors import Conflict, InvalidParameter
from satsuma.spec.docker import HostConfig, Resources, ThrottleDevice, UpdateRequest

if TYPE_CHECKING:
    from satsuma.container.validate import HostFacts

MINIMUM_MEMORY = 6 * 1024 * 1024
R = TypeVar("R", bound=Resources)


def check_resources(limits: R, facts: HostFacts, *, update: bool) -> tuple[R, list[str]]:
    """Check limits; drop, with a warning, those that this kernel does not have.

    Raises:
        InvalidParameter: a limit that can never be.
    """
    warnings: list[str] = []
    limits = _check_memory(limits, facts, warnings, update=update)
    limits = _check_cpu(limits, facts, warnings)
    _check_cpuset(limits, facts)
    limits = _check_blkio(limits, facts, warnings)
    return limits, warnings


def _check_memory(limits: R, facts: HostFacts, warnings: list[str], *, update: bool) -> R:
    changes: dict[str, Any] = {}
    memory, swap = limits.memory, limits.memory_swap
    if limits.memory_swappiness == -1:
        changes["memory_swappiness"] = None
    elif limits.memory_swappiness is not None:
        if not 0 <= limits.memory_swappiness <= 100:
            raise InvalidParameter(
                f"Invalid value: {limits.memory_swappiness}, valid memory swappiness range is 0-100"
            )
        if facts.cgroup_version == 2:
            warnings.append(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
                "Memory swappiness discarded."
            )
            changes["memory_swappiness"] = None
    if memory and memory < MINIMUM_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if memory > 0 and swap > 0 and swap < memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not memory and swap > 0 and not update:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if memory > 0 and swap != -1 and not facts.swap_limit:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        changes["memory_swap"] = -1
    if 0 < limits.memory_reservation < MINIMUM_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if 0 < memory < limits.memory_reservation:
        raise InvalidParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if limits.kernel_memory > 0 or limits.kernel_memory_tcp > 0:
        warnings.append(
            "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. "
            "Limitation discarded."
        )
        changes |= {"kernel_memory": 0, "kernel_memory_tcp": 0}
    _check_oom(limits, facts, warnings, changes)
    return structs.replace(limits, **changes) if changes else limits


def _check_oom(limits: Resources, facts: HostFacts, warnings: list[str], changes: dict[str, Any]) -> None:
    if not limits.oom_kill_disable:
        return
    if facts.cgroup_version == 2:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        changes["oom_kill_disable"] = None
    elif not limits.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )


def _check_cpu(limits: R, facts: HostFacts, warnings: list[str]) -> R:
    if limits.cpu_shares < 0:
        raise InvalidParameter(f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer")
    if limits.nano_cpus > 0 and limits.cpu_period > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if limits.nano_cpus > 0 and limits.cpu_quota > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if limits.nano_cpus < 0 or limits.nano_cpus > facts.cpu_count * 10**9:
        raise InvalidParameter(
            f"range of CPUs is from 0.01 to {facts.cpu_count}.00, "
            f"as there are only {facts.cpu_count} CPUs available"
        )
    if limits.cpu_period and not 1000 <= limits.cpu_period <= 1_000_000:
        raise InvalidParameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < limits.cpu_quota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if (limits.cpu_realtime_period or limits.cpu_realtime_runtime) and not facts.cpu_realtime:
        raise InvalidParameter("kernel does not support CPU real-time scheduler")
    if limits.cpu_realtime_period and limits.cpu_realtime_runtime > limits.cpu_realtime_period:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")
    if limits.cpu_percent > 0:
        warnings.append("linux does not support CPU percent. Percent discarded.")
        return structs.replace(limits, cpu_percent=0)
    return limits


def parse_cpu_list(text: str) -> frozenset[int]:
    """Parse the kernel's list format: `0-2,7`.

    Raises:
        ValueError: it is no such list.
    """
    answer: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        first, separator, last = part.strip().partition("-")
        digits = first + last
        if not (first and digits.isascii() and digits.isdigit() and len(digits) < 19) or (
            separator and not last
        ):
            raise ValueError(f"invalid format: {part}")
        start, end = int(first), int(last) if separator else int(first)
        if end < start or end > 8192:
            raise ValueError(f"invalid range: {part}")
        answer.update(range(start, end + 1))
    return frozenset(answer)


def _check_cpuset(limits: Resources, facts: HostFacts) -> None:
    for words, kind, text, available, shown in (
        ("CPUs", "cpus", limits.cpuset_cpus, facts.cpus, facts.cpus_text),
        ("memory nodes", "mems", limits.cpuset_mems, facts.mems, facts.mems_text),
    ):
        if not text:
            continue
        try:
            wanted = parse_cpu_list(text)
        except ValueError as error:
            raise InvalidParameter(f"Invalid value {text} for cpuset {kind}: {error}")
        if not wanted <= available:
            raise InvalidParameter(
                f"Requested {words} are not available - requested {text}, available: {shown}"
            )


def _check_blkio(limits: R, facts: HostFacts, warnings: list[str]) -> R:
    if limits.io_maximum_bandwidth:
        raise InvalidParameter(
            "invalid option: QoS maximum bandwidth configuration is not supported on linux"
        )
    if limits.io_maximum_iops:
        raise InvalidParameter("invalid option: QoS maximum IOPs configuration is not supported on linux")
    changes: dict[str, Any] = {}
    if limits.blkio_weight > 0 and not facts.blkio_weight:
        warnings.append(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
        )
        changes["blkio_weight"] = 0
    elif limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    if limits.blkio_weight_device and not facts.blkio_weight:
        warnings.append(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
            "Weight-device discarded."
        )
        changes["blkio_weight_device"] = []
    return structs.replace(limits, **changes) if changes else limits


def oci_resources(limits: Resources) -> dict[str, Any]:
    """Return the OCI `linux.resources` of these limits, without devices.

    Raises:
        InvalidParameter: a block device that does not exist on the host.
    """
    answer: dict[str, Any] = {}
    if memory := _oci_memory(limits):
        answer["memory"] = memory
    if cpu := _oci_cpu(limits):
        answer["cpu"] = cpu
    if limits.pids_limit is not None:
        answer["pids"] = {"limit": limits.pids_limit if limits.pids_limit > 0 else -1}
    if block_io := _oci_block_io(limits):
        answer["blockIO"] = block_io
    return answer


def _oci_memory(limits: Resources) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if limits.memory > 0:
        memory["limit"] = limits.memory
    if limits.memory_reservation > 0:
        memory["reservation"] = limits.memory_reservation
    if limits.memory_swap > 0 or (limits.memory_swap == -1 and limits.memory > 0):
        memory["swap"] = limits.memory_swap
    if limits.memory_swappiness is not None:
        memory["swappiness"] = limits.memory_swappiness
    if limits.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _oci_cpu(limits: Resources) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if limits.cpu_shares:
        cpu["shares"] = limits.cpu_shares
    if limits.cpuset_cpus:
        cpu["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        cpu["mems"] = limits.cpuset_mems
    if limits.nano_cpus > 0:
        cpu["period"] = 100_000
        cpu["quota"] = limits.nano_cpus * 100_000 // 10**9
    for field, name in (
        ("cpu_period", "period"),
        ("cpu_quota", "quota"),
        ("cpu_realtime_period", "realtimePeriod"),
        ("cpu_realtime_runtime", "realtimeRuntime"),
    ):
        if value := getattr(limits, field):
            cpu[name] = value
    return cpu


def _oci_block_io(limits: Resources) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if limits.blkio_weight:
        block["weight"] = limits.blkio_weight
    if limits.blkio_weight_device:
        block["weightDevice"] = [
            _device_number(device.path) | {"weight": device.weight} for device in limits.blkio_weight_device
        ]
    for field, name in (
        ("blkio_device_read_bps", "throttleReadBpsDevice"),
        ("blkio_device_write_bps", "throttleWriteBpsDevice"),
        ("blkio_device_read_iops", "throttleReadIOPSDevice"),
        ("blkio_device_write_iops", "throttleWriteIOPSDevice"),
    ):
        devices: list[ThrottleDevice] | None = getattr(limits, field)
        if devices:
            block[name] = [_device_number(device.path) | {"rate": device.rate} for device in devices]
    return block


def _device_number(path: str) -> dict[str, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise InvalidParameter(f"stat {path}: {(error.strerror or '').lower()}")
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidParameter(f"{path} is not a block device")
    return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}


_UPDATABLE = (
    "cpu_shares memory nano_cpus blkio_weight cpu_period cpu_quota cpu_realtime_period cpu_realtime_runtime "
    "cpuset_cpus cpuset_mems memory_reservation memory_swap pids_limit"
).split()


def update_resources(host: HostConfig, change: UpdateRequest) -> HostConfig:
    """Return *host* with the limits that *change* sets.

    Raises:
        Conflict: limits that exclude each other, or a memory limit above the swap limit that stands.
    """
    if host.nano_cpus > 0 and (change.cpu_period or change.cpu_quota):
        which = "CPU Period" if change.cpu_period else "CPU Quota"
        raise Conflict(f"Conflicting options: {which} cannot be updated as NanoCPUs has already been set")
    if change.nano_cpus > 0 and (host.cpu_period or host.cpu_quota):
        which = "CPU Period" if host.cpu_period else "CPU Quota"
        raise Conflict(f"Conflicting options: Nano CPUs cannot be updated as {which} has already been set")
    changes = {name: value for name in _UPDATABLE if (value := getattr(change, name))}
    if change.pids_limit is not None:
        changes["pids_limit"] = change.pids_limit
    if change.memory and not change.memory_swap and 0 <= host.memory_swap < change.memory:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    return structs.replace(host, **changes)
