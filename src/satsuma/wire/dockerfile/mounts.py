"""The value of `RUN --mount=`: comma-separated `key=value` fields.

Source: docs.docker.com/reference/dockerfile/#run---mount.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass

from satsuma.base.sizes import parse_size
from satsuma.wire.dockerfile.errors import DockerfileError, did_you_mean
from satsuma.wire.goquote import quote

__all__ = ["RunMount", "check_mount", "parse_mount"]

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = (
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "readwrite",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
    *_ALIASES,
)
# strconv.ParseBool
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """One mount of one RUN.

    Attributes:
        size: bytes, 0 for no limit (tmpfs).
        mode, uid, gid: None where not given.
        env: name of the variable of a secret; None where not given.
    """

    type: str = "bind"
    source_stage: str = ""
    source: str = ""
    target: str = ""
    readonly: bool = True
    size: int = 0
    id: str = ""
    sharing: str = ""
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def check_mount(text: str) -> None:
    """Check what can be checked before variables have values: `from` takes none."""
    for field in _fields(text):
        key, equals, value = field.partition("=")
        if equals and key.lower() == "from" and "$" in value[:-1]:
            raise DockerfileError("'from' doesn't support variable expansion, define alias stage instead")


def parse_mount(text: str, expand: Callable[[str], str]) -> RunMount:
    """Parse *text*, with variables in the values expanded by *expand*.

    Raises:
        DockerfileError: unknown key or value, or keys that do not go together.
    """
    values: dict[str, str] = {}
    flags: dict[str, bool] = {}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        name = _ALIASES.get(key, key)
        if not equals:
            if name not in ("readonly", "readwrite", "required"):
                raise DockerfileError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        elif name not in _KEYS:
            hint = did_you_mean(key, _KEYS, case_sensitive=True)
            raise DockerfileError(f"unexpected key '{key}' in '{field}'{hint}")
        else:
            value = expand(value)
        if name in ("readonly", "readwrite", "required"):
            if value not in _BOOLEANS:
                raise DockerfileError(f"invalid value for {key}: {value}")
            flags[name] = _BOOLEANS[value]
        else:
            values[name] = value
    return _mount(values, flags)


def _fields(text: str) -> list[str]:
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as exc:
        raise DockerfileError(f"failed to parse csv mounts: {exc}") from None
    return rows[0] if rows else []


def _mount(values: dict[str, str], flags: dict[str, bool]) -> RunMount:
    kind = values.get("type", "bind").lower()
    if kind not in _TYPES:
        shown = values["type"]
        hint = did_you_mean(shown, _TYPES, case_sensitive=True)
        raise DockerfileError(f"unsupported mount type {quote(shown)}{hint}")
    sharing = values.get("sharing", "").lower()
    if "sharing" in values and sharing not in _SHARING:
        hint = did_you_mean(values["sharing"], _SHARING, case_sensitive=True)
        raise DockerfileError(f"unsupported sharing value {quote(values['sharing'])}{hint}")
    if sharing and kind != "cache":
        raise DockerfileError(f"invalid cache sharing set for {kind} mount")
    if "required" in flags and kind not in ("secret", "ssh"):
        raise DockerfileError(f"unexpected key 'required' for mount type '{kind}'")
    if "size" in values and kind != "tmpfs":
        raise DockerfileError(f"unexpected key 'size' for mount type '{kind}'")
    for key in ("mode", "uid", "gid"):
        if key in values and kind not in ("secret", "ssh", "cache"):
            raise DockerfileError(f"{key} not allowed for {quote(kind)} type mounts")
    readonly = kind not in ("cache", "tmpfs")
    if "readonly" in flags:
        readonly = flags["readonly"]
    if "readwrite" in flags:
        readonly = not flags["readwrite"]
    return RunMount(
        type=kind,
        source_stage=values.get("from", ""),
        source=values.get("source", ""),
        target=values.get("target", ""),
        readonly=readonly,
        size=_size(values.get("size", "")),
        id=values.get("id", ""),
        sharing=sharing,
        required=flags.get("required", False),
        env=values.get("env"),
        mode=_number("mode", values.get("mode"), 8),
        uid=_number("uid", values.get("uid"), 10),
        gid=_number("gid", values.get("gid"), 10),
    )


def _size(text: str) -> int:
    if not text:
        return 0
    try:
        return parse_size(text)
    except ValueError:
        raise DockerfileError(f"invalid value for size: {text}") from None


def _number(key: str, text: str | None, base: int) -> int | None:
    if text is None:
        return None
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 32:
        raise DockerfileError(f"invalid value {text} for {key}")
    return value
