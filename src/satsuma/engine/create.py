"""Create a container: check, merge, name, volumes, directories, row, event, in this order.

Crash: directories come before the row, so a crash leaves directories that the next start clears away, and
volumes without users, which `volume prune` finds.

Source: moby daemon/create.go, daemon/create_unix.go, daemon/volumes.go of 28.5.2.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import Any

from msgspec import structs

from satsuma.base.aio import blocking
from satsuma.base.clock import now_ns
from satsuma.base.errors import Conflict, InvalidParameter, NotFound, System
from satsuma.base.ids import new_id
from satsuma.container import NetworkState, Record, Status, command_line, merge_config
from satsuma.container.mounts import MountPoint, merge_points, parse_bind, parse_mount, parse_volumes_from
from satsuma.container.ports import normalize_port, parse_range
from satsuma.container.validate import check_cgroup_parent, check_create, check_name, parse_security
from satsuma.engine.core import Core
from satsuma.engine.endpoints import wanted_endpoints
from satsuma.engine.links import link_target
from satsuma.image import Image
from satsuma.monitor import logs
from satsuma.runtime import default_spec
from satsuma.spec.docker import (
    ContainerConfig,
    CreateRequest,
    CreateResponse,
    HostConfig,
    LogConfig,
    Mount,
    RestartPolicy,
)
from satsuma.volume import copy_up
from satsuma.wire import platforms


async def create(core: Core, name: str | None, body: CreateRequest, platform: str = "") -> CreateResponse:
    """Create a container.

    Raises:
        InvalidParameter, NotFound, Conflict: with Docker's words; nothing is left behind.
    """
    name = check_name(name) if name else ""
    body = normalize(body)
    body, warnings = check_create(body, core.facts, os.path.lexists)
    image = await find_image(core, body.image, platform)
    config = merge_config(
        structs.replace(plain_config(body), exposed_ports=_normal_ports(body.exposed_ports)),
        image.container_defaults() if image else None,
    )
    host = adapt(core, body.host_config)
    for link in host.links or []:
        _check_link(core, link)
    container_id = new_id()
    name = core.registry.reserve(name, container_id)
    try:
        record = draft(core, container_id, name, config, host, image)
        record = structs.replace(record, network=wanted_endpoints(core, body, record))
        record = await furnish(core, record)
    except BaseException:
        core.registry.release(name, container_id)
        raise
    core.save(record)
    core.emit(record, "create")
    core.launcher.freshen()
    return CreateResponse(id=container_id, warnings=warnings)


def plain_config(body: CreateRequest) -> ContainerConfig:
    """Return the ContainerConfig part of a request."""
    names = ContainerConfig.__struct_fields__
    return ContainerConfig(**{name: getattr(body, name) for name in names})


def normalize(body: CreateRequest) -> CreateRequest:
    """Bring old spellings of a request to one, and maps to one order."""
    body = structs.replace(body, **{name: _sorted(getattr(body, name)) for name in ("labels", "volumes")})
    host = body.host_config
    changes: dict[str, Any] = {}
    for name in ("annotations", "storage_opt", "sysctls", "tmpfs"):
        changes[name] = _sorted(getattr(host, name))
    if host.log_config.config:
        changes["log_config"] = structs.replace(host.log_config, config=_sorted(host.log_config.config))
    if host.network_mode in ("", "default"):
        changes["network_mode"] = "bridge"
    if not host.restart_policy.name:
        changes["restart_policy"] = RestartPolicy(
            name="no", maximum_retry_count=host.restart_policy.maximum_retry_count
        )
    if host.port_bindings:
        changes["port_bindings"] = _sorted({normalize_port(k): v for k, v in host.port_bindings.items()})
    return structs.replace(body, host_config=structs.replace(host, **changes))


def _sorted(items: dict[str, Any] | None) -> dict[str, Any] | None:
    """Order keys as Go writes them, so that clients which print the JSON as it comes print Docker's."""
    return dict(sorted(items.items())) if items else items


def _normal_ports(ports: dict[str, Any] | None) -> dict[str, Any] | None:
    answer: dict[str, Any] = {}
    for port in ports or {}:
        first, separator, last = port.partition("/")[0].partition("-")
        protocol = port.partition("/")[2] or "tcp"
        if not separator:
            answer[normalize_port(port)] = {}
            continue
        try:
            start, end = parse_range(f"{first}-{last}")
        except ValueError:
            raise InvalidParameter(f'invalid port specification: "{port}"') from None
        for number in range(start, end + 1):
            answer[f"{number}/{protocol}"] = {}
    return _sorted(answer) or None


async def find_image(core: Core, reference: str, platform: str) -> Image | None:
    """Resolve the image of a request.

    Raises:
        NotFound: `No such image: x:latest`; clients pull then.
    """
    if not reference:
        return None
    image = core.images.resolve(reference)
    if platform:
        wanted = platforms.parse(platform)
        have = image.config.os or "linux", image.config.architecture or wanted.architecture
        if have != (wanted.os, wanted.architecture):
            raise NotFound(
                f"image with reference {reference} was found but does not provide the specified "
                f"platform ({wanted.os}/{wanted.architecture})"
            )
    return image


