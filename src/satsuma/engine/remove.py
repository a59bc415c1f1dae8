"""Remove containers: row first, then everything else; the directory goes in the background.

Source: moby daemon/delete.go, daemon/prune.go of 28.5.2.
"""

from __future__ import annotations

import logging

from msgspec import structs

from satsuma.base.aio import blocking
from satsuma.base.clock import now_ns, parse_time
from satsuma.base.errors import Conflict, EngineError, InvalidParameter, NotFound, System
from satsuma.base.failpoints import failpoint
from satsuma.container import Event, Record, Status
from satsuma.container.listing import check_filters, matches_labels, without_labels
from satsuma.engine import endpoints, supervise
from satsuma.engine.core import Core, quietly
from satsuma.engine.events import Filters
from satsuma.engine.links import split_link

_log = logging.getLogger(__name__)

_NO_NAME = "Error when allocating new name: "


async def remove(core: Core, reference: str, *, force: bool, volumes: bool) -> None:
    """Remove a container by a client's wish.

    Raises:
        NotFound; Conflict: it runs and *force* is not given, or is being removed already.
    """
    record = core.registry.find(reference)
    actor = core.actor(record)
    if actor.removing:
        raise Conflict(f"removal of container {reference} is already in progress")
    if record.state.is_up and not force:
        core.advance(record, Event.REMOVE, name=reference)
    actor.removing = True
    try:
        if record.state.is_up:
            await _kill(core, record)
        async with core.locks.hold(record.id):
            current = core.registry.get(record.id)
            if current is not None:
                await remove_locked(core, current, volumes=volumes)
    finally:
        actor.removing = False


async def _kill(core: Core, record: Record) -> None:
    if record.state.status is Status.RESTARTING:
        await supervise.stop_record(core, record, timeout=0)
        return
    try:
        await supervise.kill(core, record.id, "SIGKILL")
    except Conflict:
        pass


async def remove_locked(core: Core, record: Record, *, volumes: bool) -> None:
    """Remove a stopped container whose lock is held; its files vanish at once, their blocks later.

    Crash: the row goes first; a directory without a row is cleared away by the store.
    """
    actor = core.actor(record)
    actor.removing = True
    core.advance(record, Event.REMOVE)
    supervise.cancel_restart(actor)
    actor.drop_pending()
    try:
        core.registry.remove(record.id)
    except System:
        # A full disk takes not even the news of a removal: make room first, with what is to go anyway.
        await blocking(_make_room, core, record.id)
        core.registry.remove(record.id)
    failpoint("engine.removed")
    await actor.departed()
    drop_volumes(core, record, anonymous=volumes)
    core.emit(record, "destroy")
    actor.notify(record.state.exit_code, "", removed=True)
    core.actors.forget(record.id)
    core.background(f"discard:{record.short_id}", blocking(_discard, core, record.id))


def _make_room(core: Core, container_id: str) -> None:
    """Crash: leaves a row without a directory, whose container can only be removed again."""
    core.store.snapshots.remove(container_id)
    core.store.trash.empty()


def _discard(core: Core, container_id: str) -> None:
    quietly(f"remove the directory of {container_id}", lambda: core.store.snapshots.remove(container_id))


def drop_volumes(core: Core, record: Record, *, anonymous: bool) -> None:
    """Give volumes back; with *anonymous*, remove the container's own anonymous ones."""
    for point in record.mounts:
        if point.type != "volume":
            continue
        core.volumes.release(point.name, record.id)
        if not (anonymous and point.anonymous) or core.volumes.users(point.name):
            continue
        try:
            if core.volumes.remove(point.name, force=True):
                core.bus.publish("volume", "destroy", point.name, {"driver": point.driver})
                core.background(f"volume:{point.name[:12]}", blocking(core.volumes.discard, point.name))
        except Conflict:
            continue


async def remove_link(core: Core, name: str) -> None:
    """Take a legacy link away from a container: `parent/alias`.

    Raises:
        Conflict, System: no such link.
    """
    parent, _, alias = name.strip("/").rpartition("/")
    try:
        record = core.registry.find(parent or alias)
    except NotFound:
        raise NotFound(f"No such container: {name}") from None
    if not parent:
        raise System("Conflict, cannot remove the default link name of the container")
    async with core.locks.hold(record.id):
        record = core.current(record)
        kept = [link for link in record.host.links or [] if split_link(link)[1] != alias]
        core.save(structs.replace(record, host=structs.replace(record.host, links=kept or None)))


async def prune(core: Core, filters: Filters) -> dict[str, object]:
    """Remove all stopped containers that the filters select."""
    check_filters(filters, frozenset({"label", "label!", "until"}))
    until = until_ns(filters)
    removed: list[str] = []
    reclaimed = 0
    for record in list(core.registry):
        if record.state.status not in (Status.EXITED, Status.CREATED, Status.DEAD):
            continue
        labels = record.config.labels or {}
        if until is not None and record.created_ns > until:
            continue
        if not matches_labels(filters, labels) or not without_labels(filters, labels):
            continue
        size = await blocking(layer_usage, core, record)
        try:
            await remove(core, record.id, force=False, volumes=False)
        except EngineError as error:
            _log.warning("prune: %s: %s", record.name, error)
            continue
        removed.append(record.id)
        reclaimed += size
    core.bus.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
    return {"ContainersDeleted": removed or None, "SpaceReclaimed": reclaimed}


def layer_usage(core: Core, record: Record) -> int:
    """Return the bytes that a container wrote; 0 when they cannot be counted."""
    try:
        return core.store.snapshots.usage(record.id)
    except (OSError, EngineError):
        return 0


def until_ns(filters: Filters) -> int | None:
    """Return the point in time of the filter `until`, None without it.

    Raises:
        InvalidParameter: more than one, or no time.
    """
    values = filters.get("until") or []
    if not values:
        return None
    if len(values) > 1:
        raise InvalidParameter("more than one until filter specified")
    try:
        return parse_time(values[0], now=now_ns())
    except ValueError as error:
        raise InvalidParameter(str(error))


async def rename(core: Core, reference: str, new_name: str) -> None:
    """Give a container a new name.

    Raises:
        InvalidParameter, Conflict: the name is bad, the same, or taken.
    """
    from satsuma.container.validate import check_name

    if not new_name:
        raise InvalidParameter("Neither old nor new names may be empty")
    record = core.registry.find(reference)
    try:
        name = check_name(new_name)
    except InvalidParameter:
        # The name as it would be: with a slash.
        raise InvalidParameter(
            f"{_NO_NAME}Invalid container name (/{new_name.removeprefix('/')}), "
            "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ) from None
    async with core.locks.hold(record.id):
        record = core.current(record)
        if record.name == name:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        try:
            core.registry.reserve(name, record.id)
        except Conflict as error:
            raise Conflict(f"{_NO_NAME}{error}") from error
        old = record.display_name
        try:
            record = core.save(structs.replace(record, name=name))
        except BaseException:
            core.registry.release(name, record.id)
            raise
        sandbox = core.networks.rename(record.id, name)
        if sandbox is not None:
            record = core.save(structs.replace(record, network=endpoints.live_state(record, sandbox)))
        core.emit(record, "rename", oldName=old)
