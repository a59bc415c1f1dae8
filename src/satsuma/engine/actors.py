"""What the engine holds in memory about one container: its monitor, its tasks, who waits, who is attached.

A `Record` is what is true on disk; an `Actor` is what only a running daemon needs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from satsuma.container import Record
from satsuma.monitor.client import AttachSpec, Monitor


class Waiter:
    """One client's wait for a container; `result` answers with WaitResponse."""

    def __init__(self, actor: Actor, condition: str) -> None:
        self.condition = condition
        self._actor = actor
        self._future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def result(self) -> dict[str, Any]:
        """Wait for the condition: `{"StatusCode": n}`, with `Error` where there was one."""
        return await asyncio.shield(self._future)

    def answer(self, status_code: int, error: str) -> None:
        if not self._future.done():
            body: dict[str, Any] = {"StatusCode": status_code}
            if error:
                body["Error"] = {"Message": error}
            self._future.set_result(body)

    def close(self) -> None:
        """Forget a waiter whose client has left."""
        self._actor.waiters.discard(self)
        self._future.cancel()


@dataclass(slots=True)
class Actor:
    """The live side of a container."""

    container_id: str
    monitor: Monitor | None = None
    leaving: Monitor | None = None
    """The monitor of a container that has ended, while it removes the rest of it."""
    pending: list[AttachSpec] = field(default_factory=list)
    """Clients that attached before the start; their descriptors are ours until they are handed over."""
    on_handover: list[Callable[[], None]] = field(default_factory=list)
    """Stop watching for the hang-up of the clients in `pending`."""
    waiters: set[Waiter] = field(default_factory=set)
    explanations: set[Any] = field(default_factory=set)
    """Who wants to know how the next start goes (`engine.explain`)."""
    supervisor: asyncio.Task[None] | None = None
    health: asyncio.Task[None] | None = None
    restart: asyncio.Task[None] | None = None
    restart_pause: float = 0.0
    execs: dict[str, Any] = field(default_factory=dict)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no init runs: the followers of its log drain and end."""
    removing: bool = False
    manual_restart: bool = False
    """A `restart` is between stop and start: the exit must not remove or restart the container."""
    volumes: set[str] = field(default_factory=set)
    """Volumes that are attached for the running container."""

    def wait(self, condition: str) -> Waiter:
        waiter = Waiter(self, condition)
        self.waiters.add(waiter)
        return waiter

    def notify(self, status_code: int, error: str, *, removed: bool = False) -> None:
        """Answer who waits for an exit; with *removed* also who waits for the removal."""
        for waiter in [w for w in self.waiters if removed or w.condition != "removed"]:
            self.waiters.discard(waiter)
            waiter.answer(status_code, error)
        if removed:
            for explanation in self.explanations:
                explanation.answer({"Steps": [], "Error": "the container was removed"})

    async def departed(self) -> None:
        """Wait until nothing is left of the last run: cgroup and monitor of a container exist once."""
        if self.leaving is not None:
            monitor = self.leaving
            await monitor.wait()
            monitor.close()
            if self.leaving is monitor:
                self.leaving = None

    def take_pending(self) -> list[AttachSpec]:
        """Return the waiting clients; the caller closes their descriptors after the hand-over."""
        for stop_watching in self.on_handover:
            stop_watching()
        self.on_handover.clear()
        taken, self.pending = self.pending, []
        return taken

    def drop_pending(self) -> None:
        close_attaches(self.take_pending())


def close_attaches(attaches: list[AttachSpec]) -> None:
    """Close our copies of clients' sockets."""
    for attach in attaches:
        os.close(attach.fd)


class Actors:
    """One actor per container, made on demand."""

    def __init__(self) -> None:
        self._actors: dict[str, Actor] = {}

    def of(self, record: Record) -> Actor:
        actor = self._actors.get(record.id)
        if actor is None:
            actor = self._actors[record.id] = Actor(record.id)
            actor.exited.set()
        return actor

    def get(self, container_id: str) -> Actor | None:
        return self._actors.get(container_id)

    def forget(self, container_id: str) -> None:
        self._actors.pop(container_id, None)

    def __iter__(self) -> Iterator[Actor]:
        return iter(list(self._actors.values()))
