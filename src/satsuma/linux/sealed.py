"""An interpreter that nobody can write to through /proc/PID/exe.

The link leads to the file a process was started from, through the mount it was started from.  Started from the
host's /usr/bin, a container that gets hold of it can overwrite the host's python as soon as no process runs it
(CVE-2019-5736).  Started from a detached read-only overlay of that directory the link leads to the overlay: every
open for writing is EROFS, for ever, and nothing is copied.

Source: runc libcontainer/exeseal; memfd_create(2), fcntl(2) "File Sealing".
"""

from __future__ import annotations

import fcntl
import os

from satsuma.linux import mount, syscalls

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def open_sealed(path: str) -> int:
    """Return a descriptor from which a program can be started: execve("/proc/self/fd/N").

    Needs: CAP_SYS_ADMIN for the overlay; without it the program is copied into sealed memory.
    """
    real = os.path.realpath(path)
    try:
        return _by_overlay(real)
    except OSError:
        return _by_memory(real)


def _by_overlay(path: str) -> int:
    directory, _, name = path.rpartition("/")
    # Without an upper layer overlayfs wants two lower ones: the directory that is next to the program's at hand.
    empty = mount.create("tmpfs", [("nr_inodes", "1")], attr=syscalls.MOUNT_ATTR_RDONLY)
    try:
        lower = [directory or "/", f"/proc/self/fd/{empty}"]
        layers = mount.overlay(lower, None, None, readonly=True)
    finally:
        os.close(empty)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=layers)
    finally:
        os.close(layers)
    return fd


def _by_memory(path: str) -> int:
    fd = os.memfd_create("satsuma", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(path, "rb") as program:
            size = os.fstat(program.fileno()).st_size
            while os.lseek(fd, 0, os.SEEK_CUR) < size and os.sendfile(fd, program.fileno(), None, 1 << 24):
                pass
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_sealed(exe: str = "/proc/self/exe") -> bool:
    """Tell whether the program behind *exe* can be opened for writing by nobody."""
    fd = os.open(exe, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.statvfs(fd).f_flag & os.ST_RDONLY:
            return True
        try:
            return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        except OSError:
            return False
    finally:
        os.close(fd)
