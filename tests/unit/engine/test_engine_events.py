"""The event bus: order, looking back, filters, slow readers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from satsuma.base.clock import now_ns
from satsuma.base.errors import InvalidParameter
from satsuma.engine.events import Bus, parse_filters

WEB = {"image": "busybox", "name": "web", "tier": "front"}


async def collect(bus: Bus, filters: dict[str, list[str]], *, since: int | None = 0) -> list[str]:
    found = bus.read(since_ns=since, until_ns=now_ns(), wanted=parse_filters(filters))
    return [event["Action"] async for event in found]


def filled() -> Bus:
    bus = Bus()
    bus.publish("image", "tag", "sha256:1", {"name": "busybox:latest"})
    bus.publish("container", "create", "c" * 64, WEB)
    bus.publish("network", "connect", "n" * 64, {"container": "c" * 64, "name": "bridge", "type": "bridge"})
    bus.publish("container", "start", "c" * 64, WEB)
    bus.publish("container", "exec_create: sh -c x", "c" * 64, WEB | {"execID": "e"})
    bus.publish("container", "health_status: healthy", "c" * 64, WEB)
    bus.publish("volume", "create", "data", {"driver": "local"})
    return bus


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"type": ["volume"]}, ["create"]),
        ({"type": ["volume", "image"]}, ["tag", "create"]),
        ({"event": ["start"]}, ["start"]),
        ({"event": ["exec_create"]}, ["exec_create: sh -c x"]),
        ({"event": ["health_status"]}, ["health_status: healthy"]),
        ({"event": ["health_status: healthy"]}, ["health_status: healthy"]),
        ({"container": ["web"], "type": ["container"], "event": ["create"]}, ["create"]),
        ({"container": ["ccc"], "event": ["start"]}, ["start"]),
        ({"container": ["other"]}, []),
        ({"label": ["tier=front"], "event": ["start"]}, ["start"]),
        ({"label": ["tier=back"]}, []),
        ({"image": ["busybox"], "type": ["image"]}, ["tag"]),
        ({"image": ["busybox"], "event": ["start"]}, ["start"]),
        ({"image": ["busybo"]}, []),
        ({"volume": ["data"]}, ["create"]),
        ({"scope": ["swarm"]}, []),
    ],
)
async def test_filters(filters: dict[str, list[str]], expected: list[str]) -> None:
    assert await collect(filled(), filters) == expected


def test_unknown_filters_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="invalid filter 'nope'"):
        parse_filters({"nope": ["x"]})


async def test_shape_and_order() -> None:
    bus = filled()
    events: list[dict[str, Any]] = [
        event async for event in bus.read(since_ns=0, until_ns=now_ns(), wanted=parse_filters({}))
    ]
    times = [event["timeNano"] for event in events]
    assert times == sorted(set(times))
    start = events[3]
    assert list(start) == ["status", "id", "from", "Type", "Action", "Actor", "scope", "time", "timeNano"]
    assert list(start["Actor"]["Attributes"]) == ["image", "name", "tier"]
    assert "status" not in events[2]


async def test_without_since_only_new_events_come() -> None:
    bus = filled()
    reader = bus.read(since_ns=None, until_ns=None, wanted=parse_filters({}))
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    bus.publish("container", "die", "c" * 64, WEB)
    assert (await waiting)["Action"] == "die"
    assert bus.reader_count == 1
    await reader.aclose()
    assert bus.reader_count == 0


async def test_until_ends_the_stream() -> None:
    bus = Bus()
    reader = bus.read(since_ns=None, until_ns=now_ns() + 30_000_000, wanted=parse_filters({}))
    assert [event async for event in reader] == []
