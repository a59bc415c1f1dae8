"""Flags of `create` and `run` to the body of `POST /containers/create`.

Everything that docker's client checks is checked here, in its order and words; everything else is passed on for the
engine to judge.

Source: Docker Engine API "ContainerCreate"; measured on docker 28.2 (bodies compared field by field).
"""

from __future__ import annotations

import os

from satsuma.cli import devices, envfiles, mounts, ports
from satsuma.cli.endpoints import plan_endpoints
from satsuma.wire.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.cli.flags import Flags


def plan_body(flags: Flags) -> dict[str, Any]:
    """Return the body for the flags and arguments of a command line.

    Raises:
        ValueError: in docker's words.
    """
    from satsuma.cli.addresses import parse_mac

    if flags["mac-address"] and parse_mac(flags["mac-address"]) is None:
        raise ValueError(f"{flags['mac-address']} is not a valid mac address")
    swappiness = flags["memory-swappiness"]
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise ValueError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    binds, volumes = mounts.parse_volumes(flags["volume"])
    bindings = ports.parse_publish(flags["publish"])
    exposed: dict[str, dict[str, str]] = {port: {} for port in bindings}
    exposed.update(ports.parse_expose(flags["expose"]))
    host = _host_config(flags, binds, bindings)
    config = _config(flags, volumes, exposed)
    if flags["rm"] and host["RestartPolicy"]["Name"] not in ("", "no"):
        raise ValueError("conflicting options: cannot specify both --restart and --rm")
    networks = flags["network"] + flags["net"]
    host["NetworkMode"] = networks[0]["target"] if networks else "default"
    config["HostConfig"] = host
    config["NetworkingConfig"] = {"EndpointsConfig": plan_endpoints(flags, networks)}
    return config


def _config(flags: Flags, volumes: dict[str, Any], exposed: dict[str, Any]) -> dict[str, Any]:
    attach = flags["attach"]
    attach_stdin = "stdin" in attach or flags["interactive"]
    entrypoint = [flags["entrypoint"]] if "entrypoint" in flags.changed else None
    config: dict[str, Any] = {
        "Hostname": flags["hostname"],
        "Domainname": flags["domainname"],
        "User": flags["user"],
        "AttachStdin": attach_stdin,
        "AttachStdout": "stdout" in attach or not attach,
        "AttachStderr": "stderr" in attach or not attach,
        "Tty": flags["tty"],
        "OpenStdin": flags["interactive"],
        "StdinOnce": flags["interactive"] and attach_stdin,
        "Env": _environment(flags),
        "Cmd": flags.args[1:] or None,
        "Image": flags.args[0],
        "Volumes": volumes,
        "WorkingDir": flags["workdir"],
        "Entrypoint": entrypoint,
        "OnBuild": None,
        "Labels": _labels(flags),
    }
    health = _health(flags)
    if exposed:
        config["ExposedPorts"] = exposed
    if health:
        config["Healthcheck"] = health
    if flags["stop-signal"]:
        config["StopSignal"] = flags["stop-signal"]
    if "stop-timeout" in flags.changed:
        config["StopTimeout"] = flags["stop-timeout"]
    return config


def _environment(flags: Flags) -> list[str] | None:
    return envfiles.read_pairs(flags["env-file"], flags["env"], from_environment=True) or None


def _labels(flags: Flags) -> dict[str, str]:
    return envfiles.as_map(envfiles.read_pairs(flags["label-file"], flags["label"], from_environment=False))


_HEALTH = (
    ("health-interval", "Interval"),
    ("health-timeout", "Timeout"),
    ("health-start-period", "StartPeriod"),
    ("health-start-interval", "StartInterval"),
    ("health-retries", "Retries"),
)


def _health(flags: Flags) -> dict[str, Any] | None:
    settings = any(flags[flag] for flag, _ in _HEALTH) or bool(flags["health-cmd"])
    if flags["no-healthcheck"]:
        if settings:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not settings:
        return None
    for flag in (
        "health-interval",
        "health-timeout",
        "health-retries",
        "health-start-period",
        "health-start-interval",
    ):
        if flags[flag] < 0:
            raise ValueError(f"--{flag} cannot be negative")
    health: dict[str, Any] = {"Test": ["CMD-SHELL", flags["health-cmd"]]} if flags["health-cmd"] else {}
    health.update({name: flags[flag] for flag, name in _HEALTH if flags[flag]})
    return health


