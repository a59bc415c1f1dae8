"""The image config of the OCI image specification, in Docker's dialect, and the documents of archives.

Owns types and their JSON.  A config's digest is the image's id, so its raw bytes are kept beside the decoded
value; nothing here re-encodes what somebody else wrote.

Source: image-spec config.md, manifest.md, image-layout.md; moby image/image.go (`docker_version`, `container`,
`container_config`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from satsuma.base.clock import parse_rfc3339
from satsuma.base.errors import InvalidParameter
from satsuma.base.ids import ChainId, Digest, is_digest, sha256_digest
from satsuma.spec.decode import decode_json
from satsuma.spec.docker import ContainerConfig

MAX_CONFIG = 8 << 20
MAX_MANIFEST = 4 << 20
MAX_ARCHIVE_JSON = 16 << 20

MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

EMPTY_DIFF_ID = Digest("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")
"""diff_id of a tar without entries (1,024 zero bytes)."""


class History(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """How one layer, or one change of the config, came about."""

    created: str | None = None
    author: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class RootFS(Struct, kw_only=True, frozen=True):
    """The layers, bottom first, by the digests of their uncompressed tars."""

    type: str = ""
    diff_ids: list[str] = []


class ImageConfig(Struct, kw_only=True, frozen=True):
    """An image: defaults for its containers, its layers and its history."""

    architecture: str = ""
    variant: str = ""
    os: str = ""
    os_version: str = field(default="", name="os.version")
    os_features: list[str] | None = field(default=None, name="os.features")
    created: str | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    container: str = ""
    config: dict[str, Any] | None = None
    """Docker's container config as JSON object: `Env`, `Cmd`, `Labels` …; unknown fields are kept."""
    container_config: dict[str, Any] | None = None
    rootfs: RootFS = RootFS()
    history: list[History] | None = None

    @property
    def labels(self) -> dict[str, str]:
        """The image's labels."""
        return (self.config or {}).get("Labels") or {}

    @property
    def created_ns(self) -> int:
        """Creation time in nanoseconds, 0 when the config has none."""
        return time_ns(self.created)

    def container_defaults(self) -> ContainerConfig:
        """Return the defaults for containers, typed."""
        return decode_json(msgspec.json.encode(self.config or {}), ContainerConfig)


def time_ns(text: str | None) -> int:
    """Return a time of a config in nanoseconds; 0 for none, nonsense and Go's zero time."""
    if not text:
        return 0
    try:
        return max(parse_rfc3339(text), 0)
    except ValueError:
        return 0


def parse_config(raw: bytes) -> ImageConfig:
    """Decode an image config and check what everything else relies on.

    Raises:
        InvalidParameter: no config, or one without a sound list of layers.
    """
    if len(raw) > MAX_CONFIG:
        raise InvalidParameter(f"image config of {len(raw)} bytes is too large")
    config = decode_json(raw, ImageConfig)
    if config.rootfs.type not in ("layers", ""):
        raise InvalidParameter(f"unsupported rootfs type {config.rootfs.type!r}")
    for diff_id in config.rootfs.diff_ids:
        if not is_digest(diff_id):
            raise InvalidParameter(f"invalid diff id {diff_id!r} in image config")
    filled = sum(not entry.empty_layer for entry in config.history or ())
    if config.history and filled > len(config.rootfs.diff_ids):
        raise InvalidParameter("too many non-empty layers in History section")
    config.container_defaults()
    return config


def encode_config(config: ImageConfig) -> bytes:
    """Return the canonical JSON of a config that we made: fields that are not set are left out."""
    document = {key: value for key, value in msgspec.to_builtins(config).items() if value not in ("", None)}
    document["rootfs"] = {"type": "layers", "diff_ids": list(config.rootfs.diff_ids)}
    document["architecture"] = config.architecture
    document["os"] = config.os
    return msgspec.json.encode(document, order="deterministic")


def chain_ids(diff_ids: Iterable[str]) -> list[ChainId]:
    """Return the chain id of each prefix of a stack, bottom layer first.

    Source: image-spec config.md "Layer ChainID".
    """
    chain: list[ChainId] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1] if chain else None, diff_id))
    return chain


def chain_id(parent: str | None, diff_id: str) -> ChainId:
    """Return the chain id of a layer on top of *parent*."""
    if parent is None:
        return ChainId(diff_id)
    return ChainId("sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest())


def encode_manifest(config_raw: bytes, layers: Sequence[tuple[str, int]]) -> bytes:
    """Return an OCI manifest; *layers* are (digest, size) of uncompressed tars, bottom first."""
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": {
                "mediaType": MEDIA_CONFIG,
                "digest": sha256_digest(config_raw),
                "size": len(config_raw),
            },
            "layers": [{"mediaType": MEDIA_LAYER, "digest": digest, "size": size} for digest, size in layers],
        }
    )
