"""The runtime-spec's config.json, checked: a plain dictionary becomes a `Config` or a `ConfigError`.

Unknown keys are ignored, as the specification asks; wrong types, unknown values of closed sets and what we do
not support are errors.  Nothing here looks at the machine.

Extensions, all optional: `process.user.username` ("u", "u:g", "1000", "1000:1000") is resolved against the
container's own passwd file, and `process.user.additionalGroups` (names or numbers) against its group file.

Source: runtime-spec 1.3 config.md, config-linux.md; messages of runc (libcontainer/configs/validate).
"""

from __future__ import annotations

from satsuma.linux import caps
from satsuma.runtime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

# runtime-spec name -> name in /proc/PID/ns
NAMESPACES = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
RLIMITS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
SCHEDULERS = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
MEMORY_POLICIES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_POLICY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
CAPABILITY_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
PROPAGATIONS = ("shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable")
_IPC_SYSCTLS = frozenset(
    "kernel." + name for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)


def _typed(parent: Json, key: str, kind: type, where: str = "") -> Any:
    """Return parent[key] checked against *kind*; None when absent or null."""
    value = parent.get(key)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"malformed spec file: {where}{key} has the wrong type")
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"malformed spec file: {where}{key} contains a NUL character")
    return value


def _strings(parent: Json, key: str, where: str = "") -> list[str]:
    values = _typed(parent, key, list, where) or []
    for value in values:
        if not isinstance(value, str) or "\0" in value:
            raise ConfigError(f"malformed spec file: {where}{key} must be a list of strings")
    return list(values)


def _objects(parent: Json, key: str, where: str = "") -> list[Json]:
    values = _typed(parent, key, list, where) or []
    for value in values:
        if not isinstance(value, dict):
            raise ConfigError(f"malformed spec file: {where}{key} must be a list of objects")
    return list(values)


def _string_map(parent: Json, key: str, where: str = "") -> dict[str, str]:
    values = _typed(parent, key, dict, where) or {}
    for value in values.values():
        if not isinstance(value, str):
            raise ConfigError(f"malformed spec file: {where}{key} must map strings to strings")
    return dict(values)


def _number(parent: Json, key: str, where: str, *, low: int = 0, high: int = (1 << 32) - 1) -> int | None:
    value: int | None = _typed(parent, key, int, where)
    if value is not None and not low <= value <= high:
        raise ConfigError(f"malformed spec file: {where}{key} {value} is out of range")
    return value


class Process:
    """The `process` object, checked.

    Attributes:
        caps: the masks (bounding, effective, permitted, inheritable, ambient), None when not configured.
        rlimits: (number, name, soft, hard).
        user: the specification to resolve inside the container, None when uid and gid are numbers.
    """

    __slots__ = (
        "additional_gids",
        "additional_groups",
        "apparmor_profile",
        "args",
        "caps",
        "console_size",
        "cwd",
        "env",
        "exec_cpu_affinity",
        "gid",
        "io_priority",
        "no_new_privileges",
        "oom_score_adj",
        "rlimits",
        "scheduler",
        "selinux_label",
        "terminal",
        "uid",
        "umask",
        "unknown_caps",
        "user",
    )

    def __init__(self, raw: Json) -> None:
        self.args = _strings(raw, "args", "process.")
        if not self.args:
            raise ConfigError("args must not be empty")
        if _typed(raw, "commandLine", str):
            raise ConfigError("process.commandLine is for Windows only")
        self.env = _strings(raw, "env", "process.")
        self.cwd: str = _typed(raw, "cwd", str, "process.") or ""
        if not self.cwd.startswith("/") or "\0" in self.cwd:
            raise ConfigError("Cwd must be an absolute path")
        self.terminal: bool = bool(_typed(raw, "terminal", bool, "process."))
        size = _typed(raw, "consoleSize", dict, "process.") or {}
        height, width = (_number(size, key, "consoleSize.") or 0 for key in ("height", "width"))
        self.console_size: tuple[int, int] = (height, width)
        self.no_new_privileges = bool(_typed(raw, "noNewPrivileges", bool, "process."))
        self.apparmor_profile: str = _typed(raw, "apparmorProfile", str, "process.") or ""
        self.selinux_label: str = _typed(raw, "selinuxLabel", str, "process.") or ""
        self.oom_score_adj = _number(raw, "oomScoreAdj", "process.", low=-1000, high=1000)
        self._read_user(_typed(raw, "user", dict, "process.") or {})
        self._read_caps(_typed(raw, "capabilities", dict, "process."))
        self.rlimits = _parse_rlimits(_objects(raw, "rlimits", "process."))
        self.scheduler = _parse_scheduler(_typed(raw, "scheduler", dict, "process."))
        self.io_priority = _parse_io_priority(_typed(raw, "ioPriority", dict, "process."))
        affinity = _typed(raw, "execCPUAffinity", dict, "process.") or {}
        self.exec_cpu_affinity: tuple[list[int], list[int]] = (
            parse_cpu_list(_typed(affinity, "initial", str) or ""),
            parse_cpu_list(_typed(affinity, "final", str) or ""),
        )

    def _read_user(self, user: Json) -> None:
        self.uid = _number(user, "uid", "process.user.") or 0
        self.gid = _number(user, "gid", "process.user.") or 0
        self.umask = _number(user, "umask", "process.user.", high=0o7777)
        gids = _typed(user, "additionalGids", list, "process.user.") or []
        if not all(type(gid) is int and 0 <= gid < 1 << 32 for gid in gids):
            raise ConfigError("malformed spec file: process.user.additionalGids has the wrong type")
        self.additional_gids: list[int] = list(gids)
        # Present but empty means the default user, with the groups that the group file gives it.
        self.user: str | None = _typed(user, "username", str, "process.user.")
        self.additional_groups = _strings(user, "additionalGroups", "process.user.")

    def _read_caps(self, sets: Json | None) -> None:
        self.caps: tuple[int, int, int, int, int] | None = None
        self.unknown_caps: list[str] = []
        if sets is None:
            return
        masks = []
        for name in CAPABILITY_SETS:
            mask, unknown = caps.mask(_strings(sets, name, "process.capabilities."))
            masks.append(mask)
            self.unknown_caps += [cap for cap in unknown if cap not in self.unknown_caps]
        self.caps = (masks[0], masks[1], masks[2], masks[3], masks[4])


