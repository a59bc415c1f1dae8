"""`--explain`: the next start of a container, step by step, for the clients that have asked for it before.

What the engine itself does is told by `engine.trace`; what monitor and runtime do comes with the monitor's answer.
A start that nobody asks about pays for none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from satsuma.engine.actors import Actor
from satsuma.engine.trace import Trace
from satsuma.runtime import explain

Json = dict[str, Any]

ENGINE = "engine"
# step of the engine's trace: (name, reason)
_WORDS = {
    "network": (
        "network",
        "a namespace with a veth on the bridge from the pool, an address, the published ports",
    ),
    "plan": (
        "config.json",
        "files, volumes and the request become an OCI configuration; the filter is compiled",
    ),
    "sent": ("send", "the configuration and its descriptors go to a monitor that was forked ahead"),
    "open": (
        "open",
        "the monitor opens log file, control socket and pipes, and takes over the waiting clients",
    ),
    "answered": (
        "receive",
        "the monitor has seen the program start; from now on it owns output and exit status",
    ),
}


class Explanation:
    """One client's question."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        actor.explanations.add(self)

    async def result(self) -> Json:
        """Wait for the start: `{"Steps": […]}` as `satsuma.wire.steps` tells, with `Error` when it failed."""
        return await asyncio.shield(self._future)

    def answer(self, document: Json) -> None:
        if not self._future.done():
            self._future.set_result(document)

    def close(self) -> None:
        """Forget a client that has left."""
        self._actor.explanations.discard(self)
        self._future.cancel()


def answer(actor: Actor, trace: Trace, rows: Sequence[Sequence[Any]], error: str = "") -> None:
    """Answer everybody who has asked about this start.

    Args:
        rows: of `runtime.trace`.
        error: why it failed.
    """
    asked, actor.explanations = actor.explanations, set()
    if not asked:
        return
    document: Json = {"Steps": steps(trace.spans(), rows)}
    if error:
        document["Error"] = error
    for explanation in asked:
        explanation.answer(document)


def steps(spans: Iterable[tuple[str, int, int]], rows: Sequence[Sequence[Any]]) -> list[Json]:
    """Return the document's steps: the engine's spans of time around the rows of the runtime."""
    first = min((row[3] for row in rows), default=0)
    last = max((row[3] + row[4] for row in rows), default=0)
    mixed = list(rows)
    for name, start, end in spans:
        # While the runtime works, the engine waits: only what lies before and after is its own.
        if rows and start < first < end:
            mixed.append((ENGINE, "sent", [], start, first - start, ""))
            start = last
        if end > start and (not rows or not first < end <= last):
            mixed.append((ENGINE, name, [], start, end - start, ""))
    mixed.sort(key=lambda row: row[3])
    return explain.document(mixed, _WORDS)
