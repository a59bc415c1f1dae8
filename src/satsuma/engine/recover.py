"""Take up what lived on while no daemon ran, and finish what had ended meanwhile.

A daemon may be killed at any moment.  Truth is in three places, and this puts them together: rows say what
should be, monitors say what runs, exit records say how the rest ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from satsuma.base.aio import spawn
from satsuma.base.clock import now_ns
from satsuma.base.errors import EngineError
from satsuma.container import Record, Status
from satsuma.container.restart import should_start_at_boot
from satsuma.engine import health, remove, start, supervise
from satsuma.engine.core import Core
from satsuma.linux import ns
from satsuma.monitor.client import ExitStatus, Monitor, read_exit, reconnect, running_ids

_log = logging.getLogger(__name__)

_PARALLEL = 16


async def recover(core: Core) -> None:
    """Bring records, monitors and networks into line.  Order: before any client is served."""
    was_up = [record for record in core.registry if record.state.is_up]
    monitors = await _reconnect(core, [record for record in was_up if record.state.is_live])
    await _kill_strays(core)
    for record in core.registry:
        _refer_volumes(core, record, live=record.id in monitors)
    await _recover_networks(core, monitors)
    for record in was_up:
        async with core.locks.hold(record.id):
            await _take_up(core, core.current(record), monitors.get(record.id))
    core.background("boot:containers", _start_at_boot(core))


async def _reconnect(core: Core, records: list[Record]) -> dict[str, Monitor]:
    """Return the monitors that answer, by container id."""
    found: dict[str, Monitor] = {}
    limit = asyncio.Semaphore(_PARALLEL)

    async def one(record: Record) -> None:
        async with limit:
            group = start.cgroups_path(core, record.id, record.host.cgroup_parent)
            monitor = await reconnect(
                core.config.exec_root, record.id, core.exit_path(record.id), group=group
            )
        if monitor is not None:
            found[record.id] = monitor

    async with asyncio.TaskGroup() as group:
        for record in records:
            group.create_task(one(record), name=f"reconnect:{record.short_id}")
    return found


async def _kill_strays(core: Core) -> None:
    """End monitors whose container has no row: a build's, or one that was being removed or made."""
    for container_id in running_ids(core.config.exec_root):
        record = core.registry.get(container_id)
        if record is not None and record.state.is_live:
            continue
        _log.info("ending container %s, which has no record of running", container_id[:12])
        group = start.cgroups_path(core, container_id, record.host.cgroup_parent if record else "")
        monitor = await reconnect(core.config.exec_root, container_id, group=group)
        if monitor is None:
            continue
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(10):
                await monitor.kill_all()
                await monitor.wait()
        monitor.close()


def _refer_volumes(core: Core, record: Record, *, live: bool) -> None:
    for point in record.mounts:
        if point.type == "volume":
            core.volumes.refer(point.name, record.id)
            if live:
                core.volumes.adopt(point.name, record.id)
                core.actor(record).volumes.add(point.name)


async def _recover_networks(core: Core, monitors: dict[str, Monitor]) -> None:
    records = {}
    for container_id, monitor in monitors.items():
        record = core.registry.get(container_id)
        if record is not None and record.network.sandbox and not monitor.exited:
            records[container_id] = record.network.sandbox

    def netns_fd_of(container_id: str) -> int | None:
        try:
            return ns.open_ns(monitors[container_id].init_pid, "net")
        except (FileNotFoundError, ProcessLookupError):
            return None

    sandboxes = await core.networks.recover(records, netns_fd_of)
    for sandbox in sandboxes.values():
        sandbox.close_hold_fds()


async def _take_up(core: Core, record: Record, monitor: Monitor | None) -> None:
    """Go on with one container that was up when the last daemon ended."""
    actor = core.actor(record)
    if monitor is not None:
        actor.monitor = monitor
        actor.exited.clear()
        if record.state.pid != monitor.init_pid:
            record = core.change(record, pid=monitor.init_pid, pid_start_time=monitor.start_time)
        await supervise.restore_freeze(core, record, monitor)
        record = core.current(record)
        health.begin(core, record)
        supervise.begin(core, record, monitor)
        return
    if record.state.is_live:
        status = read_exit(core.exit_path(record.id)) or ExitStatus(255, False, now_ns())
        await supervise.ended(core, record, status)
        return
    # It was waiting for its restart; wait again, shorter.
    actor.restart = spawn(f"restart:{record.short_id}", supervise.restart_later(core, record.id, 0.1))


async def _start_at_boot(core: Core) -> None:
    """Start what its restart policy wants up, and remove what `--rm` should have removed."""
    # Those that join another's namespaces come after it.
    for record in sorted(core.registry, key=lambda record: "container:" in str(_modes(record))):
        status = record.state.status
        if status is Status.REMOVING or status is Status.DEAD:
            continue
        if status not in (Status.CREATED, Status.EXITED) or not record.started_before:
            continue
        if record.host.auto_remove:
            await _remove(core, record)
            continue
        wanted = should_start_at_boot(
            record.host.restart_policy,
            exit_code=record.state.exit_code,
            restart_count=record.restart_count,
            stopped_by_hand=record.stopped_by_hand,
        )
        if not wanted:
            continue
        try:
            async with core.locks.hold(record.id):
                current = core.registry.get(record.id)
                if current is not None and current.state.status is status:
                    await start.run(core, current)
        except EngineError as error:
            _log.error("failed to start container %s: %s", record.name, error)


def _modes(record: Record) -> tuple[str, str, str]:
    return record.host.network_mode, record.host.ipc_mode, record.host.pid_mode


async def _remove(core: Core, record: Record) -> None:
    async with core.locks.hold(record.id):
        current = core.registry.get(record.id)
        if current is not None and not current.state.is_up:
            await remove.remove_locked(core, current, volumes=True)
