"""From command line and daemon.json to one checked `EngineConfig`."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
from dataclasses import dataclass
from typing import Any

from satsuma.base import log, sizes
from satsuma.base.errors import InvalidParameter
from satsuma.container.validate import RLIMITS, check_cgroup_parent
from satsuma.daemon import settings
from satsuma.engine.config import DEFAULT_BRIDGE, DEFAULT_SOCKET, EngineConfig
from satsuma.linux.systemd import Manager, SystemdError
from satsuma.monitor import logs
from satsuma.spec.docker import LogConfig, Ulimit

FILE_LIMIT = 1 << 20
"""A daemon.json of more than 1 MiB is not a configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What `satsumad` was asked to do."""

    engine: EngineConfig
    pidfile: str
    action: str
    """`run`, `help`, `version` or `validate`."""


def configure(arguments: list[str]) -> Configuration:
    """Read flags and file.

    Raises:
        InvalidParameter: the text is the one line that the user sees.
    """
    flags = settings.parse_flags(arguments)
    for action in ("help", "version"):
        if flags.values.get(action):
            return Configuration(engine=EngineConfig(), pidfile="", action=action)
    path = flags.values.get("config-file", settings.BY_FLAG["config-file"].default)
    file = _read_file(path, must_exist="config-file" in flags.values)
    values = settings.merge(flags, file, path)
    engine = _engine_config(values)
    pidfile = os.path.abspath(values["pidfile"] or os.path.join(engine.exec_root, "satsumad.pid"))
    return Configuration(engine=engine, pidfile=pidfile, action="validate" if values["validate"] else "run")


def _read_file(path: str, *, must_exist: bool) -> settings.Given:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        if must_exist:
            raise InvalidParameter(
                f"unable to configure the daemon with file {path}: open {path}: no such file or directory"
            ) from None
        return settings.Given()
    except OSError as error:
        raise InvalidParameter(
            f"unable to configure the daemon with file {path}: {(error.strerror or '').lower()}"
        ) from error
    if len(data) > FILE_LIMIT:
        raise InvalidParameter(
            f"unable to configure the daemon with file {path}: the file is larger than 1 MiB"
        )
    try:
        document = json.loads(data.decode("utf-8-sig")) if data.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"unable to configure the daemon with file {path}: {error}") from error
    return settings.parse_file(document, path)


def _engine_config(values: dict[str, Any]) -> EngineConfig:
    _check_words(values)
    data_root = _absolute(values["data-root"], "data-root")
    exec_root = _absolute(values["exec-root"], "exec-root")
    driver = _cgroup_driver(values["exec-opt"])
    return EngineConfig(
        data_root=data_root,
        exec_root=exec_root,
        hosts=tuple(_check_host(host) for host in values["host"]) or (_default_host(exec_root),),
        group=values["group"],
        debug=values["debug"],
        log_level="debug" if values["debug"] else values["log-level"],
        log_format=values["log-format"],
        log_config=_log_config(values["log-driver"], dict(values["log-opt"])),
        default_ulimits=tuple(_ulimit(name, limit) for name, limit in values["default-ulimit"].items()),
        default_shm_size=_size(values["default-shm-size"]),
        init=values["init"],
        init_path=_init_path(values["init-path"]),
        no_new_privileges=values["no-new-privileges"],
        seccomp_profile=_seccomp_profile(values["seccomp-profile"]),
        seccomp_profile_name=values["seccomp-profile"] or "builtin",
        cgroup_driver=driver,
        cgroup_parent=check_cgroup_parent(values["cgroup-parent"], driver),
        default_cgroupns_mode=values["default-cgroupns-mode"],
        default_ipc_mode=values["default-ipc-mode"],
        bridge=values["bridge"] or _default_bridge(exec_root),
        bip=values["bip"],
        mtu=values["mtu"] or settings.BY_FLAG["mtu"].default,
        icc=values["icc"],
        default_bind_ip=values["ip"],
        default_address_pools=tuple(_pool(pool) for pool in values["default-address-pool"]),
        dns=tuple(values["dns"]),
        dns_search=tuple(values["dns-search"]),
        dns_opts=tuple(values["dns-opt"]),
        live_restore=values["live-restore"],
        shutdown_timeout=values["shutdown-timeout"],
        labels=tuple(values["label"]),
        config_file=values["config-file"],
    )


def _check_words(values: dict[str, Any]) -> None:
    """Check the settings that take one word of a few, an address or a path."""
    words = {
        "log-level": tuple(log.LEVELS),
        "log-format": ("text", "json"),
        "default-cgroupns-mode": ("host", "private"),
        "default-ipc-mode": ("shareable", "private"),
    }
    for name, allowed in words.items():
        if values[name] not in allowed:
            raise InvalidParameter(f"invalid {name}: {values[name]}: must be one of {', '.join(allowed)}")
    for address in values["dns"]:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidParameter(f"invalid argument: {address} is not an ip address") from None
    try:
        ipaddress.ip_address(values["ip"])
        if values["bip"]:
            ipaddress.ip_interface(values["bip"])
    except ValueError as error:
        raise InvalidParameter(f"invalid argument: {error}") from None
    if values["bip"] and values["bridge"]:
        raise InvalidParameter(
            "you specified -b & --bip, mutually exclusive options: please specify only one"
            if values["bridge"] != "none"
            else "you specified --bridge=none & --bip: there is no default bridge to give an address to"
        )
    if values["mtu"] and not 68 <= values["mtu"] <= 65535:
        raise InvalidParameter(f"invalid default MTU: {values['mtu']}")
    for label in values["label"]:
        if "=" not in label:
            raise InvalidParameter(f"bad attribute format: {label}")


def _absolute(path: str, name: str) -> str:
    if not path:
        raise InvalidParameter(f"{name} must not be empty")
    return os.path.abspath(path)


def _default_host(exec_root: str) -> str:
    """The default socket; a daemon with another exec-root listens there, so that two can run side by side."""
    if exec_root == os.path.dirname(DEFAULT_SOCKET):
        return f"unix://{DEFAULT_SOCKET}"
    return f"unix://{os.path.join(exec_root, os.path.basename(DEFAULT_SOCKET))}"


def _default_bridge(exec_root: str) -> str:
    """The default bridge; like the socket, a daemon with another exec-root has one of its own."""
    if exec_root == os.path.dirname(DEFAULT_SOCKET):
        return DEFAULT_BRIDGE
    return f"satsuma-{hashlib.sha256(os.fsencode(exec_root)).hexdigest()[:7]}"


def _check_host(host: str) -> str:
    protocol, separator, address = host.partition("://")
    if not separator:
        return _check_host(f"unix://{host}" if host.startswith("/") else f"tcp://{host}")
    if protocol == "unix" and not address:
        return f"unix://{DEFAULT_SOCKET}"
    if protocol == "unix" and address.startswith("/"):
        return host
    if protocol == "fd":
        return host
    if protocol == "tcp":
        # A name or address without a port means dockerd's port; the colons of [::1] are no port.
        name, colon, port = address.rpartition(":")
        if not colon or "]" in port:
            return f"tcp://{address}:2375"
        if port.isdecimal() and port.isascii() and int(port) <= 65535 and "/" not in name:
            return host
    raise InvalidParameter(f"invalid bind address ({host})")


def _seccomp_profile(value: str) -> str:
    """Return `unconfined`, "" for the one that is built in, or the content of the file that *value* names."""
    if value in ("", "builtin", "default", "unconfined"):
        return "" if value != "unconfined" else value
    try:
        with open(value, "rb") as file:
            text = file.read(FILE_LIMIT + 1).decode()
        if len(text) > FILE_LIMIT or not isinstance(json.loads(text), dict):
            raise ValueError("not a seccomp profile")
    except OSError as error:
        raise InvalidParameter(
            f"opening seccomp profile ({value}) failed: open {value}: {(error.strerror or '').lower()}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"Decoding seccomp profile failed: {value}: {error}") from error
    return text


def _init_path(path: str) -> str:
    if path and not os.access(path, os.X_OK):
        raise InvalidParameter(f"init-path {path}: no such executable file")
    return path


def _cgroup_driver(options: list[str]) -> str:
    driver = "cgroupfs"
    for option in options:
        key, _, value = option.partition("=")
        if key != "native.cgroupdriver":
            raise InvalidParameter(f"invalid exec-opt: {option}")
        driver = value
    if driver == "systemd":
        try:
            Manager().close()
        except SystemdError as error:
            raise InvalidParameter(f"invalid exec-opt native.cgroupdriver=systemd: {error}") from error
    elif driver != "cgroupfs":
        raise InvalidParameter(f"invalid cgroup driver: {driver}: must be cgroupfs or systemd")
    return driver


def _ulimit(name: str, limit: dict[str, Any]) -> Ulimit:
    try:
        answer = Ulimit(name=limit.get("Name", name), soft=int(limit["Soft"]), hard=int(limit["Hard"]))
    except (KeyError, TypeError, ValueError):
        raise InvalidParameter(f"invalid default ulimit {name}: Name, Soft and Hard are needed") from None
    if answer.name not in RLIMITS:
        raise InvalidParameter(f"invalid ulimit type: {answer.name}")
    if answer.hard != -1 and (answer.soft > answer.hard or answer.soft == -1):
        raise InvalidParameter(
            f"ulimit soft limit must be less than or equal to hard limit: {answer.soft} > {answer.hard}"
        )
    return answer


def _pool(pool: dict[str, Any]) -> tuple[str, int]:
    try:
        network = ipaddress.ip_network(pool["base"])
        size = int(pool["size"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidParameter(f"invalid default-address-pools entry {pool}: {error}") from None
    if not network.prefixlen <= size <= network.max_prefixlen:
        raise InvalidParameter(f"the size {size} of address pool {network} does not fit its base")
    return str(network), size


def _size(value: str | int) -> int:
    if isinstance(value, int):
        return value
    try:
        return sizes.parse_size(value)
    except ValueError as error:
        raise InvalidParameter(str(error)) from None


def _log_config(driver: str, options: dict[str, str]) -> LogConfig:
    """Return the log configuration of containers that ask for none."""
    kind = driver or "json-file"
    logs.parse_options(kind, options)
    return LogConfig(type=kind, config=options)
