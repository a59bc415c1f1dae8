"""The name under which ps(1) shows a process of ours: short name and command line.

A fork has its parent's command line; that of a monitor says which container is its own.  The text is written
over the arguments that execve(2) put on the stack, where the kernel reads it (setproctitle's way, for which
fs/proc/base.c get_mm_cmdline makes an allowance: without a NUL at the end of the arguments the text goes on
in the environment).  PR_SET_MM would need CAP_SYS_RESOURCE.
"""

from __future__ import annotations

import ctypes

from satsuma.linux.prctl import set_name


def _argument_area() -> tuple[int, int, int]:
    """Return arg_start, arg_end and env_end of this process, which its forks share."""
    with open("/proc/self/stat", "rb") as file:
        # proc(5): fields 48, 49 and 51; the fields behind the name begin with number 3.
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[45]), int(fields[46]), int(fields[48])


_area: tuple[int, int, int] | None = None


def set_title(name: str, command_line: str) -> None:
    """Show *name* (15 bytes) as the name and *command_line* as the arguments of this process."""
    global _area
    set_name(name)
    if _area is None:
        _area = _argument_area()
    start, end, limit = _area
    room = limit - start
    if not start or room <= 0:
        return
    text = command_line.encode("utf-8", "surrogateescape")[: room - 1]
    size = max(end - start, len(text) + 1)
    ctypes.memmove(start, text.ljust(size, b"\0"), size)
