"""`RUN --mount`: what the builder can mount for one command, prepared as host directories of its own.

    bind     a copy of the selected tree of the context, a stage or an image; writes are discarded with it
    cache    a directory that outlives the build, by its id; never part of the layer nor of the cache key
    tmpfs    made by the runner

Secrets and ssh need a session with the client, which the classic request does not have.

Source: docs.docker.com/reference/dockerfile/#run---mount.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass

from satsuma.base.errors import InvalidParameter
from satsuma.build.contenthash import file_checksum, join_checksums, tree_checksums
from satsuma.build.context import Workspace
from satsuma.build.copying import CopyPlan, copy_file, copy_tree
from satsuma.build.runner import MountSpec
from satsuma.linux.root import Root
from satsuma.wire.dockerfile import RunMount
from satsuma.wire.patterns import clean

__all__ = ["Stubs", "bind_checksum", "cache_directory", "copy_for_bind", "needs_buildkit", "target_of"]


def needs_buildkit(option: str) -> InvalidParameter:
    """Return Docker's error for an option that the classic request cannot serve."""
    return InvalidParameter(
        f"the --{option} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ "
        "to learn how to build images with BuildKit enabled"
    )


def target_of(mount: RunMount, cwd: str) -> str:
    """Return the absolute path of the mount point.

    Raises:
        InvalidParameter: no target, or the root directory.
    """
    if not mount.target:
        raise InvalidParameter("invalid mount: target is required")
    path = clean(mount.target if mount.target.startswith("/") else f"{cwd or '/'}/{mount.target}")
    if path == "/":
        raise InvalidParameter(f'invalid mount target "{mount.target}"')
    return path


def cache_directory(data_root: str, mount: RunMount, target: str) -> MountSpec:
    """Return the mount of a cache directory, made on first use with the wanted owner and mode."""
    name = hashlib.sha256((mount.id or target).encode("utf-8", "surrogateescape")).hexdigest()
    parent = f"{data_root}/build/cache"
    os.makedirs(parent, mode=0o700, exist_ok=True)
    path = f"{parent}/{name}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chown(path, mount.uid or 0, mount.gid or 0)
        os.chmod(path, 0o755 if mount.mode is None else mount.mode)
    return MountSpec(type="bind", source=path, target=target, readonly=mount.readonly)


def _source(mount: RunMount) -> bytes:
    return clean("/" + mount.source)[1:].encode("utf-8", "surrogateescape")


def bind_checksum(root: Root, mount: RunMount) -> str:
    """Return the checksum of what a bind mount shows, for the cache key.

    Raises:
        InvalidParameter: the source does not exist.
    """
    path = _source(mount)
    status = _stat(root, mount, path)
    if stat.S_ISDIR(status.st_mode):
        return join_checksums("dir", tree_checksums(root, path))
    return "file:" + file_checksum(root, path, path, status)


def _stat(root: Root, mount: RunMount, path: bytes) -> os.stat_result:
    try:
        return root.stat(path or b".")
    except OSError:
        raise InvalidParameter(f'failed to mount "{mount.source}": not found') from None


def copy_for_bind(root: Root, mount: RunMount, target: str, workspace: Workspace) -> MountSpec:
    """Copy what a bind mount shows, so that nothing the command does can reach the original."""
    path = _source(mount)
    directory = workspace.directory("mount")
    os.chmod(directory, 0o755)
    with Root.open_path(directory) as copy:
        if stat.S_ISDIR(_stat(root, mount, path).st_mode):
            copy_tree(root, path or b".", copy, b"content", CopyPlan())
        else:
            copy_file(root, path, copy, b"content", CopyPlan())
    return MountSpec(type="bind", source=f"{directory}/content", target=target, readonly=mount.readonly)


@dataclass(slots=True)
class Stubs:
    """Mount points that the runner will have to make, and that must not become part of the layer."""

    missing: list[tuple[str, ...]]

    @classmethod
    def before(cls, tree: Root, targets: list[str]) -> Stubs:
        """Look which parts of *targets* are not in *tree* yet; each entry is a path, deepest first."""
        missing: list[tuple[str, ...]] = []
        for target in targets:
            parts: list[str] = []
            path = target
            while path != "/" and not tree.exists(path):
                parts.append(path)
                path = os.path.dirname(path)
            missing.append(tuple(parts))
        return cls(missing)

    def remove(self, upper: Root) -> None:
        """Take empty mount points out of the new layer; what the command put there itself stays."""
        for parts in self.missing:
            for path in parts:
                try:
                    status = upper.lstat(path)
                    if stat.S_ISDIR(status.st_mode):
                        upper.rmdir(path)
                    elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
                        upper.unlink(path)
                except OSError:
                    break
