"""Start a container: network, files, volumes, plan, launch; undone in reverse when a step fails.

The hot path: nothing here runs a program, nothing is fsync'ed, and what can be prepared ahead is (network
namespaces, compiled seccomp filters).

Source: moby daemon/start.go, daemon/oci_linux.go of 28.5.2.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from typing import Any

from msgspec import structs

from satsuma.base.aio import blocking, spawn
from satsuma.base.clock import now_ns
from satsuma.base.errors import Conflict, EngineError, InvalidParameter, NotFound, NotModified, System
from satsuma.base.failpoints import failpoint
from satsuma.container import Event, Health, Record
from satsuma.container.devices import host_devices
from satsuma.container.health import probe_command
from satsuma.container.oci import Plan, plan_config
from satsuma.container.validate import CREATE_FAILED
from satsuma.engine import attach, endpoints, explain, health, remove, supervise
from satsuma.engine.actors import Actor, close_attaches
from satsuma.engine.attach import console_size
from satsuma.engine.core import Core, quietly
from satsuma.engine.etc import etc_files, write_etc_files
from satsuma.engine.links import link_env, link_hosts, linked
from satsuma.engine.sources import Sources
from satsuma.engine.trace import Trace
from satsuma.linux import seccomp
from satsuma.monitor import logs
from satsuma.monitor.client import LaunchError, LaunchSpec, LogSpec, Monitor
from satsuma.network import EndpointSpec, Sandbox

_log = logging.getLogger(__name__)

TINI_PATHS = (
    "/usr/bin/docker-init",
    "/usr/libexec/docker/docker-init",
    "/usr/bin/tini-static",
    "/sbin/tini-static",
)
_NAMESPACES = {"ipc": "ipc_mode", "pid": "pid_mode", "network": "network_mode"}
_PROC_NAMES = {"ipc": "ipc", "pid": "pid", "network": "net"}
_seccomp_cache: dict[str, bytes] = {}
_DAEMONS_OWN = ("unable to find user ", "unable to find group ", "uids and gids must be in range ")
"""What dockerd finds out itself, in the container's files, before it asks runc."""
_NO_DIRECTORY = re.compile(r'chdir to cwd \("(.*)"\) set in config\.json failed: not a directory', re.DOTALL)


async def start(core: Core, reference: str) -> bool:
    """Start a container by a client's wish; False when it runs already.

    Raises:
        Conflict, NotFound, InvalidParameter, System: with Docker's words; the container is left as it was, with
            the error and an exit code in its state.
    """
    record = core.registry.find(reference)
    async with core.locks.hold(record.id):
        record = core.current(record)
        if core.actor(record).removing:
            raise Conflict("container is marked for removal and cannot be started")
        try:
            core.advance(record, Event.START)
        except NotModified:
            return False
        supervise.cancel_restart(core.actor(record))
        record = structs.replace(record, stopped_by_hand=False)
        await run(core, record)
    return True


async def run(core: Core, record: Record) -> None:
    """Start a container whose lock is held.

    Raises:
        EngineError: it did not start; the record says so, and network and mounts are released.
    """
    actor = core.actor(record)
    trace = Trace("start", record.id)
    await actor.departed()
    sandbox: Sandbox | None = None
    with contextlib.ExitStack() as sources:
        try:
            links = linked(core, record)
            sandbox = await allocate_network(core, record)
            trace.step("network")
            record, monitor = await _launch(
                core, record, actor, sandbox, links, Sources(core, record, sources), trace
            )
            trace.add_rows(monitor.steps)
            trace.step("answered")
        except BaseException as error:
            trace.step("answered")
            explain.answer(actor, trace, getattr(error, "steps", ()), str(error))
            actor.drop_pending()
            await _undo(core, record, actor, sandbox)
            if isinstance(error, OSError):
                error = System(f"cannot prepare the container: {os_error_text(error)}")
            if isinstance(error, EngineError):
                await _note_failure(core, record, error)
                raise start_error(error) from error
            raise
    failpoint("engine.started")
    explain.answer(actor, trace, monitor.steps)
    _entered(core, record, actor, monitor, sandbox)
    trace.step("stored")
    trace.end()


