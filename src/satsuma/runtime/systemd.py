"""The systemd cgroup driver: a container's group is a transient unit, its limits are the unit's properties.

Imported only where that driver is used.  Whatever systemd has no property for is written to cgroupfs afterwards,
as with the other driver.

A scope needs a process at birth, and the container's first process is to be born inside the group; a
placeholder, which does nothing and ends with us, holds the scope until then (`settle`).

Source: runc libcontainer/cgroups/systemd/{common,v1,v2}.go, docs/systemd.md; systemd.resource-control(5).
"""

from __future__ import annotations

import errno
import os

from satsuma.linux import inotify
from satsuma.linux.cgroup import UNIFIED, Cgroup, Layout, layout
from satsuma.linux.systemd import Manager, SystemdError
from satsuma.runtime.devices import exceptions_v1, parse_devices
from satsuma.runtime.errors import ConfigError
from satsuma.runtime.resources import cpu_weight, io_weight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.linux.systemd import Property

    Json = dict[str, Any]

_INFINITY = (1 << 64) - 1
_DEFAULT_PERIOD = 100000
_IDLE_VERSION = 252  # of systemd, which takes a weight of 0 for cpu.idle since then
_ANNOTATION = "org.systemd.property."
_SETTABLE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class SystemdGroup(Cgroup):
    """A group that systemd makes.

    Attributes:
        unit: name of the scope (or slice).
        resources: the limits with which the unit is made; set before `create`.
        annotations: of the container; those for systemd become properties.
    """

    __slots__ = ("_held", "_memory_events", "_starved", "annotations", "resources", "slice", "unit")

    def __init__(
        self, slice_name: str, unit: str, where: Layout | None = None, *, dirs: dict[str, str] | None = None
    ) -> None:
        self.slice = slice_name
        self.unit = unit
        self.resources: Json = {}
        self.annotations: Json = {}
        self._held: tuple[int, int] | None = None
        self._memory_events = -1
        self._starved = False
        path = expand_slice(unit) if unit.endswith(".slice") else f"{expand_slice(slice_name)}/{unit}"
        super().__init__(_own_manager() + path, where, dirs=dirs)

    def create(self) -> None:
        """Make the unit, then what systemd leaves out (v1 hierarchies it does not use).

        Raises:
            OSError: systemd refused; the text says why.
        """
        if not self.layout.mounts:
            super().create()
        is_slice = self.unit.endswith(".slice")
        try:
            with Manager() as manager:
                properties = self._unit_properties(manager.version)
                if not is_slice:
                    properties.append(("PIDs", ("au", [self._hold()])))
                manager.start_transient_unit(self.unit, properties)
                where = manager.unit_property(self.unit, "Slice" if is_slice else "Scope", "ControlGroup")
        except SystemdError as error:
            self.settle()
            raise OSError(errno.EIO, f"cannot create systemd unit: {error}") from error
        if where != self.path:
            raise OSError(
                errno.EIO, f"cannot use systemd unit {self.unit}: it is at {where}, not at {self.path}"
            )
        super().create()
        if self.is_v2:
            try:
                self._memory_events = self.watch_oom()
            except OSError:  # without the controller, or without the group
                self._memory_events = -1

    def _unit_properties(self, version: int) -> list[Property]:
        name = self.unit.removesuffix(".scope").removesuffix(".slice")
        properties: list[Property] = [("Description", ("s", f"Satsuma container {name}"))]
        if self.unit.endswith(".slice"):
            properties.append(("Wants", ("as", [self.slice])))
        else:
            properties += [("Slice", ("s", self.slice)), ("Delegate", ("b", True))]
        io = "IOAccounting" if self.is_v2 else "BlockIOAccounting"
        for accounting in ("MemoryAccounting", "CPUAccounting", io, "TasksAccounting"):
            properties.append((accounting, ("b", True)))
        properties.append(("DefaultDependencies", ("b", False)))
        properties += annotated_properties(self.annotations)
        return properties + resource_properties(self.resources, v2=self.is_v2, version=version)

    def _hold(self) -> int:
        """Start the placeholder; return its pid."""
        read, write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            try:
                os.close(write)
                os.read(read, 1)  # until we let go, or are gone
            finally:
                os._exit(0)
        os.close(read)
        self._held = (pid, write)
        return pid

    def settle(self) -> None:
        """Let go of the scope: a process of the container is in it, or nobody needs it any more."""
        if self._held is None:
            return
        if self._memory_events >= 0:
            # The start itself may have reached the limit, as the program may have done already.
            inotify.read(self._memory_events)
            self._starved = self.oom_kills() > 0
        (pid, write), self._held = self._held, None
        os.close(write)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:  # somebody reaps all children here
            return

    def may_have_starved(self) -> bool:
        """Tell whether systemd has removed the group, and it had reached its memory limit before.

        systemd removes an empty scope at once, sometimes before its counters could be read.
        """
        if self._memory_events < 0 or self.exists():
            return False
        return self._starved or any(
            mask & inotify.IN_MODIFY for _, mask, _ in inotify.read(self._memory_events)
        )

    def set_properties(self, changes: Json) -> None:
        """Tell systemd about new limits, so that it does not put the old ones back.

        Raises:
            OSError: systemd refused; nothing was changed.
        """
        try:
            with Manager() as manager:
                properties = resource_properties(changes, v2=self.is_v2, version=manager.version, fresh=False)
                if not properties:
                    return
                # In v1 systemd denies all devices for a moment before it allows what is allowed.
                frozen = not self.is_v2 and "devices" in changes and not self.is_frozen()
                if frozen:
                    self.freeze()
                try:
                    manager.set_unit_properties(self.unit, properties)
                finally:
                    if frozen:
                        self.thaw()
        except SystemdError as error:
            raise OSError(errno.EIO, f"cannot set limits: {error}") from error

    def remove(self, *, timeout: float = 2.0) -> None:
        """Stop the unit and remove what is left of its directories."""
        self.settle()
        if self._memory_events >= 0:
            os.close(self._memory_events)
            self._memory_events = -1
        try:
            with Manager() as manager:
                if not self.unit.endswith(".slice"):
                    manager.stop_unit(self.unit)
                manager.reset_failed_unit(self.unit)
        except SystemdError:
            # It may be restarting; an empty scope ends by itself.
            pass
        super().remove(timeout=timeout)


