"""Snapshots: directories of layers, shared read-only, and writable directories of containers on top of them.

Owns

    layers/<chain id>/diff       content of a layer, with overlay's own whiteouts
    containers/<key>/upper       what the container changed          (upperdir)
    containers/<key>/work        overlayfs' scratch space             (workdir)
    containers/<key>/lower       a symbolic link whose target is the hex chain id the container stands on
    init/diff, empty             the init layer, and a directory with nothing in it

Must not know images or containers.  The word order: a *chain* is bottom layer first, *lowerdirs* are top layer
first, as overlayfs wants them.

`lower` is a link and not a file because symlink(2) is atomic: there is never an empty one after a crash.

Source: overlayfs.rst; containerd's vocabulary of snapshots.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Sequence
from typing import NamedTuple

from satsuma.base.errors import Conflict, DataLoss, InvalidParameter, NotFound
from satsuma.base.failpoints import failpoint
from satsuma.base.ids import ChainId, is_digest
from satsuma.linux import mount
from satsuma.linux.root import Root
from satsuma.store.changes import Change, compare
from satsuma.store.initlayer import make_init_layer
from satsuma.store.layers import Layers
from satsuma.store.trash import Trash

_KEY_CHARACTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-")


class Active(NamedTuple):
    """A writable snapshot: what overlayfs needs to mount it."""

    lowerdirs: list[str]
    upperdir: str
    workdir: str


class Snapshots:
    """Layer and container directories of one data root; safe to use from any thread.

    Two callers must not work on the same key at once.
    """

    def __init__(self, data_root: str, layers: Layers, trash: Trash) -> None:
        self._data_root = data_root
        self._layers = layers
        self._trash = trash
        self._init: str | None = None
        self._init_lock = threading.Lock()
        for name, mode in (("layers", 0o700), ("containers", 0o710), ("init", 0o700), ("empty", 0o755)):
            os.makedirs(f"{data_root}/{name}", mode=mode, exist_ok=True)
        os.makedirs(f"{data_root}/layers/new", mode=0o700, exist_ok=True)

    # Layers

    def layer_dir(self, chain_id: str) -> str:
        """Return the directory with the content of a layer.

        Raises:
            InvalidParameter: not a chain id.
        """
        if not is_digest(chain_id):
            raise InvalidParameter(f"invalid chain id {chain_id!r}")
        return f"{self._data_root}/layers/{chain_id[7:]}/diff"

    def has(self, chain_id: str) -> bool:
        """Tell whether the layer is registered and its directory is here."""
        return self._layers.find(chain_id) is not None and os.path.isdir(self.layer_dir(chain_id))

    def new_dir(self) -> str:
        """Return a fresh directory in which a layer's content can grow; `commit_dir` makes it a layer."""
        path = f"{self._data_root}/layers/new/{os.urandom(16).hex()}"
        os.mkdir(path, 0o700)
        os.mkdir(f"{path}/diff", 0o755)
        return f"{path}/diff"

    def discard_dir(self, directory: str) -> None:
        """Give up a directory of `new_dir`; harmless when it was committed."""
        self._trash.throw(os.path.dirname(directory), "layer", "new")

    def commit_dir(self, directory: str, chain_id: str) -> None:
        """Make *directory*, on the same file system, the content of layer *chain_id*.

        Idempotent: when the layer is there already, the directory is thrown away.  A directory without a row,
        from an interrupted attempt, is replaced.
        Order: `Layers.add` comes after; a directory without a row is garbage.
        """
        target = os.path.dirname(self.layer_dir(chain_id))
        with self._layers.lock:
            if self._layers.find(chain_id) is not None and os.path.isdir(f"{target}/diff"):
                self._throw_source(directory)
                return
            self._trash.throw(target, "layer", chain_id[7:])
            parent = os.path.dirname(directory)
            os.chmod(directory, 0o755)
            failpoint("store.snapshots.commit")
            if os.path.dirname(parent) == f"{self._data_root}/layers/new":
                os.rename(parent, target)
            else:
                os.mkdir(target, 0o700)
                os.rename(directory, f"{target}/diff")
            failpoint("store.snapshots.committed")

    def _throw_source(self, directory: str) -> None:
        parent = os.path.dirname(directory)
        if os.path.dirname(parent) == f"{self._data_root}/layers/new":
            directory = parent
        self._trash.throw(directory, "layer", "duplicate")

    def remove_layer(self, chain_id: str) -> bool:
        """Throw a layer's directory away.  Order: after its row is gone."""
        return self._trash.throw(os.path.dirname(self.layer_dir(chain_id)), "layer", chain_id[7:])

    def lowerdirs(self, chain: Sequence[str], *, init: bool = True) -> list[str]:
        """Return the directories of *chain* (bottom first) as overlayfs wants them (top first)."""
        lower = [self.layer_dir(chain_id) for chain_id in reversed(chain)]
        if init:
            lower.insert(0, self.init_layer())
        return lower or [f"{self._data_root}/empty"]

    def init_layer(self) -> str:
        """Return the read-only directory that lies between every image and its containers' upperdirs.

        It holds the mount points which the runtime needs, so that making them is no change by the container.
        """
        if self._init is None:
            with self._init_lock:
                self._init = make_init_layer(f"{self._data_root}/init")
        return self._init

    # Containers

    def directory(self, key: str) -> str:
        """Return the directory of a container.

        Raises:
            InvalidParameter: *key* could leave `containers/`.
        """
        if not key or key[0] == "." or len(key) > 255 or not _KEY_CHARACTERS.issuperset(key):
            raise InvalidParameter(f"invalid snapshot key {key!r}")
        return f"{self._data_root}/containers/{key}"

    def prepare(self, key: str, chain: Sequence[ChainId], *, init: bool = True) -> Active:
        """Make the writable directories of *key* on top of *chain*.

        Args:
            chain: bottom layer first, as `Image.chain_ids`; empty for a container from scratch.
            init: put the init layer between the chain and the upperdir.
        Raises:
            Conflict: the key is in use.
            DataLoss: a layer's directory is gone.
        Crash: the row comes after; a directory without a row is garbage.
        """
        for chain_id in chain:
            if self._layers.find(chain_id) is None:
                raise DataLoss(f"layer {chain_id} does not exist")
        directory = self.directory(key)
        top = chain[-1][7:] if chain else "scratch"
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o710)
        try:
            # The link first: from now on a sweep knows that the chain is needed.
            os.symlink(top if init else f"{top}.bare", f"{directory}/lower")
            os.mkdir(f"{directory}/upper", 0o755)
            # It becomes the container's "/", so its mode must not depend on the daemon's umask.
            os.chmod(f"{directory}/upper", 0o755)
            os.mkdir(f"{directory}/work", 0o700)
        except FileExistsError:
            raise Conflict(f"snapshot {key} already exists") from None
        failpoint("store.snapshots.prepared")
        return Active(
            self.lowerdirs(chain, init=init),
            f"{directory}/upper",
            f"{directory}/work",
        )

    def active(self, key: str) -> Active:
        """Return what `prepare` returned for *key*.

        Raises:
            NotFound: no such snapshot.
        """
        directory = self.directory(key)
        chain, init = self._lower(key)
        return Active(self.lowerdirs(chain, init=init), f"{directory}/upper", f"{directory}/work")

    def mountable(self, key: str) -> Active:
        """Return `active(key)` to be mounted for writing, also after a mount of it with "volatile".

        Such a mount leaves a mark by which overlayfs refuses the next one (EINVAL): after a crash of the machine
        the upperdir may be torn.  It is not a crash that brings containers here a second time: those whose
        upperdir is volatile are removed when the engine comes up after one.

        Raises:
            NotFound: no such snapshot.
        Source: overlayfs.rst "Volatile mount".
        """
        active = self.active(key)
        mark = f"{active.workdir}/work/incompat/volatile"
        with contextlib.suppress(FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{mark}/dirty")
            os.rmdir(mark)
        return active

    def chain(self, key: str) -> list[ChainId]:
        """Return the chain that *key* stands on, bottom layer first."""
        return self._lower(key)[0]

    def _lower(self, key: str) -> tuple[list[ChainId], bool]:
        try:
            top, _, bare = os.readlink(f"{self.directory(key)}/lower").partition(".")
        except FileNotFoundError:
            raise NotFound(f"snapshot {key}: not found") from None
        return self._layers.chain(None if top == "scratch" else f"sha256:{top}"), not bare

    def keys(self) -> list[str]:
        """Return the keys of all directories under `containers/`, prepared or not."""
        return [name for name in os.listdir(f"{self._data_root}/containers") if not name.startswith(".")]

    def tops(self) -> set[str]:
        """Return the chain ids that writable snapshots stand on."""
        found = set()
        for key in self.keys():
            with contextlib.suppress(OSError):
                top = os.readlink(f"{self._data_root}/containers/{key}/lower").partition(".")[0]
                if top != "scratch":
                    found.add(f"sha256:{top}")
        return found

    def remove(self, key: str) -> bool:
        """Remove everything of *key*; the directory vanishes at once, its content in the background.

        Order: after the row of the container is gone, and after its mounts are.
        """
        return self._trash.throw(self.directory(key), "container", key)

    def usage(self, key: str) -> int:
        """Return the bytes that a container wrote: files and links, hard-linked files once."""
        with self._upper(key) as root:
            return tree_size(root)

    def _upper(self, key: str) -> Root:
        try:
            return Root.open_path(f"{self.directory(key)}/upper")
        except FileNotFoundError:
            raise NotFound(f"snapshot {key}: not found") from None

    # Views

    def view(self, chain: Sequence[str], *, init: bool = False) -> Root:
        """Open the merged tree of a chain, read-only; the mount lives as long as the result.

        Needs: CAP_SYS_ADMIN.
        """
        lower = self.lowerdirs(chain, init=init)
        if chain:
            # The empty directory makes it an overlay also for a single layer, whose whiteouts must not be seen.
            lower.append(f"{self._data_root}/empty")
        return Root(mount.overlay(lower, None, None, readonly=True))

    def mounted(self, key: str, *, readonly: bool = False) -> Root:
        """Open the merged tree of a container that is not running; the mount lives as long as the result.

        A running container has its own overlay mount of the same upperdir, and overlayfs leaves open what two
        writers see: go through /proc/<pid>/root of the container then.
        Needs: CAP_SYS_ADMIN.
        """
        lower, upper, work = self.active(key) if readonly else self.mountable(key)
        if readonly:
            return Root(mount.overlay([upper, *lower], None, None, readonly=True))
        return Root(mount.overlay(lower, upper, work))

    def changes(self, key: str) -> list[Change]:
        """Return what the container changed, as `docker diff` shows it, sorted by path."""
        chain, init = self._lower(key)
        with self._upper(key) as upper, self.view(chain, init=init) as lower:
            return compare(upper, lower)


def tree_size(root: Root) -> int:
    """Return the bytes of all files and links in a tree, hard-linked files once.

    Source: moby pkg/directory.
    """
    size = 0
    seen: set[int] = set()
    for _, status in root.walk():
        if stat.S_ISDIR(status.st_mode):
            continue
        if status.st_nlink > 1:
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
        size += status.st_size
    return size
