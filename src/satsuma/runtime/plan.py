"""From a checked configuration to a plan: the flat list of steps that makes a container, as data.

Pure but for what the caller hands in (`Extras`, the cgroup, our own capabilities).  A step is a name and plain
arguments; `satsuma.runtime.stage` has one function for each name.  The order of the steps is the order of runc
and is part of the security of the result; the reasons stand beside them.

Source: runtime-spec runtime.md#lifecycle; runc libcontainer/{rootfs_linux,standard_init_linux,setns_init_linux}.go.
"""

from __future__ import annotations

from satsuma.linux import caps, lsm, ns, seccomp, syscalls
from satsuma.runtime import resources
from satsuma.runtime.config import Config, Process, normalise_sysctl
from satsuma.runtime.errors import ConfigError
from satsuma.runtime.mounts import MountSpec, parse_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.linux.cgroup import Cgroup
    from satsuma.runtime.notify import Mailbox
    from satsuma.runtime.trace import Trace

INIT_PATH = "/sbin/docker-init"
# name, major, minor: the nodes that every container has (runtime-spec config-linux.md#default-devices).
DEFAULT_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
DEV_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


class Extras:
    """What a caller may add to the OCI configuration; every field has a default.

    Attributes:
        overlay: {"lowerdirs": [top first], "upperdir", "workdir", "volatile"} mounted as the root inside the
            new mount namespace, instead of `root.path`.
        ns_fds: kind ("net", "ipc", "pid", "uts", "user", "cgroup") -> descriptor of a namespace to join; takes
            precedence over the path in the configuration.
        mount_fds: destination -> descriptor of a detached mount that is put there instead of the mount's source.
        seccomp_bpf: filter compiled ahead (`linux.seccomp.compile_profile`) from the configuration's profile.
        seccomp_flags: for seccomp(2); used only with *seccomp_bpf*.
        init_path: a static init on the host, bound read-only to /sbin/docker-init and put before the program.
        preserve_fds: descriptors 3 … 3+N-1 stay open in the program.
        exec_fifo_fd: O_PATH descriptor of a FIFO; the program waits until somebody opens it for reading.
        bundle: directory to which relative paths of the configuration refer.
        keyring: name of the new session keyring, "" for none.
        state: ociVersion, id, bundle, annotations for the hooks that run inside.
        no_pivot: chroot instead of pivot_root, for a root on ramfs.
        lsm_optional: a profile of AppArmor or a label of SELinux which this kernel cannot apply is a warning
            instead of an error.
        death_signal: sent to the program when its parent, the caller, dies; 0 for none.
        trace: notes when each step was done, None for nobody asks.
    """

    __slots__ = (
        "bundle",
        "death_signal",
        "exec_fifo_fd",
        "init_path",
        "keyring",
        "lsm_optional",
        "mount_fds",
        "no_pivot",
        "ns_fds",
        "overlay",
        "preserve_fds",
        "seccomp_bpf",
        "seccomp_flags",
        "state",
        "trace",
    )

    def __init__(  # noqa: PLR0913  (a bag of independent options)
        self,
        *,
        overlay: dict[str, Any] | None = None,
        ns_fds: dict[str, int] | None = None,
        mount_fds: dict[str, int] | None = None,
        seccomp_bpf: bytes | None = None,
        seccomp_flags: int = 4,
        init_path: str | None = None,
        preserve_fds: int = 0,
        exec_fifo_fd: int = -1,
        bundle: str = "/",
        keyring: str = "",
        state: dict[str, Any] | None = None,
        no_pivot: bool = False,
        lsm_optional: bool = False,
        death_signal: int = 0,
        trace: Trace | None = None,
    ) -> None:
        self.overlay = overlay
        self.ns_fds = ns_fds or {}
        self.mount_fds = mount_fds or {}
        self.seccomp_bpf = seccomp_bpf
        self.seccomp_flags = seccomp_flags
        self.init_path = init_path
        self.preserve_fds = preserve_fds
        self.exec_fifo_fd = exec_fifo_fd
        self.bundle = bundle
        self.keyring = keyring
        self.state = state or {}
        self.no_pivot = no_pivot
        self.lsm_optional = lsm_optional
        self.death_signal = death_signal
        self.trace = trace


