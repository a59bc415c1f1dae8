"""The face of containers towards the API: one method per operation, each a few words about its module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, BinaryIO

from msgspec import structs

from satsuma.base.aio import blocking
from satsuma.base.errors import Conflict, EngineError, InvalidParameter, System
from satsuma.container import Record
from satsuma.container.inspect import inspect_json
from satsuma.container.listing import Selection, check_ps_filters, select, summaries
from satsuma.container.resources import check_resources, oci_resources, update_resources
from satsuma.container.validate import check_restart_policy
from satsuma.engine import (
    anatomy,
    attach,
    commit,
    copying,
    create,
    execs,
    logs,
    remove,
    start,
    stats,
    supervise,
)
from satsuma.engine.actors import Waiter
from satsuma.engine.attach import Hijack
from satsuma.engine.core import Core
from satsuma.engine.events import Filters
from satsuma.engine.explain import Explanation
from satsuma.engine.logs import LogStream
from satsuma.runtime import resources
from satsuma.runtime.errors import ConfigError
from satsuma.spec.docker import (
    ContainerConfig,
    CreateRequest,
    CreateResponse,
    ExecCreateRequest,
    ExecStartRequest,
    UpdateRequest,
)

Json = dict[str, Any]
Jsons = list[Json]
Names = list[str]


class Containers:
    """Operations on containers; references are ids, unique prefixes of ids, or names."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, name: str | None, body: CreateRequest, platform: str = "") -> CreateResponse:
        return await create.create(self._core, name, body, platform)

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> Jsons:
        """Return the containers that run, or all; newest first."""
        core = self._core
        check_ps_filters(filters)
        visible = [record for record in core.registry if not record.hidden]
        selection = Selection(
            filters,
            ids=_ids_of_filter(core, filters),
            images=_images_of_filter(core, filters),
            show_all=all or limit > 0,
        )
        before = [core.registry.find(value) for value in filters.get("before", ())]
        since = [core.registry.find(value) for value in filters.get("since", ())]
        chosen = select(
            visible,
            selection,
            before=before[0] if before else None,
            since=since[0] if since else None,
            limit=limit,
        )
        answer = summaries(chosen, _ImageNames(core))
        if size:
            for record, summary in zip(chosen, answer, strict=True):
                written, total = await container_size(core, record)
                if written:
                    summary["SizeRw"] = written
                summary["SizeRootFs"] = total
        return answer

    async def inspect(self, ref: str, *, size: bool = False) -> Json:
        """Return everything about a container."""
        core = self._core
        record = core.registry.find(ref)
        actor = core.actors.get(record.id)
        mode = record.host.network_mode
        owner = core.registry.get(mode.partition(":")[2]) if mode.startswith("container:") else None
        answer = inspect_json(
            record,
            directory=core.directory(owner.id if owner else record.id),
            graph=graph_data(core, record),
            exec_ids=list(actor.execs) if actor else None,
            default_ulimits=core.config.default_ulimits,
        )
        if size:
            answer["SizeRw"], answer["SizeRootFs"] = await container_size(core, record)
        return answer

    async def start(self, ref: str, *, detach_keys: str | None = None) -> bool:
        attach.detach_keys_bytes(detach_keys)
        return await start.start(self._core, ref)

    async def stop(self, ref: str, *, signal: str | None = None, timeout: int | None) -> bool:
        return await supervise.stop(self._core, ref, signal=signal, timeout=timeout)

    async def restart(self, ref: str, *, signal: str | None, timeout: int | None) -> None:
        await supervise.restart(self._core, ref, signal=signal, timeout=timeout)

    async def kill(self, ref: str, signal: str) -> None:
        await supervise.kill(self._core, ref, signal)

    async def pause(self, ref: str) -> None:
        await supervise.pause(self._core, ref)

    async def unpause(self, ref: str) -> None:
        await supervise.unpause(self._core, ref)

    async def rename(self, ref: str, new: str) -> None:
        await remove.rename(self._core, ref, new)

    async def update(self, ref: str, body: UpdateRequest) -> Names:
        return await update(self._core, ref, body)

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        if link:
            await remove.remove_link(self._core, ref)
            return
        await remove.remove(self._core, ref, force=force, volumes=volumes)

    async def wait(self, ref: str, condition: str) -> Waiter:
        """Begin to wait; returns at once, so that the client can start the container."""
        if condition not in ("not-running", "next-exit", "removed"):
            raise InvalidParameter(f'invalid condition: "{condition}"')
        record = self._core.registry.find(ref)
        waiter = self._core.actor(record).wait(condition)
        if condition == "not-running" and not record.state.is_live:
            waiter.answer(record.state.exit_code, record.state.error)
        return waiter

    async def resize(self, ref: str, h: int, w: int) -> None:
        record = self._core.registry.find(ref)
        monitor = self._core.live_monitor(record)
        await monitor.resize(w, h)
        self._core.emit(record, "resize", height=str(h), width=str(w))

    async def top(self, ref: str, ps_args: str) -> Json:
        return await stats.top(self._core, ref, ps_args)

    async def changes(self, ref: str) -> Jsons | None:
        return await copying.changes(self._core, ref)

    def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[Json]:
        return stats.stats(self._core, ref, stream=stream, one_shot=one_shot)

    async def logs(self, ref: str, **options: Any) -> LogStream:
        """Open a log; the options are those of `engine.logs.logs`."""
        return await logs.logs(self._core, ref, **options)

    async def attach(
        self,
        ref: str,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        stream: bool,
        logs: bool,
        detach_keys: str | None,
        hijack: Hijack,
    ) -> None:
        await attach.attach(
            self._core,
            ref,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            stream=stream,
            logs=logs,
            detach_keys=detach_keys,
            hijack=hijack,
        )

    def export(self, ref: str) -> AsyncIterator[bytes]:
        return copying.export(self._core, ref)

    async def archive_stat(self, ref: str, path: str) -> Json:
        return await copying.archive_stat(self._core, ref, path)

    async def archive_get(self, ref: str, path: str) -> tuple[Json, AsyncIterator[bytes]]:
        return await copying.archive_get(self._core, ref, path)

    async def archive_put(
        self, ref: str, path: str, body: BinaryIO, *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        await copying.archive_put(
            self._core,
            ref,
            path,
            body,
            no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
            copy_uid_gid=copy_uid_gid,
        )

    async def prune(self, filters: Filters) -> Json:
        return await remove.prune(self._core, filters)

    async def commit(
        self,
        *,
        container: str,
        repo: str,
        tag: str,
        comment: str,
        author: str,
        pause: bool,
        changes: Names,
        config: ContainerConfig | None,
    ) -> str:
        return await commit.commit(
            self._core,
            container=container,
            repo=repo,
            tag=tag,
            comment=comment,
            author=author,
            pause=pause,
            changes=changes,
            config=config,
        )

    async def exec_create(self, ref: str, body: ExecCreateRequest) -> str:
        return execs.create(self._core, ref, body)

    async def exec_start(self, exec_id: str, body: ExecStartRequest, hijack: Hijack | None) -> None:
        await execs.start(self._core, exec_id, body, hijack)

    async def exec_inspect(self, exec_id: str) -> Json:
        session = execs.find(self._core, exec_id)
        await session.settle()
        return session.to_json()

    async def exec_resize(self, exec_id: str, h: int, w: int) -> None:
        await execs.find(self._core, exec_id).resize(h, w)

    async def exec_explain(self, exec_id: str) -> Explanation:
        """Ask for the steps of a session's start; returns at once, so that the client can start it."""
        return Explanation(execs.find(self._core, exec_id))

    async def explain(self, ref: str) -> Explanation:
        """Ask for the steps of the next start; returns at once, so that the client can start the container."""
        return Explanation(self._core.actor(self._core.registry.find(ref)))

    async def anatomy(self, ref: str) -> Json:
        return await anatomy.anatomy(self._core, ref)


class _ImageNames:
    """Names of images as a list shows them: what the user typed, while it still means the same image."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: dict[tuple[str, str], str] = {}

    def __call__(self, record: Record) -> str:
        key = (record.config.image, record.image_id)
        name = self._known.get(key)
        if name is None:
            name = self._known[key] = self._name(*key)
        return name

    def _name(self, typed: str, image_id: str) -> str:
        if typed == image_id or not image_id:
            return typed
        try:
            return typed if self._core.images.resolve(typed).id == image_id else image_id
        except EngineError:
            return image_id


def _ids_of_filter(core: Core, filters: Filters) -> set[str] | None:
    if not filters.get("id"):
        return None
    answer: set[str] = set()
    for prefix in filters["id"]:
        found = core.registry.matches(prefix)
        if len(found) == 1:
            answer.update(found)
    return answer


def _images_of_filter(core: Core, filters: Filters) -> set[str] | None:
    """Return the images of `ancestor`, and all that were made from them."""
    if not filters.get("ancestor"):
        return None
    answer: set[str] = set()
    for name in filters["ancestor"]:
        try:
            pending = [str(core.images.resolve(name).id)]
        except EngineError:
            continue
        while pending:
            image_id = pending.pop()
            if image_id not in answer:
                answer.add(image_id)
                pending.extend(core.images.children(image_id))
    return answer


def graph_data(core: Core, record: Record) -> dict[str, str]:
    """Return `GraphDriver.Data`; nothing for a container whose directory is gone."""
    try:
        active = core.store.snapshots.active(record.id)
    except EngineError:
        return {}
    return {
        "LowerDir": ":".join(active.lowerdirs),
        "MergedDir": f"{core.directory(record.id)}/merged",
        "UpperDir": active.upperdir,
        "WorkDir": active.workdir,
    }


async def container_size(core: Core, record: Record) -> tuple[int, int]:
    """Return the bytes that a container wrote, and these with its image's."""
    written = await blocking(remove.layer_usage, core, record)
    image = core.images.find(record.image_id) if record.image_id else None
    return written, written + (image.size if image else 0)


async def update(core: Core, reference: str, body: UpdateRequest) -> Names:
    """Change limits and restart policy; a running container feels it at once.

    Raises:
        Conflict, InvalidParameter: Docker's words; nothing has changed then.
    """
    record = core.registry.find(reference)
    body, warnings = check_resources(body, core.facts, update=True)
    if body.restart_policy is not None and body.restart_policy.name:
        check_restart_policy(body.restart_policy)
    async with core.locks.hold(record.id):
        record = core.current(record)
        try:
            host = update_resources(record.host, body)
        except Conflict as error:
            raise Conflict(f"Cannot update container {record.id}: {error}") from error
        if body.restart_policy is not None and body.restart_policy.name:
            if host.auto_remove and body.restart_policy.name != "no":
                raise InvalidParameter(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container"
                )
            host = structs.replace(host, restart_policy=body.restart_policy)
        if record.state.is_live and host != record.host:
            group = supervise.cgroup_of(core.live_monitor(record))
            try:
                await blocking(resources.update, group, oci_resources(host))
            except (ConfigError, OSError) as error:
                raise System(f"Cannot update container {record.id}: {error}")
        record = core.save(structs.replace(record, host=host))
        core.emit(record, "update")
    return warnings
