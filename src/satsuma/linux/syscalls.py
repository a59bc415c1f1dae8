"""The one door to the kernel: one function per system call, man-page name and argument order.

A failed call raises `OSError` (the subclass that belongs to its errno) with a note that names the call.
Every descriptor made here is close-on-exec.  No policy, no retries, no fallbacks: those belong to the
modules beside this one.

All integers travel as C `long`, because `syscall(2)` reads its arguments as longs and ctypes would silently
cut an untyped int to 32 bits.  The function objects are made once at import, so that a child between clone
and execve allocates nothing but small temporaries.

Source: syscalls(2); numbers from arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno as _errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    Path = str | bytes

MACHINE = os.uname().machine

# name: (x86_64, aarch64).  Calls that are newer than 5.0 have the same number everywhere.
_NUMBERS = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone": (56, 220),
    "clone3": (435, 435),
    "openat2": (437, 437),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "close_range": (436, 436),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "prctl": (157, 167),
    "capget": (125, 90),
    "capset": (126, 91),
    "syncfs": (306, 267),
    "seccomp": (317, 277),
    "bpf": (321, 280),
    "renameat2": (316, 276),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "personality": (135, 92),
    "set_mempolicy": (238, 237),
    "keyctl": (250, 219),
    "execveat": (322, 281),
    "execve": (59, 221),
    "getcwd": (79, 17),
    "statx": (332, 291),
    "fchmodat2": (452, 452),
    "statmount": (457, 457),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "inotify_rm_watch": (255, 28),
    "rt_sigaction": (13, 134),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(MACHINE, 1)

_libc = ctypes.CDLL(None, use_errno=True)
_L = ctypes.c_long
_P = ctypes.c_char_p
_V = ctypes.c_void_p


def _call(name: str, *argtypes: Any) -> Any:
    # A prototype of its own for each call: `_libc.syscall.argtypes` is one slot for all of them.
    prototype = ctypes.CFUNCTYPE(_L, _L, *argtypes, use_errno=True)
    function = prototype(("syscall", _libc))
    number = _NUMBERS[name][_COLUMN]

    def call(*args: Any) -> int:
        result: int = function(number, *args)
        if result < 0:
            fail(name, args)
        return result

    return call


def fail(name: str, args: Sequence[object] = (), path: Path | None = None) -> NoReturn:
    """Raise the `OSError` for the errno of the last call."""
    number = ctypes.get_errno()
    if path is None:
        path = next((a for a in args if isinstance(a, bytes)), None)
    if isinstance(path, bytes):
        path = path.decode("utf-8", "surrogateescape")
    error = (
        OSError(number, os.strerror(number), path)
        if path is not None
        else OSError(number, os.strerror(number))
    )
    error.add_note(f"{name} = -1 {_errno.errorcode.get(number, number)}")
    raise error


def encode(path: Path) -> bytes:
    """Return *path* as the bytes the kernel sees; never depends on the locale."""
    return path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")


def _optional(path: Path | None) -> bytes | None:
    return None if path is None else encode(path)


AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# include/uapi/linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSPICK_CLOEXEC = 1
FSPICK_SYMLINK_NOFOLLOW = 2
FSPICK_EMPTY_PATH = 8
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_BINARY = 2
FSCONFIG_SET_PATH = 3
FSCONFIG_SET_PATH_EMPTY = 4
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# include/uapi/linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# include/uapi/linux/sched.h
CLONE_PIDFD = 0x1000
CLONE_VFORK = 0x4000
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_NEWTIME = 0x80
CLONE_INTO_CGROUP = 0x200000000

CLOSE_RANGE_CLOEXEC = 4


_mount = _call("mount", _P, _P, _P, _L, _P)


def mount(
    source: Path | None,
    target: Path,
    fstype: str | None = None,
    flags: int = 0,
    data: str | bytes | None = None,
) -> None:
    """mount(2).  Needs: CAP_SYS_ADMIN."""
    _mount(_optional(source), encode(target), _optional(fstype), flags, _optional(data))


_umount2 = _call("umount2", _P, _L)


def umount2(target: Path, flags: int = 0) -> None:
    """umount2(2)."""
    _umount2(encode(target), flags)


_pivot_root = _call("pivot_root", _P, _P)


def pivot_root(new_root: Path, put_old: Path) -> None:
    """pivot_root(2)."""
    _pivot_root(encode(new_root), encode(put_old))


_unshare = _call("unshare", _L)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _unshare(flags)


_setns = _call("setns", _L, _L)


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2); *fd* is a namespace or, with CLONE_NEW* bits in *nstype*, a pidfd."""
    _setns(fd, nstype)


