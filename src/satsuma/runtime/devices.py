"""Device rules of `linux.resources.devices`, as files of the v1 controller and as a list for the v2 program.

Both versions start from the last rule for all devices ("a"); without one everything is denied.  When everything
is denied, every container still gets what it cannot do without (as in runc): its standard nodes before the rules,
which may take them away again, and the making of nodes after them.

The rules count in their order.  The v1 controller keeps a set of exceptions instead and forgets a rule that makes
a hole in a wider one; such rules are refused there (and work in version 2).

Source: runtime-spec config-linux.md#allowed-device-list; security/device_cgroup.c; runc
libcontainer/cgroups/devices/devices_emulator.go.
"""

from __future__ import annotations

import errno
import os

from satsuma.linux.cgroup import UNIFIED, Cgroup
from satsuma.runtime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]
    # (allow, type "a" "b" "c", major or None, minor or None, access letters of "rwm")
    DeviceRule = tuple[bool, str, int | None, int | None, str]
    Numbers = tuple[str, int | None, int | None]
    # (file, line)
    DeviceWrite = tuple[str, str]

_DENY_ALL: DeviceRule = (False, "a", None, None, "rwm")
_NODES: tuple[DeviceRule, ...] = (
    (True, "c", 1, 3, "rwm"),
    (True, "c", 1, 8, "rwm"),
    (True, "c", 1, 7, "rwm"),
    (True, "c", 5, 0, "rwm"),
    (True, "c", 1, 5, "rwm"),
    (True, "c", 1, 9, "rwm"),
    (True, "c", 136, None, "rwm"),
    (True, "c", 5, 2, "rwm"),
    (True, "c", 10, 200, "rwm"),
)
_MAKE_NODES: tuple[DeviceRule, ...] = ((True, "c", None, None, "m"), (True, "b", None, None, "m"))
_ALLOW, _DENY = "devices.allow", "devices.deny"
_EVERYTHING = "a *:* rwm"
_LETTERS = "rwm"


def parse_devices(entries: list[Json]) -> list[DeviceRule]:
    """Return the rules in the order of their effect; the first one is for all devices.

    Raises:
        ConfigError: a rule that means nothing.
    """
    if not isinstance(entries, list):
        raise ConfigError("malformed spec file: linux.resources.devices has the wrong type")
    rules = [_parse(entry) for entry in entries]
    start = max((number for number, rule in enumerate(rules) if rule[1] == "a"), default=-1)
    base, rest = (rules[start] if start >= 0 else _DENY_ALL), rules[start + 1 :]
    if base[0]:
        return [base, *rest]
    if all(rule[0] for rule in rest):
        # Nothing is taken away: then the configured ones come first in the kernel's list as well, which is how
        # the validation suite of the specification reads it.
        return [base, *rest, *_NODES, *_MAKE_NODES]
    return [base, *_NODES, *rest, *_MAKE_NODES]


def _parse(entry: Json) -> DeviceRule:
    if not isinstance(entry, dict):
        raise ConfigError("malformed spec file: linux.resources.devices must be a list of objects")
    kind = entry.get("type") or "a"
    access = entry.get("access") or _LETTERS
    if kind not in ("a", "b", "c", "u") or not isinstance(access, str) or not set(access) <= set(_LETTERS):
        raise ConfigError(f"invalid device rule {entry!r}")
    numbers = []
    for key in ("major", "minor"):
        number = entry.get(key)
        if number is not None and (not isinstance(number, int) or not -1 <= number < 1 << 32):
            raise ConfigError(f"invalid device rule {entry!r}")
        numbers.append(None if number in (None, -1) else number)
    if kind == "a":
        return (bool(entry.get("allow")), "a", None, None, _LETTERS)
    return (bool(entry.get("allow")), "c" if kind == "u" else kind, *numbers, _sorted(access))  # type: ignore[return-value]


def _sorted(access: str | set[str]) -> str:
    return "".join(letter for letter in _LETTERS if letter in access)


def _text(numbers: Numbers, access: str | set[str]) -> str:
    kind, major, minor = numbers
    pair = f"{'*' if major is None else major}:{'*' if minor is None else minor}"
    return f"{kind} {pair} {_sorted(access)}"


