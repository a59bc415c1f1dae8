"""Endpoints of containers: life cycle, lists, logs, attach, files.

Source: Docker Engine API v1.51 "Containers"; moby v28.5.2 api/server/router/container.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from satsuma.api.compression import compressed, negotiate_encoding
from satsuma.api.create_gates import adapt_create, adapt_resources
from satsuma.api.filters import parse_filters
from satsuma.api.gates import trim
from satsuma.api.request import Request
from satsuma.api.response import (
    JSON,
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    TAR,
    Answer,
    Headers,
    Hijacked,
    Response,
    Stream,
    empty,
    encode_json,
    json_lines,
    json_response,
    log_frames,
)
from satsuma.api.status import reworded
from satsuma.base.errors import EngineError, InvalidParameter
from satsuma.spec.docker import ContainerConfig, CreateRequest, UpdateRequest
from satsuma.wire import stdcopy

if TYPE_CHECKING:
    from satsuma.api.facade import Engine, Waiter

_CONDITIONS = ("not-running", "next-exit", "removed")


async def list_containers(engine: Engine, request: Request) -> Answer:
    """GET /containers/json."""
    query = request.query
    filters = parse_filters(query.get("filters"), "containers")
    for key in ("before", "since"):
        if query.get(key):
            filters.setdefault(key, []).append(query.get(key))
    found = await engine.containers.list(
        all=query.flag("all"), limit=query.number("limit") or 0, size=query.flag("size"), filters=filters
    )
    return json_response(trim("containers", request.version, found))


async def create(engine: Engine, request: Request) -> Answer:
    """POST /containers/create."""
    body, warnings = adapt_create(await request.json(CreateRequest, optional=False), request.version)
    platform = request.query.get("platform") if request.version >= (1, 41) else ""
    created = await engine.containers.create(request.query.get("name") or None, body, platform)
    return json_response({"Id": created.id, "Warnings": [*created.warnings, *warnings]}, 201)


async def inspect(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/json."""
    found = await engine.containers.inspect(request.name, size=request.query.flag("size"))
    return json_response(trim("container", request.version, found))


