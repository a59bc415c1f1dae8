"""Trees of files to tars and back, for builds and copies.

Packing reads the user's own files and trusts their names; unpacking does not trust the archive, which may come from a
container: every path is resolved inside the destination by descriptors (`satsuma.linux.root`).
"""

from __future__ import annotations

import os
import stat

from satsuma.cli.errors import CliError
from satsuma.wire import tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from satsuma.linux.root import Root
    from satsuma.wire.patterns import Matcher

PIECE = 1 << 18
_KINDS = {
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFCHR: tar.CHAR,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}


class Packer:
    """Writes trees into one archive, as an iterator of pieces.

    Args:
        root_owner: everything belongs to root, as in a build context.
        leave_out: a file at the top of a tree that is not packed.
    """

    def __init__(self, *, root_owner: bool = False, leave_out: str = "") -> None:
        self._root_owner = root_owner
        self._leave_out = os.fsencode(leave_out)
        self._links: dict[tuple[int, int], bytes] = {}
        """Inode → the name under which it is in the archive already."""

    def tree(self, path: str, name: str, matcher: Matcher | None = None) -> Iterator[bytes]:
        """Yield a file, or a directory with all that is below it.

        Args:
            path: on this host.
            name: in the archive; empty for the contents of a directory alone.
            matcher: rules of an ignore file, relative to *path*.
        Raises:
            CliError: something cannot be read.
        """
        try:
            yield from self._member(os.fsencode(path), os.fsencode(name), b"", matcher)
        except OSError as error:
            what = os.fsdecode(error.filename or path)
            raise CliError(f"open {what}: {(error.strerror or '').lower()}") from None

    def data(self, name: str, content: bytes, mode: int = 0o600) -> Iterator[bytes]:
        """Yield a file that exists in memory only."""
        yield tar.encode(tar.Entry(os.fsencode(name), mode=mode, size=len(content)))
        yield content + tar.padding(len(content))

    def _member(self, path: bytes, name: bytes, inner: bytes, matcher: Matcher | None) -> Iterator[bytes]:
        if inner and inner == self._leave_out:
            return
        info = os.lstat(path)
        is_directory = stat.S_ISDIR(info.st_mode)
        ignored = bool(inner) and matcher is not None and matcher.matches(os.fsdecode(inner))
        if name and not ignored and not stat.S_ISSOCK(info.st_mode):
            yield from self._entry(path, name, info)
        if not is_directory or (ignored and matcher is not None and matcher.prunes(os.fsdecode(inner))):
            return
        with os.scandir(path) as entries:
            children = sorted(entry.name for entry in entries)
        for child in children:
            yield from self._member(
                path + b"/" + child,
                name.rstrip(b"/") + b"/" + child if name else child,
                inner + b"/" + child if inner else child,
                matcher,
            )

    def _entry(self, path: bytes, name: bytes, info: os.stat_result) -> Iterator[bytes]:
        kind = _KINDS.get(stat.S_IFMT(info.st_mode), tar.FILE)
        entry = tar.Entry(
            name.rstrip(b"/") + b"/" if kind == tar.DIRECTORY else name,
            kind,
            mode=stat.S_IMODE(info.st_mode),
            uid=0 if self._root_owner else info.st_uid,
            gid=0 if self._root_owner else info.st_gid,
            mtime_ns=info.st_mtime_ns,
        )
        if kind == tar.SYMLINK:
            entry.linkname = os.readlink(path)
        elif kind in (tar.CHAR, tar.BLOCK_DEVICE):
            entry.devmajor, entry.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
        elif kind == tar.FILE:
            known = self._links.get((info.st_dev, info.st_ino))
            if known is not None:
                entry.kind, entry.linkname = tar.LINK, known
            else:
                if info.st_nlink > 1:
                    self._links[info.st_dev, info.st_ino] = name
                yield from self._file(path, entry)
                return
        yield tar.encode(entry)

    def _file(self, path: bytes, entry: tar.Entry) -> Iterator[bytes]:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            entry.size = size
            entry.xattrs = _capability(fd)
            yield tar.encode(entry)
            left = size
            while left:
                piece = os.read(fd, min(left, PIECE))
                if not piece:
                    raise CliError(f"file changed while it was read: {os.fsdecode(path)}")
                left -= len(piece)
                yield piece
            yield tar.padding(size)
        finally:
            os.close(fd)


def _capability(fd: int) -> dict[bytes, bytes]:
    """Return the one extended attribute that Docker carries in archives: file capabilities."""
    try:
        return {b"security.capability": os.getxattr(fd, "security.capability")}
    except OSError:
        return {}


