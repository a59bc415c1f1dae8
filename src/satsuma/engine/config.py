"""How one engine is set up: what dockerd's flags and daemon.json mean, as values.

`satsuma.daemon` fills it in; nothing here reads a file or an environment variable.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from satsuma.spec.docker import LogConfig, Ulimit

DEFAULT_SOCKET = "/run/satsuma/satsuma.sock"
DEFAULT_DATA_ROOT = "/var/lib/satsuma"
DEFAULT_EXEC_ROOT = "/run/satsuma"
DEFAULT_PIDFILE = "/run/satsuma/satsumad.pid"
DEFAULT_BRIDGE = "satsuma0"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Settings of one daemon; the names are dockerd's flags in snake_case.

    Sizes are bytes, durations seconds.  `bridge` is the host interface of the default network, or "none".
    """

    data_root: str = DEFAULT_DATA_ROOT
    exec_root: str = DEFAULT_EXEC_ROOT
    hosts: tuple[str, ...] = ("unix://" + DEFAULT_SOCKET,)
    group: str = "docker"
    debug: bool = False
    log_level: str = "info"
    log_format: str = "text"

    log_config: LogConfig = field(default_factory=lambda: LogConfig(type="json-file", config={}))
    default_ulimits: tuple[Ulimit, ...] = ()
    default_shm_size: int = 64 * 1024 * 1024
    default_stop_timeout: int = 10
    init: bool = False
    init_path: str = ""
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    """`unconfined`, the text of a profile, or "" for the one that is built in."""
    seccomp_profile_name: str = "builtin"
    cgroup_driver: str = "cgroupfs"
    cgroup_parent: str = ""
    default_cgroupns_mode: str = "private"
    default_ipc_mode: str = "private"

    bridge: str = DEFAULT_BRIDGE
    bip: str = ""
    mtu: int = 1500
    icc: bool = True
    default_bind_ip: str = "0.0.0.0"
    default_address_pools: tuple[tuple[str, int], ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()

    live_restore: bool = True
    shutdown_timeout: int = 15
    labels: tuple[str, ...] = ()
    config_file: str = ""
    features: dict[str, bool] = field(default_factory=dict)
