"""The netlink envelope: attributes, batches, errors."""

from __future__ import annotations

import errno
import struct

from hypothesis import given
from hypothesis import strategies as st

from satsuma.linux import netlink
from satsuma.linux.netlink import Message


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_come_back(pairs: list[tuple[int, bytes]]) -> None:
    encoded = b"".join(netlink.attr(kind, data) for kind, data in pairs)
    assert len(encoded) % 4 == 0
    assert list(netlink.iter_attrs(encoded)) == pairs


@given(st.binary(max_size=200))
def test_garbage_ends_the_iteration(data: bytes) -> None:
    assert sum(len(payload) for _kind, payload in netlink.iter_attrs(data)) <= len(data)
    list(netlink.iter_messages(data))


def test_nested_attributes_carry_the_flag() -> None:
    encoded = netlink.nested(5, netlink.attr_u32(1, 7))
    assert encoded == struct.pack("=HHHHI", 12, 5 | 0x8000, 8, 1, 7)


def test_only_the_last_message_of_a_batch_asks_for_an_answer() -> None:
    batch = netlink.encode_batch([Message(16, b"abcde"), Message(17, b"", 0x400)], 9)
    found = [(kind, flags, seq, bytes(payload)) for kind, flags, seq, payload in netlink.iter_messages(batch)]
    assert found == [(16, netlink.NLM_F_REQUEST, 9, b"abcde"), (17, 0x400 | 0x5, 10, b"")]
    assert len(batch) == 24 + 16


def test_an_error_has_the_kernels_text() -> None:
    text = netlink.attr_str(netlink.NLMSGERR_ATTR_MSG, "no such device")
    payload = memoryview(struct.pack("=i", -errno.ENODEV) + bytes(16) + text)
    assert netlink.parse_error(payload, netlink.NLM_F_ACK_TLVS) == (errno.ENODEV, "no such device")
    error = netlink.Failure(3, errno.ENODEV, "no such device").as_error("rtnetlink")
    assert isinstance(error, OSError)
    assert str(error) == "[Errno 19] No such device: no such device"
    assert error.__notes__ == ["rtnetlink: message 3 of the batch = -ENODEV"]


def test_an_acknowledgement_is_error_zero() -> None:
    assert netlink.parse_error(memoryview(bytes(20)), 0) == (0, "")
