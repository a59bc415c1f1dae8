"""Trash: directories that nobody needs any more, removed when nobody waits.

Owns `trash/` and the thread that empties it, which also does other work that nobody waits for (`later`).  Must
not know what a directory was, except for its kind and key, from which a start-up can tell that its row came back
after a power failure.

Throwing away is one rename(2), so it is atomic and as fast as the directory is big.  Whatever is in `trash/`
after a crash is removed by the next start.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import threading
from collections.abc import Callable

from satsuma.base.failpoints import failpoint
from satsuma.linux.root import remove_tree_at

_log = logging.getLogger(__name__)


class Trash:
    """The directory `trash/` and its collector; `throw` may be called from any thread."""

    def __init__(self, directory: str, *, before_removal: Callable[[], None]) -> None:
        """Args: before_removal: makes the deletion of rows durable; called before anything is destroyed."""
        self.directory = directory
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._before_removal = before_removal
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._empty_lock = threading.Lock()

    def throw(self, path: str, kind: str, key: str) -> bool:
        """Move the directory *path* away for removal; False when there is none."""
        name = f"{kind}.{key}.{os.urandom(4).hex()}"
        try:
            os.rename(path, f"{self.directory}/{name}")
        except FileNotFoundError:
            return False
        failpoint("store.trash.renamed")
        self._queue.put(self.empty)
        return True

    def later(self, work: Callable[[], object]) -> None:
        """Call *work* in the collector's thread; never, if no collector runs."""
        if self._thread is not None:
            self._queue.put(work)

    def entries(self) -> list[tuple[str, str, str]]:
        """Return (name, kind, key) of what waits for removal."""
        found = []
        for name in os.listdir(self.directory):
            kind, _, rest = name.partition(".")
            found.append((name, kind, rest.rpartition(".")[0]))
        return found

    def restore(self, name: str, path: str) -> None:
        """Move an entry back to *path*: its row is still there.  Order: before the collector starts."""
        os.rename(f"{self.directory}/{name}", path)

    def start(self) -> None:
        """Start the collector, which begins with what an earlier process left."""
        if self._thread is None:
            self._queue.put(self.empty)
            self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the collector after the directory it is working on."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            # Removal of big trees must not slow down what a client waits for.  A thread has its own nice value.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception:
                # The thread must go on: what was not done now is done by the next start.
                _log.exception("work in the background failed")

    def empty(self) -> int:
        """Remove everything that is in the trash now; return how many entries could not be removed."""
        with self._empty_lock:
            names = os.listdir(self.directory)
            if not names:
                return 0
            self._before_removal()
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return sum(not self._remove(fd, os.fsencode(name)) for name in names)
            finally:
                os.close(fd)

    def _remove(self, fd: int, name: bytes) -> bool:
        failpoint("store.trash.remove")
        try:
            remove_tree_at(fd, name)
        except FileNotFoundError:
            return True
        except OSError as error:
            # EBUSY: somebody mounted something inside.  It is not ours to look into, so it stays for next time.
            level = logging.WARNING if error.errno == errno.EBUSY else logging.ERROR
            _log.log(level, "cannot remove %s: %s", name.decode(errors="replace"), error)
            return False
        return True
