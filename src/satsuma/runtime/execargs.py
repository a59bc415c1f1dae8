"""The process that `exec` starts, from its flags and the container's own configuration.

Source: runc exec.go (getProcess).
"""

from __future__ import annotations

from satsuma.runtime import fastjson
from satsuma.runtime.config import CAPABILITY_SETS
from satsuma.runtime.errors import ConfigError, RuntimeFailure, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]


def process_from(config: Json, values: Json, args: list[str]) -> Json:
    """Return an OCI `process` object.

    Raises:
        ConfigError: contradicting or malformed flags.
    """
    if "process" in values:
        return _read_process(values["process"])
    process: Json = dict(config.get("process") or {})
    if not args:
        raise ConfigError("process args cannot be empty")
    process["args"] = args
    process["terminal"] = bool(values.get("tty"))
    process["env"] = [*(process.get("env") or []), *values.get("env", [])]
    process["user"] = _user(dict(process.get("user") or {}), values)
    for flag, key in (("cwd", "cwd"), ("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if values.get(flag):
            process[key] = values[flag]
    if values.get("no-new-privs"):
        process["noNewPrivileges"] = True
    process["capabilities"] = _capabilities(process.get("capabilities") or {}, values.get("cap", []))
    process.setdefault("cwd", "/")
    return process


def _read_process(path: str) -> Json:
    try:
        with open(path, "rb") as file:
            process = fastjson.loads(file.read())
    except OSError as error:
        raise RuntimeFailure(f"open {path}: {error_text(error)}") from error
    except ValueError as error:
        raise ConfigError(f"malformed process file: {error}") from error
    if not isinstance(process, dict):
        raise ConfigError("malformed process file: not a JSON object")
    return process


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ConfigError(
            f'parsing {text} as int for {what} failed: strconv.Atoi: parsing "{text}": invalid syntax'
        )
    return int(text)


def _user(user: Json, values: Json) -> Json:
    spec = values.get("user")
    if spec:
        uid, colon, gid = spec.partition(":")
        user["uid"] = _number(uid, "uid")
        if colon:
            user["gid"] = _number(gid, "gid")
    for gid in values.get("additional-gids", []):
        if not 0 <= gid < 1 << 32:
            raise ConfigError(f"additional gid {gid} is out of range")
        user["additionalGids"] = [*(user.get("additionalGids") or []), gid]
    return user


def _capabilities(sets: Json, added: list[str]) -> Json:
    """Add capabilities to the three sets that matter; ambient follows only if it is there already."""
    result = {name: list(sets.get(name) or []) for name in CAPABILITY_SETS}
    for cap in added:
        for name in ("bounding", "effective", "permitted"):
            if cap not in result.setdefault(name, []):
                result[name].append(cap)
    return result