def _covers(wide: Numbers, narrow: Numbers) -> bool:
    return wide[0] == narrow[0] and all(w in (None, n) for w, n in zip(wide[1:], narrow[1:], strict=True))


def _overlaps(one: Numbers, other: Numbers) -> bool:
    return one[0] == other[0] and all(
        a is None or b is None or a == b for a, b in zip(one[1:], other[1:], strict=True)
    )


def exceptions_v1(rules: list[DeviceRule]) -> dict[Numbers, set[str]]:
    """Return the exceptions of the v1 controller from its default (`rules[0]`) that mean the same.

    Raises:
        ConfigError: a rule makes a hole in an earlier, wider one: v1 cannot express that.
    """
    default = rules[0][0]
    found: dict[Numbers, set[str]] = {}
    for allow, kind, major, minor, access in rules[1:]:
        numbers = (kind, major, minor)
        if allow != default:
            found.setdefault(numbers, set()).update(access)
            continue
        for other, held in list(found.items()):
            if _covers(numbers, other):
                held -= set(access)
            elif _overlaps(numbers, other) and held & set(access):
                raise ConfigError(
                    f"requested rule [{'allow' if allow else 'deny'} {_text(numbers, access)}] not supported by "
                    f"devices cgroupv1 (cannot punch hole in existing wildcard rule [{_text(other, held)}])"
                )
    return {numbers: access for numbers, access in found.items() if access}


def plan_devices_v1(
    rules: list[DeviceRule], current: str = _EVERYTHING, *, fresh: bool = True
) -> list[DeviceWrite]:
    """Return the writes that turn the group's `devices.list` into *rules*.

    Only what changes is written, and what is new is allowed before the rest is denied: a running process does
    not lose a device for a moment.

    Args:
        current: text of devices.list.  It does not show exceptions from "everything is allowed".
        fresh: the group is new: such exceptions can only be those of its parent.
    """
    exceptions = exceptions_v1(rules)
    lines = [line for line in current.split("\n") if line]
    all_allowed = _EVERYTHING in lines
    if rules[0][0]:
        reset = [] if all_allowed and fresh else [(_ALLOW, "a")]
        return reset + [(_DENY, _text(numbers, access)) for numbers, access in exceptions.items()]
    if all_allowed:
        return [(_DENY, "a"), *((_ALLOW, _text(numbers, access)) for numbers, access in exceptions.items())]
    now = _parse_list(lines)
    changes = []
    for name, more, less in ((_ALLOW, exceptions, now), (_DENY, now, exceptions)):
        for numbers, access in more.items():
            if difference := access - less.get(numbers, set()):
                changes.append((name, _text(numbers, difference)))
    return changes


def _parse_list(lines: list[str]) -> dict[Numbers, set[str]]:
    found: dict[Numbers, set[str]] = {}
    for line in lines:
        kind, pair, access = line.split()
        major, minor = (None if number == "*" else int(number) for number in pair.split(":"))
        found.setdefault((kind, major, minor), set()).update(access)
    return found


def apply_devices(group: Cgroup, entries: list[Json], *, fresh: bool) -> None:
    """Make the group follow the rules.

    In a user namespace the kernel lets nobody do that: v1 is left alone, and so is v2 when it refuses, because
    such a container cannot make device nodes.

    Raises:
        ConfigError: rules that mean nothing or that v1 cannot express.
        OSError: the kernel refused.
    """
    rules = parse_devices(entries)
    if group.is_v2:
        _apply_v2(group, rules)
    elif "devices" not in group.dirs:
        text = "cannot set devices limit: container could not join or create cgroup"
        raise FileNotFoundError(errno.ENOENT, text)
    elif not _in_user_namespace():
        for name, line in plan_devices_v1(rules, group.read("devices", "devices.list"), fresh=fresh):
            group.write("devices", name, line)


def _apply_v2(group: Cgroup, rules: list[DeviceRule]) -> None:
    from satsuma.linux import bpf_devices  # brings ctypes

    fd = os.open(group.dirs[UNIFIED], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        bpf_devices.replace(fd, rules)
    except PermissionError:
        if not _in_user_namespace():
            raise
    finally:
        os.close(fd)


def _in_user_namespace() -> bool:
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return file.read().split() != [b"0", b"0", b"4294967295"]
    except OSError:
        return False
