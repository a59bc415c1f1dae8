"""What the builder needs of images: find one, make the next one, give it a name.

`StepImages` is the narrow protocol; `ImageAdapter` is it on top of `satsuma.image`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from satsuma.base.ids import ChainId
from satsuma.image import Image, ImageService
from satsuma.spec.image import History
from satsuma.store import Layer
from satsuma.wire import reference

__all__ = ["ImageAdapter", "StepImage", "StepImages"]

# The config object of an image, as it stands in JSON.
Config = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepImage:
    """An image as a step sees it.

    Attributes:
        document: the whole image config, decoded.
        chain_ids: bottom layer first.
    """

    id: str
    document: Config
    chain_ids: tuple[str, ...]
    diff_ids: tuple[str, ...]

    @property
    def config(self) -> Config:
        """A fresh copy of the container config in it."""
        config: Config = json.loads(json.dumps(self.document.get("config") or {}))
        return config

    @property
    def history(self) -> Sequence[Config]:
        """The history entries, oldest first."""
        return self.document.get("history") or []


class StepImages(Protocol):
    """All calls may block; they are made in threads."""

    def find(self, reference: str) -> StepImage:
        """Return a local image.

        Raises:
            NotFound: `No such image: x:latest`.
        """

    def exists(self, image_id: str) -> bool:
        """Tell whether the image is still there."""

    def parent(self, image_id: str) -> str | None:
        """Return the id of the image that the image was built on, if that is known."""

    def commit(
        self,
        parent: StepImage | None,
        directory: str | None,
        config: Config,
        *,
        container_config: Config,
        author: str,
        move: bool = True,
    ) -> StepImage:
        """Make the image of a step.

        Args:
            move: the directory becomes the layer, nothing is copied; False when something else still needs it.
            container_config: the config of the step's container; its `Cmd` becomes the line of the history.
            directory: an overlay upperdir that becomes the new layer and belongs to the store from now on;
                None for a step that cannot change files.  A directory without changes gives an empty layer.
        """

    def reuse(self, parent: StepImage | None, source: StepImage, index: int, config: Config) -> StepImage:
        """Make the image of the step whose history entry is number *index* of *source*, with its layer."""

    def tag(self, image_id: str, repository: str, tag: str) -> None:
        """Give the image a name."""


class ImageAdapter:
    """`StepImages` on an image service."""

    def __init__(self, service: ImageService) -> None:
        self._service = service

    def find(self, reference: str) -> StepImage:
        """See `StepImages`."""
        return _step_image(self._service.resolve(reference))

    def exists(self, image_id: str) -> bool:
        """See `StepImages`."""
        return self._service.find(image_id) is not None

    def parent(self, image_id: str) -> str | None:
        """See `StepImages`."""
        image = self._service.find(image_id)
        return image.parent or None if image else None

    def commit(
        self,
        parent: StepImage | None,
        directory: str | None,
        config: Config,
        *,
        container_config: Config,
        author: str,
        move: bool = True,
    ) -> StepImage:
        """See `StepImages`."""
        layer: Layer | None = None
        if directory is not None:
            chain = [ChainId(chain_id) for chain_id in parent.chain_ids] if parent else []
            layer = self._service.commit_layer(directory, chain, move=move)
        line = History(
            created_by=" ".join(container_config.get("Cmd") or ()), author=author, empty_layer=layer is None
        )
        return self._create(parent, layer, config, line, container_config)

    def reuse(self, parent: StepImage | None, source: StepImage, index: int, config: Config) -> StepImage:
        """See `StepImages`."""
        entry = source.history[index]
        line = History(
            created=entry.get("created"),
            created_by=entry.get("created_by", ""),
            author=entry.get("author", ""),
            comment=entry.get("comment", ""),
            empty_layer=bool(entry.get("empty_layer")),
        )
        layer: Layer | None = None
        if not line.empty_layer:
            number = sum(not old.get("empty_layer") for old in source.history[:index])
            layers = self._service.store.layers
            layer = layers.get(source.chain_ids[number])
            layers.pin([layer.chain_id])
        return self._create(parent, layer, config, line, config)

    def _create(
        self, parent: StepImage | None, layer: Layer | None, config: Config, line: History, container: Config
    ) -> StepImage:
        with contextlib.ExitStack() as undo:
            if layer is not None:
                undo.callback(self._service.store.layers.unpin, [layer.chain_id])
            base = self._service.resolve(parent.id) if parent else None
            made = self._service.create_from(
                base,
                [layer] if layer else [],
                config,
                [line],
                author=line.author,
                container_config=container,
            )
            # The image keeps the layer from now on.
            undo.pop_all()
        return _step_image(made)

    def tag(self, image_id: str, repository: str, tag: str) -> None:
        """See `StepImages`."""
        self._service.tag_image(image_id, reference.parse(repository).with_tag(tag))


def _step_image(image: Image) -> StepImage:
    return StepImage(
        id=image.id,
        document=json.loads(image.config_raw),
        chain_ids=tuple(image.chain_ids),
        diff_ids=tuple(image.diff_ids),
    )
