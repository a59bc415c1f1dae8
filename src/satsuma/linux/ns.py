"""Namespaces: their types, files and identities.

Source: namespaces(7), ioctl_ns(2).
"""

from __future__ import annotations

import fcntl
import os

from satsuma.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    Mappings = list[tuple[int, int, int]]

# Name in /proc/PID/ns -> flag of clone(2), in the order in which they are joined: user first because it may
# grant what the others need, mount last because paths mean something else afterwards (setns(2), runc nsexec).
FLAGS = {
    "user": syscalls.CLONE_NEWUSER,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "net": syscalls.CLONE_NEWNET,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "pid": syscalls.CLONE_NEWPID,
    "time": syscalls.CLONE_NEWTIME,
    "mnt": syscalls.CLONE_NEWNS,
}

_NS_GET_NSTYPE = 0xB703


def open_ns(pid: int | str, kind: str) -> int:
    """Open /proc/PID/ns/KIND; *pid* may be "self"."""
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def ns_inode(pid: int | str, kind: str) -> int:
    """Return the inode number that identifies a namespace of a process."""
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def ns_type(fd: int) -> int:
    """Return the CLONE_NEW* flag of the namespace open as *fd*.

    Raises:
        OSError: ENOTTY when it is no namespace.
    """
    return fcntl.ioctl(fd, _NS_GET_NSTYPE)


def setns(fd: int, kind: str) -> None:
    """Join the namespace *fd*, which must be of type *kind*."""
    syscalls.setns(fd, FLAGS[kind])


def unshare(*kinds: str) -> None:
    """Move into new namespaces of the given types."""
    flags = 0
    for kind in kinds:
        flags |= FLAGS[kind]
    syscalls.unshare(flags)


def write_maps(pid: int, uid_mappings: Mappings, gid_mappings: Mappings) -> None:
    """Write the id maps of a new user namespace, each with one write(2) as the kernel wants it.

    Args:
        uid_mappings, gid_mappings: (first id inside, first id outside, how many).
    """
    for name, maps in (("gid_map", gid_mappings), ("uid_map", uid_mappings)):
        text = "".join(f"{inside} {outside} {size}\n" for inside, outside, size in maps)
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
