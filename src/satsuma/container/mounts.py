"""What is mounted into a container: `-v`, `--mount`, `--volumes-from` and `--tmpfs` as values.

Parses and checks; makes nothing.  Source: moby volume/mounts/{linux_parser,validate}.go of 28.5.2, whose error
texts clients show.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable

from msgspec import Struct, structs

from satsuma.base.errors import InvalidParameter
from satsuma.spec.docker import BindOptions, DriverConfig, Mount, TmpfsOptions, VolumeOptions

_PROPAGATION = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
_COPY = frozenset({"nocopy"})
_GROUPS = (
    frozenset({"rw", "ro"}),
    frozenset({"z", "Z"}),
    _PROPAGATION,
    _COPY,
    frozenset({"consistent", "cached", "delegated", "default"}),
)
_TMPFS_OPTIONS = frozenset({"exec", "noexec"})


class MountPoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One mount of a container.

    Attributes:
        type: bind, volume, tmpfs or image.
        name: of the volume, or the image reference; "" for an anonymous volume until it exists.
        source: host path; for a volume, its data directory.
        copy_data: fill an empty volume from the image.
        spec: what the client asked for, for the rarer options.
        create_source: make a missing host directory (`-v` does, `--mount` does not).
        requested: True when it came from `--mount`, so that inspect shows it there.
    """

    type: str
    destination: str
    name: str = ""
    source: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    copy_data: bool = False
    anonymous: bool = False
    create_source: bool = False
    spec: Mount = Mount()

    def to_json(self) -> dict[str, object]:
        """Return the object of `Mounts` in list and inspect."""
        answer: dict[str, object] = {"Type": self.type}
        if self.name:
            answer["Name"] = self.name
        answer["Source"] = self.source
        answer["Destination"] = self.destination
        if self.driver:
            answer["Driver"] = self.driver
        answer["Mode"] = self.mode
        answer["RW"] = self.rw
        answer["Propagation"] = self.propagation
        return answer


def is_valid_mode(mode: str) -> bool:
    """Tell whether the third part of a `-v` is a list of known options, at most one of each kind."""
    if not mode:
        return True
    options = mode.split(",")
    known = [next((i for i, group in enumerate(_GROUPS) if option in group), -1) for option in options]
    return -1 not in known and len(set(known)) == len(known)


def is_read_write(mode: str) -> bool:
    return is_valid_mode(mode) and "ro" not in mode.split(",")


def parse_bind(raw: str, volume_driver: str = "") -> MountPoint:
    """Parse one `-v` as the API carries it in `Binds`: `[source:]destination[:options]`.

    Raises:
        InvalidParameter: `invalid volume specification: 'x'`, `invalid mode: x`, or both with the reason.
    """
    parts = raw.split(":", 3)
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and is_valid_mode(parts[1])):
        raise InvalidParameter(f"invalid volume specification: '{raw}'")
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    if not is_valid_mode(mode):
        raise InvalidParameter(f"invalid mode: {mode}")
    options = mode.split(",") if mode else []
    propagation = next((option for option in options if option in _PROPAGATION), "")
    is_bind = posixpath.isabs(source)
    volume_options = None
    if "nocopy" in options or (volume_driver and not is_bind):
        driver = DriverConfig(name=volume_driver) if volume_driver and not is_bind else None
        volume_options = VolumeOptions(driver_config=driver, no_copy="nocopy" in options)
    spec = Mount(
        type="bind" if is_bind else "volume",
        source=source,
        target=target,
        read_only="ro" in options,
        bind_options=BindOptions(propagation=propagation) if propagation else None,
        volume_options=volume_options,
    )
    try:
        point = parse_mount(spec, source_exists=lambda path: True)
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid volume specification: '{raw}': {error}")
    return structs.replace(point, mode=mode, create_source=is_bind)


def parse_mount(spec: Mount, source_exists: Callable[[str], bool] = os.path.lexists) -> MountPoint:
    """Check one `--mount` and return it as a mount point.

    Args:
        source_exists: asks the host whether the source of a bind is there.
    Raises:
        InvalidParameter: `invalid mount config for type "bind": …`.
    """
    reason = _fault(spec, source_exists)
    if reason:
        raise InvalidParameter(f'invalid mount config for type "{spec.type}": {reason}')
    destination = posixpath.normpath("/" + spec.target.lstrip("/"))
    common = {"type": spec.type, "destination": destination, "rw": not spec.read_only, "spec": spec}
    if spec.type == "volume":
        options = spec.volume_options or VolumeOptions()
        driver = options.driver_config.name if options.driver_config else ""
        return MountPoint(
            **common,  # type: ignore[arg-type]
            name=spec.source,
            driver=driver,
            copy_data=not options.no_copy,
            anonymous=not spec.source,
        )
    if spec.type == "bind":
        bind = spec.bind_options or BindOptions()
        return MountPoint(
            **common,  # type: ignore[arg-type]
            source=posixpath.normpath("/" + spec.source.lstrip("/")),
            propagation=bind.propagation or "rprivate",
            create_source=bind.create_mountpoint,
        )
    if spec.type == "image":
        return MountPoint(**(common | {"rw": False}), name=spec.source, propagation="rprivate")  # type: ignore[arg-type]
    return MountPoint(**common)  # type: ignore[arg-type]