async def allocate_network(core: Core, record: Record) -> Sandbox | None:
    """Return the container's sandbox; None when it uses another container's."""
    mode = record.host.network_mode
    if mode.startswith("container:"):
        return None
    specs, ports = endpoints.endpoint_specs(record), endpoints.port_specs(record)
    if core.config.bridge == "none" and any(spec.network == "bridge" for spec in specs):
        # As with dockerd's --bridge=none: what belongs to no network of its own has loopback only, and starts.
        specs, ports = [EndpointSpec(network="none")], []
    try:
        return await core.networks.allocate(
            record.id,
            specs,
            ports,
            record.config.hostname,
            name=record.name,
            dns=tuple(record.host.dns or core.config.dns),
        )
    except NotFound as error:
        raise NotFound(f"failed to set up container networking: {error}") from error


def _network_event(core: Core, record: Record, action: str, name: str, network_id: str) -> None:
    if record.hidden:
        return
    with contextlib.suppress(NotFound):
        core.bus.publish(
            "network",
            action,
            network_id,
            {"container": record.id, "name": name, "type": core.networks.get(network_id).driver},
        )


async def release_network(core: Core, record: Record) -> None:
    """Give back addresses and ports, with the events."""
    sandbox = core.networks.sandbox(record.id)
    if sandbox is None:
        return
    attached = [(name, info.network_id) for name, info in sandbox.endpoints.items()]
    await core.networks.release(record.id)
    for name, network_id in attached:
        _network_event(core, record, "disconnect", name, network_id)


async def _launch(
    core: Core,
    record: Record,
    actor: Actor,
    sandbox: Sandbox | None,
    links: list[tuple[Record, str]],
    sources: Sources,
    trace: Trace,
) -> tuple[Record, Monitor]:
    """Write files, plan and hand over to the launcher."""
    if sandbox is not None:
        write_etc_files(core, record, sandbox, link_hosts(links))
        record = structs.replace(record, network=endpoints.live_state(record, sandbox))
    if record.host.ipc_mode.startswith("container:"):
        namespace_owner(core, "ipc", record.host.ipc_mode)
    await sources.resolve()
    attach_volumes(core, record, actor)
    for name, info in sandbox.endpoints.items() if sandbox is not None else ():
        _network_event(core, record, "connect", name, info.network_id)
    plan = make_plan(core, record, sources.paths, tuple(link_env(record, links)))
    config = plan_config(record, plan)
    extras = await make_extras(core, record, config, sandbox, sources)
    if actor.explanations or trace.wanted:
        extras["explain"] = True
    attaches = actor.take_pending()
    trace.step("plan")
    try:
        monitor = await core.launcher.launch(
            LaunchSpec(
                container_id=record.id,
                config=config,
                extras=extras,
                tty=record.config.tty,
                console_size=console_size(record.host.console_size),
                open_stdin=record.config.open_stdin,
                stdin_once=record.config.stdin_once,
                log=log_spec(core, record),
                exit_path=core.exit_path(record.id),
                attaches=attaches,
                # What goes with its container has nothing to tell after a power failure.
                durable=not record.host.auto_remove,
            )
        )
    finally:
        close_attaches(attaches)
        if sandbox is not None:
            sandbox.close_hold_fds()
    return record, monitor


def attach_volumes(core: Core, record: Record, actor: Actor) -> None:
    """Make the container's volumes available, with the events."""
    for point in record.mounts:
        if point.type != "volume":
            continue
        core.volumes.attach(point.name, record.id)
        actor.volumes.add(point.name)
        if not record.hidden:
            core.bus.publish(
                "volume",
                "mount",
                point.name,
                {
                    "container": record.id,
                    "destination": point.destination,
                    "driver": point.driver,
                    "propagation": point.propagation,
                    "read/write": "true" if point.rw else "false",
                },
            )


def detach_volumes(core: Core, record: Record, actor: Actor) -> None:
    """Undo `attach_volumes`."""
    names, actor.volumes = actor.volumes, set()
    for name in names:
        quietly(f"unmount volume {name}", lambda name=name: core.volumes.detach(name, record.id))  # type: ignore[misc]
        driver = next((point.driver for point in record.mounts if point.name == name), "local")
        if not record.hidden:
            core.bus.publish("volume", "unmount", name, {"container": record.id, "driver": driver})


