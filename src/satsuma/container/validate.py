"""Every field of a create request checked, with dockerd's words; and defaults filled in.

Pure: what the machine can do comes in as `HostFacts`.  An option whose mechanism this engine does not have is
refused here with a message that names it; nothing is accepted and ignored.

Source: moby daemon/container.go, daemon/daemon_unix.go, runconfig/hostconfig*.go of 28.5.2.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from msgspec import structs

from satsuma.base.errors import InvalidParameter, Unsupported
from satsuma.base.sizes import format_duration_go
from satsuma.container.capabilities import check_capabilities
from satsuma.container.config import clean_working_dir
from satsuma.container.mounts import check_tmpfs_destination, parse_mount
from satsuma.container.ports import check_port_bindings
from satsuma.container.record import Security
from satsuma.container.resources import check_resources
from satsuma.container.signals import parse_signal
from satsuma.spec.docker import (
    ContainerConfig,
    CreateRequest,
    HealthConfig,
    HostConfig,
    RestartPolicy,
)

NAME_PATTERN = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_MIN_HEALTH_NS = 1_000_000
RUNTIMES = ("", "satsuma", "runc", "io.containerd.runc.v2")
"""Names a client may ask for; all of them are this engine's own runtime."""
CREATE_FAILED = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: "
)
"""What dockerd, containerd and its shim put before runc's words."""
_SYSCTL_EXACT = frozenset(
    {
        "kernel.domainname",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What this machine can do; `cpus` and `mems` are the sets a container may use."""

    cpu_count: int
    cgroup_version: int
    cpus: frozenset[int]
    mems: frozenset[int]
    cpus_text: str = ""
    mems_text: str = ""
    controllers: frozenset[str] = frozenset(
        {"cpu", "cpuset", "memory", "pids", "blkio", "devices", "freezer"}
    )
    swap_limit: bool = True
    cpu_realtime: bool = False
    blkio_weight: bool = False
    ip_forward: bool = True
    ulimits: dict[str, int] = field(default_factory=dict)


def check_cgroup_parent(parent: str, driver: str) -> str:
    """Return the parent of a container's control group, as the cgroup driver names it.

    Raises:
        InvalidParameter: systemd's driver wants a slice.
    """
    stem = parent.removesuffix(".slice")
    is_slice = stem != parent and "/" not in stem and (stem == "-" or all(stem.split("-")))
    if driver == "systemd" and parent and not is_slice:
        raise InvalidParameter(
            'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'
        )
    return parent


def check_name(name: str) -> str:
    """Return a container name without its slash.

    Raises:
        InvalidParameter: `Invalid container name (x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`.
    """
    if NAME_PATTERN.fullmatch(name) is None:
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")


def check_create(
    body: CreateRequest, facts: HostFacts, source_exists: Callable[[str], bool]
) -> tuple[CreateRequest, list[str]]:
    """Check a whole request and return it with harmless corrections, and warnings for the client.

    Raises:
        InvalidParameter: the first fault found, in dockerd's words.
        Unsupported: an option that this engine does not have.
    """
    host = body.host_config
    check_modes(body, host)
    working_dir = check_config(body)
    warnings = check_host_config(host, facts, source_exists)
    host, more = check_resources(host, facts, update=False)
    warnings += more
    warnings += check_platform(host, facts)
    return structs.replace(body, host_config=host, working_dir=working_dir), warnings


def check_modes(config: ContainerConfig, host: HostConfig) -> None:
    """Refuse options that contradict the network and UTS modes."""
    mode = host.network_mode
    if mode == "container" or mode.startswith("container:"):
        _check_container_network(config, host)
    if host.uts_mode == "host" and config.hostname:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if mode == "host" and host.links:
        raise InvalidParameter(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )


def _check_container_network(config: ContainerConfig, host: HostConfig) -> None:
    if not host.network_mode.removeprefix("container").removeprefix(":"):
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    conflicts = (
        (config.hostname, "hostname and the network mode"),
        (
            host.links,
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (config.mac_address, "mac-address and the network mode"),
        (
            host.port_bindings or host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (config.exposed_ports, "port exposing and the container type network mode"),
    )
    for present, words in conflicts:
        if present:
            raise InvalidParameter(f"conflicting options: {words}")


def check_config(config: ContainerConfig) -> str:
    """Check the part that an image can carry too; return the cleaned working directory."""
    working_dir = clean_working_dir(config.working_dir)
    if config.stop_signal:
        parse_signal(config.stop_signal)
    for item in config.env or []:
        if not item.partition("=")[0]:
            raise InvalidParameter(f"invalid environment variable: {item}")
    if len(config.hostname) > 64:
        raise InvalidParameter(f"invalid hostname {config.hostname!r}: longer than 64 bytes")
    if config.healthcheck is not None:
        _check_health(config.healthcheck)
    return working_dir


def _check_health(health: HealthConfig) -> None:
    for words, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value and value < _MIN_HEALTH_NS:
            raise InvalidParameter(
                f"{words} in Healthcheck cannot be less than {format_duration_go(_MIN_HEALTH_NS / 1e9)}"
            )
    if health.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")
    if health.test and health.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidParameter(
            f"Unknown healthcheck type '{health.test[0]}' (expected 'CMD', 'CMD-SHELL' or 'NONE')"
        )


def check_host_config(host: HostConfig, facts: HostFacts, source_exists: Callable[[str], bool]) -> list[str]:
    """Check the rules that hold on every platform."""
    warnings = []
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")
    for mount in host.mounts or []:
        if mount.type == "image":
            warnings.append("Image mount is an experimental feature")
        parse_mount(mount, source_exists)
    for item in host.extra_hosts or []:
        check_extra_host(item)
    check_port_bindings(host.port_bindings or {})
    check_restart_policy(host.restart_policy)
    check_capabilities(host.cap_add, host.cap_drop)
    if host.isolation.lower() not in ("", "default"):
        raise InvalidParameter(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    if "" in (host.annotations or {}):
        raise InvalidParameter("invalid Annotations: the empty string is not permitted as an annotation key")
    return warnings


def check_restart_policy(policy: RestartPolicy) -> None:
    """Refuse an unknown policy, or a retry count where it means nothing."""
    if policy.name in ("always", "unless-stopped", "no"):
        if policy.maximum_retry_count:
            text = "invalid restart policy: maximum retry count can only be used with 'on-failure'"
            if policy.maximum_retry_count < 0:
                text += " and cannot be negative"
            raise InvalidParameter(text)
    elif policy.name == "on-failure":
        if policy.maximum_retry_count < 0:
            raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    elif policy.name:
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )


def check_extra_host(item: str) -> None:
    """Check `name:address` or `name:host-gateway`."""
    name, _, address = item.partition("=") if "=" in item else item.partition(":")
    if not name or not address:
        raise InvalidParameter(f'bad format for add-host: "{item}"')
    if address == "host-gateway":
        return
    try:
        ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise InvalidParameter(f'invalid IP address in add-host: "{address}"')


def check_platform(host: HostConfig, facts: HostFacts) -> list[str]:
    """Check namespaces, limits and what else is Linux."""
    warnings = []
    _check_namespaces(host)
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidParameter(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if not facts.ip_forward and host.network_mode not in ("host", "none"):
        warnings.append("IPv4 forwarding is disabled. Networking will not work.")
    if host.network_mode == "host" and host.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    for destination in host.tmpfs or {}:
        check_tmpfs_destination(destination)
    for name in host.sysctls or {}:
        check_sysctl(name, host)
    _check_ulimits(host)
    _check_absent(host)
    return warnings


def _check_namespaces(host: HostConfig) -> None:
    ipc = host.ipc_mode
    if ipc not in ("", "none", "private", "host", "shareable") and not ipc.startswith("container:"):
        raise InvalidParameter(f"invalid IPC mode: {ipc}")
    pid = host.pid_mode
    if pid not in ("", "host") and not (pid.startswith("container:") and len(pid) > 10):
        raise InvalidParameter(f"invalid PID mode: {pid}")
    if host.uts_mode not in ("", "host"):
        raise InvalidParameter(f"invalid UTS mode: {host.uts_mode}")
    if host.cgroupns_mode not in ("", "host", "private"):
        raise InvalidParameter(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.userns_mode not in ("", "host"):
        raise InvalidParameter(f"invalid USER mode: {host.userns_mode}")


def check_sysctl(name: str, host: HostConfig) -> None:
    """Refuse a sysctl that is not the container's own.

    runc refuses these when the container starts; saying it at create is earlier and no client relies on later.
    """
    if name in _SYSCTL_EXACT or name.startswith("fs.mqueue."):
        if host.ipc_mode == "host" and name != "kernel.domainname":
            raise InvalidParameter(
                f'{CREATE_FAILED}sysctl "{name}" is not allowed in the hosts ipc namespace'
            )
        return
    if name.startswith("net."):
        if host.network_mode == "host":
            raise InvalidParameter(f'{CREATE_FAILED}sysctl "{name}" not allowed in host network namespace')
        return
    raise InvalidParameter(f'{CREATE_FAILED}sysctl "{name}" is not in a separate kernel namespace')


def _check_ulimits(host: HostConfig) -> None:
    for limit in host.ulimits or []:
        if limit.name not in RLIMITS:
            raise InvalidParameter(f"invalid ulimit type: {limit.name}")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidParameter(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )


RLIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


def _check_absent(host: HostConfig) -> None:
    """Refuse what has no mechanism here, by name."""
    if host.runtime not in RUNTIMES:
        raise InvalidParameter(f"unknown or invalid runtime name: {host.runtime}")
    for request in host.device_requests or []:
        capabilities = " ".join("[" + " ".join(item) + "]" for item in request.capabilities or [])
        raise InvalidParameter(
            f'could not select device driver "{request.driver}" with capabilities: [{capabilities}]'
        )
    for option in host.storage_opt or {}:
        if option.lower() != "size":
            raise InvalidParameter(f"Unknown option {option}")
    if host.storage_opt:
        raise Unsupported(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option; "
            "this engine has no quota support yet"
        )
    if host.cgroup:
        raise Unsupported("Cgroup (the cgroup of another container) is not supported by this engine")


def parse_security(options: Iterable[str] | None, *, no_new_privileges: bool) -> Security:
    """Take `--security-opt` apart.

    Raises:
        InvalidParameter: `invalid --security-opt 2: "x"`.
        Unsupported: an AppArmor profile or an SELinux label, on a kernel that has neither.
    """
    security = Security(no_new_privileges=no_new_privileges)
    for option in options or []:
        if option in ("no-new-privileges", "writable-cgroups", "disable"):
            key, value = option, "true"
        else:
            separator = "=" if "=" in option else ":"
            key, found, value = option.partition(separator)
            if not found:
                raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
        security = _with_option(security, key, value, option)
    return security


def _with_option(security: Security, key: str, value: str, option: str) -> Security:
    if key == "seccomp":
        return structs.replace(security, seccomp_profile=value)
    if key == "apparmor":
        if value not in ("unconfined", "docker-default", ""):
            raise Unsupported(f"apparmor profile '{value}': AppArmor is not supported by this engine yet")
        return structs.replace(security, apparmor_profile=value)
    if key in ("label", "disable"):
        if value not in ("disable", "true"):
            raise Unsupported(f"security label '{value}': SELinux is not supported by this engine yet")
        return structs.replace(security, label_disable=True)
    if key in ("no-new-privileges", "writable-cgroups"):
        truth = _go_bool(value)
        if truth is None:
            raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
        return structs.replace(security, **{key.replace("-", "_"): truth})
    if key == "systempaths" and value == "unconfined":
        return structs.replace(security, systempaths_unconfined=True)
    raise InvalidParameter(f'invalid --security-opt 2: "{option}"')


def _go_bool(text: str) -> bool | None:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    return None
