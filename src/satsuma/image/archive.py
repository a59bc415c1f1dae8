"""Archives of files in a tree: `docker cp` both ways, COPY and ADD, imports.

Owns the two directions with the habits of Docker's archive endpoints.  Both work on a `Root`, so neither the
archive nor the tree can lead outside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Protocol

from satsuma.base.errors import InvalidParameter
from satsuma.image.extract import Extracted, Rules, extract
from satsuma.image.treetar import tar_tree
from satsuma.linux.root import Root
from satsuma.wire import tar
from satsuma.wire.compression import CompressionError, open_stream


class Stream(Protocol):
    """Anything that can be read in pieces."""

    def read(self, size: int, /) -> bytes:
        """Return at most *size* bytes, b"" at the end."""


def tar_path(root: Root, path: str | bytes, name: str | bytes) -> Iterator[bytes]:
    """Yield the tar of one file or of a directory with its content, under *name*.

    Args:
        path: resolved by the caller if a link at its end is to be followed; here it is not.
    Raises:
        FileNotFoundError: nothing is there (with the first piece).
    """
    return tar_tree(root, _bytes(path) or b".", prefix=_bytes(name))


def untar(
    root: Root,
    path: str | bytes,
    stream: Stream,
    *,
    no_overwrite_dir_non_dir: bool = False,
    chown: tuple[int, int] | None = None,
    keep: Callable[[bytes], bool] | None = None,
) -> Extracted:
    """Extract a tar, plain or compressed, into the directory *path* of *root*.

    Links on the way are followed inside *root*, not only inside *path*, as they mean it.

    Args:
        no_overwrite_dir_non_dir: refuse to replace a directory by something else and the other way round.
        chown: owner of everything instead of the archive's.
        keep: decides by name which entries are wanted.
    Raises:
        InvalidParameter: malformed or impossible; what was extracted so far stays.
        OSError: *path* is no directory.
    """
    rules = Rules(strict_kinds=no_overwrite_dir_non_dir, owner=chown, keep=keep)
    plain = open_stream(stream.read)
    base = _bytes(path).strip(b"/")
    # It must be a directory, whatever links lead there.
    os.close(root.open(base or b".", os.O_PATH | os.O_DIRECTORY))
    try:
        reader = tar.Reader(plain.read)
        result = extract(root, reader, rules, base=b"" if base == b"." else base)
        reader.drain()
    except CompressionError as error:
        raise InvalidParameter(str(error)) from error
    return result


def _bytes(path: str | bytes) -> bytes:
    return path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
