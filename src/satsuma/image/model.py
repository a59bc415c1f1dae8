"""What an image is inside the engine: its row, and the value that others see.

Owns the encoding of rows in the collections `images` and `tags`.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from msgspec import Struct

from satsuma.base.ids import ChainId, Digest, ImageId
from satsuma.spec.docker import ContainerConfig
from satsuma.spec.image import ImageConfig


class ImageRow(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A row of `images`; the row's id is the digest of `config`."""

    config: bytes
    parent: str = ""
    """Image id that `docker commit` or the classic builder started from."""
    size: int = 0
    tagged_ns: int = 0
    """When a tag was last set, 0 for never."""


class TagRow(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A row of `tags`; the row's id is the full reference with its tag or digest."""

    image_id: str
    tagged_ns: int = 0


def encode_row(row: Struct) -> bytes:
    """Return the bytes of a row."""
    return msgspec.msgpack.encode(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as of now; a later change of tags makes another value.

    Attributes:
        config_raw: the exact bytes whose digest is `id`.
        repo_tags: familiar references with a tag, sorted.
        repo_digests: familiar references with a digest, sorted.
        size: bytes of all layers.
        chain_ids, diff_ids: bottom layer first.
        parent: id of the image it was committed from, empty if it came from elsewhere.
        tagged_ns: when a tag was last set, 0 for never.
    """

    id: ImageId
    config_raw: bytes
    config: ImageConfig
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size: int
    created_ns: int
    chain_ids: tuple[ChainId, ...]
    diff_ids: tuple[Digest, ...]
    parent: str = ""
    tagged_ns: int = 0

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the image."""
        return self.config.labels

    def container_defaults(self) -> ContainerConfig:
        """Return what containers inherit, typed; see `config.config` for the JSON object."""
        return self.config.container_defaults()
