"""Mounts by descriptor: file systems are made detached, configured, and only then attached.

Owns the use of fsopen, fsconfig, fsmount, open_tree, move_mount and mount_setattr, and the translation of
mount options to attributes.  Must not know what is mounted where in a container.

A *detached* mount lives as long as its descriptor.  It is in no mount table, so nobody can see or cover it;
`Root(fd)` of `satsuma.linux.root` works inside it.

Source: Documentation/filesystems/mount_api.rst, mount_setattr(2), overlayfs.rst.
"""

from __future__ import annotations

import errno
import os

from satsuma.linux import syscalls
from satsuma.linux.syscalls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_CMD_RECONFIGURE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    OPEN_TREE_CLONE,
    encode,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Path = str | bytes

# fsconfig(2) takes at most 255 bytes of string.
_MAX_STRING = 255
# Debian 12's 6.1 has no "lowerdir+" (Linux 6.8); its whole list must fit into one string.
_have_lowerdir_plus = True


def create(
    fstype: str,
    options: Iterable[tuple[str, str | None]] = (),
    *,
    source: str | None = None,
    attr: int = 0,
) -> int:
    """Make a new file system instance and return its detached mount.

    Args:
        options: (key, value) pairs in order; None as value makes it a flag.
        attr: MOUNT_ATTR_* bits.
    Raises:
        OSError: with the kernel's own explanation as a note, if the context has one.
    """
    context = syscalls.fsopen(fstype)
    try:
        if source is not None:
            syscalls.fsconfig(context, FSCONFIG_SET_STRING, "source", source)
        for key, value in options:
            set_option(context, key, value)
        syscalls.fsconfig(context, FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(context, attr)
    except OSError as error:
        _add_messages(error, context)
        raise
    finally:
        os.close(context)


def set_option(context: int, key: str, value: str | None) -> None:
    """Set one option of a file system context."""
    if value is None:
        syscalls.fsconfig(context, FSCONFIG_SET_FLAG, key)
    else:
        syscalls.fsconfig(context, FSCONFIG_SET_STRING, key, value)


def _add_messages(error: OSError, context: int) -> None:
    # The context is a log as well: reading it gives lines like "e overlay: ...".
    try:
        while message := os.read(context, 1024):
            error.add_note(message.decode("utf-8", "replace").strip())
    except OSError:
        return


def parse_data(data: str) -> list[tuple[str, str | None]]:
    """Split mount(2) data "a,b=c" into the pairs that `create` takes."""
    pairs: list[tuple[str, str | None]] = []
    for item in data.split(","):
        if item:
            key, equals, value = item.partition("=")
            pairs.append((key, value if equals else None))
    return pairs


def overlay(
    lower: list[str],
    upper: str | None,
    work: str | None,
    *,
    readonly: bool = False,
    volatile: bool = False,
    xattr_user: bool = False,
) -> int:
    """Return a detached overlay mount; `Root(fd)` works inside it.

    Args:
        lower: top layer first.  One directory without *upper* is bind-mounted read-only instead, because
            overlayfs wants two.
        volatile: skip syncs of the upper layer (the directory is worthless after a crash).
        xattr_user: keep overlay's own marks in user.* attributes (needed in a user namespace).
    Needs: CAP_SYS_ADMIN.
    """
    if upper is None and len(lower) == 1:
        fd = open_tree_clone(lower[0])
        try:
            mount_setattr(fd, attr_set=MOUNT_ATTR_RDONLY)
        except OSError:
            os.close(fd)
            raise
        return fd
    flags = [("volatile", None)] if volatile else []
    if xattr_user:
        flags.append(("userxattr", None))
    attr = MOUNT_ATTR_RDONLY if readonly or upper is None else 0
    with _ShortPaths() as short:
        upper_options = []
        if upper is not None and work is not None:
            upper_options = [("upperdir", short.name(upper)), ("workdir", short.name(work))]
        return _overlay(lower, [*upper_options, *flags], attr, short)


def _overlay(lower: list[str], options: list[tuple[str, str | None]], attr: int, short: _ShortPaths) -> int:
    global _have_lowerdir_plus
    if _have_lowerdir_plus:
        layers = [("lowerdir+", short.name(path)) for path in lower]
        try:
            return create("overlay", [*layers, *_REDIRECT, *options], source="overlay", attr=attr)
        except OSError as error:
            if error.errno != errno.EINVAL or not _lacks_lowerdir_plus():
                raise
            _have_lowerdir_plus = False
    joined = ":".join(short.escaped(path) for path in lower)
    if len(joined) > _MAX_STRING:
        joined = ":".join(short.number(path) for path in lower)
    if len(joined) <= _MAX_STRING:
        return create("overlay", [("lowerdir", joined), *_REDIRECT, *options], source="overlay", attr=attr)
    return _overlay_by_mount2([("lowerdir", joined), *_REDIRECT, *options], attr)


def _lacks_lowerdir_plus() -> bool:
    # A file system without the new mount API (overlay before Linux 6.5) takes any key here and looks at it only
    # when the superblock is made (legacy_parse_param in fs/fs_context.c).
    for key, means_new in (("satsuma-knows-no-such-option", False), ("lowerdir+", True)):
        context = syscalls.fsopen("overlay")
        try:
            syscalls.fsconfig(context, FSCONFIG_SET_STRING, key, "/")
            taken = True
        except OSError:
            taken = False
        finally:
            os.close(context)
        if taken != means_new:
            return True
    return False


def _overlay_by_mount2(options: list[tuple[str, str | None]], attr: int) -> int:
    """mount(2) takes a whole page of options; attach to a directory of ours for a moment, then detach."""
    data = ",".join(key if value is None else f"{key}={value}" for key, value in options)
    if len(data) > 4095:
        raise OSError(errno.E2BIG, "too many layers for this kernel's overlayfs (one page of options)")
    target = f"/run/.satsuma-overlay-{os.getpid()}-{os.urandom(6).hex()}"
    os.mkdir(target, 0o700)
    try:
        syscalls.mount(
            "overlay", target, "overlay", syscalls.MS_RDONLY if attr & MOUNT_ATTR_RDONLY else 0, data
        )
        try:
            return open_tree_clone(target)
        finally:
            syscalls.umount2(target, syscalls.MNT_DETACH)
    finally:
        os.rmdir(target)


def _redirect_options() -> list[tuple[str, str | None]]:
    # A kernel may be configured to record renamed directories, or files of which only the metadata was changed,
    # in xattrs of the upper layer; a layer made from such an upper directory would lack their content
    # (overlayfs.rst "redirect_dir", "Metadata only copy up").
    off: list[tuple[str, str | None]] = []
    for name in ("redirect_dir", "metacopy"):
        try:
            with open(f"/sys/module/overlay/parameters/{name}", "rb") as parameter:
                if parameter.read(1) == b"Y":
                    off.append((name, "off"))
        except OSError:
            continue
    return off


_REDIRECT = _redirect_options()


class _ShortPaths:
    """Give long or awkward paths a short name /proc/self/fd/N, which lives until the mount is made."""

    __slots__ = ("_fds",)

    def __init__(self) -> None:
        self._fds: list[int] = []

    def __enter__(self) -> _ShortPaths:
        return self

    def __exit__(self, *exc: object) -> None:
        for fd in self._fds:
            os.close(fd)

    def number(self, path: str) -> str:
        self._fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{self._fds[-1]}"

    def name(self, path: str) -> str:
        # "upperdir" is unescaped by overlayfs, "lowerdir+" is not: let no path need it.
        return path if len(encode(path)) <= _MAX_STRING and "\\" not in path else self.number(path)

    def escaped(self, path: str) -> str:
        return path if not set(path) & set(":,\\") else self.number(path)


def open_tree_clone(source: Path | int, *, recursive: bool = False) -> int:
    """Return a detached bind mount of *source* (a path or an open descriptor)."""
    flags = OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0)
    if isinstance(source, int):
        return syscalls.open_tree(source, b"", flags | AT_EMPTY_PATH)
    return syscalls.open_tree(AT_FDCWD, source, flags)


