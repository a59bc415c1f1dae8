from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.wire import stdcopy

frames = st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=40)), max_size=8)


def joined(pairs):
    """Join neighbouring pieces of one stream."""
    found = []
    for stream, data in pairs:
        if found and found[-1][0] == stream:
            found[-1] = (stream, found[-1][1] + data)
        else:
            found.append((stream, data))
    return found


def test_encoding_is_dockers():
    assert stdcopy.encode(stdcopy.STDOUT, b"hi\n") == b"\x01\0\0\0\0\0\0\x03hi\n"
    assert stdcopy.header(stdcopy.STDERR, 258) == b"\x02\0\0\0\0\0\x01\x02"


@given(frames, st.lists(st.integers(0, 300), max_size=20))
def test_frames_survive_any_cutting(made, cuts):
    data = b"".join(stdcopy.encode(stream, payload) for stream, payload in made)
    decoder = stdcopy.Decoder()
    found = []
    position = 0
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        found += decoder.feed(data[position:cut])
        position = cut
    decoder.close()
    assert joined(found) == joined((stream, payload) for stream, payload in made if payload)


@given(st.binary(max_size=100))
def test_garbage_raises_protocol_error_only(data):
    try:
        stdcopy.Decoder().feed(data)
    except stdcopy.ProtocolError:
        pass


def test_end_inside_a_frame():
    decoder = stdcopy.Decoder()
    decoder.feed(b"\x01\0\0\0\0\0\0\x03h")
    with pytest.raises(stdcopy.ProtocolError):
        decoder.close()
