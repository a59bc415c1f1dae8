"""The cache: parent image + what the step's container would be → the image that an earlier build made of it.

The key is a digest over the parent's id and the container's config.  The config holds the instruction in `Cmd`
(`/bin/sh -c #(nop) COPY file:… in /dst `), and with it the checksums of everything copied and the build arguments, so
nothing else is needed.  Times are in no key.

After the first miss of a stage every later step misses: what a step does may depend on when it ran.

With `cache_from` the histories of the named images are compared instead, and what earlier local builds made counts
only where one of these images was built on it.

Source: docs.docker.com/build/cache/; Docker's classic builder.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from satsuma.base.errors import EngineError
from satsuma.build.images import Config, StepImage, StepImages
from satsuma.store import Collection

__all__ = ["BuildCache", "StageCache"]

_log = logging.getLogger(__name__)

# Fields that say which container it was, not what it did.
_IDENTITY = frozenset({"Image", "Hostname", "Domainname", "MacAddress"})


def cache_key(parent_id: str, config: Config) -> str:
    """Return the digest of a step; empty fields count as absent, order of keys does not matter."""
    kept = {key: value for key, value in config.items() if key not in _IDENTITY and value}
    text = json.dumps([parent_id, kept], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class BuildCache:
    """The rows of the cache; safe to use from any thread."""

    def __init__(self, collection: Collection, images: StepImages) -> None:
        self._rows = collection
        self._images = images

    def get(self, parent_id: str, config: Config) -> str | None:
        """Return the id of the newest image made by the same step, if it still exists."""
        key = cache_key(parent_id, config)
        row = self._rows.get(key)
        if row is None:
            return None
        image_id: str = json.loads(row.doc)["image"]
        if self._images.exists(image_id):
            return image_id
        self._rows.delete(key)
        return None

    def put(self, parent_id: str, config: Config, image_id: str, *, now_ns: int) -> None:
        """Remember that the step made *image_id*.

        One statement: two builds may make the same step at once, and the later one stands.
        """
        doc = json.dumps({"image": image_id, "parent": parent_id}).encode()
        self._rows.put(cache_key(parent_id, config), doc, created_ns=now_ns, durable=False)

    def prune(self) -> list[str]:
        """Forget everything; return the keys."""
        rows = self._rows.all()
        return [row.id for row in rows if self._rows.delete(row.id)]


class StageCache:
    """The cache as one stage sees it."""

    def __init__(self, cache: BuildCache, images: StepImages, sources: list[str], *, enabled: bool) -> None:
        self._cache = cache
        self._images = images
        self._enabled = enabled
        self._restricted = bool(sources)
        self._sources = [image for image in map(self._find, sources) if image] if enabled else []

    def _find(self, reference: str) -> StepImage | None:
        try:
            return self._images.find(reference)
        except EngineError as exc:
            # As Docker: a cache source that is not there is no error, the build is only slower.
            _log.warning("cache source %s skipped: %s", reference, exc)
            return None

    def probe(self, parent: StepImage | None, config: Config) -> StepImage | None:
        """Return the image that this step would make, or None; one miss is a miss for the rest of the stage."""
        if not self._enabled:
            return None
        found = self._lookup(parent, config)
        if found is None:
            self._enabled = False
        return found

    def _lookup(self, parent: StepImage | None, config: Config) -> StepImage | None:
        image_id = self._cache.get(parent.id if parent else "", config)
        if image_id is not None and (not self._restricted or self._is_part_of_source(image_id)):
            return self._images.find(image_id)
        for source in self._sources:
            found = self._from_history(parent, source, config)
            if found is not None:
                return found
        return None

    def _is_part_of_source(self, image_id: str) -> bool:
        for source in self._sources:
            current: str | None = source.id
            while current is not None:
                if current == image_id:
                    return True
                current = self._images.parent(current)
        return False

    def _from_history(self, parent: StepImage | None, source: StepImage, config: Config) -> StepImage | None:
        index = len(parent.history) if parent else 0
        if not _continues(source, parent) or index >= len(source.history):
            return None
        if source.history[index].get("created_by", "") != " ".join(config.get("Cmd") or ()):
            return None
        if index == len(source.history) - 1:
            return source
        # From now on only this one: jumping between sources could mix two different builds.
        self._sources = [source]
        return self._images.reuse(parent, source, index, config)


def _continues(source: StepImage, parent: StepImage | None) -> bool:
    """Tell whether *source* may have been built on *parent*: the same history and layers so far."""
    if parent is None:
        return bool(source.history)
    history: list[Any] = list(parent.history)
    return list(source.history[: len(history)]) == history and (
        source.diff_ids[: len(parent.diff_ids)] == parent.diff_ids
    )
