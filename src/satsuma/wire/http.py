"""HTTP/1.1 as a format: request heads and bodies in, values out; no sockets.

Owns the grammar of heads, header fields and body framing (RFC 9112), for both sides; the client's half that only
clients need is `satsuma.wire.http_client`.  Must not know what a request means, nor how bytes arrive.

It is strict where leniency lets two parsers disagree about where a message ends (request smuggling): one
`Content-Length` of digits or one `Transfer-Encoding: chunked`, never both; CRLF line ends only; no folded lines;
no blank before a colon; exactly one `Host` in HTTP/1.1; one space between the parts of the request line.

Imported by the command line: no `typing`, `enum`, `re` at run time.

Source: RFC 9110, RFC 9112; limits of heads as Go's net/http has them (1 MiB).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_HEAD = 1 << 20
"""Bytes of a head.  Go's `http.DefaultMaxHeaderBytes`; docker puts whole registry configurations into a header."""
MAX_FIELDS = 1000
MAX_CHUNK_LINE = 4096
MAX_TRAILER = 65536

_VISIBLE = bytes(c for c in range(256) if c == 9 or (c >= 32 and c != 127))
_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_HEX = b"0123456789abcdefABCDEF"
_DIGITS = b"0123456789"

_LENGTH, _CHUNK_SIZE, _CHUNK_DATA, _CHUNK_END, _TRAILER, _UNTIL_CLOSE, _DONE = range(7)


class ProtocolError(Exception):
    """The peer does not speak HTTP; `status` is what a server answers before it closes."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Headers:
    """Header fields in order; names are kept in lower case, values without outer blanks (latin-1)."""

    __slots__ = ("_first", "items")

    def __init__(self, items: list[tuple[str, str]]) -> None:
        self.items = items
        self._first: dict[str, str] | None = None

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of *name*, which is in lower case."""
        if self._first is None:
            self._first = dict(reversed(self.items))
        return self._first.get(name, default)

    def get_all(self, name: str) -> list[str]:
        """Return all values of *name*, which is in lower case."""
        return [value for key, value in self.items if key == name] if self.has(name) else []

    def has(self, name: str) -> bool:
        """Tell whether there is a field *name*, which is in lower case."""
        if self._first is None:
            self._first = dict(reversed(self.items))
        return name in self._first

    def tokens(self, name: str) -> list[str]:
        """Return the members of a comma-separated list field, in lower case."""
        found = []
        for value in self.get_all(name):
            found += [token for part in value.lower().split(",") if (token := part.strip())]
        return found


