"""Mount options of the runtime-spec as values: attributes, propagation, superblock options.

Pure; nothing here touches the kernel.

Source: runtime-spec config.md#linux-mount-options, runc libcontainer/specconv/spec_linux.go, mount_setattr(2).
"""

from __future__ import annotations

import os

from satsuma.linux import syscalls as sys
from satsuma.runtime.config import parse_mappings
from satsuma.runtime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ATIME = sys.MOUNT_ATTR__ATIME
# option -> (attributes to set, attributes to clear); the later option wins.
_ATTRIBUTES = {
    "ro": (sys.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, sys.MOUNT_ATTR_RDONLY),
    "nosuid": (sys.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, sys.MOUNT_ATTR_NOSUID),
    "nodev": (sys.MOUNT_ATTR_NODEV, 0),
    "dev": (0, sys.MOUNT_ATTR_NODEV),
    "noexec": (sys.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, sys.MOUNT_ATTR_NOEXEC),
    "noatime": (sys.MOUNT_ATTR_NOATIME, _ATIME),
    "atime": (0, _ATIME),
    "nodiratime": (sys.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, sys.MOUNT_ATTR_NODIRATIME),
    "relatime": (sys.MOUNT_ATTR_RELATIME, _ATIME),
    "norelatime": (0, _ATIME),
    "strictatime": (sys.MOUNT_ATTR_STRICTATIME, _ATIME),
    "nostrictatime": (0, _ATIME),
    "nosymfollow": (sys.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, sys.MOUNT_ATTR_NOSYMFOLLOW),
}
_RECURSIVE = {"r" + name: value for name, value in _ATTRIBUTES.items()}
_PROPAGATION = {
    "private": (sys.MS_PRIVATE, False),
    "shared": (sys.MS_SHARED, False),
    "slave": (sys.MS_SLAVE, False),
    "unbindable": (sys.MS_UNBINDABLE, False),
    "rprivate": (sys.MS_PRIVATE, True),
    "rshared": (sys.MS_SHARED, True),
    "rslave": (sys.MS_SLAVE, True),
    "runbindable": (sys.MS_UNBINDABLE, True),
}
# Flags of the superblock; "no…" forms clear them, which is what a new file system has anyway.
_SUPERBLOCK = ("sync", "dirsync", "mand", "lazytime")
_NO_EFFECT = frozenset("defaults async nomand nolazytime silent loud iversion noiversion".split())


class MountSpec:
    """One mount.

    Attributes:
        attr_set, attr_clr: for the mount itself, as mount_setattr(2) takes them.
        rec_set, rec_clr: for the mount and all below it.
        data: (key, value) pairs for the file system.
        propagation: [(MS_* flag, recursive)] in order.
        source_fd: a detached mount to use instead of *source*, -1 for none.
        deferred_readonly: "ro" is applied after everything in it has been made.
    """

    __slots__ = (
        "attr_clr",
        "attr_set",
        "bind",
        "copy_up",
        "data",
        "deferred_readonly",
        "destination",
        "fstype",
        "gid_mappings",
        "idmap",
        "propagation",
        "rec_clr",
        "rec_set",
        "recursive",
        "remount",
        "source",
        "source_fd",
        "uid_mappings",
    )

    def __init__(self, destination: str, fstype: str, source: str) -> None:
        self.destination = destination
        self.fstype = fstype
        self.source = source
        self.attr_set = self.attr_clr = self.rec_set = self.rec_clr = 0
        self.bind = self.recursive = self.remount = self.copy_up = self.deferred_readonly = False
        self.idmap = ""
        self.source_fd = -1
        self.data: list[tuple[str, str | None]] = []
        self.propagation: list[tuple[int, bool]] = []
        self.uid_mappings: list[tuple[int, int, int]] = []
        self.gid_mappings: list[tuple[int, int, int]] = []

    @property
    def readonly(self) -> bool:
        """True when the mount itself shall be read-only."""
        return bool((self.attr_set | self.rec_set) & sys.MOUNT_ATTR_RDONLY)

    def describe(self) -> str:
        """Return one line for people."""
        kind = ("rbind" if self.recursive else "bind") if self.bind else self.fstype
        parts = [f"{kind} {self.source or '-'} on {self.destination}"]
        if self.attr_set or self.rec_set:
            parts.append(",".join(_attribute_names(self.attr_set) + _attribute_names(self.rec_set, "r")))
        if self.data:
            parts.append(",".join(key if value is None else f"{key}={value}" for key, value in self.data))
        return " ".join(parts)


