"""What all stages of one build share."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from satsuma.base.aio import blocking, spawn
from satsuma.base.errors import InvalidParameter, NotFound, Unsupported
from satsuma.build.cache import BuildCache, StageCache
from satsuma.build.context import Context, Workspace
from satsuma.build.images import StepImage, StepImages
from satsuma.build.options import BuildOptions
from satsuma.build.output import Output
from satsuma.build.runner import ImagePuller, StepRunner
from satsuma.store import Snapshots

__all__ = ["ImageChecksums", "Session", "settled"]

P = ParamSpec("P")
T = TypeVar("T")


async def settled(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run *fn* in a thread; a cancelled caller still waits until it is done.

    What comes after a cancellation removes directories and mounts, which must not be in use then.
    """
    task = spawn(f"build:{getattr(fn, '__name__', 'work')}", _quiet(blocking(fn, *args, **kwargs)))
    try:
        value, error = await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


async def _quiet(work: Awaitable[T]) -> tuple[T | None, Exception | None]:
    # A failure is an ordinary answer here (a Dockerfile may ask for anything), not a task that failed.
    try:
        return await work, None
    except Exception as exc:
        return None, exc


class ImageChecksums:
    """Checksums of paths in images, which never change, for the images copied from last."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._images: OrderedDict[str, dict[bytes, str]] = OrderedDict()

    def of(self, image_id: str) -> dict[bytes, str]:
        """Return the checksums by path of one image, to be filled by the caller."""
        known = self._images.setdefault(image_id, {})
        self._images.move_to_end(image_id)
        if len(self._images) > self._limit:
            self._images.popitem(last=False)
        return known


@dataclass(slots=True, kw_only=True)
class Session:
    """One build.

    Attributes:
        stages: finished stages, in order: (name, image).
    """

    options: BuildOptions
    output: Output
    images: StepImages
    snapshots: Snapshots
    cache: BuildCache
    runner: StepRunner
    puller: ImagePuller | None
    workspace: Workspace
    checksums: ImageChecksums
    data_root: str
    escape: str
    context: Context | None = None
    context_checksums: dict[bytes, str] = field(default_factory=dict)
    stages: list[tuple[str, StepImage | None]] = field(default_factory=list)
    pulled: set[str] = field(default_factory=set)

    def new_cache(self) -> StageCache:
        """Return the cache for one stage."""
        options = self.options
        return StageCache(self.cache, self.images, list(options.cache_from), enabled=not options.no_cache)

    def stage(self, name: str) -> tuple[str, StepImage | None] | None:
        """Return a finished stage by its name, any case."""
        return next((stage for stage in self.stages if stage[0] and stage[0] == name.lower()), None)

    async def image_of(self, reference: str) -> StepImage | None:
        """Return the image of a stage (name or number), or a local or pulled one.

        Raises:
            InvalidParameter: a number that is no finished stage.
            NotFound: no such image, and no way to get it.
        """
        stage = self.stage(reference)
        if stage is None and reference.isascii() and reference.lstrip("+-").isdecimal():
            stage = self._stage_by_number(int(reference))
        if stage is not None:
            return stage[1]
        return await self.base_image(reference)

    def _stage_by_number(self, number: int) -> tuple[str, StepImage | None]:
        if number == len(self.stages):
            raise InvalidParameter("refers to current build stage")
        if not 0 <= number < len(self.stages):
            raise InvalidParameter("index out of bounds")
        return self.stages[number]

    async def base_image(self, reference: str) -> StepImage:
        """Return an image by reference, pulled if it is missing or if the client wants it fresh."""
        if self.options.pull and self.puller is None:
            raise Unsupported(f"cannot pull {reference}: this engine has no registry client yet")
        if self.options.pull and self.puller is not None and reference not in self.pulled:
            await self.puller.pull(reference, self.output)
            self.pulled.add(reference)
        try:
            return await settled(self.images.find, reference)
        except NotFound:
            if self.puller is None or reference in self.pulled:
                raise
        await self.puller.pull(reference, self.output)
        self.pulled.add(reference)
        return await settled(self.images.find, reference)
