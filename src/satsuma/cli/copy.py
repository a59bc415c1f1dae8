"""`container cp`: files between a container and this host, by docker's rules about slashes and existing targets.

Source: docker documentation "docker cp"; measured on docker 28.2.
"""

from __future__ import annotations

import os
import posixpath
import sys

from satsuma.base.sizes import format_size
from satsuma.cli.client import escape
from satsuma.cli.errors import ApiError, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

# Go's os.FileMode, in which the engine tells modes.
_MODE_DIR = 1 << 31
_MODE_SYMLINK = 1 << 27
_MODE_SPECIAL = (1 << 26) | (1 << 25) | (1 << 24) | (1 << 21) | (1 << 19)


def copy(session: Session, flags: Flags) -> None:
    """Copy from or to a container."""
    (from_name, source), (to_name, target) = (split_argument(text) for text in flags.args)
    if from_name and to_name:
        raise CliError("copying between containers is not supported")
    if not from_name and not to_name:
        raise CliError("must specify at least one container source")
    if from_name:
        _from_container(session, flags, from_name, source, target)
    else:
        _to_container(session, flags, source, to_name, target)


def split_argument(text: str) -> tuple[str, str]:
    """Return (container, path); the container is empty for a path of this host."""
    if text.startswith("/"):
        return "", text
    name, colon, path = text.partition(":")
    if not colon or name.startswith("."):
        return "", text
    return name, path


# -- paths --------------------------------------------------------------------------------------------------------


def names_directory(path: str) -> bool:
    """Tell whether a path says of itself that it is a directory."""
    return path.endswith("/") or means_contents(path)


def means_contents(path: str) -> bool:
    """Tell whether a path means what is in a directory: `dir/.`."""
    return posixpath.basename(path) == "."


def split_entry(path: str) -> tuple[str, str]:
    """Return directory and last name of a path; `dir/.` has the last name `.`."""
    clean = posixpath.normpath(path)
    if means_contents(path):
        return clean, "."
    directory, name = posixpath.split(clean)
    return directory or ("/" if path.startswith("/") else "."), name or "."


def absolute(path: str) -> str:
    """Return a path of this host as an absolute one that keeps its slash or dot at the end."""
    full = os.path.abspath(path)
    if means_contents(path) and not means_contents(full):
        return full.rstrip("/") + "/."
    return full.rstrip("/") + "/" if path.endswith("/") and full != "/" else full


class Target:
    """Where a copy goes, and what is there."""

    def __init__(self, path: str, *, exists: bool = False, is_directory: bool = False) -> None:
        self.path = path
        self.exists = exists
        self.is_directory = is_directory


def plan_copy(name: str, target: Target, *, source_is_directory: bool) -> tuple[str, str]:
    """Return the directory to unpack in, and the name that the source gets there.

    Args:
        name: last name of the source; `.` for the contents of a directory.
        target: where to.
        source_is_directory: whether the source is one.
    Raises:
        CliError: the target cannot take the source.
    """
    if target.exists and target.is_directory:
        return target.path, name
    if target.exists:
        if source_is_directory:
            raise CliError("cannot copy directory")
        if names_directory(target.path):
            raise CliError("not a directory")
        return split_entry(target.path)
    if source_is_directory:
        return split_entry(target.path.rstrip("/") or "/")
    if names_directory(target.path):
        raise CliError("no such directory")
    return split_entry(target.path)


# -- from a container ---------------------------------------------------------------------------------------------


def _stat_header(text: str) -> dict[str, Any]:
    import base64
    import json

    found = json.loads(base64.b64decode(text))
    assert isinstance(found, dict)
    return found


def _stat(session: Session, container: str, path: str) -> dict[str, Any] | None:
    """Return what the engine knows of a path, None if it is not there."""
    try:
        answer = session.engine.request("HEAD", f"/containers/{escape(container)}/archive", {"path": path})
    except ApiError:
        return None
    answer.read()
    return _stat_header(answer.header("x-docker-container-path-stat"))


def _link_target(path: str, info: dict[str, Any]) -> str:
    target = str(info.get("linkTarget") or "")
    return target if target.startswith("/") else posixpath.join(split_entry(path)[0], target)


def _from_container(session: Session, flags: Flags, container: str, source: str, target: str) -> None:
    if target != "-":
        target = absolute(target)
        _check_local_target(target)
    wanted = split_entry(source)[1]
    if flags["follow-link"]:
        info = _stat(session, container, source)
        if info is not None and info["mode"] & _MODE_SYMLINK:
            followed = _link_target(source, info)
            source = f"{followed}/." if means_contents(source) else followed
    answer = session.engine.request("GET", f"/containers/{escape(container)}/archive", {"path": source})
    info = _stat_header(answer.header("x-docker-container-path-stat"))
    if target == "-":
        from satsuma.cli.lookup import write

        sys.stdout.flush()
        for piece in answer.pieces():
            write(1, piece)
        return
    counter = _Counter(answer.pieces())
    _unpack(
        counter,
        (split_entry(source)[1], wanted),
        target,
        is_directory=bool(info["mode"] & _MODE_DIR),
        flags=flags,
    )
    _report(flags, counter.total, info["size"] if not info["mode"] & _MODE_DIR else None, target)


