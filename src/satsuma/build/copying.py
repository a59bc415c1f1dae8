"""The right side of COPY and ADD: files and trees into the tree that becomes the next layer.

Everything below the two top directories is done by descriptors and with links not followed; the tops themselves are
resolved inside their roots (`linux.root`).  Neither the context nor the image can lead the copy outside.

Rules, as Docker's classic builder has them:

* a directory is copied as its content; the target directory keeps its own mode and owner if it was there;
* directories below it take the mode of the source; anything else that is in the way is replaced;
* missing parents are made 0755, owned by the copy's owner;
* modes, times, extended attributes and hard links are kept, sockets are left out.

Source: docs.docker.com/reference/dockerfile/#copy; observed on Docker 20.10.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from satsuma.build.chmod import Chmod
from satsuma.linux.root import Root, remove_tree_at

__all__ = ["CopyPlan", "Owner", "copy_file", "copy_tree"]

_BLOCK = 1 << 20
# Attributes that belong to the source's own file system or to overlayfs.
_DROP_XATTRS = ("trusted.overlay.", "user.overlay.", "security.selinux", "system.")


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns what is copied."""

    uid: int
    gid: int


@dataclass(slots=True, kw_only=True)
class CopyPlan:
    """How to copy.

    Attributes:
        owner: of everything copied; None keeps the source's.
        chmod: applied to files and directories; None keeps the source's.
        accept: tells of a path relative to the copied directory whether it is copied.
    """

    owner: Owner | None = None
    chmod: Chmod | None = None
    accept: Callable[[bytes], bool] | None = None


def copy_file(source: Root, source_path: bytes, target: Root, target_path: bytes, plan: CopyPlan) -> None:
    """Copy one file; a link at the end of *source_path* is followed, one at the end of *target_path* replaced."""
    make_parents(target, target_path, plan)
    source_fd = source.open(source_path, os.O_PATH)
    try:
        status = os.fstat(source_fd)
        parent, name = target.open_parent(target_path)
        try:
            _make_way(parent, name, status)
            _copy_node(b"/proc/self/fd/%d" % source_fd, None, status, parent, name, plan)
        finally:
            os.close(parent)
    finally:
        os.close(source_fd)


def make_parents(target: Root, path: bytes, plan: CopyPlan) -> None:
    """Make the directories above *path*."""
    parent = path.rstrip(b"/").rpartition(b"/")[0]
    if parent:
        owner = plan.owner or Owner(0, 0)
        target.mkdirs(parent, 0o755, owner.uid, owner.gid)


