"""From a request's head to its answer: version check, routing, errors, the headers of every answer.

Owns what all endpoints share.  Must not know sockets, nor single endpoints.
"""

from __future__ import annotations

import logging
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from satsuma.api.body import RequestBody
from satsuma.api.query import Query, decode_percent
from satsuma.api.request import Request
from satsuma.api.response import TEXT, Answer, Hijacked, Response, encode_json, error_response
from satsuma.api.router import (
    MAX_VERSION,
    MIN_VERSION,
    Route,
    Router,
    format_version,
    split_version,
    version_error,
)
from satsuma.api.status import status_of
from satsuma.base.errors import EngineError
from satsuma.wire.http import Request as Head
from satsuma.wire.http import encode_response_head

if TYPE_CHECKING:
    from satsuma.api.connection import Connection
    from satsuma.api.facade import Engine

_log = logging.getLogger("satsuma.api")


class Application:
    """The endpoints with the engine behind them."""

    def __init__(
        self, engine: Engine, router: Router, *, product_version: str, experimental: bool = False
    ) -> None:
        self.engine = engine
        self.connections: set[Connection] = set()
        self._router = router
        self.common_fields: list[tuple[str, str]] = [
            ("Api-Version", format_version(MAX_VERSION)),
            ("Docker-Experimental", "true" if experimental else "false"),
            ("Ostype", "linux"),
            ("Server", f"Docker/{product_version} (linux)"),
        ]
        self._common: list[tuple[str, str]] = []
        self._common_second = 0

    def route(
        self, connection: Connection, head: Head, body: RequestBody
    ) -> tuple[Route, Request] | Response:
        """Return the route and the request, or the answer that needs no handler."""
        target = head.target
        if target == "*" or head.method == "OPTIONS":
            return Response()
        if target[0] != "/":
            # absolute-form, as to a proxy (RFC 9112 3.2.2); the authority is not ours to check.
            rest = target.partition("://")[2].partition("/")
            target = f"/{rest[2]}"
        raw_path, _, raw_query = target.partition("?")
        try:
            path = decode_percent(raw_path)
            if "//" in path or "/./" in path or "/../" in path or path.endswith(("/.", "/..")):
                return _redirect(path, raw_query)
            version, text, path = split_version(path)
            found = self._router.match(head.method, path)
            if found is None:
                return error_response(404, "page not found")
            if version is not None and (problem := version_error(version, text)) is not None:
                return _version_response(problem, version)
            query = Query(raw_query.partition("#")[0])
        except EngineError as error:
            return error_response(status_of(error), str(error))
        effective = version or MAX_VERSION
        request = Request(
            head,
            path,
            query,
            effective,
            found[1],
            body,
            connection.request_hijack(head, effective),
            remote_is_local=connection.is_local,
        )
        return found[0], request

    async def answer(self, route: Route, request: Request) -> Answer:
        """Run a handler; its errors become answers."""
        try:
            return await route.handler(self.engine, request)
        except Exception as error:
            if request.hijack.accepted:
                # The connection speaks something else by now; the engine has said in band what it could.
                self._log_failure(error, request)
                return Hijacked()
            return self.failure(error, request)

    def failure(self, error: Exception, request: Request) -> Response:
        """Return the answer to an error, and log it once if it is ours."""
        status = status_of(error)
        if status == 304:
            return Response(304)
        if status >= 500:
            self._log_failure(error, request)
        return error_response(status, str(error) or type(error).__name__)

    def _log_failure(self, error: Exception, request: Request) -> None:
        unexpected = not isinstance(error, EngineError)
        _log.error(
            "Handler for %s %s returned error: %s",
            request.method,
            request.path,
            error,
            exc_info=error if unexpected else None,
        )

    def encode_head(self, status: int, fields: list[tuple[str, str]]) -> bytes:
        """Return the head of an answer with the fields that all have."""
        now = int(time.time())
        if now != self._common_second:
            self._common_second = now
            self._common = [*self.common_fields, ("Date", formatdate(now, usegmt=True))]
        return encode_response_head(status, self._common + fields)


def _redirect(path: str, query: str) -> Response:
    """Send a client with an unclean path to the clean one, as gorilla/mux does."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    location = "/" + "/".join(parts) + ("/" if path.endswith("/") and parts else "")
    if query:
        location += f"?{query}"
    if not location.isascii() or not location.isprintable():
        return error_response(404, "page not found")
    return Response(301, headers=[("Location", location)])


def _version_response(problem: str, version: tuple[int, ...]) -> Response:
    if version < MIN_VERSION:
        # Clients that old print the body as it is, so dockerd does not send them JSON.
        return Response(400, problem.encode() + b"\n", TEXT, [("X-Content-Type-Options", "nosniff")])
    return Response(400, encode_json({"message": problem}) + b"\n", "application/json")
