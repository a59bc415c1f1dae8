"""A container as an OCI runtime configuration: Docker's Config and HostConfig become config.json.

`plan_config` is pure: what depends on the machine (paths of the container's own files, the host's device nodes,
another container's pid) comes in through `Plan`.  Builds use it for RUN as well.

Source: moby daemon/oci_linux.go and oci/defaults.go of 28.5.2; runtime-spec config.md, config-linux.md.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from satsuma.base.errors import InvalidParameter
from satsuma.container.capabilities import effective_capabilities
from satsuma.container.config import process_env
from satsuma.container.devices import Device, device_rules, devices_from_path
from satsuma.container.mounts import MountPoint, tmpfs_options
from satsuma.container.record import Record
from satsuma.container.resources import oci_resources
from satsuma.container.seccomp import resolve_profile
from satsuma.runtime import default_spec
from satsuma.spec.docker import Ulimit

Json = dict[str, Any]

_DEVICE_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})", re.ASCII)
_WRITABLE_WITH_READONLY_ROOT = frozenset({"/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"})
_PRIVATE_NETWORK_SYSCTLS = {
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv4.ip_unprivileged_port_start": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `plan_config` must know beside the record.

    Attributes:
        cgroups_path: as in config.json, `/satsuma/<id>` or `slice:prefix:name`.
        sources: host path of each mount point by destination; volumes and images are resolved by the caller.
        etc_files: host paths of our own `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`, by destination.
        namespaces: path of a namespace to join by OCI type, `"host"` to stay in the host's.
        linked_env: variables of `--link`.
        available_caps: the daemon's own bounding set.
        host_devices: every device node of the host, for `--privileged`.
    """

    cgroups_path: str
    sources: dict[str, str] = field(default_factory=dict)
    etc_files: dict[str, str] = field(default_factory=dict)
    namespaces: dict[str, str] = field(default_factory=dict)
    linked_env: tuple[str, ...] = ()
    default_ulimits: tuple[Ulimit, ...] = ()
    available_caps: tuple[str, ...] = ()
    host_devices: Callable[[], list[Device]] = list
    default_seccomp: str = ""


def plan_config(record: Record, plan: Plan) -> Json:
    """Return the OCI configuration of a container.

    Raises:
        InvalidParameter: a device or seccomp profile that cannot be.
    """
    host, security = record.host, record.security
    capabilities = effective_capabilities(
        host.cap_add, host.cap_drop, privileged=host.privileged, available=plan.available_caps
    )
    devices, rules = plan_devices(record, plan)
    linux: Json = {
        "namespaces": plan_namespaces(record, plan),
        "cgroupsPath": plan.cgroups_path,
        "resources": oci_resources(host) | {"devices": rules},
        "devices": [device.to_oci() for device in devices],
        "sysctl": plan_sysctls(record),
        "maskedPaths": [],
        "readonlyPaths": [],
        "rootfsPropagation": _root_propagation(record.mounts),
    }
    if not host.privileged and not security.systempaths_unconfined:
        linux["maskedPaths"] = default_spec.masked_paths() if host.masked_paths is None else host.masked_paths
        linux["readonlyPaths"] = (
            default_spec.READONLY_PATHS if host.readonly_paths is None else host.readonly_paths
        )
    seccomp = plan_seccomp(
        security.seccomp_profile or plan.default_seccomp, capabilities, privileged=host.privileged
    )
    if seccomp is not None:
        linux["seccomp"] = seccomp
    config: Json = {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": host.readonly_rootfs},
        "process": plan_process(record, plan, capabilities),
        "mounts": plan_mounts(record, plan),
        "annotations": dict(host.annotations or {}),
        "linux": linux,
    }
    if host.uts_mode != "host":
        config["hostname"] = record.config.hostname
        if record.config.domainname:
            config["domainname"] = record.config.domainname
    return config


def plan_process(record: Record, plan: Plan, capabilities: list[str]) -> Json:
    """Return the `process` object of the container's init."""
    config, host = record.config, record.host
    args = [record.path, *record.args]
    process: Json = {
        "args": args,
        "cwd": config.working_dir or "/",
        "env": process_env(
            hostname=config.hostname, tty=config.tty, linked=plan.linked_env, own=config.env or ()
        ),
        "terminal": config.tty,
        "user": {"username": config.user, "additionalGroups": list(host.group_add or ())},
        "capabilities": capability_sets(capabilities),
        "noNewPrivileges": record.security.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
        "rlimits": plan_rlimits(host.ulimits, plan.default_ulimits),
    }
    if config.tty and any(host.console_size):
        process["consoleSize"] = {"height": host.console_size[0], "width": host.console_size[1]}
    return process