def _check_local_target(path: str) -> None:
    directory = os.path.dirname(path.rstrip("/") if not means_contents(path) else path) or "."
    if not os.path.exists(directory):
        raise CliError(f'invalid output path: directory "{directory}" does not exist')
    if os.path.exists(path):
        mode = os.stat(path).st_mode
        import stat

        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
            raise CliError(
                f'invalid output path: "{path}" must be a directory or a regular file: got a device'
            )


def _unpack(
    pieces: Iterable[bytes], names: tuple[str, str], target: str, *, is_directory: bool, flags: Flags
) -> None:
    from satsuma.cli.tarball import Unpacker, reader_of
    from satsuma.linux.root import Root

    inside, wanted = names
    where = Target(target, exists=os.path.exists(target), is_directory=os.path.isdir(target))
    directory, name = plan_copy(wanted, where, source_is_directory=is_directory)
    rename = None
    if inside != name:
        rename = (inside, name)
    if inside == "." and not where.exists:
        # `dir/.` to something new makes a directory of that name.
        os.mkdir(target)
        directory, rename = target, None
    owners = flags["archive"] and os.geteuid() == 0
    with Root.open_path(directory) as root:
        Unpacker(root, rename=rename, owners=owners).run(reader_of(pieces))


# -- to a container -----------------------------------------------------------------------------------------------


def _to_container(session: Session, flags: Flags, source: str, container: str, target: str) -> None:
    if not target:
        raise CliError("no such directory")
    where = _container_target(session, container, target)
    if source == "-":
        if not where.is_directory:
            raise CliError(f'destination "{container}:{target}" must be a directory')
        from satsuma.cli.archive import read_pieces

        counter = _Counter(read_pieces(sys.stdin.buffer))
        _put(session, flags, container, where.path, counter)
        return
    path, is_directory = _local_source(absolute(source), follow=flags["follow-link"])
    base = split_entry(absolute(source))[1]
    if is_directory and means_contents(source):
        base = "."
    directory, name = plan_copy(base, where, source_is_directory=is_directory)
    if base == "." and where.exists and where.is_directory:
        name = ""
    counter = _Counter(_archive(path, name))
    _put(session, flags, container, directory, counter)
    size = None if is_directory else os.lstat(path).st_size
    _report(flags, counter.total, size, f"{container}:{where.path}")


def _container_target(session: Session, container: str, path: str) -> Target:
    """Return what is at *path*; a symbolic link is followed once, its target need not exist."""
    info = _stat(session, container, path)
    if info is not None and info["mode"] & _MODE_SYMLINK:
        path = _link_target(path, info)
        info = _stat(session, container, path)
    if info is None:
        return Target(path)
    if info["mode"] & _MODE_SPECIAL:
        raise CliError(
            f'destination "{container}:{path}" must be a directory or a regular file: got a device'
        )
    return Target(path, exists=True, is_directory=bool(info["mode"] & _MODE_DIR))


def _local_source(path: str, *, follow: bool) -> tuple[str, bool]:
    """Return what to pack and whether it is a directory; a slash at the end follows a link as `-L` does."""
    import stat

    wants_directory = names_directory(path)
    try:
        if follow or wants_directory:
            path = os.path.realpath(path, strict=True)
        info = os.lstat(path)
        if wants_directory and not stat.S_ISDIR(info.st_mode):
            raise CliError("not a directory")
    except OSError as error:
        clean = path.rstrip("/")
        raise CliError(f"lstat {clean}: {(error.strerror or '').lower()}") from None
    return path, stat.S_ISDIR(info.st_mode)


def _archive(path: str, name: str) -> Iterator[bytes]:
    from satsuma.cli.tarball import Packer
    from satsuma.wire.tar import END

    yield from Packer().tree(path.rstrip("/") or "/", name)
    yield END


def _put(session: Session, flags: Flags, container: str, directory: str, pieces: Iterable[bytes]) -> None:
    query = {
        "path": directory,
        "noOverwriteDirNonDir": "true",
        "copyUIDGID": "true" if flags["archive"] else None,
    }
    session.engine.request(
        "PUT",
        f"/containers/{escape(container)}/archive",
        query,
        headers={"Content-Type": "application/x-tar"},
        stream=pieces,
    ).read()


class _Counter:
    """Pieces that pass by, counted."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.total = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.total += len(piece)
            yield piece


def _report(flags: Flags, transferred: int, size: int | None, target: str) -> None:
    quiet = flags["quiet"] if "quiet" in flags.changed else not sys.stderr.isatty()
    if quiet:
        return
    amount = format_size(size if size is not None else transferred)
    more = f" (transferred {format_size(transferred)})" if size not in (None, transferred) else ""
    sys.stderr.write(f"Successfully copied {amount}{more} to {target}\n")
