"""Paths to handlers.

Owns matching: the version prefix, names with slashes (greedy from both ends, as moby's `{name:.*}`), and what a
route says about the life of its requests.  Must not know what handlers do.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from satsuma.api.request import Request, Version
from satsuma.api.response import Answer

MAX_VERSION = (1, 51)
MIN_VERSION = (1, 24)

Handler = Callable[[Any, Request], Awaitable[Answer]]


class Life(enum.Enum):
    """What happens to a request whose client goes away."""

    FINISH = enum.auto()
    """It runs on: half a `start` helps nobody."""
    CANCEL = enum.auto()
    """It is cancelled: a stream, a wait or a build that nobody reads."""
    HIJACK = enum.auto()
    """The connection may be handed over; until then nothing is read from it, not even its end."""


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: `GET /containers/{name}/json`."""

    method: str
    pattern: str
    handler: Handler
    life: Life = Life.FINISH


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._open: dict[tuple[str, str], list[tuple[str, str, Route]]] = {}
        for route in routes:
            prefix, brace, rest = route.pattern.partition("{")
            if not brace:
                self._exact[route.method, route.pattern] = route
                continue
            suffix = rest.partition("}")[2]
            assert prefix.count("/") == 2 or route.pattern.startswith("/satsuma/"), route.pattern
            self._open.setdefault((route.method, prefix), []).append((prefix, suffix, route))
        for candidates in self._open.values():
            # The longest suffix first, so that `DELETE /images/{name}` comes after all that end otherwise.
            candidates.sort(key=lambda candidate: -len(candidate[1]))

    def match(self, method: str, path: str) -> tuple[Route, str] | None:
        """Return the route and the value of its variable, or None.

        Args:
            path: decoded, without version prefix.
        """
        route = self._exact.get((method, path))
        if route is not None:
            return route, ""
        end = path.find("/", 1) + 1
        if path.startswith("/satsuma/"):
            end = path.find("/", 9) + 1
        for prefix, suffix, route in self._open.get((method, path[:end]), ()) if end else ():
            if path.endswith(suffix) and len(path) > len(prefix) + len(suffix):
                return route, path[len(prefix) : len(path) - len(suffix)]
        return None


_versions: dict[str, Version] = {}


def split_version(path: str) -> tuple[Version | None, str, str]:
    """Split `/v1.41/info` into ((1, 41), "1.41", "/info"); without prefix the version is None."""
    if not path.startswith("/v"):
        return None, "", path
    end = path.find("/", 2)
    text = path[2:end] if end > 0 else path[2:]
    version = _versions.get(text)
    if version is None:
        if not text or not set("0123456789.").issuperset(text):
            return None, "", path
        version = _parse_version(text)
        if len(_versions) < 1000:
            _versions[text] = version
    return version, text, path[end:] if end > 0 else "/"


def _parse_version(text: str) -> Version:
    # moby's versions.compare takes missing and malformed parts for 0.
    parts = [int(part) if part and len(part) < 10 else 0 for part in text.split(".")]
    while len(parts) < 2:
        parts.append(0)
    while len(parts) > 2 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def format_version(version: Version) -> str:
    """Return `1.51` of (1, 51)."""
    return ".".join(map(str, version))


def version_error(version: Version, text: str) -> str | None:
    """Return Docker's words about a version that this engine does not speak."""
    if version < MIN_VERSION:
        return (
            f"client version {text} is too old. Minimum supported API version is {format_version(MIN_VERSION)}, "
            "please upgrade your client to a newer version"
        )
    if version > MAX_VERSION:
        return f"client version {text} is too new. Maximum supported API version is {format_version(MAX_VERSION)}"
    return None
