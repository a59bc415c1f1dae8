"""COPY and ADD, done: sources (`sources`) into the tree of the next layer (`copying`), by Docker's path rules.

Runs in a thread; everything it needs is open already.
"""

from __future__ import annotations

import os
import stat
from typing import IO

from satsuma.base.errors import InvalidParameter
from satsuma.build.archives import is_archive, unpack
from satsuma.build.chmod import parse_chmod
from satsuma.build.copying import CopyPlan, Owner, copy_file, copy_tree, make_parents
from satsuma.build.sources import Source
from satsuma.linux import passwd
from satsuma.linux.root import Root
from satsuma.wire.dockerfile import Add, Copy
from satsuma.wire.patterns import clean

__all__ = ["chown_of", "place", "target_path"]

_MAX_PASSWD = 16 << 20
_MAX_LINKS = 40


def target_path(workdir: str, target: str) -> str:
    """Return the absolute target of an instruction; a trailing slash stays, it means "a directory"."""
    if target.startswith("/"):
        return target
    path = clean(f"/{workdir}/{target}")
    return path + "/" if target.endswith("/") and path != "/" else path


def place(
    sources: list[Source], instruction: Copy | Add, tree: Root, *, names: Root, workdir: str, keep_owner: bool
) -> None:
    """Put *sources* into *tree*.

    Args:
        names: the tree whose passwd and group files resolve `--chown`.
        keep_owner: the files come from another image, and no `--chown` was given.
    Raises:
        EngineError: with Docker's words.
    """
    owner: Owner | None = Owner(0, 0)
    if instruction.chown:
        owner = chown_of(instruction.chown, names)
    elif keep_owner:
        owner = None
    chmod = parse_chmod(instruction.chmod) if instruction.chmod else None
    target = target_path(workdir, instruction.target)
    for source in sources:
        plan = CopyPlan(owner=owner, chmod=chmod, accept=source.accept)
        try:
            _place_one(source, instruction, tree, target, plan)
        except RecursionError:
            raise InvalidParameter("failed to copy files: directories are nested too deeply") from None
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            where = f" {exc.filename!r}" if exc.filename else ""
            raise InvalidParameter(f"failed to copy files: {reason}{where}") from exc


def _place_one(source: Source, instruction: Copy | Add, tree: Root, target: str, plan: CopyPlan) -> None:
    wanted = target.encode("utf-8", "surrogateescape")
    if source.parents:
        wanted = wanted.rstrip(b"/") + b"/" + source.parents
    path = clean(wanted.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if source.directory:
        copy_tree(source.root, source.path or b".", tree, path, plan)
        return
    if isinstance(instruction, Add) and not source.remote and instruction.unpack is not False:
        fd = source.root.open(source.path, os.O_RDONLY | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if stat.S_ISREG(os.fstat(fd).st_mode) and is_archive(file):
                file.seek(0)
                _unpack(file, instruction, tree, path, plan)
                return
    path = _followed(tree, path)
    if wanted.endswith(b"/") or _is_directory(tree, path):
        path = path.rstrip(b"/") + b"/" + source.name
    copy_file(source.root, source.path, tree, path, plan)


def _unpack(file: IO[bytes], instruction: Add, tree: Root, path: bytes, plan: CopyPlan) -> None:
    make_parents(tree, path + b"/x", plan)
    unpack(file, tree, path, owner=plan.owner if instruction.chown else None)


def _is_directory(tree: Root, path: bytes) -> bool:
    try:
        return stat.S_ISDIR(tree.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _followed(tree: Root, path: bytes) -> bytes:
    """Return where a link at the end of *path* leads, inside the tree; it need not exist."""
    for _ in range(_MAX_LINKS):
        try:
            if not stat.S_ISLNK(tree.lstat(path).st_mode):
                return path
        except (FileNotFoundError, NotADirectoryError):
            return path
        link = tree.readlink(path)
        path = link if link.startswith(b"/") else os.path.dirname(path.rstrip(b"/")) + b"/" + link
    raise InvalidParameter("failed to copy files: too many levels of symbolic links")


def chown_of(text: str, tree: Root) -> Owner:
    """Return the owner that `--chown` names, with the passwd and group files of *tree*.

    A user without a group stands for the group of the same name or number, too.

    Raises:
        InvalidParameter: with Docker's words.
    """
    prefix = "unable to convert uid/gid chown string to host mapping: "
    user, colon, group = text.partition(":")
    if ":" in group:
        raise InvalidParameter(f"{prefix}invalid chown string format: {text}")
    if not colon:
        group = user
    uid = _lookup(user, tree, b"/etc/passwd")
    if uid is None:
        raise InvalidParameter(f"{prefix}can't find uid for user {user}: no such user: {user}")
    gid = _lookup(group, tree, b"/etc/group")
    if gid is None:
        raise InvalidParameter(f"{prefix}can't find gid for group {group}: no such group: {group}")
    return Owner(uid, gid)


def _lookup(name: str, tree: Root, path: bytes) -> int | None:
    """Return a number, or the number in the third field of the line that starts with *name*."""
    try:
        number = passwd.parse_id(name)
    except passwd.UserError as exc:
        raise InvalidParameter(f"unable to convert uid/gid chown string to host mapping: {exc}") from None
    if number is not None:
        return number
    try:
        data = tree.read_file(path, _MAX_PASSWD)
    except OSError:
        return None
    wanted = name.encode("utf-8", "surrogateescape")
    for line in data.split(b"\n"):
        fields = line.strip().split(b":")
        if len(fields) > 2 and fields[0] == wanted:
            try:
                return passwd.parse_id(fields[2].decode("ascii", "replace"))
            except passwd.UserError:
                return None
    return None
