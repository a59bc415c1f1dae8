"""The registry of layers: which chain ids exist, what they stand on, and who needs them.

Owns the collection `layers` and the leases.  Must not know what an image is: callers bring the roots.

A layer's row follows its directory (see `snapshots`).  A fresh layer is pinned in memory until somebody with a
row of its own needs it: an image, a container (its `lower` link) or a lease.  `sweep` removes the rest.

The content of a fresh layer may still be in the page cache only.  Its row says so with the id of this boot;
`settle` syncs the file system and clears the mark, and `Layers.open` drops what another boot left unsettled.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

import msgspec

from satsuma.base.clock import now_ns
from satsuma.base.errors import NotFound, System
from satsuma.base.ids import ChainId, Digest
from satsuma.linux import syscalls
from satsuma.store.db import Collection, Database

GENERATED = "generated"
"""`Layer.blob` of a layer whose tar is written anew from its directory whenever it is needed."""


class Layer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One layer of a stack."""

    chain_id: ChainId
    diff_id: Digest
    parent: ChainId | None = None
    size: int
    """Bytes of files and links, a hard-linked file once: what Docker shows as the layer's size."""
    tar_size: int
    """Length of the uncompressed tar, whose digest is `diff_id`."""
    blob: str = GENERATED
    """Digest of the blob that holds the tar as it came, or `GENERATED`."""
    compression: str = ""
    """Of the blob: "" or a name of `satsuma.wire.compression`."""
    created_ns: int = 0
    boot: str = ""
    """Boot id of the kernel that may not yet have written it all to disk; empty when settled."""


def boot_id() -> str:
    """Return the identity of the running kernel's boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def syncfs(path: str) -> None:
    """syncfs(2) of the file system that holds *path*."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


