"""The image service: the one face of images towards the builder and the engine.

Owns nothing itself; every method is a few words about one module of this room.  All methods are synchronous and
may be called from any thread; streams are iterators and objects with `read`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from satsuma.base.errors import InvalidParameter, System
from satsuma.base.ids import ChainId, ImageId
from satsuma.image import layering, present
from satsuma.image.archive import Stream
from satsuma.image.bootstrap import bootstrap
from satsuma.image.catalog import Catalog, Listener
from satsuma.image.importing import import_tar
from satsuma.image.load import Progress, load
from satsuma.image.model import Image
from satsuma.image.removal import InUse, PruneFilters, Removal, Usage, prune_images
from satsuma.image.save import save
from satsuma.image.treetar import tar_tree
from satsuma.linux.root import Root
from satsuma.spec.image import History
from satsuma.store import Finding, Layer, Store
from satsuma.wire import reference
from satsuma.wire.reference import Reference


@contextlib.contextmanager
def _host_errors(what: str) -> Iterator[None]:
    """Turn what the host's kernel refused into the engine's words, once."""
    try:
        yield
    except OSError as error:
        where = f" {error.filename}" if isinstance(error.filename, str) else ""
        raise System(f"{what}:{where} {(error.strerror or str(error)).lower()}") from error


# Inside of the class `list` is the method.
_Objects = list[dict[str, Any]]
_Records = list[dict[str, str]]


def _nobody(image_id: ImageId) -> list[str]:
    return []


class ImageService:
    """All images of one store.

    Args:
        listener: told of each change as (action, image, name), from the thread that made it.
    """

    def __init__(self, store: Store, listener: Listener | None = None) -> None:
        self.store = store
        self.catalog = Catalog(store, listener)
        # What a crash left: layers that no image, container or lease needs, and blobs without a layer.
        self.catalog.sweep()
        if not self.catalog.damaged:
            store.sweep_blobs()

    # Finding

    def resolve(self, ref: str) -> Image:
        """Return the image that a client means: id, unique prefix, name[:tag], name@digest.

        Raises:
            NotFound: `No such image: x:latest`.
            InvalidParameter: `invalid reference format`.
        """
        return self.catalog.resolve(ref)

    def find(self, image_id: str) -> Image | None:
        """Return the image with exactly this id, or None."""
        return self.catalog.find(image_id)

    def list(self) -> Sequence[Image]:
        """Return all images, newest first."""
        images = [image for i in self.catalog.ids() if (image := self.catalog.find(i)) is not None]
        return sorted(images, key=lambda image: -image.created_ns)

    def children(self, image_id: str) -> set[str]:
        """Return the ids of the images that were committed from this one."""
        return self.catalog.children(image_id)

    # Showing

    def summaries(self, **options: Any) -> _Objects:
        """Return `GET /images/json`; see `present.summaries` for the options."""
        return present.summaries(self.catalog, **options)

    def inspect(self, ref: str) -> dict[str, Any]:
        """Return `GET /images/{name}/json`."""
        return present.inspect(self.catalog, self.resolve(ref))

    def history(self, ref: str) -> _Objects:
        """Return `GET /images/{name}/history`."""
        return present.history(self.catalog, self.resolve(ref))

    def layers_size(self) -> int:
        """Return the bytes of all layers, each counted once."""
        return sum(layer.size for layer in self.store.layers.all())

    # Names and removal

    def tag(self, ref: str, repo: str, tag: str = "") -> Reference:
        """Give the image *ref* another name; an image that had it loses it.

        Raises:
            NotFound, InvalidParameter: in Docker's words.
        """
        image = self.resolve(ref)
        name = reference.parse(repo)
        if name.digest:
            raise InvalidParameter("refusing to create a tag with a digest reference")
        if tag:
            name = name.with_tag(tag)
        name = name.with_default_tag()
        self.tag_image(image.id, name)
        return name

    def tag_image(self, image_id: str, name: Reference) -> str | None:
        """Point a full reference at an image; return the id it pointed at before."""
        previous = self.catalog.tag(image_id, name)
        self.catalog.emit("tag", self.catalog.get(image_id), name.familiar())
        return previous

    def remove(
        self,
        ref: str,
        *,
        force: bool = False,
        prune: bool = True,
        in_use: InUse = _nobody,
        running: InUse = _nobody,
    ) -> _Records:
        """Untag or delete an image; return what happened as `{"Untagged": …}` and `{"Deleted": …}`.

        Args:
            prune: also delete parents that nothing needs any more.
            in_use: ids of all containers made from an image.
            running: ids of those that run.
        Raises:
            NotFound, Conflict: in Docker's words.
        """
        with self.catalog.lock:
            removal = Removal(self.catalog, Usage(in_use, running))
            removal.remove(ref, force=force, prune=prune)
        return removal.records

    def prune(
        self,
        *,
        dangling_only: bool = True,
        until_ns: int | None = None,
        filters: present.Filters | None = None,
        in_use: InUse = _nobody,
        running: InUse = _nobody,
    ) -> dict[str, Any]:
        """Remove unused images; return `{"ImagesDeleted": […], "SpaceReclaimed": bytes}`.

        Args:
            dangling_only: only images without a tag.
            filters: `label` and `label!` are honoured.
        """
        chosen = PruneFilters(dangling_only, until_ns, present.label_matcher(filters or {}))
        with self.catalog.lock:
            records, freed = prune_images(self.catalog, Usage(in_use, running), chosen)
        return {"ImagesDeleted": records or None, "SpaceReclaimed": freed}

    # Archives

    def load(self, stream: Stream, progress: Progress) -> Sequence[Image]:
        """Register the images of an archive; *progress* gets Docker's JSON messages."""
        with _host_errors("load image"):
            return load(self.catalog, stream, progress)

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yield an archive of images in the format of Docker 28; the names are checked at once."""
        return save(self.catalog, names)

    def import_tar(
        self, stream: Stream, ref: str | None, changes: Sequence[str] = (), message: str = "", **more: Any
    ) -> Image:
        """Make an image of one layer out of a tar; *ref* without a tag means `latest`."""
        name = reference.parse(ref).with_default_tag() if ref else None
        if name is not None and name.digest:
            raise InvalidParameter("cannot import digest reference")
        with _host_errors("import image"):
            return import_tar(self.catalog, stream, name, changes, message, **more)

    def export_root(self, root: Root) -> Iterator[bytes]:
        """Yield the tar of a merged tree, as `docker export` does."""
        return tar_tree(root)

    # Making

    def create(self, config_raw: bytes, *, parent: str = "", layers: Sequence[Layer] = ()) -> Image:
        """Register an image whose layers are all here; idempotent.

        Args:
            layers: those of them that are fresh, whose pins the image takes over.
        Raises:
            InvalidParameter: not a sound config, or a layer is missing.
        """
        return self.catalog.add(config_raw, parent=parent, pinned=[layer.chain_id for layer in layers])

    def commit_layer(
        self, upper: str, parent_chain: Sequence[ChainId] | ChainId | None, *, move: bool = False
    ) -> Layer | None:
        """Make a layer of an upperdir on top of a chain; None when the container changed nothing.

        Args:
            upper: the directory; it must not be written to meanwhile.
            parent_chain: the chain, bottom first, or its top.
            move: the directory becomes the layer without being copied (a build step); it is gone then, and
                whatever mounted it must be gone for good.
        Returns: the layer; it is pinned until `create`, `create_from` or `store.layers.lease` takes it over, or
            `store.layers.unpin` gives it up.
        """
        if isinstance(parent_chain, str):
            parent: ChainId | None = parent_chain
        else:
            parent = parent_chain[-1] if parent_chain else None
        with _host_errors("commit layer"):
            return layering.commit_layer(self.store, upper, parent, move=move)

    def create_from(
        self,
        parent: Image | None,
        layers: Sequence[Layer],
        config: dict[str, Any],
        history: Sequence[History],
        *,
        link_parent: bool = True,
        author: str = "",
        created_ns: int | None = None,
        container: str = "",
        container_config: dict[str, Any] | None = None,
    ) -> Image:
        """Register the image that adds layers and history entries to *parent*.

        Args:
            layers: bottom first; as many as there are history entries without `empty_layer`.
            config: Docker's container config as JSON object.
            history: entries without a time get `created_ns`.
            link_parent: record *parent* as the image's parent (`docker commit`, classic builder).
        """
        return layering.create_from(
            self.catalog,
            parent,
            layers,
            config,
            history,
            link_parent=link_parent,
            author=author,
            created_ns=created_ns,
            container=container,
            container_config=container_config,
        )

    def bootstrap(self, name: str, progress: Progress) -> Image:
        """Make a base image from what this host has: `busybox`, `debian:<suite>[-slim]`.

        Raises:
            InvalidParameter: an unknown name.
            Unavailable: a program that is needed is not installed; the message names its package.
        """
        with _host_errors(f"bootstrap {name}"):
            return bootstrap(self.catalog, name, progress)

    # Health

    def check(self, *, deep: bool = False) -> Sequence[Finding]:
        """Verify that every image has its layers; with *deep* recompute each layer's digest (slow)."""
        findings = [
            Finding("loss", f"image {name}", "the record is damaged") for name in self.catalog.damaged
        ]
        for image_id in self.catalog.ids():
            image = self.catalog.get(image_id)
            for chain_id in image.chain_ids:
                if self.store.layers.find(chain_id) is None:
                    findings.append(Finding("loss", f"image {image_id}", f"layer {chain_id} is gone"))
        if deep:
            findings += [
                finding for layer in self.store.layers.all() if (finding := _check_digest(self.store, layer))
            ]
        return findings


def _check_digest(store: Store, layer: Layer) -> Finding | None:
    try:
        for _ in layering.layer_tar(store, layer):
            pass
    except Exception as error:
        return Finding("loss", f"layer {layer.chain_id}", str(error))
    return None
