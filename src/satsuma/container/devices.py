"""Device nodes of the host that a container gets.

Source: moby oci/devices_linux.go, containerd oci `HostDevices`.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from satsuma.base.errors import InvalidParameter

_SKIPPED_DIRECTORIES = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})


class Device(NamedTuple):
    """One node: `kind` is c, b or p; mode has the permission bits only."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int

    def to_oci(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "type": self.kind,
            "major": self.major,
            "minor": self.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
        }


def device_at(path: str, container_path: str) -> Device | None:
    """Return the device node at *path* of the host, None when it is something else.

    Raises:
        OSError: nothing there.
    """
    found = os.stat(path)
    if stat.S_ISCHR(found.st_mode):
        kind = "c"
    elif stat.S_ISBLK(found.st_mode):
        kind = "b"
    else:
        return None
    return Device(
        container_path,
        kind,
        os.major(found.st_rdev),
        os.minor(found.st_rdev),
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
    )


def devices_from_path(host_path: str, container_path: str) -> list[Device]:
    """Return the node at *host_path*, or every node below it when it is a directory.

    Raises:
        InvalidParameter: `error gathering device information while adding custom device "x": no such file or
            directory` or `… not a device node`.
    """
    target = container_path or host_path
    try:
        device = device_at(host_path, target)
        if device is not None:
            return [device]
        if os.path.isdir(host_path):
            found = [
                found._replace(path=posixpath.join(target, posixpath.relpath(found.path, host_path)))
                for found in _walk(host_path)
            ]
            if found:
                return found
        reason = "not a device node"
    except OSError as error:
        reason = (error.strerror or "").lower()
    raise InvalidParameter(
        f'error gathering device information while adding custom device "{host_path}": {reason}'
    )


def device_rules(devices: list[Device], access: str) -> list[dict[str, Any]]:
    """Return the device cgroup rules that let a container use *devices*."""
    return [
        {"allow": True, "type": device.kind, "major": device.major, "minor": device.minor, "access": access}
        for device in devices
    ]


def host_devices() -> list[Device]:
    """Return every device node below the host's /dev, for a privileged container."""
    return list(_walk("/dev"))


def _walk(directory: str) -> Iterator[Device]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            if entry.is_symlink() or entry.name == "console":
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED_DIRECTORIES:
                    yield from _walk(entry.path)
                continue
            try:
                device = device_at(entry.path, entry.path)
            except OSError:
                continue
            if device is not None:
                yield device