def capability_sets(capabilities: list[str]) -> Json:
    """Return Docker's sets: bounding, effective and permitted are one; nothing inheritable or ambient."""
    return {name: list(capabilities) for name in ("bounding", "effective", "permitted")} | {
        "inheritable": [],
        "ambient": [],
    }


def plan_rlimits(own: Iterable[Ulimit] | None, defaults: Iterable[Ulimit]) -> list[Json]:
    """Return the rlimits, the container's over the daemon's."""
    merged = {limit.name: limit for limit in defaults} | {limit.name: limit for limit in own or ()}
    return [
        {"type": f"RLIMIT_{name.upper()}", "hard": _unsigned(limit.hard), "soft": _unsigned(limit.soft)}
        for name, limit in merged.items()
    ]


def _unsigned(value: int) -> int:
    return value if value >= 0 else 2**64 - 1


def plan_namespaces(record: Record, plan: Plan) -> list[Json]:
    """Return the namespaces to make or to join; what stays the host's is left out."""
    answer: list[Json] = [{"type": "mount"}]
    wanted = ["network", "uts", "pid", "ipc"]
    if record.host.cgroupns_mode == "private":
        wanted.append("cgroup")
    for kind in wanted:
        path = plan.namespaces.get(kind, "")
        if path == "host":
            continue
        answer.append({"type": kind, "path": path} if path else {"type": kind})
    return answer


def plan_sysctls(record: Record) -> dict[str, str]:
    """Return the sysctls; harmless network defaults only where the network namespace is the container's own."""
    mode = record.host.network_mode
    private = mode != "host" and not mode.startswith("container:")
    return (dict(_PRIVATE_NETWORK_SYSCTLS) if private else {}) | (record.host.sysctls or {})


def plan_mounts(record: Record, plan: Plan) -> list[Json]:
    """Return all mounts in the order in which they are made: the defaults, then the user's by depth."""
    host = record.host
    user = _user_mounts(record, plan)
    covered = {mount["destination"] for mount in user}
    mounts = []
    for mount in default_spec.default_mounts(shm_size=host.shm_size):
        destination = mount["destination"]
        if destination in covered or ("/dev" in covered and destination.startswith("/dev/")):
            continue
        if destination == "/dev/shm":
            shm = _plan_shm(mount, record, plan)
            if shm is not None:
                mounts.append(shm)
            continue
        if destination == "/dev/mqueue" and plan.namespaces.get("ipc"):
            # A fresh mqueue mount shows the queues of the ipc namespace it is made in: joined, or the host's.
            mounts.append(dict(mount))
            continue
        mounts.append(_relax(mount, record))
    if host.readonly_rootfs:
        for mount in mounts:
            if mount["destination"] not in _WRITABLE_WITH_READONLY_ROOT and "ro" not in mount["options"]:
                mount["options"] = [*mount["options"], "ro"]
    mounts.extend(user)
    for destination, source in plan.etc_files.items():
        if destination not in covered:
            file = _bind(destination, source)
            mounts.append(file | {"options": [*file["options"], "ro"]} if host.readonly_rootfs else file)
    return mounts


def _plan_shm(mount: Json, record: Record, plan: Plan) -> Json | None:
    """`/dev/shm`: nothing, the host's, another container's, or our own tmpfs."""
    mode = record.host.ipc_mode
    if mode == "none":
        return None
    if mode == "host":
        return _bind("/dev/shm", "/dev/shm")
    if source := plan.sources.get("/dev/shm"):
        return _bind("/dev/shm", source)
    return mount


def _relax(mount: Json, record: Record) -> Json:
    """Make /sys and the cgroup tree writable where that is asked for."""
    host = record.host
    writable_cgroups = record.security.writable_cgroups
    if writable_cgroups is None:
        writable_cgroups = host.privileged
    writable = (mount["destination"] == "/sys" and host.privileged) or (
        mount["type"] == "cgroup" and writable_cgroups
    )
    options = [option for option in mount["options"] if not (writable and option == "ro")]
    return mount | {"options": options}


def _bind(destination: str, source: str) -> Json:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rprivate"]}


def _user_mounts(record: Record, plan: Plan) -> list[Json]:
    tmpfs = record.host.tmpfs or {}
    answer = [
        _plan_tmpfs(destination, data.split(",") if data else []) for destination, data in tmpfs.items()
    ]
    taken = {mount["destination"] for mount in answer}
    for point in record.mounts:
        if point.destination not in taken:
            answer.append(_plan_point(point, plan))
    # By depth, so that no mount hides one below it: /etc must come before /etc/hosts.
    answer.sort(key=lambda mount: posixpath.normpath(mount["destination"]).count("/"))
    return answer