def _own_manager() -> str:
    """Return the group of the user's manager, "" for the system's."""
    if os.geteuid() == 0:
        return ""
    try:
        with Manager() as manager:
            return str(manager.manager_property("ControlGroup"))
    except SystemdError as error:
        raise OSError(errno.EIO, f"cannot create systemd unit: {error}") from error


def group_for(path: str, container_id: str, resources: Json, annotations: Json) -> SystemdGroup:
    """Return the group for `linux.cgroupsPath` in the form "slice:prefix:name".

    Raises:
        ConfigError: it has another form.
    """
    default = "system.slice" if os.geteuid() == 0 else "user.slice"
    parts = path.split(":") if path else [default, "satsuma", container_id]
    if len(parts) != 3 or not parts[2]:
        raise ConfigError(
            f'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "{path}" instead'
        )
    slice_name, prefix, name = parts
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if "/" in unit:
        raise ConfigError(f"invalid name of a systemd unit: {unit}")
    group = SystemdGroup(slice_name or default, unit)
    group.resources = resources
    group.annotations = annotations
    return group


def recorded_group(path: str, dirs: dict[str, str], where: Layout | None = None) -> Cgroup:
    """Return a group from what was recorded of it: one of systemd's, or a plain one.

    Args:
        path: below the mount points; "" finds it out from *dirs*.
    """
    where = where or layout()
    for controller, point in where.mounts.items():
        if not path and dirs.get(controller, "").startswith(point + "/"):
            path = dirs[controller][len(point) :]
    directory = dirs.get(UNIFIED) or next(iter(dirs.values()), "")
    unit = directory.rpartition("/")[2]
    if not unit.endswith((".scope", ".slice")):
        return Cgroup(path, where, dirs=dirs)
    group = SystemdGroup.__new__(SystemdGroup)
    Cgroup.__init__(group, path, where, dirs=dirs)
    group.slice, group.unit = "", unit
    group.resources, group.annotations, group._held = {}, {}, None
    group._memory_events, group._starved = -1, False
    return group