class Step:
    """One thing to do: the name of a function in `satsuma.runtime.stage` and its arguments."""

    __slots__ = ("args", "name")

    def __init__(self, name: str, *args: object) -> None:
        self.name = name
        self.args = args

    def values(self) -> list[Any]:
        """Return the arguments as plain values."""
        return [arg.describe() if isinstance(arg, MountSpec) else arg for arg in self.args]

    def describe(self) -> str:
        """Return one line for people."""
        return " ".join((self.name, *map(str, self.values())))

    def __repr__(self) -> str:
        return f"Step({self.describe()})"


class Plan:
    """Everything the new process has to do.

    Attributes:
        clone_flags: namespaces in which the process is born.
        join_pid: pid namespace to be born in (descriptor or path), None for our own or a new one.
        steps: up to the moment when only the process itself is left to set up.
        process: what `satsuma.runtime.process.finish` works on.
        born_last: an exec: everything is prepared outside of the container's pid namespace, and the process
            that the container can see is born when it has no more rights than the program (`birth`).
        listener: the seccomp profile whose decisions an agent takes, None when it takes them all itself.
        mailbox: how the listener's descriptor gets to the parent.
        in_userns: the process will be in a user namespace, a new one or one that it joins.
        reborn: the first process joins namespaces only, and the container's is born of it (step "rebirth").
        time_offsets: of the new time namespace, which the parent makes; None for no new one.
        root_fd: detached mount of the root, made by the parent; -1: the new process makes it.
        warnings: what was asked for and is left out, one line each.
    """

    __slots__ = (
        "args",
        "born_last",
        "capabilities",
        "clone_flags",
        "config",
        "extras",
        "filter_bpf",
        "filter_flags",
        "in_userns",
        "join_pid",
        "listener",
        "mailbox",
        "process",
        "reborn",
        "root_fd",
        "selinux_label",
        "steps",
        "time_offsets",
        "warnings",
    )

    def __init__(self, process: Process | None, extras: Extras) -> None:
        self.process = process
        self.extras = extras
        self.args: list[str] = list(process.args) if process is not None else []
        if extras.init_path:
            self.args = [INIT_PATH, "--", *self.args]
        self.config: Config | None = None
        self.clone_flags = 0
        self.join_pid: int | str | None = None
        self.in_userns = False
        self.reborn = False
        self.time_offsets: dict[str, Any] | None = None
        self.born_last = False
        self.root_fd = -1
        self.selinux_label = ""
        self.steps: list[Step] = []
        self.warnings: list[str] = []
        self.filter_bpf: bytes | None = None
        self.filter_flags = 0
        self.listener: dict[str, Any] | None = None
        self.mailbox: Mailbox | None = None
        # bounding, effective, permitted, inheritable, ambient
        self.capabilities = (0, 0, 0, 0, 0)

    def add(self, name: str, *args: object) -> None:
        """Append a step."""
        self.steps.append(Step(name, *args))

    def describe(self) -> str:
        """Return the plan as text, one step a line."""
        flags = [kind for kind, flag in ns.FLAGS.items() if self.clone_flags & flag]
        if self.time_offsets is not None:
            flags.append("time")
        lines = [f"clone new={','.join(flags) or '-'}"]
        lines += [step.describe() for step in self.steps]
        process = self.process
        if process is not None:
            names = ("bounding", "effective", "permitted", "inheritable", "ambient")
            shown = " ".join(f"{name}={bits:#x}" for name, bits in zip(names, self.capabilities, strict=True))
            lines.append(f"capabilities {shown}")
            user = process.user if process.user is not None else f"{process.uid}:{process.gid}"
            lines.append(f"user {user} umask {process.umask if process.umask is not None else 0o022:04o}")
            lines += [f"rlimit {name} {soft}:{hard}" for _, name, soft, hard in process.rlimits]
            bpf = self.filter_bpf
            lines.append(f"seccomp {len(bpf) // 8} instructions" if bpf else "seccomp off")
            lines.append(f"execve {' '.join(self.args)}")
        return "\n".join(lines)


