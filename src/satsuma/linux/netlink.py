"""Netlink in general: messages, attributes, and a socket that sends batches and checks every answer.

Owns the envelope (netlink(7)): `struct nlmsghdr`, attributes padded to four bytes, acknowledgements with their
extended text.  Must not know what a link or a table is: that is `rtnetlink` and `nfnetlink`.

Both families of interest answer *inside* sendmsg(2): when send returns, all acknowledgements are queued at the
socket.  A batch is therefore one send and (mostly) one recv, and never sleeps for an event.

Source: netlink(7), linux/netlink.h, Documentation/userspace-api/netlink/intro.rst.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

# linux/netlink.h
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NLM_F_REQUEST = 0x001
NLM_F_MULTI = 0x002
NLM_F_ACK = 0x004
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_ACK_TLVS = 0x200
NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NLMSGERR_ATTR_MSG = 1

SO_RCVBUFFORCE = 33  # asm-generic/socket.h; not in Python's socket module
RECEIVE_BUFFER = 4 << 20
"""A thousand failing messages overflow the default buffer of 208 KiB with ENOBUFS."""

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def attr(kind: int, data: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    size = len(data)
    return _ATTR.pack(size + 4, kind) + data + _PADDING[size & 3]


def nested(kind: int, *attrs: bytes) -> bytes:
    """Encode an attribute whose payload is attributes, with NLA_F_NESTED (nf_tables insists on it)."""
    data = b"".join(attrs)
    return _ATTR.pack(len(data) + 4, kind | NLA_F_NESTED) + data


def attr_u32(kind: int, value: int) -> bytes:
    """Encode a host-order u32 attribute, the form of rtnetlink."""
    return struct.pack("=HHI", 8, kind, value)


def attr_be32(kind: int, value: int) -> bytes:
    """Encode a network-order u32 attribute, the form of nfnetlink."""
    return struct.pack("=HH", 8, kind) + value.to_bytes(4, "big")


def attr_str(kind: int, text: str) -> bytes:
    """Encode a zero-terminated string attribute."""
    return attr(kind, text.encode() + b"\0")


def iter_attrs(data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield `(type without flag bits, payload)` of each attribute; a cut-off tail ends the iteration."""
    view = memoryview(data)
    while len(view) >= 4:
        size, kind = _ATTR.unpack_from(view)
        if size < 4 or size > len(view):
            return
        yield kind & NLA_TYPE_MASK, bytes(view[4:size])
        view = view[(size + 3) & ~3 :]


def attrs_dict(data: bytes | memoryview) -> dict[int, bytes]:
    """Return the attributes as a dict; of several with one type the last stays."""
    return dict(iter_attrs(data))


class Message:
    """One request: type, flags and body.  The socket adds length and sequence number."""

    __slots__ = ("body", "flags", "kind")

    def __init__(self, kind: int, body: bytes, flags: int = 0) -> None:
        self.kind = kind
        self.body = body
        self.flags = flags

    def __repr__(self) -> str:
        return f"Message(kind={self.kind:#x}, flags={self.flags:#x}, body={self.body.hex()})"


class Failure:
    """The kernel's refusal of one message of a batch."""

    __slots__ = ("errno", "index", "text")

    def __init__(self, index: int, number: int, text: str) -> None:
        self.index = index
        self.errno = number
        self.text = text

    def as_error(self, what: str = "netlink") -> OSError:
        """Return the OSError of this errno, the kernel's extended text as a note."""
        error = OSError(self.errno, os.strerror(self.errno) + (f": {self.text}" if self.text else ""))
        name = errno.errorcode.get(self.errno, self.errno)
        error.add_note(f"{what}: message {self.index} of the batch = -{name}")
        return error


def encode_batch(messages: Sequence[Message], first_seq: int) -> bytes:
    """Return the bytes of a batch; message i carries sequence number `first_seq + i`.

    Only the last message asks for an acknowledgement: an error is reported without being asked for, and the
    kernel answers in order, so that the last acknowledgement says that all answers are there.
    """
    last = len(messages) - 1
    parts: list[bytes] = []
    for index, message in enumerate(messages):
        flags = message.flags | NLM_F_REQUEST | (NLM_F_ACK if index == last else 0)
        body = message.body
        size = 16 + len(body)
        parts.append(_HEADER.pack(size, message.kind, flags, (first_seq + index) & 0xFFFFFFFF, 0))
        parts.append(body)
        parts.append(_PADDING[size & 3])
    return b"".join(parts)


def iter_messages(data: bytes) -> Iterator[tuple[int, int, int, memoryview]]:
    """Yield `(type, flags, seq, payload)` of each message in a datagram."""
    view = memoryview(data)
    while len(view) >= 16:
        size, kind, flags, seq, _port = _HEADER.unpack_from(view)
        if size < 16 or size > len(view):
            return
        yield kind, flags, seq, view[16:size]
        view = view[(size + 3) & ~3 :]