def _parse_rlimits(entries: list[Json]) -> list[tuple[int, str, int, int]]:
    limits: list[tuple[int, str, int, int]] = []
    for entry in entries:
        name = _typed(entry, "type", str, "rlimits.")
        if name not in RLIMITS:
            raise ConfigError(f"wrong rlimit value: {name}")
        if any(limit[1] == name for limit in limits):
            raise ConfigError(f"rlimit {name} is given twice")
        soft = _number(entry, "soft", "rlimits.", high=(1 << 64) - 1) or 0
        hard = _number(entry, "hard", "rlimits.", high=(1 << 64) - 1) or 0
        limits.append((RLIMITS[name], name, soft, hard))
    return limits


def _parse_scheduler(entry: Json | None) -> bytes | None:
    """Return struct sched_attr for sched_setattr(2)."""
    if entry is None:
        return None
    policy = _typed(entry, "policy", str, "scheduler.")
    if policy not in SCHEDULERS:
        raise ConfigError(f"invalid scheduler policy {policy}")
    flags = 0
    for flag in _strings(entry, "flags", "scheduler."):
        if flag not in SCHEDULER_FLAGS:
            raise ConfigError(f"invalid scheduler flag {flag}")
        flags |= SCHEDULER_FLAGS[flag]
    nice = _number(entry, "nice", "scheduler.", low=-20, high=19) or 0
    priority = _number(entry, "priority", "scheduler.", high=99) or 0
    attr = (48).to_bytes(4, "little") + SCHEDULERS[policy].to_bytes(4, "little")
    attr += (
        flags.to_bytes(8, "little") + nice.to_bytes(4, "little", signed=True) + priority.to_bytes(4, "little")
    )
    for key in ("runtime", "deadline", "period"):
        attr += (_number(entry, key, "scheduler.", high=(1 << 64) - 1) or 0).to_bytes(8, "little")
    return attr


def _parse_io_priority(entry: Json | None) -> int | None:
    if entry is None:
        return None
    kind = _typed(entry, "class", str, "ioPriority.")
    if kind not in IO_CLASSES:
        raise ConfigError(f"invalid ioPriority class {kind}")
    return IO_CLASSES[kind] << 13 | (_number(entry, "priority", "ioPriority.", high=7) or 0)


