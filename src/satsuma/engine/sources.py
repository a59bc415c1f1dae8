"""What is mounted into a container, resolved on the host so that nobody can swap it afterwards.

Plain binds and volumes are paths.  Where a path would be a promise that another container can break (a subpath of
a volume), or where there is none (an image's tree, another container's /dev/shm), the thing itself is opened here
and handed over as a detached mount: it belongs to no mount namespace and leads exactly where it was looked up.

Source: CVE-2017-1002101 and its kin (subpath races); open_tree(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading

from satsuma.base.aio import blocking
from satsuma.base.errors import InvalidParameter, System
from satsuma.container import Record
from satsuma.container.mounts import MountPoint
from satsuma.engine.core import Core
from satsuma.linux import mount, mountinfo, ns, pidfd, syscalls
from satsuma.linux.root import Root

SHM = "/dev/shm"
CLONE_FS = 0x200  # linux/sched.h
TMPFS_MAGIC = 0x01021994  # statfs(2)


class Sources:
    """Resolves the mount points of one starting container.

    Attributes:
        paths: host path by destination.
        mount_fds: detached mount by destination; closed with the stack.
    """

    def __init__(self, core: Core, record: Record, stack: contextlib.ExitStack) -> None:
        self._core = core
        self._record = record
        self._stack = stack
        self.paths: dict[str, str] = {}
        self.mount_fds: dict[str, int] = {}

    async def resolve(self) -> None:
        """Fill `paths` and `mount_fds`.

        Raises:
            InvalidParameter, System: a source that is not there or cannot be made.
        """
        mode = self._record.host.ipc_mode
        if mode.startswith("container:"):
            owner = self._core.registry.find(mode.partition(":")[2])
            self.paths[SHM] = SHM
            self._keep(SHM, await blocking(shm_of_process, owner.state.pid, owner.state.pid_start_time))
        if any(point.type != "tmpfs" for point in self._record.mounts):
            await blocking(self._resolve_points)

    def _keep(self, destination: str, fd: int) -> None:
        self._stack.callback(os.close, fd)
        self.mount_fds[destination] = fd

    def _resolve_points(self) -> None:
        for point in self._record.mounts:
            if point.type == "bind":
                self.paths[point.destination] = self._bind(point)
            elif point.type == "volume":
                self.paths[point.destination] = self._core.volumes.mountpoint(point.name)
                if subpath := point.spec.volume_options and point.spec.volume_options.subpath:
                    with self._core.volumes.open_root(point.name) as root:
                        self._inside(root, subpath, point, f"volume {point.name}")
            elif point.type == "image":
                self._image(point)

    def _bind(self, point: MountPoint) -> str:
        if os.path.lexists(point.source):
            check_propagation(point)
            return point.source
        if not point.create_source:
            raise InvalidParameter(
                f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
            )
        try:
            os.makedirs(point.source, mode=0o755, exist_ok=True)
            os.chmod(point.source, 0o755)
        except OSError as error:
            text = (error.strerror or "").lower()
            raise System(
                f"error while creating mount source path '{point.source}': mkdir {point.source}: {text}"
            )
        return point.source

    def _image(self, point: MountPoint) -> None:
        image = self._core.images.resolve(point.source)
        self.paths[point.destination] = image.id
        root = self._core.store.snapshots.view(image.chain_ids)
        subpath = point.spec.image_options.subpath if point.spec.image_options else ""
        if not subpath:
            self._stack.enter_context(root)
            self.mount_fds[point.destination] = root.fd
            return
        with root:
            self._inside(root, subpath, point, f"image {point.name}")

    def _inside(self, root: Root, subpath: str, point: MountPoint, what: str) -> None:
        try:
            fd = root.open(subpath, os.O_PATH)
            try:
                self._keep(point.destination, mount.open_tree_clone(fd, recursive=True))
            finally:
                os.close(fd)
        except OSError as error:
            raise System(f"cannot access path {subpath} of {what}: {(error.strerror or '').lower()}")


def check_propagation(point: MountPoint) -> None:
    """Refuse a propagation that the source's own mount does not have: it would promise what never happens.

    Source: moby daemon/oci_linux.go, ensureShared and ensureSharedOrSlave.
    """
    kind = point.propagation.removeprefix("r")
    if kind not in ("shared", "slave"):
        return
    source = os.fsencode(os.path.realpath(point.source))
    holders = [item for item in mountinfo.read() if is_below(source, item.mount_point)]
    # Of two mounts on one point the later one is on top.
    holder = sorted(holders, key=lambda item: len(item.mount_point))[-1]
    if any(
        tag.startswith("shared:") or (kind == "slave" and tag.startswith("master:"))
        for tag in holder.propagation
    ):
        return
    wanted = "shared" if kind == "shared" else "shared or slave"
    raise System(
        f"path {point.source} is mounted on {os.fsdecode(holder.mount_point)} but it is not a {wanted} mount"
    )


def is_below(path: bytes, top: bytes) -> bool:
    """Tell whether *path* is *top* or lies below it; both absolute and normal."""
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


def shm_of_process(pid: int, start_time: int) -> int:
    """Return a detached copy of the mount that a container has at /dev/shm.

    Only a thread inside a mount namespace may copy its mounts; a thread of its own enters and ends.

    Raises:
        System: the process is gone, or something else than a tmpfs is there by now.
    """
    result: list[int] = []
    fault: list[OSError] = []

    def enter() -> None:
        try:
            fd = ns.open_ns(pid, "mnt")
            try:
                if not pidfd.is_alive(pid, start_time):
                    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
                # setns(2): a mount namespace can be joined only by who shares its root and cwd with nobody.
                syscalls.unshare(CLONE_FS)
                ns.setns(fd, "mnt")
                result.append(_clone_shm())
            finally:
                os.close(fd)
        except OSError as error:
            fault.append(error)

    thread = threading.Thread(target=enter, name="mntns")
    thread.start()
    thread.join()
    if not result:
        raise System(f"cannot share {SHM} of process {pid}: {(fault[0].strerror or '').lower()}")
    return result[0]


def _clone_shm() -> int:
    """Copy the mount; what a container has put in its place, a link or another file system, is refused."""
    with Root.open_path("/") as root:
        fd = root.open(SHM, os.O_PATH | os.O_DIRECTORY, resolve=syscalls.RESOLVE_NO_SYMLINKS)
    try:
        if syscalls.fstatfs(fd)[0] != TMPFS_MAGIC:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return mount.open_tree_clone(fd)
    finally:
        os.close(fd)
