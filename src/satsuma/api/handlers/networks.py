"""Endpoints of networks.

Source: Docker Engine API v1.51 "Networks"; moby v28.5.2 api/server/router/network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from satsuma.api.filters import parse_filters
from satsuma.api.request import Request
from satsuma.api.response import Answer, empty, json_response
from satsuma.base.errors import InvalidParameter
from satsuma.spec.docker import NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest

if TYPE_CHECKING:
    from satsuma.api.facade import Engine

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


async def list_networks(engine: Engine, request: Request) -> Answer:
    """GET /networks."""
    found = await engine.networks.list(parse_filters(request.query.get("filters"), "networks"))
    if request.version < (1, 28):
        found = [await engine.networks.inspect(network["Id"], verbose=False, scope="") for network in found]
    return json_response(found)


async def inspect(engine: Engine, request: Request) -> Answer:
    """GET /networks/{id}."""
    text = request.query.get("verbose")
    if text and text not in _TRUE and text not in _FALSE:
        raise InvalidParameter(
            f'invalid value for verbose: {text}: strconv.ParseBool: parsing "{text}": invalid syntax'
        )
    return json_response(
        await engine.networks.inspect(request.name, verbose=text in _TRUE, scope=request.query.get("scope"))
    )


async def create(engine: Engine, request: Request) -> Answer:
    """POST /networks/create."""
    body = await request.json(NetworkCreateRequest)
    if request.version < (1, 48):
        body = replace(body, enable_ipv4=None)
    return json_response(await engine.networks.create(body), 201)


async def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /networks/{id}."""
    await engine.networks.remove(request.name)
    return empty(204)


async def connect(engine: Engine, request: Request) -> Answer:
    """POST /networks/{id}/connect."""
    body = await request.json(NetworkConnectRequest)
    await engine.networks.connect(request.name, body.container, body.endpoint_config)
    return empty()


async def disconnect(engine: Engine, request: Request) -> Answer:
    """POST /networks/{id}/disconnect."""
    body = await request.json(NetworkDisconnectRequest)
    await engine.networks.disconnect(request.name, body.container, body.force)
    return empty()


async def prune(engine: Engine, request: Request) -> Answer:
    """POST /networks/prune."""
    return json_response(
        await engine.networks.prune(parse_filters(request.query.get("filters"), "networks/prune"))
    )
