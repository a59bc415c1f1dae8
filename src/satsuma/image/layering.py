"""Layers out of containers and images, and images out of layers.

Owns `commit_layer`, `layer_tar` (the uncompressed tar of any layer, checked) and the making of configs.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from satsuma.base.clock import format_rfc3339nano, now_ns
from satsuma.base.errors import DataLoss, InvalidParameter
from satsuma.base.failpoints import failpoint
from satsuma.base.ids import ChainId, Digest
from satsuma.image.catalog import Catalog
from satsuma.image.model import Image
from satsuma.image.treetar import tar_tree
from satsuma.image.unpack import add_layer, register
from satsuma.linux.root import Root
from satsuma.spec.image import EMPTY_DIFF_ID, History, ImageConfig, RootFS, chain_id, encode_config
from satsuma.store import GENERATED, Layer, Store, tree_size
from satsuma.wire.compression import CompressionError, Decompressor
from satsuma.wire.platforms import Platform

_STEP = 1 << 18


def architecture() -> tuple[str, str]:
    """Return the host's (architecture, variant) in Go's words."""
    machine = platform.machine()
    known = {
        "x86_64": ("amd64", ""),
        "aarch64": ("arm64", "v8"),
        "armv7l": ("arm", "v7"),
        "i686": ("386", ""),
    }
    return known.get(machine, (machine, ""))


class Pieces:
    """An iterator of bytes as something to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return at most *size* bytes."""
        data = self._rest or next(self._pieces, b"")
        self._rest = data[size:]
        return data[:size] if self._rest else data


def commit_layer(store: Store, upper: str, parent: ChainId | None, *, move: bool = False) -> Layer | None:
    """Make a layer of an upperdir; None when there is nothing in it.

    Args:
        move: the directory becomes the layer, nothing is copied; the overlay must be unmounted for good.
    Returns: the layer, pinned until an image, a lease or a container needs it.
    """
    with Root.open_path(upper) as root:
        if not move:
            pieces = tar_tree(root, whiteouts=True)
            if not os.listdir(upper) and not _is_opaque(root):
                return None
            return add_layer(store, Pieces(pieces).read, parent)
        digest, tar_size = hash_tree(root)
        if digest == EMPTY_DIFF_ID:
            return None
        size = tree_size(root)
    known = store.layers.find(chain_id(parent, digest))
    if known is not None and store.snapshots.has(known.chain_id):
        store.layers.pin([known.chain_id])
        store.trash.throw(upper, "layer", "duplicate")
        return known
    failpoint("image.layer.hashed")
    return register(store, upper, parent, digest, size, tar_size)


def _is_opaque(root: Root) -> bool:
    return "trusted.overlay.opaque" in root.listxattr(b".")


def hash_tree(root: Root) -> tuple[Digest, int]:
    """Return (digest, length) of the tar that a layer directory makes."""
    hasher = hashlib.sha256()
    size = 0
    for piece in tar_tree(root, whiteouts=True):
        hasher.update(piece)
        size += len(piece)
    return Digest("sha256:" + hasher.hexdigest()), size


def layer_tar(store: Store, layer: Layer) -> Iterator[bytes]:
    """Yield a layer's uncompressed tar, the very bytes whose digest is `diff_id`.

    Raises:
        DataLoss: what is on disk does not have that digest any more; raised after the last piece.
    """
    hasher = hashlib.sha256()
    for piece in _raw_layer_tar(store, layer):
        hasher.update(piece)
        yield piece
    if "sha256:" + hasher.hexdigest() != layer.diff_id:
        raise DataLoss(
            f"layer {layer.chain_id} has changed on disk: its diffID is not {layer.diff_id} any more"
        )


def _raw_layer_tar(store: Store, layer: Layer) -> Iterator[bytes]:
    if layer.blob == GENERATED:
        try:
            root = Root.open_path(store.snapshots.layer_dir(layer.chain_id))
        except FileNotFoundError:
            raise DataLoss(f"layer {layer.chain_id}: directory is gone") from None
        with root:
            yield from tar_tree(root, whiteouts=True)
        return
    with store.content.open(layer.blob) as file:
        plain = Decompressor(file.read, layer.compression)
        try:
            while piece := plain.read(_STEP):
                yield piece
        except CompressionError as error:
            raise DataLoss(f"blob {layer.blob}: {error}") from error


def next_config(
    parent: Image | None,
    layers: Sequence[Layer],
    config: dict[str, Any],
    history: Sequence[History],
    *,
    author: str = "",
    created_ns: int | None = None,
    container: str = "",
    container_config: dict[str, Any] | None = None,
    target: Platform | None = None,
) -> bytes:
    """Return the raw config of an image that adds *layers* and *history* to *parent*.

    Raises:
        InvalidParameter: the history does not fit the layers.
    """
    base = parent.config if parent is not None else None
    filled = sum(not entry.empty_layer for entry in history)
    if filled != len(layers):
        raise InvalidParameter(f"{len(layers)} layers, but {filled} history entries for them")
    created = format_rfc3339nano(now_ns() if created_ns is None else created_ns)
    arch, variant = (
        (base.architecture, base.variant) if base is not None and base.architecture else architecture()
    )
    if target is not None:
        arch, variant = target.architecture, target.variant
    stamped = [
        entry if entry.created else msgspec.structs.replace(entry, created=created) for entry in history
    ]
    diff_ids = [*(base.rootfs.diff_ids if base else ()), *(layer.diff_id for layer in layers)]
    return encode_config(
        ImageConfig(
            architecture=arch,
            variant=variant,
            os=(base.os if base else "") or "linux",
            os_version=base.os_version if base else "",
            os_features=base.os_features if base else None,
            created=created,
            author=author,
            container=container,
            container_config=container_config,
            config=config,
            rootfs=RootFS(type="layers", diff_ids=diff_ids),
            history=[*_past(base), *stamped],
        )
    )


def _past(base: ImageConfig | None) -> list[History]:
    """Return the parent's history; one without any gets an entry for each layer, so that counts fit."""
    if base is None:
        return []
    if base.history:
        return base.history
    return [History(created=base.created) for _ in base.rootfs.diff_ids]


def create_from(
    catalog: Catalog,
    parent: Image | None,
    layers: Sequence[Layer],
    config: dict[str, Any],
    history: Sequence[History],
    *,
    link_parent: bool = True,
    **more: Any,
) -> Image:
    """Register the image of `next_config`."""
    raw = next_config(parent, layers, config, history, **more)
    return catalog.add(
        raw,
        parent=parent.id if parent is not None and link_parent else "",
        pinned=[layer.chain_id for layer in layers],
    )
