"""`docker load`: archives of images, of Docker and OCI, plain or compressed.

Owns the way from the stream to registered images.  Large members go to the content store as they come, since an
archive says only at its end what they are; small ones stay in memory.  What no image needed is dropped.

Source: moby image/tarexport/load.go (messages, order).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from satsuma.base.errors import EngineError, InvalidParameter
from satsuma.base.ids import ChainId, Digest, sha256_digest, short_id
from satsuma.image.archive import Stream
from satsuma.image.catalog import Catalog
from satsuma.image.layering import architecture
from satsuma.image.model import Image
from satsuma.image.unpack import add_foreign_layer
from satsuma.spec.image import MAX_ARCHIVE_JSON, chain_id, parse_config
from satsuma.store import Layer, Store, Writer
from satsuma.wire import docker_archive, reference, tar
from satsuma.wire.compression import CompressionError, open_stream
from satsuma.wire.docker_archive import ArchivedImage

Progress = Callable[[dict[str, Any]], None]

_SMALL = 1 << 20
_MAX_SMALL_TOTAL = 64 << 20
_MAX_MEMBERS = 100_000
_REPORT_EVERY = 1 << 20


class _Members:
    """The members of an archive: small ones in memory, others as unfinished blobs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._small: dict[str, bytes] = {}
        self._large: dict[str, Writer] = {}
        self._links: dict[str, str] = {}
        self._memory = 0

    def close(self) -> None:
        for writer in self._large.values():
            writer.close()

    def read(self, stream: Stream) -> None:
        plain = open_stream(stream.read)
        reader = tar.Reader(plain.read, max_entries=_MAX_MEMBERS)
        try:
            for entry in reader:
                self._add(entry, reader)
            reader.drain()
        except (tar.TarError, CompressionError) as error:
            raise InvalidParameter(f"invalid image archive: {error}") from error

    def _add(self, entry: tar.Entry, reader: tar.Reader) -> None:
        if entry.kind == tar.DIRECTORY:
            return
        name = docker_archive.clean_name(entry.name.decode("utf-8", "surrogateescape"))
        self._forget(name)
        if entry.kind in (tar.SYMLINK, tar.LINK):
            self._link(name, entry)
        elif entry.kind != tar.FILE or entry.sparse is not None:
            raise InvalidParameter(f"invalid member {name!r} in image archive")
        elif entry.size <= _SMALL:
            self._memory += entry.size
            if self._memory > _MAX_SMALL_TOTAL:
                raise InvalidParameter("image archive has too many small members")
            self._small[name] = reader.read_payload(_SMALL)
        else:
            writer = self._large[name] = self._store.content.ingest("load")
            for _, view in reader.chunks():
                writer.write(view)

    def _forget(self, name: str) -> None:
        """The last of equal names counts."""
        self._small.pop(name, None)
        self._links.pop(name, None)
        if name in self._large:
            self._large.pop(name).close()

    def _link(self, name: str, entry: tar.Entry) -> None:
        # Old Dockers linked equal layers: "../<id>/layer.tar".  Only inside of the archive.
        target = entry.linkname.decode("utf-8", "surrogateescape")
        base = name.split("/")[:-1] if entry.kind == tar.SYMLINK else []
        if target.startswith("/"):
            raise InvalidParameter(f"invalid link {name!r} in image archive")
        for part in target.split("/"):
            if part == "..":
                if not base:
                    raise InvalidParameter(f"invalid link {name!r} in image archive")
                base.pop()
            elif part not in ("", "."):
                base.append(part)
        self._links[name] = "/".join(base)

    def _target(self, name: str) -> str:
        for _ in range(8):
            if name not in self._links:
                return name
            name = self._links[name]
        raise InvalidParameter(f"too many links at {name!r} in image archive")

    def small(self, name: str) -> bytes | None:
        """Return a member whole, None if there is none."""
        name = self._target(name)
        if name in self._large:
            writer = self._large[name]
            if writer.size > MAX_ARCHIVE_JSON:
                raise InvalidParameter(f"member {name!r} of image archive is too large")
            with writer.reader() as file:
                return file.read()
        return self._small.get(name)

    def layer(self, name: str) -> Writer | bytes:
        """Return a member that is a layer."""
        target = self._target(name)
        if target in self._large:
            return self._large[target]
        if target in self._small:
            return self._small[target]
        raise InvalidParameter(f"image archive lacks {name!r}")