class _CloneArgs(ctypes.Structure):
    # clone(2), struct clone_args, 88 bytes (CLONE_ARGS_SIZE_VER2).
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


# PyDLL keeps the interpreter lock: the child must wake up as its owner.
_clone3_function = ctypes.PyDLL(None, use_errno=True).syscall
_clone3_function.restype = _L
_clone3_function.argtypes = [_L, _V, _L]


def clone3(flags: int, *, exit_signal: int = 17, cgroup: int = 0) -> tuple[int, int]:
    """Fork with clone3(2): return (0, -1) in the child, (pid, pidfd) in the parent.

    Only for single-threaded processes: unlike `os.fork` it does not run the interpreter's at-fork handlers.
    In exchange the child is born in its new namespaces (*flags*) and, with CLONE_INTO_CGROUP, in the v2
    cgroup whose directory is open as *cgroup*; a second fork for the pid namespace is not needed.
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(
        flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal, cgroup=cgroup
    )
    result = _clone3_function(_NUMBERS["clone3"][_COLUMN], ctypes.addressof(args), ctypes.sizeof(args))
    if result < 0:
        fail("clone3")
    return result, pidfd.value if result else -1


_clone_function = ctypes.PyDLL(None, use_errno=True).syscall
_clone_function.restype = _L
_clone_function.argtypes = [_L] * 6


def clone(flags: int) -> int:
    """Fork with clone(2), for where a seccomp filter refuses clone3: 0 in the child, its pid in the parent.

    Restrictions as for `clone3`.  *flags* holds the exit signal in its low byte; the stack and all pointers
    are null, so the order of the arguments, which differs between machines, does not matter.
    """
    result: int = _clone_function(_NUMBERS["clone"][_COLUMN], flags, 0, 0, 0, 0)
    if result < 0:
        fail("clone")
    return result


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_openat2 = _call("openat2", _L, _P, ctypes.POINTER(_OpenHow), _L)


def openat2(dirfd: int, path: Path, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); the descriptor is close-on-exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    fd: int = _openat2(dirfd, encode(path), how, 24)
    return fd


_open_tree = _call("open_tree", _L, _P, _L)


def open_tree(dirfd: int, path: Path, flags: int) -> int:
    """open_tree(2): an O_PATH descriptor, or a detached copy of the mount with OPEN_TREE_CLONE."""
    fd: int = _open_tree(dirfd, encode(path), flags | OPEN_TREE_CLOEXEC)
    return fd


_move_mount = _call("move_mount", _L, _P, _L, _P, _L)


def move_mount(from_fd: int, from_path: Path, to_fd: int, to_path: Path, flags: int) -> None:
    """move_mount(2)."""
    _move_mount(from_fd, encode(from_path), to_fd, encode(to_path), flags)


_fsopen = _call("fsopen", _P, _L)


def fsopen(fstype: str) -> int:
    """fsopen(2): a file system context."""
    fd: int = _fsopen(encode(fstype), FSOPEN_CLOEXEC)
    return fd


_fsconfig = _call("fsconfig", _L, _L, _P, _P, _L)


def fsconfig(fd: int, cmd: int, key: str | None = None, value: Path | None = None, aux: int = 0) -> None:
    """fsconfig(2)."""
    _fsconfig(fd, cmd, _optional(key), _optional(value), aux)


_fsmount = _call("fsmount", _L, _L, _L)


def fsmount(fd: int, attr_flags: int = 0) -> int:
    """fsmount(2): a detached mount of the created context."""
    mount_fd: int = _fsmount(fd, FSMOUNT_CLOEXEC, attr_flags)
    return mount_fd


_fspick = _call("fspick", _L, _P, _L)


def fspick(dirfd: int, path: Path, flags: int = 0) -> int:
    """fspick(2): the context of a mounted file system, for reconfiguration."""
    fd: int = _fspick(dirfd, encode(path), flags | FSPICK_CLOEXEC)
    return fd


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


_mount_setattr = _call("mount_setattr", _L, _P, _L, ctypes.POINTER(_MountAttr), _L)


def mount_setattr(
    dirfd: int,
    path: Path,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2)."""
    _mount_setattr(dirfd, encode(path), flags, _MountAttr(attr_set, attr_clr, propagation, userns_fd), 32)


_close_range = _call("close_range", _L, _L, _L)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """close_range(2)."""
    _close_range(first, last, flags)


