"""Endpoints of Docker that this engine does not have: swarm, plugins, and what is still to come.

Each says so: swarm with dockerd's own words of a node outside of one, the rest with 501 and its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from satsuma.api.request import Request
from satsuma.api.response import Answer, json_response
from satsuma.api.router import Handler
from satsuma.base.errors import NotFound, Unavailable, Unsupported

if TYPE_CHECKING:
    from satsuma.api.facade import Engine

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
    "swarm and try again."
)


async def swarm(engine: Engine, request: Request) -> Answer:
    """Any endpoint that needs a swarm manager."""
    raise Unavailable(NOT_A_MANAGER)


async def volume_update(engine: Engine, request: Request) -> Answer:
    """PUT /volumes/{name}."""
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def list_plugins(engine: Engine, request: Request) -> Answer:
    """GET /plugins."""
    return json_response([])


async def inspect_plugin(engine: Engine, request: Request) -> Answer:
    """GET /plugins/{name}/json."""
    raise NotFound(f'plugin "{request.name}" not found')


def unsupported(endpoint: str) -> Handler:
    """Return the handler of an endpoint that there is not yet."""

    async def refuse(engine: Engine, request: Request) -> Answer:
        raise Unsupported(f"{endpoint} is not supported by this engine yet")

    return refuse
