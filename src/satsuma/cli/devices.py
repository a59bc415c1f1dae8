"""`--device`, `--gpus` and the flags that limit block devices.

Source: docker documentation "docker run"; measured on docker 28.2.
"""

from __future__ import annotations

import posixpath

from satsuma.base.sizes import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def parse_devices(specs: Iterable[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Return `Devices` of the API and the names of CDI devices.

    Raises:
        ValueError: in docker's words.
    """
    devices, cdi = [], []
    for spec in specs:
        if is_cdi_name(spec):
            cdi.append(spec)
        else:
            devices.append(_device(spec))
    return devices, cdi


def is_cdi_name(text: str) -> bool:
    """Tell whether *text* is `vendor.com/class=name`."""
    kind, equals, name = text.partition("=")
    vendor, slash, family = kind.partition("/")
    return bool(equals and slash and vendor and family and name) and vendor[0].isalpha()


def _is_mode(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and not set(text) - set("rwm")


def _device(spec: str) -> dict[str, str]:
    parts = spec.split(":")
    if len(parts) > 3 or not parts[0]:
        raise ValueError(f"bad format for path: {spec}")
    source, target, mode = parts[0], parts[0], "rwm"
    if len(parts) == 2 and _is_mode(parts[1]):
        mode = parts[1]
    elif len(parts) > 1:
        target = parts[1]
    if len(parts) == 3:
        if not _is_mode(parts[2]):
            raise ValueError(f"bad mode specified: {parts[2]}")
        mode = parts[2]
    if not target.startswith("/"):
        raise ValueError(f"{target} is not an absolute path")
    if len(parts) < 3:
        clean = posixpath.normpath(target)
        source = clean if source == target else source
        target = clean
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": mode}


def parse_gpus(text: str) -> dict[str, Any]:
    """Return the device request of one `--gpus` flag.

    Raises:
        ValueError: in docker's words.
    """
    from satsuma.wire.csvflags import split_fields

    request: dict[str, Any] = {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": None,
        "Capabilities": None,
        "Options": {},
    }
    seen: set[str] = set()
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        if key in seen:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if not equals:
            seen.add("count")
            request["Count"] = _count(key)
        elif key == "driver":
            request["Driver"] = value
        elif key == "count":
            request["Count"] = _count(value)
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            pairs = (option.partition("=") for option in split_fields(value))
            request["Options"] = {name: option for name, _, option in pairs}
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    if request["Capabilities"] is None:
        request["Capabilities"] = [["gpu"]]
    return request


def _count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f'invalid count ({text}): value must be either "all" or an integer: invalid syntax'
        ) from None


def weights(specs: Iterable[str]) -> list[dict[str, Any]]:
    """Return `BlkioWeightDevice`."""
    return [
        {"Path": path, "Weight": int(value)} for path, _, value in (spec.partition(":") for spec in specs)
    ]


def rates(specs: Iterable[str]) -> list[dict[str, Any]]:
    """Return a throttle list in bytes or operations a second."""
    return [
        {"Path": path, "Rate": parse_size(value)}
        for path, _, value in (spec.partition(":") for spec in specs)
    ]
