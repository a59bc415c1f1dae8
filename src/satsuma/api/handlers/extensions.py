"""Endpoints beyond Docker's, all below /satsuma."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from satsuma.api.request import Request
from satsuma.api.response import JSON, Answer, Stream, encode_json, json_response, progress_stream
from satsuma.base.errors import InvalidParameter

if TYPE_CHECKING:
    from satsuma.api.facade import Engine, Waiter


async def bootstrap(engine: Engine, request: Request) -> Answer:
    """POST /satsuma/images/bootstrap?name=busybox: make an image from what the host has."""
    name = request.query.get("name")
    if not name:
        raise InvalidParameter("image name cannot be blank")
    return progress_stream(engine.images.bootstrap(name))


async def anatomy(engine: Engine, request: Request) -> Answer:
    """GET /satsuma/containers/{id}/anatomy."""
    return json_response(await engine.containers.anatomy(request.name))


async def explain(engine: Engine, request: Request) -> Answer:
    """GET /satsuma/containers/{id}/explain: the steps of the next start.

    The head goes out at once, because clients start the container on seeing it.
    """
    return Stream(_steps(await engine.containers.explain(request.name)), JSON, eager=True)


async def explain_exec(engine: Engine, request: Request) -> Answer:
    """GET /satsuma/exec/{id}/explain: the steps of its start, as above."""
    return Stream(_steps(await engine.containers.exec_explain(request.name)), JSON, eager=True)


async def _steps(waiter: Waiter) -> AsyncIterator[bytes]:
    try:
        yield encode_json(await waiter.result()) + b"\n"
    finally:
        waiter.close()


async def check(engine: Engine, request: Request) -> Answer:
    """GET /satsuma/system/check."""
    return json_response(await engine.system.check())


async def repair(engine: Engine, request: Request) -> Answer:
    """POST /satsuma/system/check: check, and remove what is there without being known."""
    return json_response(await engine.system.check(repair=True))