def load(catalog: Catalog, stream: Stream, progress: Progress) -> list[Image]:
    """Register every image of an archive and tell *progress* as Docker does.

    Raises:
        InvalidParameter: malformed or hostile; images before the faulty one stay, of that one nothing is left.
    """
    members = _Members(catalog.store)
    try:
        members.read(stream)
        arch, variant = architecture()
        found = docker_archive.parse_archive(members.small, ("linux", arch, variant))
        return [_Loader(catalog, members, progress).load(image) for image in found]
    finally:
        members.close()


class _Loader:
    def __init__(self, catalog: Catalog, members: _Members, progress: Progress) -> None:
        self._catalog = catalog
        self._store = catalog.store
        self._members = members
        self._progress = progress

    def load(self, archived: ArchivedImage) -> Image:
        raw = self._members.small(archived.config)
        if raw is None:
            raise InvalidParameter(f"image archive lacks {archived.config!r}")
        if archived.config.startswith("blobs/sha256/"):
            _expect(sha256_digest(raw), "sha256:" + archived.config[13:])
        config = parse_config(raw)
        refs = [reference.parse(text).with_default_tag() for text in archived.refs]
        if len(config.rootfs.diff_ids) != len(archived.layers):
            raise InvalidParameter(
                f"invalid manifest, layers length mismatch: expected {len(archived.layers)}, "
                f"got {len(config.rootfs.diff_ids)}"
            )
        pinned: list[ChainId] = []
        try:
            parent: ChainId | None = None
            for diff_id, name in zip(config.rootfs.diff_ids, archived.layers, strict=True):
                parent = self._layer(parent, Digest(diff_id), name).chain_id
                pinned.append(parent)
            image = self._catalog.add(raw, pinned=pinned)
        except BaseException:
            self._store.layers.unpin(pinned)
            self._catalog.sweep()
            raise
        return self._name(image, refs)

    def _name(self, image: Image, refs: list[reference.Reference]) -> Image:
        for ref in refs:
            previous = self._catalog.tag(image.id, ref)
            if previous is not None and previous != image.id:
                text = f"The image {ref.familiar()} already exists, renaming the old one with ID {previous}"
                self._progress({"stream": f"{text} to empty string\n"})
            self._progress({"stream": f"Loaded image: {ref.familiar()}\n"})
        if not refs:
            self._progress({"stream": f"Loaded image ID: {image.id}\n"})
        image = self._catalog.get(image.id)
        self._catalog.emit("load", image, image.id)
        return image

    def _layer(self, parent: ChainId | None, diff_id: Digest, name: str) -> Layer:
        chain = chain_id(parent, diff_id)
        with self._store.layers.lock:
            known = self._store.layers.find(chain)
            if known is not None and self._store.snapshots.has(chain):
                self._store.layers.pin([chain])
                return known
        member = self._members.layer(name)
        expected = "sha256:" + name[13:] if name.startswith("blobs/sha256/") else None
        try:
            return self._unpack(member, parent, diff_id, expected)
        except EngineError as error:
            raise type(error)(f"Error processing tar file: {error}") from error

    def _unpack(
        self, member: Writer | bytes, parent: ChainId | None, diff_id: Digest, expected: str | None
    ) -> Layer:
        if isinstance(member, bytes):
            with self._store.content.ingest("layer") as writer:
                writer.write(member)
                return self._unpack(writer, parent, diff_id, expected)
        if expected is not None:
            _expect(member.digest, expected)
        report = _Report(self._progress, short_id(diff_id), member.size)
        return add_foreign_layer(self._store, member, parent, diff_id=diff_id, advance=report.advance)


def _expect(actual: str, expected: str) -> None:
    if actual != expected:
        raise InvalidParameter(f"unexpected digest {actual}, expected {expected}")


class _Report:
    """Docker's progress lines: `Loading layer`, with the short diff id."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress, self._name, self._total = progress, name, total
        self._current = self._said = 0

    def advance(self, count: int) -> None:
        self._current += count
        if self._current - self._said < _REPORT_EVERY and (count or self._said == self._current):
            return
        self._said = self._current
        self._progress(
            {
                "status": "Loading layer",
                "progressDetail": {"current": self._current, "total": self._total},
                "id": self._name,
            }
        )
