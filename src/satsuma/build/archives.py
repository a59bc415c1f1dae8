"""Archives for the builder: is this one, and unpack it here.  A thin layer over `satsuma.image`."""

from __future__ import annotations

from typing import IO

from satsuma.build.copying import Owner
from satsuma.linux.root import Root

__all__ = ["is_archive", "unpack"]


def is_archive(file: IO[bytes]) -> bool:
    raise NotImplementedError


def unpack(file: IO[bytes], root: Root, path: bytes, *, owner: Owner | None = None) -> None:
    raise NotImplementedError
