"""Packets between daemon, launcher and monitor: JSON, byte blobs and descriptors over SOCK_SEQPACKET.

A message is one JSON object.  Bytes that are not text ride behind it as blobs, descriptors as SCM_RIGHTS;
the JSON refers to both by index.  On the wire a message is one packet

    json [NUL blob blob …]

with `"blobs": [size, …]` and `"fds": n` in the JSON.  JSON text never contains NUL, because it is written in
ASCII.  Two things do not fit into one packet and are taken apart here, so that nobody else has to think of
them: a body above 64 KiB travels in a memfd (the packet says `{"memfd": size}`, the memfd is the first
descriptor), and descriptors beyond 250 follow in packets that contain only `+`.

Pure: `pack` and `Assembler` know no socket.  Source: unix(7) (SCM_MAX_FD is 253), memfd_create(2).
"""

from __future__ import annotations

import array
import json
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Body = dict[str, Any]

MAX_INLINE = 64 * 1024
MAX_FDS = 250
MAX_BODY = 64 * 1024 * 1024
RECEIVE_SIZE = MAX_INLINE + 4096
ANCILLARY_SIZE = socket.CMSG_SPACE(253 * array.array("i").itemsize)


class ProtocolError(Exception):
    """The peer sent something that is no message of ours."""


class Message:
    """One received message.  Whoever holds it owns its descriptors, until it takes them one by one."""

    __slots__ = ("_fds", "blobs", "body")

    def __init__(self, body: Body, blobs: list[bytes], fds: list[int]) -> None:
        self.body = body
        self.blobs = blobs
        self._fds: list[int | None] = list(fds)

    def take_fd(self, index: int) -> int:
        """Hand descriptor *index* over to the caller, who closes it."""
        try:
            fd = self._fds[index]
        except IndexError:
            fd = None
        if fd is None:
            raise ProtocolError(f"message has no descriptor {index}")
        self._fds[index] = None
        return fd

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        for index, fd in enumerate(self._fds):
            if fd is not None:
                os.close(fd)
                self._fds[index] = None


class Packer:
    """Collects the blobs and descriptors of one message; the methods return what the JSON says instead."""

    __slots__ = ("blobs", "fds")

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.fds: list[int] = []

    def blob(self, data: bytes) -> int:
        """Add bytes and return their index."""
        self.blobs.append(bytes(data))
        return len(self.blobs) - 1

    def fd(self, fd: int) -> int:
        """Add a descriptor, which stays the caller's, and return its index."""
        self.fds.append(fd)
        return len(self.fds) - 1


class Packets:
    """The packets of one message, to be sent in this order; `close` after the last was sent."""

    __slots__ = ("_memfd", "packets")

    def __init__(self, packets: list[tuple[bytes, list[int]]], memfd: int | None) -> None:
        self.packets = packets
        self._memfd = memfd

    def close(self) -> None:
        """Close the memfd, if there is one."""
        if self._memfd is not None:
            os.close(self._memfd)
            self._memfd = None


def pack(body: Body, blobs: Sequence[bytes] = (), fds: Sequence[int] = ()) -> Packets:
    """Encode one message; its descriptors stay the caller's and must live until it is sent."""
    header = dict(body)
    if blobs:
        header["blobs"] = [len(blob) for blob in blobs]
    if fds:
        header["fds"] = len(fds)
    data = json.dumps(header, separators=(",", ":")).encode("ascii")
    if blobs:
        data = b"\0".join((data, b"".join(blobs)))
    memfd = None
    passed = list(fds)
    if len(data) > MAX_INLINE:
        memfd = os.memfd_create("satsuma-message", os.MFD_CLOEXEC)
        view = memoryview(data)
        while view:
            view = view[os.write(memfd, view) :]
        data = json.dumps({"memfd": len(data)}).encode("ascii")
        passed.insert(0, memfd)
    packets = [(data, passed[:MAX_FDS])]
    for start in range(MAX_FDS, len(passed), MAX_FDS):
        packets.append((b"+", passed[start : start + MAX_FDS]))
    return Packets(packets, memfd)