def expand_slice(name: str) -> str:
    """Return the path of a slice: "a-b.slice" is in "a.slice".

    Raises:
        ConfigError: not the name of a slice.
    """
    stem = name.removesuffix(".slice")
    if stem == "-" and name != stem:
        return ""
    parts = stem.split("-")
    if name == stem or "/" in name or not all(parts):
        raise ConfigError(f"invalid slice name: {name}")
    return "".join(f"/{'-'.join(parts[: depth + 1])}.slice" for depth in range(len(parts)))


# --- limits as properties --------------------------------------------------------------------------------------


def resource_properties(resources: Json, *, v2: bool, version: int, fresh: bool = True) -> list[Property]:
    """Return the properties for `linux.resources`; pure but for the names of devices.

    Args:
        version: systemd's.
        fresh: of a new unit: a missing list of devices is the standard one then.
    Raises:
        ConfigError: limits that mean nothing.
    """
    properties: list[Property] = []
    if fresh or resources.get("devices"):
        properties += _devices(resources.get("devices") or [])
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    properties += _memory(memory, v2=v2)
    properties += _cpu(cpu, v2=v2, version=version)
    weight = (resources.get("blockIO") or {}).get("weight")
    if weight:
        properties.append(("IOWeight", ("t", io_weight(weight))) if v2 else ("BlockIOWeight", ("t", weight)))
    pids = (resources.get("pids") or {}).get("limit")
    if pids is not None:
        properties.append(("TasksMax", ("t", _tasks(_or_infinity(pids)))))
    for key, name in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
        if cpu.get(key) and version >= 244:
            properties.append((name, ("ay", bit_mask(cpu[key]))))
    if v2:
        properties += _unified(resources.get("unified") or {}, version=version)
    return properties


def _or_infinity(value: int) -> int:
    return value if value >= 0 else _INFINITY


def _tasks(limit: int) -> int:
    """Return the least that systemd takes instead of 0; the exact value is written to the file (dbus-cgroup.c)."""
    return max(1, limit)


def _memory(memory: Json, *, v2: bool) -> list[Property]:
    limit, swap = memory.get("limit"), memory.get("swap")
    properties: list[Property] = []
    if limit:
        properties.append(("MemoryMax" if v2 else "MemoryLimit", ("t", _or_infinity(limit))))
    if not v2:
        return properties
    if memory.get("reservation"):
        properties.append(("MemoryLow", ("t", _or_infinity(memory["reservation"]))))
    if swap and (swap < 0 or (limit or 0) > 0):
        properties.append(("MemorySwapMax", ("t", _INFINITY if swap < 0 else max(0, swap - limit))))
    elif limit == -1:
        properties.append(("MemorySwapMax", ("t", _INFINITY)))
    return properties


def _cpu(cpu: Json, *, v2: bool, version: int) -> list[Property]:
    properties: list[Property] = []
    if v2 and cpu.get("idle") and version >= _IDLE_VERSION:
        properties.append(("CPUWeight", ("t", 0)))
    elif cpu.get("shares"):
        shares = cpu["shares"]
        properties.append(("CPUWeight", ("t", cpu_weight(shares))) if v2 else ("CPUShares", ("t", shares)))
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    return properties + _cpu_quota(quota, period, version)


