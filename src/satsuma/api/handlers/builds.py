"""Endpoints of the builder.

Source: Docker Engine API v1.51 "Image" (build); moby v28.5.2 api/server/router/build.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from satsuma.api.filters import parse_filters
from satsuma.api.query import Query, parse_int
from satsuma.api.request import Request
from satsuma.api.response import Answer, close_iterator, json_response, progress_stream
from satsuma.base.errors import InvalidParameter, Unsupported
from satsuma.build import BuildOptions, Ulimit

if TYPE_CHECKING:
    from satsuma.api.facade import Engine

Json = dict[str, Any]


async def build(engine: Engine, request: Request) -> Answer:
    """POST /build, the classic protocol."""
    query = request.query
    version = query.get("version") or "1"
    if version not in ("1", "2"):
        raise InvalidParameter(f'invalid version "{version}"')
    if version == "2":
        raise Unsupported("POST /build with version=2 (BuildKit) is not supported by this engine yet")
    if query.get("outputs"):
        raise Unsupported("POST /build with outputs is not supported by this engine yet")
    options = build_options(query, platform_known=request.version >= (1, 32))
    return progress_stream(_build(engine, request, options))


async def _build(engine: Engine, request: Request, options: BuildOptions) -> AsyncIterator[Json]:
    want_aux = request.version >= (1, 30)
    with contextlib.nullcontext() if options.remote else request.body.file() as context:
        lines = engine.builder.build(options, context)
        try:
            async for line in lines:
                if want_aux or "aux" not in line:
                    yield line
        finally:
            await close_iterator(lines)


def build_options(query: Query, *, platform_known: bool = True) -> BuildOptions:
    """Decode the parameters of a build.

    Raises:
        InvalidParameter: malformed, in Docker's words.
    """
    return BuildOptions(
        tags=tuple(query.all("t")),
        dockerfile=query.get("dockerfile"),
        remote=query.get("remote"),
        build_args=_json(query, "buildargs", dict[str, str | None], "error reading build args") or {},
        labels=_json(query, "labels", dict[str, str], "error reading labels") or {},
        target=query.get("target"),
        platform=query.get("platform") if platform_known else "",
        no_cache=query.flag("nocache"),
        cache_from=tuple(_json(query, "cachefrom", list[str], "error reading cache-from") or ()),
        pull=query.flag("pull"),
        quiet=query.flag("q"),
        rm=query.flag("forcerm") or not query.get("rm") or query.flag("rm"),
        force_rm=query.flag("forcerm"),
        squash=query.flag("squash"),
        network_mode=query.get("networkmode"),
        extra_hosts=tuple(query.all("extrahosts")),
        security_opt=tuple(query.all("securityopt")),
        isolation=query.get("isolation"),
        cgroup_parent=query.get("cgroupparent"),
        memory=_int_or_zero(query, "memory"),
        memory_swap=_int_or_zero(query, "memswap"),
        cpu_shares=_int_or_zero(query, "cpushares"),
        cpu_period=_int_or_zero(query, "cpuperiod"),
        cpu_quota=_int_or_zero(query, "cpuquota"),
        cpuset_cpus=query.get("cpusetcpus"),
        cpuset_mems=query.get("cpusetmems"),
        shm_size=parse_int(query.get("shmsize"), "strconv.ParseInt") if query.get("shmsize") else 0,
        ulimits=_ulimits(query),
    )


def _int_or_zero(query: Query, name: str) -> int:
    try:
        return query.number(name) or 0
    except InvalidParameter:
        return 0


def _json(query: Query, name: str, shape: Any, what: str) -> Any:
    text = query.get(name)
    if not text:
        return None
    try:
        return msgspec.json.decode(text.encode("utf-8", "replace"), type=shape | None)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidParameter(f"{what}: {error}") from None


def _ulimits(query: Query) -> tuple[Ulimit, ...]:
    found = _json(query, "ulimits", list[dict[str, Any]], "error reading ulimit settings") or []
    limits = []
    for item in found:
        fields = {key.lower(): value for key, value in item.items()}
        name, soft, hard = fields.get("name"), fields.get("soft", 0), fields.get("hard", 0)
        if not isinstance(name, str) or not isinstance(soft, int) or not isinstance(hard, int):
            raise InvalidParameter("error reading ulimit settings: malformed ulimit")
        limits.append(Ulimit(name, soft, hard))
    return tuple(limits)


async def prune(engine: Engine, request: Request) -> Answer:
    """POST /build/prune."""
    query = request.query
    reserved = maximum = free = 0
    if request.version >= (1, 48):
        reserved = _bytes(query, "reserved-space")
        maximum, free = _bytes(query, "max-used-space"), _bytes(query, "min-free-space")
    report = await engine.builder.prune(
        all=query.flag("all"),
        filters=parse_filters(query.get("filters"), "build/prune"),
        reserved_space=reserved or _bytes(query, "keep-storage"),
        max_used_space=maximum,
        min_free_space=free,
    )
    return json_response(report)


def _bytes(query: Query, name: str) -> int:
    text = query.get(name)
    if not text:
        return 0
    try:
        return parse_int(text, "strconv.Atoi")
    except InvalidParameter as error:
        raise InvalidParameter(f"{name} is in bytes and expects an integer, got {text}: {error}") from None
