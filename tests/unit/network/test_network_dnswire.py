"""DNS messages: nothing but the declared error for garbage, answers that a client can read."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.network import dnswire


def question(name: str, qtype: int = 1, *, extra: bytes = b"", additional: int = 0) -> bytes:
    head = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, additional)
    return head + dnswire.encode_name(name) + struct.pack(">HH", qtype, 1) + extra


@given(st.binary(max_size=100))
def test_garbage_raises_only_the_declared_error(data: bytes) -> None:
    try:
        dnswire.parse_query(data)
    except dnswire.DnsFormatError:
        pass


labels = st.text(
    st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="."), min_size=1, max_size=20
)


@given(st.lists(labels, min_size=1, max_size=6))
def test_names_come_back(parts: list[str]) -> None:
    name = ".".join(parts)
    query = dnswire.parse_query(question(name))
    assert query.name == name + "."
    assert (query.id, query.qtype, query.qclass, query.udp_size) == (7, 1, 1, 512)


def test_the_clients_datagram_size_is_read() -> None:
    opt = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)
    assert dnswire.parse_query(question("a", extra=opt, additional=1)).udp_size == 1232


def test_an_answer() -> None:
    query = dnswire.parse_query(question("web"))
    response = dnswire.encode_addresses(query, [IPv4Address("10.0.0.2")], 600, 512)
    assert response.hex() == (
        "0007" "8180" "0001" "0001" "0000" "0000" "03776562" "00" "0001" "0001"
        "c00c" "0001" "0001" "00000258" "0004" "0a000002"
    )  # fmt: skip
    assert dnswire.answers_query(response, question("web"))
    assert dnswire.answers_query(response, question("WEB")), "names compare without case"
    assert not dnswire.answers_query(response, question("other"))
    assert not dnswire.answers_query(b"\0\x08" + response[2:], question("web"))


def test_too_many_answers_are_cut_and_say_so() -> None:
    query = dnswire.parse_query(question("web"))
    response = dnswire.encode_addresses(query, [IPv4Address(n) for n in range(100)], 600, 512)
    assert len(response) <= 512
    assert response[2] & 2
    assert struct.unpack_from(">H", response, 6)[0] == (len(response) - 12 - 9) // 16 + 0


def test_statuses() -> None:
    query = dnswire.parse_query(question("web"))
    assert dnswire.rcode_of(dnswire.encode_status(query, dnswire.SERVFAIL)) == dnswire.SERVFAIL
    assert dnswire.rcode_of(b"") == dnswire.SERVFAIL


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.17.172.in-addr.arpa.", "172.17.0.2"),
        ("2.0.17.172.IN-ADDR.ARPA", "172.17.0.2"),
        ("17.172.in-addr.arpa.", None),
        ("300.0.17.172.in-addr.arpa.", None),
        ("web.", None),
    ],
)
def test_reverse_names(name: str, address: str | None) -> None:
    found = dnswire.address_of_pointer(name)
    assert (str(found) if found else None) == address
