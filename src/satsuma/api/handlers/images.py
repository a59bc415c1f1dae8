"""Endpoints of images.

Source: Docker Engine API v1.51 "Images"; moby v28.5.2 api/server/router/image.
"""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from satsuma.api.filters import parse_filters
from satsuma.api.gates import trim
from satsuma.api.query import require_host_platform
from satsuma.api.request import Request
from satsuma.api.response import (
    TAR,
    Answer,
    Stream,
    close_iterator,
    empty,
    json_response,
    progress_error,
    progress_stream,
)
from satsuma.base.aio import blocking
from satsuma.base.errors import Forbidden, InvalidParameter, System

if TYPE_CHECKING:
    from satsuma.api.facade import Engine

Json = dict[str, Any]

DOWNLOAD_TIMEOUT = 60.0


async def list_images(engine: Engine, request: Request) -> Answer:
    """GET /images/json."""
    query = request.query
    filters = parse_filters(query.get("filters"), "images")
    if request.version < (1, 41) and query.get("filter"):
        filters.setdefault("reference", []).append(query.get("filter"))
    found = await engine.images.list(
        all=query.flag("all"),
        filters=filters,
        shared_size=request.version >= (1, 42) and query.flag("shared-size"),
        digests=query.flag("digests"),
    )
    return json_response(trim("images", request.version, found))


async def inspect(engine: Engine, request: Request) -> Answer:
    """GET /images/{name}/json."""
    query = request.query
    if request.version >= (1, 49) and query.get("platform"):
        if query.flag("manifests"):
            raise InvalidParameter("conflicting options: manifests and platform options cannot both be set")
        require_host_platform([query.get("platform")], request.name)
    return json_response(trim("image", request.version, await engine.images.inspect(request.name)))


async def history(engine: Engine, request: Request) -> Answer:
    """GET /images/{name}/history."""
    if request.version >= (1, 48):
        require_host_platform(request.query.all("platform"), request.name)
    return json_response(await engine.images.history(request.name))


async def tag(engine: Engine, request: Request) -> Answer:
    """POST /images/{name}/tag."""
    repository = request.query.get("repo")
    if not repository:
        raise InvalidParameter("invalid reference format")
    if repository == "sha256":
        raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
    await engine.images.tag(request.name, repository, request.query.get("tag"))
    return empty(201)


async def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /images/{name}."""
    query = request.query
    if not request.name.strip():
        raise InvalidParameter("image name cannot be blank")
    if request.version >= (1, 50):
        require_host_platform(query.all("platforms"), request.name)
    return json_response(
        await engine.images.remove(request.name, force=query.flag("force"), noprune=query.flag("noprune"))
    )


async def prune(engine: Engine, request: Request) -> Answer:
    """POST /images/prune."""
    return json_response(
        await engine.images.prune(parse_filters(request.query.get("filters"), "images/prune"))
    )


async def create(engine: Engine, request: Request) -> Answer:
    """POST /images/create: pull with `fromImage`, import otherwise."""
    query = request.query
    platform = query.get("platform") if request.version >= (1, 32) else ""
    image = query.get("fromImage")
    if image:
        if image.removesuffix(":") == "scratch":
            raise Forbidden("'scratch' is a reserved name")
        auth = decode_auth(request.head.headers.get("x-registry-auth"))
        # "pull -a" of old clients sends a name that ends with a colon.
        return progress_stream(
            engine.images.pull(image.removesuffix(":"), tag=query.get("tag"), platform=platform, auth=auth)
        )
    return progress_stream(_import(engine, request, platform))


async def _import(engine: Engine, request: Request, platform: str) -> AsyncIterator[Json]:
    query = request.query
    source = query.get("fromSrc")
    if not source:
        raise InvalidParameter("one of fromImage and fromSrc is required")
    if source == "-":
        body: BinaryIO = request.body.file()
    else:
        url = source if "://" in source else f"http://{source}"
        body = await blocking(_download, url)
        yield {"status": f"Downloading from {url}"}
    lines = engine.images.import_(
        body,
        repo=query.get("repo"),
        tag=query.get("tag"),
        message=query.get("message") or f"Imported from {source}",
        changes=query.all("changes"),
        platform=platform,
    )
    try:
        async for line in lines:
            yield line
    finally:
        await close_iterator(lines)
        body.close()


def _download(url: str) -> BinaryIO:
    if not url.startswith(("http://", "https://")):
        raise InvalidParameter(f"unsupported URL: {url}")
    try:
        body: BinaryIO = urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        words = (reason.strerror or str(reason)).lower() if isinstance(reason, OSError) else str(reason)
        raise System(f'Get "{url}": {words}') from error
    return body


async def load(engine: Engine, request: Request) -> Answer:
    """POST /images/load; always 200, errors are in the stream (as dockerd)."""
    if request.version >= (1, 48):
        _check_single_platform(request)
    return Stream(
        _load(engine, request, quiet=request.query.flag("quiet", True)),
        "application/json",
        eager=True,
        in_band=progress_error,
    )


async def _load(engine: Engine, request: Request, *, quiet: bool) -> AsyncIterator[bytes]:
    with request.body.file() as body:
        stream = progress_stream(engine.images.load(body, quiet=quiet))
        try:
            async for line in stream.chunks:
                yield line
        finally:
            await close_iterator(stream.chunks)


async def save_one(engine: Engine, request: Request) -> Answer:
    """GET /images/{name}/get."""
    return _save(engine, request, [request.name])


async def save(engine: Engine, request: Request) -> Answer:
    """GET /images/get."""
    return _save(engine, request, request.query.all("names"))


def _save(engine: Engine, request: Request, names: list[str]) -> Stream:
    if request.version >= (1, 48):
        _check_single_platform(request)
    return Stream(engine.images.save(names), TAR)


def _check_single_platform(request: Request) -> None:
    platforms = request.query.all("platform")
    if len(platforms) > 1:
        raise InvalidParameter("multiple platform parameters not supported")
    require_host_platform(platforms, request.name or ", ".join(request.query.all("names")))


def decode_auth(header: str) -> Json | None:
    """Decode `X-Registry-Auth`; what is invalid counts as absent (as dockerd)."""
    if not header:
        return None
    try:
        raw = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        value = msgspec.json.decode(raw)
    except (ValueError, msgspec.DecodeError):
        return None
    return value if isinstance(value, dict) else None