def _parse_memory_policy(entry: Json | None) -> tuple[int, list[int]] | None:
    """Return (mode and flags, nodes) for set_mempolicy(2)."""
    if entry is None:
        return None
    where = "linux.memoryPolicy."
    mode = _typed(entry, "mode", str, where) or ""
    if mode not in MEMORY_POLICIES:
        raise ConfigError(f"invalid memory policy mode {mode!r}")
    bits = MEMORY_POLICIES[mode]
    for flag in _strings(entry, "flags", where):
        if flag not in MEMORY_POLICY_FLAGS:
            raise ConfigError(f"invalid memory policy flag {flag!r}")
        bits |= MEMORY_POLICY_FLAGS[flag]
    return bits, parse_cpu_list(_typed(entry, "nodes", str, where) or "")


_MAX_CPUS = 8192
_CPU_DIGITS = 10


def parse_cpu_list(text: str) -> list[int]:
    """Return the numbers in a list like "0-3,7"."""
    numbers: list[int] = []
    for part in text.split(","):
        part = part.strip()
        if not part:
            continue
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit()) or (dash and not (last.isascii() and last.isdigit())):
            raise ConfigError(f"invalid list of numbers {text!r}")
        # No machine has more of them, and no list needs to name one twice.
        if max(len(first), len(last)) > _CPU_DIGITS or len(numbers) > _MAX_CPUS:
            raise ConfigError(f"invalid list of numbers {text!r:.100}")
        low, high = int(first), int(last if dash else first)
        if high < low or high >= _MAX_CPUS:
            raise ConfigError(f"invalid list of numbers {text!r}")
        numbers.extend(range(low, high + 1))
    return numbers


class Config:
    """A checked configuration.

    Attributes:
        raw: the dictionary as given.
        namespaces: kind ("net", "mnt" …) -> path, "" for a new one; kinds not in it are inherited.
        process: None when the configuration has none (it is needed at start only).
    """

    __slots__ = (
        "annotations",
        "cgroups_path",
        "devices",
        "domainname",
        "gid_mappings",
        "hooks",
        "hostname",
        "intel_rdt",
        "linux",
        "masked_paths",
        "memory_policy",
        "mounts",
        "namespaces",
        "net_devices",
        "process",
        "raw",
        "readonly_paths",
        "resources",
        "root_path",
        "root_readonly",
        "seccomp",
        "sysctl",
        "time_offsets",
        "uid_mappings",
    )

    def __init__(self, raw: Json) -> None:
        if not isinstance(raw, dict):
            raise ConfigError("malformed spec file: not a JSON object")
        self.raw = raw
        check_version(_typed(raw, "ociVersion", str) or "1.0.0")
        root = _typed(raw, "root", dict) or {}
        self.root_path: str = _typed(root, "path", str, "root.") or ""
        self.root_readonly = bool(_typed(root, "readonly", bool, "root."))
        process = _typed(raw, "process", dict)
        self.process = None if process is None else Process(process)
        self.hostname: str = _typed(raw, "hostname", str) or ""
        self.domainname: str = _typed(raw, "domainname", str) or ""
        self.annotations = _string_map(raw, "annotations")
        self.mounts = _objects(raw, "mounts")
        self.hooks = _parse_hooks(_typed(raw, "hooks", dict) or {})
        self.linux: Json = _typed(raw, "linux", dict) or {}
        self._read_linux(self.linux)
        self._check()

    def _read_linux(self, linux: Json) -> None:
        self.namespaces = _parse_namespaces(_objects(linux, "namespaces", "linux."))
        self.cgroups_path: str = _typed(linux, "cgroupsPath", str, "linux.") or ""
        self.resources: Json = _typed(linux, "resources", dict, "linux.") or {}
        self.devices = _objects(linux, "devices", "linux.")
        self.masked_paths = _strings(linux, "maskedPaths", "linux.")
        self.readonly_paths = _strings(linux, "readonlyPaths", "linux.")
        self.seccomp = _checked_seccomp(_typed(linux, "seccomp", dict, "linux."))
        self.sysctl = _string_map(linux, "sysctl", "linux.")
        self.uid_mappings = parse_mappings(_objects(linux, "uidMappings", "linux."))
        self.gid_mappings = parse_mappings(_objects(linux, "gidMappings", "linux."))
        self.time_offsets: Json = _typed(linux, "timeOffsets", dict, "linux.") or {}
        propagation = _typed(linux, "rootfsPropagation", str, "linux.")
        if propagation and propagation not in PROPAGATIONS:
            raise ConfigError(f"rootfsPropagation={propagation} is not supported")
        self.net_devices = _parse_net_devices(_typed(linux, "netDevices", dict, "linux.") or {})
        self.intel_rdt: Json | None = _typed(linux, "intelRdt", dict, "linux.")
        self.memory_policy = _parse_memory_policy(_typed(linux, "memoryPolicy", dict, "linux."))
        personality = _typed(linux, "personality", dict, "linux.")
        if personality is not None:
            if personality.get("domain") not in ("LINUX", "LINUX32"):
                raise ConfigError(f"invalid personality domain {personality.get('domain')}")
            if personality.get("flags"):
                raise ConfigError("personality flags are not supported")

    def host_ids(self, uid: int, gid: int) -> tuple[int, int]:
        """Return what a user and a group of the container are outside of its user namespace.

        Raises:
            ConfigError: they are not mapped.
        """
        return _outside(self.uid_mappings, uid, "user"), _outside(self.gid_mappings, gid, "group")

    def _check(self) -> None:
        private = self.namespaces
        if self.hostname and "uts" not in private:
            raise ConfigError("unable to set hostname without a private UTS namespace")
        if self.domainname and "uts" not in private:
            raise ConfigError("unable to set domainname without a private UTS namespace")
        if (self.masked_paths or self.readonly_paths) and "mnt" not in private:
            raise ConfigError("unable to restrict sys entries without a private MNT namespace")
        new_user = private.get("user") == ""
        if new_user and not (self.uid_mappings and self.gid_mappings):
            raise ConfigError("User namespaces enabled, but no uid or gid mapping found.")
        if "user" not in private and (self.uid_mappings or self.gid_mappings):
            raise ConfigError(
                "User namespace mappings specified, but user namespace isn't enabled in the config"
            )
        self._check_time_offsets()
        if self.net_devices and "net" not in private:
            raise ConfigError("unable to move network devices without a private NET namespace")
        if self.time_offsets and private.get("time") != "":
            raise ConfigError(
                "time namespace offsets specified, but time namespace isn't enabled in the config"
            )
        for key, value in self.sysctl.items():
            self._check_sysctl(key, value)

    def _check_time_offsets(self) -> None:
        for clock in self.time_offsets:
            if clock not in ("monotonic", "boottime"):
                raise ConfigError(f"time namespace offset of an unknown clock {clock!r}")
            offset = _typed(self.time_offsets, clock, dict, "linux.timeOffsets.") or {}
            _number(offset, "secs", "linux.timeOffsets.", low=-(1 << 63), high=(1 << 63) - 1)
            _number(offset, "nanosecs", "linux.timeOffsets.")

    def _check_sysctl(self, key: str, value: object) -> None:
        name = normalise_sysctl(key)
        if not isinstance(value, str) or "\n" in value or "\0" in value:
            raise ConfigError(f"invalid value of sysctl {key!r}")
        owner = sysctl_owner(name)
        if owner is None:
            raise ConfigError(f'sysctl "{key}" is not in a separate kernel namespace')
        if owner not in self.namespaces:
            raise ConfigError(f'sysctl "{key}" not allowed in host {_OWNER_NAMES[owner]} namespace')
        if name == "kernel.hostname" and self.hostname:
            raise ConfigError(
                'sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field'
            )


