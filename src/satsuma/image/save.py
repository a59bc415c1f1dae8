"""`docker save`: images as one tar that every Docker since 1.10, and every OCI tool, can load.

Owns the layout. Members are blobs by digest, an OCI index, and Docker's `manifest.json` and `repositories`.

Source: moby image/tarexport/save.go of 28 (members, annotations, `LayerSources`); image-spec image-layout.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from satsuma.base.errors import InvalidParameter
from satsuma.base.ids import sha256_digest
from satsuma.image.catalog import Catalog, NoSuchImage
from satsuma.image.layering import layer_tar
from satsuma.image.model import Image
from satsuma.spec.image import MEDIA_INDEX, MEDIA_LAYER, MEDIA_MANIFEST, encode_manifest
from satsuma.store import Layer
from satsuma.wire import reference, tar
from satsuma.wire.reference import Reference


@dataclass(frozen=True, slots=True)
class _Selected:
    image: Image
    refs: list[Reference]


def select(catalog: Catalog, names: Sequence[str]) -> list[tuple[Image, list[Reference]]]:
    """Return the images that *names* mean, each once, with the tags to save.

    A name without a tag means all its tags, an id none.

    Raises:
        NoSuchImage: a name means nothing.
        InvalidParameter: a name is none.
    """
    chosen: dict[str, _Selected] = {}
    for name in names:
        for image, ref in _matches(catalog, name):
            entry = chosen.setdefault(image.id, _Selected(image, []))
            if ref is not None and ref not in entry.refs:
                entry.refs.append(ref)
    return [(entry.image, entry.refs) for entry in chosen.values()]


def _matches(catalog: Catalog, name: str) -> list[tuple[Image, Reference | None]]:
    image: Image | None
    try:
        ref = reference.parse(name)
    except InvalidParameter:
        return [(catalog.resolve(name), None)]  # a full id
    if not ref.tag and not ref.digest:
        found: list[tuple[Image, Reference | None]] = []
        for image_id in catalog.ids():
            for other in catalog.references(image_id):
                if other.name == ref.name and other.tag and (image := catalog.find(image_id)) is not None:
                    found.append((image, other))
        if found:
            return found
        try:
            return [(catalog.resolve(name), None)]
        except NoSuchImage:
            # dockerd 28 does not say ":latest" here: all tags were meant.
            raise NoSuchImage(name) from None
    image = catalog.resolve(name)
    by_tag = ref.tag and not ref.digest and catalog.lookup(ref) == image.id
    return [(image, ref if by_tag else None)]


def save(catalog: Catalog, names: Sequence[str]) -> Iterator[bytes]:
    """Yield the archive of the named images; the names are resolved before this returns.

    Raises:
        NoSuchImage: a name means nothing.
        DataLoss: a layer is damaged, in the middle of the stream.
    """
    # One look at names, tags and layers: an image that is untagged or removed meanwhile is saved whole or not at all.
    with catalog.lock:
        selected = select(catalog, names)
        stack: dict[str, list[Layer]] = {
            image.id: [catalog.store.layers.get(chain_id) for chain_id in image.chain_ids]
            for image, _ in selected
        }
        pinned = [chain_id for image, _ in selected for chain_id in image.chain_ids]
        catalog.store.layers.pin(pinned)
    return _stream(catalog, selected, stack, pinned)


def _stream(
    catalog: Catalog,
    selected: list[tuple[Image, list[Reference]]],
    stacks: dict[str, list[Layer]],
    pinned: Sequence[Any],
) -> Iterator[bytes]:
    try:
        newest = max((image.created_ns for image, _ in selected), default=0)
        writer = _Members(newest // 10**9 * 10**9)
        yield writer.directory(b"blobs/")
        yield writer.directory(b"blobs/sha256/")
        documents: dict[str, bytes] = {}
        layers: dict[str, Layer] = {}
        for image, _ in selected:
            manifest = _manifest(image, stacks[image.id])
            documents[image.id] = image.config_raw
            documents[sha256_digest(manifest)] = manifest
            layers.update((layer.diff_id, layer) for layer in stacks[image.id])
        # One sorted run of blobs: equal images make equal archives.
        for digest in sorted([*documents, *layers]):
            name = f"blobs/sha256/{digest[7:]}".encode()
            if digest in documents:
                yield writer.file(name, documents[digest])
                continue
            layer = layers[digest]
            yield writer.header(name, layer.tar_size)
            yield from layer_tar(catalog.store, layer)
            yield tar.padding(layer.tar_size)
        for name, data in _indexes(selected, stacks):
            yield writer.file(name, data)
        yield tar.END
        for image, refs in selected:
            catalog.emit("save", image, refs[0].familiar() if refs else image.id)
    finally:
        catalog.store.layers.unpin(pinned)


def _manifest(image: Image, stack: list[Layer]) -> bytes:
    return encode_manifest(image.config_raw, [(layer.diff_id, layer.tar_size) for layer in stack])


def _indexes(
    selected: list[tuple[Image, list[Reference]]], stacks: dict[str, list[Layer]]
) -> Iterator[tuple[bytes, bytes]]:
    index: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for image, refs in selected:
        stack = stacks[image.id]
        manifest = _manifest(image, stack)
        descriptor = {"mediaType": MEDIA_MANIFEST, "digest": sha256_digest(manifest), "size": len(manifest)}
        for ref in refs:
            annotations = {"io.containerd.image.name": str(ref), "org.opencontainers.image.ref.name": ref.tag}
            index.append({**descriptor, "annotations": annotations})
            repositories.setdefault(ref.familiar_name(), {})[ref.tag] = stack[-1].diff_id[7:] if stack else ""
        if not refs:
            index.append(descriptor)
        items.append(
            {
                "Config": f"blobs/sha256/{image.id[7:]}",
                "RepoTags": [ref.familiar() for ref in refs] or None,
                "Layers": [f"blobs/sha256/{layer.diff_id[7:]}" for layer in stack],
                "LayerSources": {
                    layer.diff_id: {"mediaType": MEDIA_LAYER, "size": layer.tar_size, "digest": layer.diff_id}
                    for layer in stack
                },
            }
        )
    encode = msgspec.json.encode
    yield b"index.json", encode({"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": index})
    yield b"manifest.json", encode(items)
    yield b"oci-layout", encode({"imageLayoutVersion": "1.0.0"})
    if repositories:
        yield b"repositories", encode(repositories) + b"\n"


class _Members:
    def __init__(self, mtime_ns: int) -> None:
        self._mtime_ns = mtime_ns

    def directory(self, name: bytes) -> bytes:
        return tar.encode(tar.Entry(name, tar.DIRECTORY, mode=0o755, mtime_ns=self._mtime_ns))

    def header(self, name: bytes, size: int) -> bytes:
        return tar.encode(tar.Entry(name, mode=0o644, size=size, mtime_ns=self._mtime_ns))

    def file(self, name: bytes, data: bytes) -> bytes:
        return self.header(name, len(data)) + data + tar.padding(len(data))
