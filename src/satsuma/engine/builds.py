"""The face of builds towards the API, and RUN steps as containers.

Source: moby builder/dockerfile/{containerbackend,internals}.go of 28.5.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

from msgspec import structs

from satsuma.base.clock import now_ns
from satsuma.base.errors import EngineError, InvalidParameter, Unsupported
from satsuma.build import Builder, BuildOptions, RunStep, StepOutput
from satsuma.container import NetworkState, Record, Security, Status
from satsuma.container.mounts import MountPoint
from satsuma.engine import endpoints, start
from satsuma.engine.core import Core
from satsuma.engine.events import Filters
from satsuma.monitor.client import AttachSpec
from satsuma.runtime import default_spec
from satsuma.spec.decode import decode_json
from satsuma.spec.docker import (
    ContainerConfig,
    EndpointSettings,
    HostConfig,
    LogConfig,
    Mount,
    RestartPolicy,
    TmpfsOptions,
    Ulimit,
)
from satsuma.wire import stdcopy

Json = dict[str, Any]


class Builds:
    """Operations of the builder."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._builder = Builder(core.store, core.images, Steps(core))

    async def build(self, options: BuildOptions, context: BinaryIO | None) -> AsyncIterator[Json]:
        """Build an image; yields the objects of Docker's classic stream."""
        async for item in self._builder.build(options, context):
            yield item

    async def prune(
        self,
        *,
        all: bool = False,
        filters: Filters | None = None,
        reserved_space: int = 0,
        max_used_space: int = 0,
        min_free_space: int = 0,
    ) -> Json:
        """Forget the build cache."""
        if reserved_space or max_used_space or min_free_space:
            raise Unsupported("build prune with a limit of space is not supported by this engine yet")
        unknown = set(filters or {}) - {
            "until",
            "id",
            "parent",
            "type",
            "description",
            "inuse",
            "shared",
            "private",
            "label",
        }
        if unknown:
            raise InvalidParameter(f"invalid filter '{sorted(unknown)[0]}'")
        forgotten, freed = await self._builder.prune()
        self._core.bus.publish("builder", "prune", "", {"reclaimed": str(freed)})
        return {"CachesDeleted": forgotten or None, "SpaceReclaimed": freed}


class Steps:
    """Runs RUN steps: containers that are in no list, whose output goes to the build's stream."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def run(self, step: RunStep, output: StepOutput) -> int:
        """Run *step* to its end and return its exit code; cancellation kills it.

        Raises:
            EngineError: it did not start.
        """
        core = self._core
        record = step_record(core, step)
        actor = core.actor(record)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        actor.pending.append(
            AttachSpec(fd=os.dup(theirs.fileno()), stdin=False, framed=True, detach_keys=b"")
        )
        theirs.close()
        core.registry.note(record)
        try:
            async with core.locks.hold(record.id):
                await start.run(core, record)
            waiter = actor.wait("not-running")
            await _copy(ours, output)
            result = await waiter.result()
            return int(result["StatusCode"])
        finally:
            ours.close()
            await asyncio.shield(self._clean(record))

    def keep(self, step: RunStep, code: int) -> None:
        """Make an ended step an ordinary stopped container, without what only the build had."""
        core = self._core
        record = step_record(core, step)
        chain = core.images.resolve(step.image_id).chain_ids if step.image_id else []
        state = structs.replace(
            record.state,
            status=Status.EXITED,
            exit_code=code,
            started_ns=record.created_ns,
            finished_ns=now_ns(),
        )
        name = core.registry.reserve("", record.id)
        record = core.save(
            structs.replace(record, name=name, hidden=False, mounts=[], chain=list(chain), state=state)
        )
        core.emit(record, "create")

    async def _clean(self, record: Record) -> None:
        core = self._core
        actor = core.actor(record)
        if actor.monitor is not None:
            waiter = actor.wait("not-running")
            with contextlib.suppress(EngineError):
                await actor.monitor.kill_all()
            await waiter.result()
        actor.drop_pending()
        core.registry.remove(record.id)
        core.actors.forget(record.id)


async def _copy(sock: socket.socket, output: StepOutput) -> None:
    loop = asyncio.get_running_loop()
    decoder = stdcopy.Decoder()
    while data := await loop.sock_recv(sock, 65536):
        for stream, payload in decoder.feed(data):
            output(stream, payload)
        await output.drain()


def step_record(core: Core, step: RunStep) -> Record:
    """Return the record of a step's container."""

    config = decode_json(json.dumps(step.config).encode(), ContainerConfig)
    config = structs.replace(
        config,
        hostname=config.hostname or step.id[:12],
        env=list(step.env),
        user=step.user,
        working_dir=step.cwd,
        cmd=list(step.args),
        entrypoint=None,
        healthcheck=None,
    )
    resources = decode_json(json.dumps(step.resources).encode(), HostConfig)
    host = structs.replace(
        resources,
        network_mode=step.network_mode,
        shm_size=step.shm_size or core.config.default_shm_size,
        ulimits=[Ulimit(name=limit.name, hard=limit.hard, soft=limit.soft) for limit in step.ulimits] or None,
        extra_hosts=list(step.extra_hosts) or None,
        log_config=LogConfig(type="none", config={}),
        restart_policy=RestartPolicy(name="no"),
        ipc_mode="private",
        cgroupns_mode=core.config.default_cgroupns_mode,
        masked_paths=default_spec.masked_paths(),
        readonly_paths=list(default_spec.READONLY_PATHS),
    )
    asked: dict[str, Json] = {}
    if not step.network_mode.startswith("container:"):
        asked = {step.network_mode: endpoints.settings_json(EndpointSettings())}
    return Record(
        id=step.id,
        name=f"build-{step.id[:12]}",
        created_ns=now_ns(),
        path=step.args[0],
        args=list(step.args[1:]),
        config=config,
        host=host,
        image_id=step.image_id,
        security=Security(no_new_privileges=core.config.no_new_privileges),
        mounts=[_mount_point(mount) for mount in step.mounts],
        network=NetworkState(asked=asked, endpoints=asked),
        hidden=True,
    )


def _mount_point(mount: Any) -> MountPoint:
    if mount.type == "tmpfs":
        return MountPoint(
            type="tmpfs",
            destination=mount.target,
            rw=not mount.readonly,
            spec=Mount(type="tmpfs", target=mount.target, tmpfs_options=TmpfsOptions(size_bytes=mount.size)),
        )
    return MountPoint(
        type="bind",
        destination=mount.target,
        source=mount.source,
        rw=not mount.readonly,
        propagation="rprivate",
        spec=Mount(type="bind", source=mount.source, target=mount.target, read_only=mount.readonly),
    )