def adapt(core: Core, host: HostConfig) -> HostConfig:
    """Fill in the daemon's defaults, and replace names of other containers by their ids.

    Raises:
        InvalidParameter: log driver or security options.
    """
    config = core.config
    changes: dict[str, Any] = {"log_config": merge_log_config(host.log_config, config.log_config)}
    if host.memory > 0 and not host.memory_swap:
        changes["memory_swap"] = host.memory * 2
    if not host.shm_size:
        changes["shm_size"] = config.default_shm_size
    if not host.ipc_mode:
        changes["ipc_mode"] = config.default_ipc_mode
    check_cgroup_parent(host.cgroup_parent, config.cgroup_driver)
    if not host.cgroupns_mode:
        private = not host.privileged or core.facts.cgroup_version == 2
        changes["cgroupns_mode"] = config.default_cgroupns_mode if private else "host"
    for field in ("pid_mode", "ipc_mode", "network_mode"):
        mode = changes.get(field) or getattr(host, field)
        if mode.startswith("container:"):
            changes[field] = _by_id(core, field, mode)
    if not host.runtime:
        changes["runtime"] = "runc"
    if host.oom_kill_disable is None and core.facts.cgroup_version == 1:
        changes["oom_kill_disable"] = False
    changes |= _security_changes(host)
    return structs.replace(host, **changes)


def _security_changes(host: HostConfig) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    parse_security(host.security_opt, no_new_privileges=False)
    labelled = any(option.startswith("label") for option in host.security_opt or [])
    if not labelled and (host.privileged or host.pid_mode == "host" or host.ipc_mode == "host"):
        changes["security_opt"] = [*(host.security_opt or []), "label=disable"]
    if "systempaths=unconfined" in (host.security_opt or []):
        changes |= {"masked_paths": [], "readonly_paths": []}
    elif not host.privileged:
        if host.masked_paths is None:
            changes["masked_paths"] = default_spec.masked_paths()
        if host.readonly_paths is None:
            changes["readonly_paths"] = list(default_spec.READONLY_PATHS)
    return changes


def merge_log_config(asked: LogConfig, default: LogConfig) -> LogConfig:
    """Return the log configuration of a container.

    Raises:
        InvalidParameter: in dockerd's words, which takes a driver that it has not for a plugin.
    """
    kind = asked.type or default.type
    if kind not in logs.DRIVERS:
        raise InvalidParameter(f'error looking up logging plugin {kind}: plugin "{kind}" not found')
    options = dict(asked.config or {})
    if kind == default.type:
        options = dict(default.config or {}) | options
    logs.validate(kind, options)
    return LogConfig(type=kind, config=options)


def _check_link(core: Core, link: str) -> None:
    try:
        link_target(core, link)
    except NotFound as error:
        raise InvalidParameter(str(error)) from error


def _by_id(core: Core, field: str, mode: str) -> str:
    try:
        return f"container:{core.registry.find(mode.partition(':')[2]).id}"
    except (NotFound, InvalidParameter) as error:
        if field != "network_mode":
            # Not a 404, which clients of a create take for a missing image.
            raise InvalidParameter(str(error)) from error
        # Not there yet: the start will say so.
        return mode


def draft(
    core: Core, container_id: str, name: str, config: ContainerConfig, host: HostConfig, image: Image | None
) -> Record:
    """Return the record of a new container, without mounts and network."""
    if not config.hostname:
        hostname = os.uname().nodename if host.network_mode == "host" else container_id[:12]
        if not (host.network_mode.startswith("container:") or host.uts_mode == "host"):
            config = structs.replace(config, hostname=hostname)
        elif host.uts_mode == "host":
            config = structs.replace(config, hostname=os.uname().nodename)
        else:
            config = structs.replace(config, hostname=container_id[:12])
    argv = command_line(config)
    security = parse_security(host.security_opt, no_new_privileges=core.config.no_new_privileges)
    log_path = ""
    if host.log_config.type == "json-file":
        log_path = f"{core.directory(container_id)}/{container_id}-json.log"
    return Record(
        id=container_id,
        name=name,
        created_ns=now_ns(),
        path=argv[0],
        args=argv[1:],
        config=config,
        host=host,
        image_id=image.id if image else "",
        chain=list(image.chain_ids) if image else [],
        security=security,
        network=NetworkState(),
        log_path=log_path,
    )


async def furnish(core: Core, record: Record) -> Record:
    """Make the container's directories and volumes; undo all of it on failure."""
    points, made = plan_mounts(core, record)
    try:
        if any(point.type == "volume" for point in points):
            await blocking(_prepare, core, record, points)
        else:
            # Four mkdirs are done sooner than a thread is woken.
            _prepare(core, record, points)
    except BaseException:
        drop_mounts(core, record.id, points, made)
        raise
    for point in points:
        if point.destination in made:
            core.bus.publish("volume", "create", point.name, {"driver": point.driver})
    return structs.replace(record, mounts=points)