def describe(plan: Plan) -> str:
    """Return the plan as text, one step a line."""
    return plan.describe()


def plan_init(
    config: Config,
    extras: Extras | None = None,
    *,
    cgroup: Cgroup | None = None,
    held_caps: int | None = None,
) -> Plan:
    """Plan the first process of a container.

    Args:
        held_caps: our permitted capabilities; what we do not hold cannot be given (default: ask the kernel).
    Raises:
        ConfigError: the configuration cannot be carried out.
    """
    extras = extras or Extras()
    plan = Plan(config.process, extras)
    plan.config = config
    resources.check(config.resources)
    if (config.resources.get("memory") or {}).get("kernel"):
        plan.warnings.append("ignoring memory.kernel: kernels from 5.16 on have no such limit")
    _plan_capabilities(plan, held_caps)
    _plan_filter(plan, config.seccomp)
    _plan_namespaces(plan, config, cgroup)
    if extras.keyring:
        plan.add("keyring", extras.keyring)
    if "mnt" in config.namespaces:
        _plan_rootfs(plan, config, cgroup)
    else:
        _plan_chroot(plan, config)
    # The user is looked up in the container's files, so after the root has changed; the console belongs to it.
    plan.add("resolve_user")
    if config.process is not None:
        plan.add("make_cwd", config.process.cwd)
        if config.process.terminal:
            plan.add("console", config.process.console_size)
    if "mnt" in config.namespaces:
        _plan_readonly_remounts(plan, config)
    _plan_identity(plan, config)
    return plan


def _plan_capabilities(plan: Plan, held_caps: int | None) -> None:
    """Mask what we cannot give; "privileged" means everything that we hold ourselves."""
    process = plan.process
    if process is None or process.caps is None:
        plan.capabilities = (0, 0, 0, 0, 0)
        return
    if process.unknown_caps:
        names = " ".join(process.unknown_caps)
        plan.warnings.append(f"ignoring unknown or unavailable capabilities: [{names}]")
    held = syscalls.capget()[1] if held_caps is None else held_caps
    wanted = process.caps
    missing = caps.names((wanted[0] | wanted[1] | wanted[2]) & ~held)
    if missing:
        plan.warnings.append(
            f"ignoring capabilities which the runtime itself does not hold: [{' '.join(missing)}]"
        )
    bounding, effective, permitted, inheritable, ambient = (mask & held for mask in wanted)
    plan.capabilities = (bounding, effective & permitted, permitted, inheritable, ambient)


def _plan_security_modules(plan: Plan) -> None:
    """Confine the program, or say why this kernel cannot."""
    process = plan.process
    if process is None:
        return
    profile = process.apparmor_profile
    if profile not in ("", "unconfined"):
        if lsm.has_apparmor():
            plan.add("apparmor", profile)
        else:
            _lacks_module(plan, f"apparmor profile {profile!r}: AppArmor is not enabled on this kernel")
    if process.selinux_label:
        if lsm.has_selinux():
            plan.selinux_label = process.selinux_label
        else:
            _lacks_module(
                plan, f"process label {process.selinux_label!r}: SELinux is not enabled on this kernel"
            )


def _lacks_module(plan: Plan, what: str) -> None:
    if not plan.extras.lsm_optional:
        raise ConfigError(f"unable to apply {what}")
    plan.warnings.append(f"ignoring {what}")


def _plan_filter(plan: Plan, profile: dict[str, Any] | None) -> None:
    if plan.extras.seccomp_bpf is not None:
        plan.filter_bpf = plan.extras.seccomp_bpf
        plan.filter_flags = plan.extras.seccomp_flags
        return
    if not profile:
        return
    try:
        plan.filter_bpf = seccomp.compile_profile(profile)
        plan.filter_flags = seccomp.filter_flags(profile)
        if seccomp.asks(profile):
            plan.listener = profile
            plan.filter_flags |= seccomp.NEW_LISTENER
    except (seccomp.ProfileError, KeyError) as error:
        # "string X is not a valid action for seccomp" is complete.
        prefix = "" if str(error).startswith("string ") else "invalid seccomp profile: "
        raise ConfigError(f"{prefix}{error}") from error