_OWNER_NAMES = {"ipc": "ipc", "net": "network", "uts": "uts", "user": "user"}


def normalise_sysctl(key: str) -> str:
    """Return a sysctl name in dotted form; with slashes, dots inside a component become slashes.

    Raises:
        ConfigError: empty components, which would let a name climb out of its directory.
    """
    dot, slash = key.find("."), key.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        key = key.translate({ord("."): "/", ord("/"): "."})
    for part in key.split("."):
        if part in ("", "/", "//") or "\0" in part or "\n" in part:
            raise ConfigError(f"invalid sysctl name {key!r}")
    return key


def sysctl_owner(name: str) -> str | None:
    """Return the kind of namespace that owns a sysctl, None when it belongs to the machine."""
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        return "ipc"
    if name.startswith("net."):
        return "net"
    if name in ("kernel.domainname", "kernel.hostname"):
        return "uts"
    return "user" if name.startswith("user.") else None


def check_version(version: str) -> None:
    """Accept every 1.x version of the specification, as runc does."""
    core = version.partition("+")[0].partition("-")[0].split(".")
    if len(core) != 3 or not all(part.isascii() and part.isdigit() for part in core):
        raise ConfigError(f"malformed spec file: {version!r} is not in valid semver format")
    if core[0] != "1":
        raise ConfigError(f"unknown version specified: {version}")