def _attribute_names(bits: int, prefix: str = "") -> list[str]:
    names = []
    for name in ("ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow", "noatime", "strictatime"):
        wanted = _ATTRIBUTES[name][0]
        if bits & wanted == wanted:
            names.append(prefix + name)
    return names


def parse_mount(raw: dict[str, Any], bundle: str = "/") -> MountSpec:
    """Turn one entry of `mounts` into a `MountSpec`.

    Raises:
        ConfigError: a destination that is missing or the root itself, or options that contradict each other.
    """
    destination = raw.get("destination")
    if not isinstance(destination, str) or not destination:
        raise ConfigError("mount without a destination")
    if os.path.normpath("/" + destination.lstrip("/")) == "/":
        raise ConfigError(f"invalid mount destination {destination!r}: cannot mount over the root directory")
    spec = MountSpec(destination, _text(raw, "type"), _text(raw, "source"))
    if any("\0" in text for text in (destination, spec.fstype, spec.source)):
        raise ConfigError(f"mount {destination!r}: a path or type contains a NUL character")
    for option in _list(raw, "options"):
        if not isinstance(option, str) or "\0" in option:
            raise ConfigError(f"options of mount {destination} must be strings")
        _apply_option(spec, option)
    if spec.fstype == "bind":
        spec.bind = True
    if spec.bind:
        if not spec.source:
            raise ConfigError(f"bind mount on {destination} without a source")
        if not spec.source.startswith("/"):
            spec.source = os.path.join(bundle, spec.source)
    elif not spec.fstype and not spec.remount:
        raise ConfigError(f"mount on {destination} without a type")
    _read_idmap(spec, raw)
    if spec.copy_up and spec.fstype != "tmpfs":
        raise ConfigError(f"option tmpcopyup of mount {destination} is for tmpfs only")
    return spec


def _text(raw: dict[str, Any], key: str) -> str:
    value = raw.get(key) or ""
    if not isinstance(value, str):
        raise ConfigError(f"malformed spec file: mounts.{key} has the wrong type")
    return value


def _list(raw: dict[str, Any], key: str) -> list[Any]:
    value = raw.get(key) or []
    if not isinstance(value, list):
        raise ConfigError(f"malformed spec file: mounts.{key} has the wrong type")
    return value


def _apply_option(spec: MountSpec, option: str) -> None:
    if option in _ATTRIBUTES:
        wanted, cleared = _ATTRIBUTES[option]
        spec.attr_set = spec.attr_set & ~(cleared | wanted) | wanted
        spec.attr_clr = spec.attr_clr & ~wanted | cleared
    elif option in _RECURSIVE:
        wanted, cleared = _RECURSIVE[option]
        spec.rec_set = spec.rec_set & ~(cleared | wanted) | wanted
        spec.rec_clr = spec.rec_clr & ~wanted | cleared
    elif option in _PROPAGATION:
        spec.propagation.append(_PROPAGATION[option])
    elif option in ("bind", "rbind"):
        spec.bind = True
        spec.recursive = option == "rbind"
    elif option == "remount":
        spec.remount = True
    elif option in ("idmap", "ridmap"):
        spec.idmap = option
    elif option == "tmpcopyup":
        spec.copy_up = True
    elif option in _SUPERBLOCK:
        spec.data.append((option, None))
    elif option not in _NO_EFFECT and option:
        spec.data.extend(_data_pairs(option))


def _data_pairs(option: str) -> list[tuple[str, str | None]]:
    pairs: list[tuple[str, str | None]] = []
    for item in option.split(","):
        key, equals, value = item.partition("=")
        if key:
            pairs.append((key, value if equals else None))
    return pairs


def _read_idmap(spec: MountSpec, raw: dict[str, Any]) -> None:
    spec.uid_mappings = parse_mappings(_list(raw, "uidMappings"))
    spec.gid_mappings = parse_mappings(_list(raw, "gidMappings"))
    if bool(spec.uid_mappings) != bool(spec.gid_mappings):
        raise ConfigError(f"mount {spec.destination}: both uidMappings and gidMappings must be given")
    if spec.uid_mappings and not spec.idmap:
        spec.idmap = "idmap"
    if spec.idmap and not spec.bind:
        raise ConfigError(f"mount {spec.destination}: idmap works for bind mounts only")


def known_options() -> list[str]:
    """Return the names of all options with a meaning of their own, sorted."""
    names = {*_ATTRIBUTES, *_RECURSIVE, *_PROPAGATION, *_SUPERBLOCK, *_NO_EFFECT}
    return sorted(names | {"bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"})
