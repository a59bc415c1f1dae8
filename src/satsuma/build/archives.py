"""Archives for the builder: is this one, and unpack it here.  A thin layer over `satsuma.image` and `wire`."""

from __future__ import annotations

from typing import IO

from satsuma.build.copying import Owner
from satsuma.image import untar
from satsuma.linux.root import Root
from satsuma.wire import tar
from satsuma.wire.compression import CompressionError, open_stream

__all__ = ["is_archive", "unpack"]


def is_archive(file: IO[bytes]) -> bool:
    """Tell whether the content of *file* is a tar, plain or compressed; the name does not matter."""
    try:
        # The first header decides, as in Docker: an empty file is none.
        return tar.Reader(open_stream(file.read).read).next_entry() is not None
    except (tar.TarError, CompressionError):
        return False


def unpack(file: IO[bytes], root: Root, path: bytes, *, owner: Owner | None = None) -> None:
    """Unpack *file* into the directory *path* of *root*; nothing can land outside of *root*.

    Raises:
        InvalidParameter: malformed, or impossible entries.
    """
    untar(root, path, file, chown=(owner.uid, owner.gid) if owner else None)
