"""One container as `inspect` shows it: the object of GET /containers/{id}/json, API 1.51.

Shapes are those of Docker 28.5.2, with null, `[]` and absent exactly as it has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from satsuma.base.clock import ZERO_TIME, format_rfc3339nano
from satsuma.container.config import as_list
from satsuma.container.record import Health, Record, State
from satsuma.container.state import Status
from satsuma.runtime import default_spec
from satsuma.spec.docker import ContainerConfig, HealthConfig, HostConfig, Ulimit, to_json_object

Json = dict[str, Any]

_OMIT_EMPTY = (
    "StorageOpt Tmpfs Sysctls Runtime Mounts Annotations KernelMemory KernelMemoryTCP Init"
).split()
_OMIT_EMPTY_CONFIG = (
    "ExposedPorts Healthcheck ArgsEscaped NetworkDisabled MacAddress StopSignal StopTimeout Shell"
).split()
_ENDPOINT_BASE: Json = {
    "EndpointID": "",
    "Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "MacAddress": "",
}


def time_text(ns: int) -> str:
    """Return a time as Docker shows it; 0 is Go's zero time."""
    return format_rfc3339nano(ns) if ns else ZERO_TIME


def config_json(config: ContainerConfig) -> Json:
    """Return `Config`, or an image's config, without what Docker leaves out when empty."""
    answer = to_json_object(config)
    for name in ("HostConfig", "NetworkingConfig"):
        answer.pop(name, None)
    for name in _OMIT_EMPTY_CONFIG:
        if not answer.get(name) and not (name == "StopTimeout" and answer.get(name) == 0):
            answer.pop(name, None)
    if isinstance(config.healthcheck, HealthConfig):
        answer["Healthcheck"] = to_json_object(config.healthcheck)
    answer["Cmd"] = as_list(config.cmd)
    answer["Entrypoint"] = as_list(config.entrypoint)
    answer["Labels"] = config.labels or {}
    return answer


def host_config_json(host: HostConfig, default_ulimits: Iterable[Ulimit] = ()) -> Json:
    """Return `HostConfig` as Docker 28 prints it: a list that the client did not send is null, an empty one empty."""
    answer = to_json_object(host)
    for name in _OMIT_EMPTY:
        if answer.get(name) in (None, 0, "", {}, []) and answer.get(name) is not False:
            answer.pop(name, None)
    own = {limit.name for limit in host.ulimits or ()}
    added = [to_json_object(limit) for limit in default_ulimits if limit.name not in own]
    if added:
        answer["Ulimits"] = [*(answer["Ulimits"] or ()), *added]
    answer["LogConfig"] = {"Type": host.log_config.type, "Config": host.log_config.config or {}}
    if not host.privileged:
        if answer["MaskedPaths"] is None:
            answer["MaskedPaths"] = default_spec.masked_paths()
        if answer["ReadonlyPaths"] is None:
            answer["ReadonlyPaths"] = list(default_spec.READONLY_PATHS)
    if host.oom_kill_disable is None:
        answer["OomKillDisable"] = False
    if host.port_bindings is not None:
        answer["PortBindings"] = {
            port: [to_json_object(binding) for binding in bindings or []]
            for port, bindings in host.port_bindings.items()
        }
    # Links are kept apart from the host config there, and come back only where there are some.
    answer["Links"] = host.links or None
    return answer


def state_json(state: State) -> Json:
    """Return `State`."""
    answer: Json = {
        "Status": str(state.status),
        "Running": state.is_up,
        "Paused": state.status is Status.PAUSED,
        "Restarting": state.status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time_text(state.started_ns),
        "FinishedAt": time_text(state.finished_ns),
    }
    if state.health is not None:
        answer["Health"] = health_json(state.health)
    return answer


def health_json(health: Health) -> Json:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": time_text(result.start_ns),
                "End": time_text(result.end_ns),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in health.log
        ],
    }


def network_settings_json(record: Record) -> Json:
    """Return `NetworkSettings`; the old flat fields repeat the default bridge's endpoint."""
    network = record.network
    legacy = network.endpoints.get("bridge", {})
    live = record.state.is_live
    return {
        "Bridge": "",
        "SandboxID": network.sandbox_id,
        "SandboxKey": f"/proc/{record.state.pid}/ns/net" if network.sandbox_id and record.state.pid else "",
        "Ports": dict(network.ports) if live else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{name: legacy.get(name, empty) for name, empty in _ENDPOINT_BASE.items()},
        "Networks": network.endpoints,
    }


def inspect_json(
    record: Record,
    *,
    directory: str,
    graph: Mapping[str, str],
    exec_ids: list[str] | None,
    default_ulimits: Iterable[Ulimit] = (),
) -> Json:
    """Return the whole object.

    Args:
        directory: the container's own directory on the host.
        graph: `LowerDir`, `UpperDir`, `WorkDir`, `MergedDir` of its file system.
    """
    shared = record.host.network_mode.startswith("container:")
    return {
        "Id": record.id,
        "Created": time_text(record.created_ns),
        "Path": record.path,
        "Args": record.args,
        "State": state_json(record.state),
        "Image": record.image_id,
        "ResolvConfPath": "" if shared and not record.state.started_ns else f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": record.log_path,
        "Name": record.display_name,
        "RestartCount": record.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": record.security.apparmor_profile,
        "ExecIDs": exec_ids or None,
        "HostConfig": host_config_json(record.host, default_ulimits),
        "GraphDriver": {"Data": {"ID": record.id, **graph}, "Name": "overlay2"},
        "Mounts": [point.to_json() for point in record.mounts],
        "Config": config_json(record.config),
        "NetworkSettings": network_settings_json(record),
    }
