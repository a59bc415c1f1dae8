"""Content coding of `GET /containers/{id}/archive`, the one answer that dockerd compresses."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

from satsuma.api.request import Request
from satsuma.api.response import close_iterator
from satsuma.base.aio import blocking

_WBITS = {"gzip": 31, "deflate": -15}
LEVEL = 1
"""Fast: the tar goes one hop and is unpacked there."""


def negotiate_encoding(request: Request) -> str:
    """Return `gzip`, `deflate` or "" for the answer to a request.

    On a unix socket nothing is compressed, whatever the client accepts: the bytes do not leave the host, and
    copying them is faster than compressing them.
    """
    if request.remote_is_local:
        return ""
    accepted: dict[str, float] = {}
    for token in request.head.headers.tokens("accept-encoding"):
        name, _, weight = token.replace(" ", "").partition(";q=")
        try:
            accepted[name] = float(weight) if weight else 1.0
        except ValueError:
            continue
    best = max(_WBITS, key=lambda name: accepted.get(name, 0.0))
    return best if accepted.get(best, 0.0) > 0 else ""


async def compressed(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Compress a stream; the work is done in a thread."""
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _WBITS[encoding])
    try:
        async for chunk in chunks:
            if piece := await blocking(compressor.compress, chunk):
                yield piece
        yield compressor.flush()
    finally:
        await close_iterator(chunks)
