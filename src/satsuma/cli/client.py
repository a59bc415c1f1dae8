"""The engine as seen from here: HTTP requests over a socket, JSON answers, hijacked connections.

Owns connections and Docker's rules of the API (version prefix, error bodies, upgrade); the format of messages is
`satsuma.wire`.  One connection is kept for the next request; a long answer has a connection of its own.

Source: Docker Engine API documentation; RFC 9112.
"""

from __future__ import annotations

import os
import socket

from satsuma.cli.errors import ApiError, CliError, ConnectionFailed
from satsuma.wire.http import ProtocolError
from satsuma.wire.http_client import Response, ResponseParser, encode_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from satsuma.cli.endpoint import Endpoint

API_VERSION = "1.51"
"""The newest API this client speaks; an older engine's is used instead."""
_OLDEST = "1.24"
_PIECE = 1 << 18
_UNRESERVED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")


def escape(text: str, safe: str = "") -> str:
    """Percent-encode for a URL (`urllib.parse` would cost an import)."""
    if text.isalnum() and text.isascii():
        return text
    keep = _UNRESERVED | frozenset(safe.encode())
    return "".join(chr(b) if b in keep else f"%{b:02X}" for b in text.encode("utf-8", "surrogateescape"))


def encode_query(query: Mapping[str, Any] | None) -> str:
    """Return `?a=1&b=x`; None and empty lists are left out, True is `1`, a list repeats its key."""
    parts: list[str] = []
    for key, value in (query or {}).items():
        values = value if isinstance(value, list | tuple) else [value]
        for item in values:
            if item is None or item is False:
                continue
            text = "1" if item is True else str(item)
            parts.append(f"{escape(key)}={escape(text)}")
    return "?" + "&".join(parts) if parts else ""


def as_filters(pairs: Iterable[tuple[str, str]]) -> str | None:
    """Return the `filters` parameter for `--filter` flags; None without any."""
    table: dict[str, dict[str, bool]] = {}
    for key, value in pairs:
        table.setdefault(key, {})[value] = True
    if not table:
        return None
    import json

    return json.dumps(table, separators=(",", ":"), sort_keys=True)


