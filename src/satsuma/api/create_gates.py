"""What older API versions mean differently when they create a container.

Owns the translation of a create body of any version into one of 1.51, and Docker's warnings about it.  Must not
check what all versions have in common: the engine does.

Source: moby v28.5.2 api/server/router/container `postContainersCreate`, `handleMACAddressBC`, `handleSysctlBC`.
"""

from __future__ import annotations

import os
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from satsuma.api.request import Version
from satsuma.base.errors import InvalidParameter, System
from satsuma.spec.docker import BindOptions, CreateRequest, EndpointSettings, HostConfig, Mount, Resources

R = TypeVar("R", bound=Resources)
S = TypeVar("S", bound=Struct)

ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"
_MAC_CONFLICT = "conflicting options: mac-address and the network mode"
Endpoints = dict[str, EndpointSettings]


def adapt_create(body: CreateRequest, version: Version) -> tuple[CreateRequest, list[str]]:
    """Return the body as 1.51 would have it, and warnings for the client.

    Raises:
        InvalidParameter: the version does not have what the body asks for, in Docker's words.
    """
    host, endpoints = _default_network(body)
    host = _old_host(host, version)
    host = replace(host, mounts=_adapt_mounts(host.mounts, version))
    if version < (1, 44) and len(endpoints) > 1:
        raise InvalidParameter(
            f"Container cannot be created with multiple network endpoints: {', '.join(endpoints)}"
        )
    if version < (1, 48):
        endpoints = {name: replace(endpoint, gw_priority=0) for name, endpoint in endpoints.items()}
    body = replace(body, host_config=host)
    if version < (1, 44) and body.healthcheck is not None:
        body = replace(body, healthcheck=replace(body.healthcheck, start_interval=0))
    warnings = _volume_driver_warning(host, version)
    body, endpoints, mac_warnings = _adapt_mac_address(body, endpoints, version)
    host, endpoints, sysctl_warnings = _adapt_sysctls(host, endpoints, version)
    body = replace(
        body,
        host_config=host,
        networking_config=replace(body.networking_config, endpoints_config=endpoints or None),
    )
    return body, warnings + mac_warnings + sysctl_warnings


def adapt_resources(resources: R, version: Version, *, unlimited: int | None) -> R:
    """Reset limits that a version does not have; a pids limit that is not positive becomes *unlimited*."""
    if version >= (1, 42):
        resources = replace(resources, kernel_memory=0)
    if resources.pids_limit is not None and resources.pids_limit <= 0:
        resources = replace(resources, pids_limit=unlimited)
    return resources


def _default_network(body: CreateRequest) -> tuple[HostConfig, Endpoints]:
    given = body.networking_config.endpoints_config or {}
    endpoints = {name: endpoint or EndpointSettings() for name, endpoint in given.items()}
    host = body.host_config
    if host.network_mode in ("", "default"):
        host = replace(host, network_mode="bridge")
        if "default" in endpoints:
            endpoints["bridge"] = endpoints.pop("default")
    return host, endpoints


def _old_host(host: HostConfig, version: Version) -> HostConfig:
    host = adapt_resources(host, version, unlimited=None)
    if version < (1, 25):
        host = replace(host, auto_remove=False)
    if version < (1, 40):
        host = replace(host, kernel_memory_tcp=0, ipc_mode=host.ipc_mode or "shareable")
    if version < (1, 41) and not host.cgroupns_mode and not _is_cgroup2():
        host = replace(host, cgroupns_mode="host")
    if version < (1, 42):
        host = replace(host, console_size=[0, 0])
    if version < (1, 43):
        host = replace(host, annotations=None)
    return host


def _is_cgroup2() -> bool:
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def _adapt_mounts(mounts: list[Mount] | None, version: Version) -> list[Mount] | None:
    return None if mounts is None else [_adapt_mount(mount, version) for mount in mounts]


