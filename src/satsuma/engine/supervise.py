"""Watch running containers: the end of init, restart policy, removal, stop and kill.

Source: moby daemon/monitor.go `handleContainerExit`, daemon/{stop,kill,restart,pause}.go of 28.5.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from msgspec import structs

from satsuma.base.aio import blocking, spawn
from satsuma.base.clock import now_ns
from satsuma.base.errors import Conflict, EngineError, InvalidParameter, NotModified, System
from satsuma.base.failpoints import failpoint
from satsuma.container import Event, Record, Status, parse_signal
from satsuma.container.restart import next_pause, should_restart
from satsuma.container.signals import MAX_NUMBER, RTMAX
from satsuma.engine import endpoints, health, remove, start
from satsuma.engine.actors import Actor
from satsuma.engine.core import Core
from satsuma.engine.trace import Trace
from satsuma.linux.cgroup import Cgroup
from satsuma.monitor.client import ExitStatus, Monitor
from satsuma.runtime.systemd import recorded_group

_log = logging.getLogger(__name__)

KILL_TIMEOUT = 10.0
SIGKILL = 9
OWNER_LIMIT = 20.0
"""Seconds that a restart waits for the container whose namespaces it joins."""
DEFAULT_STOP_SIGNAL = "SIGTERM"


def begin(core: Core, record: Record, monitor: Monitor) -> None:
    """Watch a container that has started."""
    actor = core.actor(record)
    actor.supervisor = spawn(f"supervise:{record.short_id}", _watch(core, record.id, monitor))


async def _watch(core: Core, container_id: str, monitor: Monitor) -> None:
    status = await monitor.ended()
    async with core.locks.hold(container_id):
        record = core.registry.get(container_id)
        if record is None or not record.state.is_live:
            return
        actor = core.actor(record)
        await ended(core, record, status)
    core.launcher.prepare()
    core.networks.prepare()
    await actor.departed()


async def ended(core: Core, record: Record, status: ExitStatus) -> None:
    """Take note of the end of a container whose lock is held, and do what follows from it."""
    actor = core.actor(record)
    trace = Trace("end", record.id)
    trace.since(status.finished_at_ns)
    trace.step("news")
    failpoint("engine.exit")
    health.end(actor)
    actor.exited.set()
    if actor.monitor is not None:
        actor.leaving, actor.monitor = actor.monitor, None
    if status.oom_killed:
        core.emit(record, "oom")
    ran_for = max(0, status.finished_at_ns - record.state.started_ns) / 1e9
    await start.release_network(core, record)
    trace.step("network")
    start.detach_volumes(core, record, actor)
    again = (
        not core.closing
        and not actor.manual_restart
        and not actor.removing
        and should_restart(
            record.host.restart_policy,
            exit_code=status.exit_code,
            restart_count=record.restart_count,
            stopped_by_hand=record.stopped_by_hand,
        )
    )
    record = _note_exit(core, record, status, again=again)
    core.emit(record, "die", execDuration=str(int(ran_for)), exitCode=str(status.exit_code))
    end_execs(core, record, actor)
    actor.notify(status.exit_code, "")
    trace.step("stored")
    if again:
        actor.restart_pause = next_pause(actor.restart_pause, ran_for)
        actor.restart = spawn(
            f"restart:{record.short_id}", restart_later(core, record.id, actor.restart_pause)
        )
    elif record.host.auto_remove and not actor.manual_restart and not actor.removing:
        await remove.remove_locked(core, record, volumes=True)
        trace.step("removed")
    trace.end()


def _note_exit(core: Core, record: Record, status: ExitStatus, *, again: bool) -> Record:
    state = structs.replace(
        core.advance(record, Event.RESTART if again else Event.EXIT),
        pid=0,
        pid_start_time=0,
        exit_code=status.exit_code,
        oom_killed=status.oom_killed,
        finished_ns=status.finished_at_ns,
        error="",
    )
    if state.health is not None:
        state = structs.replace(state, health=structs.replace(state.health, status="unhealthy"))
    return core.note_fact(
        structs.replace(
            record,
            state=state,
            restart_count=record.restart_count + (1 if again else 0),
            network=endpoints.stopped_state(record.network),
        )
    )


def end_execs(core: Core, record: Record, actor: Actor) -> None:
    """Sessions ended with their container; those that hear of no exit of their own are closed here."""
    for session in list(actor.execs.values()):
        session.container_ended()


async def restart_later(core: Core, container_id: str, pause: float) -> None:
    await asyncio.sleep(pause)
    await _wait_for_owners(core, container_id)
    async with core.locks.hold(container_id):
        record = core.registry.get(container_id)
        if record is None or record.state.status is not Status.RESTARTING:
            return
        actor = core.actor(record)
        actor.restart = None
        try:
            await start.run(core, record)
        except EngineError as error:
            _log.warning("restart of %s failed: %s", record.name, error)
            record = core.current(record)
            await _give_up(core, record, actor)


async def _wait_for_owners(core: Core, container_id: str) -> None:
    """Wait for the containers whose namespaces this one joins, if they are about to start as well.

    After a reboot all of them start at once; `--net container:web` must not fail because web is a moment later.
    """
    record = core.registry.get(container_id)
    modes = (record.host.network_mode, record.host.ipc_mode, record.host.pid_mode) if record else ()
    deadline = asyncio.get_running_loop().time() + OWNER_LIMIT
    for mode in modes:
        kind, _, owner_id = mode.partition(":")
        while kind == "container" and asyncio.get_running_loop().time() < deadline:
            owner = core.registry.get(owner_id)
            if owner is None or not owner.state.is_up or core.actor(owner).monitor is not None:
                break
            await asyncio.sleep(0.05)


async def _give_up(core: Core, record: Record, actor: Actor) -> None:
    record = core.note_fact(structs.replace(record, state=core.advance(record, Event.GIVE_UP)))
    actor.notify(record.state.exit_code, record.state.error)
    if record.host.auto_remove:
        await remove.remove_locked(core, record, volumes=True)


def cancel_restart(actor: Actor) -> None:
    """Call off a restart that is waiting."""
    if actor.restart is not None:
        actor.restart.cancel()
        actor.restart = None


# Stop and kill


def stop_signal(record: Record) -> int:
    return parse_signal(record.config.stop_signal or DEFAULT_STOP_SIGNAL)


def stop_timeout(core: Core, record: Record) -> int:
    configured = record.config.stop_timeout
    return core.config.default_stop_timeout if configured is None else configured


async def stop(core: Core, reference: str, *, signal: str | None, timeout: int | None) -> bool:
    """Stop a container by a client's wish; False when it is not running.

    Raises:
        InvalidParameter: a bad signal.
        System: it does not die.
    """
    record = core.registry.find(reference)
    if not record.state.is_up:
        return False
    try:
        await stop_record(core, record, signal=signal, timeout=timeout)
    except InvalidParameter as error:
        raise InvalidParameter(f"cannot stop container: {reference}: {error}") from error
    return True


async def stop_record(
    core: Core, record: Record, *, signal: str | None = None, timeout: int | None = None
) -> None:
    """Send the stop signal, wait, then kill; returns when the exit has been handled."""
    signum = parse_signal(signal) if signal else stop_signal(record)
    seconds = stop_timeout(core, record) if timeout is None else timeout
    actor = core.actor(record)
    if await _stop_restarting(core, record):
        return
    waiter = actor.wait("not-running")
    try:
        await send_signal(core, record, signum, stopping=True)
        if not await _exits_within(waiter, None if seconds < 0 else float(seconds)):
            await send_signal(core, record, SIGKILL, stopping=True)
            if not await _exits_within(waiter, KILL_TIMEOUT):
                await _kill_everything(actor)
                if not await _exits_within(waiter, KILL_TIMEOUT):
                    raise System(
                        f"cannot stop container: {record.id}: tried to kill container, "
                        "but did not receive an exit event"
                    )
    finally:
        waiter.close()
    core.emit(record, "stop")


async def _stop_restarting(core: Core, record: Record) -> bool:
    """Stop a container that waits for its next start; False when it does not."""
    if record.state.status is not Status.RESTARTING:
        return False
    async with core.locks.hold(record.id):
        record = core.current(record)
        if record.state.status is not Status.RESTARTING:
            return False
        await _call_off(core, record)
    core.emit(record, "stop")
    return True


async def _call_off(core: Core, record: Record) -> None:
    """Let a container whose lock is held not start again."""
    actor = core.actor(record)
    cancel_restart(actor)
    await _give_up(core, structs.replace(record, stopped_by_hand=True), actor)


async def _exits_within(waiter: object, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await waiter.result()  # type: ignore[attr-defined]
    except TimeoutError:
        return False
    return True


async def _kill_everything(actor: Actor) -> None:
    if actor.monitor is not None:
        with contextlib.suppress(Conflict):
            await actor.monitor.kill_all()


async def send_signal(core: Core, record: Record, signum: int, *, stopping: bool = False) -> None:
    """Send a signal to init; SIGKILL and the stop signal count as a manual stop.

    A container that ended meanwhile is no error when *stopping*.

    Raises:
        Conflict: `container x is not running`.
    """
    async with core.locks.hold(record.id):
        current = core.registry.get(record.id)
        final = stopping or signum in (SIGKILL, stop_signal(record))
        if current is not None and current.state.status is Status.RESTARTING and final:
            await _call_off(core, current)
            return
        if current is None or not current.state.is_live:
            if stopping:
                return
            raise Conflict(f"container {record.id} is not running")
        monitor = core.live_monitor(current)
        if final and not core.closing:
            current = core.note_fact(structs.replace(current, stopped_by_hand=True))
        try:
            await monitor.signal(signum)
        except Conflict:
            if not stopping:
                raise
            return
        if final and current.state.status is Status.PAUSED:
            # A frozen process gets its signal when it thaws.
            await blocking(cgroup_of(monitor).thaw)
        core.emit(current, "kill", signal=str(signum))


async def kill(core: Core, reference: str, signal: str) -> None:
    """Send a signal by a client's wish; SIGKILL returns when the container has ended.

    Raises:
        Conflict: `cannot kill container: x: container y is not running`.
    """
    signum = parse_signal(signal or "SIGKILL", limit=MAX_NUMBER)
    if signum > RTMAX:
        raise InvalidParameter(f"the linux daemon does not support signal {signum}")
    record = core.registry.find(reference)
    if not record.state.is_up:
        raise Conflict(f"cannot kill container: {reference}: container {record.id} is not running")
    if await _stop_restarting(core, record):
        return
    waiter = core.actor(record).wait("not-running") if signum == SIGKILL else None
    try:
        try:
            await send_signal(core, record, signum)
        except Conflict:
            raise Conflict(f"cannot kill container: {reference}: container {record.id} is not running")
        if waiter is not None and not await _exits_within(waiter, KILL_TIMEOUT):
            await _kill_everything(core.actor(record))
            await _exits_within(waiter, KILL_TIMEOUT)
    finally:
        if waiter is not None:
            waiter.close()


async def restart(core: Core, reference: str, *, signal: str | None, timeout: int | None) -> None:
    """Stop and start; a stopped container is started."""
    record = core.registry.find(reference)
    actor = core.actor(record)
    if record.state.status is Status.PAUSED:
        await unpause(core, reference)
    actor.manual_restart = True
    try:
        if record.state.is_up:
            try:
                await stop_record(core, core.current(record), signal=signal, timeout=timeout)
            except NotModified:
                pass
    finally:
        actor.manual_restart = False
    await start.start(core, record.id)
    core.emit(core.current(record), "restart")


# Pause


def cgroup_of(monitor: Monitor) -> Cgroup:
    """Return the cgroup of a running container."""
    return recorded_group("", monitor.cgroup)


async def pause(core: Core, reference: str, *, by_commit: bool = False) -> None:
    """Freeze a container.

    Args:
        by_commit: it is thawed by the next daemon if this one dies.
    Raises:
        Conflict: not running, or frozen already.
    """
    record = core.registry.find(reference)
    async with core.locks.hold(record.id):
        record = core.current(record)
        state = core.advance(record, Event.PAUSE)
        monitor = core.live_monitor(record)
        try:
            await blocking(cgroup_of(monitor).freeze)
        except OSError as error:
            raise System(f"cannot pause container {record.id}: {error}")
        failpoint("engine.frozen")
        state = structs.replace(state, paused_by_commit=by_commit)
        record = core.note_fact(structs.replace(record, state=state))
        health.end(core.actor(record))
        core.emit(record, "pause")


async def unpause(core: Core, reference: str) -> None:
    """Thaw a container.

    Raises:
        System: it is not paused.
    """
    record = core.registry.find(reference)
    async with core.locks.hold(record.id):
        record = core.current(record)
        state = core.advance(record, Event.UNPAUSE)
        try:
            await blocking(cgroup_of(core.live_monitor(record)).thaw)
        except OSError as error:
            raise System(f"cannot unpause container {record.id}: {error}")
        failpoint("engine.thawed")
        state = structs.replace(state, paused_by_commit=False)
        record = core.note_fact(structs.replace(record, state=state))
        health.begin(core, record)
        core.emit(record, "unpause")


async def restore_freeze(core: Core, record: Record, monitor: Monitor) -> None:
    """Freeze or thaw a container as its record says: the last daemon may have died between the two.

    What a commit had frozen goes on; dockerd leaves it paused for ever.
    """
    paused = record.state.status is Status.PAUSED
    try:
        group = cgroup_of(monitor)
        await blocking(group.freeze if paused and not record.state.paused_by_commit else group.thaw)
    except OSError as error:
        _log.warning("cannot restore whether container %s is paused: %s", record.name, error)
        return
    if record.state.paused_by_commit:
        state = structs.replace(core.advance(record, Event.UNPAUSE), paused_by_commit=False)
        core.note_fact(structs.replace(record, state=state))


async def stop_all(core: Core, timeout: float) -> None:
    """Stop every container, for a daemon that does not leave them running."""
    deadline = now_ns() + int(timeout * 1e9)

    async def one(record: Record) -> None:
        left = max(0, (deadline - now_ns()) // 10**9)
        with contextlib.suppress(EngineError):
            await stop_record(core, record, timeout=min(stop_timeout(core, record), int(left)))

    async with asyncio.TaskGroup() as group:
        for record in list(core.registry):
            if record.state.is_up:
                group.create_task(one(record), name=f"shutdown:{record.short_id}")