def parse_error(payload: memoryview, flags: int) -> tuple[int, str]:
    """Return `(errno, extended text)` of an NLMSG_ERROR payload; errno 0 is an acknowledgement."""
    (code,) = _ERROR.unpack_from(payload)
    text = ""
    if flags & NLM_F_ACK_TLVS:
        # With NETLINK_CAP_ACK the echoed request is its header alone: 4 + 16 bytes.
        message = attrs_dict(payload[20:]).get(NLMSGERR_ATTR_MSG)
        if message:
            text = message.rstrip(b"\0").decode(errors="replace")
    return -code, text


class Socket:
    """A netlink socket: one user at a time, blocking, closed by its owner.

    A socket stays in the network namespace in which it was opened: a descriptor that another process made
    inside a container's namespace is served here without entering that namespace.
    """

    __slots__ = ("_seq", "_sock")

    def __init__(self, protocol: int, *, fd: int | None = None, groups: int = 0) -> None:
        if fd is None:
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            try:
                self._sock.bind((0, groups))
            except OSError:
                self._sock.close()
                raise
        else:
            # All of family, type, proto given: otherwise Python asks the kernel three times.
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol, fileno=fd)
        self._sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._seq = int.from_bytes(os.urandom(3), "big")
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:  # a user namespace does not own the host's limits
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def fileno(self) -> int:
        """Return the descriptor, for polling."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._sock.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def transact(self, messages: Sequence[Message]) -> list[Failure]:
        """Send a batch and return what the kernel refused, in order; empty means that all succeeded.

        rtnetlink goes on after a refused message: the caller decides what a failure in the middle means.
        """
        if not messages:
            return []
        first = self._seq + 1
        self._seq += len(messages)
        data = encode_batch(messages, first)
        return self.exchange(data, first, len(messages))

    def exchange(self, data: bytes, first_seq: int, count: int) -> list[Failure]:
        """Send encoded messages and collect refusals until message *count* - 1 is answered."""
        self._send(data)
        failures: list[Failure] = []
        last = (first_seq + count - 1) & 0xFFFFFFFF
        while True:
            for kind, flags, seq, payload in iter_messages(self._sock.recv(65536)):
                index = (seq - first_seq) & 0xFFFFFFFF
                if kind != NLMSG_ERROR or index >= count:
                    continue  # an echo, a late answer of an earlier batch, or a notification
                number, text = parse_error(payload, flags)
                if number:
                    failures.append(Failure(index, number, text))
                if seq == last:
                    return failures

    def run(self, messages: Sequence[Message], *, ignore: Iterable[int] = ()) -> None:
        """Send a batch; raise the first refusal whose errno is not in *ignore*.

        Raises:
            OSError: of the kernel's errno, its extended text in the message.
        """
        skip = frozenset(ignore)
        for failure in self.transact(messages):
            if failure.errno not in skip:
                raise failure.as_error()

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """Send a request that answers with messages; return `(type, payload)` of each.

        Serves both dumps (NLM_F_DUMP in the flags) and single lookups.
        """
        self._seq += 1
        seq = self._seq & 0xFFFFFFFF
        flags = message.flags | NLM_F_REQUEST
        size = 16 + len(message.body)
        self._send(_HEADER.pack(size, message.kind, flags, seq, 0) + message.body)
        found: list[tuple[int, bytes]] = []
        while True:
            for kind, answer_flags, answer_seq, payload in iter_messages(self._sock.recv(1 << 18)):
                if answer_seq != seq:
                    continue
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    number, text = parse_error(payload, answer_flags)
                    if number:
                        raise Failure(0, number, text).as_error()
                    return found
                found.append((kind, bytes(payload)))
                if not answer_flags & NLM_F_MULTI:
                    return found

    def next_seq(self, count: int) -> int:
        """Reserve *count* sequence numbers and return the first; for senders that frame by themselves."""
        first = self._seq + 1
        self._seq += count
        return first

    def receive(self, flags: int = 0) -> bytes:
        """Return the next datagram, for listeners to multicast groups."""
        return self._sock.recv(1 << 18, flags)

    @property
    def port(self) -> int:
        """Return the socket's address, which marks the messages it caused."""
        return int(self._sock.getsockname()[0])

    def _send(self, data: bytes) -> None:
        # The send buffer bounds one datagram (default 208 KiB); larger batches are split by the callers,
        # this only grows the buffer for a large one-off such as a table with thousands of elements.
        try:
            self._sock.send(data)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._sock.setsockopt(socket.SOL_SOCKET, 32, len(data) * 2 + 65536)  # SO_SNDBUFFORCE
            self._sock.send(data)
