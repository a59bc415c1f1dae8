"""A tree as a tar stream: for layers, `docker export`, `docker cp` and COPY.

Owns order and content of such archives.  The bytes depend on the tree alone (names sorted, times cut to
seconds, no names of users), so a layer's tar can be written anew at any time and has the same digest.

Source: moby pkg/archive (TarWithOptions, addTarFile): PAX, whole seconds, sockets left out, capabilities the
only attribute.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from satsuma.linux.root import Root
from satsuma.wire import tar
from satsuma.wire.changeset import CAPABILITY_XATTR, OPAQUE_VALUE, OPAQUE_XATTR, opaque_name, whiteout_name

_NS = 1_000_000_000
_STEP = 1 << 18
_KINDS = {
    stat.S_IFREG: tar.FILE,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHAR,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}


def tar_tree(
    root: Root, path: bytes = b".", *, prefix: bytes = b"", whiteouts: bool = False, end: bool = True
) -> Iterator[bytes]:
    """Yield the tar of the tree or file at *path*.

    Args:
        prefix: name of *path* itself in the archive; empty leaves *path* out and names the rest from there.
        whiteouts: the tree is an overlay upperdir or a layer's directory: translate its marks.
        end: write the end of the archive too.
    """
    writer = _Writer(root, whiteouts)
    start = path.strip(b"/")
    if start == b".":
        start = b""
    cut = len(start) + 1 if start else 0
    for found, status in root.walk(start or b"."):
        if found == start:
            name = prefix
            if whiteouts and stat.S_ISDIR(status.st_mode):
                writer.opaque(found, prefix)
        else:
            name = (prefix.rstrip(b"/") + b"/" if prefix else b"") + found[cut:]
        if name:
            yield from writer.add(found, name, status)
        if writer.size >= _STEP:
            yield writer.flush()
    if end:
        writer.append(tar.END)
    if writer.size:
        yield writer.flush()


class _Writer:
    """Collects small pieces, so that consumers see few and large ones."""

    def __init__(self, root: Root, whiteouts: bool) -> None:
        self._root = root
        self._whiteouts = whiteouts
        self._seen: dict[tuple[int, int], bytes] = {}
        self._parts: list[bytes] = []
        self.size = 0

    def append(self, data: bytes) -> None:
        self._parts.append(data)
        self.size += len(data)

    def flush(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        return data

    def add(self, path: bytes, name: bytes, status: os.stat_result) -> Iterator[bytes]:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return  # a socket
        entry = tar.Entry(
            name,
            kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns // _NS * _NS,
        )
        if kind == tar.FILE:
            yield from self._file(path, entry, status)
            return
        if kind == tar.DIRECTORY:
            entry.name = name.rstrip(b"/") + b"/"
            self.append(tar.encode(entry))
            if self._whiteouts:
                self.opaque(path, name)
            return
        if self._is_hard_link(entry, status):
            pass
        elif kind == tar.SYMLINK:
            entry.linkname = self._root.readlink(path)
        elif kind in (tar.CHAR, tar.BLOCK_DEVICE):
            if self._whiteouts and kind == tar.CHAR and status.st_rdev == 0:
                self.append(tar.encode(_mark(whiteout_name(name))))
                return
            entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self.append(tar.encode(entry))

    def _is_hard_link(self, entry: tar.Entry, status: os.stat_result) -> bool:
        if status.st_nlink < 2 or stat.S_ISCHR(status.st_mode):
            return False
        first = self._seen.setdefault((status.st_dev, status.st_ino), entry.name)
        if first == entry.name:
            return False
        entry.kind, entry.linkname, entry.size = tar.LINK, first, 0
        return True

    def _file(self, path: bytes, entry: tar.Entry, status: os.stat_result) -> Iterator[bytes]:
        if self._is_hard_link(entry, status):
            self.append(tar.encode(entry))
            return
        # O_NONBLOCK: in a tree that is in use the file may have become a FIFO meanwhile.
        fd = self._root.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            try:
                entry.xattrs[CAPABILITY_XATTR.encode()] = os.getxattr(fd, CAPABILITY_XATTR)
            except OSError:
                pass  # ENODATA as a rule, or a file system without attributes
            entry.size = status.st_size
            self.append(tar.encode(entry))
            left = entry.size
            while left:
                data = os.read(fd, min(left, _STEP))
                # A file that shrinks while it is read keeps the size of its header, as with tar(1).
                data = data or bytes(min(left, _STEP))
                left -= len(data)
                self.append(data)
                if self.size >= _STEP:
                    yield self.flush()
            self.append(tar.padding(entry.size))
        finally:
            os.close(fd)

    def opaque(self, path: bytes, name: bytes) -> None:
        """Write the mark of an opaque directory, if it is one."""
        try:
            if self._root.getxattr(path or b".", OPAQUE_XATTR) != OPAQUE_VALUE:
                return
        except OSError:
            return
        self.append(tar.encode(_mark(opaque_name(name))))


def _mark(name: bytes) -> tar.Entry:
    # No owner, mode or time: they mean nothing, and a layer that is unpacked and packed again must not change.
    return tar.Entry(name, tar.FILE, mode=0)