def _plan_namespaces(plan: Plan, config: Config, cgroup: Cgroup | None) -> None:
    new, joins = _namespaces(plan, config)
    plan.in_userns = "user" in config.namespaces or "user" in plan.extras.ns_fds
    if new & syscalls.CLONE_NEWTIME:
        # Nobody has entered it when the offsets are written, so it is made by the parent for its child.
        new &= ~syscalls.CLONE_NEWTIME
        plan.time_offsets = config.time_offsets
    own_cgroupns = new & syscalls.CLONE_NEWCGROUP
    new &= ~syscalls.CLONE_NEWCGROUP
    if cgroup is not None:
        plan.add("join_cgroup", cgroup.join_files())
    joined = "user" in joins
    # Whoever has entered a user namespace can no longer join what belongs to the host, and what is made there must
    # belong to it: so a helper joins first, then the process is born into what is new (runc nsexec.c, stage 1).
    made_inside = bool(new & syscalls.CLONE_NEWUSER) and (bool(joins) or plan.join_pid is not None)
    plan.reborn = made_inside or (joined and bool(new))
    for kind in sorted(joins, key=_JOIN_ORDER.index):
        plan.add("setns", kind, joins[kind])
    if joined and (config.uid_mappings or config.gid_mappings):
        plan.add("check_maps", config.uid_mappings, config.gid_mappings)
    if plan.reborn:
        plan.add("rebirth", new)
    else:
        plan.clone_flags = new
    if new & syscalls.CLONE_NEWUSER:
        plan.add("userns_maps")
    if own_cgroupns:
        # The root of a cgroup namespace is the group of the process at that moment: join first, unshare then.
        plan.add("unshare", syscalls.CLONE_NEWCGROUP)
    if new & syscalls.CLONE_NEWNET:
        plan.add("loopback_up")
    if config.net_devices:
        plan.add("net_devices", config.net_devices)


_JOIN_ORDER = ("ipc", "uts", "net", "cgroup", "time", "user", "mnt")


def _namespaces(plan: Plan, config: Config) -> tuple[int, dict[str, int | str]]:
    """Return (CLONE_NEW* flags, {kind: descriptor or path to join}); the pid namespace is joined by the parent."""
    new = 0
    joins: dict[str, int | str] = {}
    for kind, flag in ns.FLAGS.items():
        if kind not in config.namespaces and kind not in plan.extras.ns_fds:
            continue
        where: int | str = plan.extras.ns_fds.get(kind, config.namespaces.get(kind, ""))
        if where == "":
            new |= flag
        elif kind == "pid":
            plan.join_pid = where
        else:
            joins[kind] = where
    return new, joins


def _plan_rootfs(plan: Plan, config: Config, cgroup: Cgroup | None) -> None:
    propagation = config.linux.get("rootfsPropagation") or ""
    private = propagation.lstrip("r") == "private" or propagation == "private"
    # Nothing that is mounted from here on may travel back to the host; a slave still sees what the host mounts.
    plan.add("propagation", syscalls.MS_REC | (syscalls.MS_PRIVATE if private else syscalls.MS_SLAVE))
    overlay = plan.extras.overlay
    if overlay is not None:
        plan.add("root_overlay", overlay)
    else:
        if not config.root_path:
            raise ConfigError("root.path must not be empty")
        plan.add("root_bind", _bundle_path(config.root_path, plan.extras.bundle))
    specs = [parse_mount(raw, plan.extras.bundle) for raw in config.mounts]
    for spec in specs:
        spec.source_fd = plan.extras.mount_fds.get(spec.destination, -1)
    if plan.extras.init_path:
        bind = {"destination": INIT_PATH, "type": "bind", "source": plan.extras.init_path}
        specs.append(parse_mount(bind | {"options": ["bind", "ro"]}))
    _label_mounts(plan, specs, config.linux.get("mountLabel") or "")
    for spec in specs:
        if not spec.destination.startswith("/"):
            plan.warnings.append(f"mount destination {spec.destination} is not absolute: it is taken from /")
        _plan_mount(plan, spec, config, cgroup)
    if not any(spec.bind and _clean(spec.destination) == "/dev" for spec in specs):
        plan.add("devices", DEFAULT_DEVICES, [_parse_device(device) for device in config.devices])
        plan.add("dev_links", DEV_LINKS)
    if "prestart" in config.hooks or "createRuntime" in config.hooks:
        plan.add("parent_hooks")
    if "createContainer" in config.hooks:
        plan.add("hooks", "createContainer", config.hooks["createContainer"])
    plan.add("chroot" if plan.extras.no_pivot else "pivot")
    if propagation.lstrip("r") in ("shared", "unbindable"):
        flag = syscalls.MS_SHARED if propagation.endswith("shared") else syscalls.MS_UNBINDABLE
        plan.add("propagation", flag | (syscalls.MS_REC if propagation.startswith("r") else 0))
    plan.add("reopen_null")