_pidfd_send_signal = _call("pidfd_send_signal", _L, _L, _V, _L)


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """pidfd_send_signal(2)."""
    _pidfd_send_signal(pidfd, signum, None, 0)


_pidfd_getfd = _call("pidfd_getfd", _L, _L, _L)


def pidfd_getfd(pidfd: int, targetfd: int) -> int:
    """pidfd_getfd(2): a duplicate of another process's descriptor (always close-on-exec)."""
    fd: int = _pidfd_getfd(pidfd, targetfd, 0)
    return fd


_prctl = _call("prctl", _L, _L, _L, _L, _L)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2)."""
    result: int = _prctl(option, arg2, arg3, arg4, arg5)
    return result


_capget = _call("capget", _P, _V)
_capset = _call("capset", _P, _P)
_CAP_HEADER = (0x20080522).to_bytes(4, "little") + bytes(4)  # _LINUX_CAPABILITY_VERSION_3, pid 0


def capget() -> tuple[int, int, int]:
    """capget(2) of the calling thread: (effective, permitted, inheritable) as 64-bit masks."""
    data = ctypes.create_string_buffer(24)
    _capget(ctypes.create_string_buffer(_CAP_HEADER, 8).raw, ctypes.addressof(data))
    words = [int.from_bytes(data.raw[i : i + 4], "little") for i in range(0, 24, 4)]
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of the calling thread."""
    sets = (effective, permitted, inheritable)
    low = b"".join((mask & 0xFFFFFFFF).to_bytes(4, "little") for mask in sets)
    high = b"".join((mask >> 32).to_bytes(4, "little") for mask in sets)
    _capset(_CAP_HEADER, low + high)


_seccomp = _call("seccomp", _L, _L, _V)
_bpf = _call("bpf", _L, _V, _L)


def seccomp(operation: int, flags: int, address: int) -> int:
    """seccomp(2); *address* of the argument structure."""
    result: int = _seccomp(operation, flags, address)
    return result


