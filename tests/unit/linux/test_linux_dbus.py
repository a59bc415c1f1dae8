"""The wire format against bytes of another implementation, and against everything that is not D-Bus."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jeepney import low_level

from satsuma.linux import dbus

# StartTransientUnit, serialised by jeepney 0.9.0.
GOLDEN = bytes.fromhex(
    "6c0100010801000007000000b600000001016f00190000002f6f72672f667265656465736b746f702f73797374656d643100000000000000"
    "02017300200000006f72672e667265656465736b746f702e73797374656d64312e4d616e6167657200000000000000000301730012000000"
    "53746172745472616e7369656e74556e697400000000000006017300180000006f72672e667265656465736b746f702e73797374656d6431"
    "000000000000000008016700107373612873762961287361287376292900000007000000782e73636f706500070000007265706c61636500"
    "e4000000000000000b0000004465736372697074696f6e0001730000180000006c6962636f6e7461696e657220636f6e7461696e65722078"
    "00000000000000000400000050494473000261750000000004000000921000000800000044656c6567617465000162000100000000000000"
    "090000004d656d6f72794d6178000174000000000000000000000000000100000b000000416c6c6f77656443505573000261790001000000"
    "03000000000000000b000000446576696365416c6c6f770005612873732900001c000000000000000d0000002f6465762f636861722f313a"
    "330000000300000072776d0000000000"
)
PROPERTIES = [
    ("Description", ("s", "libcontainer container x")),
    ("PIDs", ("au", [4242])),
    ("Delegate", ("b", True)),
    ("MemoryMax", ("t", 1 << 40)),
    ("AllowedCPUs", ("ay", b"\x03")),
    ("DeviceAllow", ("a(ss)", [("/dev/char/1:3", "rwm")])),
]
CALL = {
    "destination": "org.freedesktop.systemd1",
    "path": "/org/freedesktop/systemd1",
    "interface": "org.freedesktop.systemd1.Manager",
    "member": "StartTransientUnit",
    "signature": "ssa(sv)a(sa(sv))",
}


def test_the_bytes_are_those_of_another_implementation() -> None:
    message = dbus.Message(dbus.METHOD_CALL, 7, body=["x.scope", "replace", PROPERTIES, []], **CALL)
    assert dbus.encode_message(message) == GOLDEN


def test_and_are_read_back() -> None:
    assert dbus.message_length(GOLDEN[:16]) == len(GOLDEN)
    message = dbus.parse_message(GOLDEN)
    assert message.body == ["x.scope", "replace", PROPERTIES, []]
    assert (message.kind, message.serial) == (dbus.METHOD_CALL, 7)
    assert {name: getattr(message, name) for name in CALL} == CALL


@pytest.mark.parametrize(
    ("signature", "values", "data"),
    [
        ("y", [7], "07"),
        ("yu", [1, 2], "01000000 02000000"),
        ("b", [True], "01000000"),
        ("nq", [-2, 65535], "feff ffff"),
        ("x", [-1], "ffffffffffffffff"),
        ("d", [1.0], "000000000000f03f"),
        ("s", ["h\u00e9"], "03000000 68c3a9 00"),
        ("o", ["/"], "01000000 2f00"),
        ("g", ["as"], "02 617300"),
        ("v", [("u", 5)], "01 7500 00 05000000"),
        ("as", [["a", "bc"]], "0f000000 01000000 6100 0000 02000000 626300"),
        ("at", [[]], "00000000 00000000"),
        (
            "a{sv}",
            [{"k": ("b", False)}],
            "10000000 00000000 01000000 6b00 01 6200 000000 00000000",
        ),
        ("(ys)", [(1, "")], "01000000 00000000 00"),
    ],
)
def test_single_values(signature: str, values: list, data: str) -> None:
    assert dbus.marshal(signature, values).hex() == data.replace(" ", "")
    assert dbus.unmarshal(signature, dbus.marshal(signature, values)) == values


def test_big_endian_is_read() -> None:
    assert dbus.unmarshal("us", bytes.fromhex("00000005 00000001 6100"), order=">") == [5, "a"]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
BASIC = st.one_of(
    st.tuples(st.just("s"), TEXT),
    st.tuples(st.just("b"), st.booleans()),
    st.tuples(st.just("u"), st.integers(0, (1 << 32) - 1)),
    st.tuples(st.just("t"), st.integers(0, (1 << 64) - 1)),
    st.tuples(st.just("i"), st.integers(-(1 << 31), (1 << 31) - 1)),
    st.tuples(st.just("ay"), st.binary(max_size=20)),
    st.tuples(st.just("as"), st.lists(TEXT, max_size=4)),
    st.tuples(st.just("a(ss)"), st.lists(st.tuples(TEXT, TEXT), max_size=3)),
)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(TEXT, BASIC), max_size=8), TEXT)
def test_properties_round_trip_and_agree_with_jeepney(properties: list, name: str) -> None:
    signature, body = "sa(sv)", [name, properties]
    data = dbus.marshal(signature, body)
    assert dbus.unmarshal(signature, data) == body
    theirs = low_level.parse_signature(list(f"({signature})"))
    assert theirs.serialise(tuple(body), 0, low_level.Endianness.little) == data


@settings(deadline=None)
@given(st.integers(0, len(GOLDEN) - 1), st.integers(0, 255))
def test_a_changed_byte_is_an_error_or_another_message_never_anything_else(place: int, value: int) -> None:
    data = bytearray(GOLDEN)
    data[place] = value
    try:
        dbus.parse_message(bytes(data))
    except dbus.ProtocolError:
        pass


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_rubbish(data: bytes) -> None:
    for signature in ("s", "v", "a(sv)", "a{sv}", "aas"):
        try:
            dbus.unmarshal(signature, data)
        except dbus.ProtocolError:
            pass


@pytest.mark.parametrize("signature", ["a", "(", "{s", "z", "(s", "a" * 50 + "s", ")"])
def test_signatures_that_are_none(signature: str) -> None:
    with pytest.raises(dbus.ProtocolError):
        dbus.split_signature(signature)


@pytest.mark.parametrize(
    ("signature", "values"),
    [("u", [-1]), ("u", ["x"]), ("s", [5]), ("ss", ["a"]), ("s", ["a\0b"]), ("(s)", [("a", "b")])],
)
def test_values_that_do_not_fit(signature: str, values: list) -> None:
    with pytest.raises(dbus.ProtocolError):
        dbus.marshal(signature, values)


def test_messages_that_are_too_long_or_none() -> None:
    with pytest.raises(dbus.ProtocolError, match="too long"):
        dbus.message_length(b"l\1\0\1" + b"\xff\xff\xff\x7f" + b"\0" * 8)
    with pytest.raises(dbus.ProtocolError):
        dbus.message_length(b"HTTP/1.1 400 Bad")
    nested = b"\1v\0" * 200 + b"\1y\0\1"
    with pytest.raises(dbus.ProtocolError, match="deep"):
        dbus.unmarshal("v", nested)


def test_addresses() -> None:
    assert dbus.parse_address("unix:path=/run/a%20b,guid=1;tcp:host=x;unix:abstract=/tmp/d") == [
        "/run/a b",
        "\0/tmp/d",
    ]
    assert dbus.parse_address("unix:path=/tmp/%c3%a9") == ["/tmp/\u00e9"]
    with pytest.raises(dbus.ProtocolError):
        dbus.parse_address("unix:path=%zz")
