"""The face of images towards the API.

Source: moby daemon/images of 28.5.2.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, BinaryIO

from satsuma.base.aio import blocking
from satsuma.base.errors import InvalidParameter, Unsupported
from satsuma.container.listing import check_filters
from satsuma.engine.core import Core
from satsuma.engine.events import Filters
from satsuma.engine.remove import until_ns
from satsuma.engine.streams import pieces, progress
from satsuma.wire import platforms

Json = dict[str, Any]
Jsons = list[Json]
Names = list[str]


class Images:
    """Operations on images."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def _containers(self, image_id: str) -> Names:
        return [record.id for record in self._core.registry if record.image_id == image_id]

    def _running(self, image_id: str) -> Names:
        return [
            record.id for record in self._core.registry if record.image_id == image_id and record.state.is_up
        ]

    async def list(self, *, all: bool, filters: Filters, shared_size: bool, digests: bool = False) -> Jsons:
        """Return images; with *all* also those that are only parents."""
        counts: dict[str, int] = {}
        for record in self._core.registry:
            if not record.hidden:
                counts[record.image_id] = counts.get(record.image_id, 0) + 1
        return self._core.images.summaries(
            all=all,
            filters=filters,
            containers=lambda image_id: counts.get(image_id, 0),
            shared_size=shared_size,
        )

    async def inspect(self, ref: str) -> Json:
        return self._core.images.inspect(ref)

    async def history(self, ref: str) -> Jsons:
        return self._core.images.history(ref)

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        await blocking(self._core.images.tag, ref, repo, tag)

    async def remove(self, ref: str, *, force: bool, noprune: bool) -> Jsons:
        """Untag or delete; returns what happened."""
        return [
            dict(item)
            for item in await blocking(
                self._core.images.remove,
                ref,
                force=force,
                prune=not noprune,
                in_use=self._containers,
                running=self._running,
            )
        ]

    async def prune(self, filters: Filters) -> Json:
        """Remove unused images: dangling ones, or with `dangling=false` all."""
        check_filters(filters, frozenset({"dangling", "label", "label!", "until"}))
        dangling = [value.lower() for value in filters.get("dangling", ())]
        answer = await blocking(
            self._core.images.prune,
            dangling_only=not any(value in ("0", "false", "f") for value in dangling),
            until_ns=until_ns(filters),
            filters={key: filters[key] for key in ("label", "label!") if key in filters},
            in_use=self._containers,
            running=self._running,
        )
        self._core.bus.publish("image", "prune", "", {"reclaimed": str(answer["SpaceReclaimed"])})
        return answer

    def load(self, body: BinaryIO, *, quiet: bool) -> AsyncIterator[Json]:
        """Load an archive; yields Docker's progress objects."""
        found = progress(lambda report: self._core.images.load(body, report))
        return _without_bars(found) if quiet else found

    def save(self, names: Names) -> AsyncIterator[bytes]:
        """Yield an archive of images."""
        return pieces(lambda: self._core.images.save(names))

    def import_(
        self, body: BinaryIO, *, repo: str, tag: str, message: str, changes: Names, platform: str = ""
    ) -> AsyncIterator[Json]:
        """Make an image of a tar; yields its id as status."""
        ref = (f"{repo}:{tag}" if tag else repo) or None
        wanted = platforms.parse(platform) if platform else None
        if wanted is not None and wanted.os != "linux":
            raise InvalidParameter(f"operating system is not supported: {wanted.os}")

        def work(report: Any) -> None:
            image = self._core.images.import_tar(body, ref, changes, message, platform=wanted)
            report({"status": image.id})

        return progress(work)

    def pull(
        self, ref: str, *, tag: str = "", platform: str = "", auth: Json | None = None
    ) -> AsyncIterator[Json]:
        """Refuse: there is no registry client yet."""
        raise Unsupported(
            f"cannot pull {ref}{':' + tag if tag else ''}: POST /images/create with fromImage is not implemented "
            "by this engine yet; load an archive, or make a base image with POST /satsuma/images/bootstrap"
        )

    def bootstrap(self, name: str) -> AsyncIterator[Json]:
        """Make a base image from what this host has; yields progress objects."""

        def work(report: Any) -> None:
            image = self._core.images.bootstrap(name, report)
            report({"aux": {"ID": image.id}})

        return progress(work)


async def _without_bars(found: AsyncIterator[Json]) -> AsyncIterator[Json]:
    async for item in found:
        if "progressDetail" not in item:
            yield item