class Assembler:
    """Puts the packets of one connection together again.  Owns the descriptors of an unfinished message."""

    __slots__ = ("_data", "_fds", "_need")

    def __init__(self) -> None:
        self._data: bytes | None = None
        self._fds: list[int] = []
        self._need = 0

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> Message | None:
        """Take one packet and return the message that it completes, or None.

        Raises:
            ProtocolError: not a packet of ours; all descriptors of the message are closed.
        """
        self._fds.extend(fds)
        try:
            if self._data is None:
                self._data, self._need = self._begin(data)
            elif data != b"+":
                raise ProtocolError("descriptors of the last message are missing")
            if len(self._fds) < self._need:
                return None
            if len(self._fds) > self._need:
                raise ProtocolError("more descriptors than announced")
            return self._finish(self._data)
        except BaseException:
            self.close()
            raise

    def _begin(self, data: bytes) -> tuple[bytes, int]:
        body = _parse(data)
        size = body.get("memfd")
        if size is None:
            return data, _count(body)
        if not self._fds or not isinstance(size, int) or not 0 <= size <= MAX_BODY:
            raise ProtocolError("a memfd message without its memfd")
        memfd = self._fds.pop(0)
        try:
            data = os.pread(memfd, size, 0)
        finally:
            os.close(memfd)
        if len(data) != size:
            raise ProtocolError("memfd is shorter than announced")
        return data, _count(_parse(data))

    def _finish(self, data: bytes) -> Message:
        body = _parse(data)
        blobs = []
        position = data.find(b"\0") + 1
        for size in body.pop("blobs", ()):
            if not position or position + size > len(data):
                raise ProtocolError("blob is shorter than announced")
            blobs.append(data[position : position + size])
            position += size
        body.pop("fds", None)
        message = Message(body, blobs, self._fds)
        self._data, self._fds = None, []
        return message

    def close(self) -> None:
        """Drop an unfinished message."""
        for fd in self._fds:
            os.close(fd)
        self._data, self._fds = None, []


def _parse(data: bytes) -> Body:
    try:
        body = json.loads(data.partition(b"\0")[0])
    except (ValueError, RecursionError):
        raise ProtocolError("a packet that is not JSON") from None
    if not isinstance(body, dict):
        raise ProtocolError("a packet that is no JSON object")
    return body


def _count(body: Body) -> int:
    count = body.get("fds", 0)
    if not isinstance(count, int) or count < 0:
        raise ProtocolError("a bad number of descriptors")
    return count


def send_packet(sock: socket.socket, data: bytes, fds: Sequence[int], flags: int = 0) -> None:
    """Send one packet; BlockingIOError when the peer's queue is full and the socket does not block."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary, flags | socket.MSG_NOSIGNAL)


def send(sock: socket.socket, body: Body, blobs: Sequence[bytes] = (), fds: Sequence[int] = ()) -> None:
    """Send one message on a socket that blocks."""
    packets = pack(body, blobs, fds)
    try:
        for data, some in packets.packets:
            send_packet(sock, data, some)
    finally:
        packets.close()


def receive_packet(sock: socket.socket, flags: int = 0) -> tuple[bytes, list[int]]:
    """Receive one packet; `(b"", [])` is the end of the connection."""
    data, ancillary, message_flags, _ = sock.recvmsg(
        RECEIVE_SIZE, ANCILLARY_SIZE, flags | socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if message_flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise ProtocolError("a packet was cut short")
    return data, list(fds)


def receive(sock: socket.socket, assembler: Assembler) -> Message | None:
    """Receive one message on a socket that blocks; None is the end of the connection."""
    while True:
        data, fds = receive_packet(sock)
        if not data:
            return None
        message = assembler.feed(data, fds)
        if message is not None:
            return message
