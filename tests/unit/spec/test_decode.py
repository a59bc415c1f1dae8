from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.base.errors import InvalidParameter
from satsuma.spec import docker
from satsuma.spec.decode import decode_json
from satsuma.spec.docker import CreateRequest, HostConfig, NetworkCreateRequest


def create(value) -> CreateRequest:
    return decode_json(value if isinstance(value, bytes) else json.dumps(value).encode(), CreateRequest)


def test_keys_of_structs_match_whatever_their_case_and_keys_of_maps_do_not():
    body = create({"IMAGE": "bb", "hostCONFIG": {"dns": ["1.1.1.1"]}, "Labels": {"A": "1", "a": "2"}})
    assert body.image == "bb"
    assert body.host_config.dns == ["1.1.1.1"]
    assert body.labels == {"A": "1", "a": "2"}


def test_null_is_the_default_everywhere():
    names = [field.encode_name for field in __import__("msgspec").structs.fields(HostConfig)]
    assert (
        create({"HostConfig": dict.fromkeys(names), "NetworkingConfig": None, "Env": None}) == CreateRequest()
    )
    assert create(b"null") == CreateRequest()


def test_null_elements_are_zero_values():
    body = create(
        {
            "Env": ["A=b", None],
            "Labels": {"a": None},
            "HostConfig": {"Ulimits": [None], "PortBindings": {"80/tcp": None}},
        }
    )
    assert body.env == ["A=b", ""]
    assert body.labels == {"a": ""}
    assert body.host_config.ulimits == [docker.Ulimit()]
    assert body.host_config.port_bindings == {"80/tcp": None}


def test_commands_are_lists_or_one_string():
    assert create({"Cmd": "sh", "Entrypoint": ["a", "b"]}).cmd == ["sh"]
    assert create({"Entrypoint": ["a", "b"]}).entrypoint == ["a", "b"]
    assert create({"Entrypoint": []}).entrypoint == []


def test_unknown_fields_are_ignored_and_the_last_of_equal_keys_counts():
    assert create(b'{"Image":"a","Bogus":[1],"image":"b","Image":"c"}').image in ("b", "c")
    assert create(b'{"Image":"a","Image":"c"}').image == "c"


def test_every_name_that_docker_uses():
    """The golden inspect answer is a superset of what clients send: our names must be among its names."""
    from pathlib import Path

    assert docker.json_name("ipam_config") == "IPAMConfig"
    assert Path(docker.__file__).exists()
    names = {field.name: field.encode_name for field in __import__("msgspec").structs.fields(HostConfig)}
    assert names["uts_mode"] == "UTSMode"
    assert names["io_maximum_iops"] == "IOMaximumIOps"
    assert names["blkio_device_read_iops"] == "BlkioDeviceReadIOps"
    assert names["blkio_device_read_bps"] == "BlkioDeviceReadBps"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "invalid JSON: got EOF while reading request body"),
        (b"{", "invalid JSON: unexpected EOF"),
        (b'{"a":1} x', "unexpected content after JSON"),
        (b"{} {}", "unexpected content after JSON"),
        (b"{'a':1}", "invalid JSON: invalid character '\\'' looking for beginning of object key string"),
        (b'{"a":NaN}', "invalid JSON: invalid character 'N' looking for beginning of value"),
        (b"[" * 100_000, "invalid JSON: json: exceeded max depth"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "invalid JSON: json: exceeded max depth"),
        (
            b'{"Tty":1}',
            "invalid JSON: json: cannot unmarshal number into Go struct field CreateRequest.Tty of type bool",
        ),
        (
            b'{"HostConfig":{"Memory":"1g"}}',
            "invalid JSON: json: cannot unmarshal string into Go struct field CreateRequest.HostConfig.Memory of type int64",
        ),
        (
            b'{"HostConfig":{"Memory":1.5}}',
            "invalid JSON: json: cannot unmarshal number 1.5 into Go struct field CreateRequest.HostConfig.Memory of type int64",
        ),
        (
            b'{"HostConfig":{"Memory":9223372036854775808}}',
            "invalid JSON: json: cannot unmarshal number 9223372036854775808 into Go struct field "
            "CreateRequest.HostConfig.Memory of type int64",
        ),
        (
            b'{"Env":"A=b"}',
            "invalid JSON: json: cannot unmarshal string into Go struct field CreateRequest.Env of type []string",
        ),
    ],
)
def test_errors_in_gos_words(raw, message):
    with pytest.raises(InvalidParameter) as error:
        create(raw)
    assert str(error.value) == message


def test_text_that_is_no_utf8_is_mended():
    assert create(b'{"Hostname":"a\xff"}').hostname == "a\ufffd"


def test_optional_booleans():
    assert decode_json(b'{"EnableIPv6":true,"Name":"n"}', NetworkCreateRequest).enable_ipv6 is True
    assert decode_json(b"{}", NetworkCreateRequest).enable_ipv6 is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["HostConfig", "Env", "Cmd", "Labels", "Healthcheck", "Mounts", "memory", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_decodes_or_is_invalid_parameter(value):
    try:
        create(value)
    except InvalidParameter:
        pass


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_invalid_parameter(raw):
    try:
        create(raw)
    except InvalidParameter:
        pass
