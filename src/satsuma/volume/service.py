"""The volumes of one engine, local driver.

    data-root/volumes/<name>/_data     content; also the mount point of a volume with `type`/`device` options

Create: directory first, row second.  Remove: the directory gets a name that says so, then the row goes, then the
content; `open` finishes what a crash interrupted.  A directory with content but without a row is never cleared
away, whatever happened to the database: it becomes a volume again, as in Docker.  Methods are synchronous and touch
the disk briefly; what `remove` forgot, the caller deletes off the loop by `discard`.

Source: moby volume/service, volume/local/local{,_unix}.go of 28.5.2.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from satsuma.base.clock import format_rfc3339nano, now_ns
from satsuma.base.errors import Conflict, InvalidParameter, NotFound, System
from satsuma.base.failpoints import failpoint
from satsuma.base.ids import is_hex_id, new_id
from satsuma.linux import mount, mountinfo
from satsuma.linux.root import Root, remove_tree_at

_log = logging.getLogger(__name__)

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_NAME_RULE = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_OPTIONS = frozenset({"type", "o", "device", "size"})
_REMOVING = ".removing"
"""Directory of the volumes that are being removed; no volume's name begins with a dot."""
_NETWORK_TYPES = frozenset({"nfs", "nfs4", "cifs"})


class Volume(Struct, frozen=True, kw_only=True):
    """One volume; `mountpoint` is the directory that containers get."""

    name: str
    created_ns: int
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    driver: str = "local"

    @property
    def is_anonymous(self) -> bool:
        return ANONYMOUS_LABEL in (self.labels or {})


