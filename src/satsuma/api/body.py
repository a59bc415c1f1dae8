"""The body of a request in progress: pieces for coroutines, a file for threads.

Owns waiting and back-pressure between the connection (which feeds the parser) and whoever reads.  At most
`HIGH_WATER` bytes wait in memory; then the connection stops reading from its socket.  Must not know routes.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, BinaryIO

from satsuma.base.errors import InvalidParameter
from satsuma.wire.http import ProtocolError

if TYPE_CHECKING:
    from satsuma.api.connection import Connection

HIGH_WATER = 1 << 20
LOW_WATER = 1 << 18


class RequestBody:
    """Reads the body of one request; made, fed and ended by its connection."""

    __slots__ = ("_connection", "_expects_continue", "_failure", "_file", "_waiter", "discarding")

    def __init__(self, connection: Connection, *, expects_continue: bool) -> None:
        self._connection = connection
        self._expects_continue = expects_continue
        self._waiter: asyncio.Future[None] | None = None
        self._file: _BodyFile | None = None
        self._failure = ""
        self.discarding = False

    @property
    def unsent(self) -> bool:
        """Tell whether the client still waits for `100 Continue`, so that no body will come."""
        return self._expects_continue

    @property
    def failed(self) -> bool:
        """Tell whether the body is malformed or was cut: nothing can follow it."""
        return bool(self._failure)

    async def read(self) -> bytes:
        """Return the next piece, `b""` at the end.

        Raises:
            InvalidParameter: the body is malformed or was cut.
        """
        self._send_continue()
        while True:
            piece = self._pull()
            if piece or self._connection.body_done:
                return piece
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            InvalidParameter: longer than *limit* bytes, malformed or cut.
        """
        pieces = []
        size = 0
        while piece := await self.read():
            size += len(piece)
            if size > limit:
                raise InvalidParameter("http: request body too large")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def file(self) -> BinaryIO:
        """Return the body as a file for a thread; its reads wait for the client.

        A cut or malformed body raises InvalidParameter from `read`.  Closing the file early is fine.
        """
        assert self._file is None, "the body is read already"
        self._send_continue()
        self._file = _BodyFile(asyncio.get_running_loop(), self.arrived)
        self.arrived()
        return _BufferedBody(self._file, LOW_WATER)

    def arrived(self) -> None:
        """Take note that the parser has more, or that the reader has room (called on the loop)."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._file is None:
            if self.discarding:
                while not self._failure and self._pull_or_fail():
                    pass
            return
        while self._file.has_room and not self._connection.body_done and not self._failure:
            piece = self._pull_or_fail()
            if not piece:
                break
            self._file.put(piece)
        if self._failure:
            self._file.finish(self._failure)
        elif self._connection.body_done:
            self._file.finish("")

    def fail(self, message: str) -> None:
        """Take note that no more will come although the body is not whole."""
        if not self._connection.body_done and not self._failure:
            self._failure = message
            self.arrived()

    def discard(self) -> None:
        """Drop what the handler did not read, now and whenever it comes."""
        if self._file is not None:
            self._file.finish("request is over")
            self._file = None
        self.discarding = True
        self.arrived()

    def _pull_or_fail(self) -> bytes:
        try:
            return self._pull()
        except InvalidParameter:
            return b""

    def _pull(self) -> bytes:
        if self._failure:
            raise InvalidParameter(self._failure)
        try:
            return self._connection.pull_body()
        except ProtocolError as error:
            self._failure = str(error)
            raise InvalidParameter(self._failure) from None

    def _send_continue(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            if not self._connection.body_done:
                self._connection.send_continue()


class _BufferedBody(io.BufferedReader):
    """The file that readers get."""

    def close(self) -> None:
        """Close at once, also while another thread waits in `read`."""
        # A reader holds the buffer's lock while it waits for the client; waiting for that lock on the event
        # loop would be waiting for ourselves.
        raw = self.raw
        assert isinstance(raw, _BodyFile)
        raw.finish("request is over")
        super().close()


class _BodyFile(io.RawIOBase):
    """A queue with the face of a raw file: `put` on the loop, `readinto` in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_room: Any) -> None:
        self._loop = loop
        self._on_room = on_room
        self._pieces: deque[memoryview] = deque()
        self._size = 0
        self._full = False
        self._finished = False
        self._failure = ""
        self._changed = threading.Condition()

    @property
    def has_room(self) -> bool:
        """Tell whether another piece may be put."""
        return not self._full

    def put(self, piece: bytes) -> None:
        """Append a piece."""
        with self._changed:
            if self._finished:
                return
            self._pieces.append(memoryview(piece))
            self._size += len(piece)
            self._full = self._size >= HIGH_WATER
            self._changed.notify()

    def finish(self, failure: str) -> None:
        """End the file, with an error if *failure* has a text."""
        with self._changed:
            if not self._finished:
                self._finished = True
                self._failure = failure
            self._changed.notify()

    def readable(self) -> bool:
        """A raw file that can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill *buffer* with what is there, waiting for at least one byte; 0 at the end."""
        with self._changed:
            while not self._pieces and not self._finished:
                self._changed.wait()
            if not self._pieces:
                if self._failure:
                    raise InvalidParameter(self._failure)
                return 0
            piece = self._pieces[0]
            size = min(len(buffer), len(piece))
            buffer[:size] = piece[:size]
            if size == len(piece):
                self._pieces.popleft()
            else:
                self._pieces[0] = piece[size:]
            self._size -= size
            wake = self._full and self._size < LOW_WATER
            if wake:
                self._full = False
        if wake:
            self._loop.call_soon_threadsafe(self._on_room)
        return size

    def close(self) -> None:
        """Drop what is left; the client's remaining bytes are read and thrown away."""
        with self._changed:
            was_full = self._full
            self._finished = True
            self._pieces.clear()
            self._full = False
        if was_full and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_room)
        super().close()
