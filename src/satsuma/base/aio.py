"""The daemon's few asyncio habits: named tasks, blocking calls in a bounded pool, locks by key.

Daemon only: importing this costs asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

POOL_SIZE = 16
"""Threads for blocking file work.  They hash, copy and fsync; more would queue in the kernel."""

_pool: ThreadPoolExecutor | None = None
_tasks: set[asyncio.Task[Any]] = set()


async def blocking(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run *fn* in the bounded pool and return its result; the event loop goes on.

    A cancelled caller does not stop the function: it finishes in its thread, and its result is dropped.
    """
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="blocking")
    return await asyncio.get_running_loop().run_in_executor(_pool, lambda: fn(*args, **kwargs))


def spawn(name: str, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start *coro* as a task that has a name, is kept alive, and whose failure is logged once."""
    task = asyncio.get_running_loop().create_task(coro, name=name)
    _tasks.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("task %s failed", task.get_name(), exc_info=error)


def describe_tasks() -> list[str]:
    """Return one line per task of ours, for the dump on SIGUSR1."""
    return sorted(f"{task.get_name()}: {task.get_coro()}" for task in _tasks)


class KeyedLock:
    """One lock per key, made on first use and dropped with its last user."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the lock of *key*; waiters are served in the order in which they came."""
        lock, users = self._locks.get(key, (None, 0))
        if lock is None:
            lock = asyncio.Lock()
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)
