"""The HTTP parser: what it takes, what it refuses, and that the pieces do not matter."""

from __future__ import annotations

import subprocess
import sys

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satsuma.wire.http import MAX_HEAD, ProtocolError, RequestParser, encode_chunk, encode_response_head
from satsuma.wire.http_client import ResponseParser, encode_request

GET = b"GET /v1.51/info?a=b HTTP/1.1\r\nHost: docker\r\n\r\n"


def parse(data: bytes, cuts: list[int] | None = None):
    """Return (method, target, headers, body, trailers) of every request in *data*."""
    parser = RequestParser()
    found = []
    request = None
    body = b""
    position = 0
    for cut in [*sorted(cuts or []), len(data)]:
        parser.feed(data[position:cut])
        position = max(position, cut)
        while True:
            if request is None:
                request = parser.next_request()
                if request is None:
                    break
                body = b""
            while piece := parser.read_body():
                body += piece
            if not parser.body_done:
                break
            found.append((request.method, request.target, request.headers.items, body, list(parser.trailers)))
            request = None
    return found, request is not None or parser.buffered > 0


def test_a_plain_request():
    found, open_end = parse(GET)
    assert found == [("GET", "/v1.51/info?a=b", [("host", "docker")], b"", [])]
    assert not open_end


def test_bodies_by_length_and_by_chunks_with_trailers():
    data = (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b"5;ext=1\r\nhello\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n" + GET
    )
    found, _ = parse(data)
    assert [item[3] for item in found] == [b"hello", b"hello0123456789", b""]
    assert found[1][4] == [("x-sum", "1")]


def test_keep_alive_and_expect():
    parser = RequestParser()
    parser.feed(
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nConnection: foo, Close\r\nContent-Length: 0\r\n\r\n"
    )
    request = parser.next_request()
    assert request is not None
    assert request.expects_continue
    assert not request.keep_alive
    assert parser.body_done


REFUSED = {
    "two framings": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "equal lengths twice": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "list of lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n",
    "signed length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "hexadecimal length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\n",
    "underscored length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1_0\r\n\r\n",
    "foreign digits": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \u0661\r\n\r\n".encode(),
    "empty length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
    "huge length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "other coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "coding twice": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "vertical tab coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    "folding": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "blank before colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: x\r\nbogus\r\n\r\n",
    "empty name": b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "NUL in value": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "NUL in target": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF between": b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab": b"GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "blank in target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "trailing blank": b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.9": b"GET / HTTP/1.9\r\nHost: x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\n",
    "lower-case version": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "bad method": b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no slash": b"GET info HTTP/1.1\r\nHost: x\r\n\r\n",
    "target beyond ASCII": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "rows of empty lines": b"\r\n\r\n\r\n\r\n",
    "unknown expectation": b"GET / HTTP/1.1\r\nHost: x\r\nExpect: miracle\r\n\r\n",
    "giant head": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * MAX_HEAD + b"\r\n\r\n",
    "endless head": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * (MAX_HEAD // 6 + 1),
    "many fields": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
}
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS = {
    "no size": b"\r\nabc\r\n",
    "negative": b"-1\r\n",
    "prefix": b"0x5\r\nhello\r\n",
    "underscore": b"1_0\r\n",
    "blank first": b" 5\r\nhello\r\n",
    "too long a size": b"1" * 17 + b"\r\n",
    "longer data": b"3\r\nhello\r\n",
    "no line end after data": b"5\r\nhelloX",
    "bare LF": b"5\nhello\n",
    "NUL": b"5;\0\r\nhello\r\n",
    "endless extension": b"5;" + b"a" * 10_000,
    "malformed trailer": b"0\r\nbogus\r\n\r\n",
    "endless trailer": b"0\r\n" + b"A: b\r\n" * 40_000,
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("step", [None, 1])
def test_refused_heads(name, step):
    data = REFUSED[name]
    if step and len(data) > 10_000:
        step = 4093
    with pytest.raises(ProtocolError):
        parse(data, list(range(0, len(data), step)) if step else None)


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_refused_chunks(name):
    with pytest.raises(ProtocolError):
        parse(CHUNKED + BAD_CHUNKS[name])


def test_a_head_that_trickles_in_is_parsed_in_linear_time():
    parser = RequestParser()
    data = b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000 + b"\r\n\r\n"
    for position in range(len(data)):
        parser.feed(data[position : position + 1])
        request = parser.next_request()
    assert request is not None


def test_tail_after_the_head_is_kept():
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}raw bytes")
    assert parser.next_request() is not None
    assert parser.read_body() == b"{}"
    assert parser.take_tail() == b"raw bytes"


token = st.text("abcXYZ-_0", min_size=1, max_size=8)
value = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
bodies = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.lists(st.binary(min_size=1, max_size=30), max_size=4),
)