class Layers:
    """Rows of layers, pins and leases; safe to use from any thread."""

    def __init__(self, database: Database, data_root: str) -> None:
        self._database = database
        self._rows: Collection = database.collection("layers")
        self._leases: Collection = database.collection("leases")
        self._data_root = data_root
        self._boot = boot_id()
        self.lock = threading.RLock()
        """Held while layers come into being or are swept, so that a sweep sees whole stacks."""
        self._pins: dict[ChainId, int] = {}
        self._blob_pins: dict[str, int] = {}
        self._known: dict[ChainId, Layer] = {}
        for row in self._rows.all():
            layer = _decode(row.doc)
            self._known[layer.chain_id] = layer

    def drop_unsettled(self) -> list[Layer]:
        """Forget layers that another boot may not have written completely, and what stands on them."""
        with self.lock:
            lost = {c for c, layer in self._known.items() if layer.boot and layer.boot != self._boot}
            while more := {c for c, v in self._known.items() if v.parent in lost and c not in lost}:
                lost |= more
            dropped = [self._known.pop(chain_id) for chain_id in lost]
            with self._database.transaction(durable=True):
                for layer in dropped:
                    self._rows.delete(layer.chain_id)
        return dropped

    def all(self) -> list[Layer]:
        """Return every layer."""
        with self.lock:
            return list(self._known.values())

    def find(self, chain_id: str) -> Layer | None:
        """Return a layer, or None."""
        return self._known.get(ChainId(chain_id))

    def get(self, chain_id: str) -> Layer:
        """Return a layer.

        Raises:
            NotFound: nobody made it.
        """
        layer = self.find(chain_id)
        if layer is None:
            raise NotFound(f"layer {chain_id}: not found")
        return layer

    def chain(self, top: str | None) -> list[ChainId]:
        """Return the stack that ends in *top*, bottom layer first."""
        chain: list[ChainId] = []
        while top:
            layer = self.get(top)
            chain.append(layer.chain_id)
            top = layer.parent
        return chain[::-1]

    def add(self, layer: Layer) -> Layer:
        """Register a layer whose directory is in place, and pin it."""
        with self.lock:
            self.pin([layer.chain_id])
            known = self._known.get(layer.chain_id)
            if known is not None:
                return known
            layer = msgspec.structs.replace(layer, boot=self._boot, created_ns=layer.created_ns or now_ns())
            self._store(layer, durable=False)
            return layer

    def _store(self, layer: Layer, *, durable: bool) -> None:
        document = msgspec.msgpack.encode(layer)
        self._rows.put(layer.chain_id, document, created_ns=layer.created_ns, durable=durable)
        self._known[layer.chain_id] = layer

    def settle(self, chain: Iterable[ChainId]) -> None:
        """Make the content of these layers survive a power failure.

        One syncfs(2) instead of an fsync for each file: a stack has thousands of them.
        """
        with self.lock:
            fresh = [layer for c in chain if (layer := self._known.get(c)) is not None and layer.boot]
        if not fresh:
            return
        try:
            syncfs(self._data_root)
        except OSError as error:
            raise System(f"cannot write layers to disk: {error.strerror}") from error
        with self.lock, self._database.transaction():
            for layer in fresh:
                current = self._known.get(layer.chain_id)
                if current is not None:
                    self._store(msgspec.structs.replace(current, boot=""), durable=False)

    def pin(self, chain: Iterable[ChainId]) -> None:
        """Keep these layers, until as many calls of `unpin` with them, whoever else needs them."""
        with self.lock:
            for chain_id in chain:
                self._pins[chain_id] = self._pins.get(chain_id, 0) + 1

    def unpin(self, chain: Iterable[ChainId]) -> None:
        """Undo `pin` once; layers that are not pinned are left alone."""
        with self.lock:
            for chain_id in chain:
                count = self._pins.get(chain_id, 0)
                if count > 1:
                    self._pins[chain_id] = count - 1
                else:
                    self._pins.pop(chain_id, None)

    def pin_blob(self, digest: str) -> None:
        """Keep a blob whose layer is not registered yet, until `unpin_blob`."""
        with self.lock:
            self._blob_pins[digest] = self._blob_pins.get(digest, 0) + 1

    def unpin_blob(self, digest: str) -> None:
        """Undo `pin_blob` once."""
        with self.lock:
            count = self._blob_pins.pop(digest) - 1
            if count:
                self._blob_pins[digest] = count

    def needed_blobs(self) -> set[str]:
        """Return the blobs that layers, or layers to be, need."""
        with self.lock:
            return {layer.blob for layer in self._known.values()} | self._blob_pins.keys()

    def lease(self, owner: str, chain: Iterable[ChainId]) -> None:
        """Keep these layers in the name of *owner* until `release`, also over restarts.

        The owner's earlier lease is replaced; the fresh layers' pins are taken over by the lease.
        """
        with self.lock:
            chain = list(chain)
            self._leases.put(owner, msgspec.msgpack.encode(chain), created_ns=now_ns(), durable=False)
            for chain_id in chain:
                self._pins.pop(chain_id, None)

    def release(self, owner: str) -> bool:
        """End a lease; False when there was none."""
        return self._leases.delete(owner)

    def leased(self) -> dict[str, list[ChainId]]:
        """Return the layers that each owner leased."""
        return {row.id: msgspec.msgpack.decode(row.doc, type=list[ChainId]) for row in self._leases.all()}

    def unused(self, roots: Iterable[str]) -> list[Layer]:
        """Return the layers that neither *roots*, pins nor leases need, top layers first.

        Args:
            roots: chain ids; what they stand on is needed too.
        """
        with self.lock:
            needed: set[str] = set()
            marked = [*roots, *self._pins, *(c for chain in self.leased().values() for c in chain)]
            for root in marked:
                top: str | None = root
                while top and top not in needed and (layer := self._known.get(ChainId(top))) is not None:
                    needed.add(top)
                    top = layer.parent
            doomed = [layer for c, layer in self._known.items() if c not in needed]
            return sorted(doomed, key=lambda layer: -self._depth(layer))

    def _depth(self, layer: Layer) -> int:
        depth = 0
        while layer.parent and (below := self._known.get(layer.parent)) is not None:
            layer, depth = below, depth + 1
        return depth

    def forget(self, layers: Iterable[Layer]) -> None:
        """Remove rows.  Order: rows first, directories and blobs after."""
        with self.lock, self._database.transaction():
            for layer in layers:
                self._rows.delete(layer.chain_id)
                self._known.pop(layer.chain_id, None)


def _decode(doc: bytes) -> Layer:
    return msgspec.msgpack.decode(doc, type=Layer)
