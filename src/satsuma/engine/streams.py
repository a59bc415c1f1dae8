"""Blocking iterators as asynchronous ones: a few pieces per hop to a thread, and closed when nobody reads on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from satsuma.base.aio import blocking

T = TypeVar("T")

BATCH_BYTES = 256 * 1024


async def pieces(make: Callable[[], Iterator[bytes]]) -> AsyncIterator[bytes]:
    """Yield the bytes of a blocking iterator that *make* returns; both run in threads.

    The iterator is closed at the end, also when the reader leaves early.
    """
    iterator = await blocking(make)
    try:
        while chunk := await blocking(_take, iterator):
            yield chunk
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            await blocking(close)


def _take(iterator: Iterator[bytes]) -> bytes:
    """Join some pieces, so that small ones do not cost a thread hop each."""
    found: list[bytes] = []
    size = 0
    for piece in iterator:
        found.append(piece)
        size += len(piece)
        if size >= BATCH_BYTES:
            break
    return b"".join(found)


async def values(make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """Yield the values of a blocking iterator one by one."""
    iterator = await blocking(make)
    try:
        while batch := await blocking(lambda: list(itertools.islice(iterator, 1))):
            yield batch[0]
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            await blocking(close)


async def progress(work: Callable[[Callable[[Any], None]], object]) -> AsyncIterator[Any]:
    """Run blocking *work* in a thread; yield what it reports, then raise what it raises.

    When the reader leaves early the work goes on to its end; its reports are dropped.
    """
    loop = asyncio.get_running_loop()
    reports: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def report(item: Any) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(reports.put_nowait, ("item", item))

    def run() -> None:
        try:
            outcome: tuple[str, Any] = ("end", work(report))
        except BaseException as error:
            outcome = ("error", error)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(reports.put_nowait, outcome)

    # A thread of its own: such work takes as long as its client, and must not fill the pool.
    threading.Thread(target=run, name="progress", daemon=True).start()
    while True:
        kind, item = await reports.get()
        if kind == "item":
            yield item
        elif kind == "error":
            raise item
        else:
            return