def _fault(spec: Mount, source_exists: Callable[[str], bool]) -> str:
    if not spec.target:
        return "field Target must not be empty"
    if posixpath.normpath(spec.target.replace("\\", "/")) in ("/", "//"):
        return "invalid specification: destination can't be '/'"
    if not posixpath.isabs(spec.target):
        return f"invalid mount path: '{spec.target}' mount path must be absolute"
    check = {"bind": _bind_fault, "volume": _volume_fault, "tmpfs": _tmpfs_fault, "image": _image_fault}.get(
        spec.type
    )
    return check(spec, source_exists) if check else "mount type unknown"


def _bind_fault(spec: Mount, source_exists: Callable[[str], bool]) -> str:
    options = spec.bind_options
    if not spec.source:
        return "field Source must not be empty"
    if options and options.propagation and options.propagation not in _PROPAGATION:
        return f"invalid propagation mode: {options.propagation}"
    if spec.volume_options:
        return "field VolumeOptions must not be specified"
    if spec.image_options:
        return "field ImageOptions must not be specified"
    if not posixpath.isabs(spec.source):
        return f"invalid mount path: '{spec.source}' mount path must be absolute"
    if not (options and options.create_mountpoint) and not source_exists(spec.source):
        return f"bind source path does not exist: {spec.source}"
    return _recursion_fault(spec.read_only, options)


def _recursion_fault(read_only: bool, options: BindOptions | None) -> str:
    if options is None:
        return ""
    if not read_only and options.read_only_non_recursive:
        return "mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive"
    if not read_only and options.read_only_force_recursive:
        return "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive"
    if options.read_only_non_recursive and options.read_only_force_recursive:
        return "mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"
    return ""


def _volume_fault(spec: Mount, source_exists: Callable[[str], bool]) -> str:
    if spec.bind_options:
        return "field BindOptions must not be specified"
    if spec.image_options:
        return "field ImageOptions must not be specified"
    subpath = spec.volume_options.subpath if spec.volume_options else ""
    if subpath and not spec.source:
        return "must not set Subpath when using anonymous volumes"
    if subpath and not is_local_path(subpath):
        return "subpath must be a relative path within the volume"
    if spec.read_only and not spec.source:
        return "must not set ReadOnly mode when using anonymous volumes"
    return ""


def _tmpfs_fault(spec: Mount, source_exists: Callable[[str], bool]) -> str:
    if spec.bind_options:
        return "field BindOptions must not be specified"
    if spec.image_options:
        return "field ImageOptions must not be specified"
    if spec.source:
        return "field Source must not be specified"
    for option in (spec.tmpfs_options.options if spec.tmpfs_options else None) or []:
        if not 1 <= len(option) <= 2:
            return "invalid option array length"
        if option[0] not in _TMPFS_OPTIONS:
            return f"invalid option: {option[0]}"
    return ""


def _image_fault(spec: Mount, source_exists: Callable[[str], bool]) -> str:
    if spec.bind_options:
        return "field BindOptions must not be specified"
    if spec.volume_options:
        return "field VolumeOptions must not be specified"
    if not spec.source:
        return "field Source must not be empty"
    if spec.image_options and spec.image_options.subpath and not is_local_path(spec.image_options.subpath):
        return "subpath must be a relative path within the volume"
    return ""


def is_local_path(path: str) -> bool:
    """Tell whether *path* is relative and, read as text, stays below where it starts (Go's filepath.IsLocal)."""
    return bool(path) and not path.startswith("/") and not posixpath.normpath(path).startswith("..")


def parse_volumes_from(spec: str) -> tuple[str, str]:
    """Split `container[:mode]` of `--volumes-from`.

    Raises:
        InvalidParameter: empty, or a mode that cannot be inherited.
    """
    if not spec:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    reference, _, mode = spec.partition(":")
    options = mode.split(",") if mode else []
    if mode and (not is_valid_mode(mode) or any(o in _PROPAGATION or o in _COPY for o in options)):
        raise InvalidParameter(f"invalid mode: {mode}")
    return reference, mode or "rw"


def check_tmpfs_destination(destination: str) -> None:
    """Refuse a `--tmpfs` on `/` or on a relative path."""
    if posixpath.normpath(destination) in ("/", "//"):
        raise InvalidParameter("invalid specification: destination can't be '/'")
    if not posixpath.isabs(destination):
        raise InvalidParameter(f"invalid mount path: '{destination}' mount path must be absolute")


def tmpfs_options(options: TmpfsOptions | None, *, read_only: bool) -> list[str]:
    """Return the mount options of a `--mount type=tmpfs`."""
    answer = ["ro"] if read_only else []
    if options is None:
        return answer
    if options.mode:
        answer.append(f"mode={options.mode:o}")
    if options.size_bytes:
        answer.append(f"size={options.size_bytes}")
    answer.extend("=".join(option) for option in options.options or [])
    return answer


def merge_points(groups: list[list[MountPoint]], tmpfs: dict[str, str] | None) -> dict[str, MountPoint]:
    """Lay mount points over each other by destination: volumes-from first, then `-v`, then `--mount`.

    Raises:
        InvalidParameter: `Duplicate mount point: /x` within what the client asked for.
    """
    inherited, binds, mounts = groups
    answer = {point.destination: point for point in inherited}
    asked: set[str] = set()
    for point in binds:
        if point.destination in asked or point.destination in (tmpfs or {}):
            raise InvalidParameter(f"Duplicate mount point: {point.destination}")
        asked.add(point.destination)
        answer[point.destination] = point
    for point in mounts:
        if point.destination in asked:
            raise InvalidParameter(f"Duplicate mount point: {point.spec.target}")
        asked.add(point.destination)
        answer[point.destination] = point
    return answer
