"""The services of one engine in one place, and the few operations on records that every use case shares.

Use cases (create, start, supervise, …) are modules of functions over a `Core`; the facade classes in
`engine.containers` and its siblings only dispatch to them.

Locks: `locks.hold(container id)` serialises state changes of one container; it is held for state, never while
bytes stream.  Two containers' locks are never held at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import structs

from satsuma.base.aio import KeyedLock, spawn
from satsuma.base.errors import Conflict
from satsuma.container import Event, HostFacts, Record, Registry, State, next_status
from satsuma.engine.actors import Actor, Actors
from satsuma.engine.config import EngineConfig
from satsuma.engine.events import Bus
from satsuma.image import ImageService
from satsuma.monitor.client import Launcher, Monitor
from satsuma.network import NetworkService
from satsuma.store import Store
from satsuma.volume import VolumeService

_log = logging.getLogger(__name__)


class Core:
    """Services and shared state; made by `Engine.open`."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        store: Store,
        images: ImageService,
        volumes: VolumeService,
        facts: HostFacts,
    ) -> None:
        self.config = config
        self.store = store
        self.images = images
        self.volumes = volumes
        self.facts = facts
        self.registry = Registry(store.db.collection("containers"))
        self.bus = Bus()
        self.actors = Actors()
        self.locks = KeyedLock()
        self.closing = False
        self.networks: NetworkService
        self.launcher: Launcher
        self.engine_id = ""
        self.started_ns = 0
        self.available_caps: tuple[str, ...] = ()
        self._background: set[asyncio.Task[Any]] = set()

    # Paths

    def directory(self, container_id: str) -> str:
        """Return the container's own directory on the host."""
        return f"{self.config.data_root}/containers/{container_id}"

    def exit_path(self, container_id: str) -> str:
        """Return where the monitor writes the exit record."""
        return f"{self.directory(container_id)}/exit.json"

    def log_file(self, record: Record) -> str:
        """Return the file that the log driver writes, "" for a driver without one."""
        directory = self.directory(record.id)
        return {
            "json-file": f"{directory}/{record.id}-json.log",
            "local": f"{directory}/local-logs/container.log",
        }.get(record.host.log_config.type, "")

    # Records

    def save(self, record: Record) -> Record:
        """Store a record and return it; a build's own container lives in memory only."""
        if record.hidden:
            self.registry.note(record)
        else:
            self.registry.save(record)
        return record

    def note_fact(self, record: Record) -> Record:
        """Keep a record of what has happened already; a full disk does not undo it."""
        if record.hidden:
            self.registry.note(record)
        else:
            self.registry.state_fact(record)
        return record

    def change(self, record: Record, **state: Any) -> Record:
        """Store *record* with some fields of its state replaced."""
        return self.note_fact(structs.replace(record, state=structs.replace(record.state, **state)))

    def advance(self, record: Record, event: Event, *, name: str = "") -> State:
        """Return the state after *event*, without storing it.

        Raises:
            Conflict, NotModified, System: not possible now.
        """
        status = next_status(record.state.status, event, container_id=record.id, name=name)
        return structs.replace(record.state, status=status)

    def current(self, record: Record) -> Record:
        """Return the newest version of a record; for use after an await.

        Raises:
            Conflict: it was removed meanwhile.
        """
        found = self.registry.get(record.id)
        if found is None:
            raise Conflict(f"removal of container {record.id} is already in progress")
        return found

    def live_monitor(self, record: Record, *, name: str = "") -> Monitor:
        """Return the monitor of a running container.

        Raises:
            Conflict: `container x is not running`.
        """
        actor = self.actors.get(record.id)
        if actor is None or actor.monitor is None or not record.state.is_live:
            raise Conflict(f"container {name or record.id} is not running")
        return actor.monitor

    def actor(self, record: Record) -> Actor:
        return self.actors.of(record)

    # Events

    def emit(self, record: Record, action: str, **attributes: str) -> None:
        """Publish an event of a container, with Docker's attributes."""
        if record.hidden:
            return
        labels = record.config.labels or {}
        self.bus.publish(
            "container",
            action,
            record.id,
            labels | {"image": record.config.image, "name": record.name} | attributes,
        )

    # Work that nobody waits for

    def background(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something that no client waits for; `drain` waits for it when the engine closes."""
        task = spawn(name, coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def drain(self, timeout: float) -> None:
        """Wait for background work to end, at most *timeout* seconds."""
        if self._background:
            await asyncio.wait(set(self._background), timeout=timeout)


def write_text(path: str, text: str, mode: int = 0o644) -> None:
    """Write a file of ours in place, so that a bind mount of it shows the change; exactly *mode*.

    Not durable: it is written again at the next start of its container.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.write(fd, text.encode())
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def quietly(what: str, action: Callable[[], object]) -> None:
    """Run one step of a clean-up; its failure is logged and does not stop the next step."""
    try:
        action()
    except Exception:
        _log.exception("clean-up: %s", what)
