"""What a container changed: its upperdir compared with the tree below it.

Owns the rules of `docker diff`.  Must not know where the trees come from: both are `Root`s.

overlayfs copies a file up when it is opened for writing, so being in the upperdir is no change yet: a path
counts when owner, mode, device, and for files size, mtime or capabilities differ.  Directories count when they
themselves differ or something below them does.

Source: moby pkg/archive/changes.go (collectFileInfo, statDifferent); observed on Docker 28.5.2.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from satsuma.linux.root import Root

MODIFIED = 0
ADDED = 1
DELETED = 2

OPAQUE = "trusted.overlay.opaque"
_CAPABILITY = "security.capability"


class Change(NamedTuple):
    """One line of `docker diff`: kind is `MODIFIED`, `ADDED` or `DELETED`; path is absolute."""

    kind: int
    path: bytes


def is_whiteout(status: os.stat_result) -> bool:
    """Tell whether an entry of a layer directory is overlay's mark of a deleted name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def get_xattr(root: Root, path: bytes, name: str) -> bytes:
    """Return an extended attribute, empty when there is none or the file system has none."""
    try:
        return root.getxattr(path or b".", name)
    except OSError:
        return b""


def compare(upper: Root, lower: Root) -> list[Change]:
    """Return the changes that *upper*, an overlay upperdir, makes to the merged tree *lower*."""
    return [Change(kind, b"/" + path) for path, kind in sorted(_Comparison(upper, lower).run().items())]


class _Comparison:
    def __init__(self, upper: Root, lower: Root) -> None:
        self._upper, self._lower = upper, lower
        self._changes: dict[bytes, int] = {}

    def run(self) -> dict[bytes, int]:
        opaque: list[bytes] = []
        for path, status in self._upper.walk():
            if path:
                self._visit(path, status)
            if stat.S_ISDIR(status.st_mode) and get_xattr(self._upper, path, OPAQUE) == b"y":
                opaque.append(path)
        for path in opaque:
            self._deleted_below(path)
        return self._changes

    def _visit(self, path: bytes, status: os.stat_result) -> None:
        below = self._below(path)
        if is_whiteout(status):
            if below is not None:
                self._mark(path, DELETED)
        elif below is None:
            self._mark(path, ADDED)
        elif self._differs(path, status, below):
            self._mark(path, MODIFIED)

    def _below(self, path: bytes) -> os.stat_result | None:
        # Not through links: what lies below a directory that replaced a link is new.
        parent, _, _ = path.rpartition(b"/")
        if parent and self._changes.get(parent) == ADDED:
            return None
        try:
            status = self._lower.lstat(path)
            if parent and not stat.S_ISDIR(self._lower.lstat(parent).st_mode):
                return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if is_whiteout(status) else status

    def _differs(self, path: bytes, new: os.stat_result, old: os.stat_result) -> bool:
        if (new.st_mode, new.st_uid, new.st_gid, new.st_rdev) != (
            old.st_mode,
            old.st_uid,
            old.st_gid,
            old.st_rdev,
        ):
            return True
        if stat.S_ISDIR(new.st_mode):
            return False
        if new.st_size != old.st_size or new.st_mtime_ns != old.st_mtime_ns:
            return True
        return stat.S_ISREG(new.st_mode) and get_xattr(self._upper, path, _CAPABILITY) != get_xattr(
            self._lower, path, _CAPABILITY
        )

    def _mark(self, path: bytes, kind: int) -> None:
        self._changes[path] = kind
        while path := path.rpartition(b"/")[0]:
            if path in self._changes:
                return
            self._changes[path] = MODIFIED

    def _deleted_below(self, path: bytes) -> None:
        """Mark what an opaque directory hides; a directory inside stands for its content."""
        if self._changes.get(path) == ADDED:
            return
        try:
            below = self._lower.listdir(path or b".")
        except (FileNotFoundError, NotADirectoryError):
            return
        present = set(self._upper.listdir(path or b"."))
        for name in below:
            if name not in present:
                self._mark(path + b"/" + name if path else name, DELETED)
