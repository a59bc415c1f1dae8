"""What `satsuma-oci` remembers of a container between two calls, and what it finds out anew.

    <root>/<id>/state.json      0600, replaced by rename
    <root>/<id>/exec.fifo       while the container is created and not yet started
    <root>/<id>/notify/         the container's end of sd_notify(3), if it was created with NOTIFY_SOCKET

The status is computed, never stored.

Source: runc libcontainer/{state_linux,container_linux}.go; runtime-spec runtime.md#state.
"""

from __future__ import annotations

import os
import time

from satsuma.linux import pidfd
from satsuma.linux.cgroup import UNIFIED, Cgroup, Layout, clean_path, layout
from satsuma.runtime import fastjson
from satsuma.runtime.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
NOTIFY_DIRECTORY = "notify"
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-")


class ContainerNotFound(RuntimeFailure):
    """There is no container of this id."""


class Container:
    """A container under a root directory, loaded from its state file."""

    __slots__ = ("data", "directory", "id")

    def __init__(self, directory: str, data: dict[str, Any]) -> None:
        self.directory = directory
        self.data = data
        self.id: str = data["id"]

    @property
    def fifo(self) -> str:
        """Path of the exec FIFO."""
        return self.directory + "/exec.fifo"

    @property
    def pid(self) -> int:
        """Process id of init as it was started; see `status`."""
        return int(self.data["init_process_pid"])

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as it was at create."""
        config: dict[str, Any] = self.data["config"]
        return config

    def hooks(self, kind: str) -> list[dict[str, Any]]:
        """Return the hooks of one kind, which were checked at create."""
        return (self.config.get("hooks") or {}).get(kind) or []

    @property
    def shares_pids(self) -> bool:
        """True when the container has no pid namespace of its own."""
        namespaces = (self.config.get("linux") or {}).get("namespaces") or []
        return all(entry["type"] != "pid" for entry in namespaces)

    def is_alive(self) -> bool:
        """Tell whether init runs."""
        return self.pid > 0 and pidfd.is_alive(self.pid, self.data["init_process_start"])

    def status(self) -> str:
        """Return creating, created, running, paused or stopped.

        "creating" is also what a create that was killed leaves; `delete --force` removes it.
        """
        if not self.pid:
            return CREATING
        if not self.is_alive():
            return STOPPED
        if self.cgroup().is_frozen():
            return PAUSED
        return CREATED if os.path.exists(self.fifo) else RUNNING

    def cgroup(self, where: Layout | None = None) -> Cgroup:
        """Return the group as it was recorded.

        Args:
            where: the layout of this machine, needed only to hand further controllers on (`Cgroup.enable`).
        """
        dirs = self.data["cgroup_paths"]
        # The recorded directories say it all; the mounts of this machine need not be read again.
        where = where or Layout(dirs, {})
        if self.data.get("systemd_cgroup"):
            from satsuma.runtime.systemd import recorded_group

            return recorded_group(self.data["cgroup_path"], dirs, where)
        return Cgroup(self.data["cgroup_path"], where, dirs=dirs)

    def oci_state(self) -> dict[str, Any]:
        """Return what the command `state` prints."""
        status = self.status()
        state: dict[str, Any] = {
            "ociVersion": self.config.get("ociVersion", "1.0.0"),
            "id": self.id,
            "pid": 0 if status in (CREATING, STOPPED) else self.pid,
            "status": status,
            "bundle": self.data["bundle"],
            "rootfs": self.data["rootfs"],
            "created": self.data["created"],
        }
        if self.config.get("annotations"):
            state["annotations"] = self.config["annotations"]
        state["owner"] = self.data.get("owner", "")
        return state

    def save(self) -> None:
        """Replace the state file."""
        path = self.directory + "/state.json"
        temporary = f"{self.directory}/.state.json.{os.getpid()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, fastjson.dumps(self.data).encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)
        os.rename(temporary, path)

    def remove_directory(self) -> None:
        """Forget the container."""
        remove_directory(self.directory)


def remove_directory(directory: str) -> None:
    """Remove a container's directory, the state last: whoever is interrupted can be repeated."""
    for name in sorted(os.listdir(directory), key=lambda name: name == "state.json"):
        if name == NOTIFY_DIRECTORY:
            remove_directory(f"{directory}/{name}")
        else:
            os.unlink(f"{directory}/{name}")
    os.rmdir(directory)


def check_id(container_id: str) -> str:
    """Return a valid id.

    Raises:
        RuntimeFailure: invalid container ID format
    """
    if not container_id or container_id in (".", "..") or not set(container_id) <= _ID_CHARACTERS:
        raise RuntimeFailure("invalid container ID format")
    return container_id


def load(root: str, container_id: str) -> Container:
    """Read the state of one container.

    Raises:
        ContainerNotFound: container does not exist
    """
    directory = f"{root}/{check_id(container_id)}"
    try:
        with open(directory + "/state.json", "rb") as file:
            data = fastjson.loads(file.read())
    except FileNotFoundError as error:
        raise ContainerNotFound("container does not exist") from error
    except ValueError as error:
        raise RuntimeFailure(f"invalid state of container {container_id}: {error}") from error
    return Container(directory, data)


def reserve(root: str, container_id: str) -> str:
    """Make the container's directory; only one caller can.

    Raises:
        RuntimeFailure: container with given ID already exists
    """
    os.makedirs(root, 0o700, exist_ok=True)
    directory = f"{root}/{check_id(container_id)}"
    try:
        os.mkdir(directory, 0o711)
    except FileExistsError as error:
        raise RuntimeFailure("container with given ID already exists") from error
    return directory


def now_rfc3339() -> str:
    """Return the time in the form of the state, UTC with nanoseconds."""
    ns = time.time_ns()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000))
    return f"{stamp}.{ns % 1_000_000_000:09d}".rstrip("0").rstrip(".") + "Z"


def cgroup_for(path: str, container_id: str) -> Cgroup:
    """Return the group for `linux.cgroupsPath` of the cgroupfs driver.

    Absolute paths are below the mount points, relative ones (v1) below the group of the caller.

    Raises:
        RuntimeFailure: the path is that of a root, in which other processes of the machine are.
    """
    if path and clean_path(path) == "/":
        raise RuntimeFailure(f"invalid cgroupsPath {path!r}: it is the root of the hierarchy")
    where = layout()
    if not path:
        return Cgroup("/" + container_id, where)
    if path.startswith("/") or where.mode == "v2":
        return Cgroup(path, where)
    dirs = {}
    for controller, mount_point in where.mounts.items():
        own = where.own.get(controller, "/") if controller != UNIFIED else where.own.get("", "/")
        dirs[controller] = mount_point + own.rstrip("/") + Cgroup(path, where).path
    return Cgroup(path, where, dirs=dirs)