def _host_config(flags: Flags, binds: list[str], bindings: dict[str, Any]) -> dict[str, Any]:
    for flag, what in (("pid", "PID"), ("uts", "UTS"), ("userns", "USER"), ("cgroupns", "CGROUP")):
        if not _mode_is_valid(flag, flags[flag]):
            raise ValueError(f"--{flag}: invalid {what} mode")
    security, masked, readonly = _security(flags["security-opt"])
    added, dropped = _capabilities(flags["cap-add"], flags["cap-drop"])
    host: dict[str, Any] = {
        "Binds": binds or None,
        "ContainerIDFile": flags["cidfile"],
        "LogConfig": {"Type": flags["log-driver"], "Config": _log_options(flags)},
        "NetworkMode": "default",
        "PortBindings": bindings,
        "RestartPolicy": parse_restart(flags["restart"]),
        "AutoRemove": flags["rm"],
        "VolumeDriver": flags["volume-driver"],
        "VolumesFrom": flags["volumes-from"] or None,
        "ConsoleSize": [0, 0],
        "CapAdd": added or None,
        "CapDrop": dropped or None,
        "CgroupnsMode": flags["cgroupns"],
        "Dns": flags["dns"],
        "DnsOptions": flags["dns-option"] + flags["dns-opt"],
        "DnsSearch": flags["dns-search"],
        "ExtraHosts": flags["add-host"] or None,
        "GroupAdd": flags["group-add"] or None,
        "IpcMode": flags["ipc"],
        "Cgroup": "",
        "Links": flags["link"] or None,
        "OomScoreAdj": flags["oom-score-adj"],
        "PidMode": flags["pid"],
        "Privileged": flags["privileged"],
        "PublishAllPorts": flags["publish-all"],
        "ReadonlyRootfs": flags["read-only"],
        "SecurityOpt": security or None,
        "UTSMode": flags["uts"],
        "UsernsMode": flags["userns"],
        "ShmSize": flags["shm-size"],
        "Isolation": flags["isolation"],
    }
    host.update(_resources(flags))
    optional = {
        "StorageOpt": _storage_options(flags["storage-opt"]),
        "Tmpfs": {path: options for path, _, options in (spec.partition(":") for spec in flags["tmpfs"])},
        "Sysctls": flags["sysctl"],
        "Runtime": flags["runtime"],
        "Mounts": flags["mount"],
        "Annotations": flags["annotation"],
    }
    host.update({key: value for key, value in optional.items() if value})
    if "init" in flags.changed:
        host["Init"] = flags["init"]
    host["MaskedPaths"] = masked
    host["ReadonlyPaths"] = readonly
    return host


def _resources(flags: Flags) -> dict[str, Any]:
    mappings, cdi = devices.parse_devices(flags["device"])
    requests = list(flags["gpus"])
    if cdi:
        requests.append(
            {"Driver": "cdi", "Count": 0, "DeviceIDs": cdi, "Capabilities": None, "Options": None}
        )
    return {
        "CpuShares": flags["cpu-shares"],
        "Memory": flags["memory"],
        "NanoCpus": flags["cpus"],
        "CgroupParent": flags["cgroup-parent"],
        "BlkioWeight": flags["blkio-weight"],
        "BlkioWeightDevice": devices.weights(flags["blkio-weight-device"]),
        "BlkioDeviceReadBps": devices.rates(flags["device-read-bps"]),
        "BlkioDeviceWriteBps": devices.rates(flags["device-write-bps"]),
        "BlkioDeviceReadIOps": devices.rates(flags["device-read-iops"]),
        "BlkioDeviceWriteIOps": devices.rates(flags["device-write-iops"]),
        "CpuPeriod": flags["cpu-period"],
        "CpuQuota": flags["cpu-quota"],
        "CpuRealtimePeriod": flags["cpu-rt-period"],
        "CpuRealtimeRuntime": flags["cpu-rt-runtime"],
        "CpusetCpus": flags["cpuset-cpus"],
        "CpusetMems": flags["cpuset-mems"],
        "Devices": mappings,
        "DeviceCgroupRules": flags["device-cgroup-rule"] or None,
        "DeviceRequests": requests or None,
        "MemoryReservation": flags["memory-reservation"],
        "MemorySwap": flags["memory-swap"],
        "MemorySwappiness": flags["memory-swappiness"],
        "OomKillDisable": flags["oom-kill-disable"],
        "PidsLimit": flags["pids-limit"],
        "Ulimits": [
            {"Name": name, "Hard": hard, "Soft": soft}
            for name, (soft, hard) in sorted(flags["ulimit"].items())
        ],
        "CpuCount": flags["cpu-count"],
        "CpuPercent": flags["cpu-percent"],
        "IOMaximumIOps": flags["io-maxiops"],
        "IOMaximumBandwidth": flags["io-maxbandwidth"],
    }


