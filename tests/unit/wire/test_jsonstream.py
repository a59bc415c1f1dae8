from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.wire.jsonstream import ProtocolError, Splitter

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
documents = st.lists(
    st.dictionaries(st.text(max_size=5), values, max_size=3) | st.lists(values, max_size=3), max_size=6
)


@given(
    documents,
    st.sampled_from(["", "\n", "\r\n", " \n\t"]),
    st.booleans(),
    st.lists(st.integers(0, 500), max_size=20),
)
def test_documents_survive_any_cutting(made, separator, ascii_only, cuts):
    data = "".join(json.dumps(value, ensure_ascii=ascii_only) + separator for value in made).encode(
        "utf-8", "replace"
    )
    splitter = Splitter()
    found = []
    position = 0
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        found += splitter.feed(data[position:cut])
        position = cut
    splitter.close()
    assert [json.loads(raw) for raw in found] == [
        json.loads(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "replace")) for value in made
    ]


@given(st.binary(max_size=100))
def test_garbage_raises_protocol_error_only(data):
    try:
        Splitter().feed(data)
    except ProtocolError:
        pass


def test_braces_in_strings_and_joined_documents():
    assert Splitter().feed(b'{"a":"}{"}{"b":"\\"}"}\n{"c":{}}\n') == [
        b'{"a":"}{"}',
        b'{"b":"\\"}"}',
        b'{"c":{}}',
    ]


def test_lines_are_taken_when_they_are_whole():
    splitter = Splitter()
    assert splitter.feed(b'{"status":"a"}\r\n{"status":"b"}\r\n') == [b'{"status":"a"}', b'{"status":"b"}']
    assert splitter.feed(b'{"status"') == []
    assert splitter.feed(b':"c"}\n') == [b'{"status":"c"}']


def test_cut_stream():
    splitter = Splitter()
    splitter.feed(b'{"a":')
    with pytest.raises(ProtocolError):
        splitter.close()
