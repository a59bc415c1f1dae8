"""Endpoints of the engine as a whole.

Source: Docker Engine API v1.51 "System"; moby v28.5.2 api/server/router/system.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from satsuma.api.filters import parse_filters
from satsuma.api.gates import trim
from satsuma.api.request import Request, Version
from satsuma.api.response import (
    JSON,
    TEXT,
    Answer,
    Response,
    Stream,
    close_iterator,
    json_lines,
    json_response,
)
from satsuma.base.errors import InvalidParameter

if TYPE_CHECKING:
    from satsuma.api.facade import Engine

_DF_TYPES = frozenset(("container", "image", "volume", "build-cache"))


async def ping(engine: Engine, request: Request) -> Answer:
    """GET and HEAD /_ping."""
    headers = [("Cache-Control", "no-cache, no-store, must-revalidate"), ("Pragma", "no-cache")]
    headers += (await engine.system.ping()).items()
    return Response(200, b"" if request.method == "HEAD" else b"OK", TEXT, headers)


async def version(engine: Engine, request: Request) -> Answer:
    """GET /version."""
    return json_response(await engine.system.version())


async def info(engine: Engine, request: Request) -> Answer:
    """GET /info."""
    return json_response(trim("info", request.version, await engine.system.info()))


async def disk_usage(engine: Engine, request: Request) -> Answer:
    """GET /system/df."""
    types: set[str] | None = None
    if request.version >= (1, 42) and "type" in request.query:
        types = set(request.query.all("type"))
        for kind in types - _DF_TYPES:
            raise InvalidParameter(f"unknown object type: {kind}")
    usage = await engine.system.df(types, request.query.flag("verbose"))
    return json_response(trim("df", request.version, usage))


async def events(engine: Engine, request: Request) -> Answer:
    """GET /events."""
    since, until = request.query.time_ns("since"), request.query.time_ns("until")
    if since is not None and until is not None and until < since:
        raise InvalidParameter(
            f"`since` time ({request.query.get('since')}) cannot be after "
            f"`until` time ({request.query.get('until')})"
        )
    filters = parse_filters(request.query.get("filters"))
    found = engine.system.events(since_ns=since, until_ns=until, filters=filters)
    return Stream(json_lines(_known_to(found, request.version), b"\n"), JSON, eager=True)


async def _known_to(events: AsyncIterator[dict[str, Any]], version: Version) -> AsyncIterator[dict[str, Any]]:
    """Leave out events that a version does not have: images are created since 1.46."""
    try:
        async for event in events:
            if version >= (1, 46) or event["Type"] != "image" or event["Action"] != "create":
                yield event
    finally:
        await close_iterator(events)
