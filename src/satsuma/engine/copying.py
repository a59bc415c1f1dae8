"""Files of a container: `cp` in both directions, `diff`, `export`.

A running container is seen through its own root, a stopped one through a mount of its layers that only this
process knows; both only through `Root`.

Source: moby daemon/archive_unix.go, daemon/{changes,export}.go of 28.5.2.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

from satsuma.base.aio import blocking
from satsuma.base.clock import format_rfc3339nano
from satsuma.base.errors import Conflict, InvalidParameter, NotFound, System
from satsuma.container import Record, Status
from satsuma.engine.core import Core
from satsuma.engine.streams import pieces
from satsuma.image import tar_path, untar
from satsuma.linux.passwd import resolve_user
from satsuma.linux.root import Root

Json = dict[str, Any]

_MODE_BITS = (
    (stat.S_ISDIR, 1 << 31),
    (stat.S_ISLNK, 1 << 27),
    (stat.S_ISBLK, 1 << 26),
    (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24),
    (stat.S_ISCHR, (1 << 26) | (1 << 21)),
)
_SET_ID = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def go_file_mode(mode: int) -> int:
    """Return Go's os.FileMode of a st_mode (io/fs: type bits from the top, permissions at the bottom)."""
    answer = mode & 0o777
    for test, bits in _MODE_BITS:
        if test(mode):
            answer |= bits
    for bit, bits in _SET_ID:
        if mode & bit:
            answer |= bits
    return answer


def clean_path(path: str) -> str:
    """Return an absolute path that keeps a trailing `/` or `/.`, which mean "the directory itself"."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if path.endswith("/.") or path == ".":
        return clean.rstrip("/") + "/."
    if path.endswith("/") and clean != "/":
        return clean + "/"
    return clean


@contextlib.contextmanager
def open_tree(core: Core, record: Record, path: str) -> Iterator[tuple[Root, str]]:
    """Open the tree that holds *path*: the container's, or for a stopped one the volume that lies there.

    Yields the tree and the path inside it.
    """
    actor = core.actors.get(record.id)
    if record.state.is_live and actor is not None and actor.monitor is not None:
        with Root.open_path(f"/proc/{actor.monitor.init_pid}/root") as root:
            yield root, path
        return
    point = None
    bare = posixpath.normpath(path)
    for candidate in record.mounts:
        covers = bare == candidate.destination or bare.startswith(candidate.destination + "/")
        deeper = point is None or len(candidate.destination) > len(point.destination)
        if covers and deeper and candidate.type in ("bind", "volume"):
            point = candidate
    if point is not None and os.path.isdir(point.source):
        with Root.open_path(point.source) as root:
            yield root, "/" + path[len(point.destination) :].lstrip("/")
        return
    with core.store.snapshots.mounted(record.id) as root:
        yield root, path


def stat_path(root: Root, path: str) -> Json:
    """Return PathStat of *path*; a link at its end is not followed, but its target is told.

    Raises:
        FileNotFoundError, NotADirectoryError: nothing there.
    """
    follow = path.endswith(("/", "/."))
    found = root.stat(path) if follow else root.lstat(path)
    target = ""
    if stat.S_ISLNK(found.st_mode):
        target = resolve_link(root, path)
    return {
        "name": posixpath.basename(path.rstrip("/")) or "/",
        "size": found.st_size,
        "mode": go_file_mode(found.st_mode),
        "mtime": format_rfc3339nano(found.st_mtime_ns),
        "linkTarget": target,
    }


def resolve_link(root: Root, path: str) -> str:
    """Return the absolute path inside *root* to which a link leads, as far as it can be followed."""
    for _ in range(40):
        try:
            if not stat.S_ISLNK(root.lstat(path).st_mode):
                break
            target = os.fsdecode(root.readlink(path))
        except OSError:
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return path


async def archive_stat(core: Core, reference: str, path: str) -> Json:
    """Return what is at *path*.

    Raises:
        NotFound: `Could not find the file x in container y`.
    """
    record = usable(core, reference)

    def work() -> Json:
        with open_tree(core, record, clean_path(path)) as (root, inner):
            found = stat_path(root, inner)
            return found | {"name": posixpath.basename(clean_path(path).rstrip("/")) or "/"}

    with _words(path, reference):
        return await blocking(work)


def usable(core: Core, reference: str) -> Record:
    """Return a container whose files can be looked at."""
    record = core.registry.find(reference)
    if record.state.status in (Status.DEAD, Status.REMOVING):
        raise Conflict(f"container {record.id} is marked for removal")
    return record


@contextlib.contextmanager
def _words(path: str, reference: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"Could not find the file {path} in container {reference}")
    except OSError as error:
        raise System(f"{path}: {(error.strerror or str(error)).lower()}")


async def archive_get(core: Core, reference: str, path: str) -> tuple[Json, AsyncIterator[bytes]]:
    """Return PathStat and the tar of *path*, whose top entry has the last name of *path*."""
    found = await archive_stat(core, reference, path)
    record = core.registry.find(reference)
    absolute = clean_path(path)

    def produce() -> Iterator[bytes]:
        with open_tree(core, record, absolute) as (root, inner):
            name = posixpath.basename(absolute.rstrip("/")) or "/"
            source = inner
            if inner.endswith(("/", "/.")):
                source = resolve_link(root, posixpath.normpath(inner))
            yield from tar_path(root, source, name)

    core.emit(record, "archive-path", path=path)
    return found, pieces(produce)


async def archive_put(
    core: Core,
    reference: str,
    path: str,
    body: BinaryIO,
    *,
    no_overwrite_dir_non_dir: bool,
    copy_uid_gid: bool,
) -> None:
    """Extract a tar into the directory *path*.

    Raises:
        NotFound; InvalidParameter: no directory, or a read-only place.
    """
    record = usable(core, reference)
    absolute = clean_path(path)

    def work() -> None:
        with open_tree(core, record, absolute) as (root, inner):
            found = root.stat(inner)
            if not stat.S_ISDIR(found.st_mode):
                raise InvalidParameter("extraction point is not a directory")
            check_writable(record, absolute)
            owner = container_owner(root, record) if copy_uid_gid else None
            untar(root, inner, body, no_overwrite_dir_non_dir=no_overwrite_dir_non_dir, chown=owner)

    with _words(path, reference):
        await blocking(work)
    core.emit(record, "extract-to-dir", path=path)


def container_owner(root: Root, record: Record) -> tuple[int, int]:
    """Return the ids of the container's user, for `cp -a`."""
    user = resolve_user(
        record.config.user, read_or_empty(root, "/etc/passwd"), read_or_empty(root, "/etc/group")
    )
    return user.uid, user.gid