def _parse_namespaces(entries: list[Json]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        kind = _typed(entry, "type", str, "namespaces.")
        if kind not in NAMESPACES:
            raise ConfigError(f'namespace {{"{kind}" "{entry.get("path") or ""}"}} does not exist')
        path = _typed(entry, "path", str, "namespaces.") or ""
        if path and not path.startswith("/"):
            raise ConfigError(f"malformed spec file: path of namespace {kind} must be absolute")
        if NAMESPACES[kind] in found:
            raise ConfigError(f'malformed spec file: duplicated ns {{"{kind}" "{path}"}}')
        found[NAMESPACES[kind]] = path
    return found


def parse_mappings(entries: list[Json]) -> list[tuple[int, int, int]]:
    """Return (container id, host id, size) of each entry of `uidMappings` or `gidMappings`."""
    if not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError("malformed spec file: mappings must be a list of objects")
    return [
        (
            _number(entry, "containerID", "mappings.") or 0,
            _number(entry, "hostID", "mappings.") or 0,
            _number(entry, "size", "mappings.") or 0,
        )
        for entry in entries
    ]


def _outside(mappings: list[tuple[int, int, int]], number: int, kind: str) -> int:
    if not mappings:
        return number
    for inside, outside, size in mappings:
        if inside <= number < inside + size:
            return outside + number - inside
    raise ConfigError(f"{kind} {number} of the container is not mapped")


def _parse_net_devices(raw: Json) -> dict[str, str]:
    """Return {name on the host: name in the container}."""
    devices: dict[str, str] = {}
    for name in raw:
        entry = _typed(raw, name, dict, "linux.netDevices.") or {}
        new = _typed(entry, "name", str, "linux.netDevices.") or name
        for text in (name, new):
            # net/core/dev.c dev_valid_name
            size = len(text.encode("utf-8", "surrogateescape"))
            if not 0 < size < 16 or text in (".", "..") or any(char in "/: \t\n\0" for char in text):
                raise ConfigError(f"invalid network device name {text!r}")
        if new in devices.values():
            raise ConfigError(f"two network devices would be called {new!r}")
        devices[name] = new
    return devices


def _checked_seccomp(profile: Json | None) -> Json | None:
    """Check the types of a profile; what its words mean is the compiler's to know (`linux.seccomp`)."""
    if not profile:
        return None
    where = "linux.seccomp."
    if not _typed(profile, "defaultAction", str, where):
        raise ConfigError(f"malformed spec file: {where}defaultAction must not be empty")
    _number(profile, "defaultErrnoRet", where)
    _strings(profile, "architectures", where)
    _strings(profile, "flags", where)
    for key in ("listenerPath", "listenerMetadata"):
        _typed(profile, key, str, where)
    for rule in _objects(profile, "syscalls", where):
        if not _typed(rule, "action", str, where + "syscalls."):
            raise ConfigError(f"malformed spec file: {where}syscalls.action must not be empty")
        _strings(rule, "names", where + "syscalls.")
        _number(rule, "errnoRet", where + "syscalls.")
        for arg in _objects(rule, "args", where + "syscalls."):
            _check_seccomp_argument(arg, where + "syscalls.args.")
    return profile


def _check_seccomp_argument(arg: Json, where: str) -> None:
    if _number(arg, "index", where) is None or not _typed(arg, "op", str, where):
        raise ConfigError(f"malformed spec file: {where}index and op must not be empty")
    for key in ("value", "valueTwo"):
        _number(arg, key, where, high=(1 << 64) - 1)
    # Go's zero value: absent is 0.
    if arg.get("value") is None:
        arg["value"] = 0


def _parse_hooks(raw: Json) -> dict[str, list[Json]]:
    hooks: dict[str, list[Json]] = {}
    for name in HOOKS:
        entries = _objects(raw, name, "hooks.")
        for entry in entries:
            path = _typed(entry, "path", str, "hooks.") or ""
            if not path.startswith("/"):
                raise ConfigError(f"invalid path of hook {name}: {path!r} is not absolute")
            _strings(entry, "args", "hooks.")
            _strings(entry, "env", "hooks.")
            timeout = _number(entry, "timeout", "hooks.", low=-(1 << 31), high=1 << 31)
            if timeout is not None and timeout <= 0:
                raise ConfigError(f"invalid timeout of hook {name}: must be greater than zero")
        if entries:
            hooks[name] = entries
    return hooks


def parse(raw: Json) -> Config:
    """Check an OCI configuration.

    Raises:
        ConfigError: with runc's words where runc has some.
    """
    return Config(raw)


def parse_process(raw: Json) -> Process:
    """Check a `process` object, as `exec` gets it."""
    if not isinstance(raw, dict):
        raise ConfigError("malformed spec file: process is not a JSON object")
    return Process(raw)
