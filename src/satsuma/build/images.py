"""What the builder needs of images: find one, make the next one, give it a name.

`StepImages` is the narrow protocol; `ImageAdapter` is it on top of `satsuma.image`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["StepImage", "StepImages"]

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
        self, parent: StepImage | None, directory: str | None, config: Config, *, created_by: str, author: str
    ) -> StepImage:
        """Make the image of a step.

        Args:
            directory: an overlay upperdir that becomes the new layer and belongs to the store from now on;
                None for a step that cannot change files.  A directory without changes gives an empty layer.
        """

    def reuse(self, parent: StepImage | None, source: StepImage, index: int, config: Config) -> StepImage:
        """Make the image of the step whose history entry is number *index* of *source*, with its layer."""

    def set_parent(self, image_id: str, parent_id: str) -> None:
        """Record on which image an image was built."""

    def tag(self, image_id: str, repository: str, tag: str) -> None:
        """Give the image a name."""
