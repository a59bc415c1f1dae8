"""The face of volumes towards the API.

Source: moby volume/service/service.go of 28.5.2.
"""

from __future__ import annotations

from typing import Any

from satsuma.base.aio import blocking
from satsuma.base.errors import Conflict, InvalidParameter, Unsupported
from satsuma.container.listing import check_filters, matches_labels, matches_words, without_labels
from satsuma.engine.core import Core
from satsuma.engine.events import Filters
from satsuma.spec.docker import VolumeCreateRequest
from satsuma.volume import Volume

Json = dict[str, Any]


class Volumes:
    """Operations on volumes."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def list(self, filters: Filters) -> Json:
        """Return `{"Volumes", "Warnings"}`."""
        check_filters(filters, frozenset({"dangling", "driver", "label", "name"}))
        volumes = self._core.volumes
        dangling = truth(filters, "dangling")
        found = [
            volumes.to_json(volume)
            for volume in volumes.all()
            if (dangling is None or dangling == (not volumes.users(volume.name)))
            and (not filters.get("driver") or volume.driver in filters["driver"])
            and matches_labels(filters, volume.labels or {})
            and matches_words(filters, "name", volume.name)
        ]
        return {"Volumes": found, "Warnings": None}

    async def inspect(self, name: str) -> Json:
        volumes = self._core.volumes
        return volumes.to_json(volumes.find(name))

    async def create(self, body: VolumeCreateRequest) -> Json:
        """Make a volume, or return the one that is there."""
        if body.cluster_volume_spec is not None:
            raise Unsupported("cluster volumes are not supported by this engine")
        volumes = self._core.volumes
        volume, is_new = volumes.create(
            body.name, driver=body.driver, options=body.driver_opts, labels=body.labels
        )
        if is_new:
            self._core.bus.publish("volume", "create", volume.name, {"driver": volume.driver})
        return volumes.to_json(volume)

    async def remove(self, name: str, *, force: bool) -> None:
        """Remove a volume that nobody uses."""
        volumes = self._core.volumes
        if volumes.remove(name, force=force):
            self._core.bus.publish("volume", "destroy", name, {"driver": "local"})
            await blocking(volumes.discard, name)

    async def prune(self, filters: Filters) -> Json:
        """Remove unused volumes: anonymous ones, or with `all` every one.

        A volume with options of its own is kept: what it mounts, a directory of the host, a share, may hold more
        than a container's data.
        """
        check_filters(filters, frozenset({"label", "label!", "all"}))
        everything = truth(filters, "all") or False
        volumes = self._core.volumes

        def keep(volume: Volume) -> bool:
            labels = volume.labels or {}
            chosen = matches_labels(filters, labels) and without_labels(filters, labels)
            return not chosen or bool(volume.options) or not (everything or volume.is_anonymous)

        deleted: list[str] = []
        reclaimed = 0
        for volume in volumes.unused(keep):
            size = await blocking(volumes.usage, volume.name)
            try:
                volumes.remove(volume.name)
            except Conflict:
                continue
            await blocking(volumes.discard, volume.name)
            self._core.bus.publish("volume", "destroy", volume.name, {"driver": volume.driver})
            deleted.append(volume.name)
            reclaimed += max(0, size)
        self._core.bus.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return {"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}


def truth(filters: Filters, name: str) -> bool | None:
    """Return a boolean filter, None without it.

    Raises:
        InvalidParameter: another word.
    """
    values = {value.lower() for value in filters.get(name, ())}
    if not values:
        return None
    if values <= {"1", "true", "t"}:
        return True
    if values <= {"0", "false", "f"}:
        return False
    raise InvalidParameter(f"invalid filter '{name}=[{' '.join(sorted(values))}]'")
