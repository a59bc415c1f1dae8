"""The classic output stream: JSON objects, in order, from a build to one client.

    {"stream": "Step 1/6 : FROM busybox\\n"}      text of the builder and of stdout
    {"stream": "\\u001b[91m…\\u001b[0m"}            stderr of RUN
    {"aux": {"ID": "sha256:…"}}                   an image is there
    {"errorDetail": {…}, "error": "…"}            the last line of a build that failed

A quiet build holds its text back and shows it only if it fails.
"""

from __future__ import annotations

import asyncio
import codecs
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

__all__ = ["Output", "StreamObject", "error_object"]

# One object of the stream, as it becomes JSON.
StreamObject = dict[str, Any]

# A client that is this far behind makes RUN wait, as a full pipe does.
_HIGH_WATER = 1 << 20


def error_object(message: str, code: int = 0) -> StreamObject:
    """Return the last object of a failed build."""
    detail: StreamObject = {"code": code, "message": message} if code else {"message": message}
    return {"errorDetail": detail, "error": message}


class Output:
    """A queue with one reader; everything but `objects` may be called from the loop's thread only."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._held: list[StreamObject] = []
        self._queue: deque[tuple[StreamObject, int]] = deque()
        self._size = 0
        self._closed = False
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        # A character may be cut in two between reads of a pipe.
        self._decoders = {n: codecs.getincrementaldecoder("utf-8")("replace") for n in (1, 2)}
        self.started = False

    def text(self, text: str) -> None:
        """Show a line of the builder's own."""
        self._put({"stream": text})

    def aux(self, image_id: str) -> None:
        """Tell the client the id of an image."""
        self._put({"aux": {"ID": image_id}})

    def result(self, text: str) -> None:
        """Show what also a quiet build shows."""
        self._held.clear()
        self._enqueue({"stream": text})

    def fail(self, message: str, code: int = 0) -> None:
        """End the stream with an error, after what was held back."""
        for item in self._held:
            self._enqueue(item)
        self._held.clear()
        self._enqueue(error_object(message, code))

    def __call__(self, stream: int, data: bytes) -> None:
        """Take output of a step (`StepOutput`)."""
        self._step_text(stream, self._decoders[stream].decode(data))

    def end_step(self) -> None:
        """Deliver what is left of a character that a step did not finish."""
        for stream, decoder in self._decoders.items():
            self._step_text(stream, decoder.decode(b"", final=True))
            decoder.reset()

    async def drain(self) -> None:
        """Wait until the client has caught up (`StepOutput`)."""
        await self._drained.wait()

    def close(self) -> None:
        """No more objects will come."""
        self._closed = True
        self._changed.set()

    async def objects(self) -> AsyncIterator[StreamObject]:
        """Yield the objects until `close`."""
        while True:
            while self._queue:
                item, size = self._queue.popleft()
                self._size -= size
                if self._size <= _HIGH_WATER // 2:
                    self._drained.set()
                yield item
            if self._closed:
                return
            self._changed.clear()
            await self._changed.wait()

    def _step_text(self, stream: int, text: str) -> None:
        if text:
            # Docker colours stderr, so that a client can tell the two apart in one stream.
            self.text(f"\x1b[91m{text}\x1b[0m" if stream == 2 else text)

    def _put(self, item: StreamObject) -> None:
        if self._quiet:
            self._held.append(item)
        else:
            self._enqueue(item)

    def _enqueue(self, item: StreamObject) -> None:
        self.started = True
        size = len(item.get("stream", "")) + 64
        self._queue.append((item, size))
        self._size += size
        if self._size > _HIGH_WATER:
            self._drained.clear()
        self._changed.set()
