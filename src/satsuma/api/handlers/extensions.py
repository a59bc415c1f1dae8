"""Endpoints beyond Docker's, all below /satsuma."""

from __future__ import annotations

from typing import TYPE_CHECKING

from satsuma.api.request import Request
from satsuma.api.response import Answer, json_response, progress_stream
from satsuma.base.errors import InvalidParameter

if TYPE_CHECKING:
    from satsuma.api.facade import Engine


async def bootstrap(engine: Engine, request: Request) -> Answer:
    """POST /satsuma/images/bootstrap?name=busybox: make an image from what the host has."""
    name = request.query.get("name")
    if not name:
        raise InvalidParameter("image name cannot be blank")
    return progress_stream(engine.images.bootstrap(name))


async def anatomy(engine: Engine, request: Request) -> Answer:
    """GET /satsuma/containers/{id}/anatomy."""
    return json_response(await engine.containers.anatomy(request.name))


async def check(engine: Engine, request: Request) -> Answer:
    """GET /satsuma/system/check."""
    return json_response(await engine.system.check())


async def repair(engine: Engine, request: Request) -> Answer:
    """POST /satsuma/system/check: check, and remove what is there without being known."""
    return json_response(await engine.system.check(repair=True))
