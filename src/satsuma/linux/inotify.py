"""File system events as values.

Source: inotify(7).
"""

from __future__ import annotations

import os
import struct

from satsuma.linux import syscalls

IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_IGNORED = 0x8000

_EVENT = struct.Struct("iIII")


def init() -> int:
    """Return a non-blocking, close-on-exec inotify descriptor."""
    return syscalls.inotify_init1(os.O_NONBLOCK)


def add_watch(fd: int, path: str | bytes, mask: int) -> int:
    """inotify_add_watch(2)."""
    return syscalls.inotify_add_watch(fd, path, mask)


def parse(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return (watch, mask, name) of each event in what read(2) gave."""
    events = []
    offset = 0
    while offset + 16 <= len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, offset)
        offset += 16
        events.append((watch, mask, data[offset : offset + length].rstrip(b"\0")))
        offset += length
    return events


def read(fd: int) -> list[tuple[int, int, bytes]]:
    """Return all pending events; an empty list when there are none."""
    try:
        return parse(os.read(fd, 65536))
    except BlockingIOError:
        return []
