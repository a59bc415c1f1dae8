"""The event bus: what happened, in order, for `events` and for whoever waits inside the engine.

Keeps the last events, so that `since` can look back; a slow reader loses its oldest events rather than holding
up the engine.

Source: moby daemon/events/events.go (64 kept; we keep more), api/types/events.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from satsuma.base.clock import now_ns
from satsuma.base.errors import InvalidParameter

Json = dict[str, Any]
Filters = Mapping[str, list[str]]

KEPT = 4096
READER_QUEUE = 4096
FILTERS = frozenset(
    (
        "config container daemon event image label network node plugin scope secret service type volume builder"
    ).split()
)
_OBJECTS = ("container", "image", "network", "volume", "plugin", "daemon", "builder")


class Bus:
    """Publish and read events.  Used from the event loop only."""

    def __init__(self) -> None:
        self._kept: deque[Json] = deque(maxlen=KEPT)
        self._readers: set[asyncio.Queue[Json]] = set()
        self._last_ns = 0

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> None:
        """Announce that *action* happened to an object of *kind*."""
        # Strictly increasing, so that "since" never repeats nor skips an event of the same nanosecond.
        at = max(now_ns(), self._last_ns + 1)
        self._last_ns = at
        event: Json = {}
        if kind in ("container", "image"):
            event["status"] = action
            event["id"] = actor_id
            if kind == "container":
                event["from"] = attributes.get("image", "")
        event |= {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor_id, "Attributes": dict(sorted(attributes.items()))},
            "scope": "local",
            "time": at // 10**9,
            "timeNano": at,
        }
        self._kept.append(event)
        for queue in self._readers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @property
    def reader_count(self) -> int:
        return len(self._readers)

    async def read(
        self, *, since_ns: int | None, until_ns: int | None, wanted: Callable[[Json], bool]
    ) -> AsyncIterator[Json]:
        """Yield kept events from *since_ns* on, then new ones, until *until_ns*.

        Args:
            until_ns: None means for ever; a time in the past means only kept events.
        """
        queue: asyncio.Queue[Json] = asyncio.Queue(READER_QUEUE)
        self._readers.add(queue)
        try:
            if since_ns is None and until_ns is not None:
                since_ns = 0  # as dockerd: an end alone asks for the past
            if since_ns is not None:
                for event in list(self._kept):
                    late = until_ns is not None and event["timeNano"] > until_ns
                    if since_ns <= event["timeNano"] and not late and wanted(event):
                        yield event
            while True:
                fresh = await _next(queue, until_ns)
                if fresh is None or (until_ns is not None and fresh["timeNano"] > until_ns):
                    return
                if wanted(fresh):
                    yield fresh
        finally:
            self._readers.discard(queue)


async def _next(queue: asyncio.Queue[Json], until_ns: int | None) -> Json | None:
    if until_ns is None:
        return await queue.get()
    left = (until_ns - now_ns()) / 1e9
    if left <= 0:
        return None
    try:
        return await asyncio.wait_for(queue.get(), left)
    except TimeoutError:
        return None


def parse_filters(filters: Filters) -> Callable[[Json], bool]:
    """Return the predicate of `--filter`.

    Raises:
        InvalidParameter: an unknown filter.
    """
    for name in filters:
        if name not in FILTERS:
            raise InvalidParameter(f"invalid filter '{name}'")

    def wanted(event: Json) -> bool:
        return (
            _one_of(filters, "type", event["Type"])
            and _one_of(filters, "scope", event["scope"])
            and _matches_action(filters, event["Action"])
            and _matches_labels(filters, event["Actor"]["Attributes"])
            and all(_matches_object(filters, kind, event) for kind in _OBJECTS)
        )

    return wanted


def _one_of(filters: Filters, name: str, value: str) -> bool:
    return not filters.get(name) or value in filters[name]


def _matches_action(filters: Filters, action: str) -> bool:
    # "exec_start" matches "exec_start: sh", "health_status" matches "health_status: healthy".
    wanted = filters.get("event")
    return not wanted or action in wanted or action.partition(":")[0] in wanted


def _matches_labels(filters: Filters, attributes: Mapping[str, str]) -> bool:
    for item in filters.get("label", ()):
        key, separator, value = item.partition("=")
        if key not in attributes or (separator and attributes[key] != value):
            return False
    return True


def _matches_object(filters: Filters, kind: str, event: Json) -> bool:
    wanted = filters.get(kind)
    if not wanted:
        return True
    attributes = event["Actor"]["Attributes"]
    if kind == "image":
        return _matches_image(wanted, event)
    if event["Type"] != kind:
        # A network's events carry the container that was connected.
        return kind == "container" and attributes.get("container", "") in wanted
    names = [event["Actor"]["ID"], attributes.get("name", "")]
    if kind == "container":
        return any(
            value == names[1] or event["Actor"]["ID"].startswith(value) or fnmatch.fnmatch(names[1], value)
            for value in wanted
        )
    return any(value in names or names[0].startswith(value) for value in wanted)


def _matches_image(wanted: Sequence[str], event: Json) -> bool:
    """An image's own events, and those of the containers made from it; with or without the tag."""
    own = event["Type"] == "image"
    names = [event["Actor"]["ID"], event["Actor"]["Attributes"].get("name" if own else "image", "")]
    return any(name in wanted or _without_tag(name) in wanted for name in names)


def _without_tag(name: str) -> str:
    head, separator, tag = name.rpartition(":")
    return head if separator and "/" not in tag else name
