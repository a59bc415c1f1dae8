"""One container as a line of `ps`: the summary object, the Status text, and what the filters select.

Source: moby container/view.go, container/state.go, daemon/list.go of 28.5.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from satsuma.base.clock import now_ns
from satsuma.base.errors import InvalidParameter
from satsuma.base.sizes import human_duration
from satsuma.container.ports import list_ports, parse_range, split_port
from satsuma.container.record import Record, State
from satsuma.container.state import Status

Filters = Mapping[str, list[str]]

FILTERS = frozenset(
    "ancestor before exited expose health id isolation is-task label name network publish since status volume".split()
)
_HEALTH = ("none", "starting", "healthy", "unhealthy")


def status_text(state: State, now: int) -> str:
    """Return `Up 3 seconds (healthy)`, `Exited (137) 2 hours ago`, `Created` …"""
    up = human_duration((now - state.started_ns) / 1e9)
    ago = human_duration((now - state.finished_ns) / 1e9)
    if state.status is Status.PAUSED:
        return f"Up {up} (Paused)"
    if state.status is Status.RESTARTING:
        return f"Restarting ({state.exit_code}) {ago} ago"
    if state.status is Status.RUNNING:
        if state.health is None:
            return f"Up {up}"
        health = "health: starting" if state.health.status == "starting" else state.health.status
        return f"Up {up} ({health})"
    if state.status is Status.REMOVING:
        return "Removal In Progress"
    if state.status is Status.DEAD:
        return "Dead"
    if state.status is Status.CREATED:
        return "Created"
    return f"Exited ({state.exit_code}) {ago} ago"


def command_text(record: Record) -> str:
    """Return the command as `ps` shows it: arguments with a space in quotes."""
    words = [record.path, *(f"'{arg}'" if " " in arg else arg for arg in record.args)]
    return " ".join(words)


def summary_endpoint(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return an endpoint as the list shows it: what the client asked for in lists is left out."""
    return dict(endpoint) | {"Links": None, "Aliases": None, "DriverOpts": None, "DNSNames": None}


def summarize(record: Record, *, image: str, now: int) -> dict[str, Any]:
    """Return the object of GET /containers/json; sizes are added by the caller."""
    host: dict[str, Any] = {"NetworkMode": record.host.network_mode}
    if record.host.annotations:
        host["Annotations"] = record.host.annotations
    return {
        "Id": record.id,
        "Names": [record.display_name, *link_names(record)],
        "Image": image,
        "ImageID": record.image_id,
        "Command": command_text(record),
        "Created": record.created_ns // 10**9,
        "Ports": list_ports(record.network.ports),
        "Labels": record.config.labels or {},
        "State": str(record.state.status),
        "Status": status_text(record.state, now),
        "HostConfig": host,
        "NetworkSettings": {
            "Networks": {name: summary_endpoint(point) for name, point in record.network.endpoints.items()}
        },
        "Mounts": [point.to_json() for point in record.mounts],
    }


def link_names(record: Record) -> list[str]:
    """Names that other containers' links give to this one are added by the engine; alone it has none."""
    return []


def check_filters(filters: Filters, known: frozenset[str]) -> None:
    """Refuse a filter that this list does not have."""
    for name in filters:
        if name not in known:
            raise InvalidParameter(f"invalid filter '{name}'")


def check_ps_filters(filters: Filters) -> None:
    """Check names and values of the filters of `ps`.

    Raises:
        InvalidParameter: dockerd's text.
    """
    check_filters(filters, FILTERS)
    for value in filters.get("exited", ()):
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
            raise InvalidParameter(
                f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
            )
    for value in filters.get("status", ()):
        if value not in set(Status):
            raise InvalidParameter(
                f"invalid filter 'status={value}': invalid value for state ({value}): "
                "must be one of created, running, paused, restarting, removing, exited, dead"
            )
    for value in filters.get("health", ()):
        if value not in _HEALTH:
            raise InvalidParameter(
                f"invalid filter 'health={value}': invalid value for health ({value}): must be one of "
                + ", ".join(_HEALTH)
            )
    for value in filters.get("is-task", ()):
        if value.lower() not in ("1", "0", "true", "false", "t", "f"):
            raise InvalidParameter(f"invalid filter 'is-task={value}'")


def matches_words(filters: Filters, name: str, *candidates: str) -> bool:
    """Tell whether one candidate contains, or matches as a pattern, one value of the filter; True without one."""
    values = filters.get(name)
    if not values:
        return True
    for value in values:
        for candidate in candidates:
            if value == candidate:
                return True
            try:
                if re.search(value, candidate):
                    return True
            except re.error:
                continue
    return False


