"""A log file behind a child process, so that a disk that hangs does not hang the container.

The queue between the two is the send buffer of a SOCK_SEQPACKET pair: the kernel bounds it, and what does
not fit is dropped as whole records.  The child ends when the monitor closes its end, or dies.
"""

from __future__ import annotations

import os
import socket
import struct

from satsuma.linux.syscalls import close_range
from satsuma.monitor.title import set_title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from satsuma.monitor.logfile import LogFile

_SIZE = struct.Struct("=L")
_PACKET = 32 * 1024
_SMALLEST_BUFFER = 128 * 1024
"""One record must fit in any case: moby's ring takes a message that is too big when it is empty."""
_CLOSE_TIMEOUT = 2.0
_SO_SNDBUFFORCE = 32
"""asm-generic/socket.h; SO_SNDBUF stops at net.core.wmem_max."""


class ChildFile:
    """Hands records to a child that appends them to *file*; *file* is closed here.

    Args:
        max_buffer: bytes that may wait for the child.
    """

    __slots__ = ("_sock",)

    def __init__(self, file: LogFile, max_buffer: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        ours.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, max(max_buffer, _SMALLEST_BUFFER) // 2)
        if os.fork() == 0:
            try:
                _serve(theirs, file)
            finally:
                os._exit(0)
        theirs.close()
        file.close()
        self._sock = ours

    def append(self, records: Sequence[bytes]) -> None:
        """Queue records; drop those for which there is no room."""
        packet: list[bytes] = []
        size = 0
        for record in records:
            if packet and size + len(record) > _PACKET:
                self._send(packet)
                packet, size = [], 0
            packet += (_SIZE.pack(len(record)), record)
            size += len(record)
        if packet:
            self._send(packet)

    def _send(self, packet: list[bytes]) -> None:
        try:
            self._sock.sendmsg(packet, (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass

    def close(self) -> None:
        """Give the child a moment to write what is queued."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.settimeout(_CLOSE_TIMEOUT)
            self._sock.recv(1)
        except OSError:
            pass
        self._sock.close()


def _serve(sock: socket.socket, file: LogFile) -> None:
    """Write what comes until the monitor's end is closed.  Runs in the child."""
    os.dup2(sock.fileno(), 3, inheritable=False)
    log_fd = os.dup2(file.fileno(), 4, inheritable=False)
    # A copy of a client's socket or of a container's pipe in here would keep it open.
    close_range(5)
    sock.detach()
    file.adopt(log_fd)
    own = socket.socket(fileno=3)
    set_title("satsuma-log", "satsuma-log-writer")
    while packet := own.recv(_PACKET + 64 * 1024):
        records = []
        position = 0
        while position < len(packet):
            (size,) = _SIZE.unpack_from(packet, position)
            position += _SIZE.size
            records.append(packet[position : position + size])
            position += size
        file.append(records)
