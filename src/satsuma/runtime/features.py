"""Static knowledge about ourselves: the command `features`, and the configuration that `spec` writes.

Source: runtime-spec features.md, runc libcontainer/specconv/example.go.
"""

from __future__ import annotations

from satsuma.linux import caps, seccomp
from satsuma.runtime import config, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = "0.1.0"
SPEC_VERSION = "1.3.0"


def features() -> dict[str, Any]:
    """Return what this program knows, whatever the kernel can do."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": list(config.HOOKS),
        "mountOptions": mounts.known_options(),
        "linux": {
            "namespaces": sorted(config.NAMESPACES),
            "capabilities": list(caps.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.OPERATORS),
                "archs": sorted({*seccomp.ARCHITECTURES, *seccomp.FOREIGN_ARCHITECTURES}),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {
                "modes": sorted(config.MEMORY_POLICIES),
                "flags": sorted(config.MEMORY_POLICY_FLAGS),
            },
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"org.opencontainers.runc.checkpoint.enabled": "true"},
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
    }


_EXAMPLE_CAPS = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_EXAMPLE_MASKED = "acpi asound kcore keys latency_stats timer_list timer_stats sched_debug scsi"


def example_spec() -> dict[str, Any]:
    """Return the configuration which `spec` writes, that of runc."""
    mount = [
        ("/proc", "proc", "proc", []),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
    mounts_json = []
    for destination, kind, source, options in mount:
        entry: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
        mounts_json.append(entry | {"options": options} if options else entry)
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {name: _EXAMPLE_CAPS for name in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "satsuma",
        "mounts": mounts_json,
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": [*(f"/proc/{name}" for name in _EXAMPLE_MASKED.split()), "/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")],
        },
    }


def rootless_spec(uid: int, gid: int) -> dict[str, Any]:
    """Return the example for a user without privileges, who is root inside (runc specconv.ToRootless)."""
    spec = example_spec()
    linux = spec["linux"]
    kept = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
    linux["namespaces"] = [*kept, {"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1}]
    del linux["resources"]  # there is no group in which limits could be set
    for mount in spec["mounts"]:
        options = [option for option in mount.get("options", []) if not option.startswith(("uid=", "gid="))]
        if mount["destination"] == "/sys":
            # sysfs belongs to a network namespace, and that is the host's.
            mount |= {"type": "none", "source": "/sys"}
            options = ["rbind", *options]
        if options:
            mount["options"] = options
    return spec