def bpf(cmd: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    """bpf(2); *attr* is read and written."""
    result: int = _bpf(cmd, ctypes.addressof(attr), len(attr))
    return result


_syncfs = _call("syncfs", _L)


def syncfs(fd: int) -> None:
    """syncfs(2) of the file system that holds *fd*."""
    _syncfs(fd)


_renameat2 = _call("renameat2", _L, _P, _L, _P, _L)
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


def renameat2(olddirfd: int, oldpath: Path, newdirfd: int, newpath: Path, flags: int = 0) -> None:
    """renameat2(2)."""
    _renameat2(olddirfd, encode(oldpath), newdirfd, encode(newpath), flags)


_sethostname = _call("sethostname", _P, _L)
_setdomainname = _call("setdomainname", _P, _L)


def sethostname(name: str) -> None:
    """sethostname(2)."""
    raw = encode(name)
    _sethostname(raw, len(raw))


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    raw = encode(name)
    _setdomainname(raw, len(raw))


_sched_setattr = _call("sched_setattr", _L, _P, _L)


def sched_setattr(pid: int, attr: bytes) -> None:
    """sched_setattr(2); *attr* is struct sched_attr."""
    _sched_setattr(pid, attr, 0)


_ioprio_set = _call("ioprio_set", _L, _L, _L)


def ioprio_set(which: int, who: int, ioprio: int) -> None:
    """ioprio_set(2)."""
    _ioprio_set(which, who, ioprio)


_personality = _call("personality", _L)


def personality(persona: int) -> int:
    """personality(2)."""
    result: int = _personality(persona)
    return result


_set_mempolicy = _call("set_mempolicy", _L, _P, _L)


def set_mempolicy(mode: int, nodemask: bytes, maxnode: int) -> None:
    """set_mempolicy(2)."""
    _set_mempolicy(mode, nodemask or None, maxnode)


_keyctl_join = _call("keyctl", _L, _P)
KEYCTL_JOIN_SESSION_KEYRING = 1


def keyctl_join_session_keyring(name: str) -> int:
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING."""
    serial: int = _keyctl_join(KEYCTL_JOIN_SESSION_KEYRING, encode(name))
    return serial


_keyctl_setperm = _call("keyctl", _L, _L, _L)
KEYCTL_SETPERM = 5


def keyctl_setperm(key: int, perm: int) -> None:
    """keyctl(2) KEYCTL_SETPERM."""
    _keyctl_setperm(KEYCTL_SETPERM, key, perm)


_setgroups = _call("setgroups", _L, _V)
_setresuid = _call("setresuid", _L, _L, _L)
_setresgid = _call("setresgid", _L, _L, _L)


def setgroups(groups: Sequence[int]) -> None:
    """setgroups(2)."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    _setgroups(len(groups), ctypes.addressof(array) if groups else None)


def setresuid(ruid: int, euid: int, suid: int) -> None:
    """setresuid(2) of the calling thread."""
    _setresuid(ruid, euid, suid)


def setresgid(rgid: int, egid: int, sgid: int) -> None:
    """setresgid(2) of the calling thread."""
    _setresgid(rgid, egid, sgid)


_getcwd = _call("getcwd", _V, _L)


def getcwd() -> bytes:
    """getcwd(2) itself: starts with "(unreachable)" when the directory is outside the root."""
    buffer = ctypes.create_string_buffer(4096)
    length = _getcwd(ctypes.addressof(buffer), 4096)
    return buffer.raw[: max(length - 1, 0)]


_rt_sigaction = _call("rt_sigaction", _L, _P, _V, _L)


def rt_sigaction_default(signum: int) -> None:
    """Give a signal its default action, also the two that libc keeps for itself and refuses to touch."""
    _rt_sigaction(signum, bytes(32), None, 8)


_execve = _call("execve", _P, _V, _V)
_execveat = _call("execveat", _L, _P, _V, _V, _L)


def string_array(strings: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    """Return a NULL-terminated `char *[]`; keep it alive as long as the kernel may read it."""
    return (ctypes.c_char_p * (len(strings) + 1))(*strings, None)


def execve(path: bytes, argv: ctypes.Array[ctypes.c_char_p], envp: ctypes.Array[ctypes.c_char_p]) -> NoReturn:
    """execve(2) with prepared arrays: makes no other system call."""
    _execve(path, ctypes.addressof(argv), ctypes.addressof(envp))
    raise AssertionError("execve returned")


def execveat(fd: int, argv: ctypes.Array[ctypes.c_char_p], envp: ctypes.Array[ctypes.c_char_p]) -> NoReturn:
    """execveat(2) of an open file (AT_EMPTY_PATH)."""
    _execveat(fd, b"", ctypes.addressof(argv), ctypes.addressof(envp), AT_EMPTY_PATH)
    raise AssertionError("execveat returned")


_inotify_init1 = _call("inotify_init1", _L)
_inotify_add_watch = _call("inotify_add_watch", _L, _P, _L)
_inotify_rm_watch = _call("inotify_rm_watch", _L, _L)


def inotify_init1(flags: int = 0) -> int:
    """inotify_init1(2)."""
    fd: int = _inotify_init1(flags | os.O_CLOEXEC)
    return fd


def inotify_add_watch(fd: int, path: Path, mask: int) -> int:
    """inotify_add_watch(2)."""
    wd: int = _inotify_add_watch(fd, encode(path), mask)
    return wd


def inotify_rm_watch(fd: int, wd: int) -> None:
    """inotify_rm_watch(2)."""
    _inotify_rm_watch(fd, wd)


class _Statfs(ctypes.Structure):
    # statfs(2) on 64-bit machines, 120 bytes.
    _fields_ = [
        ("f_type", ctypes.c_long),
        ("f_bsize", ctypes.c_long),
        ("f_blocks", ctypes.c_uint64),
        ("f_bfree", ctypes.c_uint64),
        ("f_bavail", ctypes.c_uint64),
        ("f_files", ctypes.c_uint64),
        ("f_ffree", ctypes.c_uint64),
        ("f_fsid", ctypes.c_int * 2),
        ("f_namelen", ctypes.c_long),
        ("f_frsize", ctypes.c_long),
        ("f_flags", ctypes.c_long),
        ("f_spare", ctypes.c_long * 4),
    ]


_libc.fstatfs.argtypes = [ctypes.c_int, ctypes.POINTER(_Statfs)]

# statfs(2)
PROC_SUPER_MAGIC = 0x9FA0
DEVPTS_SUPER_MAGIC = 0x1CD1
CGROUP2_SUPER_MAGIC = 0x63677270
OVERLAYFS_SUPER_MAGIC = 0x794C7630


def fstatfs(fd: int) -> tuple[int, int]:
    """fstatfs(2): (f_type, f_flags)."""
    buffer = _Statfs()
    if _libc.fstatfs(fd, ctypes.byref(buffer)) < 0:
        fail("fstatfs")
    return buffer.f_type, buffer.f_flags