def make_plan(core: Core, record: Record, paths: dict[str, str], linked_env: tuple[str, ...]) -> Plan:
    """Return what the OCI plan needs from this machine.

    Raises:
        System: a container whose namespace is wanted does not run; no init binary.
    """
    return Plan(
        cgroups_path=cgroups_path(core, record.id, record.host.cgroup_parent),
        sources=paths,
        etc_files=etc_files(core, record),
        namespaces=shared_namespaces(core, record),
        linked_env=linked_env,
        default_ulimits=core.config.default_ulimits,
        available_caps=core.available_caps,
        host_devices=host_devices,
        default_seccomp=core.config.seccomp_profile,
    )


def cgroups_path(core: Core, container_id: str, parent: str) -> str:
    """Return a container's cgroup as config.json names it.

    Args:
        parent: the container's own; "" for the engine's.
    """
    parent = parent or core.config.cgroup_parent
    if core.config.cgroup_driver == "systemd":
        return f"{parent or 'system.slice'}:satsuma:{container_id}"
    return os.path.join("/", parent or "satsuma", container_id)


def init_binary(core: Core) -> str:
    """Return the host's init for `--init`.

    Raises:
        System: there is none.
    """
    if core.config.init_path:
        return core.config.init_path
    for path in TINI_PATHS:
        if os.access(path, os.X_OK):
            return path
    raise System('exec: "docker-init": executable file not found in $PATH')


def shared_namespaces(core: Core, record: Record) -> dict[str, str]:
    """Return the namespaces that are not the container's own: "host", or a path.

    Raises:
        System: the container that owns one is not running.
    """
    answer = {}
    for kind, field in _NAMESPACES.items():
        mode = getattr(record.host, field)
        if mode == "host":
            answer[kind] = "host"
        elif mode.startswith("container:"):
            owner = namespace_owner(core, kind, mode)
            answer[kind] = f"/proc/{owner.state.pid}/ns/{_PROC_NAMES[kind]}"
    if record.host.uts_mode == "host":
        answer["uts"] = "host"
    return answer


