"""The client's half of HTTP/1.1 as a format: requests out, responses in; no sockets.

The command line drives it over a blocking socket: write `encode_request(…)`, then `feed` what arrives into a
`ResponseParser` until `head` is there, and `read_body` until `body_done`.  After a 101, or a 200 that hijacks,
`take_tail` returns the bytes that came with the head.

Imported by the command line: no `typing`, `enum`, `re` at run time.

Source: RFC 9112.
"""

from __future__ import annotations

from satsuma.wire.http import Body, Headers, HeadScan, ProtocolError, body_framing, parse_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Response:
    """A response head."""

    __slots__ = ("headers", "minor", "reason", "status")

    def __init__(self, status: int, reason: str, minor: int, headers: Headers) -> None:
        self.status = status
        self.reason = reason
        self.minor = minor
        self.headers = headers

    @property
    def keep_alive(self) -> bool:
        """Tell whether the server takes another request on this connection."""
        return self.minor >= 1 and "close" not in self.headers.tokens("connection")


class ResponseParser:
    """Parses the answer to one request; make a new one for the next (with `take_tail` of this one).

    Interim answers (100, 102, 103) are skipped; 101 is final.
    """

    __slots__ = ("_body", "_buffer", "_ended", "_method", "_scan", "continued", "head")

    def __init__(self, method: str, tail: bytes = b"") -> None:
        self._method = method
        self._buffer = bytearray(tail)
        self._scan = HeadScan()
        self._ended = False
        self._body: Body | None = None
        self.head: Response | None = None
        self.continued = False
        """An interim 100 came: a client that sent `Expect: 100-continue` sends its body now."""

    def feed(self, data: bytes) -> None:
        """Take in what the server sent; the empty string means that it sends no more.

        Raises:
            ProtocolError: the answer is malformed or was cut.
        """
        if data:
            self._buffer += data
        if self.head is None:
            self._parse_head()
        if not data:
            self._ended = True
            if self.head is None:
                raise ProtocolError("unexpected EOF")
            if self._body is not None and not self._buffer:
                self._body.close()

    @property
    def body_done(self) -> bool:
        """Tell whether the answer has been read whole."""
        return self.head is not None and (self._body is None or self._body.done)

    @property
    def ends_with_connection(self) -> bool:
        """Tell whether the body has no length of its own."""
        return self._body is not None and self._body.ends_with_connection

    def read_body(self, limit: int = 1 << 18) -> bytes:
        """Take the next bytes of the body; `b""` means: more must come, or `body_done`.

        Raises:
            ProtocolError: malformed chunks, or the body was cut.
        """
        if self._body is None:
            return b""
        piece = self._body.read(self._buffer, limit)
        if not piece and self._ended:
            self._body.close()
        return piece

    def take_tail(self) -> bytes:
        """Take all bytes that came after the head and were not read."""
        tail = bytes(self._buffer)
        self._buffer.clear()
        return tail

    def _parse_head(self) -> None:
        while self.head is None:
            raw = self._scan.take(self._buffer)
            if raw is None:
                return
            response = _parse_status_line(*parse_head(raw))
            if 100 <= response.status < 200 and response.status != 101:
                self.continued |= response.status == 100
                continue
            self.head = response
            self._body = self._framing(response)

    def _framing(self, response: Response) -> Body | None:
        if self._method == "HEAD" or response.status in (101, 204, 304):
            return None
        length, chunked = body_framing(response.headers, response.minor)
        return Body(length=length, chunked=chunked)


def _parse_status_line(line: str, headers: Headers) -> Response:
    version, _, rest = line.partition(" ")
    code, _, reason = rest.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or len(code) != 3 or not (code.isascii() and code.isdigit()):
        raise ProtocolError("malformed HTTP response")
    return Response(int(code), reason, int(version[-1]), headers)


def encode_request(
    method: str, target: str, fields: Iterable[tuple[str, str]], body: bytes | None = None
) -> bytes:
    """Return a request head with its empty line, and *body* after it if there is one.

    `Content-Length` is added for a body; a streamed body needs its `Transfer-Encoding: chunked` in *fields* and
    `satsuma.wire.http.encode_chunk` for each piece.
    """
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or " " in target or not head.isascii():
        raise ValueError("header field or target with a line break, a blank or non-ASCII text")
    return head.encode("ascii") + b"\r\n\r\n" + (body or b"")