def matches_labels(filters: Filters, labels: Mapping[str, str], name: str = "label") -> bool:
    """Tell whether *labels* has every `key` or `key=value` of the filter."""
    for value in filters.get(name, ()):
        key, separator, wanted = value.partition("=")
        if key not in labels or (separator and labels[key] != wanted):
            return False
    return True


def without_labels(filters: Filters, labels: Mapping[str, str]) -> bool:
    """Tell whether *labels* has none of the filter `label!`."""
    for value in filters.get("label!", ()):
        key, separator, wanted = value.partition("=")
        if key in labels and (not separator or labels[key] == wanted):
            return False
    return True


class Selection:
    """The filters of one `ps` in a form that is cheap to ask for each container."""

    def __init__(
        self,
        filters: Filters,
        *,
        ids: set[str] | None,
        images: set[str] | None,
        show_all: bool,
    ) -> None:
        """Prepare.

        Args:
            ids: the only containers that the filter `id` leaves, None without that filter.
            images: the images of `ancestor` and what descends from them, None without that filter.
        """
        self._filters = filters
        self._ids = ids
        self._images = images
        self._all = show_all or bool(filters.get("status"))
        self._exited = {int(code) for code in filters.get("exited", ())}
        self._publish = _port_set("publish", filters)
        self._expose = _port_set("expose", filters)

    def includes(self, record: Record) -> bool:
        """Tell whether the list shows this container."""
        state = record.state
        if not self._all and not state.is_up:
            return False
        if self._ids is not None and record.id not in self._ids:
            return False
        if self._images is not None and record.image_id not in self._images:
            return False
        if self._exited and (state.is_up or not state.started_ns or state.exit_code not in self._exited):
            return False
        return self._matches_texts(record) and self._matches_attachments(record)

    def _matches_texts(self, record: Record) -> bool:
        filters = self._filters
        health = record.state.health.status if record.state.health else "none"
        return (
            matches_words(filters, "name", record.display_name, record.name)
            and matches_labels(filters, record.config.labels or {})
            and (not filters.get("status") or record.state.status in filters["status"])
            and (not filters.get("health") or health in filters["health"])
            and not any(value.lower() in ("1", "true", "t") for value in filters.get("is-task", ()))
            and all(value.lower() in ("", "default") for value in filters.get("isolation", ()))
        )

    def _matches_attachments(self, record: Record) -> bool:
        volumes = self._filters.get("volume")
        if volumes:
            places = {point.destination for point in record.mounts}
            places |= {point.name or point.source for point in record.mounts}
            if places.isdisjoint(volumes):
                return False
        networks = self._filters.get("network")
        if networks:
            endpoints = record.network.endpoints
            ids = [str(endpoint.get("NetworkID", "")) for endpoint in endpoints.values()]
            if not any(value in endpoints or any(i.startswith(value) for i in ids) for value in networks):
                return False
        return self._matches_ports(record)

    def _matches_ports(self, record: Record) -> bool:
        if not self._publish and not self._expose:
            return True
        for port in list_ports(record.network.ports):
            if f"{port.get('PublicPort', 0)}/{port['Type']}" in self._publish:
                return True
            if f"{port['PrivatePort']}/{port['Type']}" in self._expose:
                return True
        return False


def _port_set(name: str, filters: Filters) -> frozenset[str]:
    answer: set[str] = set()
    for value in filters.get(name, ()):
        if ":" in value:
            raise InvalidParameter(f"filter for '{name}' should not contain ':': {value}")
        port, protocol = split_port(value)
        try:
            first, last = parse_range(port)
        except ValueError as error:
            raise InvalidParameter(f"error while looking up for {name} {value}: {error}")
        answer.update(f"{number}/{protocol}" for number in range(first, last + 1))
    return frozenset(answer)


def select(
    records: Iterable[Record],
    selection: Selection,
    *,
    before: Record | None,
    since: Record | None,
    limit: int,
) -> list[Record]:
    """Return the records of a list, newest first.

    Args:
        limit: at most so many, also stopped ones; 0 or less is no limit.
    """
    ordered = sorted(records, key=lambda record: record.created_ns, reverse=True)
    answer = []
    for record in ordered:
        if before is not None and record.created_ns >= before.created_ns:
            continue
        if since is not None and record.created_ns <= since.created_ns:
            break
        if selection.includes(record):
            answer.append(record)
            if 0 < limit == len(answer):
                break
    return answer


def summaries(records: list[Record], image_name: Callable[[Record], str]) -> list[dict[str, Any]]:
    """Return the summaries of *records*, all at one moment."""
    now = now_ns()
    return [summarize(record, image=image_name(record), now=now) for record in records]