def copy_tree(source: Root, source_path: bytes, target: Root, target_path: bytes, plan: CopyPlan) -> None:
    """Copy the content of a directory into the directory *target_path*, which is made if it is missing."""
    owner = plan.owner or Owner(0, 0)
    existed = target.exists(target_path)
    target.mkdirs(target_path, 0o755, owner.uid, owner.gid)
    source_fd = source.open(source_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        target_fd = target.open(target_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not existed and plan.chmod is not None:
                os.fchmod(target_fd, plan.chmod.apply(stat.S_IFDIR | 0o755))
            _TreeCopy(plan).run(source_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


class _TreeCopy:
    """One walk: a stack of open directory pairs; directories get their times after their content."""

    def __init__(self, plan: CopyPlan) -> None:
        self._plan = plan
        # Where the first name of a hard-linked inode went: a directory descriptor of the target stays open until
        # the walk has left it, so later names are linked by path from the top.
        self._first_names: dict[tuple[int, int], bytes] = {}

    def run(self, source: int, target: int) -> None:
        self._target_top = target
        self._directory(source, target, b"")

    def _directory(self, source: int, target: int, prefix: bytes) -> None:
        with os.scandir(source) as entries:
            names = sorted(os.fsencode(entry.name) for entry in entries)
        for name in names:
            path = prefix + name
            try:
                status = os.stat(name, dir_fd=source, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISSOCK(status.st_mode):
                continue
            accepted = self._plan.accept is None or self._plan.accept(path)
            if stat.S_ISDIR(status.st_mode):
                self._subdirectory(source, target, name, path, status, accepted)
            elif accepted:
                self._entry(source, target, name, path, status)

    def _subdirectory(
        self, source: int, target: int, name: bytes, path: bytes, status: os.stat_result, accepted: bool
    ) -> None:
        if not accepted and self._plan.accept is None:
            return
        inner_source = os.open(
            name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source
        )
        try:
            if not accepted and not self._has_accepted(inner_source, path + b"/"):
                return
            _make_way(target, name, status)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner_target = os.open(name, flags, dir_fd=target)
            try:
                _set_owner_and_mode(inner_target, status, self._plan)
                _copy_xattrs(inner_source, inner_target)
                self._directory(inner_source, inner_target, path + b"/")
                os.utime(inner_target, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(inner_target)
        finally:
            os.close(inner_source)

    def _has_accepted(self, directory: int, prefix: bytes) -> bool:
        assert self._plan.accept is not None
        for name in map(os.fsencode, os.listdir(directory)):
            if self._plan.accept(prefix + name):
                return True
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                try:
                    if self._has_accepted(inner, prefix + name + b"/"):
                        return True
                finally:
                    os.close(inner)
        return False

    def _entry(self, source: int, target: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        _make_way(target, name, status)
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            first = self._first_names.get(key)
            if first is not None and self._link(first, target, name):
                return
            self._first_names[key] = path
        _copy_node(b"/proc/self/fd/%d/%s" % (source, name), (source, name), status, target, name, self._plan)

    def _link(self, first: bytes, target: int, name: bytes) -> bool:
        try:
            with Root(os.dup(self._target_top)) as top:
                parent, first_name = top.open_parent(first)
        except OSError:
            return False
        try:
            os.link(first_name, name, src_dir_fd=parent, dst_dir_fd=target, follow_symlinks=False)
        except OSError:
            # EMLINK, or a file system without links: a second copy is right, only bigger.
            return False
        finally:
            os.close(parent)
        return True


def _make_way(parent: int, name: bytes, status: os.stat_result) -> None:
    """Remove what stands where the entry goes, unless both are directories."""
    try:
        present = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not (stat.S_ISDIR(present.st_mode) and stat.S_ISDIR(status.st_mode)):
        remove_tree_at(parent, name)


def _copy_node(
    source_path: bytes,
    link_at: tuple[int, bytes] | None,
    status: os.stat_result,
    parent: int,
    name: bytes,
    plan: CopyPlan,
) -> None:
    """Make a copy of the non-directory at *source_path* (a magic link that cannot be swapped)."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_regular(source_path, link_at, status, parent, name, plan)
        return
    owner = plan.owner or Owner(status.st_uid, status.st_gid)
    if kind == stat.S_IFLNK:
        assert link_at is not None
        os.symlink(os.readlink(link_at[1], dir_fd=link_at[0]), name, dir_fd=parent)
    else:
        os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=parent)
    os.chown(name, owner.uid, owner.gid, dir_fd=parent, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        mode = plan.chmod.apply(status.st_mode) if plan.chmod else stat.S_IMODE(status.st_mode)
        # The name was made by us a moment ago in a tree that nobody else works on.
        os.chmod(name, mode, dir_fd=parent)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=parent, follow_symlinks=False)


def _copy_regular(
    source_path: bytes,
    link_at: tuple[int, bytes] | None,
    status: os.stat_result,
    parent: int,
    name: bytes,
    plan: CopyPlan,
) -> None:
    if link_at is not None:
        source = os.open(link_at[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=link_at[0])
    else:
        source = os.open(source_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            _copy_content(source, target, status.st_size)
            _set_owner_and_mode(target, status, plan)
            # After chown(2), which clears capabilities.
            _copy_xattrs(source, target)
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_content(source: int, target: int, size: int) -> None:
    # copy_file_range(2) shares extents where the file system can; it refuses across some file systems.
    done = 0
    try:
        while done < size:
            moved = os.copy_file_range(source, target, min(size - done, 1 << 30))
            if not moved:
                break
            done += moved
    except OSError:
        os.lseek(source, done, os.SEEK_SET)
        os.lseek(target, done, os.SEEK_SET)
    while block := os.read(source, _BLOCK):
        view = memoryview(block)
        while view:
            view = view[os.write(target, view) :]


def _set_owner_and_mode(fd: int, status: os.stat_result, plan: CopyPlan) -> None:
    owner = plan.owner or Owner(status.st_uid, status.st_gid)
    os.fchown(fd, owner.uid, owner.gid)
    # After chown(2), which clears the set-id bits.
    os.fchmod(fd, plan.chmod.apply(status.st_mode) if plan.chmod else stat.S_IMODE(status.st_mode))


def _copy_xattrs(source: int, target: int) -> None:
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        if name.startswith(_DROP_XATTRS):
            continue
        # Best effort, as in Docker: the target's file system may not have this kind.
        with contextlib.suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))