def _capabilities(add: list[str], drop: list[str]) -> tuple[list[str], list[str]]:
    """Return both lists with full names, in order, without what cancels out: adding wins over dropping."""
    added, dropped = ({_capability(name) for name in names} for names in (add, drop))
    added = {"ALL"} if "ALL" in added else added
    dropped = {"ALL"} if "ALL" in dropped else dropped
    return sorted(added - {"RESET"}), sorted(dropped - added - {"RESET"})


def _capability(name: str) -> str:
    name = name.strip().upper()
    return name if name in ("ALL", "RESET") or name.startswith("CAP_") else f"CAP_{name}"


def _mode_is_valid(flag: str, value: str) -> bool:
    if value in ("", "host"):
        return True
    if flag == "pid":
        kind, colon, name = value.partition(":")
        return kind == "container" and bool(colon and name)
    return flag == "cgroupns" and value == "private"


def parse_restart(text: str) -> dict[str, Any]:
    """Parse `no`, `always`, `unless-stopped`, `on-failure[:n]`; the engine judges the name.

    Raises:
        ValueError: in docker's words.
    """
    name, colon, count = text.partition(":")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    try:
        tries = int(count or 0)
    except ValueError:
        raise ValueError("invalid restart policy format: maximum retry count must be an integer") from None
    return {"Name": name, "MaximumRetryCount": tries}


def _log_options(flags: Flags) -> dict[str, str]:
    if flags["log-driver"] == "none" and flags["log-opt"]:
        raise ValueError("invalid logging opts for driver none")
    return envfiles.as_map(flags["log-opt"])


def _storage_options(specs: list[str]) -> dict[str, str]:
    if any("=" not in spec for spec in specs):
        raise ValueError("invalid storage option")
    return envfiles.as_map(specs)


def _security(specs: list[str]) -> tuple[list[str], list[str] | None, list[str] | None]:
    """Return the options for the engine, and the two lists of paths; the file of a seccomp profile is read here."""
    options = []
    paths: list[str] | None = None
    for spec in specs:
        key, separator, value = spec.partition("=")
        if not separator and key != "no-new-privileges":
            key, separator, value = spec.partition(":")
        if (not separator or not value) and key != "no-new-privileges":
            raise ValueError(f"Invalid --security-opt: {quote(spec)}")
        if spec == "systempaths=unconfined":
            paths = []
            continue
        if key == "seccomp" and value not in ("builtin", "unconfined"):
            spec = f"seccomp={_profile(value)}"
        options.append(spec)
    return options, paths, None if paths is None else list(paths)


def _profile(name: str) -> str:
    import json

    try:
        with open(name, "rb") as file:
            return json.dumps(json.loads(file.read()), separators=(",", ":"), ensure_ascii=False)
    except OSError as error:
        text = f"open {name}: {os.strerror(error.errno or 0).lower()}"
        raise ValueError(f"opening seccomp profile ({name}) failed: {text}") from None
    except ValueError as error:
        raise ValueError(f"compacting json for seccomp profile ({name}) failed: {error}") from None
