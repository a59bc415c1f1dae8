"""Extraction: entries of a tar become files inside a `Root`, and nowhere else.

Owns the one extraction engine, for layers, `docker cp`, imports and build contexts.  Must not know compression
or images; the rules that differ are in `Rules`.

Names are cleaned lexically as Go does ("../x" and "/x" are both "x"); links on the way are followed by the
kernel inside the root.  Parent directories are kept open: a name that is removed clears that cache, so an entry
never lands in a directory that has been replaced meanwhile.

Source: moby pkg/archive (createTarFile, Unpack); reference behaviour of Docker 20.10 and 28 on hostile layers.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from satsuma.base.errors import EngineError, InvalidParameter, System
from satsuma.linux.root import Root, remove_tree_at
from satsuma.wire import tar
from satsuma.wire.changeset import (
    OPAQUE_NAME,
    OPAQUE_VALUE,
    OPAQUE_XATTR,
    ChangesetError,
    keeps_xattr,
    whiteout_target,
)

_MAX_OPEN = 64
_MAX_TIME_NS = (1 << 63) - 1
_UNCHANGED = 0xFFFFFFFF
# The host's fault, not the archive's.
_HOST_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = {tar.CHAR: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}


class Rules(NamedTuple):
    """What differs between the uses of extraction."""

    layer: bool = False
    """Whiteouts become overlay's; overlay's own attributes and devices are refused or dropped."""
    strict_kinds: bool = False
    """A directory is not replaced by anything else, nor anything else by a directory (`docker cp`)."""
    owner: tuple[int, int] | None = None
    """Everything belongs to this user and group instead of the archive's."""
    keep: Callable[[bytes], bool] | None = None
    """Decides by cleaned name whether an entry is wanted."""


class Extracted(NamedTuple):
    """What an extraction wrote: entries, and bytes of files and links."""

    entries: int
    size: int
    replaced: bool
    """Something was written more than once, so `size` counts too much."""


