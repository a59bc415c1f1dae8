"""The command `update`: limits from flags or from a file, merged into the stored configuration.

Source: runc update.go; sizes as in docker/go-units RAMInBytes.
"""

from __future__ import annotations

import sys

from satsuma.linux.cgroup import layout
from satsuma.runtime import fastjson, resources
from satsuma.runtime.errors import ConfigError, RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.runtime.state import Container

    Json = dict[str, Any]

_INT_FLAGS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "pids-limit": ("pids", "limit"),
}
_SIZE_FLAGS = {
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
}


def _size(text: str) -> int:
    from satsuma.base.sizes import parse_size

    if text == "-1":
        return -1
    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigError(f"invalid size: '{text}'") from error


def wanted(values: Json) -> Json:
    """Return the resources object that the flags describe."""
    if "resources" in values:
        return _read(values["resources"])
    for flag in ("l3-cache-schema", "mem-bw-schema"):
        if flag in values:
            raise ConfigError(f"--{flag}: Intel RDT is not supported")
    for flag in ("kernel-memory", "kernel-memory-tcp"):
        if flag in values:
            raise ConfigError(f"--{flag}: kernel memory limits are not supported")
    result: Json = {}
    for flag, (group, key) in _INT_FLAGS.items():
        if flag in values:
            result.setdefault(group, {})[key] = values[flag]
    for flag, (group, key) in _SIZE_FLAGS.items():
        if flag in values:
            result.setdefault(group, {})[key] = _size(values[flag])
    return result


def _read(path: str) -> Json:
    if path == "-":
        data = sys.stdin.buffer.read(1 << 20)
    else:
        with open(path, "rb") as file:
            data = file.read(1 << 20)
    try:
        value = fastjson.loads(data)
    except ValueError as error:
        raise ConfigError(f"malformed resources: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError("malformed resources: not a JSON object")
    return value


def update(container: Container, values: Json) -> None:
    """Apply new limits and remember them."""
    if container.status() == "stopped":
        raise RuntimeFailure("cannot update a stopped container")
    changes = {key: value for key, value in wanted(values).items() if value not in (None, {}, [])}
    try:
        resources.update(container.cgroup(layout()), changes)
    except OSError as error:
        raise RuntimeFailure(resources.failure_text(error)) from error
    stored = container.config.setdefault("linux", {}).setdefault("resources", {})
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(stored.get(key), dict):
            stored[key] = {**stored[key], **value}
        else:
            stored[key] = value
    container.save()
