"""What is mounted into a container, resolved on the host so that nobody can swap it afterwards.

Plain binds and volumes are paths.  Where a path would be a promise that another container can break (a subpath of
a volume), or where there is none (an image's tree, another container's /dev/shm), the thing itself is opened here
and handed over as a detached mount: it belongs to no mount namespace and leads exactly where it was looked up.

Source: CVE-2017-1002101 and its kin (subpath races); open_tree(2).
"""

from __future__ import annotations

import contextlib
import os
import threading

from satsuma.base.aio import blocking
from satsuma.base.errors import InvalidParameter, System
from satsuma.container import Record
from satsuma.container.mounts import MountPoint
from satsuma.engine.core import Core
from satsuma.linux import mount, ns, syscalls
from satsuma.linux.root import Root

SHM = "/dev/shm"
CLONE_FS = 0x200  # linux/sched.h


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
            self._keep(SHM, await blocking(mount_of_process, owner.state.pid, SHM))
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


def mount_of_process(pid: int, path: str) -> int:
    """Return a detached copy of what a process sees mounted at *path*.

    Only a thread inside a mount namespace may copy its mounts; a thread of its own enters and ends.

    Raises:
        System: the process is gone, or there is nothing.
    """
    result: list[int] = []
    fault: list[OSError] = []

    def enter() -> None:
        try:
            fd = ns.open_ns(pid, "mnt")
            try:
                # setns(2): a mount namespace can be joined only by who shares its root and cwd with nobody.
                syscalls.unshare(CLONE_FS)
                ns.setns(fd, "mnt")
                result.append(mount.open_tree_clone(path))
            finally:
                os.close(fd)
        except OSError as error:
            fault.append(error)

    thread = threading.Thread(target=enter, name="mntns")
    thread.start()
    thread.join()
    if not result:
        raise System(f"cannot share {path} of process {pid}: {(fault[0].strerror or '').lower()}")
    return result[0]