def _label_mounts(plan: Plan, specs: list[MountSpec], label: str) -> None:
    """Give the new file systems an SELinux context; without SELinux tmpfs would refuse it."""
    if not label:
        return
    if not lsm.has_selinux():
        plan.warnings.append(f"ignoring mountLabel {label!r}: SELinux is not enabled on this kernel")
        return
    for spec in specs:
        if not spec.bind and spec.fstype not in _UNLABELLED:
            spec.data.append(("context", label))


_UNLABELLED = ("proc", "sysfs", "cgroup", "cgroup2", "mqueue")


def _plan_mount(plan: Plan, spec: MountSpec, config: Config, cgroup: Cgroup | None) -> None:
    own_cgroupns = "cgroup" in config.namespaces
    if spec.fstype == "cgroup" and not spec.bind:
        if cgroup is None:
            raise ConfigError("cannot mount cgroup without a cgroup")
        if spec.data and not (cgroup.is_v2 and own_cgroupns):
            plan.warnings.append(f"ignoring data of cgroup mount {spec.destination}")
        if cgroup.is_v2:
            plan.add("mount_cgroup2", spec, "" if own_cgroupns else cgroup.dirs[""])
        else:
            plan.add("mount_cgroup1", spec, _cgroup1_entries(cgroup, own_cgroupns))
        return
    if spec.idmap and not spec.uid_mappings and "user" not in config.namespaces:
        raise ConfigError(
            f"mount {spec.destination}: idmap needs mappings, or a user namespace to take them from"
        )
    # A tmpfs (also /dev) must stay writable until what belongs into it has been made.
    if spec.fstype == "tmpfs" and not spec.bind and spec.attr_set & syscalls.MOUNT_ATTR_RDONLY:
        spec.attr_set &= ~syscalls.MOUNT_ATTR_RDONLY
        spec.deferred_readonly = True
    if spec.data and spec.bind:
        plan.warnings.append(f"ignoring data of bind mount {spec.destination}")
    plan.add("remount" if spec.remount else "bind" if spec.bind else "mount", spec)


def _cgroup1_entries(cgroup: Cgroup, own_namespace: bool) -> list[tuple[str, list[str], str]]:
    """Return (directory name, controllers, source); an empty source means: mount the hierarchy anew."""
    entries = []
    for mount_point, controllers in cgroup.layout.hierarchies():
        if controllers != [""]:
            source = "" if own_namespace else cgroup.dirs[controllers[0]]
            entries.append((mount_point.rpartition("/")[2], controllers, source))
    return entries


def _parse_device(raw: dict[str, Any]) -> tuple[str, str, int, int, int, int, int]:
    """Return (path, type, major, minor, mode, uid, gid)."""
    kind, path = raw.get("type"), raw.get("path")
    if kind not in ("c", "b", "u", "p"):
        raise ConfigError(f'invalid device type "{kind}"')
    if not isinstance(path, str) or not path:
        raise ConfigError("device without a path")
    if "\0" in path:
        raise ConfigError(f"invalid device path {path!r}")
    numbers = [raw.get(key) for key, _ in _DEVICE_NUMBERS]
    for number, (key, limit) in zip(numbers, _DEVICE_NUMBERS, strict=True):
        if number is not None and (type(number) is not int or not 0 <= number < limit):
            raise ConfigError(f"invalid device {path}: {key} {number!r:.40} is out of range")
    major, minor, mode, uid, gid = numbers
    return (path, kind, major or 0, minor or 0, 0o666 if mode is None else mode & 0o7777, uid or 0, gid or 0)


