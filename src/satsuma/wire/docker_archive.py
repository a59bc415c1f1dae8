"""Archives of images: Docker's `manifest.json`, and OCI layouts; what they name and where it is.

Owns the documents and the checking of every name in them.  Must not know files: callers give a function that
returns a small member.

A member is named by a cleaned relative path.  Nothing that leads elsewhere (absolute, "..") is ever looked up.

Source: moby image/tarexport (v1.2 format); image-spec image-layout.md, image-index.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from satsuma.base.errors import InvalidParameter
from satsuma.base.ids import is_digest

MAX_IMAGES = 1000
MAX_LAYERS = 1024
_MAX_INDEX_DEPTH = 4
_MANIFEST_TYPES = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
_INDEX_TYPES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")

Member = Callable[[str], bytes | None]
"""Cleaned member name → its content, None if the archive has no such member."""


class ArchivedImage(NamedTuple):
    """One image of an archive: member names, and the references that it is to get."""

    config: str
    layers: list[str]
    refs: list[str]


def clean_name(name: object) -> str:
    """Return a member name in its one form.

    Raises:
        InvalidParameter: it is no text, absolute, or leads out of the archive.
    """
    if not isinstance(name, str) or not name or name.startswith("/") or "\0" in name:
        raise InvalidParameter(f"invalid member name {name!r} in image archive")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise InvalidParameter(f"invalid member name {name!r} in image archive")
    return "/".join(parts)


def parse_archive(member: Member, platform: tuple[str, str, str]) -> list[ArchivedImage]:
    """Find the images of an archive.

    Args:
        platform: (os, architecture, variant) to choose from multi-platform indexes.
    Raises:
        InvalidParameter: no archive of images, or a damaged one.
    """
    raw = member("manifest.json")
    if raw is not None:
        return _docker_images(raw)
    raw = member("index.json")
    if raw is not None:
        return _Layout(member, platform).images(raw)
    raise InvalidParameter("invalid archive: does not contain a manifest.json")


def _load(raw: bytes, what: str) -> Any:
    try:
        return json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"invalid {what} in image archive: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two values for one key is how two readers see two different images.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _docker_images(raw: bytes) -> list[ArchivedImage]:
    items = _load(raw, "manifest.json")
    if not isinstance(items, list) or len(items) > MAX_IMAGES:
        raise InvalidParameter("invalid manifest.json in image archive")
    images = []
    for item in items:
        if not isinstance(item, dict):
            raise InvalidParameter("invalid manifest.json in image archive")
        layers = item.get("Layers") or []
        refs = item.get("RepoTags") or []
        if not isinstance(layers, list) or not isinstance(refs, list) or len(layers) > MAX_LAYERS:
            raise InvalidParameter("invalid manifest.json in image archive")
        images.append(
            ArchivedImage(
                clean_name(item.get("Config")),
                [clean_name(layer) for layer in layers],
                [ref for ref in refs if isinstance(ref, str)],
            )
        )
    return images


class _Layout:
    """An OCI layout; follows nested indexes, each once."""

    def __init__(self, member: Member, platform: tuple[str, str, str]) -> None:
        self._member = member
        self._platform = platform
        self._seen: set[str] = set()

    def images(self, raw: bytes) -> list[ArchivedImage]:
        found: dict[str, ArchivedImage] = {}
        for descriptor in self._descriptors(_load(raw, "index.json")):
            image = self._image(descriptor, 0)
            if image is None:
                continue
            refs = _names(descriptor)
            known = found.get(image.config)
            found[image.config] = image._replace(refs=[*(known.refs if known else ()), *refs])
        if not found:
            raise InvalidParameter("image archive has no image for this platform")
        return list(found.values())

    def _descriptors(self, index: object) -> list[dict[str, Any]]:
        manifests = index.get("manifests") if isinstance(index, dict) else None
        if not isinstance(manifests, list) or len(manifests) > MAX_IMAGES:
            raise InvalidParameter("invalid index in image archive")
        if isinstance(index, dict) and "layers" in index:
            raise InvalidParameter("invalid index in image archive: it has layers")
        return [d for d in manifests if isinstance(d, dict)]

    def _blob(self, descriptor: object) -> str:
        digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
        if not isinstance(digest, str) or not is_digest(digest):
            raise InvalidParameter(f"invalid digest {digest!r} in image archive")
        return f"blobs/sha256/{digest[7:]}"

    def _document(self, descriptor: dict[str, Any]) -> Any:
        name = self._blob(descriptor)
        raw = self._member(name)
        if raw is None:
            raise InvalidParameter(f"image archive lacks {name}")
        return _load(raw, name)

    def _image(self, descriptor: dict[str, Any], depth: int) -> ArchivedImage | None:
        document = self._document(descriptor)
        media_type = descriptor.get("mediaType") or (isinstance(document, dict) and document.get("mediaType"))
        if media_type in _INDEX_TYPES or (isinstance(document, dict) and "manifests" in document):
            digest = str(descriptor["digest"])
            if depth >= _MAX_INDEX_DEPTH or digest in self._seen:
                raise InvalidParameter("indexes in image archive are nested too deeply")
            self._seen.add(digest)
            return self._choose(document, depth)
        if media_type not in _MANIFEST_TYPES:
            return None
        if not isinstance(document, dict) or not isinstance(document.get("layers"), list):
            raise InvalidParameter("invalid manifest in image archive")
        config = document.get("config")
        if not isinstance(config, dict) or "image.config" not in str(config.get("mediaType", "")).replace(
            "container.image", "image.config"
        ):
            return None  # an artifact, not an image
        if len(document["layers"]) > MAX_LAYERS:
            raise InvalidParameter("invalid manifest in image archive: too many layers")
        return ArchivedImage(self._blob(config), [self._blob(layer) for layer in document["layers"]], [])

    def _choose(self, index: object, depth: int) -> ArchivedImage | None:
        best: tuple[int, dict[str, Any]] | None = None
        for descriptor in self._descriptors(index):
            score = self._score(descriptor.get("platform"))
            if score and (best is None or score > best[0]):
                best = (score, descriptor)
        return self._image(best[1], depth + 1) if best else None

    def _score(self, platform: object) -> int:
        if not isinstance(platform, dict):
            return 1
        system, architecture, variant = self._platform
        if (platform.get("os"), platform.get("architecture")) != (system, architecture):
            return 0
        return 3 if (platform.get("variant") or "") == variant else 2


def _names(descriptor: dict[str, Any]) -> list[str]:
    annotations = descriptor.get("annotations")
    if not isinstance(annotations, dict):
        return []
    for key in _NAME_ANNOTATIONS:
        name = annotations.get(key)
        # "ref.name" alone is only a tag in many layouts; a reference has a repository.
        if isinstance(name, str) and name and (key == _NAME_ANNOTATIONS[0] or ":" in name or "/" in name):
            return [name]
    return []
