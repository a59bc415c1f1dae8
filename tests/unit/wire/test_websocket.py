from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.wire import websocket
from satsuma.wire.websocket import BINARY, CLOSE, PING, Decoder, ProtocolError, encode


def test_handshake_of_the_rfc():
    assert websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    for key in ("", "abc", "////"):
        with pytest.raises(ProtocolError):
            websocket.accept_key(key)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=5),
    st.binary(min_size=4, max_size=4),
    st.integers(1, 50),
)
def test_frames_survive_any_cutting(made, mask, step):
    data = b"".join(encode(opcode, payload, mask=mask) for opcode, payload in made)
    decoder = Decoder()
    found = []
    for position in range(0, len(data), step):
        found += decoder.feed(data[position : position + step])
    assert found == made


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_lengths(size):
    assert Decoder(masked=False).feed(encode(BINARY, b"x" * size)) == [(BINARY, b"x" * size)]


def test_fragments_carry_the_first_opcode():
    decoder = Decoder(masked=False)
    assert decoder.feed(b"\x01\x01a" + encode(PING, b"") + b"\x80\x01b") == [
        (1, b"a"),
        (PING, b""),
        (1, b"b"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        encode(BINARY, b"x"),  # unmasked, though from a client
        b"\xc2\x80\0\0\0\0",  # reserved bit
        b"\x83\x80\0\0\0\0",  # reserved opcode
        b"\x09\x80\0\0\0\0",  # fragmented ping
        b"\x88\xfe\x00\x7e\0\0\0\0",  # long close
        b"\x80\x80\0\0\0\0",  # continuation of nothing
        b"\x02\x80\0\0\0\0\x02\x80\0\0\0\0",  # new message inside of one
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # absurd length
    ],
)
def test_violations(data):
    with pytest.raises(ProtocolError):
        Decoder().feed(data)


def test_close_frame():
    assert encode(CLOSE, (1000).to_bytes(2, "big")) == b"\x88\x02\x03\xe8"