class Body:
    """Takes one message body off a buffer, whatever its framing.

    `done` becomes true with its last byte; what follows in the buffer belongs to the next message.
    """

    __slots__ = ("_remaining", "_state", "_trailer_size", "trailers")

    def __init__(self, *, length: int | None = None, chunked: bool = False) -> None:
        self._trailer_size = 0
        self._remaining = length or 0
        self.trailers: list[tuple[str, str]] = []
        if chunked:
            self._state = _CHUNK_SIZE
        elif length is None:
            self._state = _UNTIL_CLOSE
        else:
            self._state = _LENGTH if length else _DONE

    @property
    def done(self) -> bool:
        """Tell whether the whole body has been taken."""
        return self._state == _DONE

    @property
    def ends_with_connection(self) -> bool:
        """Tell whether only the end of the connection ends this body."""
        return self._state == _UNTIL_CLOSE

    def close(self) -> None:
        """Take note that the peer sends no more.

        Raises:
            ProtocolError: the body is not whole.
        """
        if self._state not in (_UNTIL_CLOSE, _DONE):
            raise ProtocolError("unexpected EOF")
        self._state = _DONE

    def read(self, buffer: bytearray, limit: int = 1 << 18) -> bytes:
        """Take up to *limit* bytes of the body off *buffer*; `b""` means: more must come, or `done`.

        Raises:
            ProtocolError: malformed chunks.
        """
        if self._state == _LENGTH:
            piece = bytes(buffer[: min(limit, self._remaining)])
            del buffer[: len(piece)]
            self._remaining -= len(piece)
            if not self._remaining:
                self._state = _DONE
            return piece
        if self._state == _UNTIL_CLOSE:
            piece = bytes(buffer[:limit])
            del buffer[: len(piece)]
            return piece
        if self._state == _DONE:
            return b""
        return self._read_chunks(buffer, limit)

    def _read_chunks(self, buffer: bytearray, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while size < limit and self._state != _DONE:
            if self._state == _CHUNK_DATA:
                piece = bytes(buffer[: min(limit - size, self._remaining)])
                if not piece:
                    break
                del buffer[: len(piece)]
                pieces.append(piece)
                size += len(piece)
                self._remaining -= len(piece)
                if not self._remaining:
                    self._state = _CHUNK_END
            elif not self._step(buffer):
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _step(self, buffer: bytearray) -> bool:
        """Consume one line between chunks; false when it is not there yet."""
        if self._state == _CHUNK_END:
            if len(buffer) < 2:
                if buffer and buffer[0] != 13:
                    raise ProtocolError("malformed chunked encoding")
                return False
            if buffer[:2] != b"\r\n":
                raise ProtocolError("malformed chunked encoding")
            del buffer[:2]
            self._state = _CHUNK_SIZE
            return True
        line = _take_line(buffer, MAX_CHUNK_LINE if self._state == _CHUNK_SIZE else MAX_TRAILER)
        if line is None:
            return False
        if self._state == _CHUNK_SIZE:
            self._remaining = _parse_chunk_size(line)
            self._state = _CHUNK_DATA if self._remaining else _TRAILER
        elif line:
            self.trailers.append(_parse_field(line))
            self._trailer_size += len(line) + 2
            if self._trailer_size > MAX_TRAILER:
                raise ProtocolError("trailer too large", 431)
        else:
            self._state = _DONE
        return True


class Request:
    """A request head; *target* is as it came, `minor` the minor version of HTTP/1."""

    __slots__ = ("content_length", "headers", "keep_alive", "method", "minor", "target", "transfer_chunked")

    def __init__(self, method: str, target: str, minor: int, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.headers = headers
        self.content_length, self.transfer_chunked = body_framing(headers, minor)
        self.keep_alive = minor >= 1 and "close" not in headers.tokens("connection")
        """The client may send another request on this connection."""

    @property
    def expects_continue(self) -> bool:
        """Tell whether the client waits for `100 Continue` before it sends the body."""
        return self.minor >= 1 and self.headers.get("expect").lower() == "100-continue"


class RequestParser:
    """The server's side of one connection: feed bytes, take requests and their bodies in order.

    After `next_request` returned a request, `read_body` must run until `body_done` before the next one can be
    taken.  `take_tail` ends the life of the parser: the connection speaks something else from there on.
    """

    __slots__ = ("_body", "_buffer", "_scan")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body: Body | None = None
        self._scan = HeadScan()

    @property
    def buffered(self) -> int:
        """Return the number of bytes that were fed and not taken."""
        return len(self._buffer)

    @property
    def body_done(self) -> bool:
        """Tell whether the body of the current request has been taken whole."""
        return self._body is None or self._body.done

    @property
    def trailers(self) -> list[tuple[str, str]]:
        """Return the fields after the last chunk of the current body."""
        return self._body.trailers if self._body is not None else []

    def feed(self, data: bytes) -> None:
        """Take in what the client sent."""
        self._buffer += data

    def next_request(self) -> Request | None:
        """Take the next head, or None while it is incomplete.

        Raises:
            ProtocolError: the head is malformed or too large.
        """
        assert self.body_done, "the body before is not taken"
        head = self._scan.take(self._buffer)
        if head is None:
            return None
        request = _parse_request_line(*parse_head(head))
        if request.transfer_chunked:
            self._body = Body(chunked=True)
        else:
            self._body = Body(length=request.content_length) if request.content_length else None
        return request

    def read_body(self, limit: int = 1 << 18) -> bytes:
        """Take the next bytes of the current body; `b""` means: more must come, or `body_done`."""
        return self._body.read(self._buffer, limit) if self._body is not None else b""

    def take_tail(self) -> bytes:
        """Take everything that came after the current request."""
        tail = bytes(self._buffer)
        self._buffer.clear()
        return tail


class HeadScan:
    """Finds the end of heads; remembers how far it looked, so that feeding byte by byte stays linear."""

    __slots__ = ("_blank", "_scanned")

    def __init__(self) -> None:
        self._scanned = 0
        self._blank = False

    def take(self, buffer: bytearray) -> bytes | None:
        """Take a head without its final empty line off *buffer*, or None while it is incomplete.

        Raises:
            ProtocolError: a line ends with a bare LF, or the head is too large.
        """
        # An empty line before a request line should be ignored (RFC 9112 2.2); one, not an endless row.
        if not self._scanned and not self._blank and buffer[:1] == b"\r":
            if len(buffer) == 1:
                return None
            if buffer[1] == 10:
                del buffer[:2]
                self._blank = True
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end > MAX_HEAD or (end < 0 and len(buffer) > MAX_HEAD):
            raise ProtocolError("request header too large", 431)
        if end < 0:
            start = max(0, self._scanned - 1)
            paired = buffer.count(b"\r\n", start) + (start > 0 and buffer[start] == 10)
            if buffer.count(b"\n", start) != paired:
                raise ProtocolError("line ends with a bare LF")
            self._scanned = len(buffer)
            return None
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        self._scanned = 0
        self._blank = False
        return head


def parse_head(head: bytes) -> tuple[str, Headers]:
    """Split a head into its first line and its fields.

    Raises:
        ProtocolError: control characters, folded lines, malformed names, too many fields.
    """
    lines = head.split(b"\r\n")
    # Everything that is not visible must be exactly the line ends that were split at: one pass in C finds bare
    # CR, bare LF, NUL and the other controls.
    if head.translate(None, _VISIBLE) != b"\r\n" * (len(lines) - 1):
        raise ProtocolError("invalid character in header")
    if len(lines) > MAX_FIELDS + 1:
        raise ProtocolError("too many header fields", 431)
    return lines[0].decode("latin-1"), Headers([_parse_field(line) for line in lines[1:]])


def _parse_field(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(None, _TOKEN):
        raise ProtocolError("malformed header field")
    return name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")


def _parse_request_line(line: str, headers: Headers) -> Request:
    parts = line.split(" ")
    if len(parts) != 3 or not parts[0] or not parts[1]:
        raise ProtocolError("malformed request line")
    method, target, version = parts
    if method.encode("latin-1").translate(None, _TOKEN):
        raise ProtocolError("malformed method")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        if version[:5] == "HTTP/" and len(version) == 8:
            raise ProtocolError("unsupported protocol version", 505)
        raise ProtocolError("malformed HTTP version")
    if not target.isascii() or "\t" in target or not (target[0] == "/" or target == "*" or "://" in target):
        raise ProtocolError("malformed request target")
    request = Request(method, target, int(version[-1]), headers)
    hosts = len(headers.get_all("host"))
    if hosts > 1 or (hosts == 0 and request.minor >= 1):
        raise ProtocolError("too many Host headers" if hosts else "missing required Host header")
    if headers.has("expect") and not request.expects_continue and request.minor >= 1:
        raise ProtocolError("unknown expectation", 417)
    return request


def body_framing(headers: Headers, minor: int) -> tuple[int | None, bool]:
    """Return (content length, is chunked) of a message; the length is None when no field says it.

    Raises:
        ProtocolError: the fields contradict each other, or this parser cannot be sure of the end.
    """
    lengths = headers.get_all("content-length")
    encodings = headers.get_all("transfer-encoding")
    if encodings:
        if lengths:
            raise ProtocolError("both Content-Length and Transfer-Encoding")
        if minor < 1:
            raise ProtocolError("Transfer-Encoding in HTTP/1.0")
        if len(encodings) > 1 or encodings[0].lower() != "chunked":
            raise ProtocolError("unsupported transfer encoding", 501)
        return None, True
    if not lengths:
        return None, False
    text = lengths[0]
    if len(lengths) > 1 or not text or len(text) > 18 or text.encode("latin-1").translate(None, _DIGITS):
        raise ProtocolError("bad Content-Length")
    return int(text), False


def _take_line(buffer: bytearray, limit: int) -> bytes | None:
    end = buffer.find(b"\r\n", 0, limit + 2)
    if end < 0:
        if len(buffer) > limit or buffer.find(b"\n") >= 0:
            raise ProtocolError("malformed chunked encoding")
        return None
    line = bytes(buffer[:end])
    if line.translate(None, _VISIBLE):
        raise ProtocolError("invalid character in chunked encoding")
    del buffer[: end + 2]
    return line


def _parse_chunk_size(line: bytes) -> int:
    size, _, _ = line.partition(b";")
    size = size.rstrip(b" \t")
    if not size or len(size) > 15 or size.translate(None, _HEX):
        raise ProtocolError("invalid chunk size")
    return int(size, 16)


def encode_chunk(data: bytes) -> bytes:
    """Return *data* as one chunk; it must not be empty, because an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"

REASONS = {
    100: "Continue",
    101: "UPGRADED",
    200: "OK",
    201: "Created",
    204: "No Content",
    301: "Moved Permanently",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Request Entity Too Large",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


def encode_response_head(status: int, fields: Iterable[tuple[str, str]]) -> bytes:
    """Return a response head with its empty line; values must be free of CR and LF (asserted)."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in fields]
    head = "\r\n".join(lines)
    assert head.count("\n") == len(lines) - 1, "line break in a header field"
    return head.encode("latin-1", "replace") + b"\r\n\r\n"
