"""Endpoints of volumes.

Source: Docker Engine API v1.51 "Volumes"; moby v28.5.2 api/server/router/volume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from satsuma.api.filters import parse_filters
from satsuma.api.handlers.absent import NOT_A_MANAGER
from satsuma.api.request import Request
from satsuma.api.response import Answer, empty, json_response
from satsuma.base.errors import InvalidParameter, Unavailable
from satsuma.spec.docker import VolumeCreateRequest

if TYPE_CHECKING:
    from satsuma.api.facade import Engine


async def list_volumes(engine: Engine, request: Request) -> Answer:
    """GET /volumes."""
    try:
        filters = parse_filters(request.query.get("filters"), "volumes")
    except InvalidParameter as error:
        if str(error) == "invalid filter":
            raise InvalidParameter("error reading volume filters: invalid filter") from None
        raise
    return json_response(await engine.volumes.list(filters))


async def inspect(engine: Engine, request: Request) -> Answer:
    """GET /volumes/{name}."""
    return json_response(await engine.volumes.inspect(request.name))


async def create(engine: Engine, request: Request) -> Answer:
    """POST /volumes/create."""
    body = await request.json(VolumeCreateRequest)
    if body.cluster_volume_spec is not None and request.version >= (1, 42):
        raise Unavailable(NOT_A_MANAGER)
    return json_response(await engine.volumes.create(body), 201)


async def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /volumes/{name}."""
    await engine.volumes.remove(request.name, force=request.query.flag("force"))
    return empty(204)


async def prune(engine: Engine, request: Request) -> Answer:
    """POST /volumes/prune; before 1.42 it took named volumes as well as anonymous ones."""
    filters = parse_filters(request.query.get("filters"), "volumes/prune")
    if request.version < (1, 42):
        filters.setdefault("all", []).append("true")
    return json_response(await engine.volumes.prune(filters))
