"""`--explain`: the next start of a container or an exec, step by step, for the clients that have asked before.

What the engine itself does is told by `engine.trace`; what monitor and runtime do comes with the monitor's answer.
A start that nobody asks about pays for none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

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


EXEC_WORDS = {
    "plan": ("process", "the container's own configuration, with what the request overrides"),
    "sent": ("send", "the process and the client's connection go to the container's monitor"),
    "wake": ("wake", "a helper, which the container cannot see, was born ahead: it gets its process now"),
    **{step: _WORDS[step] for step in ("answered",)},
    **explain.EXEC_WORDS,
}


class Subject(Protocol):
    """Whose start is explained: a container's live side, or a session of exec."""

    explanations: set[Any]


class Explanation:
    """One client's question."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        subject.explanations.add(self)

    async def result(self) -> Json:
        """Wait for the start: `{"Steps": […]}` as `satsuma.wire.steps` tells, with `Error` when it failed."""
        return await asyncio.shield(self._future)

    def answer(self, document: Json) -> None:
        if not self._future.done():
            self._future.set_result(document)

    def close(self) -> None:
        """Forget a client that has left."""
        self._subject.explanations.discard(self)
        self._future.cancel()


def answer(
    subject: Subject,
    trace: Trace,
    rows: Sequence[Sequence[Any]],
    error: str = "",
    words: Mapping[str, tuple[str, str]] = _WORDS,
) -> None:
    """Answer everybody who has asked about this start.

    Args:
        rows: of `runtime.trace`.
        error: why it failed.
        words: name and reason of the engine's steps.
    """
    asked, subject.explanations = subject.explanations, set()
    if not asked:
        return
    document: Json = {"Steps": steps(trace.spans(), rows, words)}
    if error:
        document["Error"] = error
    for explanation in asked:
        explanation.answer(document)


def steps(
    spans: Iterable[tuple[str, int, int]],
    rows: Sequence[Sequence[Any]],
    words: Mapping[str, tuple[str, str]] = _WORDS,
) -> list[Json]:
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
    return explain.document(mixed, words)
