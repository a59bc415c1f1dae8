"""One client connection: bytes in, requests out, answers back, in order.

Owns the asyncio side of HTTP: flow control both ways, keep-alive, what happens to bodies that nobody read, and
noticing that a client is gone.  Must not know endpoints (`application` does).

The life of a connection: idle → a request's handler runs in one task → its answer is written → what is left of
the request's body is read and dropped → idle.  Requests that the client sends ahead wait in the parser.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import TYPE_CHECKING

from satsuma.api.body import RequestBody
from satsuma.api.hijack import ConnectionHijack, HijackedStream
from satsuma.api.response import TEXT, Hijacked, Response, Stream, close_iterator
from satsuma.api.router import Life, Route
from satsuma.base.aio import spawn
from satsuma.base.errors import EngineError
from satsuma.wire.http import LAST_CHUNK, REASONS, ProtocolError, RequestParser, encode_chunk
from satsuma.wire.http import Request as Head

if TYPE_CHECKING:
    from satsuma.api.application import Application
    from satsuma.api.request import Request

_log = logging.getLogger("satsuma.api")
_trace = logging.getLogger("satsuma.trace")

HIGH_WATER = 1 << 18
"""Bytes that may wait in the parser before the socket is left alone."""
FLUSH_SIZE = 1 << 16
LINGER = 5.0
"""Seconds in which a client may take its answer after we said that we close."""


class _AnswerCut(Exception):
    """An answer failed half-way; its missing end is how the client learns of it."""


class Connection(asyncio.Protocol):
    """The protocol of one accepted socket."""

    __slots__ = (
        "_app",
        "_arrived",
        "_body",
        "_closing",
        "_ended",
        "_flushing",
        "_head",
        "_hold",
        "_life",
        "_lingering",
        "_loop",
        "_out",
        "_parser",
        "_reading",
        "_room",
        "_task",
        "_transport",
        "_writable",
        "is_local",
    )

    def __init__(self, app: Application, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop
        self._parser = RequestParser()
        self._transport: asyncio.Transport | None = None
        self._head: Head | None = None
        self._arrived = 0
        self._body: RequestBody | None = None
        self._life = Life.FINISH
        self._task: asyncio.Task[None] | None = None
        self._out: list[bytes] = []
        self._flushing = False
        self._reading = True
        self._writable = True
        self._room: asyncio.Future[None] | None = None
        self._hold = False
        self._ended = False
        self._closing = False
        self._lingering = False
        self.is_local = False

    # -- what asyncio calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start a connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock: socket.socket = transport.get_extra_info("socket")
        self.is_local = sock.family == socket.AF_UNIX
        if not self.is_local:
            # A peer that vanished without a word must not hold a log stream for ever.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._app.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take in bytes."""
        if self._lingering:
            return
        self._parser.feed(data)
        if self._head is None:
            self._next_request()
        elif self._body is not None:
            self._body_arrived()

    def eof_received(self) -> bool:
        """Take note of the client's half-close; the answer in progress can still be written."""
        self._ended = True
        if self._head is None or self._lingering:
            return False
        if self._body is not None:
            self._body.fail("unexpected EOF")
        if self._life is Life.CANCEL and self._task is not None:
            self._task.cancel()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the client is gone."""
        self._app.connections.discard(self)
        self._transport = None
        self._ended = True
        self._out.clear()
        if self._body is not None:
            self._body.fail("unexpected EOF")
        if self._room is not None and not self._room.done():
            self._room.set_exception(ConnectionResetError("client is gone"))
            self._room = None
        if self._task is not None and self._life is Life.CANCEL:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._writable = False

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._writable = True
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    # -- requests ----------------------------------------------------------------------------------------------

    def _next_request(self) -> None:
        """Start the next request if its head is there."""
        if self._transport is None or self._closing or not self._parser.buffered:
            return
        try:
            head = self._parser.next_request()
        except ProtocolError as error:
            self._refuse(error)
            return
        if head is None:
            self._regulate()
            return
        self._head = head
        self._arrived = time.monotonic_ns()
        self._body = RequestBody(self, expects_continue=head.expects_continue)
        answer = self._app.route(self, head, self._body)
        if isinstance(answer, Response):
            self._life = Life.FINISH
            self._write_response(answer)
            self._finish()
            return
        route, request = answer
        self._life = route.life
        self._hold_if_hijackable()
        self._regulate()
        self._task = spawn(f"{head.method} {head.target}", self._serve(route, request))

    async def _serve(self, route: Route, request: Request) -> None:
        """Run one handler and write its answer."""
        try:
            answer = await self._app.answer(route, request)
            if isinstance(answer, Hijacked):
                return
            whole = await self._write_stream(answer, request) if isinstance(answer, Stream) else answer
            if whole is not None:
                self._write_response(whole)
        except (ConnectionResetError, asyncio.CancelledError):
            # The client is gone, or the server shuts down: nobody is left to answer.
            self._task = None
            self.abort()
            return
        except _AnswerCut:
            self._task = None
            self._flush()
            if self._transport is not None:
                self._transport.close()
            return
        except Exception:
            _log.exception("cannot answer %s %s", request.method, request.path)
            self._task = None
            self.abort()
            return
        self._task = None
        self._finish()

    def _finish(self) -> None:
        """Leave the request behind: drop its unread body, then go on or close."""
        body, head, transport = self._body, self._head, self._transport
        assert body is not None and head is not None
        if transport is None:
            return
        if not self._may_keep_alive():
            self._say_goodbye()
            return
        self._life = Life.FINISH
        self._hold = False
        body.discard()
        if body.failed:
            self._say_goodbye()
        elif self._parser.body_done:
            self._head = self._body = None
            self._regulate()
            self._next_request()
        else:
            self._regulate()

    def _may_keep_alive(self) -> bool:
        head, body = self._head, self._body
        return not (
            self._closing
            or self._ended
            or head is None
            or body is None
            or not head.keep_alive
            or body.failed
            or (body.unsent and not self._parser.body_done)
        )

    def _body_arrived(self) -> None:
        body = self._body
        assert body is not None
        body.arrived()
        self._hold_if_hijackable()
        if body.discarding:
            if body.failed:
                self._say_goodbye()
                return
            if self._parser.body_done:
                self._head = self._body = None
                self._next_request()
                return
        self._regulate()

    def _refuse(self, error: ProtocolError) -> None:
        """Answer bytes that are no HTTP, as Go's server does, and close."""
        reason = REASONS.get(error.status, "Bad Request")
        text = f"{error.status} {reason}: {error}".encode()
        self._closing = True
        self._write(
            b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nConnection: close\r\n\r\n%b"
            % (error.status, reason.encode(), TEXT.encode(), text)
        )
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Close so that the client can still read its answer, although it may be writing."""
        transport = self._transport
        if transport is None:
            return
        self._closing = True
        if self._ended:
            transport.close()
            return
        # A close with unread bytes makes TCP reset the connection, which can destroy the answer on its way; so
        # end our half, and read the client's until it ends or its time is up.
        self._lingering = True
        self._head = self._body = None
        self._parser.take_tail()
        transport.write_eof()
        transport.resume_reading()
        self._loop.call_later(LINGER, self.abort)

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def shut_down(self) -> None:
        """Close when the request in progress has its answer; at once when there is none."""
        self._closing = True
        if self._transport is not None and self._head is None:
            self._transport.close()

    def cancel(self) -> None:
        """Stop the request in progress."""
        if self._task is not None:
            self._task.cancel()

    @property
    def is_streaming(self) -> bool:
        """Tell whether the request in progress ends only when somebody ends it."""
        return self._task is not None and self._life is Life.CANCEL

    # -- reading: the side that RequestBody uses -----------------------------------------------------------------

    @property
    def body_done(self) -> bool:
        """Tell whether the body of the request has been taken whole."""
        return self._parser.body_done

    def pull_body(self) -> bytes:
        """Take what there is of the body."""
        piece = self._parser.read_body()
        self._hold_if_hijackable()
        self._regulate()
        return piece

    def send_continue(self) -> None:
        """Tell the client to send its body."""
        self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _hold_if_hijackable(self) -> None:
        # What comes after the request belongs to whom the connection is handed to.  Leaving it in the kernel
        # keeps even the client's half-close in order for the receiver of the descriptor.
        if self._life is Life.HIJACK and self._head is not None and self._parser.body_done:
            self._hold = True

    def _regulate(self) -> None:
        """Read from the socket if there is room for it and nobody else shall.

        While a head is incomplete there is nothing else to wait for; the parser bounds its size.
        """
        want = not self._hold and (self._head is None or self._parser.buffered <= HIGH_WATER)
        if want != self._reading and self._transport is not None and not self._ended:
            self._reading = want
            if want:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # -- writing -------------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _write_response(self, response: Response) -> None:
        head = self._head
        assert head is not None
        fields = [*response.headers]
        if response.content_type:
            fields.append(("Content-Type", response.content_type))
        bodyless = response.status in (204, 304)
        if not bodyless:
            fields.append(("Content-Length", str(len(response.body))))
        if not self._may_keep_alive():
            fields.append(("Connection", "close"))
        data = self._app.encode_head(response.status, fields)
        if not bodyless and head.method != "HEAD":
            data += response.body
        self._write(data)
        self._note("answered")

    def _note(self, what: str) -> None:
        """At debug level, tell how long it has taken since the request's head was there."""
        head = self._head
        if head is not None and _trace.isEnabledFor(logging.DEBUG):
            now = time.monotonic_ns()
            path = head.target.partition("?")[0]
            _trace.debug(
                "http %s %s %s ms=%.2f at=%d", head.method, path, what, (now - self._arrived) / 1e6, now
            )

    async def _write_stream(self, stream: Stream, request: Request) -> Response | None:
        """Write an answer in pieces; an error before the first one comes back as a whole answer."""
        head = self._head
        assert head is not None
        chunks = stream.chunks
        chunked = head.minor >= 1
        first = b""
        try:
            if not stream.eager:
                try:
                    first = await anext(chunks, b"")
                except Exception as error:
                    return self._app.failure(error, request)
            self._start_stream(stream, chunked=chunked)
            try:
                if first:
                    await self._send(first, chunked=chunked)
                async for piece in chunks:
                    if piece:
                        await self._send(piece, chunked=chunked)
            except EngineError as error:
                if stream.in_band is None:
                    self._app.failure(error, request)
                    raise _AnswerCut from error
                await self._send(stream.in_band(error), chunked=chunked)
            except ConnectionResetError:
                raise
            except Exception as error:
                self._app.failure(error, request)
                raise _AnswerCut from error
            if chunked:
                self._out.append(LAST_CHUNK)
            self._flush()
            self._note("ended")
        finally:
            await close_iterator(chunks)
        if not chunked:
            self._closing = True
        return None

    def _start_stream(self, stream: Stream, *, chunked: bool) -> None:
        fields = [*stream.headers, ("Content-Type", stream.content_type)]
        if chunked:
            fields.append(("Transfer-Encoding", "chunked"))
        if not chunked or not self._may_keep_alive():
            fields.append(("Connection", "close"))
        self._write(self._app.encode_head(200, fields))
        self._note("begun")

    async def _send(self, piece: bytes, *, chunked: bool) -> None:
        """Send one piece; pieces of the same turn of the loop leave in one packet."""
        self._out.append(encode_chunk(piece) if chunked else piece)
        if len(piece) >= FLUSH_SIZE or len(self._out) >= 256:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        if not self._writable or self._transport is None:
            await self._drain()

    def _flush(self) -> None:
        self._flushing = False
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    async def _drain(self) -> None:
        """Wait until the client has taken enough.

        Raises:
            ConnectionResetError: it is gone.
        """
        if self._transport is None:
            raise ConnectionResetError("client is gone")
        if not self._writable:
            if self._room is None:
                self._room = self._loop.create_future()
            await self._room

    # -- handing over --------------------------------------------------------------------------------------------

    async def give_away(self, head: bytes) -> HijackedStream:
        """Write the last head and leave the connection to the caller.

        Raises:
            ConnectionResetError: the client is gone.
        """
        transport = self._transport
        if transport is None:
            raise ConnectionResetError("client is gone")
        transport.set_write_buffer_limits(high=0)
        transport.write(head)
        while not self._writable:
            await self._drain()
        self._note("handed-over")
        sock: socket.socket = transport.get_extra_info("socket")
        fd = os.dup(sock.fileno())
        initial = self._parser.take_tail()
        # Closing the transport closes its own descriptor only: there is no shutdown(2) in it.
        self._transport = None
        self._app.connections.discard(self)
        transport.abort()
        return HijackedStream(fd, initial)

    def request_hijack(self, head: Head, version: tuple[int, ...]) -> ConnectionHijack:
        """Return the right of one request to take this connection over."""
        return ConnectionHijack(self, upgrade=head.headers.has("upgrade"), version=version)
