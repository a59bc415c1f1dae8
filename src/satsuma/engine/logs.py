"""`logs`: the stored output of a container, and what is still coming.

Source: moby daemon/logs.go of 28.5.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from satsuma.base.aio import blocking
from satsuma.base.clock import format_rfc3339nano_fixed, now_ns
from satsuma.base.errors import Conflict, InvalidParameter
from satsuma.container import Record, Status
from satsuma.engine.actors import Actor
from satsuma.engine.core import Core
from satsuma.monitor.logfollow import follow as follow_log
from satsuma.monitor.logread import Entry, LogReader

STDOUT, STDERR = 1, 2
SETTLE = 0.2
"""Seconds after a start for which a log is not complete enough to be read without following."""
QUIET_NS = 40_000_000
"""A log that was written to, and not for so long, has what a short command prints at once."""
LOOK = 0.005
_TICK_NS = 10_000_000
"""How far a file's time may be behind the clock: the kernel stamps files with the time of its last tick."""


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
    if not follow:
        await _settle(core, record)
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


async def _settle(core: Core, record: Record) -> None:
    """Let a container that was started a moment ago come to its first lines, or to its end.

    dockerd needs so long to answer a start that clients came to read the log right after it, and to expect all
    of what a short command has printed (docker-py's own tests do).
    """
    started_ns = record.state.started_ns
    exited = core.actor(record).exited
    path = core.log_file(record)
    while record.state.is_live and not exited.is_set() and not _is_quiet(path, started_ns):
        if now_ns() - started_ns > SETTLE * 1e9:
            return
        await asyncio.sleep(LOOK)


def _is_quiet(path: str, started_ns: int) -> bool:
    """Tell whether something was written since the start, and nothing in the last moment."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    written_ns = status.st_mtime_ns
    return status.st_size > 0 and written_ns > started_ns - _TICK_NS and now_ns() - written_ns > QUIET_NS


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