def _plan_tmpfs(destination: str, options: list[str]) -> Json:
    base = ["noexec", "nosuid", "nodev", "rprivate"]
    return {
        "destination": posixpath.normpath(destination),
        "type": "tmpfs",
        "source": "tmpfs",
        "options": merge_tmpfs_options([*base, *options]),
    }


def merge_tmpfs_options(options: list[str]) -> list[str]:
    """Let the later of two options win that mean the same thing: exec over noexec, size=2m over size=1m.

    Raises:
        InvalidParameter: `invalid tmpfs option "x"`.
    """
    answer: dict[str, str] = {}
    for option in options:
        if not option:
            continue
        name, assigned, _ = option.partition("=")
        key = _TMPFS_KEYS.get(name)
        if key is None or (bool(assigned) != (key in _TMPFS_VALUES)):
            raise InvalidParameter(f'invalid tmpfs option "{name}"')
        answer.pop(key, None)
        answer[key] = option
    return list(answer.values())


_TMPFS_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"})
_TMPFS_KEYS = {name: name for name in _TMPFS_VALUES} | {
    name: key
    for key, names in {
        "rw": "rw ro",
        "suid": "suid nosuid",
        "dev": "dev nodev",
        "exec": "exec noexec",
        "sync": "sync async",
        "dirsync": "dirsync",
        "mand": "mand nomand",
        "atime": "atime noatime",
        "diratime": "diratime nodiratime",
        "bind": "bind rbind",
        "relatime": "relatime norelatime strictatime nostrictatime",
        "propagation": "private rprivate shared rshared slave rslave unbindable runbindable",
        "remount": "remount",
    }.items()
    for name in names.split()
}


def _plan_point(point: MountPoint, plan: Plan) -> Json:
    if point.type == "tmpfs":
        return _plan_tmpfs(point.destination, tmpfs_options(point.spec.tmpfs_options, read_only=not point.rw))
    bind = point.spec.bind_options
    options = ["bind" if bind and bind.non_recursive else "rbind"]
    if not point.rw:
        options.append("ro" if bind and bind.read_only_non_recursive else "rro")
    options.append(point.propagation or "rprivate")
    return {
        "destination": point.destination,
        "type": "bind",
        "source": plan.sources.get(point.destination, point.source),
        "options": options,
    }


def _root_propagation(mounts: Iterable[MountPoint]) -> str:
    kinds = {point.propagation for point in mounts if point.type == "bind"}
    if kinds & {"shared", "rshared"}:
        return "shared"
    return "rslave" if kinds & {"slave", "rslave"} else "rprivate"


def plan_devices(record: Record, plan: Plan) -> tuple[list[Device], list[Json]]:
    """Return the device nodes to make and the device cgroup's rules, in the order in which they count."""
    host = record.host
    if host.privileged:
        devices = list(plan.host_devices())
        for mapping in host.devices or []:
            if mapping.path_on_host != mapping.path_in_container:
                devices += devices_from_path(mapping.path_on_host, mapping.path_in_container)
        return devices, [{"allow": True, "access": "rwm"}]
    devices, rules = [], [dict(rule) for rule in default_spec.DEVICE_RULES]
    for mapping in host.devices or []:
        found = devices_from_path(mapping.path_on_host, mapping.path_in_container)
        devices += found
        rules += device_rules(found, mapping.cgroup_permissions or "rwm")
    return devices, rules + [parse_device_rule(rule) for rule in host.device_cgroup_rules or []]


def parse_device_rule(rule: str) -> Json:
    """Parse `c 42:* rmw`.

    Raises:
        InvalidParameter: `invalid device cgroup rule format: 'x'`.
    """
    match = _DEVICE_RULE.fullmatch(rule)
    if match is None:
        raise InvalidParameter(f"invalid device cgroup rule format: '{rule}'")
    kind, major, minor, access = match.groups()
    return {
        "allow": True,
        "type": kind,
        "major": -1 if major == "*" else int(major),
        "minor": -1 if minor == "*" else int(minor),
        "access": access,
    }


def plan_seccomp(profile: str, capabilities: list[str], *, privileged: bool) -> Json | None:
    """Return the OCI seccomp object, None for no filter.

    Args:
        profile: "" or "builtin" for the default, "unconfined", or a profile's JSON in Docker's or OCI's form.
    Raises:
        InvalidParameter: the profile does not parse.
    """
    if profile == "unconfined":
        return None
    if profile in ("", "builtin", "default"):
        return None if privileged else default_spec.default_seccomp(capabilities)
    try:
        parsed = json.loads(profile)
        if not isinstance(parsed, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise InvalidParameter(f"Decoding seccomp profile failed: {error}")
    return resolve_profile(parsed, capabilities)