async def start(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/start."""
    head = request.head
    if head.transfer_chunked or (head.content_length or 0) > 7:
        raise InvalidParameter(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    if request.query.get("checkpoint"):
        raise InvalidParameter("checkpoint is not supported by this engine yet")
    started = await engine.containers.start(request.name, detach_keys=request.query.get("detachKeys") or None)
    return empty(204 if started else 304)


async def stop(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/stop."""
    stopped = await engine.containers.stop(
        request.name, signal=_stop_signal(request), timeout=request.query.number("t")
    )
    return empty(204 if stopped else 304)


async def restart(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/restart."""
    await engine.containers.restart(
        request.name, signal=_stop_signal(request), timeout=request.query.number("t")
    )
    return empty(204)


def _stop_signal(request: Request) -> str | None:
    return (request.query.get("signal") or None) if request.version >= (1, 42) else None


async def kill(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/kill."""
    try:
        await engine.containers.kill(request.name, request.query.get("signal"))
    except EngineError as error:
        if str(error).lower().startswith("cannot kill container"):
            raise
        raise reworded(error, f"cannot kill container: {request.name}: {error}") from error
    return empty(204)


async def pause(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/pause."""
    await engine.containers.pause(request.name)
    return empty(204)


async def unpause(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/unpause."""
    await engine.containers.unpause(request.name)
    return empty(204)


async def rename(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/rename."""
    await engine.containers.rename(request.name, request.query.get("name"))
    return empty(204)


async def update(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/update."""
    body = adapt_resources(await request.json(UpdateRequest), request.version, unlimited=0)
    warnings = await engine.containers.update(request.name, body)
    return json_response({"Warnings": warnings or None})


async def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /containers/{id}."""
    query = request.query
    await engine.containers.remove(
        request.name, force=query.flag("force"), volumes=query.flag("v"), link=query.flag("link")
    )
    return empty(204)


async def wait(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/wait; the head goes out at once, because clients start the container on seeing it."""
    condition = "not-running"
    if request.version >= (1, 30):
        condition = request.query.get("condition") or condition
    if condition not in _CONDITIONS:
        raise InvalidParameter(f'invalid condition: "{condition}"')
    waiter = await engine.containers.wait(request.name, condition)
    return Stream(_wait_result(waiter), JSON, eager=request.version >= (1, 30))


async def _wait_result(waiter: Waiter) -> AsyncIterator[bytes]:
    try:
        try:
            result = await waiter.result()
        except EngineError as error:
            result = {"StatusCode": -1, "Error": {"Message": str(error)}}
        yield encode_json(result) + b"\n"
    finally:
        waiter.close()


async def resize(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/resize."""
    await engine.containers.resize(
        request.name, request.query.size("h", "height"), request.query.size("w", "width")
    )
    return empty()


async def top(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/top."""
    return json_response(await engine.containers.top(request.name, request.query.get("ps_args")))


async def changes(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/changes."""
    return json_response(await engine.containers.changes(request.name))


async def stats(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/stats."""
    stream = request.query.flag("stream", True)
    one_shot = request.version >= (1, 41) and request.query.flag("one-shot")
    samples = engine.containers.stats(request.name, stream=stream, one_shot=one_shot)
    return Stream(json_lines(samples, b"\n"), JSON)


async def logs(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/logs."""
    query = request.query
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    if not stdout and not stderr:
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    found = await engine.containers.logs(
        request.name,
        stdout=stdout,
        stderr=stderr,
        follow=query.flag("follow"),
        since_ns=query.time_ns("since"),
        until_ns=query.time_ns("until"),
        timestamps=query.flag("timestamps"),
        tail=_tail(query.get("tail")),
        details=query.flag("details"),
    )
    multiplexed = not found.tty and request.version >= (1, 42)
    tty = found.tty

    def in_band(error: EngineError) -> bytes:
        text = f"Error grabbing logs: {error}\n".encode()
        return text if tty else stdcopy.encode(stdcopy.SYSTEMERR, text)

    return Stream(
        log_frames(found.frames, tty=tty),
        MULTIPLEXED_STREAM if multiplexed else RAW_STREAM,
        eager=True,
        in_band=in_band,
    )


def _tail(text: str) -> int | None:
    """Return a number of lines; `all`, and what is no number, mean all of them (as dockerd)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


async def attach(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/attach."""
    query = request.query
    await engine.containers.attach(
        request.name,
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        stream=query.flag("stream"),
        logs=query.flag("logs"),
        detach_keys=query.get("detachKeys") or None,
        hijack=request.hijack,
    )
    return Hijacked() if request.hijack.accepted else empty()


async def export(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/export."""
    return Stream(engine.containers.export(request.name), "application/octet-stream")


async def archive_stat(engine: Engine, request: Request) -> Answer:
    """HEAD /containers/{id}/archive."""
    stat = await engine.containers.archive_stat(request.name, _archive_path(request))
    return Response(200, headers=_stat_header(stat))


async def archive_get(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/archive."""
    stat, chunks = await engine.containers.archive_get(request.name, _archive_path(request))
    headers = _stat_header(stat)
    encoding = negotiate_encoding(request)
    if encoding:
        headers.append(("Content-Encoding", encoding))
        chunks = compressed(chunks, encoding)
    return Stream(chunks, TAR, headers=headers)


async def archive_put(engine: Engine, request: Request) -> Answer:
    """PUT /containers/{id}/archive."""
    path = _archive_path(request)
    with request.body.file() as body:
        await engine.containers.archive_put(
            request.name,
            path,
            body,
            no_overwrite_dir_non_dir=request.query.flag("noOverwriteDirNonDir"),
            copy_uid_gid=request.query.flag("copyUIDGID"),
        )
    return empty()


def _archive_path(request: Request) -> str:
    path = request.query.get("path")
    if not path:
        raise InvalidParameter("bad parameter: pathcannot be empty")
    return path


def _stat_header(stat: dict[str, Any]) -> Headers:
    return [("X-Docker-Container-Path-Stat", base64.b64encode(encode_json(stat)).decode())]


async def prune(engine: Engine, request: Request) -> Answer:
    """POST /containers/prune."""
    filters = parse_filters(request.query.get("filters"), "containers/prune")
    return json_response(await engine.containers.prune(filters))


async def commit(engine: Engine, request: Request) -> Answer:
    """POST /commit."""
    query = request.query
    config = await request.json(ContainerConfig) if request.has_body else None
    image_id = await engine.containers.commit(
        container=query.get("container"),
        repo=query.get("repo"),
        tag=query.get("tag"),
        comment=query.get("comment"),
        author=query.get("author"),
        pause=query.flag("pause", True),
        changes=query.all("changes"),
        config=config,
    )
    return json_response({"Id": image_id}, 201)
