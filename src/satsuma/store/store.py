"""The store: database, content, layers, snapshots and trash of one data root, opened and recovered together.

    data-root/
      lock          flock(2): one engine per data root
      state.db      the database
      content/      blobs
      layers/       layer directories
      containers/   writable directories
      init/ empty/  shared read-only directories
      trash/        what the collector removes

Lock order: `Layers.lock` before the database's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os

from satsuma.base.errors import Unavailable
from satsuma.store.content import ContentStore
from satsuma.store.db import Database
from satsuma.store.layers import GENERATED, Layer, Layers
from satsuma.store.snapshots import Snapshots
from satsuma.store.trash import Trash

_log = logging.getLogger(__name__)


class Store:
    """Everything durable of an engine; its parts are safe to use from any thread."""

    db: Database
    content: ContentStore
    layers: Layers
    trash: Trash
    snapshots: Snapshots

    def __init__(self, data_root: str) -> None:
        self.data_root = data_root
        self.lost: set[str] = set()
        """Chain ids that `recover` dropped; images that need them were never promised to survive."""
        self._lock_fd = _lock(data_root)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._lock_fd)
            self.db = Database.open(f"{data_root}/state.db")
            undo.callback(self.db.close)
            self.content = ContentStore(f"{data_root}/content")
            self.trash = Trash(f"{data_root}/trash", before_removal=self.db.sync)
            self.layers = Layers(self.db, data_root)
            self.snapshots = Snapshots(data_root, self.layers, self.trash)
            undo.pop_all()

    @classmethod
    def open(cls, data_root: str, *, collect: bool = True) -> Store:
        """Open the store in *data_root*, make it if it is new, and clear away what a crash left.

        Args:
            collect: run the collector in the background; without it `store.trash.empty()` does its work.
        Raises:
            Unavailable: another engine has it open.
            DataLoss: the database is damaged.
        """
        data_root = os.path.abspath(data_root)
        os.makedirs(data_root, mode=0o710, exist_ok=True)
        store = cls(data_root)
        try:
            store.recover()
        except BaseException:
            store.close()
            raise
        if collect:
            store.trash.start()
        return store

    def close(self) -> None:
        """Stop the collector and close the database."""
        self.trash.stop()
        self.db.close()
        os.close(self._lock_fd)

    def recover(self) -> None:
        """Bring directories into line with the rows.  Order: before anything else uses the store."""
        self.content.clean()
        for layer in self.layers.drop_unsettled():
            _log.warning("layer %s was not on disk completely when the machine stopped", layer.chain_id)
            self.lost.add(layer.chain_id)
        self._restore()
        for path, kind, key in self.garbage():
            self.trash.throw(path, kind, key)

    def _restore(self) -> None:
        """Take back what was thrown away although its row survived (the deletion was not durable)."""
        containers = self.db.collection("containers").ids()
        for name, kind, key in self.trash.entries():
            if kind == "container" and key in containers:
                path = self.snapshots.directory(key)
            elif kind == "layer" and self.layers.find(f"sha256:{key}") is not None:
                path = os.path.dirname(self.snapshots.layer_dir(f"sha256:{key}"))
            else:
                continue
            if not os.path.exists(path):
                self.trash.restore(name, path)

    def garbage(self) -> list[tuple[str, str, str]]:
        """Return (path, kind, key) of directories that belong to no row.

        A live engine makes directories before rows: ask only when nothing is being made.
        """
        found = [(f"{self.data_root}/layers/new/{n}", "layer", "new") for n in self._names("layers/new")]
        for name in self._names("layers"):
            if name != "new" and self.layers.find(f"sha256:{name}") is None:
                found.append((f"{self.data_root}/layers/{name}", "layer", name))
        rows = self.db.collection("containers").ids()
        for name in self._names("containers"):
            if name not in rows:
                found.append((f"{self.data_root}/containers/{name}", "container", name))
        for name in self._names("init"):
            if name != "diff":
                found.append((f"{self.data_root}/init/{name}", "init", name))
        return found

    def _names(self, directory: str) -> list[str]:
        return sorted(os.listdir(f"{self.data_root}/{directory}"))

    def sweep(self, roots: set[str]) -> list[Layer]:
        """Remove the layers that nobody needs, and the blobs that only they needed; return them, top first.

        Args:
            roots: chain ids that images need.  Containers, leases and pins are known here.
        Crash: rows first; directories and blobs without a row are cleared by `recover` and `sweep_blobs`.
        """
        with self.layers.lock:
            doomed = self.layers.unused(roots | self.snapshots.tops())
            self.layers.forget(doomed)
            for layer in doomed:
                self.snapshots.remove_layer(layer.chain_id)
            if any(layer.blob != GENERATED for layer in doomed):
                self.sweep_blobs({layer.blob for layer in doomed} - {GENERATED})
        return doomed

    def sweep_blobs(self, candidates: set[str] | None = None) -> int:
        """Remove blobs that no layer needs, of *candidates* or of all; return the bytes freed."""
        with self.layers.lock:
            needed = self.layers.needed_blobs()
            if candidates is None:
                candidates = {digest for digest, _ in self.content.walk()}
            freed = 0
            for digest in candidates - needed:
                if self.content.has(digest):
                    freed += self.content.size(digest)
                    self.content.delete(digest)
        return freed


def _lock(data_root: str) -> int:
    fd = os.open(f"{data_root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Unavailable(f"data root {data_root} is in use by another engine") from None
    return fd
