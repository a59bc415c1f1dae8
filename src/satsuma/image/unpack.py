"""Layers from tar streams: unpack, verify, register.

Owns `apply_layer` and the way from a blob to a registered layer.  Must not know images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from satsuma.base.errors import InvalidParameter
from satsuma.base.failpoints import failpoint
from satsuma.base.ids import ChainId, Digest
from satsuma.image.extract import Extracted, Rules, extract
from satsuma.image.treetar import tar_tree
from satsuma.linux.root import Root
from satsuma.spec.image import chain_id
from satsuma.store import GENERATED, Layer, Store, Writer, tree_size
from satsuma.wire import tar
from satsuma.wire.compression import MAGIC_LENGTH, CompressionError, Decompressor, detect

Read = Callable[[int], bytes]


class HashingReader:
    """Passes a stream through and knows its digest and length."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        """Return at most *size* bytes."""
        data = self._read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    @property
    def digest(self) -> Digest:
        """Digest of what has passed."""
        return Digest("sha256:" + self._hash.hexdigest())


def apply_layer(root: Root, read: Read) -> Extracted:
    """Unpack a layer's uncompressed tar into an empty directory that overlayfs will use.

    Whiteouts become overlay's, `trusted.*` attributes are dropped, nothing is written outside of *root*.

    Raises:
        InvalidParameter: malformed or hostile; the directory is to be thrown away.
        System: the host's disk or limits.
    """
    reader = tar.Reader(read)
    result = extract(root, reader, Rules(layer=True))
    # What follows the end of the archive is part of the layer's digest.
    reader.drain()
    if result.replaced:
        return result._replace(size=tree_size(root))
    return result


def add_layer(store: Store, read: Read, parent: ChainId | None) -> Layer:
    """Unpack a plain tar stream that we wrote ourselves on top of *parent* and register it; the layer is pinned.

    Raises:
        InvalidParameter: malformed.
    """
    directory = store.snapshots.new_dir()
    try:
        hashing, size = _fill(directory, read, None)
        return register(store, directory, parent, hashing.digest, size, hashing.size)
    finally:
        store.snapshots.discard_dir(directory)


def _fill(directory: str, read: Read, diff_id: str | None) -> tuple[HashingReader, int]:
    """Unpack a layer and check its digest; return what the reader learnt, and the size of the content."""
    hashing = HashingReader(read)
    try:
        with Root.open_path(directory) as root:
            result = apply_layer(root, hashing.read)
    except CompressionError as error:
        raise InvalidParameter(str(error)) from error
    if diff_id is not None and hashing.digest != diff_id:
        raise InvalidParameter(f"invalid diffID for layer: expected {diff_id!r}, got {hashing.digest!r}")
    return hashing, result.size


def add_foreign_layer(
    store: Store,
    writer: Writer,
    parent: ChainId | None,
    *,
    diff_id: str | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Layer:
    """Register a layer that somebody else made, whose tar (plain or compressed) is in *writer*.

    A save or push must return the very bytes, so they are kept; only a plain tar that our own writer would write
    just so (it may well have come from us) is not stored a second time.

    Args:
        advance: told the number of bytes of each step.
    Raises:
        InvalidParameter: malformed, hostile, or another digest; nothing is kept then.
    """
    digest = writer.digest
    directory = store.snapshots.new_dir()
    store.layers.pin_blob(digest)
    try:
        stored = store.content.has(digest)
        with store.content.open(digest) if stored else writer.reader() as file:
            kind = detect(file.read(MAGIC_LENGTH))
            file.seek(0)

            def read(size: int) -> bytes:
                data = file.read(size)
                advance(len(data))
                return data

            hashing, size = _fill(directory, Decompressor(read, kind).read, diff_id)
            file.seek(0)
            blob = digest if stored or kind or not _writes_alike(directory, file) else GENERATED
        if blob != GENERATED and not stored:
            writer.commit()
        return register(store, directory, parent, hashing.digest, size, hashing.size, str(blob), kind)
    finally:
        store.snapshots.discard_dir(directory)
        store.layers.unpin_blob(digest)
        store.sweep_blobs({digest})


def _writes_alike(directory: str, file: BinaryIO) -> bool:
    """Tell whether the tar in *file* is byte for byte the one that its unpacked tree makes."""
    with Root.open_path(directory) as root:
        for piece in tar_tree(root, whiteouts=True):
            # As a rule the first header differs already.
            if file.read(len(piece)) != piece:
                return False
    return not file.read(1)


def register(
    store: Store,
    directory: str,
    parent: ChainId | None,
    diff_id: Digest,
    size: int,
    tar_size: int,
    blob: str = GENERATED,
    compression: str = "",
) -> Layer:
    """Make *directory* the content of a layer.  Order: directory first, row second."""
    chain = chain_id(parent, diff_id)
    layer = Layer(
        chain_id=chain,
        diff_id=diff_id,
        parent=parent,
        size=size,
        tar_size=tar_size,
        blob=blob,
        compression=compression,
    )
    with store.layers.lock:
        store.snapshots.commit_dir(directory, chain)
        failpoint("image.layer.renamed")
        return store.layers.add(layer)
