"""Cache and memory bandwidth groups (`linux.intelRdt`), directories of a resctrl file system.

A container without `closID` gets a group of its own, which goes with it; a named one is shared and stays.

Source: runtime-spec config-linux.md#intelrdt; Documentation/filesystems/resctrl.rst; runc libcontainer/intelrdt.
"""

from __future__ import annotations

import os

from satsuma.linux import mountinfo
from satsuma.runtime.errors import ConfigError, RuntimeFailure, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Json = dict[str, Any]


def mount_point() -> str:
    """Return where resctrl is mounted.

    Raises:
        ConfigError: nowhere.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        for entry in mountinfo.parse(file.read()):
            if entry.fs_type == "resctrl":
                return os.fsdecode(entry.mount_point)
    raise ConfigError("linux.intelRdt needs a resctrl file system, and none is mounted on this machine")


class Group:
    """The group of one container.

    Attributes:
        directory: of the class of service.
        monitor: directory of a monitoring group, "" for none.
        made: what goes with the container, innermost first.
    """

    __slots__ = ("directory", "lines", "made", "monitor", "shared")

    def __init__(self, config: Json, container_id: str, top: str) -> None:
        """
        Args:
            top: mount point of resctrl.
        Raises:
            ConfigError: values of wrong types, or a name that is none.
        """
        name = _text(config, "closID")
        if name and (name in (".", "..") or "\n" in name or ("/" in name and name != "/")):
            raise ConfigError(f"invalid intelRdt.ClosID {name!r}")
        self.shared = bool(name)
        self.directory = top if name == "/" else f"{top}/{name or container_id}"
        self.lines = _schemata(config)
        self.monitor = f"{self.directory}/mon_groups/{container_id}" if _monitored(config) else ""
        self.made: list[str] = []

    def create(self) -> None:
        """Make the directories and write the schemata.

        Raises:
            RuntimeFailure: the kernel refuses, or a shared group has other values.
        """
        try:
            try:
                os.mkdir(self.directory, 0o755)
                if not self.shared:
                    self.made.append(self.directory)
                new = True
            except FileExistsError:
                new = False
            if new or not self.shared:
                self.write(self.lines)
            else:
                self._check_values()
            if self.monitor:
                os.mkdir(self.monitor, 0o755)
                self.made.insert(0, self.monitor)
        except OSError as error:
            remove(self.made)
            raise RuntimeFailure(
                f"unable to set up Intel RDT: {error.filename}: {error_text(error)}"
            ) from error
        except RuntimeFailure:
            remove(self.made)
            raise

    def write(self, lines: list[str]) -> None:
        """Change values."""
        path = f"{self.directory}/schemata"
        for line in lines:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, line.encode() + b"\n")
            except OSError as error:
                error.filename = f"{path} ({line})"
                raise
            finally:
                os.close(fd)

    def _check_values(self) -> None:
        with open(f"{self.directory}/schemata", encoding="ascii") as file:
            present = {_normal(line) for line in file}
        for line in self.lines:
            if _normal(line) not in present:
                raise RuntimeFailure(
                    f"intelRdt.closID {self.directory} exists, and {line!r} does not hold there"
                )

    def remove(self) -> None:
        """Remove what `create` has made."""
        remove(self.made)

    def join(self, pid: int) -> None:
        """Put a process, whose children will be there too, into the group."""
        enter(self.directory, [self.monitor] if self.monitor else [], pid)


def enter(directory: str, others: Sequence[str], pid: int) -> None:
    """Put a process into a class of service and into the other groups of a container (as in `Group.made`)."""
    for place in (directory, *(other for other in others if other != directory)):
        fd = os.open(f"{place}/tasks", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)


def remove(directories: list[str]) -> None:
    """Remove groups; gone ones are fine."""
    for directory in directories:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue


def _text(config: Json, key: str) -> str:
    value = config.get(key) or ""
    if not isinstance(value, str):
        raise ConfigError(f"malformed spec file: linux.intelRdt.{key} has the wrong type")
    return value


def _monitored(config: Json) -> bool:
    """Tell whether a monitoring group is wanted: enableMonitoring, or what it replaced in version 1.3."""
    wanted = False
    for key in ("enableMonitoring", "enableCMT", "enableMBM"):
        value = config.get(key) or False
        if not isinstance(value, bool):
            raise ConfigError(f"malformed spec file: linux.intelRdt.{key} has the wrong type")
        wanted = wanted or value
    return wanted


def _schemata(config: Json) -> list[str]:
    """Return the lines in the order of the specification: L3, MB, then the free ones."""
    l3, bandwidth = _text(config, "l3CacheSchema"), _text(config, "memBwSchema")
    free = config.get("schemata") or []
    if not isinstance(free, list) or not all(isinstance(line, str) for line in free):
        raise ConfigError("malformed spec file: linux.intelRdt.schemata must be a list of strings")
    # runc: a memory bandwidth in the schema for L3 gives way to the field of its own.
    lines = [line for line in l3.split("\n") if line and not (bandwidth and line.lstrip().startswith("MB:"))]
    return [*lines, *(line for line in bandwidth.split("\n") if line), *free]


def _normal(line: str) -> str:
    """Return "L3:0=f;1=f" without spaces and leading zeros, for comparisons."""
    kind, _, values = "".join(line.split()).partition(":")
    parts = []
    for entry in values.split(";"):
        domain, _, value = entry.partition("=")
        parts.append(f"{domain}={value.lower().lstrip('0') or '0'}")
    return f"{kind}:{';'.join(parts)}"
