"""Host paths of what is mounted into a container, resolved so that nobody can swap them afterwards.

A subpath of a volume or an image is opened with `Root`, and handed on as `/proc/<our pid>/fd/<n>`: a magic link
leads to exactly the directory that was checked, whatever another container renames meanwhile.  The descriptors
live until the container has started.
"""

from __future__ import annotations

import contextlib
import os

from satsuma.base.aio import blocking
from satsuma.base.errors import InvalidParameter, System
from satsuma.container import Record
from satsuma.container.mounts import MountPoint
from satsuma.engine.core import Core
from satsuma.linux.root import Root


class Sources:
    """Resolves the mount points of one starting container; descriptors are kept on *stack*."""

    def __init__(self, core: Core, record: Record, stack: contextlib.ExitStack) -> None:
        self._core = core
        self._record = record
        self._stack = stack

    async def resolve(self) -> dict[str, str]:
        """Return the host path of every mount point by destination.

        Raises:
            InvalidParameter, System: a source that is not there or cannot be made.
        """
        mode = self._record.host.ipc_mode
        paths: dict[str, str] = {}
        if mode.startswith("container:"):
            owner = self._core.registry.find(mode.partition(":")[2])
            # The donor's /dev/shm, reached through its own root.
            paths["/dev/shm"] = f"/proc/{owner.state.pid}/root/dev/shm"
        if any(point.type != "tmpfs" for point in self._record.mounts):
            paths |= await blocking(self._resolve_points)
        return paths

    def _resolve_points(self) -> dict[str, str]:
        answer = {}
        for point in self._record.mounts:
            if point.type == "bind":
                answer[point.destination] = self._bind(point)
            elif point.type == "volume":
                answer[point.destination] = self._volume(point)
            elif point.type == "image":
                answer[point.destination] = self._image(point)
        return answer

    def _bind(self, point: MountPoint) -> str:
        if not os.path.lexists(point.source):
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

    def _volume(self, point: MountPoint) -> str:
        path = self._core.volumes.mountpoint(point.name)
        subpath = point.spec.volume_options.subpath if point.spec.volume_options else ""
        if not subpath:
            return path
        with self._core.volumes.open_root(point.name) as root:
            return self._inside(root, subpath, f"volume {point.name}")

    def _image(self, point: MountPoint) -> str:
        image = self._core.images.resolve(point.source)
        root = self._stack.enter_context(self._core.store.snapshots.view(image.chain_ids))
        subpath = point.spec.image_options.subpath if point.spec.image_options else ""
        if subpath:
            return self._inside(root, subpath, f"image {point.name}")
        return f"/proc/{os.getpid()}/fd/{root.fd}"

    def _inside(self, root: Root, subpath: str, what: str) -> str:
        try:
            fd = root.open(subpath, os.O_PATH)
        except OSError as error:
            raise System(f"cannot access path {subpath} of {what}: {(error.strerror or '').lower()}")
        self._stack.callback(os.close, fd)
        return f"/proc/{os.getpid()}/fd/{fd}"
