"""Following a log in the daemon: wake up when the file changes, end when the container has ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from satsuma.base.aio import blocking
from satsuma.linux import inotify
from satsuma.monitor.logread import Entry, LogReader

_EVENTS = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO


class _Watch:
    """Turns changes in the log's directory into an asyncio event."""

    def __init__(self, path: str) -> None:
        self._fd = inotify.init()
        self.changed = asyncio.Event()
        inotify.add_watch(self._fd, os.path.dirname(path) or ".", _EVENTS)
        asyncio.get_running_loop().add_reader(self._fd, self._ready)

    def _ready(self) -> None:
        inotify.read(self._fd)
        self.changed.set()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


async def follow(reader: LogReader, ended: asyncio.Future[Any] | None) -> AsyncIterator[list[Entry]]:
    """Yield batches of records as they come.

    Args:
        reader: stays the caller's to close.
        ended: done when the container has ended and its log is complete; None reads only what is there.
    """
    watch = _Watch(reader.path) if ended is not None and not ended.done() else None

    def wake(_: object) -> None:
        if watch is not None:
            watch.changed.set()

    if ended is not None:
        ended.add_done_callback(wake)
    try:
        while True:
            # Looked at before reading: what was written before the end is read in this round.
            over = watch is None or (ended is not None and ended.done())
            if watch is not None:
                watch.changed.clear()
            while batch := await blocking(reader.read):
                yield batch
            if over or reader.done:
                return
            if watch is not None:
                await watch.changed.wait()
    finally:
        if ended is not None:
            ended.remove_done_callback(wake)
        if watch is not None:
            watch.close()
