"""`satsuma-oci` starts itself again from an image that no container can write to.

What a process of ours was started from can be reached from a container, through /proc/PID/exe or by a program that
is exchanged for a script with `#!/proc/self/exe` at the right moment; started from the host's interpreter, that
would be the file itself (CVE-2019-5736).  A copy or an overlay for each call costs a second start of Python.  So the
first call as root binds the interpreter read-only to /run/satsuma-oci.image/python3, a single mount that stays
until the machine is rebooted, and from then on the program's own script starts from there (runc's memfd-bind does
the same).  Where that cannot be done the call starts again from a sealed descriptor.

    umount /run/satsuma-oci.image/python3      takes it back; nothing depends on it

Source: runc libcontainer/exeseal, contrib/cmd/memfd-bind.
"""

from __future__ import annotations

import fcntl
import os
import sys

from satsuma.linux import mount, sealed, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DIRECTORY = "/run/satsuma-oci.image"
PLACE = DIRECTORY + "/python3"


def start_again() -> None:
    """Replace this process by the same call from a sealed image; returns if that is what we are."""
    if sealed.is_sealed():
        return
    interpreter = os.path.realpath(sys.executable)
    try:
        if os.path.samefile(interpreter, "/proc/self/exe") and _bind(interpreter):
            _execute(PLACE)
    except OSError:
        pass
    _execute(f"/proc/self/fd/{sealed.open_sealed(sys.executable)}")


def _execute(path: str) -> NoReturn:
    # The name by which we were called: Python finds its library by it.
    os.execve(path, [sys.executable, *sys.orig_argv[1:]], os.environ)


def _bind(interpreter: str) -> bool:
    """Make the mount, or find it; False when programs cannot be started from there."""
    os.makedirs(DIRECTORY, 0o700, exist_ok=True)
    directory = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        info = os.fstat(directory)
        if info.st_uid != 0 or info.st_mode & 0o077:
            return False
        fcntl.flock(directory, fcntl.LOCK_EX)
        if _is_bound(interpreter):
            return True
        _unbind()
        os.close(os.open("python3", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o700, dir_fd=directory))
        tree = mount.open_tree_clone(interpreter)
        try:
            attributes = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
            mount.mount_setattr(tree, attr_set=attributes)
            mount.move_mount_path(tree, PLACE)
        finally:
            os.close(tree)
        if _works():
            return True
        _unbind()
        return False
    finally:
        os.close(directory)


def _is_bound(interpreter: str) -> bool:
    try:
        return os.path.samefile(PLACE, interpreter) and bool(os.statvfs(PLACE).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _unbind() -> None:
    """Take away what is bound there: the interpreter of before an upgrade, or one that does not work."""
    while os.path.exists(PLACE):
        try:
            mount.umount(PLACE)
        except OSError:
            return  # EINVAL: nothing is mounted there


def _works() -> bool:
    """Tell whether Python finds its library from there, which it does by the prefix it was built for."""
    pid = os.posix_spawn(PLACE, [PLACE, "-IS", "-c", "import os"], {"PATH": os.defpath})
    return os.waitpid(pid, 0)[1] == 0
