"""Image configs: identity of layers, canonical encoding, and configs that others wrote."""

import json

import pytest

from satsuma.base.errors import InvalidParameter
from satsuma.base.ids import sha256_digest
from satsuma.spec.image import (
    EMPTY_DIFF_ID,
    History,
    ImageConfig,
    RootFS,
    chain_ids,
    encode_config,
    parse_config,
)

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_chain_ids_are_those_of_the_specification():
    first, second = chain_ids([A, B])
    assert first == A
    assert second == sha256_digest(f"{A} {B}".encode())
    assert chain_ids([]) == []


def test_empty_layer_is_two_zero_blocks():
    assert sha256_digest(bytes(1024)) == EMPTY_DIFF_ID


def test_our_config_comes_back_and_is_canonical():
    config = ImageConfig(
        architecture="amd64",
        os="linux",
        created="2026-01-02T03:04:05.5Z",
        config={"Env": ["A=1"], "Cmd": ["sh"], "Labels": {"b": "2", "a": "1"}},
        rootfs=RootFS(type="layers", diff_ids=[A]),
        history=[History(created_by="x"), History(empty_layer=True)],
    )
    raw = encode_config(config)
    assert parse_config(raw) == config
    assert encode_config(parse_config(raw)) == raw
    assert "author" not in json.loads(raw)
    assert config.created_ns == 1767323045500000000
    assert config.container_defaults().env == ["A=1"]


def test_foreign_config_with_nulls_and_odd_case():
    raw = b'{"Architecture":"arm64","os":null,"config":{"Cmd":null,"env":["x"]},"rootfs":{"type":"layers","diff_ids":null}}'
    config = parse_config(raw)
    assert config.architecture == "arm64"
    assert config.rootfs.diff_ids == []
    assert config.container_defaults().env == ["x"]
    assert config.created_ns == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b'{"rootfs":{"type":"other"}}',
        b'{"rootfs":{"type":"layers","diff_ids":["sha256:../../x"]}}',
        b'{"rootfs":{"type":"layers","diff_ids":[7]}}',
        b'{"rootfs":{"type":"layers","diff_ids":[]},"history":[{}]}',
        b'{"config":{"Env":"x"}}',
        b'{"config":[]}',
        b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}",
    ],
)
def test_unsound_configs_are_refused(raw):
    with pytest.raises(InvalidParameter):
        parse_config(raw)


@pytest.mark.parametrize("text", ["yesterday", "0001-01-01T00:00:00Z", "", "2026-99-01T00:00:00Z"])
def test_nonsense_times_are_zero(text):
    assert ImageConfig(created=text).created_ns >= 0
