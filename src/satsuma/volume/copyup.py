"""Fill an empty volume with what the image has at its mount point: owner, mode, times, xattrs, links, nodes.

Both sides are trees that somebody else may have prepared, so both are walked through `Root`.
Source: moby volume/mounts, container/container_unix.go `CopyImagePathContent`, containerd continuity/fs.
"""

from __future__ import annotations

import errno
import os
import stat

from satsuma.linux.root import Root

_CHUNK = 1 << 20


def copy_up(source: Root, path: str, target: Root) -> bool:
    """Copy the directory *path* of *source* into *target* if *target* is empty; tell whether it did.

    Nothing happens when *path* does not exist or is no directory.  An empty directory still gives its owner and
    mode to the volume.
    """
    try:
        tree = source.subroot(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    with tree:
        if target.listdir():
            return False
        _copy_tree(tree, target)
    return True


def _copy_tree(source: Root, target: Root) -> None:
    links: dict[int, bytes] = {}
    directories: list[tuple[bytes, os.stat_result]] = []
    for path, status in source.walk():
        if stat.S_ISDIR(status.st_mode):
            if path:
                target.mkdir(path, 0o700)
            directories.append((path, status))
        elif status.st_nlink > 1 and status.st_ino in links:
            target.link(links[status.st_ino], path)
            continue
        else:
            _copy_entry(source, target, path, status)
            if status.st_nlink > 1:
                links[status.st_ino] = path
        _copy_owner(source, target, path, status)
    # Directories last and innermost first: making an entry changes its parent's time.
    for path, status in reversed(directories):
        target.utimens(path or b".", status.st_atime_ns, status.st_mtime_ns)


def _copy_entry(source: Root, target: Root, path: bytes, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        target.symlink(source.readlink(path), path)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(source, target, path)
    elif not stat.S_ISSOCK(status.st_mode):
        target.mknod(path, status.st_mode, status.st_rdev)
    else:
        target.mknod(path, stat.S_IFSOCK | 0o600)


def _copy_file(source: Root, target: Root, path: bytes) -> None:
    reader = source.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        writer = target.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            while True:
                try:
                    copied = os.copy_file_range(reader, writer, _CHUNK)
                except OSError as error:
                    # Different file systems, or one that cannot: by hand.
                    if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                        raise
                    _copy_bytes(reader, writer)
                    break
                if not copied:
                    break
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_bytes(reader: int, writer: int) -> None:
    while chunk := os.read(reader, _CHUNK):
        view = memoryview(chunk)
        while view:
            view = view[os.write(writer, view) :]


def _copy_owner(source: Root, target: Root, path: bytes, status: os.stat_result) -> None:
    name = path or b"."
    target.lchown(name, status.st_uid, status.st_gid)
    if not stat.S_ISLNK(status.st_mode):
        # After chown, which clears the set-id bits (chown(2)).
        target.chmod(name, stat.S_IMODE(status.st_mode))
    for attribute in source.listxattr(name):
        if attribute.startswith("trusted.overlay.") or attribute == "security.selinux":
            continue
        try:
            target.setxattr(name, attribute, source.getxattr(name, attribute))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
    if not stat.S_ISDIR(status.st_mode):
        target.utimens(name, status.st_atime_ns, status.st_mtime_ns)
