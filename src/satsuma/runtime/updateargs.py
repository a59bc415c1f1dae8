"""The command `update`: limits from flags or from a file, merged into the stored configuration.

Source: runc update.go; sizes as in docker/go-units RAMInBytes.
"""

from __future__ import annotations

import sys

from satsuma.linux.cgroup import layout
from satsuma.runtime import fastjson, resources
from satsuma.runtime.errors import ConfigError, RuntimeFailure, error_text

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
_RDT_FLAGS = {"l3-cache-schema": "l3CacheSchema", "mem-bw-schema": "memBwSchema"}
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
    for flag in ("kernel-memory", "kernel-memory-tcp"):
        if flag in values:
            raise ConfigError(f"--{flag}: kernel memory limits are not supported")
    result: Json = {}
    for flag, (group, key) in _INT_FLAGS.items():
        if flag in values:
            result.setdefault(group, {})[key] = values[flag]
    for flag, (group, key) in _SIZE_FLAGS.items():
        if flag in values:
            try:
                result.setdefault(group, {})[key] = _size(values[flag])
            except ConfigError as error:
                raise ConfigError(f"invalid value for {flag}: {error}") from error
    return result


def _read(path: str) -> Json:
    if path == "-":
        data = sys.stdin.buffer.read(1 << 20)
    else:
        try:
            with open(path, "rb") as file:
                data = file.read(1 << 20)
        except OSError as error:
            raise RuntimeFailure(f"open {path}: {error_text(error)}") from error
    try:
        value = fastjson.loads(data)
    except ValueError as error:
        raise ConfigError(f"malformed resources: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError("malformed resources: not a JSON object")
    return value


def _update_intel_rdt(container: Container, values: Json) -> None:
    schemata = {key: values[flag] for flag, key in _RDT_FLAGS.items() if flag in values}
    if not schemata:
        return
    directory = container.data.get("intel_rdt_path")
    if not directory:
        raise RuntimeFailure(
            "Intel RDT/CAT: l3 cache schema is not enabled"
            if "l3CacheSchema" in schemata
            else "Intel RDT/MBA: memory bandwidth schema is not enabled"
        )
    from satsuma.runtime import resctrl

    stored = container.config["linux"]["intelRdt"]
    group = resctrl.Group({**stored, **schemata}, container.id, directory)
    group.directory = directory
    try:
        group.write(group.lines)
    except OSError as error:
        raise RuntimeFailure(f"unable to update Intel RDT: {error.filename}: {error.strerror}") from error
    stored.update(schemata)


def update(container: Container, values: Json) -> None:
    """Apply new limits and remember them."""
    if container.status() == "stopped":
        raise RuntimeFailure("container not running")
    asked = wanted(values)
    resources.check(asked)
    _update_intel_rdt(container, values)
    if (asked.get("memory") or {}).get("kernel"):
        raise ConfigError("memory.kernel: kernel memory limits are not supported")
    changes = {key: value for key, value in asked.items() if value not in (None, {}, [])}
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