def namespace_owner(core: Core, kind: str, mode: str) -> Record:
    """Return the running container that `container:x` means.

    Raises:
        System, Conflict, NotFound: Docker's words.
    """
    reference = mode.partition(":")[2]
    try:
        owner = core.registry.find(reference)
    except NotFound as error:
        raise NotFound(
            f"joining network namespace of container: {error}" if kind == "network" else str(error)
        )
    if kind == "network" and not owner.state.is_live:
        raise Conflict(
            f"cannot join network namespace of a non running container: container {owner.name} "
            f"is {owner.state.status}"
        )
    words = f"failed to join {kind.upper()} namespace: "
    if not owner.state.is_live:
        raise System(f"{words}container {owner.id} is not running")
    if kind == "ipc" and owner.host.ipc_mode == "private":
        raise System(
            f"{words}container {owner.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    return owner


async def make_extras(
    core: Core, record: Record, config: dict[str, Any], sandbox: Sandbox | None, sources: Sources
) -> dict[str, Any]:
    """Return what config.json cannot say: the overlay, descriptors, the compiled filter."""
    active = core.store.snapshots.mountable(record.id)
    extras: dict[str, Any] = {
        "overlay": {
            "lowerdirs": active.lowerdirs,
            "upperdir": active.upperdir,
            "workdir": active.workdir,
            # What is removed with its container needs no sync when it ends (overlayfs "volatile").
            "volatile": record.host.auto_remove,
        },
    }
    wants_init = core.config.init if record.host.init is None else record.host.init
    if wants_init and not record.host.pid_mode:
        extras["init_path"] = init_binary(core)
    profile = config["linux"].get("seccomp")
    if profile is not None and not profile.get("flags"):
        # The filter instead of the profile: the monitor needs not parse, compile and keep it.
        extras["seccomp_bpf"] = await compiled_filter(config["linux"].pop("seccomp"))
    for destination, fd in sources.mount_fds.items():
        extras[f"mount:{destination}_fd"] = fd
    if sandbox is not None and sandbox.netns_fd is not None:
        extras["netns_fd"] = sandbox.netns_fd
        extras["hold_fds"] = list(sandbox.hold_fds)
    return extras


async def compiled_filter(profile: dict[str, Any]) -> bytes:
    """Return the BPF program of a profile; the few different ones are kept."""
    key = repr(profile)
    program = _seccomp_cache.get(key)
    if program is None:
        try:
            program = await blocking(seccomp.compile_profile, profile)
        except ValueError as error:
            raise InvalidParameter(f"invalid seccomp profile: {error}")
        if len(_seccomp_cache) > 32:
            _seccomp_cache.clear()
        _seccomp_cache[key] = program
    return program


def log_spec(core: Core, record: Record) -> LogSpec:
    """Return where the output goes."""
    log = record.host.log_config
    options = log.config or {}
    path = core.log_file(record)
    if log.type == "local":
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    attrs = logs.extra_attributes(
        options, labels=record.config.labels or {}, env=record.config.env or [], tag=log_tag(record, options)
    )
    return LogSpec(driver=log.type, path=path, options=options, attrs=attrs)


_TAG = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


def log_tag(record: Record, options: dict[str, str]) -> str:
    """Return the rendered `tag` option; simple fields only, as moby documents them."""
    values = {
        "ID": record.short_id,
        "FullID": record.id,
        "Name": record.name,
        "ImageID": record.image_id.rpartition(":")[2][:12],
        "ImageFullID": record.image_id,
        "ImageName": record.config.image,
        "DaemonName": "docker",
    }
    return _TAG.sub(lambda match: values.get(match[1], ""), options.get("tag", ""))


async def _undo(core: Core, record: Record, actor: Actor, sandbox: Sandbox | None) -> None:
    if sandbox is not None:
        await release_network(core, record)
    detach_volumes(core, record, actor)


def os_error_text(error: OSError) -> str:
    """Return `write /path: no space left on device`, as Go programs say it."""
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


def start_error(error: EngineError) -> EngineError:
    """Return the error as the client gets it."""
    if isinstance(error, LaunchError):
        text = launch_text(error)
        return InvalidParameter(text) if error.exit_code in (126, 127) else System(text)
    return error


def launch_text(error: LaunchError) -> str:
    """Return a failed start in the words of dockerd, containerd and runc, which clients match on."""
    text = str(error)
    if text.startswith("failed to create task"):
        return text
    reason = text.removeprefix("unable to start container process: ")
    if reason.startswith(_DAEMONS_OWN):
        return reason
    if match := _NO_DIRECTORY.fullmatch(reason):
        return f"Cannot mkdir: {match[1]} is not a directory"
    if reason.startswith("failed to initialize logging driver"):
        return f"failed to create task for container: {reason}"
    return CREATE_FAILED + text


async def _note_failure(core: Core, record: Record, error: EngineError) -> None:
    """Keep the error and Docker's exit code in the record; the state stays as it was.

    With `--rm` the container goes: nobody else would remove what never ran.
    """
    current = core.registry.get(record.id)
    if current is None:
        return
    code = error.exit_code if isinstance(error, LaunchError) else 128
    text = launch_text(error) if isinstance(error, LaunchError) else str(error)
    changed = core.change(
        structs.replace(current, network=endpoints.stopped_state(current.network)), error=text, exit_code=code
    )
    if record.host.auto_remove and not record.hidden:
        await remove.remove_locked(core, changed, volumes=True)


def _entered(core: Core, record: Record, actor: Actor, monitor: Monitor, sandbox: Sandbox | None) -> None:
    """Make it known that the container runs."""
    actor.monitor = monitor
    actor.exited.clear()
    state = structs.replace(
        core.advance(record, Event.START),
        pid=monitor.init_pid,
        pid_start_time=monitor.start_time,
        exit_code=0,
        error="",
        oom_killed=False,
        started_ns=monitor.started_at_ns or now_ns(),
        health=Health() if probe_command(record.config) else None,
    )
    record = core.note_fact(structs.replace(record, state=state, started_before=True))
    core.emit(record, "start")
    for attachment in monitor.start_attachments:
        spawn(f"attached:{record.short_id}", attach.report_detach(core, record, attachment))
    health.begin(core, record)
    supervise.begin(core, record, monitor)
