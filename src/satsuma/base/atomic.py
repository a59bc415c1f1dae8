"""The only way to write files of state beside the database: temp, fsync, rename, fsync directory."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike


def write_file(path: str | PathLike[str], data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace *path* by *data* in one step: a reader sees the old file or the new one, never a part.

    Args:
        mode: exactly, whatever the umask.
        durable: survive a power failure; False survives only a crash of the process, and costs no fsync.
    Raises:
        OSError: nothing changed at *path*; the temporary file is gone.
    """
    target = os.fspath(path)
    temporary = f"{target}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, target)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise
    if durable:
        fsync_dir(os.path.dirname(target) or ".")


def fsync_dir(path: str | PathLike[str]) -> None:
    """Make the names in directory *path* durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
