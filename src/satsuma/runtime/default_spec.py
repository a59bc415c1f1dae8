"""What a container of Docker gets when nothing is said: capabilities, masks, mounts, devices, seccomp.

Must not know the Docker API; everything is in the shape of the runtime-spec.

Source: moby oci/defaults.go, oci/caps/defaults.go; observed with Docker 20.10.24 and 28.5.2.
"""

from __future__ import annotations

import os

from satsuma.linux import syscalls
from satsuma.runtime import seccomp_profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Rules of the devices controller in Docker's spec; the runtime adds what every container needs.
DEVICE_RULES: tuple[dict[str, Any], ...] = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 9, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 8, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
    {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
)

# With a network namespace of its own; both files are namespaced.
NET_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}


def masked_paths() -> list[str]:
    """Return the masked paths for this machine: the fixed ones and those of each processor."""
    base = "/sys/devices/system/cpu"
    try:
        processors = sorted(
            (name for name in os.listdir(base) if name.startswith("cpu") and name[3:].isdigit()),
            key=lambda name: int(name[3:]),
        )
    except OSError:
        processors = []
    throttles = [f"{base}/{name}/thermal_throttle" for name in processors]
    return [*MASKED_PATHS, *(path for path in throttles if os.path.isdir(path))]


def default_mounts(*, shm_size: int = 64 << 20, cgroup_readonly: bool = True) -> list[dict[str, Any]]:
    """Return Docker's mounts in its order, without the three files below /etc."""
    cgroup = ["ro" if cgroup_readonly else "rw", "nosuid", "noexec", "nodev"]
    return [
        _mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", cgroup),
        _mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
        _mount("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", f"size={shm_size}"]),
    ]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def default_seccomp(caps: Iterable[str], machine: str = syscalls.MACHINE) -> dict[str, Any]:
    """Return Docker's default profile for a bounding set, as the OCI `linux.seccomp` object."""
    return seccomp_profile.default_profile(caps, machine)


def capability_sets(caps: Iterable[str]) -> dict[str, list[str]]:
    """Return the five sets as dockerd fills them: nothing inheritable, nothing ambient."""
    names = list(caps)
    return {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []}
