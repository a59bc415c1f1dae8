"""nf_tables encoding against bytes that nft(8) 1.0.6 sends (`nft --debug=mnl`)."""

from __future__ import annotations

import socket
import struct

import pytest

from satsuma.linux import nfnetlink, nftables, rtnetlink
from satsuma.linux.netlink import attrs_dict, iter_attrs, iter_messages


def test_concatenated_types() -> None:
    assert nftables.concat_type(nftables.TYPE_INET_PROTO, nftables.TYPE_INET_SERVICE) == 781
    assert nftables.concat_type(nftables.TYPE_IPV4_ADDR, nftables.TYPE_INET_SERVICE) == 461


def test_a_map_element() -> None:
    """`tcp . 8080 : 172.17.0.2 . 80`: every part of a concatenation fills four bytes."""
    key = bytes.fromhex("06000000") + bytes.fromhex("1f900000")
    value = socket.inet_aton("172.17.0.2") + bytes.fromhex("00500000")
    wanted = (
        "2c000180"  # NFTA_LIST_ELEM
        "10000180"
        "0c000100"
        "06000000"
        "1f900000"  # NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE }
        "10000280"
        "0c000100"
        "ac110002"
        "00500000"  # NFTA_SET_ELEM_DATA
    )
    encoded = nftables.element(key, value)
    assert encoded.hex() == wanted.replace("2c000180", struct.pack("=H", len(encoded)).hex() + "0180")


@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [
        ("172.17.0.0/16", [("ac110000", 0), ("ac120000", 1)]),
        ("10.0.0.1/32", [("0a000001", 0), ("0a000002", 1)]),
        ("255.255.0.0/16", [("ffff0000", 0)]),
    ],
)
def test_a_prefix_is_an_interval(prefix: str, wanted: list[tuple[str, int]]) -> None:
    address, length = prefix.split("/")
    found = []
    for encoded in nftables.prefix_elements(socket.inet_aton(address), int(length)):
        ((_, body),) = iter_attrs(encoded)
        attrs = attrs_dict(body)
        key = attrs_dict(attrs[nftables.NFTA_SET_ELEM_KEY])[nftables.NFTA_DATA_VALUE]
        flags = int.from_bytes(attrs.get(nftables.NFTA_SET_ELEM_FLAGS, b"\0"), "big")
        found.append((key.hex(), flags))
    assert found == wanted


def test_a_transaction_is_framed() -> None:
    table = nftables.Table("t")
    data = nfnetlink.encode_transaction([table.add(), table.delete()], 100)
    found = [(kind, flags, seq, bytes(body)) for kind, flags, seq, body in iter_messages(data)]
    assert [(kind, seq) for kind, _flags, seq, _body in found] == [
        (nfnetlink.NFNL_MSG_BATCH_BEGIN, 100),
        (nftables.NFT_MSG_NEWTABLE, 101),
        (nftables.NFT_MSG_DELTABLE, 102),
        (nfnetlink.NFNL_MSG_BATCH_END, 103),
    ]
    assert found[0][3] == bytes.fromhex("0000000a")  # res_id is the subsystem, big-endian
    assert found[1][3] == bytes.fromhex("020000000600010074000000")
    assert [flags & 4 for _kind, flags, _seq, _body in found] == [0, 0, 4, 0]


def test_many_elements_are_split() -> None:
    messages = nftables.Table("t").add_elements("s", [nftables.element(bytes(4))] * 1200)
    assert len(messages) == 3
    assert all(len(message.body) < 65536 for message in messages)


def test_a_veth_pair_is_one_message() -> None:
    message = rtnetlink.add_veth("near", peer_name="eth0", peer_netns_fd=7, peer_address=bytes(6), master=5)
    attrs = attrs_dict(message.body[16:])
    assert attrs[rtnetlink.IFLA_IFNAME] == b"near\0"
    assert attrs[rtnetlink.IFLA_MASTER] == struct.pack("=I", 5)
    info = attrs_dict(attrs[rtnetlink.IFLA_LINKINFO])
    assert info[rtnetlink.IFLA_INFO_KIND] == b"veth\0"
    peer = attrs_dict(info[rtnetlink.IFLA_INFO_DATA])[rtnetlink.VETH_INFO_PEER]
    inner = attrs_dict(peer[16:])
    assert inner[rtnetlink.IFLA_IFNAME] == b"eth0\0"
    assert inner[rtnetlink.IFLA_NET_NS_FD] == struct.pack("=I", 7)


def test_an_address_has_its_broadcast() -> None:
    message = rtnetlink.add_addr(3, socket.inet_aton("172.17.0.2"), 16)
    attrs = attrs_dict(message.body[8:])
    assert attrs[rtnetlink.IFA_BROADCAST] == socket.inet_aton("172.17.255.255")
    assert rtnetlink.IFA_BROADCAST not in attrs_dict(rtnetlink.add_addr(3, bytes(4), 32).body[8:])