# The kernel's device numbers have 12 and 20 bits (include/linux/kdev_t.h).
_DEVICE_NUMBERS = (
    ("major", 1 << 12),
    ("minor", 1 << 20),
    ("fileMode", 1 << 32),
    ("uid", 1 << 32),
    ("gid", 1 << 32),
)


def _plan_chroot(plan: Plan, config: Config) -> None:
    if plan.extras.overlay is not None:
        raise ConfigError("an overlay as root needs a private mount namespace")
    if config.root_readonly:
        raise ConfigError("root.readonly needs a private mount namespace")
    if config.devices:
        raise ConfigError("linux.devices need a private mount namespace")
    if config.mounts:
        # They would be mounts of the host.  The specification asks for inheriting without more words.
        plan.warnings.append("ignoring all mounts: the configuration has no mount namespace")
    if config.root_path:
        plan.add("chroot_path", _bundle_path(config.root_path, plan.extras.bundle))


def _plan_readonly_remounts(plan: Plan, config: Config) -> None:
    specs = [arg for step in plan.steps for arg in step.args if isinstance(arg, MountSpec)]
    for spec in specs:
        if spec.deferred_readonly:
            plan.add("remount_readonly", spec.destination)
    if config.root_readonly:
        plan.add("remount_readonly", "/")


def _plan_identity(plan: Plan, config: Config) -> None:
    if config.hostname:
        plan.add("hostname", config.hostname)
    if config.domainname:
        plan.add("domainname", config.domainname)
    _plan_security_modules(plan)
    # Before /proc/sys becomes read-only.
    for key, value in config.sysctl.items():
        plan.add("sysctl", normalise_sysctl(key), value)
    if config.readonly_paths:
        plan.add("readonly_paths", config.readonly_paths)
    if config.masked_paths:
        plan.add("masked_paths", config.masked_paths)
    plan.steps += inherited_steps(config)


def inherited_steps(config: Config | None) -> list[Step]:
    """Return what holds for every process of a container and is inherited from its parent, which `exec` is not."""
    steps: list[Step] = []
    if config is None:
        return steps
    personality = config.linux.get("personality")
    if personality:
        steps.append(Step("personality", {"LINUX": 0x0, "LINUX32": 0x8}[personality["domain"]]))
    if config.memory_policy is not None:
        steps.append(Step("memory_policy", *config.memory_policy))
    return steps


def plan_exec(
    process: Process,
    extras: Extras | None = None,
    *,
    seccomp_profile: dict[str, Any] | None = None,
    join_cgroup: list[str] | None = None,
    namespaces: int = 0,
    inherited: list[Step] | None = None,
    held_caps: int | None = None,
) -> Plan:
    """Plan a further process in a running container.

    Args:
        inherited: see `inherited_steps`.
        join_cgroup: files to which the process writes "0".
        namespaces: CLONE_NEW* flags to join through the pidfd of the container's init.
    """
    plan = Plan(process, extras or Extras())
    _plan_capabilities(plan, held_caps)
    _plan_filter(plan, seccomp_profile)
    if process.exec_cpu_affinity[0]:
        plan.add("cpu_affinity", process.exec_cpu_affinity[0])
    if join_cgroup:
        plan.add("join_cgroup", join_cgroup)
    if process.exec_cpu_affinity[1]:
        # After the groups: moving into a cpuset resets the mask.
        plan.add("cpu_affinity", process.exec_cpu_affinity[1])
    if namespaces:
        plan.add("setns_init", namespaces)
    plan.born_last = bool(namespaces & syscalls.CLONE_NEWPID)
    if plan.extras.keyring:
        plan.add("keyring", plan.extras.keyring)
    plan.add("enter_root")
    plan.add("resolve_user")
    if process.terminal:
        plan.add("console", process.console_size)
    _plan_security_modules(plan)
    plan.steps += inherited or ()
    return plan


def _clean(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _bundle_path(path: str, bundle: str) -> str:
    return path if path.startswith("/") else bundle.rstrip("/") + "/" + path
