from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.monitor import protocol


def transfer(body, blobs=(), fds=()):
    """Send a message through a real socket pair and return what arrives."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        protocol.send(ours, body, blobs, fds)
        return protocol.receive(theirs, protocol.Assembler())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text().filter(lambda k: k not in ("blobs", "fds", "memfd")), JSON),
    st.lists(st.binary()),
)
def test_messages_arrive_as_they_were_sent(body, blobs):
    message = transfer(body, blobs)
    assert message.body == body
    assert message.blobs == blobs


def test_undecodable_file_names_survive():
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert transfer({"path": name}).body == {"path": name}


def test_big_messages_travel_in_a_memfd_with_descriptors_behind_it():
    body = {"text": "x" * 3_000_000}
    reader, writer = os.pipe()
    message = transfer(body, [b"blob"], [reader, writer])
    assert (message.body, message.blobs) == (body, [b"blob"])
    first, second = message.take_fd(0), message.take_fd(1)
    os.write(second, b"hello")
    assert os.read(first, 9) == b"hello"
    for fd in (reader, writer, first, second):
        os.close(fd)


def test_more_descriptors_than_one_packet_takes():
    null = os.open("/dev/null", os.O_RDONLY)
    message = transfer({"a": 1}, (), [null] * 700)
    fds = {message.take_fd(index) for index in range(700)}
    assert len(fds) == 700
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in (*fds, null):
        os.close(fd)


def test_descriptors_nobody_takes_are_closed():
    null = os.open("/dev/null", os.O_RDONLY)
    message = transfer({}, (), [null])
    (fd,) = (fd for fd in message._fds if fd is not None)
    message.close()
    with pytest.raises(OSError):
        os.fstat(fd)
    with pytest.raises(protocol.ProtocolError):
        message.take_fd(0)
    os.close(null)


@given(st.binary())
def test_garbage_is_a_protocol_error(data):
    try:
        protocol.Assembler().feed(data)
    except protocol.ProtocolError:
        pass


def test_end_of_connection():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with theirs:
        assert protocol.receive(theirs, protocol.Assembler()) is None