def plan_mounts(core: Core, record: Record) -> tuple[list[MountPoint], set[str]]:
    """Return the mount points with their volumes made and referred to; and destinations of new volumes.

    Raises:
        InvalidParameter, NotFound: nothing stays referred to.
    """
    host = record.host
    groups = [
        _inherited(core, host),
        [parse_bind(raw, host.volume_driver) for raw in host.binds or []],
        [parse_mount(spec) for spec in host.mounts or []],
    ]
    points = merge_points(groups, host.tmpfs)
    for destination in record.config.volumes or {}:
        # `VOLUME data` without a slash is below the root (container.GetResourcePath).
        point = parse_mount(Mount(type="volume", target=posixpath.join("/", destination)))
        if point.destination not in points and point.destination not in (host.tmpfs or {}):
            # Not asked for by the client: `spec` stays empty, and inspect shows no mode.
            points[point.destination] = structs.replace(point, spec=Mount())
    made: set[str] = set()
    answer: list[MountPoint] = []
    try:
        for point in points.values():
            settled = _settle(core, record, point, made)
            answer.append(settled)
    except BaseException:
        drop_mounts(core, record.id, answer, made)
        raise
    return answer, made


def _inherited(core: Core, host: HostConfig) -> list[MountPoint]:
    answer = []
    for spec in host.volumes_from or []:
        reference, mode = parse_volumes_from(spec)
        try:
            other = core.registry.find(reference)
        except NotFound as error:
            raise InvalidParameter(str(error))
        for point in other.mounts:
            writable = point.rw and "ro" not in mode.split(",")
            answer.append(structs.replace(point, rw=writable, copy_data=False))
    return answer


def _settle(core: Core, record: Record, point: MountPoint, made: set[str]) -> MountPoint:
    """Make or find the volume of a mount point, or the image of an image mount."""
    if point.type == "image":
        image = core.images.resolve(point.name)
        return structs.replace(point, source=image.id)
    if point.type != "volume":
        return point
    options = point.spec.volume_options
    driver_config = options.driver_config if options else None
    volume, is_new = core.volumes.create(
        point.name,
        driver=point.driver or record.host.volume_driver,
        options=driver_config.options if driver_config else None,
        labels=options.labels if options else None,
    )
    core.volumes.refer(volume.name, record.id)
    if is_new:
        made.add(point.destination)
    asked = bool(point.spec.type)
    return structs.replace(
        point,
        name=volume.name,
        driver=volume.driver,
        source=core.volumes.mountpoint(volume.name),
        mode=point.mode or ("z" if asked else ""),
        anonymous=volume.is_anonymous,
    )


def drop_mounts(core: Core, container_id: str, points: list[MountPoint], made: set[str]) -> None:
    """Undo `plan_mounts`: no reference stays, and no volume that was made for it."""
    for point in points:
        if point.type != "volume":
            continue
        core.volumes.release(point.name, container_id)
        if point.destination in made and not core.volumes.users(point.name):
            try:
                core.volumes.remove(point.name, force=True)
            except Conflict:
                continue
            core.volumes.discard(point.name)


def _prepare(core: Core, record: Record, points: list[MountPoint]) -> None:
    """Make the writable layer, and fill empty volumes, for which it needs a thread."""
    try:
        core.store.snapshots.prepare(record.id, record.chain)  # type: ignore[arg-type]
    except OSError as error:
        raise System(f"cannot prepare the container's file system: {error}")
    try:
        fill_volumes(core, record, points)
    except BaseException:
        core.store.snapshots.remove(record.id)
        raise


def fill_volumes(core: Core, record: Record, points: list[MountPoint]) -> None:
    """Copy the image's content into those volumes that are empty and want it.

    Raises:
        System: a volume over a file, or the disk is full.
    """
    wanted = [
        point
        for point in points
        if point.type == "volume"
        and point.copy_data
        and not (core.volumes.find(point.name).options or {}).get("device")
    ]
    if not wanted:
        return
    with core.store.snapshots.view(record.chain, init=True) as view:
        for point in wanted:
            _check_directory(view, point)
            subpath = point.spec.volume_options.subpath if point.spec.volume_options else ""
            if subpath:
                continue
            try:
                with core.volumes.open_root(point.name) as target:
                    copy_up(view, point.destination, target)
            except OSError as error:
                raise System(f"failed to populate volume: {error}")


def _check_directory(view: Any, point: MountPoint) -> None:
    try:
        found = view.stat(point.destination)
    except OSError:
        return
    if point.anonymous and not stat.S_ISDIR(found.st_mode):
        raise InvalidParameter(f"cannot mount volume over existing file, file exists {point.destination}")


def is_startable(record: Record) -> bool:
    return record.state.status in (Status.CREATED, Status.EXITED)