def _adapt_mount(mount: Mount, version: Version) -> Mount:
    bind = mount.bind_options
    if bind is not None:
        if version < (1, 40):
            bind = replace(bind, non_recursive=False)
        if version < (1, 42):
            bind = replace(bind, create_mountpoint=False)
        if version < (1, 44) and mount.type == "bind" and bind.read_only_force_recursive:
            raise InvalidParameter("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if version < (1, 44) and mount.type == "bind" and mount.read_only:
        # Before 1.44 a read-only bind left the mounts below it writable.
        bind = replace(bind or BindOptions(), read_only_non_recursive=True)
    mount = replace(mount, bind_options=bind)
    if version < (1, 42):
        if mount.type != "volume":
            mount = replace(mount, volume_options=None)
        if mount.type != "tmpfs":
            mount = replace(mount, tmpfs_options=None)
    else:
        _check_mount_options(mount)
    if version < (1, 45) and mount.volume_options is not None and mount.volume_options.subpath:
        raise InvalidParameter("VolumeOptions.Subpath needs API v1.45 or newer")
    if version < (1, 48) and mount.type == "image":
        raise InvalidParameter('Mount type "Image" needs API v1.48 or newer')
    return mount


def _check_mount_options(mount: Mount) -> None:
    for options, name, kind in (
        (mount.volume_options, "VolumeOptions", "volume"),
        (mount.bind_options, "BindOptions", "bind"),
        (mount.tmpfs_options, "TmpfsOptions", "tmpfs"),
    ):
        if options is not None and mount.type != kind:
            raise InvalidParameter(f'{name} must not be specified on mount type "{mount.type}"')


def _volume_driver_warning(host: HostConfig, version: Version) -> list[str]:
    if not host.volume_driver or version < (1, 48):
        return []
    for mount in host.mounts or []:
        options = mount.volume_options
        named = options is not None and options.driver_config is not None and options.driver_config.name
        if mount.type == "volume" and not named:
            return [
                "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via "
                "'mount'. Use '--mount type=volume,volume-driver=...' instead"
            ]
    return []


def _adapt_mac_address(
    body: CreateRequest, endpoints: Endpoints, version: Version
) -> tuple[CreateRequest, Endpoints, list[str]]:
    """Move the container's MAC address, which 1.44 deprecated, to the endpoint that it means."""
    mode, address = body.host_config.network_mode, body.mac_address
    movable = mode == "bridge" or _is_user_defined(mode)
    if version < (1, 44):
        if not address:
            plain = {name: replace(endpoint, mac_address="") for name, endpoint in endpoints.items()}
            return body, plain, []
        if not movable:
            raise InvalidParameter(_MAC_CONFLICT)
        name = _main_endpoint(mode, endpoints, version)
        return body, _with(endpoints, name, mac_address=address), []
    if not address:
        return body, endpoints, []
    if movable:
        name = _main_endpoint(
            mode, endpoints, version, "unable to migrate container-wide MAC address to a specific network: "
        )
        if endpoints.get(name, EndpointSettings()).mac_address not in ("", address):
            raise InvalidParameter(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
                "or be left empty"
            )
        endpoints = _with(endpoints, name, mac_address=address)
    warning = (
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig "
        "instead."
    )
    return replace(body, mac_address=""), endpoints, [warning]


def _adapt_sysctls(
    host: HostConfig, endpoints: Endpoints, version: Version
) -> tuple[HostConfig, Endpoints, list[str]]:
    """Move sysctls of eth0 to the endpoint's driver options: the interface does not exist when others are set."""
    mode = host.network_mode
    if mode == "host" or mode.startswith("container:"):
        return host, endpoints, []
    moved: dict[str, str] = {}
    for key, value in (host.sysctls or {}).items():
        parts = key.split(".", 4)
        if len(parts) != 5 or parts[0] != "net" or not parts[3].startswith("eth"):
            continue
        if version > (1, 47):
            raise System(
                f"interface specific sysctl setting \"{key}\" must be supplied using driver option '{ENDPOINT_SYSCTLS}'"
            )
        if parts[3] != "eth0":
            raise System(
                f"unable to determine network endpoint for sysctl {key}, use driver option '{ENDPOINT_SYSCTLS}' "
                "to set per-interface sysctls"
            )
        moved[key] = f"net.{parts[1]}.{parts[2]}.IFNAME.{parts[4]}={value}"
    if not moved:
        return host, endpoints, []
    name = _main_endpoint(
        mode, endpoints, version, f"unable to find a network for sysctl {next(iter(moved))}: "
    )
    option = ",".join(moved.values())
    warning = f'Migrated sysctl "{",".join(moved)}" to DriverOpts{{"{ENDPOINT_SYSCTLS}":"{option}"}}.'
    old = dict(endpoints.get(name, EndpointSettings()).driver_opts or {})
    if ENDPOINT_SYSCTLS in old:
        option += "," + old[ENDPOINT_SYSCTLS]
    endpoints = _with(endpoints, name, driver_opts={**old, ENDPOINT_SYSCTLS: option})
    rest = {key: value for key, value in (host.sysctls or {}).items() if key not in moved}
    return replace(host, sysctls=rest), endpoints, [warning]


def _is_user_defined(mode: str) -> bool:
    return mode not in ("bridge", "host", "none", "default", "") and not mode.startswith("container:")


def _main_endpoint(mode: str, endpoints: Endpoints, version: Version, context: str = "") -> str:
    """Return the key of the endpoint that container-wide network settings mean."""
    if not endpoints or mode in endpoints:
        return mode
    if version < (1, 44):
        return next(iter(endpoints))
    raise InvalidParameter(
        context + "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks"
    )


def _with(endpoints: Endpoints, name: str, **changes: object) -> Endpoints:
    return {**endpoints, name: replace(endpoints.get(name, EndpointSettings()), **changes)}