# -- unpacking ----------------------------------------------------------------------------------------------------


def reader_of(pieces: Iterable[bytes]) -> Callable[[int], bytes]:
    """Return a read function over pieces of any size."""
    source = iter(pieces)
    rest = b""

    def read(count: int) -> bytes:
        nonlocal rest
        while not rest:
            piece = next(source, None)
            if piece is None:
                return b""
            rest = piece
        taken, rest = rest[:count], rest[count:]
        return taken

    return read


class Unpacker:
    """Writes the members of an archive below a directory.

    Args:
        root: the directory; nothing is written outside of it.
        rename: first component of names as they are in the archive and as they shall be.
        owners: give files the owners that the archive says (needs root).
    """

    def __init__(self, root: Root, *, rename: tuple[str, str] | None = None, owners: bool = False) -> None:
        self.root = root
        self.rename = tuple(os.fsencode(name) for name in rename) if rename else None
        self.owners = owners
        self._directories: list[tuple[bytes, int]] = []

    def run(self, read: Callable[[int], bytes]) -> None:
        """Unpack everything.

        Raises:
            CliError: the archive is broken, or something stands in the way.
        """
        reader = tar.Reader(read)
        try:
            while (entry := reader.next_entry()) is not None:
                self._write(entry, reader)
            reader.drain()
        except tar.TarError as error:
            raise CliError(f"cannot read the archive: {error}") from None
        except OSError as error:
            name = os.fsdecode(error.filename) if error.filename else ""
            raise CliError(f"{name + ': ' if name else ''}{(error.strerror or '').lower()}") from None
        # Directories last: writing into them has changed their times.
        for path, mtime in reversed(self._directories):
            self.root.utimens(path, mtime, mtime)

    def _renamed(self, name: bytes) -> bytes:
        name = name.strip(b"/")
        if self.rename is None:
            return name
        old, new = self.rename
        if name == old:
            return new
        return new + name[len(old) :] if name.startswith(old + b"/") else name

    def _write(self, entry: tar.Entry, reader: tar.Reader) -> None:
        path = self._renamed(entry.name)
        while path.startswith(b"./"):
            path = path[2:]
        if path in (b"", b"."):
            return
        self._make_room(path, entry)
        root = self.root
        if entry.kind == tar.DIRECTORY:
            if not root.exists(path):
                root.mkdir(path, 0o700)
            self._directories.append((path, entry.mtime_ns))
        elif entry.kind == tar.SYMLINK:
            root.symlink(entry.linkname, path)
        elif entry.kind == tar.LINK:
            root.link(self._renamed(entry.linkname), path)
            return
        elif entry.kind == tar.FILE:
            self._content(path, reader, entry)
        else:
            self._special(path, entry)
        if self.owners:
            root.lchown(path, entry.uid, entry.gid)
        if entry.kind != tar.SYMLINK:
            root.chmod(path, entry.mode & 0o7777)
        if entry.kind != tar.DIRECTORY:
            root.utimens(path, entry.mtime_ns, entry.mtime_ns)

    def _make_room(self, path: bytes, entry: tar.Entry) -> None:
        try:
            known = self.root.lstat(path)
        except FileNotFoundError:
            parent = path.rpartition(b"/")[0]
            if parent and not self.root.exists(parent):
                self.root.mkdirs(parent, 0o755)
            return
        was, shall = stat.S_ISDIR(known.st_mode), entry.kind == tar.DIRECTORY
        name = os.fsdecode(path)
        if was and not shall:
            raise CliError(
                f'cannot overwrite directory "{name}" with non-directory "{os.fsdecode(entry.name)}"'
            )
        if shall and not was:
            raise CliError(
                f'cannot overwrite non-directory "{name}" with directory "{os.fsdecode(entry.name)}"'
            )
        if not was:
            self.root.unlink(path)

    def _content(self, path: bytes, reader: tar.Reader, entry: tar.Entry) -> None:
        fd = self.root.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            for offset, data in reader.chunks():
                while data:
                    written = os.pwrite(fd, data, offset)
                    data, offset = data[written:], offset + written
            os.ftruncate(fd, entry.size)
        finally:
            os.close(fd)

    def _special(self, path: bytes, entry: tar.Entry) -> None:
        types = {tar.CHAR: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
        if entry.kind not in types:
            raise CliError(f"unhandled tar header type {entry.kind!r} for {os.fsdecode(path)}")
        device = os.makedev(entry.devmajor, entry.devminor)
        self.root.mknod(path, types[entry.kind] | entry.mode & 0o7777, device)