class Answer:
    """An answer whose body is read piece by piece."""

    def __init__(self, engine: Engine, connection: socket.socket, parser: ResponseParser) -> None:
        assert parser.head is not None
        self.engine = engine
        self.connection = connection
        self.parser = parser
        self.head: Response = parser.head

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.head.status

    def header(self, name: str) -> str:
        """Return a header field; *name* in lower case."""
        return self.head.headers.get(name)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives; the connection is given back at its end.

        Raises:
            CliError: the engine broke the connection off.
        """
        parser = self.parser
        try:
            while not parser.body_done:
                piece = parser.read_body(_PIECE)
                if piece:
                    yield piece
                elif not parser.body_done:
                    parser.feed(self.connection.recv(_PIECE))
        except ProtocolError as error:
            self.close()
            raise CliError(str(error)) from None
        except ConnectionError:
            self.close()
            raise CliError("unexpected EOF") from None
        self._finish()

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.pieces())

    def json(self) -> Any:
        """Return the body as a JSON value; None for an empty one."""
        import json

        body = self.read()
        return json.loads(body) if body.strip() else None

    def documents(self) -> Iterator[Any]:
        """Yield the JSON documents of a streamed body as they arrive."""
        import json

        from satsuma.wire.jsonstream import Splitter

        splitter = Splitter()
        for piece in self.pieces():
            for document in splitter.feed(piece):
                yield json.loads(document)

    def _finish(self) -> None:
        if self.head.keep_alive and not self.parser.ends_with_connection:
            self.engine.keep(self.connection, self.parser.take_tail())
        else:
            self.close()

    def close(self) -> None:
        """Break the connection off; what was not read is lost."""
        self.connection.close()


class Engine:
    """An engine at an address.  Connects when first asked; one request at a time and thread."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str]) -> None:
        self.endpoint = endpoint
        self.extra_headers = dict(headers)
        self._idle: list[tuple[socket.socket, bytes]] = []
        self._version = os.environ.get("DOCKER_API_VERSION", "")
        self._ping: Response | None = None
        self.debug = False
        """Say on standard error what is asked and answered."""

    # -- connections ------------------------------------------------------------------------------------------------

    def connect(self) -> socket.socket:
        """Return a new connection.

        Raises:
            ConnectionFailed: nobody listens there.
        """
        from satsuma.cli.transport import connect

        return connect(self.endpoint)

    def keep(self, connection: socket.socket, tail: bytes) -> None:
        """Keep a connection whose answer was read whole for the next request."""
        if tail or len(self._idle) >= 2:
            connection.close()
        else:
            self._idle.append((connection, tail))

    def close(self) -> None:
        """Close the connections that are kept."""
        for connection, _ in self._idle:
            connection.close()
        self._idle.clear()

    # -- versions ---------------------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """The API version of both sides: the older of the two."""
        if not self._version:
            theirs = self.ping().headers.get("api-version") or _OLDEST
            self._version = theirs if _version_key(theirs) < _version_key(API_VERSION) else API_VERSION
        return self._version

    def at_least(self, version: str) -> bool:
        """Tell whether the engine speaks at least this version of the API."""
        return _version_key(self.version) >= _version_key(version)

    def ping(self) -> Response:
        """Return the head of the answer to a ping; asked once."""
        if self._ping is None:
            answer = self._send("HEAD", "/_ping", [], None)
            answer.read()
            self._ping = answer.head
        return self._ping

    # -- requests ---------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        stream: Iterable[bytes] | None = None,
    ) -> Answer:
        """Send a request and return its answer; the body is not read yet.

        Args:
            method: as in HTTP.
            path: below the version, `/containers/json`.
            query: see `encode_query`.
            body: a JSON value.
            headers: further header fields.
            stream: pieces of a body of unknown length.
        Raises:
            ApiError: the engine answered 400 or above.
        """
        fields = list((headers or {}).items())
        data: bytes | None = None
        if body is not None:
            import json

            data = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(
                "utf-8", "surrogateescape"
            )
            fields.append(("Content-Type", "application/json"))
        elif method == "POST" and stream is None:
            data = b""
        answer = self._send(method, self.target(path, query), fields, data, stream)
        if answer.status >= 400:
            raise failure(answer)
        return answer

    def target(self, path: str, query: Mapping[str, Any] | None = None) -> str:
        """Return the request target for a path below the version."""
        return f"/v{self.version}{path}{encode_query(query)}"

    def begin(self, method: str, path: str, query: Mapping[str, Any] | None = None) -> Pending:
        """Send a request without waiting for its answer, on a connection of its own."""
        connection = self.connect()
        data = b"" if method == "POST" else None
        self._note(f"{method} {path}")
        connection.sendall(encode_request(method, self.target(path, query), self._fields(), data))
        return Pending(self, connection, method)

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON value of a GET."""
        return self.request("GET", path, query).json()

    def post(self, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Return the JSON value of a POST."""
        return self.request("POST", path, query, body).json()

    def delete(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON value of a DELETE."""
        return self.request("DELETE", path, query).json()

    def hijack(
        self, path: str, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> tuple[socket.socket, bytes, Response]:
        """POST and take the connection over as a raw stream.

        Returns: the connection, bytes that came with the head, the head.
        """
        import json

        data = json.dumps(body, separators=(",", ":")).encode() if body is not None else b""
        fields = [("Connection", "Upgrade"), ("Upgrade", "tcp")]
        if body is not None:
            fields.append(("Content-Type", "application/json"))
        answer = self._send("POST", self.target(path, query), fields, data)
        if answer.status >= 400:
            raise failure(answer)
        return answer.connection, answer.parser.take_tail(), answer.head

    def _fields(self) -> list[tuple[str, str]]:
        from satsuma import __version__

        head = [("Host", "api.satsuma.localhost"), ("User-Agent", f"Satsuma-Client/{__version__} (linux)")]
        return [*head, *self.extra_headers.items()]

    def _send(
        self,
        method: str,
        target: str,
        fields: list[tuple[str, str]],
        data: bytes | None,
        stream: Iterable[bytes] | None = None,
    ) -> Answer:
        head = [*self._fields(), *fields]
        if stream is not None:
            head.append(("Transfer-Encoding", "chunked"))
        message = encode_request(method, target, head, data)
        # What is sent to /auth is a password.
        self._note(f"{method} {target}", None if target.endswith("/auth") else data)
        reused = bool(self._idle)
        connection = self._idle.pop()[0] if reused else self.connect()
        parser = ResponseParser(method)
        try:
            connection.sendall(message)
            if stream is not None:
                from satsuma.cli.transport import send_chunks

                send_chunks(connection, stream, parser)
            _read_head(connection, parser)
        except (ConnectionError, ProtocolError) as error:
            connection.close()
            if reused and stream is None and parser.head is None:
                # The engine may close a connection that was idle; nothing of this request was answered.
                return self._send(method, target, fields, data)
            raise ConnectionFailed(f"error during connect: {error or 'EOF'}") from None
        answer = Answer(self, connection, parser)
        self._note(f"  -> {answer.status} {answer.head.reason}")
        return answer

    def _note(self, text: str, data: bytes | None = None) -> None:
        if self.debug:
            import sys

            body = f" {data.decode('utf-8', 'replace')}" if data else ""
            sys.stderr.write(f"DEBUG {text}{body}\n")


class Pending:
    """A request that is under way."""

    def __init__(self, engine: Engine, connection: socket.socket, method: str) -> None:
        self.engine = engine
        self.connection = connection
        self.parser = ResponseParser(method)

    def finish(self) -> Answer:
        """Wait for the answer.

        Raises:
            ApiError: the engine answered 400 or above.
        """
        try:
            _read_head(self.connection, self.parser)
        except (ConnectionError, ProtocolError) as error:
            self.connection.close()
            raise ConnectionFailed(f"error during connect: {error or 'EOF'}") from None
        answer = Answer(self.engine, self.connection, self.parser)
        if answer.status >= 400:
            raise failure(answer)
        return answer


def failure(answer: Answer) -> ApiError:
    """Return the error that an answer of 400 or above carries."""
    body = answer.read()
    text = body.decode("utf-8", "replace").strip()
    if answer.header("content-type").startswith("application/json"):
        import json

        try:
            text = json.loads(body).get("message") or text
        except (ValueError, AttributeError):
            pass
    text = text or f"request returned {answer.status} {answer.head.reason}"
    return ApiError(f"Error response from daemon: {text}", answer.status)


def _version_key(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _read_head(connection: socket.socket, parser: ResponseParser) -> None:
    while parser.head is None:
        parser.feed(connection.recv(_PIECE))
