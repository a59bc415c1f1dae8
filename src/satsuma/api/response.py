"""Answers as values: a whole body, or a stream of pieces; and Docker's JSON on the wire.

Owns how values become bytes.  Must not know connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from satsuma.base.errors import EngineError
from satsuma.wire import stdcopy

JSON = "application/json"
TAR = "application/x-tar"
TEXT = "text/plain; charset=utf-8"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

Headers = list[tuple[str, str]]

_encoder = msgspec.json.Encoder()


class Response:
    """A whole answer; 204 and 304 have no body."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self, status: int = 200, body: bytes = b"", content_type: str = "", headers: Headers | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers or []


class Stream:
    """An answer of status 200 in pieces, each flushed when it comes.

    Args of the constructor:
        chunks: the pieces; closed when the client is gone.
        eager: send the head at once.  Otherwise it waits for the first piece, so that an error before it
            becomes a status.
        in_band: turns a later error into a last piece; without it the connection is cut, so that nobody takes
            half an answer for a whole one.
    """

    __slots__ = ("chunks", "content_type", "eager", "headers", "in_band")

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        content_type: str,
        *,
        eager: bool = False,
        in_band: Callable[[EngineError], bytes] | None = None,
        headers: Headers | None = None,
    ) -> None:
        self.chunks = chunks
        self.content_type = content_type
        self.eager = eager
        self.in_band = in_band
        self.headers = headers or []


class Hijacked:
    """No answer: the connection was handed over."""

    __slots__ = ()


Answer = Response | Stream | Hijacked


def encode_json(value: Any) -> bytes:
    """Encode a value; text with lone surrogates (file names that are no UTF-8) gets U+FFFD as in Go."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(_replace_surrogates(value))


def encode_json_html_safe(value: Any) -> bytes:
    """Encode a value with `<`, `>` and `&` escaped, as Go's `json.Marshal` does in progress lines and events."""
    raw = encode_json(value)
    if b"<" in raw or b">" in raw or b"&" in raw:
        raw = raw.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
    return raw


def _replace_surrogates(value: Any) -> Any:
    value = msgspec.to_builtins(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    return value


def json_response(value: Any, status: int = 200) -> Response:
    """Answer with one JSON document and the line feed that Go's encoder puts behind it."""
    return Response(status, encode_json(value) + b"\n", JSON)


def empty(status: int = 200) -> Response:
    """Answer with a status alone."""
    return Response(status)


def error_response(status: int, message: str) -> Response:
    """Answer with an error in Docker's shape."""
    return json_response({"message": message}, status)


def progress_error(error: EngineError) -> bytes:
    """Return the line that ends a progress stream which failed; a `code` of the error is an exit status."""
    detail: dict[str, Any] = {"message": str(error)}
    code = getattr(error, "code", None)
    if isinstance(code, int):
        detail = {"code": code, **detail}
    return encode_json_html_safe({"errorDetail": detail, "error": str(error)}) + b"\r\n"


async def close_iterator(iterator: AsyncIterator[Any]) -> None:
    """Close an async iterator if it can be closed; generators run their `finally` now and not whenever."""
    aclose = getattr(iterator, "aclose", None)
    if aclose is not None:
        await aclose()


async def json_lines(items: AsyncIterator[Any], end: bytes) -> AsyncIterator[bytes]:
    """Encode each item as a line."""
    try:
        async for item in items:
            yield encode_json_html_safe(item) + end
    finally:
        await close_iterator(items)


def progress_stream(items: AsyncIterator[Any]) -> Stream:
    """Answer with Docker's progress messages: JSON lines that end with CR LF, errors in band."""
    return Stream(json_lines(items, b"\r\n"), JSON, in_band=progress_error)


async def log_frames(frames: AsyncIterator[tuple[int, bytes]], *, tty: bool) -> AsyncIterator[bytes]:
    """Encode the lines of a log: stdcopy frames, or bare with a terminal."""
    try:
        async for stream, data in frames:
            if data:
                yield data if tty else stdcopy.encode(stream, data)
    finally:
        await close_iterator(frames)