@st.composite
def requests(draw):
    lines = [f"{draw(st.sampled_from(['GET', 'POST', 'PUT']))} /{draw(token)} HTTP/1.1", "Host: x"]
    lines += [f"X-{draw(token)}: {draw(value)}" for _ in range(draw(st.integers(0, 3)))]
    body = draw(bodies)
    if body is None:
        return "\r\n".join(lines).encode() + b"\r\n\r\n", b""
    if isinstance(body, bytes):
        return "\r\n".join([*lines, f"Content-Length: {len(body)}"]).encode() + b"\r\n\r\n" + body, body
    chunks = b"".join(encode_chunk(piece) for piece in body) + b"0\r\n\r\n"
    return "\r\n".join([*lines, "Transfer-Encoding: chunked"]).encode() + b"\r\n\r\n" + chunks, b"".join(body)


@given(st.lists(requests(), min_size=1, max_size=3), st.lists(st.integers(0, 400), max_size=20))
def test_any_cutting_gives_the_same_requests(made, cuts):
    data = b"".join(raw for raw, _ in made)
    whole, rest = parse(data)
    assert not rest
    assert [item[3] for item in whole] == [body for _, body in made]
    assert parse(data, [cut for cut in cuts if cut < len(data)])[0] == whole


@given(requests())
def test_h11_agrees_on_what_is_well_formed(made):
    raw, body = made
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    got = b""
    while isinstance(event := connection.next_event(), h11.Data):
        got += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    ((method, target, headers, ours, _),) = parse(raw)[0]
    assert (method.encode(), target.encode(), ours) == (request.method, request.target, got)
    assert [(k.encode(), v.encode()) for k, v in headers] == list(request.headers)
    assert got == body


@settings(max_examples=300)
@given(requests(), st.data())
def test_what_we_take_after_a_mutation_h11_takes_too(made, data):
    """Strictness: there are no bytes that end a message for us and not for h11, or that h11 refuses."""
    raw = bytearray(made[0])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(raw) - 1))
        raw[position : position + data.draw(st.integers(0, 1))] = data.draw(
            st.sampled_from([b"", b"\r", b"\n", b" ", b"\0", b":", b"0", b"\t"])
        )
        if not raw:
            return
    try:
        found, _ = parse(bytes(raw))
    except ProtocolError:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(bytes(raw).removeprefix(b"\r\n"))
    for method, target, _, body, _ in found[:1]:
        request = connection.next_event()
        assert isinstance(request, h11.Request), request
        assert (method.encode(), target.encode()) == (request.method, request.target)
        got = b""
        while isinstance(event := connection.next_event(), h11.Data):
            got += bytes(event.data)
        assert got == body


@given(st.binary(max_size=200))
def test_garbage_raises_protocol_errors_only(data):
    for start in (b"", GET[:-2], CHUNKED):
        try:
            parse(start + data)
        except ProtocolError:
            pass


# -- responses -----------------------------------------------------------------------------------------------------


def read_response(method: str, data: bytes, step: int) -> tuple[int, bytes, bytes]:
    parser = ResponseParser(method)
    body = b""
    for position in range(0, len(data), step):
        parser.feed(data[position : position + step])
        while piece := parser.read_body():
            body += piece
    if not parser.body_done:
        parser.feed(b"")
        body += parser.read_body()
    assert parser.head is not None
    assert parser.body_done
    return parser.head.status, body, parser.take_tail()


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("method", "data", "expected"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", (200, b"hello", b"")),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            (200, b"hi", b""),
        ),
        ("GET", b"HTTP/1.1 200 OK\r\n\r\nuntil the end", (200, b"until the end", b"")),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (200, b"", b"")),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", b"")),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201\r\nContent-Length: 0\r\n\r\n", (201, b"", b"")),
        ("POST", b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nraw", (101, b"", b"raw")),
    ],
)
def test_responses(method, data, expected, step):
    assert read_response(method, data, step) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        b"HTTP/1.1 200 O",
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_cut_and_foreign_responses_are_errors(data):
    with pytest.raises(ProtocolError):
        read_response("GET", data, 1000)


def test_encoders_refuse_line_breaks():
    with pytest.raises(ValueError):
        encode_request("GET", "/", [("Host", "x\r\nEvil: y")])
    with pytest.raises(AssertionError):
        encode_response_head(200, [("Location", "x\r\nEvil: y")])
    assert (
        encode_request("POST", "/x", [("Host", "d")], b"{}")
        == b"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_what_the_command_line_imports_stays_cheap():
    code = (
        "import sys, satsuma.wire.http_client, satsuma.wire.stdcopy, satsuma.wire.jsonstream\n"
        "print(*[m for m in ('typing', 'enum', 're', 'dataclasses', 'asyncio', 'logging', 'pathlib') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == ""