def clean(name: bytes) -> bytes:
    """Return a name relative to the top, without "." and ".."; b"" is the top itself.

    >>> clean(b"/a/./b/../../../c/")
    b'c'
    """
    if b"." not in name and b"//" not in name:
        return name.strip(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def extract(root: Root, reader: tar.Reader, rules: Rules, *, base: bytes = b"") -> Extracted:
    """Extract all entries of *reader* into *root*.

    Args:
        base: directory in *root* that names start from; links on the way mean the whole *root*.
    Raises:
        InvalidParameter: the archive is malformed or asks for what cannot be; the tree is left half done.
        System: the host's disk or limits.
    """
    extractor = _Extractor(root, reader, rules, base)
    try:
        try:
            for entry in reader:
                extractor.add(entry)
            extractor.finish()
        except tar.TarError as error:
            raise InvalidParameter(str(error)) from error
    finally:
        extractor.close()
    return Extracted(extractor.entries, extractor.size, extractor.replaced)


class _Extractor:
    def __init__(self, root: Root, reader: tar.Reader, rules: Rules, base: bytes) -> None:
        self._root = root
        self._base = base + b"/" if base else b""
        self._reader = reader
        self._rules = rules
        self._parents: dict[bytes, int] = {}
        self._times: list[tuple[bytes, int]] = []
        self.entries = 0
        self.size = 0
        self.replaced = False

    def close(self) -> None:
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()

    def add(self, entry: tar.Entry) -> None:
        path = clean(entry.name)
        if not path or (self._rules.keep is not None and not self._rules.keep(path)):
            return  # the top is made by who owns it; Docker ignores such entries, whatever their kind
        path = self._base + path
        self.entries += 1
        verb = "open"
        try:
            if self._rules.layer and self._whiteout(path, entry):
                return
            verb = _VERBS.get(entry.kind, "open")
            self._make(path, entry)
        except OSError as error:
            raise _wrap(error, verb, path, entry) from error
        except OverflowError as error:
            raise InvalidParameter(f"{_show(path)}: number out of range") from error
        except ChangesetError as error:
            raise InvalidParameter(f"{_show(path)}: {error}") from error

    def finish(self) -> None:
        """Set the times of directories.  Order: last and innermost first, since every entry changes them."""
        for path, mtime_ns in reversed(self._times):
            try:
                self._root.utimens(path, mtime_ns, mtime_ns)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry replaced it

    # Parents

    def _parent(self, path: bytes, *, create: bool = True) -> int:
        fd = self._parents.get(path)
        if fd is None:
            fd = self._open_or_make(path) if create else self._open(path)
            if len(self._parents) >= _MAX_OPEN:
                os.close(self._parents.pop(next(iter(self._parents))))
            self._parents[path] = fd
        return fd

    def _open_or_make(self, path: bytes) -> int:
        try:
            return self._open(path)
        except FileNotFoundError:
            pass
        self._refuse_dangling(path)
        uid, gid = self._rules.owner or (0, 0)
        self._root.mkdirs(path, 0o755, uid, gid)
        return self._open(path)

    def _open(self, path: bytes) -> int:
        return self._root.open(path or b".", os.O_PATH | os.O_DIRECTORY)

    def _refuse_dangling(self, path: bytes) -> None:
        """Missing parents are made, but not through a link that leads nowhere: an archive must not aim that way."""
        while path:
            try:
                if stat.S_ISLNK(self._root.lstat(path).st_mode):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                return
            except FileNotFoundError:
                if self._is_link(path):
                    raise
            path = path.rpartition(b"/")[0]

    def _is_link(self, path: bytes) -> bool:
        try:
            return stat.S_ISLNK(self._root.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _remove(self, parent: int, name: bytes) -> None:
        remove_tree_at(parent, name)
        self.replaced = True
        self.close()

    # Whiteouts

    def _whiteout(self, path: bytes, entry: tar.Entry) -> bool:
        parent_path, _, name = path.rpartition(b"/")
        if name == OPAQUE_NAME:
            self._set_opaque(self._parent(parent_path))
            return True
        target = whiteout_target(name)
        if target is None:
            return False
        parent = self._parent(parent_path)
        try:
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # A whiteout speaks of lower layers only; what this layer brings already hides them, a directory
            # does so when it is opaque.  Source: image-spec layer.md "Whiteouts".
            if stat.S_ISDIR(os.stat(target, dir_fd=parent, follow_symlinks=False).st_mode):
                self._set_opaque(self._parent(parent_path + b"/" + target if parent_path else target))
        return True

    def _set_opaque(self, fd: int) -> None:
        os.setxattr(b"/proc/self/fd/%d" % fd, OPAQUE_XATTR, OPAQUE_VALUE)

    # Entries

    def _make(self, path: bytes, entry: tar.Entry) -> None:
        parent_path, _, name = path.rpartition(b"/")
        parent = self._parent(parent_path)
        if self._rules.strict_kinds:
            self._check_kinds(parent, name, path, entry)
        maker = _MAKERS.get(entry.kind)
        if maker is None:
            raise InvalidParameter(f"unhandled tar header type {ord(entry.kind)}")
        try:
            maker(self, parent, name, path, entry)
        except FileExistsError:
            self._remove(parent, name)
            maker(self, self._parent(parent_path), name, path, entry)

    def _check_kinds(self, parent: int, name: bytes, path: bytes, entry: tar.Entry) -> None:
        try:
            old = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        new = entry.kind == tar.DIRECTORY
        if old and not new:
            raise InvalidParameter(
                f'cannot overwrite directory "{_show(path)}" with non-directory "{_show(path)}"'
            )
        if new and not old:
            raise InvalidParameter(
                f'cannot overwrite non-directory "{_show(path)}" with directory "{_show(path)}"'
            )

    def _owner(self, entry: tar.Entry) -> tuple[int, int]:
        if self._rules.owner is not None:
            return self._rules.owner
        # -1 as an unsigned number means "leave it" to chown(2).
        return (
            -1 if entry.uid == _UNCHANGED else entry.uid,
            -1 if entry.gid == _UNCHANGED else entry.gid,
        )

    def _file(self, parent: int, name: bytes, path: bytes, entry: tar.Entry) -> None:
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            if entry.sparse is None:
                for _, view in self._reader.chunks():
                    written = os.write(fd, view)
                    while written < len(view):
                        written += os.write(fd, view[written:])
            else:
                for offset, view in self._reader.chunks():
                    written = 0
                    while written < len(view):
                        written += os.pwrite(fd, view[written:], offset + written)
                os.ftruncate(fd, entry.size)
            # chown(2) clears set-user-id bits and capabilities: it comes first.
            os.fchown(fd, *self._owner(entry))
            if entry.xattrs:
                self._xattrs(fd, entry)
            os.fchmod(fd, entry.mode)
            mtime_ns = _bounded(entry.mtime_ns)
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)
        self.size += entry.size

    def _directory(self, parent: int, name: bytes, path: bytes, entry: tar.Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            os.fchown(fd, *self._owner(entry))
            if entry.xattrs:
                self._xattrs(fd, entry)
            os.fchmod(fd, entry.mode)
        finally:
            os.close(fd)
        self._times.append((path, _bounded(entry.mtime_ns)))

    def _symlink(self, parent: int, name: bytes, path: bytes, entry: tar.Entry) -> None:
        os.symlink(entry.linkname, name, dir_fd=parent)
        uid, gid = self._owner(entry)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            self._xattrs(b"/proc/self/fd/%d/%s" % (parent, name), entry)
        mtime_ns = _bounded(entry.mtime_ns)
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
        self.size += len(entry.linkname)

    def _link(self, parent: int, name: bytes, path: bytes, entry: tar.Entry) -> None:
        target_parent, _, target = (self._base + clean(entry.linkname)).rpartition(b"/")
        if not target:
            raise IsADirectoryError(errno.EPERM, "hard link to a directory")
        source = self._parent(target_parent, create=False)
        os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _special(self, parent: int, name: bytes, path: bytes, entry: tar.Entry) -> None:
        if self._rules.layer and entry.kind == tar.CHAR and not (entry.devmajor or entry.devminor):
            raise InvalidParameter(
                f"{_show(path)}: character device 0:0 is overlay's whiteout, no layer may bring it"
            )
        device = 0 if entry.kind == tar.FIFO else os.makedev(entry.devmajor, entry.devminor)
        os.mknod(name, _SPECIAL[entry.kind] | 0o600, device, dir_fd=parent)
        uid, gid = self._owner(entry)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        with_path = Root(os.dup(parent))
        try:
            with_path.chmod(name, entry.mode)
        finally:
            with_path.close()
        mtime_ns = _bounded(entry.mtime_ns)
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _xattrs(self, target: int | bytes, entry: tar.Entry) -> None:
        for name, value in entry.xattrs.items():
            if not keeps_xattr(name):
                continue
            try:
                if isinstance(target, int):
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                # Docker goes on without attributes that the file system or the kind of file does not have.
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise


_MAKERS = {
    tar.FILE: _Extractor._file,
    tar.DIRECTORY: _Extractor._directory,
    tar.SYMLINK: _Extractor._symlink,
    tar.LINK: _Extractor._link,
    tar.CHAR: _Extractor._special,
    tar.BLOCK_DEVICE: _Extractor._special,
    tar.FIFO: _Extractor._special,
}
_VERBS = {
    tar.DIRECTORY: "mkdir",
    tar.SYMLINK: "symlink",
    tar.LINK: "link",
    tar.CHAR: "mknod",
    tar.BLOCK_DEVICE: "mknod",
    tar.FIFO: "mknod",
}


def _bounded(mtime_ns: int) -> int:
    # Go's boundTime: what lies outside of its range becomes the epoch.
    return mtime_ns if 0 <= mtime_ns <= _MAX_TIME_NS else 0


def _show(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace")[:200]


def _wrap(error: OSError, verb: str, path: bytes, entry: tar.Entry) -> EngineError:
    reason = (error.strerror or str(error)).lower()
    where = f"{_show(clean(entry.linkname))} {_show(path)}" if verb == "link" else _show(path)
    message = f"{verb} {where}: {reason}"
    return System(message) if error.errno in _HOST_ERRORS else InvalidParameter(message)
