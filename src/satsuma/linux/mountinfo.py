"""Parser of /proc/PID/mountinfo.

Source: proc(5), show_mountinfo() in fs/proc_namespace.c.
"""

from __future__ import annotations


class MountInfo:
    """One line of mountinfo; paths are bytes with the octal escapes undone."""

    __slots__ = (
        "fs_type",
        "major_minor",
        "mount_id",
        "mount_options",
        "mount_point",
        "parent_id",
        "propagation",
        "root",
        "source",
        "super_options",
    )

    def __init__(self, line: bytes) -> None:
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        self.mount_id = int(fields[0])
        self.parent_id = int(fields[1])
        self.major_minor = fields[2].decode()
        self.root = unescape(fields[3])
        self.mount_point = unescape(fields[4])
        self.mount_options = fields[5].decode().split(",")
        self.propagation = [field.decode() for field in fields[6:]]
        fs_type, _, rest = right.partition(b" ")
        source, _, super_options = rest.partition(b" ")
        self.fs_type = unescape(fs_type).decode()
        self.source = unescape(source)
        self.super_options = super_options.decode("utf-8", "surrogateescape").split(",")


def unescape(field: bytes) -> bytes:
    """Undo the escapes \\040 \\011 \\012 \\134 \\043."""
    if b"\\" not in field:
        return field
    parts = field.split(b"\\")
    out = [parts[0]]
    for part in parts[1:]:
        code = part[:3]
        if len(code) == 3 and all(0x30 <= digit <= 0x37 for digit in code):
            out.append(bytes([int(code, 8) & 0xFF]) + part[3:])
        else:
            out.append(b"\\" + part)
    return b"".join(out)


def parse(data: bytes) -> list[MountInfo]:
    """Return the mounts of a mountinfo text, in its order."""
    return [MountInfo(line) for line in data.split(b"\n") if line]


def read(pid: int | str = "self") -> list[MountInfo]:
    """Return the mounts that *pid* sees."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        return parse(file.read())