def move_mount(fd: int, target_fd: int) -> None:
    """Attach the detached mount *fd* on the directory or file open as *target_fd*."""
    syscalls.move_mount(fd, b"", target_fd, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def move_mount_path(fd: int, target: Path) -> None:
    """Attach the detached mount *fd* on a trusted path of the host."""
    syscalls.move_mount(fd, b"", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)


def mount_setattr(
    fd: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    recursive: bool = False,
    userns_fd: int = 0,
) -> None:
    """Change attributes or propagation of the mount open as *fd*."""
    syscalls.mount_setattr(
        fd,
        b"",
        AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0),
        attr_set=attr_set,
        attr_clr=attr_clr,
        propagation=propagation,
        userns_fd=userns_fd,
    )


def reconfigure(fd: int, options: Iterable[tuple[str, str | None]]) -> None:
    """Change superblock options of the file system whose mount is open as *fd*."""
    context = syscalls.fspick(fd, b"", syscalls.FSPICK_EMPTY_PATH)
    try:
        for key, value in options:
            set_option(context, key, value)
        syscalls.fsconfig(context, FSCONFIG_CMD_RECONFIGURE)
    except OSError as error:
        _add_messages(error, context)
        raise
    finally:
        os.close(context)


def umount(target: Path, *, detach: bool = True) -> None:
    """umount2(2) of a trusted path, never through a symbolic link."""
    syscalls.umount2(target, syscalls.UMOUNT_NOFOLLOW | (syscalls.MNT_DETACH if detach else 0))
