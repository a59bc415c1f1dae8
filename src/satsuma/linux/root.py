"""`Root`: everything that is done inside an untrusted tree goes through a descriptor of its top directory.

Owns path resolution inside rootfs trees, volumes and layer directories.  Every path is resolved by the kernel
with openat2(2) RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS: absolute paths and symbolic links start at the top,
".." stops there, and no link of procfs leads out.  What changes a directory entry (create, remove, rename)
works on (parent descriptor, last name), so nobody can swap the last component for a link in between.

Paths are `str` or `bytes`, absolute or relative, both meaning "from the top of this tree".

Source: openat2(2); security primitives as in runc internal/pathrs and crun safe_openat.
"""

from __future__ import annotations

import errno
import os
import stat as _stat

from satsuma.linux import syscalls
from satsuma.linux.syscalls import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    encode,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Path = str | bytes

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
# openat2(2): EAGAIN when a rename or mount anywhere raced with ".."; the same bound as crun and runc use.
_RETRIES = 128
_MAX_SYMLINKS = 40  # path_resolution(7)
_DEPTH_OF_OPEN_DIRECTORIES = 64


class Root:
    """A directory tree, held by an O_PATH (or readable) descriptor of its top; closes it at the end."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open_path(cls, path: Path) -> Root:
        """Open a directory of the host, whose path is trusted, as the top of a tree."""
        return cls(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def close(self) -> None:
        """Close the descriptor; harmless when it is closed already."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self, path: Path, flags: int, mode: int = 0, *, resolve: int = 0) -> int:
        """openat2(2) inside the root; *resolve* adds RESOLVE_* bits."""
        name = encode(path).lstrip(b"/") or b"."
        creates = flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE
        for _ in range(_RETRIES):
            try:
                return syscalls.openat2(self.fd, name, flags, mode if creates else 0, _RESOLVE | resolve)
            except BlockingIOError:
                if flags & os.O_NONBLOCK:
                    raise
            except InterruptedError:
                pass
        raise OSError(errno.EAGAIN, "path resolution kept racing with renames", _text(name))

    def subroot(self, path: Path) -> Root:
        """Open a directory inside the root as a tree of its own."""
        return Root(self.open(path, os.O_PATH | os.O_DIRECTORY))

    def open_parent(self, path: Path, *, create: bool = False) -> tuple[int, bytes]:
        """Return (descriptor of the parent directory, last name) of *path*.

        Links in the parent part are followed inside the root, the last name is not looked at.  For the top
        itself, and for paths that end in "..", the name is b".".  With *create* missing parents are made.
        """
        parts = encode(path).rstrip(b"/").rpartition(b"/")
        parent, name = parts[0], parts[2]
        if name in (b"", b"."):
            return self.open(parent or b".", os.O_PATH | os.O_DIRECTORY), b"."
        if name == b"..":
            return self.open(path, os.O_PATH | os.O_DIRECTORY), b"."
        try:
            return self.open(parent or b".", os.O_PATH | os.O_DIRECTORY), name
        except FileNotFoundError:
            if not create:
                raise
        self.mkdirs(parent)
        return self.open(parent, os.O_PATH | os.O_DIRECTORY), name

    def mkdirs(self, path: Path, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Make *path* and its missing parents, each with exactly *mode* and the given owner.

        Existing directories keep theirs.  Dangling links are followed: what they point to is made.
        """
        try:
            os.close(self.open(path, os.O_PATH | os.O_DIRECTORY))
            return
        except FileNotFoundError:
            pass
        todo = [part for part in encode(path).split(b"/") if part not in (b"", b".")][::-1]
        done: list[bytes] = []
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                done = done[:-1]
                continue
            target = self._mkdir_step(b"/".join(done), name, (mode, uid, gid))
            if target is None:
                done.append(name)
                continue
            links += 1
            if links > _MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), _text(encode(path)))
            if target.startswith(b"/"):
                done = []
            todo.extend([part for part in target.split(b"/") if part not in (b"", b".")][::-1])

    def _mkdir_step(self, parent: bytes, name: bytes, owner: tuple[int, int, int]) -> bytes | None:
        """Make sure that *name* is a directory in *parent*; return the target if it is a link."""
        fd = self.open(parent, os.O_PATH | os.O_DIRECTORY)
        try:
            for _ in range(_RETRIES):
                try:
                    kind = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                except FileNotFoundError:
                    try:
                        _mkdirat(fd, name, *owner)
                    except FileExistsError:
                        continue  # somebody else was faster
                    return None
                if _stat.S_ISLNK(kind):
                    return os.readlink(name, dir_fd=fd)
                if not _stat.S_ISDIR(kind):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), _text(name))
                return None
        finally:
            os.close(fd)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), _text(name))

    def stat(self, path: Path) -> os.stat_result:
        """stat(2); the last link is followed inside the root."""
        fd = self.open(path, os.O_PATH)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def lstat(self, path: Path) -> os.stat_result:
        """lstat(2)."""
        fd = self.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def exists(self, path: Path) -> bool:
        """Tell whether *path* leads to something, the last link followed."""
        try:
            os.close(self.open(path, os.O_PATH))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def readlink(self, path: Path) -> bytes:
        """readlink(2)."""
        with _Parent(self, path) as (fd, name):
            return os.readlink(name, dir_fd=fd)

    def symlink(self, target: Path, path: Path) -> None:
        """symlink(2); *target* is stored as given."""
        with _Parent(self, path) as (fd, name):
            os.symlink(encode(target), name, dir_fd=fd)

    def link(self, source: Path, path: Path) -> None:
        """link(2); a link at the end of *source* is linked itself, not followed."""
        with _Parent(self, source) as (from_fd, from_name), _Parent(self, path) as (fd, name):
            os.link(from_name, name, src_dir_fd=from_fd, dst_dir_fd=fd, follow_symlinks=False)

    def mknod(self, path: Path, mode: int, device: int = 0) -> None:
        """mknod(2) with exactly this mode, whatever the umask."""
        with _Parent(self, path) as (fd, name):
            os.mknod(name, mode, device, dir_fd=fd)
            _fchmodat(fd, name, _stat.S_IMODE(mode))

    def mkdir(self, path: Path, mode: int = 0o755) -> None:
        """mkdir(2) with exactly this mode, whatever the umask."""
        with _Parent(self, path) as (fd, name):
            _mkdirat(fd, name, mode, -1, -1)

    def unlink(self, path: Path) -> None:
        """unlink(2)."""
        with _Parent(self, path) as (fd, name):
            os.unlink(name, dir_fd=fd)

    def rmdir(self, path: Path) -> None:
        """rmdir(2)."""
        with _Parent(self, path) as (fd, name):
            os.rmdir(name, dir_fd=fd)

    def rename(self, source: Path, target: Path, flags: int = 0) -> None:
        """rename(2), or renameat2(2) with *flags*."""
        with _Parent(self, source) as (from_fd, from_name), _Parent(self, target) as (fd, name):
            syscalls.renameat2(from_fd, from_name, fd, name, flags)

    def rmtree(self, path: Path) -> None:
        """Remove *path* and everything below it; links and mounts are not followed.

        For the top itself only its content is removed.

        Raises:
            FileNotFoundError: nothing is there.
            OSError: EBUSY when something in the tree is a mount point.
        """
        parent, name = self.open_parent(path)
        try:
            if name == b".":
                for entry in _names(parent):
                    remove_tree_at(parent, entry)
            else:
                remove_tree_at(parent, name)
        finally:
            os.close(parent)

    def listdir(self, path: Path = b".") -> list[bytes]:
        """Return the names in a directory, sorted."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(os.fsencode(name) for name in os.listdir(fd))
        finally:
            os.close(fd)

    def lchown(self, path: Path, uid: int, gid: int) -> None:
        """lchown(2)."""
        with _Parent(self, path) as (fd, name):
            os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)

    def chmod(self, path: Path, mode: int) -> None:
        """chmod(2) of the last component itself; a symbolic link has no mode and is left alone."""
        with _Parent(self, path) as (fd, name):
            _fchmodat(fd, name, mode)

    def utimens(self, path: Path, atime_ns: int, mtime_ns: int) -> None:
        """utimensat(2) of the last component itself."""
        with _Parent(self, path) as (fd, name):
            os.utime(name, ns=(atime_ns, mtime_ns), dir_fd=fd, follow_symlinks=False)

    # There is no *at form of the xattr calls before Linux 6.13.  /proc/self/fd/PARENT/NAME is the same thing:
    # the parent is pinned by the descriptor and the last name is not followed.

    def listxattr(self, path: Path) -> list[str]:
        """llistxattr(2)."""
        with _Parent(self, path) as (fd, name):
            return os.listxattr(_proc_path(fd, name), follow_symlinks=False)

    def getxattr(self, path: Path, attribute: str) -> bytes:
        """lgetxattr(2)."""
        with _Parent(self, path) as (fd, name):
            return os.getxattr(_proc_path(fd, name), attribute, follow_symlinks=False)

    def setxattr(self, path: Path, attribute: str, value: bytes) -> None:
        """lsetxattr(2)."""
        with _Parent(self, path) as (fd, name):
            os.setxattr(_proc_path(fd, name), attribute, value, follow_symlinks=False)

    def removexattr(self, path: Path, attribute: str) -> None:
        """lremovexattr(2)."""
        with _Parent(self, path) as (fd, name):
            os.removexattr(_proc_path(fd, name), attribute, follow_symlinks=False)

    def read_file(self, path: Path, limit: int = 1 << 20) -> bytes:
        """Return the content of a regular file.

        Raises:
            OSError: EFBIG when it is longer than *limit*, EINVAL when it is no regular file.
        """
        # O_NONBLOCK: a FIFO planted by an image must not hang us in open(2).
        fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            info = os.fstat(fd)
            if not _stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", _text(encode(path)))
            chunks = []
            left = limit + 1
            size = min(max(info.st_size + 1, 4096), 1 << 20)
            while left > 0 and (chunk := os.read(fd, min(left, size))):
                chunks.append(chunk)
                left -= len(chunk)
        finally:
            os.close(fd)
        if left <= 0:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), _text(encode(path)))
        return b"".join(chunks)

    def write_file(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        """Write a regular file with exactly *mode*; an existing one is cut and overwritten."""
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY | os.O_NONBLOCK, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def walk(self, path: Path = b".") -> Iterator[tuple[bytes, os.stat_result]]:
        """Yield (path, lstat) of *path* and everything below it, parents first, names sorted.

        Paths are relative to the top of the tree without a leading slash; the top itself is b"".  Links are
        not followed.  Entries which vanish meanwhile are skipped.
        """
        start = encode(path).strip(b"/")
        if start == b".":
            start = b""
        first = self.lstat(start or b".")
        yield start, first
        if not _stat.S_ISDIR(first.st_mode):
            return
        stack = [self._entries(start)]
        while stack:
            entry = stack[-1].pop() if stack[-1] else None
            if entry is None:
                stack.pop()
                continue
            yield entry
            if _stat.S_ISDIR(entry[1].st_mode):
                stack.append(self._entries(entry[0]))

    def _entries(self, directory: bytes) -> list[tuple[bytes, os.stat_result]]:
        """Return (path, lstat) of the entries of a directory, last name first."""
        prefix = directory + b"/" if directory else b""
        entries = []
        try:
            fd = self.open(directory or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            for name in sorted(map(os.fsencode, os.listdir(fd)), reverse=True):
                try:
                    entries.append((prefix + name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
                except FileNotFoundError:
                    continue
        finally:
            os.close(fd)
        return entries


class _Parent:
    """Context of an open parent directory: yields (descriptor, last name)."""

    __slots__ = ("fd", "name")

    def __init__(self, root: Root, path: Path) -> None:
        self.fd, self.name = root.open_parent(path)

    def __enter__(self) -> tuple[int, bytes]:
        return self.fd, self.name

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _proc_path(fd: int, name: bytes) -> bytes:
    return b"/proc/self/fd/%d/%s" % (fd, name)


def _mkdirat(fd: int, name: bytes, mode: int, uid: int, gid: int) -> None:
    os.mkdir(name, mode, dir_fd=fd)
    # By a descriptor, not through /proc: an exec has no process of its own in the procfs that it sees.
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        if uid > 0 or gid > 0:
            os.fchown(made, uid, gid)
        os.fchmod(made, mode)
    finally:
        os.close(made)


def _fchmodat(fd: int, name: bytes, mode: int) -> None:
    # fchmodat(2) has no AT_SYMLINK_NOFOLLOW before Linux 6.6; an O_PATH descriptor pins the inode instead.
    node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        if not _stat.S_ISLNK(os.fstat(node).st_mode):
            os.chmod(b"/proc/self/fd/%d" % node, mode)
    finally:
        os.close(node)


def _names(fd: int) -> list[bytes]:
    readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        return [os.fsencode(name) for name in os.listdir(readable)]
    finally:
        os.close(readable)


def remove_tree_at(parent: int, name: bytes) -> None:
    """Remove the entry *name* of the directory open as *parent*, with everything below it.

    Works for any depth: a directory deeper than 64 levels is first moved up next to the top, so neither
    descriptors nor path lengths grow with the depth.
    """
    try:
        os.unlink(name, dir_fd=parent)
        return
    except IsADirectoryError:
        pass
    except PermissionError:
        # unlink(2) of a directory is EPERM on some file systems.
        if not _stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
    top = _open_directory(parent, name)
    try:
        moved = 0
        pending = [b"."]
        while pending:
            moved = _empty_directory(top, pending, moved)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _open_directory(parent: int, name: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        # RESOLVE_NO_XDEV also stops at bind mounts of the same file system: what is mounted is not ours to empty.
        return syscalls.openat2(parent, name, flags, 0, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), _text(name)) from None
        raise


def _empty_directory(top: int, pending: list[bytes], moved: int) -> int:
    """Empty the last pending child of *top* (b"." is *top* itself); return the new count of moved ones."""
    child = pending.pop()
    # (descriptor, names still to remove, name in the directory above)
    stack = [(_open_directory(top, child), None, child)]
    names: list[list[bytes]] = [[os.fsencode(n) for n in os.listdir(stack[0][0])]]
    try:
        while stack:
            fd = stack[-1][0]
            if not names[-1]:
                names.pop()
                os.close(fd)
                name = stack.pop()[2]
                if stack:
                    os.rmdir(name, dir_fd=stack[-1][0])
                elif name != b".":
                    os.rmdir(name, dir_fd=top)
                continue
            name = names[-1].pop()
            try:
                os.unlink(name, dir_fd=fd)
                continue
            except FileNotFoundError:
                continue
            except (IsADirectoryError, PermissionError):
                if not _stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    raise
            if len(stack) >= _DEPTH_OF_OPEN_DIRECTORIES:
                moved += 1
                new_name = b".satsuma-removing-%d-%d" % (os.getpid(), moved)
                os.rename(name, new_name, src_dir_fd=fd, dst_dir_fd=top)
                pending.append(new_name)
                continue
            stack.append((_open_directory(fd, name), None, name))
            names.append([os.fsencode(n) for n in os.listdir(stack[-1][0])])
    finally:
        for entry in stack:
            os.close(entry[0])
    return moved
