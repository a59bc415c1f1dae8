"""Files and directories of cgroupfs: read, write, walk, remove.

A container that may make groups can nest them deeper than a path can be long and than Python can recurse:
everything below a group is reached step by step, by descriptor.

Source: cgroups(7).
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read_text(path: str, dir_fd: int | None = None) -> str:
    """Return a file of cgroupfs."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def write_file(path: str, value: str) -> None:
    """Write to a file of cgroupfs with a single write(2)."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        error.filename = path
        error.add_note(f'failed to write "{value}": write {path}')
        raise
    finally:
        os.close(fd)


def parse_flat(text: str) -> dict[str, int]:
    """Parse "key value" lines; values that are no numbers are left out."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        try:
            values[key] = int(value)
        except ValueError:
            continue
    return values


def _children(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def walk(directory: str) -> Iterator[int]:
    """Yield a descriptor of *directory*, then one of each group below it; valid until the next one.

    Groups that come or go meanwhile may be missed.
    """
    fd = os.open(directory, _DIRECTORY)
    try:
        yield fd
        levels = [_children(fd)]
        while levels:
            if levels[-1]:
                try:
                    child = os.open(levels[-1].pop(), _DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    continue
                os.close(fd)
                fd = child
                yield fd
                levels.append(_children(fd))
            else:
                levels.pop()
                if levels:
                    fd = _up(fd)
    except FileNotFoundError:  # the group in which we are was removed
        return
    finally:
        os.close(fd)


def _up(fd: int) -> int:
    parent = os.open("..", _DIRECTORY, dir_fd=fd)
    os.close(fd)
    return parent


def remove_tree(directory: str) -> None:
    """Remove a group and all below it, bottom up; one that is gone is fine.

    Raises:
        OSError: EBUSY while there are processes.
    """
    if _rmdir(directory, None):
        return
    fd = os.open(directory, _DIRECTORY)
    names: list[str] = []
    try:
        while True:
            stuck = _remove_children(fd)
            if stuck:
                child = os.open(stuck, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = child
                names.append(stuck)
            elif names:
                fd = _up(fd)
                _rmdir_or_busy(names.pop(), fd)
            else:
                break
    finally:
        os.close(fd)
    _rmdir_or_busy(directory, None)


def _remove_children(fd: int) -> str:
    """Remove the groups in *fd* that have none below; return one that has, "" when there is none."""
    stuck = ""
    for name in _children(fd):
        if not _rmdir(name, fd) and not stuck:
            stuck = name
    return stuck


def _rmdir(path: str, dir_fd: int | None) -> bool:
    try:
        os.rmdir(path, dir_fd=dir_fd)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def _rmdir_or_busy(path: str, dir_fd: int | None) -> None:
    if not _rmdir(path, dir_fd):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
