"""`logs`: the stored output of a container, and what is still coming.

Source: moby daemon/logs.go of 28.5.2.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from satsuma.base.aio import blocking
from satsuma.base.clock import format_rfc3339nano_fixed
from satsuma.base.errors import Conflict, InvalidParameter
from satsuma.container import Status
from satsuma.engine.actors import Actor
from satsuma.engine.core import Core
from satsuma.monitor.logfollow import follow as follow_log
from satsuma.monitor.logread import Entry, LogReader

STDOUT, STDERR = 1, 2


@dataclass(frozen=True, slots=True)
class LogStream:
    """Lines as (stdcopy stream, bytes); with *tty* the client gets them raw."""

    tty: bool
    frames: AsyncIterator[tuple[int, bytes]]


async def logs(
    core: Core,
    reference: str,
    *,
    stdout: bool,
    stderr: bool,
    follow: bool,
    since_ns: int | None,
    until_ns: int | None,
    timestamps: bool,
    tail: int | None,
    details: bool,
) -> LogStream:
    """Open the log of a container.

    Raises:
        NotFound; Unsupported: a driver that keeps nothing; Conflict: the container is being removed.
    """
    if not stdout and not stderr:
        raise InvalidParameter("You must choose at least one stream")
    record = core.registry.find(reference)
    if record.state.status in (Status.REMOVING, Status.DEAD):
        raise Conflict("can not get logs from container which is dead or marked for removal")
    reader = await blocking(
        lambda: LogReader(
            record.host.log_config.type,
            core.log_file(record),
            tail=tail,
            since_ns=since_ns or 0,
            until_ns=until_ns or 0,
        )
    )
    wanted = {name for name, on in (("stdout", stdout), ("stderr", stderr)) if on}
    actor = core.actor(record) if follow and record.state.is_live else None
    frames = _frames(reader, actor, wanted, timestamps=timestamps, details=details)
    return LogStream(record.config.tty, frames)


async def _frames(
    reader: LogReader, actor: Actor | None, wanted: set[str], *, timestamps: bool, details: bool
) -> AsyncIterator[tuple[int, bytes]]:
    watcher: asyncio.Task[Any] | None = None
    if actor is not None:
        watcher = asyncio.get_running_loop().create_task(actor.exited.wait(), name="logs:exit")
    batches = follow_log(reader, watcher)
    try:
        async for batch in batches:
            for entry in batch:
                if entry.stream in wanted:
                    yield (
                        STDERR if entry.stream == "stderr" else STDOUT,
                        format_entry(entry, timestamps=timestamps, details=details),
                    )
    finally:
        if watcher is not None:
            watcher.cancel()
        with contextlib.suppress(RuntimeError):
            await batches.aclose()  # type: ignore[attr-defined]
        reader.close()


def format_entry(entry: Entry, *, timestamps: bool, details: bool) -> bytes:
    """Return one line as the client gets it: `time details line`."""
    line: bytes = entry.line
    if details:
        pairs = ",".join(f"{key}={value}" for key, value in sorted(entry.attrs.items()))
        line = pairs.encode() + b" " + line
    if timestamps:
        line = format_rfc3339nano_fixed(entry.time_ns).encode() + b" " + line
    return line