def read_or_empty(root: Root, path: str) -> bytes:
    """Return a small file of a container, b"" when there is none that can be read."""
    try:
        return root.read_file(path)
    except OSError:
        return b""


def check_writable(record: Record, path: str) -> None:
    """Refuse to write where the container could not.

    Raises:
        InvalidParameter: in dockerd's words.
    """
    bare = posixpath.normpath(path)
    inside = [
        point
        for point in record.mounts
        if bare == point.destination or bare.startswith(point.destination + "/")
    ]
    if inside:
        if not max(inside, key=lambda point: len(point.destination)).rw:
            raise InvalidParameter("mounted volume is marked read-only")
        return
    if record.host.readonly_rootfs:
        raise InvalidParameter("container rootfs is marked read-only")


async def changes(core: Core, reference: str) -> list[Json] | None:
    """Return what the container changed: kind 0 changed, 1 added, 2 removed; None for nothing."""
    record = usable(core, reference)
    found = await blocking(core.store.snapshots.changes, record.id)
    return [{"Path": _text(change.path), "Kind": int(change.kind)} for change in found] or None


def _text(path: str | bytes) -> str:
    text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    return text if text.startswith("/") else "/" + text


async def export(core: Core, reference: str) -> AsyncIterator[bytes]:
    """Yield the tar of the container's file system, without its volumes."""
    record = usable(core, reference)

    def produce() -> Iterator[bytes]:
        with core.store.snapshots.mounted(record.id, readonly=True) as root:
            yield from core.images.export_root(root)

    async for chunk in pieces(produce):
        yield chunk
    core.emit(record, "export")
