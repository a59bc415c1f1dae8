"""Mounts which the new process cannot make itself: sources it may not walk to, and id-mapped ones.

Root of a user namespace is an ordinary user outside of it, and only the owner of a file system may map its ids.
So the parent sends a helper into the mount namespace of the new process.  Made there, a mount keeps the flags that
the kernel has locked for that namespace; made outside, the container could take "ro" or "nosuid" off.

Source: mount_setattr(2) MOUNT_ATTR_IDMAP; mount_namespaces(7) "Restrictions on mount namespaces"; runc
libcontainer/nsenter/nsexec.c sendmountsources.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

from satsuma.linux import mount as mounts
from satsuma.linux import ns, syscalls
from satsuma.runtime.errors import StepError, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from satsuma.runtime.mounts import MountSpec
    from satsuma.runtime.plan import Step


def send_mount(sock: _socket.socket, pid: int, step: Step) -> str:
    """Send the detached mount of a step "bind" or "root_bind", made where *pid* is; return "" or an error."""
    spec: MountSpec | None = step.args[0] if step.name == "bind" else None  # type: ignore[assignment]
    source = spec.source if spec is not None else str(step.args[0])
    read, write = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(read)
        try:
            fd = _make(pid, source, spec)
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))]
            sock.sendmsg([b"K"], rights)
        except (OSError, StepError) as error:
            os.write(write, error_text(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    failure = b""
    while chunk := os.read(read, 4096):
        failure += chunk
    os.close(read)
    try:
        os.waitpid(helper, 0)
    except ChildProcessError:
        pass  # somebody waits for all children
    return failure.decode("utf-8", "replace")


def _make(pid: int, source: str, spec: MountSpec | None) -> int:
    user_fd = -1
    if spec is not None and spec.idmap:
        user_fd = _user_namespace(pid, spec)
    fd = ns.open_ns(pid, "mnt")
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    ns.setns(fd, "mnt")
    # setns(2) has made what lies on top of "/" our root, the container's tree: the source is a path of the host's.
    os.fchdir(root)
    os.chroot(".")
    made = mounts.open_tree_clone(source, recursive=spec is None or spec.recursive)
    if user_fd >= 0 and spec is not None:
        try:
            mounts.mount_setattr(
                made,
                attr_set=syscalls.MOUNT_ATTR_IDMAP,
                recursive=spec.idmap == "ridmap",
                userns_fd=user_fd,
            )
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise StepError(f"the file system of {source} does not support idmapped mounts") from error
    return made


def _user_namespace(pid: int, spec: MountSpec) -> int:
    """Return a user namespace with the mapping of the mount, or the container's own."""
    if not spec.uid_mappings:
        return ns.open_ns(pid, "user")
    ready, done = os.pipe()
    holder, pidfd = syscalls.clone3(syscalls.CLONE_NEWUSER)
    if holder == 0:
        os.close(done)
        os.read(ready, 1)  # until the other end is closed
        os._exit(0)
    try:
        ns.write_maps(holder, spec.uid_mappings, spec.gid_mappings)
        return ns.open_ns(holder, "user")
    finally:
        os.close(done)
        os.close(ready)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
