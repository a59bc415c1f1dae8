"""The init layer: mount points that every container needs and no image should have to bring.

Owns the content of `init/`.  Never part of a commit, because only the upperdir is.

Source: moby daemon/initlayer/setup_unix.go (names, kinds, modes).
"""

from __future__ import annotations

import os
import shutil

from satsuma.base.failpoints import failpoint

_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
_FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")
_LINKS = (("etc/mtab", "/proc/mounts"),)


def make_init_layer(directory: str) -> str:
    """Make sure that `<directory>/diff` is there and complete, and return it.

    It is built beside its place and renamed, so that a crash never leaves half of it.
    """
    target = f"{directory}/diff"
    if os.path.isdir(target):
        return target
    fresh = f"{directory}/new-{os.urandom(8).hex()}"
    os.mkdir(fresh, 0o755)
    try:
        _fill(fresh)
        failpoint("store.initlayer.filled")
        os.rename(fresh, target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        if os.path.isdir(target):  # somebody else was faster
            return target
        raise
    return target


def _fill(directory: str) -> None:
    os.chmod(directory, 0o755)
    for name in _DIRECTORIES:
        os.mkdir(f"{directory}/{name}")
        os.chmod(f"{directory}/{name}", 0o755)
    for name in _FILES:
        fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
        os.fchmod(fd, 0o755)
        os.close(fd)
    for name, link in _LINKS:
        os.symlink(link, f"{directory}/{name}")
