"""Compression: every kind, several members, damage."""

import bz2
import gzip
import io
import lzma

import pytest
from backports import zstd
from hypothesis import assume, given
from hypothesis import strategies as st

from satsuma.wire import compression
from satsuma.wire.compression import CompressionError, detect, open_stream

PACK = {
    "": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}


def unpack(raw, cut=1 << 20):
    stream = io.BytesIO(raw)
    plain = open_stream(lambda n: stream.read(min(n, cut)))
    parts = []
    while part := plain.read(1 << 16):
        parts.append(part)
    return plain.kind, b"".join(parts)


@pytest.mark.parametrize("kind", PACK)
@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=4), st.integers(1, 500))
def test_members_in_a_row_are_one_stream(kind, parts, cut):
    plain = b"\1".join(parts) + b"\1"
    assume(kind or not detect(plain[:10]))
    raw = b"".join(PACK[kind](part + b"\1") for part in parts)
    assert unpack(raw, cut) == (kind, plain)


@pytest.mark.parametrize("kind", [k for k in PACK if k])
def test_big_output_of_small_input_comes_in_steps(kind):
    raw = PACK[kind](bytes(30 << 20))
    stream = io.BytesIO(raw)
    plain = open_stream(stream.read)
    total = 0
    while part := plain.read(1 << 30):
        assert len(part) <= 1 << 18
        total += len(part)
    assert total == 30 << 20


@pytest.mark.parametrize("kind", [k for k in PACK if k])
def test_cut_or_damaged_streams_are_errors(kind):
    raw = PACK[kind](bytes(range(256)) * 50)
    for bad in (raw[:-3], raw[: len(raw) // 2], raw + b"garbage after"):
        with pytest.raises(CompressionError):
            unpack(bad)


@pytest.mark.parametrize("kind", ["gzip", "xz"])
def test_zero_padding_is_allowed(kind):
    raw = PACK[kind](b"data") + bytes(512)
    assert unpack(raw) == (kind, b"data")


@given(st.binary(max_size=200))
def test_garbage_raises_only_the_declared_error(data):
    for magic in (b"", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"):
        try:
            unpack(magic + data)
        except CompressionError:
            pass


def test_zstd_window_is_limited():
    options = {
        zstd.CompressionParameter.window_log: 30,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    packer = zstd.ZstdCompressor(options=options)
    raw = packer.compress(b"x" * 100) + packer.flush()
    with pytest.raises(CompressionError):
        unpack(raw)


def test_skippable_frame_is_zstd():
    assert compression.detect(b"\x50\x2a\x4d\x18\0\0\0\0\0\0") == "zstd"
