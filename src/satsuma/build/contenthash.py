"""Checksums of files and trees, for the cache: what a COPY would make, without the times.

Name, type, mode, owner, size, link target, device number, capabilities and content count; mtime does not, so a fresh
checkout of the same files hits the cache.

Source: docs.docker.com/build/cache/invalidation/#adding-copying-files; moby tarsum "version 1" fields.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable

from satsuma.linux.root import Root

__all__ = ["file_checksum", "join_checksums", "tree_checksums"]

_BLOCK = 1 << 20


def file_checksum(root: Root, path: bytes, name: bytes, status: os.stat_result) -> str:
    """Return the checksum of one entry (not followed), as hex digits.

    Args:
        name: what the entry is called in the checksum, relative to its context.
    """
    digest = hashlib.sha256()
    link = root.readlink(path) if stat.S_ISLNK(status.st_mode) else b""
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    device = status.st_rdev if stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode) else 0
    fields = (status.st_mode, status.st_uid, status.st_gid, size, device)
    # Lengths in front, so that no two different entries give the same bytes.
    digest.update(
        b"%d:%s,%d:%s,%s;" % (len(name), name, len(link), link, b",".join(b"%d" % f for f in fields))
    )
    if stat.S_ISREG(status.st_mode):
        fd = root.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            _update_capability(digest, fd)
            _update_content(digest, fd)
        finally:
            os.close(fd)
    return digest.hexdigest()


def _update_capability(digest: hashlib._Hash, fd: int) -> None:
    try:
        value = os.getxattr(fd, "security.capability")
    except OSError:
        return
    digest.update(b"security.capability=%d:%s;" % (len(value), value))


def _update_content(digest: hashlib._Hash, fd: int) -> None:
    while block := os.read(fd, _BLOCK):
        digest.update(block)


def tree_checksums(root: Root, top: bytes, accept: Callable[[bytes], bool] | None = None) -> list[str]:
    """Return the checksums of everything below the directory *top* (and of itself, unless it is the root), sorted.

    Args:
        accept: tells of a path relative to *top* whether it counts.
    """
    sums: list[str] = []
    prefix = len(top) + 1 if top else 0
    for path, status in root.walk(top or b"."):
        if not path or stat.S_ISSOCK(status.st_mode):
            continue
        if accept is not None and path != top and not accept(path[prefix:]):
            continue
        sums.append(file_checksum(root, path, path, status))
    sums.sort()
    return sums


def join_checksums(prefix: str, sums: list[str]) -> str:
    """Return one checksum for several: `dir:…`, `multi:…`."""
    return f"{prefix}:{hashlib.sha256(','.join(sums).encode()).hexdigest()}"
