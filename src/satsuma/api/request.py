"""One request as handlers see it.

Owns the request's parsed parts and its body's decoding.  Must not know how bytes arrive (`body` does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from satsuma.api.query import Query
from satsuma.base.errors import InvalidParameter
from satsuma.spec.decode import decode_json
from satsuma.wire.http import Request as Head

if TYPE_CHECKING:
    from satsuma.api.body import RequestBody
    from satsuma.api.hijack import ConnectionHijack

B = TypeVar("B", bound=msgspec.Struct)

Version = tuple[int, ...]

MAX_JSON_BODY = 16 << 20
"""Bytes of a JSON body.  Docker has no limit; the largest real ones (create) have some ten kilobytes."""


class Request:
    """A request: head, decoded path and query, API version, path variable, body.

    `name` is the variable of the route's pattern: a container, an image, …; "" if it has none.
    """

    __slots__ = ("body", "head", "hijack", "method", "name", "path", "query", "remote_is_local", "version")

    def __init__(
        self,
        head: Head,
        path: str,
        query: Query,
        version: Version,
        name: str,
        body: RequestBody,
        hijack: ConnectionHijack,
        *,
        remote_is_local: bool,
    ) -> None:
        self.head = head
        self.method = head.method
        self.path = path
        self.query = query
        self.version = version
        self.name = name
        self.body = body
        self.hijack = hijack
        self.remote_is_local = remote_is_local

    @property
    def has_body(self) -> bool:
        """Tell whether the client sends a body, however long."""
        return self.head.transfer_chunked or bool(self.head.content_length)

    def check_json(self) -> None:
        """Check that a body is declared as JSON.

        Raises:
            InvalidParameter: in Docker's words.
        """
        content_type = self.head.headers.get("content-type")
        if not content_type and not self.has_body:
            return
        media_type = content_type.partition(";")[0].strip().lower()
        if not media_type:
            raise InvalidParameter(f"malformed Content-Type header ({content_type}): mime: no media type")
        if media_type != "application/json":
            raise InvalidParameter(
                f"unsupported Content-Type header ({content_type}): must be 'application/json'"
            )

    async def json(self, cls: type[B], *, optional: bool = True) -> B:
        """Read and decode the body.

        Args:
            optional: no body gives an empty struct; otherwise it is an error.
        Raises:
            InvalidParameter: wrong content type, malformed, too large; in Docker's words.
        """
        self.check_json()
        if optional and not self.has_body:
            return cls()
        return decode_json(await self.body.read_all(MAX_JSON_BODY), cls)