def _cpu_quota(quota: int, period: int, version: int) -> list[Property]:
    properties: list[Property] = []
    if period and version >= 242:
        properties.append(("CPUQuotaPeriodUSec", ("t", period)))
    if quota or period:
        per_second = _INFINITY
        if quota > 0:
            per_second = quota * 1_000_000 // (period or _DEFAULT_PERIOD)
            # systemd keeps whole per cents; rounded up, so that the exact value, written to the file afterwards
            # and by whoever manages groups below, is not above it.
            per_second = -(-per_second // 10_000) * 10_000
        properties.append(("CPUQuotaPerSecUSec", ("t", per_second)))
    return properties


def bit_mask(text: str) -> bytes:
    """Return the numbers of "0-3,7" as bits, lowest byte first.

    Raises:
        ConfigError: not such a list.
    """
    mask = 0
    for part in text.replace(" ", "").strip(",\n").split(","):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            raise ConfigError(f"invalid list of numbers: {text!r}") from None
        if not 0 <= low <= high < 1 << 16:
            raise ConfigError(f"invalid list of numbers: {text!r}")
        mask |= (1 << (high + 1)) - (1 << low)
    return mask.to_bytes(-(-mask.bit_length() // 8), "little")


_UNIFIED_NUMBERS = {
    "cpu.weight": "CPUWeight",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def _unified(unified: Json, *, version: int) -> list[Property]:
    """Return properties for those files of `unified` for which there are any; all are written as files, too."""
    properties: list[Property] = []
    is_idle = str(unified.get("cpu.idle", "")).strip() == "1" and version >= _IDLE_VERSION
    for name, value in unified.items():
        text = str(value).strip()
        if name == "cpu.idle" and is_idle:
            properties.append(("CPUWeight", ("t", 0)))
        elif name in _UNIFIED_NUMBERS:
            if text != "max" and not _is_number(text):
                raise ConfigError(f"unified resource {name!r} value conversion error: {text!r}")
            number = _INFINITY if text == "max" else int(text)
            if name == "pids.max":
                number = _tasks(number)
            if name != "cpu.weight" or not is_idle:
                properties.append((_UNIFIED_NUMBERS[name], ("t", number)))
        elif name == "cpu.max":
            quota, _, period = text.partition(" ")
            if (quota != "max" and not _is_number(quota)) or (period and not _is_number(period)):
                raise ConfigError(f"unified resource {name!r} value conversion error: {text!r}")
            properties += _cpu_quota(
                -1 if quota == "max" else int(quota), int(period or _DEFAULT_PERIOD), version
            )
        elif name in ("cpuset.cpus", "cpuset.mems") and text and version >= 244:
            which = "AllowedCPUs" if name == "cpuset.cpus" else "AllowedMemoryNodes"
            properties.append((which, ("ay", bit_mask(text))))
    return properties


def _devices(entries: list[Json]) -> list[Property]:
    rules = parse_devices(entries)
    allowed: list[tuple[str, str]] = []
    try:
        exceptions = exceptions_v1(rules)
    except ConfigError:
        exceptions = None
    if rules[0][0] or exceptions is None:
        # systemd knows no list of what is denied, and no holes: our own rules, set before the program runs, bind.
        return [("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", []))]
    for (kind, major, minor), access in exceptions.items():
        path = _device_path(kind, major, minor)
        if path:
            allowed.append((path, "".join(letter for letter in "rwm" if letter in access)))
    return [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", allowed))]


def _device_path(kind: str, major: int | None, minor: int | None) -> str:
    """Return how systemd names devices; "" for a driver that this kernel does not have."""
    name = "block" if kind == "b" else "char"
    if major is None:
        return f"{name}-*" if minor is None else ""
    if minor is None:
        group = _driver(kind, major)
        return f"{name}-{group}" if group else ""
    return f"/dev/{name}/{major}:{minor}"


def _driver(kind: str, major: int) -> str:
    with open("/proc/devices", encoding="utf-8") as file:
        characters, _, blocks = file.read().partition("Block devices:")
    for line in (blocks if kind == "b" else characters).splitlines():
        number, _, name = line.strip().partition(" ")
        if number == str(major):
            return name
    return ""


# --- annotations ---------------------------------------------------------------------------------------------


def annotated_properties(annotations: Json) -> list[Property]:
    """Return the properties given as `org.systemd.property.NAME` = GVariant text; "…Sec" means microseconds.

    Raises:
        ConfigError: a name or value that is none.
    """
    properties: list[Property] = []
    for key, value in annotations.items():
        if not key.startswith(_ANNOTATION):
            continue
        name = key.removeprefix(_ANNOTATION)
        if len(name) < 3 or not set(name) <= _SETTABLE:
            raise ConfigError(f"annotation {key} name incorrect: {name}")
        parsed = parse_variant(str(value))
        if name.endswith("Sec") and name[-4:-3].islower():  # not "…USec"
            name, parsed = name.removesuffix("Sec") + "USec", _microseconds(key, parsed)
        properties.append((name, parsed))
    return properties


def _microseconds(key: str, parsed: tuple[str, Any]) -> tuple[str, Any]:
    kind, number = parsed
    if kind not in "nqiuxtd" or number < 0:
        raise ConfigError(f"annotation {key}: not a number of seconds")
    return ("t", min(_INFINITY, int(number * 1_000_000)))


_TYPE_WORDS = {
    "byte": "y",
    "boolean": "b",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}
_RANGES = {"y": (0, 8), "n": (1, 16), "q": (0, 16), "i": (1, 32), "u": (0, 32), "x": (1, 64), "t": (0, 64)}


def parse_variant(text: str) -> tuple[str, Any]:
    """Parse the part of GVariant's text format which properties of units need.

    That is: booleans, numbers and strings, each with an optional type word, and arrays of them.

    Raises:
        ConfigError: something else.
    """
    text = text.strip()
    word, _, rest = text.partition(" ")
    forced = _TYPE_WORDS.get(word, "")
    if forced:
        text = rest.strip()
    if text.startswith("[") and text.endswith("]"):
        items = [parse_variant(item) for item in _split_items(text[1:-1])]
        kinds = {kind for kind, _ in items} or {"s"}
        if forced or len(kinds) != 1:
            raise ConfigError(f"invalid value of a systemd property: {text!r}")
        return ("a" + kinds.pop(), [value for _, value in items])
    if text in ("true", "false") and forced in ("", "b"):
        return ("b", text == "true")
    if len(text) >= 2 and text[0] in "'\"" and text[-1] == text[0] and forced in ("", "s", "o", "g"):
        return (forced or "s", _unquote(text))
    return _parse_number(text, forced)


def _parse_number(text: str, forced: str) -> tuple[str, Any]:
    try:
        if forced == "d" or (not forced and any(mark in text for mark in ".eE") and "x" not in text):
            return ("d", float(text))
        number = int(text, 0)
    except ValueError:
        raise ConfigError(f"invalid value of a systemd property: {text!r}") from None
    kind = forced or "i"
    if kind not in _RANGES:
        raise ConfigError(f"invalid value of a systemd property: {text!r}")
    signed, bits = _RANGES[kind]
    if not -signed << (bits - 1) <= number < 1 << (bits - signed):
        raise ConfigError(f"value of a systemd property is out of range: {text!r}")
    return (kind, number)


def _unquote(text: str) -> str:
    out = []
    at = 1
    while at < len(text) - 1:
        if text[at] == "\\":
            at += 1
            out.append({"n": "\n", "t": "\t"}.get(text[at], text[at]))
        else:
            out.append(text[at])
        at += 1
    return "".join(out)


def _split_items(text: str) -> list[str]:
    items, current, quote = [], "", ""
    for character in text:
        if quote:
            quote = "" if character == quote and not current.endswith("\\") else quote
        elif character in "'\"":
            quote = character
        elif character == ",":
            items.append(current)
            current = ""
            continue
        current += character
    return [*items, current] if current.strip() or items else items
