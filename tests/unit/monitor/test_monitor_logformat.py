from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from satsuma.base.clock import parse_rfc3339
from satsuma.monitor.logdecode import JsonDecoder, LocalDecoder
from satsuma.monitor.logformat import (
    LAST,
    MAX_LINE,
    PART,
    WHOLE,
    JsonFormat,
    LocalFormat,
    Splitter,
    escape_json,
)

TIME = parse_rfc3339("2026-01-02T03:04:05.120000000Z")


def split(chunks):
    splitter = Splitter()
    pieces = [piece for chunk in chunks for piece in splitter.feed(chunk)]
    return pieces + splitter.close()


def test_docker_line():
    (record,) = JsonFormat({}).encode(1, [(b"hello\n", WHOLE)], TIME)
    assert record == b'{"log":"hello\\n","stream":"stdout","time":"2026-01-02T03:04:05.12Z"}\n'


def test_docker_line_with_attributes():
    (record,) = JsonFormat({"tag": "a<b", "env": "x"}).encode(2, [(b"x", PART)], TIME)
    assert record == (
        b'{"log":"x","stream":"stderr","attrs":{"env":"x","tag":"a\\u003cb"},"time":"2026-01-02T03:04:05.12Z"}\n'
    )


def test_times_of_one_chunk_increase():
    records = JsonFormat({}).encode(1, [(b"a\n", WHOLE), (b"b\n", WHOLE)], TIME + 879_999_999)
    assert [json.loads(record)["time"] for record in records] == [
        "2026-01-02T03:04:05.999999999Z",
        "2026-01-02T03:04:06Z",
    ]


def test_escapes_are_those_of_go():
    assert escape_json(b'"\\\n\r\t\x00<>&\x7f') == b'\\"\\\\\\n\\r\\u0009\\u0000\\u003c\\u003e\\u0026\x7f'
    assert escape_json("é\u2028\u2029".encode()) == b"\xc3\xa9\\u2028\\u2029"
    assert escape_json(b"\xe2\x82A\xff") == b"\\ufffd\\ufffdA\\ufffd"
    assert escape_json("\ufffd".encode()) == b"\xef\xbf\xbd"


@given(st.binary())
def test_escaped_text_is_json(data):
    text = json.loads(b'"' + escape_json(data) + b'"')
    assert text == "".join(
        "\ufffd" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in data.decode("utf-8", "surrogateescape")
    )


def test_line_of_exactly_16_kib_is_cut_before_its_newline():
    assert split([b"x" * MAX_LINE + b"\n"]) == [(b"x" * MAX_LINE, PART), (b"\n", LAST)]
    assert split([b"x" * (MAX_LINE - 1) + b"\n"]) == [(b"x" * (MAX_LINE - 1) + b"\n", WHOLE)]


def test_unfinished_end_is_a_part():
    assert split([b"a\nb"]) == [(b"a\n", WHOLE), (b"b", PART)]


def test_carriage_return_is_no_line_end():
    assert split([b"a\rb\r\nc\x0b\n"]) == [(b"a\rb\r\n", WHOLE), (b"c\x0b\n", WHOLE)]


@given(st.lists(st.sampled_from([b"a" * 9000, b"\n", b"b\n", b"c" * MAX_LINE, b"\r", b"d" * 40000 + b"\nx"])))
def test_cuts_of_the_stream_do_not_matter(chunks):
    pieces = split(chunks)
    assert pieces == split([b"".join(chunks)])
    assert b"".join(piece for piece, _ in pieces) == b"".join(chunks)
    assert all(len(piece) <= MAX_LINE + 1 for piece, _ in pieces)


LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=8)


@given(LINES, st.integers(1, 60))
def test_json_decoder_reads_what_the_format_writes(lines, cut):
    pieces = [(line + b"\n", WHOLE) for line in lines]
    data = b"".join(JsonFormat({"a": "b"}).encode(1, pieces, TIME))
    decoder = JsonDecoder()
    entries = [e for i in range(0, len(data), cut) for e in decoder.feed(data[i : i + cut])]
    assert [entry.time_ns for entry in entries] == [TIME + i for i in range(len(lines))]
    assert all(entry.stream == "stdout" and entry.attrs == {"a": "b"} for entry in entries)
    for entry, line in zip(entries, lines, strict=True):
        if line.isascii():
            assert entry.line == line + b"\n"


@given(LINES, st.integers(1, 60))
def test_local_decoder_reads_what_the_format_writes(lines, cut):
    pieces = [(line + b"\n", LAST if i % 2 else WHOLE) for i, line in enumerate(lines)] + [(b"end", PART)]
    data = b"".join(LocalFormat({"a": "b"}).encode(2, pieces, TIME))
    decoder = LocalDecoder()
    entries = [e for i in range(0, len(data), cut) for e in decoder.feed(data[i : i + cut])]
    assert [(entry.stream, entry.line) for entry in entries] == [("stderr", piece) for piece, _ in pieces]
    assert [entry.time_ns for entry in entries] == [TIME + i for i in range(len(pieces))]


@given(st.binary(), st.booleans())
def test_decoders_survive_damage(data, local):
    (LocalDecoder() if local else JsonDecoder()).feed(data)


def test_partial_metadata_of_one_long_line_share_an_id():
    records = LocalFormat({}).encode(1, [(b"a", PART), (b"b", PART), (b"c\n", LAST)], TIME)
    ids = {record[record.index(b"\x12\x40") + 2 :][:64] for record in records}
    assert len(ids) == 1
