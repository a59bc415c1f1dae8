"""Removing images: untag or delete, what forbids it, and pruning.

Owns Docker's rules and words.  Containers are known only through the `Usage` that the caller gives.

Source: moby daemon/images/image_delete.go, image_prune.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from satsuma.base.errors import Conflict
from satsuma.base.ids import ImageId, is_digest, is_hex_id, short_id
from satsuma.image.catalog import Catalog, NoSuchImage
from satsuma.image.model import Image
from satsuma.wire import reference
from satsuma.wire.reference import Reference

InUse = Callable[[ImageId], list[str]]
"""Image id → ids of containers that were made from it."""


class Usage(NamedTuple):
    """Who uses images: all containers, and those of them that run."""

    containers: InUse
    running: InUse


class _ImageConflict(Conflict):
    def __init__(self, image_id: str, message: str, *, hard: bool = False, used: bool = False) -> None:
        how = "cannot be forced" if hard else "must be forced"
        super().__init__(f"conflict: unable to delete {short_id(image_id)} ({how}) - {message}")
        self.used = used


def is_single_reference(refs: list[Reference]) -> bool:
    """Tell whether all references are one tag, and digests of the same repository."""
    if len(refs) <= 1:
        return True
    tags = [ref for ref in refs if not ref.digest]
    repositories = {ref.name for ref in refs if ref.digest}
    if len(tags) > 1:
        return False
    return repositories == {(tags or refs)[0].name}


class Removal:
    """One `docker rmi`; `records` collects what happened, in order."""

    def __init__(self, catalog: Catalog, usage: Usage) -> None:
        self._catalog = catalog
        self._usage = usage
        self.records: list[dict[str, str]] = []

    def remove(self, text: str, *, force: bool, prune: bool) -> None:
        """Untag or delete the image that *text* means.

        Raises:
            NoSuchImage: nothing fits.
            Conflict: containers, children or other tags need it.
        """
        image = self._catalog.resolve(text)
        refs = self._catalog.references(image.id)
        by_id = self._means_id(image, text)
        untagged = False
        if not by_id:
            if not force and is_single_reference(refs) and (users := self._usage.containers(image.id)):
                raise Conflict(
                    f'conflict: unable to remove repository reference "{text}" (must force) - container '
                    f"{short_id(users[0])} is using its referenced image {short_id(image.id)}"
                )
            if self._untag_one(image, reference.parse(text).with_default_tag()):
                return
            untagged = True
        elif is_single_reference(refs):
            self._check(image.id, force=force, references=False)
            for ref in refs:
                self._untag(image, ref)
        self._delete(image, force=force, prune=prune, quiet=untagged)

    def _means_id(self, image: Image, text: str) -> bool:
        if not image.id.startswith(text) and not image.id[7:].startswith(text):
            return False
        if is_digest(text) or is_hex_id(text):
            return True
        # A name may look like the beginning of an id; then it is the name that was meant.
        return self._catalog.lookup(reference.parse(text).with_default_tag()) != image.id

    def _untag_one(self, image: Image, ref: Reference) -> bool:
        """Remove one reference, and the digests of its repository with the last tag; True if others remain."""
        if ref.digest:
            ref = ref._replace(tag="")
        self._untag(image, ref)
        left = self._catalog.references(image.id)
        if not ref.digest and not any(other.name == ref.name and not other.digest for other in left):
            for other in left:
                if other.digest and other.name == ref.name:
                    self._untag(image, other)
            left = self._catalog.references(image.id)
        return bool(left)

    def _untag(self, image: Image, ref: Reference) -> None:
        self._catalog.untag(ref)
        self.records.append({"Untagged": ref.familiar()})
        # The event names the image by its id: the reference is gone.
        self._catalog.emit("untag", image, image.id)

    def _check(self, image_id: ImageId, *, force: bool, references: bool = True) -> None:
        if self._catalog.children(image_id):
            raise _ImageConflict(image_id, "image has dependent child images", hard=True)
        running = self._usage.running(image_id)
        if running:
            message = f"image is being used by running container {short_id(running[0])}"
            raise _ImageConflict(image_id, message, hard=True, used=True)
        if force:
            return
        if references and self._catalog.references(image_id):
            raise _ImageConflict(image_id, "image is referenced in multiple repositories")
        stopped = self._usage.containers(image_id)
        if stopped:
            message = f"image is being used by stopped container {short_id(stopped[0])}"
            raise _ImageConflict(image_id, message, used=True)

    def _delete(self, image: Image, *, force: bool, prune: bool, quiet: bool) -> None:
        try:
            self._check(image.id, force=force)
        except _ImageConflict as conflict:
            dangling = not self._catalog.references(image.id) and not self._catalog.children(image.id)
            if quiet and (not dangling or conflict.used):
                return
            raise
        for ref in self._catalog.references(image.id):
            self._untag(image, ref)
        self._catalog.delete(image.id)
        self._catalog.emit("delete", image, image.id)
        self.records.append({"Deleted": image.id})
        for layer in self._catalog.sweep():
            self.records.append({"Deleted": layer.chain_id})
        parent = self._catalog.find(image.parent) if prune and image.parent else None
        if parent is not None:
            self._delete(parent, force=False, prune=True, quiet=True)


class PruneFilters(NamedTuple):
    """What `docker image prune` was asked to spare."""

    dangling_only: bool = True
    until_ns: int | None = None
    matches_labels: Callable[[dict[str, str]], bool] = lambda labels: True


def prune_images(catalog: Catalog, usage: Usage, filters: PruneFilters) -> tuple[list[dict[str, str]], int]:
    """Remove images that nothing uses; return the records and the bytes of the layers that went."""
    with catalog.store.layers.lock:
        sizes = {layer.chain_id: layer.size for layer in catalog.store.layers.all()}
    records: list[dict[str, str]] = []
    for image_id in catalog.ids():
        image = catalog.find(image_id)
        if image is None or not _may_go(catalog, image, filters):
            continue
        for name in [str(ref) for ref in catalog.references(image_id)] or [image_id[7:]]:
            removal = Removal(catalog, usage)
            try:
                removal.remove(name, force=False, prune=True)
            except (Conflict, NoSuchImage):
                pass
            records += removal.records
    freed = sum(sizes.get(record.get("Deleted", ""), 0) for record in records)  # type: ignore[call-overload]
    return records, freed


def _may_go(catalog: Catalog, image: Image, filters: PruneFilters) -> bool:
    refs = catalog.references(image.id)
    children = catalog.children(image.id)
    if children and (filters.dangling_only or not refs):
        return False
    if filters.until_ns is not None and image.created_ns > filters.until_ns:
        return False
    if not filters.matches_labels(image.labels):
        return False
    return not (filters.dangling_only and any(ref.tag for ref in refs))
