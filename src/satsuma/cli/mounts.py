"""`-v [source:]target[:options]` and `--mount type=…,source=…,target=…`.

Source: docker documentation "Bind mounts", "Volumes"; measured on docker 28.2.
"""

from __future__ import annotations

import os

from satsuma.base.sizes import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def parse_volumes(specs: Iterable[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return `Binds` and `Volumes` of the API for all `-v` flags.

    A relative host path becomes absolute here, because only this side knows the working directory.

    Raises:
        ValueError: in docker's words.
    """
    binds: list[str] = []
    volumes: dict[str, dict[str, str]] = {}
    for spec in dict.fromkeys(specs):
        source = _source(spec)
        if not source:
            volumes[spec] = {}
            continue
        if source.startswith(".") and ":" in spec:
            host, _, rest = spec.partition(":")
            spec = f"{os.path.abspath(host)}:{rest}"
        binds.append(spec)
    return binds, volumes


def _source(spec: str) -> str:
    """Return what stands before the first colon; empty for a target alone."""
    if not spec:
        raise ValueError("invalid empty volume spec")
    if len(spec) <= 2:
        return ""
    parts = spec.split(":")
    if any(not part for part in parts):
        raise ValueError(f"invalid spec: {spec}: empty section between colons")
    if len(parts) > 3:
        raise ValueError(f"invalid spec: {spec}: too many colons")
    return parts[0] if len(parts) > 1 else ""


_SWITCHES = frozenset(("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"))


class _Mount:
    """A mount as it is put together key by key; the order of keys in the result is the API's."""

    def __init__(self) -> None:
        self.plain: dict[str, Any] = {"Type": "volume"}
        self.bind: dict[str, Any] | None = None
        self.volume: dict[str, Any] | None = None
        self.image: dict[str, Any] | None = None
        self.tmpfs: dict[str, Any] | None = None

    def result(self) -> dict[str, Any]:
        """Return the mount of the API."""
        names = ("Type", "Source", "Target", "ReadOnly", "Consistency")
        out = {key: self.plain[key] for key in names if self.plain.get(key)}
        parts = (("Bind", self.bind), ("Volume", self.volume), ("Image", self.image), ("Tmpfs", self.tmpfs))
        for name, part in parts:
            if part is not None:
                out[f"{name}Options"] = part
        return out

    def check(self) -> None:
        """Refuse options that do not belong together."""
        kind = self.plain["Type"]
        if not kind:
            raise ValueError("type is required")
        if not self.plain.get("Target"):
            raise ValueError("target is required")
        for name, part in (
            ("bind", self.bind),
            ("volume", self.volume),
            ("image", self.image),
            ("tmpfs", self.tmpfs),
        ):
            if part is not None and kind != name:
                raise ValueError(f"cannot mix '{name}-*' options with mount type '{kind}'")
        bind = self.bind or {}
        if bind.get("ReadOnlyNonRecursive") and not self.plain.get("ReadOnly"):
            raise ValueError(
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction"
            )
        if bind.get("ReadOnlyForceRecursive"):
            if not self.plain.get("ReadOnly"):
                raise ValueError(
                    "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"
                )
            if bind.get("Propagation") != "rprivate":
                raise ValueError(
                    "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' "
                    "to be specified in conjunction"
                )


def parse_mount(text: str) -> dict[str, Any]:
    """Return the mount of the API for one `--mount` flag.

    Raises:
        ValueError: in docker's words.
    """
    from satsuma.wire.csvflags import split_fields

    text = text.strip()
    if not text:
        raise ValueError("value is empty")
    mount = _Mount()
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        _check_blanks(field, key, value, has_value=bool(equals))
        key = key.lower()
        if not equals and key not in _SWITCHES:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        handler = _KEYS.get(key)
        if handler is None:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
        handler(mount, key, value if equals else None)
    mount.check()
    return mount.result()


def _check_blanks(field: str, key: str, value: str, *, has_value: bool) -> None:
    if key != key.strip():
        raise ValueError(f"invalid option '{key.strip()}' in '{field}': option should not have whitespace")
    if has_value and not value.strip():
        raise ValueError(f"invalid value for '{key}': value is empty")
    if value != value.strip():
        raise ValueError(f"invalid value for '{key}' in '{field}': value should not have whitespace")


def _bool(key: str, value: str | None) -> bool:
    if value is None or value in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if value in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f"invalid value for {key}: {value}")


def _set_type(mount: _Mount, _key: str, value: str | None) -> None:
    mount.plain["Type"] = (value or "").lower()


def _set_source(mount: _Mount, _key: str, value: str | None) -> None:
    value = value or ""
    mount.plain["Source"] = os.path.abspath(value) if value.startswith(".") else value


def _set_target(mount: _Mount, _key: str, value: str | None) -> None:
    mount.plain["Target"] = value


def _set_readonly(mount: _Mount, key: str, value: str | None) -> None:
    mount.plain["ReadOnly"] = _bool(key, value)


def _set_consistency(mount: _Mount, _key: str, value: str | None) -> None:
    mount.plain["Consistency"] = (value or "").lower()


def _bind(mount: _Mount) -> dict[str, Any]:
    mount.bind = {} if mount.bind is None else mount.bind
    return mount.bind


def _set_propagation(mount: _Mount, _key: str, value: str | None) -> None:
    _bind(mount)["Propagation"] = (value or "").lower()


def _set_nonrecursive(mount: _Mount, key: str, value: str | None) -> None:
    _bind(mount)["NonRecursive"] = _bool(key, value)


def _set_recursive(mount: _Mount, key: str, value: str | None) -> None:
    fields = {
        "disabled": "NonRecursive",
        "writable": "ReadOnlyNonRecursive",
        "readonly": "ReadOnlyForceRecursive",
    }
    if value in fields:
        _bind(mount)[fields[value]] = True
    elif value != "enabled":
        raise ValueError(
            f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")'
        )


def _set_create(mount: _Mount, key: str, value: str | None) -> None:
    if _bool(key, value):
        _bind(mount)["CreateMountpoint"] = True
    else:
        _bind(mount)


def _volume(mount: _Mount) -> dict[str, Any]:
    mount.volume = {} if mount.volume is None else mount.volume
    return mount.volume


def _set_subpath(mount: _Mount, _key: str, value: str | None) -> None:
    _volume(mount)["Subpath"] = value


def _set_nocopy(mount: _Mount, key: str, value: str | None) -> None:
    if _bool(key, value):
        _volume(mount)["NoCopy"] = True
    else:
        _volume(mount)


def _set_label(mount: _Mount, _key: str, value: str | None) -> None:
    _pair(_volume(mount), "Labels", value)


def _driver(mount: _Mount) -> dict[str, Any]:
    driver: dict[str, Any] = _volume(mount).setdefault("DriverConfig", {})
    return driver


def _set_driver(mount: _Mount, _key: str, value: str | None) -> None:
    _driver(mount)["Name"] = value


def _set_driver_option(mount: _Mount, _key: str, value: str | None) -> None:
    _pair(_driver(mount), "Options", value)


def _pair(target: dict[str, Any], field: str, text: str | None) -> None:
    key, _, value = (text or "").partition("=")
    if key:
        target.setdefault(field, {})[key] = value


def _set_image_subpath(mount: _Mount, _key: str, value: str | None) -> None:
    mount.image = {"Subpath": value}


def _set_tmpfs_size(mount: _Mount, key: str, value: str | None) -> None:
    try:
        size = parse_size(value or "")
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None
    mount.tmpfs = {**(mount.tmpfs or {}), "SizeBytes": size}


def _set_tmpfs_mode(mount: _Mount, key: str, value: str | None) -> None:
    text = value or ""
    if not text.isdigit() or set(text) - set("01234567"):
        raise ValueError(f"invalid value for {key}: {value}")
    mount.tmpfs = {**(mount.tmpfs or {}), "Mode": int(text, 8)}


_KEYS = {
    "type": _set_type,
    "source": _set_source,
    "src": _set_source,
    "target": _set_target,
    "dst": _set_target,
    "destination": _set_target,
    "readonly": _set_readonly,
    "ro": _set_readonly,
    "consistency": _set_consistency,
    "bind-propagation": _set_propagation,
    "bind-nonrecursive": _set_nonrecursive,
    "bind-recursive": _set_recursive,
    "bind-create-src": _set_create,
    "volume-subpath": _set_subpath,
    "volume-nocopy": _set_nocopy,
    "volume-label": _set_label,
    "volume-driver": _set_driver,
    "volume-opt": _set_driver_option,
    "image-subpath": _set_image_subpath,
    "tmpfs-size": _set_tmpfs_size,
    "tmpfs-mode": _set_tmpfs_mode,
}
