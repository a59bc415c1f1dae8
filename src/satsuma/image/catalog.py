"""The catalog: which images exist, what they are called, and what a client's reference means.

Owns the rows of `images` and `tags`, and a copy of them in memory: this process is the only writer, and every
`docker run` resolves a name.  Must not know layers' content.

Lock order: `Catalog.lock` before `Layers.lock` before the database.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import msgspec

from satsuma.base.clock import now_ns
from satsuma.base.errors import EngineError, InvalidParameter, NotFound
from satsuma.base.failpoints import failpoint
from satsuma.base.ids import ChainId, Digest, ImageId, is_digest, is_hex_id, sha256_digest
from satsuma.image.model import Image, ImageRow, TagRow, encode_row
from satsuma.spec.image import ImageConfig, chain_ids, parse_config
from satsuma.store import Layer, Store
from satsuma.wire import reference
from satsuma.wire.reference import Reference

_log = logging.getLogger(__name__)

Listener = Callable[[str, Image, str], None]
"""(action, image, name): `tag`, `untag`, `delete`, `import`, `load`, `save` with the name for the event."""


class NoSuchImage(NotFound):
    """`No such image: x:latest`."""

    def __init__(self, text: str) -> None:
        super().__init__(f"No such image: {text}")


class Catalog:
    """Images and tags; safe to use from any thread."""

    def __init__(self, store: Store, listener: Listener | None = None) -> None:
        self.store = store
        self.lock = threading.RLock()
        self._listener = listener
        self._images = store.db.collection("images")
        self._tags = store.db.collection("tags")
        self._rows: dict[str, ImageRow] = {}
        self._configs: dict[str, ImageConfig] = {}
        self._refs: dict[str, tuple[Reference, str]] = {}
        self._by_image: dict[str, set[str]] = {}
        self._children: dict[str, set[str]] = {}
        self.damaged: list[str] = []
        """Ids and names whose rows do not decode; nothing is swept while there are any."""
        self._load()
        self._drop_lost()

    def _load(self) -> None:
        for row in self._images.all():
            try:
                image = msgspec.msgpack.decode(row.doc, type=ImageRow)
                self._configs[row.id] = parse_config(image.config)
            except (msgspec.DecodeError, EngineError) as error:
                # One bad row must not keep the engine from starting.
                _log.error("image %s cannot be read from the database: %s", row.id, error)
                self.damaged.append(row.id)
                continue
            self._remember(row.id, image)
        for row in self._tags.all():
            try:
                self._remember_tag(row.id, msgspec.msgpack.decode(row.doc, type=TagRow).image_id)
            except (msgspec.DecodeError, EngineError) as error:
                _log.error("name %s cannot be read from the database: %s", row.id, error)
                self.damaged.append(row.id)

    def _drop_lost(self) -> None:
        """Forget images that were made in the last moments before a power failure, with half of their content."""
        for image_id in self.ids() if self.store.lost else ():
            if self.store.lost & set(self.get(image_id).chain_ids):
                _log.warning("image %s was not on disk completely when the machine stopped", image_id)
                self.delete(image_id)

    def _remember(self, image_id: str, row: ImageRow) -> None:
        self._rows[image_id] = row
        if row.parent:
            self._children.setdefault(row.parent, set()).add(image_id)

    def _remember_tag(self, full: str, image_id: str) -> None:
        self._refs[full] = (reference.parse(full), image_id)
        self._by_image.setdefault(image_id, set()).add(full)

    def emit(self, action: str, image: Image, name: str = "") -> None:
        """Tell the listener what happened."""
        if self._listener is not None:
            self._listener(action, image, name)

    # Reading

    def ids(self) -> list[str]:
        """Return the ids of all images."""
        with self.lock:
            return list(self._rows)

    def find(self, image_id: str) -> Image | None:
        """Return the image with exactly this id."""
        with self.lock:
            row = self._rows.get(image_id)
            if row is None:
                return None
            config = self._configs.get(image_id)
            if config is None:
                config = self._configs[image_id] = parse_config(row.config)
            refs = self.references(image_id)
        diff_ids = tuple(Digest(d) for d in config.rootfs.diff_ids)
        return Image(
            id=ImageId(image_id),
            config_raw=row.config,
            config=config,
            repo_tags=tuple(ref.familiar() for ref in refs if ref.tag),
            repo_digests=tuple(ref.familiar() for ref in refs if ref.digest),
            size=row.size,
            created_ns=config.created_ns,
            chain_ids=tuple(chain_ids(diff_ids)),
            diff_ids=diff_ids,
            parent=row.parent,
            tagged_ns=row.tagged_ns,
        )

    def get(self, image_id: str) -> Image:
        """Return the image with exactly this id.

        Raises:
            NoSuchImage: there is none.
        """
        image = self.find(image_id)
        if image is None:
            raise NoSuchImage(image_id)
        return image

    def references(self, image_id: str) -> list[Reference]:
        """Return all references of an image, sorted."""
        with self.lock:
            return [self._refs[full][0] for full in sorted(self._by_image.get(image_id, ()))]

    def children(self, image_id: str) -> set[str]:
        """Return the ids of the images whose parent this is."""
        with self.lock:
            return set(self._children.get(image_id, ()))

    def lookup(self, ref: Reference) -> str | None:
        """Return the id that a full reference points at."""
        found = self._refs.get(str(ref))
        return found[1] if found else None

    def resolve(self, text: str) -> Image:
        """Return the image that a client means: id, prefix of an id, name, name:tag, name@digest.

        Raises:
            NoSuchImage: nothing, or more than one id, fits.
            InvalidParameter: no reference at all.
        """
        if is_digest(text) or is_hex_id(text):
            image_id = text if ":" in text else f"sha256:{text}"
            image = self.find(image_id)
            if image is None:
                raise NoSuchImage(image_id)
            return image
        ref = reference.parse(text).with_default_tag()
        with self.lock:
            # With both, the digest decides.
            name = str(ref._replace(tag="")) if ref.digest else str(ref)
            found = self._refs.get(name)
            image = self.find(found[1]) if found else None
            if image is None:
                image = self._by_prefix(text)
        if image is None:
            raise NoSuchImage(ref.familiar())
        return image

    def _by_prefix(self, text: str) -> Image | None:
        prefix = text.removeprefix("sha256:")
        if not prefix or not set(prefix) <= set("0123456789abcdef"):
            return None
        rows = [image_id for image_id in self._rows if image_id.startswith(prefix, 7)]
        return self.find(rows[0]) if len(rows) == 1 else None

    # Writing

    def add(self, config_raw: bytes, *, parent: str = "", pinned: Sequence[ChainId] = ()) -> Image:
        """Register an image whose layers are here; nothing happens if it is known already.

        A power failure within the next seconds may undo it, cleanly; with its first tag it is there to stay.  So
        the steps of a build do not wait for the disk.

        Args:
            pinned: layers whose pins the image's row takes over; on failure they stay pinned.
        Raises:
            InvalidParameter: not a sound config, or a layer is missing.
        Crash: layers first, row second.
        """
        image_id = sha256_digest(config_raw)
        config = parse_config(config_raw)
        chain = chain_ids(config.rootfs.diff_ids)
        layers = [self.store.layers.find(chain_id) for chain_id in chain]
        if None in layers:
            raise InvalidParameter(
                f"image {image_id} needs layer {chain[layers.index(None)]}, which is not here"
            )
        with self.lock:
            known = self.find(image_id)
            if known is not None:
                self.store.layers.unpin(pinned)
                return known
            if parent and parent not in self._rows:
                parent = ""
            row = ImageRow(
                config=config_raw,
                parent=parent,
                size=sum(layer.size for layer in layers if layer is not None),
            )
            failpoint("image.add")
            self._images.insert(image_id, encode_row(row), created_ns=now_ns(), durable=False)
            self._configs[image_id] = config
            self._remember(image_id, row)
            # Order: the row keeps them from now on.
            self.store.layers.unpin(pinned)
            self.store.trash.later(lambda: self.settle(image_id))
            return self.get(image_id)

    def settle(self, image_id: str) -> None:
        """Make an image and its layers survive a power failure."""
        image = self.find(image_id)
        if image is not None:
            self.store.layers.settle(image.chain_ids)
            self.store.db.sync()

    def tag(self, image_id: str, ref: Reference) -> str | None:
        """Point a full reference (with tag or digest) at an image; return the id it pointed at before."""
        full = str(ref)
        # Order: the content before the name, which is what people rely on.
        self.settle(image_id)
        with self.lock, self.store.db.transaction(durable=True):
            row = self._rows.get(image_id)
            if row is None:
                raise NoSuchImage(image_id)
            previous = self._refs.get(full)
            now = now_ns()
            self._tags.put(full, encode_row(TagRow(image_id=image_id, tagged_ns=now)), created_ns=now)
            row = msgspec.structs.replace(row, tagged_ns=now)
            self._images.update(image_id, encode_row(row))
            failpoint("image.tag")
            self._forget_tag(full)
            self._rows[image_id] = row
            self._remember_tag(full, image_id)
        return previous[1] if previous else None

    def _forget_tag(self, full: str) -> bool:
        found = self._refs.pop(full, None)
        if found is None:
            return False
        names = self._by_image[found[1]]
        names.discard(full)
        if not names:
            del self._by_image[found[1]]
        return True

    def untag(self, ref: Reference) -> bool:
        """Remove a reference; False when it was not there."""
        with self.lock:
            self._tags.delete(str(ref), durable=True)
            return self._forget_tag(str(ref))

    def delete(self, image_id: str) -> None:
        """Remove an image's row and its references.  Order: before a sweep of layers."""
        with self.lock, self.store.db.transaction(durable=True):
            for full in list(self._by_image.get(image_id, ())):
                self._tags.delete(full)
                self._forget_tag(full)
            self._images.delete(image_id)
            failpoint("image.delete")
            row = self._rows.pop(image_id, None)
            self._configs.pop(image_id, None)
            if row is not None and row.parent:
                siblings = self._children.get(row.parent, set())
                siblings.discard(image_id)
                if not siblings:
                    self._children.pop(row.parent, None)

    def sweep(self) -> list[Layer]:
        """Remove the layers that nothing needs; return them, top first."""
        # The lock: an image that is being added has its row before its layers lose their pins, so nobody may
        # come between the look at the rows and the sweep.
        with self.lock:
            if self.damaged:
                return []  # their layers are unknown, and may be all that can be saved of them
            return self.store.sweep(self.roots())

    def roots(self) -> set[str]:
        """Return the chain ids that images stand on."""
        tops = set()
        for image_id in self.ids():
            image = self.find(image_id)
            if image is not None and image.chain_ids:
                tops.add(str(image.chain_ids[-1]))
        return tops
