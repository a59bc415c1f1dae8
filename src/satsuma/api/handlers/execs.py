"""Endpoints of exec sessions.

Source: Docker Engine API v1.51 "Exec"; moby v28.5.2 api/server/router/container/exec.go.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from msgspec.structs import replace

from satsuma.api.request import Request
from satsuma.api.response import Answer, Hijacked, empty, json_response
from satsuma.base.errors import Conflict, EngineError, InvalidParameter, NotFound
from satsuma.spec.docker import ExecCreateRequest, ExecStartRequest
from satsuma.wire import stdcopy

if TYPE_CHECKING:
    from satsuma.api.facade import Engine


async def create(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/exec."""
    body = await request.json(ExecCreateRequest)
    if not body.cmd:
        raise InvalidParameter("No exec command specified")
    if request.version < (1, 42):
        body = replace(body, console_size=None)
    return json_response({"Id": await engine.containers.exec_create(request.name, body)}, 201)


async def start(engine: Engine, request: Request) -> Answer:
    """POST /exec/{id}/start."""
    body = await request.json(ExecStartRequest)
    if body.console_size is not None and (request.version < (1, 42) or not body.tty):
        body = replace(body, console_size=None)
    if body.detach:
        await engine.containers.exec_start(request.name, body, None)
        return empty()
    try:
        await engine.containers.exec_start(request.name, body, request.hijack)
    except (NotFound, Conflict):
        raise
    except EngineError as error:
        if request.hijack.accepted:
            raise
        # dockerd has taken the connection over before it starts the process, so its clients look for the
        # reason of a failed start in the stream, and for the exit status in inspect.
        await _fail_in_band(request, error, tty=body.tty)
    return Hijacked() if request.hijack.accepted else empty()


async def _fail_in_band(request: Request, error: EngineError, *, tty: bool) -> None:
    stream = await request.hijack.accept(tty=tty)
    text = f"{error}\r\n".encode()
    with socket.socket(fileno=stream.fd) as sock:
        sock.setblocking(False)
        data = text if tty else stdcopy.encode(stdcopy.STDOUT, text)
        await asyncio.get_running_loop().sock_sendall(sock, data)


async def inspect(engine: Engine, request: Request) -> Answer:
    """GET /exec/{id}/json."""
    return json_response(await engine.containers.exec_inspect(request.name))


async def resize(engine: Engine, request: Request) -> Answer:
    """POST /exec/{id}/resize."""
    await engine.containers.exec_resize(
        request.name, request.query.size("h", "height"), request.query.size("w", "width")
    )
    return empty()