class Row(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def doc(self) -> bytes: ...


class Rows(Protocol):
    """The collection "volumes" of the store."""

    def insert(self, id: str, doc: bytes, *, created_ns: int = 0, durable: bool = True) -> None: ...
    def delete(self, id: str) -> bool: ...


class VolumeService:
    """Make, find, use and remove volumes.  Used from the event loop only, `discard` and `usage` apart."""

    def __init__(self, rows: Rows, directory: str) -> None:
        self._rows = rows
        self._directory = directory
        self._volumes: dict[str, Volume] = {}
        self._users: dict[str, set[str]] = {}
        self._mounted: dict[str, set[str]] = {}

    def open(self, rows: Iterable[Row]) -> None:
        """Load the rows, finish removals, and take up directories that have content but no row."""
        os.makedirs(self._directory, mode=0o701, exist_ok=True)
        os.makedirs(f"{self._directory}/{_REMOVING}", mode=0o700, exist_ok=True)
        unreadable = set()
        for row in rows:
            try:
                volume = msgspec.json.decode(row.doc, type=Volume)
            except msgspec.MsgspecError as error:
                _log.error("volume %s cannot be read: %s", row.id, error)
                unreadable.add(row.id)
                continue
            self._volumes[volume.name] = volume
        for name in os.listdir(f"{self._directory}/{_REMOVING}"):
            if not os.path.lexists(f"{self._directory}/{name}") and name in self._volumes:
                del self._volumes[name]
                self._rows.delete(name)
            self.discard(name)
        for name in os.listdir(self._directory):
            if name not in self._volumes and name not in unreadable and name != _REMOVING:
                self._adopt_directory(name)

    def _adopt_directory(self, name: str) -> None:
        """Take up a directory that has no row: an empty one is of a create that died, all others are data."""
        path = self.mountpoint(name)
        try:
            if not os.listdir(path):
                self._delete(self._directory, name)
                return
            created_ns = os.stat(path).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            self._delete(self._directory, name)
            return
        if _NAME.fullmatch(name) is None:
            return
        _log.warning("volume %s: found on disk without a record; it is a volume again", name)
        labels = {ANONYMOUS_LABEL: ""} if is_hex_id(name) else None
        volume = Volume(name=name, created_ns=created_ns, labels=labels)
        self._rows.insert(name, msgspec.json.encode(volume), created_ns=created_ns, durable=False)
        self._volumes[name] = volume

    # Finding

    def find(self, name: str) -> Volume:
        """Return a volume.

        Raises:
            NotFound: `get x: no such volume`.
        """
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def all(self) -> list[Volume]:
        """Return all volumes by name."""
        return [self._volumes[name] for name in sorted(self._volumes)]

    def mountpoint(self, name: str) -> str:
        """Return the host path of a volume's content."""
        return f"{self._directory}/{name}/_data"

    def users(self, name: str) -> set[str]:
        """Return the ids of the containers that refer to a volume, running or not."""
        return self._users.get(name, set())

    def to_json(self, volume: Volume) -> dict[str, Any]:
        """Return the object of GET /volumes/{name}."""
        return {
            "CreatedAt": format_rfc3339nano(volume.created_ns // 10**9 * 10**9),
            "Driver": volume.driver,
            "Labels": volume.labels,
            "Mountpoint": self.mountpoint(volume.name),
            "Name": volume.name,
            "Options": volume.options,
            "Scope": "local",
        }

    # Making and removing

    def create(
        self,
        name: str = "",
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> tuple[Volume, bool]:
        """Make a volume, or return the one that has this name already; True when it is new.

        Args:
            name: "" makes an anonymous volume with a name of 64 hex digits.
        Raises:
            NotFound: `create x: error looking up volume plugin y: plugin "y" not found`.
            InvalidParameter: name or options.
        """
        if driver not in ("", "local"):
            raise NotFound(
                f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found'
            )
        if name and name in self._volumes:
            return self._volumes[name], False
        marked = dict(labels) if labels else None
        if not name:
            name = new_id()
            marked = (marked or {}) | {ANONYMOUS_LABEL: ""}
        try:
            check_name(name)
            check_options(options or {})
        except InvalidParameter as error:
            raise InvalidParameter(f"create {name}: {error}")
        volume = Volume(
            name=name, created_ns=now_ns(), labels=marked, options=dict(options) if options else None
        )
        self._make_directory(name)
        failpoint("volume.created")
        # An anonymous volume belongs to a container whose row comes later in the same log: a power failure
        # cannot lose the one and keep the other.
        self._rows.insert(
            name,
            msgspec.json.encode(volume),
            created_ns=volume.created_ns,
            durable=not volume.is_anonymous,
        )
        self._volumes[name] = volume
        return volume, True

    def _make_directory(self, name: str) -> None:
        path = f"{self._directory}/{name}"
        try:
            os.makedirs(path, mode=0o701, exist_ok=True)
            os.makedirs(f"{path}/_data", mode=0o755, exist_ok=True)
            os.chmod(path, 0o701)
            os.chmod(f"{path}/_data", 0o755)
        except OSError as error:
            raise System(f"create {name}: error while creating volume path '{path}/_data': {error.strerror}")

    def remove(self, name: str, *, force: bool = False) -> bool:
        """Forget a volume; `discard` its directory afterwards.  False when *force* found nothing to remove.

        Raises:
            NotFound: no such volume, and not *force*.
            Conflict: containers refer to it.
        """
        volume = self._volumes.get(name)
        if volume is None:
            if force:
                return False
            raise NotFound(f"get {name}: no such volume")
        users = sorted(self.users(name))
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        self._mark_removed(name)
        failpoint("volume.marked")
        self._rows.delete(name)
        del self._volumes[name]
        self._users.pop(name, None)
        failpoint("volume.row-deleted")
        return True

    def _mark_removed(self, name: str) -> None:
        """Give the directory the name by which `open` knows that it shall go."""
        marked = f"{self._directory}/{_REMOVING}/{name}"
        self._unmount(name)
        if os.path.lexists(marked):
            self.discard(name)  # an earlier volume of this name could not be deleted then
        try:
            os.rename(f"{self._directory}/{name}", marked)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise System(f"remove {name}: {(error.strerror or '').lower()}") from error

    def discard(self, name: str) -> None:
        """Delete the content of a volume that was removed.  May run in any thread."""
        self._delete(f"{self._directory}/{_REMOVING}", name)

    def _delete(self, directory: str, name: str) -> None:
        _unmount_path(f"{directory}/{name}/_data")
        parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree_at(parent, os.fsencode(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("volume %s: directory not removed: %s", name, error)
        finally:
            os.close(parent)

    # Using

    def refer(self, name: str, user: str) -> None:
        """Note that container *user* has the volume; it cannot be removed until `release`."""
        self._users.setdefault(name, set()).add(user)

    def release(self, name: str, user: str) -> None:
        """Drop the note of `refer`."""
        users = self._users.get(name)
        if users is not None:
            users.discard(user)
            if not users:
                del self._users[name]

    def attach(self, name: str, user: str) -> str:
        """Make the content of a volume available to a container that starts; return its host path.

        A volume with a device of its own is mounted for its first running user.

        Raises:
            System: the mount failed; the text has what dockerd says.
        """
        volume = self.find(name)
        path = self.mountpoint(name)
        if (volume.options or {}).get("device"):
            if not self._mounted.get(name) and not _is_mount_point(path):
                try:
                    mount_volume(volume.options or {}, path)
                except OSError as error:
                    text = (error.strerror or str(error)).lower()
                    options = (volume.options or {}).get("o", "")
                    raise System(
                        f"error while mounting volume '{path}': failed to mount local volume: mount "
                        f"{(volume.options or {})['device']}:{path}, data: {options}: {text}"
                    )
            self._mounted.setdefault(name, set()).add(user)
        elif not os.path.isdir(path):
            self._make_directory(name)
        return path

    def detach(self, name: str, user: str) -> None:
        """Drop the note of `attach`; the last user's end unmounts the device."""
        users = self._mounted.get(name)
        if users is None:
            return
        users.discard(user)
        if not users:
            del self._mounted[name]
            self._unmount(name)

    def adopt(self, name: str, user: str) -> None:
        """Note that *user* was running when the daemon started."""
        if name in self._volumes and (self._volumes[name].options or {}).get("device"):
            self._mounted.setdefault(name, set()).add(user)

    def _unmount(self, name: str) -> None:
        if (self.find(name).options or {}).get("device"):
            _unmount_path(self.mountpoint(name))

    def open_root(self, name: str) -> Root:
        """Open the content of a volume as a tree."""
        return Root.open_path(self.mountpoint(name))

    def usage(self, name: str) -> int:
        """Return the bytes of a volume's files, -1 when they cannot be counted.  May run in any thread."""
        seen: set[int] = set()
        total = 0
        try:
            with self.open_root(name) as root:
                for _, status in root.walk():
                    if status.st_nlink == 1 or status.st_ino not in seen:
                        seen.add(status.st_ino)
                        total += status.st_size if not stat.S_ISDIR(status.st_mode) else 0
        except OSError:
            return -1
        return total

    def unused(self, keep: Callable[[Volume], bool]) -> list[Volume]:
        """Return the volumes that no container refers to and that *keep* does not hold."""
        return [volume for volume in self.all() if not self.users(volume.name) and not keep(volume)]


def check_name(name: str) -> None:
    """Refuse a name that the local driver cannot have as a directory."""
    if len(name) < 2:
        raise InvalidParameter(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if _NAME.fullmatch(name) is None or len(name) > 255:
        raise InvalidParameter(
            f'"{name}" includes invalid characters for a local volume name, only "{_NAME_RULE}" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )


def check_options(options: Mapping[str, str]) -> None:
    """Refuse options of the local driver that do not go together."""
    for name in options:
        if name not in _OPTIONS:
            raise InvalidParameter(f'invalid option: "{name}"')
    if "size" in options:
        raise InvalidParameter("quota size requested but no quota support")
    for name, needed in (("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")):
        if name in options and not options.get(needed):
            raise InvalidParameter(f'missing required option: "{needed}"')


def mount_volume(options: Mapping[str, str], target: str) -> None:
    """Mount what a volume's options describe on *target*.

    Raises:
        OSError: the kernel refused.
    """
    kind, device = options.get("type", ""), options.get("device", "")
    words = [word for word in options.get("o", "").split(",") if word]
    if kind == "none" or "bind" in words or "rbind" in words:
        fd = mount.open_tree_clone(device, recursive="rbind" in words)
    else:
        if kind in _NETWORK_TYPES:
            words = [_resolve_address(word) for word in words]
        attr, data = split_mount_options(words)
        fd = mount.create(kind, data, source=device, attr=attr)
    try:
        if (kind == "none" or "bind" in words) and "ro" in words:
            mount.mount_setattr(fd, attr_set=_ATTRIBUTES["ro"], recursive="rbind" in words)
        mount.move_mount_path(fd, target)
    finally:
        os.close(fd)


_ATTRIBUTES = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "noatime": 0x10, "nodiratime": 0x80}
"""MOUNT_ATTR_* of linux/mount.h."""
_IGNORED = frozenset({"rw", "suid", "dev", "exec", "defaults", "relatime"})


def split_mount_options(words: Iterable[str]) -> tuple[int, list[tuple[str, str | None]]]:
    """Split `-o` words into mount attributes and the file system's own options."""
    attr = 0
    data: list[tuple[str, str | None]] = []
    for word in words:
        if word in _ATTRIBUTES:
            attr |= _ATTRIBUTES[word]
        elif word not in _IGNORED:
            name, assigned, value = word.partition("=")
            data.append((name, value if assigned else None))
    return attr, data


def _resolve_address(word: str) -> str:
    """The kernel wants `addr=` as a number; people write names (moby volume/local/local_unix.go)."""
    name, _, value = word.partition("=")
    if name != "addr":
        return word
    try:
        return f"addr={socket.getaddrinfo(value, None)[0][4][0]}"
    except OSError:
        return word


def _unmount_path(path: str) -> None:
    if _is_mount_point(path):
        with contextlib.suppress(OSError):
            mount.umount(path)


def _is_mount_point(path: str) -> bool:
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return any(item.mount_point == os.fsencode(path) for item in mountinfo.parse(file.read()))
    except OSError:
        return False
