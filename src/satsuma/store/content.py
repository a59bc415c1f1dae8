"""Content: immutable blobs, addressed by their sha256 digest.

Owns `content/blobs/sha256/<hex>` and `content/ingest/<random>`.  Must not know what a blob is for.

A blob is written under ingest, fsync'd, its digest and size are checked, then it is renamed and the directory
fsync'd: a name under blobs is always complete.  What a crash leaves under ingest is garbage.

Source: image-spec image-layout.md; containerd content store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from satsuma.base.atomic import fsync_dir
from satsuma.base.errors import InvalidParameter, NotFound
from satsuma.base.failpoints import failpoint
from satsuma.base.ids import Digest, is_digest


class Writer:
    """A blob being written; a context manager that drops it unless `commit` was called."""

    def __init__(self, store: ContentStore, path: str) -> None:
        self._store = store
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        self._hash = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def write(self, data: bytes | memoryview) -> None:
        """Append *data*."""
        self._hash.update(data)
        self.size += len(data)
        written = os.write(self._fd, data)
        if written != len(data):  # a disk that is almost full, or a signal
            view = memoryview(data)[written:]
            while view:
                view = view[os.write(self._fd, view) :]

    @property
    def digest(self) -> Digest:
        """Digest of what was written so far."""
        return Digest("sha256:" + self._hash.hexdigest())

    def reader(self) -> BinaryIO:
        """Return a file at offset 0 over what was written so far."""
        return open(f"/proc/self/fd/{self._fd}", "rb", buffering=0)

    def commit(self, digest: str | None = None, size: int | None = None) -> Digest:
        """Make the blob part of the store and return its digest.

        Raises:
            InvalidParameter: it is not what *digest* or *size* promised; nothing is kept.
        """
        actual = self.digest
        if size is not None and size != self.size:
            raise InvalidParameter(f"unexpected commit size {self.size}, expected {size}")
        if digest is not None and digest != actual:
            raise InvalidParameter(f"unexpected commit digest {actual}, expected {digest}")
        target = self._store.path(actual)
        if not os.path.exists(target):
            os.fchmod(self._fd, 0o444)
            failpoint("store.content.written")
            os.fsync(self._fd)
            failpoint("store.content.synced")
            os.rename(self.path, target)
            failpoint("store.content.renamed")
            fsync_dir(os.path.dirname(target))
        self.close()
        return actual

    def close(self) -> None:
        """Drop the blob unless it was committed; harmless afterwards."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class ContentStore:
    """Blobs by digest; safe to use from any thread, also for the same blob."""

    def __init__(self, directory: str) -> None:
        self._blobs = f"{directory}/blobs/sha256"
        self._ingest = f"{directory}/ingest"
        os.makedirs(self._blobs, mode=0o700, exist_ok=True)
        os.makedirs(self._ingest, mode=0o700, exist_ok=True)

    def ingest(self, ref: str = "") -> Writer:
        """Start a new blob; *ref* only helps people to recognise it."""
        label = "".join(c for c in ref if c.isalnum())[:40] or "blob"
        return Writer(self, f"{self._ingest}/{label}-{os.urandom(8).hex()}")

    def add(self, data: bytes) -> Digest:
        """Store a small blob."""
        with self.ingest("add") as writer:
            writer.write(data)
            return writer.commit()

    def path(self, digest: str) -> str:
        """Return the file name of a blob.

        Raises:
            InvalidParameter: not a digest of ours; no path is ever built from it.
        """
        if not is_digest(digest):
            raise InvalidParameter(f"invalid digest {digest!r}")
        return f"{self._blobs}/{digest[7:]}"

    def has(self, digest: str) -> bool:
        """Tell whether the blob is here."""
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """Return the size of a blob in bytes."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading, unbuffered."""
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None

    def read(self, digest: str, limit: int) -> bytes:
        """Return a small blob whole.

        Raises:
            InvalidParameter: it is larger than *limit* bytes.
        """
        with self.open(digest) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise InvalidParameter(f"content {digest} is larger than {limit} bytes")
        return data

    def delete(self, digest: str) -> bool:
        """Remove a blob; False when it was not here."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    def walk(self) -> Iterator[tuple[Digest, int]]:
        """Yield (digest, size) of every blob."""
        with os.scandir(self._blobs) as entries:
            for entry in entries:
                digest = Digest("sha256:" + entry.name)
                if is_digest(digest):
                    yield digest, entry.stat(follow_symlinks=False).st_size

    def leftovers(self) -> list[str]:
        """Return the paths of unfinished blobs; they are garbage when nobody writes."""
        return [f"{self._ingest}/{name}" for name in os.listdir(self._ingest)]

    def clean(self) -> int:
        """Remove unfinished blobs and return their number.  Order: at start, before anybody writes."""
        leftovers = self.leftovers()
        for path in leftovers:
            os.unlink(path)
        return len(leftovers)
