"""Bodies that clients send to the Docker Engine API, up to version 1.51.

Attribute names are the JSON names in `snake_case`.  Every field has Go's zero value as its default: the Docker
API does not tell "absent" from "null" from "zero" for most fields; where it does, the type has `None`.
Decoding (case-insensitive keys, nulls dropped) is in `satsuma.spec.decode`.

Source: Docker Engine API v1.51; defaults measured on Docker 28.5.2.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

_ACRONYMS = {
    "ip": "IP",
    "dns": "DNS",
    "id": "ID",
    "os": "OS",
    "bps": "Bps",
    "iops": "IOps",
    "ipv4": "IPv4",
    "ipv6": "IPv6",
    "ipam": "IPAM",
    "ips": "IPs",
    "gid": "GID",
    "uid": "UID",
    "cdi": "CDI",
    "io": "IO",
}


def json_name(attribute: str) -> str:
    """Return the JSON name of an attribute: `cpuset_cpus` → `CpusetCpus`, `gw_priority` → `GwPriority`."""
    return "".join(_ACRONYMS.get(word, word.capitalize()) for word in attribute.split("_"))


class Body(Struct, kw_only=True, frozen=True, rename=json_name):
    """Base of all bodies: immutable, fields by name only."""


class HealthConfig(Body, frozen=True, omit_defaults=True):
    """Durations are nanoseconds; 0 means inherit or default."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(Body, frozen=True):
    """The part of a container that an image can carry as well."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class PortBinding(Body, frozen=True):
    """Host side of a published port; both empty means any address, any free port."""

    host_ip: str = field(default="", name="HostIp")
    host_port: str = ""


class LogConfig(Body, frozen=True):
    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(Body, frozen=True):
    name: str = ""
    maximum_retry_count: int = 0


class DeviceMapping(Body, frozen=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Body, frozen=True):
    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = field(default=None, name="DeviceIDs")
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class Ulimit(Body, frozen=True):
    name: str = ""
    hard: int = 0
    soft: int = 0


class WeightDevice(Body, frozen=True):
    path: str = ""
    weight: int = 0


class ThrottleDevice(Body, frozen=True):
    path: str = ""
    rate: int = 0


class BindOptions(Body, frozen=True, omit_defaults=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(Body, frozen=True, omit_defaults=True):
    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(Body, frozen=True, omit_defaults=True):
    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(Body, frozen=True, omit_defaults=True):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class ImageOptions(Body, frozen=True, omit_defaults=True):
    subpath: str = ""


class Mount(Body, frozen=True, omit_defaults=True):
    """One `--mount`; type is bind, volume, tmpfs, image, npipe or cluster."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class Resources(Body, frozen=True):
    """cgroup limits; bytes, shares, microseconds as the kernel has them, NanoCpus in 1e-9 CPUs."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = None
    blkio_device_write_iops: list[ThrottleDevice] | None = None
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory: int = 0
    kernel_memory_tcp: int = field(default=0, name="KernelMemoryTCP")
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = 0


class HostConfig(Resources, frozen=True):
    """The part of a container that depends on the host."""

    binds: list[str] | None = None
    container_id_file: str = field(default="", name="ContainerIDFile")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] = field(default_factory=lambda: [0, 0])
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = field(default=None, name="Dns")
    dns_options: list[str] | None = field(default=None, name="DnsOptions")
    dns_search: list[str] | None = field(default=None, name="DnsSearch")
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = field(default="", name="IpcMode")
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    mounts: list[Mount] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None


class EndpointIpamConfig(Body, frozen=True, omit_defaults=True):
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] | None = None


class EndpointSettings(Body, frozen=True):
    """What a client may say about one network of a container; the rest of the JSON object is output only."""

    ipam_config: EndpointIpamConfig | None = None
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = ""


class NetworkingConfig(Body, frozen=True):
    endpoints_config: dict[str, EndpointSettings | None] | None = None


class CreateRequest(ContainerConfig, frozen=True):
    """Body of POST /containers/create: a ContainerConfig with two objects beside its fields."""

    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()


class CreateResponse(Body, frozen=True):
    """Answer to POST /containers/create."""

    id: str = field(default="", name="Id")
    warnings: list[str] = []


class UpdateRequest(Resources, frozen=True):
    """Body of POST /containers/{id}/update."""

    restart_policy: RestartPolicy | None = None


class ExecCreateRequest(Body, frozen=True):
    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: list[int] | None = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach_keys: str = ""
    env: list[str] | None = None
    working_dir: str = ""
    cmd: list[str] | None = None


class ExecStartRequest(Body, frozen=True):
    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


class VolumeCreateRequest(Body, frozen=True):
    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


class IpamPool(Body, frozen=True, omit_defaults=True):
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = field(default=None, name="AuxiliaryAddresses")


class Ipam(Body, frozen=True):
    driver: str = ""
    options: dict[str, str] | None = None
    config: list[IpamPool] | None = None


class NetworkCreateRequest(Body, frozen=True):
    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    ipam: Ipam | None = None
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: dict[str, Any] | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class NetworkConnectRequest(Body, frozen=True):
    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnectRequest(Body, frozen=True):
    container: str = ""
    force: bool = False


def to_json_object(body: Body) -> dict[str, Any]:
    """Return the JSON object of a body, in Docker's field names."""
    result: dict[str, Any] = msgspec.to_builtins(body)
    return result
