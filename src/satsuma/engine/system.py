"""The face of the engine itself: info, version, disk usage, events, health of the store.

Source: moby daemon/{info,info_unix,disk_usage}.go of 28.5.2.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from satsuma import __version__
from satsuma.base.aio import blocking, describe_tasks
from satsuma.base.clock import format_rfc3339nano, now_ns
from satsuma.container import Status
from satsuma.engine.containers import Containers
from satsuma.engine.core import Core
from satsuma.engine.events import Filters, parse_filters
from satsuma.engine.images import Images
from satsuma.store import check as check_store
from satsuma.store import repair as repair_store

Json = dict[str, Any]

API_VERSION = "1.51"
MIN_API_VERSION = "1.24"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


class System:
    """Operations on the engine as a whole."""

    def __init__(self, core: Core, containers: Containers, images: Images) -> None:
        self._core = core
        self._containers = containers
        self._images = images

    async def info(self) -> Json:
        """Return GET /info."""
        core = self._core
        config, facts = core.config, core.facts
        counts = {status: 0 for status in Status}
        for record in core.registry:
            if not record.hidden:
                counts[record.state.status] += 1
        running = counts[Status.RUNNING] + counts[Status.RESTARTING]
        uname = os.uname()
        release = os_release()
        return {
            "ID": core.engine_id,
            "Containers": sum(counts.values()),
            "ContainersRunning": running,
            "ContainersPaused": counts[Status.PAUSED],
            "ContainersStopped": sum(counts.values()) - running - counts[Status.PAUSED],
            "Images": len(core.images.list()),
            "Driver": "overlay2",
            "DriverStatus": await blocking(driver_status, config.data_root),
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": ["json-file", "local"],
            },
            "MemoryLimit": "memory" in facts.controllers or facts.cgroup_version == 2,
            "SwapLimit": facts.swap_limit,
            "KernelMemoryTCP": False,
            "CpuCfsPeriod": True,
            "CpuCfsQuota": True,
            "CPUShares": True,
            "CPUSet": True,
            "PidsLimit": True,
            "IPv4Forwarding": _read("/proc/sys/net/ipv4/ip_forward") == "1",
            "Debug": config.debug,
            "NFd": len(os.listdir("/proc/self/fd")),
            "OomKillDisable": facts.cgroup_version == 1,
            "NGoroutines": len(describe_tasks()),
            "SystemTime": format_rfc3339nano(now_ns()),
            "LoggingDriver": config.log_config.type,
            "CgroupDriver": config.cgroup_driver,
            "CgroupVersion": str(facts.cgroup_version),
            "NEventsListener": core.bus.reader_count,
            "KernelVersion": uname.release,
            "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
            "OSVersion": release.get("VERSION_ID", ""),
            "OSType": "linux",
            "Architecture": uname.machine,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "IndexConfigs": {
                    "docker.io": {"Mirrors": [], "Name": "docker.io", "Official": True, "Secure": True}
                },
                "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
                "Mirrors": None,
            },
            "NCPU": facts.cpu_count,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "GenericResources": None,
            "DockerRootDir": config.data_root,
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": uname.nodename,
            "Labels": list(config.labels),
            "ExperimentalBuild": False,
            "ServerVersion": __version__,
            "Runtimes": {
                "runc": {"path": "satsuma-oci"},
                "io.containerd.runc.v2": {"path": "satsuma-oci"},
            },
            "DefaultRuntime": "runc",
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": config.live_restore,
            "Isolation": "",
            "InitBinary": os.path.basename(config.init_path) or "docker-init",
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": ""},
            "InitCommit": {"ID": ""},
            "SecurityOptions": security_options(core),
            "FirewallBackend": {"Driver": "nftables"},
            "CDISpecDirs": [],
            "Warnings": None if facts.ip_forward else ["WARNING: IPv4 forwarding is disabled"],
        }

    async def version(self) -> Json:
        """Return GET /version."""
        uname = os.uname()
        arch = _MACHINES.get(uname.machine, uname.machine)
        details = {
            "ApiVersion": API_VERSION,
            "Arch": arch,
            "BuildTime": "",
            "Experimental": "false",
            "GitCommit": "",
            "GoVersion": "",
            "KernelVersion": uname.release,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
        }
        return {
            "Platform": {"Name": "Satsuma"},
            "Components": [
                {"Name": "Engine", "Version": __version__, "Details": details},
                {"Name": "satsuma-oci", "Version": __version__, "Details": {"GitCommit": ""}},
            ],
            "Version": __version__,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": arch,
            "KernelVersion": uname.release,
            "BuildTime": "",
        }

    async def df(self, types: set[str] | None, verbose: bool = False) -> Json:
        """Return GET /system/df; with *types* only these parts."""
        answer: Json = {}
        wanted = types or {"container", "image", "volume", "build-cache"}
        if "image" in wanted:
            answer["LayersSize"] = self._core.images.layers_size()
            images = await self._images.list(all=False, filters={}, shared_size=True)
            answer["Images"] = [
                image | {"RepoTags": image["RepoTags"] or None, "RepoDigests": image["RepoDigests"] or None}
                for image in images
            ]
        if "container" in wanted:
            answer["Containers"] = await self._containers.list(all=True, limit=0, size=True, filters={})
        if "volume" in wanted:
            answer["Volumes"] = await self._volumes()
        if "build-cache" in wanted:
            answer["BuildCache"] = []
        return answer

    async def _volumes(self) -> list[Json]:
        volumes = self._core.volumes
        answer = []
        for volume in volumes.all():
            size = await blocking(volumes.usage, volume.name)
            usage = {"RefCount": len(volumes.users(volume.name)), "Size": size}
            answer.append(volumes.to_json(volume) | {"UsageData": usage})
        return answer

    def events(self, *, since_ns: int | None, until_ns: int | None, filters: Filters) -> AsyncIterator[Json]:
        """Yield events.

        Raises:
            InvalidParameter: an unknown filter, at once.
        """
        return self._core.bus.read(since_ns=since_ns, until_ns=until_ns, wanted=parse_filters(filters))

    async def ping(self) -> dict[str, str]:
        """Return the extra headers of /_ping."""
        return {"Builder-Version": "1", "Swarm": "inactive"}

    async def check(self, *, repair: bool = False) -> Json:
        """Compare rows with directories; returns what is wrong, and what of it was mended."""
        core = self._core
        findings = [*await blocking(check_store, core.store), *await blocking(core.images.check)]
        left = await blocking(repair_store, core.store, findings) if repair else findings
        return {
            "Findings": [
                {
                    "Severity": item.severity,
                    "Subject": item.subject,
                    "Message": item.message,
                    "Repaired": item not in left,
                }
                for item in findings
            ]
        }


def security_options(core: Core) -> list[str]:
    """Return the security features that containers get by default."""
    options = [f"name=seccomp,profile={core.config.seccomp_profile_name}"]
    if core.config.default_cgroupns_mode == "private":
        options.append("name=cgroupns")
    if core.config.no_new_privileges:
        options.append("name=no-new-privileges")
    return options


def driver_status(path: str) -> list[list[str]]:
    """Return what `docker info` shows below the storage driver."""
    return [
        ["Backing Filesystem", filesystem_name(path)],
        ["Supports d_type", "true"],
        ["Using metacopy", "false"],
        ["Native Overlay Diff", "true"],
        ["userxattr", "false"],
    ]


def filesystem_name(path: str) -> str:
    """Return the kind of file system that holds *path*, in Docker's words."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                left, _, right = line.partition(" - ")
                if left.split()[2] == wanted:
                    kind = right.split()[0]
                    return "extfs" if kind.startswith("ext") else kind
    except OSError:
        pass
    return "<unknown>"


def os_release() -> dict[str, str]:
    """Return the fields of os-release(5)."""
    answer = {}
    for line in (_read("/etc/os-release") or _read("/usr/lib/os-release")).splitlines():
        name, assigned, value = line.partition("=")
        if assigned:
            answer[name] = value.strip().strip('"').strip("'")
    return answer


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
