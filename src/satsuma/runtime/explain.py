"""What the steps of a start mean: the rows of `runtime.trace` in words, for people who want to learn.

Imported only by those who explain; the text of a step is made from the same values that were carried out.
"""

from __future__ import annotations

from satsuma.linux import caps, ns, syscalls
from satsuma.runtime.trace import INSIDE, timeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from satsuma.runtime.plan import Plan

    Row = Sequence[Any]
    Document = list[dict[str, Any]]

_PROPAGATION = (
    (syscalls.MS_PRIVATE, "private"),
    (syscalls.MS_SLAVE, "slave"),
    (syscalls.MS_SHARED, "shared"),
    (syscalls.MS_UNBINDABLE, "unbindable"),
)
_MOUNT_REASONS = {
    "/proc": "procfs of the new pid namespace: shows the container's processes and no others",
    "/dev": "an empty tmpfs instead of the host's devices; the few that are allowed are made below",
    "/dev/pts": "terminals of its own (newinstance), so that none of the host's can be opened",
    "/dev/shm": "POSIX shared memory of its own",
    "/dev/mqueue": "POSIX message queues belong to the ipc namespace; this shows them",
    "/sys": "the kernel's objects, read-only; the network part is that of the network namespace",
    "/sys/fs/cgroup": "its own limits to look at; the root of the cgroup namespace is the container's group",
    "/etc/hosts": "the container's names; a file of the engine's, kept out of the image",
    "/etc/hostname": "the container's name; a file of the engine's, kept out of the image",
    "/etc/resolv.conf": "where names are looked up; a file of the engine's, kept out of the image",
}


def _namespaces(flags: int) -> str:
    kinds = [kind for kind, flag in ns.FLAGS.items() if flags & flag]
    return " ".join(f"CLONE_NEW{'NS' if kind == 'mnt' else kind.upper()}" for kind in kinds) or "no new ones"


def _propagation(flags: int) -> str:
    kind = next((name for flag, name in _PROPAGATION if flags & flag), "?")
    return f"/ {'r' if flags & syscalls.MS_REC else ''}{kind}"


def _capabilities(bits: int) -> str:
    names = [name.removeprefix("CAP_").lower() for name in caps.names(bits)]
    if len(names) == len(caps.NAMES):
        return "all"
    return ",".join(names) or "none"


def _overlay(overlay: dict[str, Any]) -> str:
    lower = overlay["lowerdirs"]
    upper = overlay.get("upperdir") or "none"
    return (
        f"overlay of {len(lower)} read-only layers, top first: {' '.join(lower)}; read-write layer: {upper}"
    )


def _devices(defaults: Sequence[Row], configured: Sequence[Row]) -> str:
    return " ".join([*(f"/dev/{name}" for name, _, _ in defaults), *(device[0] for device in configured)])


def _groups(mounts: Sequence[Row]) -> str:
    return " ".join(name for name, _, _ in mounts)


def _hooks(kind: str, entries: Sequence[dict[str, Any]]) -> str:
    return f"{kind}: " + " ".join(entry["path"] for entry in entries)


def _words(*args: object) -> str:
    """The general form: values with spaces between, lists flat."""
    return " ".join(
        " ".join(map(str, arg)) if isinstance(arg, (list, tuple)) else str(arg) for arg in args if arg != ""
    )


def _directories(paths: Sequence[str], *more: str) -> str:
    """Show paths that differ in one part only as the shell writes them: /sys/fs/cgroup/{cpu,memory}/x."""
    parts = [path.split("/") for path in paths]
    if len({len(part) for part in parts}) != 1:
        return " ".join([*paths, *more])
    varying = [place for place, names in enumerate(zip(*parts, strict=True)) if len(set(names)) > 1]
    if len(varying) != 1:
        return " ".join([*paths, *more])
    place = varying[0]
    braces = "{" + ",".join(part[place] for part in parts) + "}"
    return " ".join(["/".join([*parts[0][:place], braces, *parts[0][place + 1 :]]), *more])


def _no_words(*_: object) -> str:
    return ""


# step of the trace: (name to show, text of the arguments, reason)
_STEPS: dict[str, tuple[str, Any, str]] = {
    # The parent's.
    "config": ("read", _words, "what to run; checked from top to bottom before anything is done"),
    "directory": ("mkdir", _words, "the container's id is taken from here on: only one mkdir can succeed"),
    "fifo": ("mkfifo", _words, "where the new process will wait until somebody says `start`"),
    "cgroup": (
        "mkdir",
        _directories,
        "a control group in every hierarchy: what the container uses is counted there",
    ),
    "limits": ("write", _words, "limits stand before the first process is in the group"),
    "clone3": (
        "clone3",
        _namespaces,
        "fork a process that is born in namespaces of its own, and inside its control group",
    ),
    "wake": (
        "wake",
        _namespaces,
        "the first process was born ahead, in namespaces of its own: it gets its configuration now",
    ),
    "state": ("write", _words, "remember pid and start time, for whoever asks later"),
    "oom_score_adj": ("oom_score_adj", _words, "who goes first when memory runs out"),
    "id_maps": (
        "uid_map gid_map",
        _words,
        "which users of the host the container's users are; only we may write it",
    ),
    "runtime_hooks": (
        "hooks",
        _no_words,
        "prestart and createRuntime run on the host, before the root changes",
    ),
    "open_fifo": ("open", _words, "say `start`: the process goes on to its program"),
    "remove": ("rmdir", _directories, "no process is left: the groups and the id are free again"),
    # The new process's.
    "prepare": (
        "prepare",
        _no_words,
        "undumpable, no imports, default signals, a session of its own, no descriptor that is not needed",
    ),
    "join_cgroup": (
        "write",
        _directories,
        "enter the control groups before anything else: all that follows is counted",
    ),
    "userns_maps": (
        "setresuid",
        lambda: "0",
        "become root of the new user namespace, once its ids are mapped",
    ),
    "setns": ("setns", _words, "join a namespace that exists already"),
    "check_maps": (
        "read",
        _words,
        "the ids of a user namespace that is joined must be those of the configuration",
    ),
    "rebirth": (
        "clone",
        _namespaces,
        "fork once more: what is made now belongs to the user namespace that we are in",
    ),
    "setns_init": (
        "setns",
        _namespaces,
        "all namespaces of the container's first process at once, by its pidfd; its children are born there",
    ),
    "enter_root": ("open", lambda: "/", "the mount namespace has brought us to the container's root"),
    "birth": (
        "capset clone",
        lambda bits: f"CLONE_PARENT with {_capabilities(bits)}",
        "only now can the container see it: with no more rights than the program, and none of our descriptors",
    ),
    "unshare": ("unshare", _namespaces, "only now: the root of a cgroup namespace is the group one is in"),
    "loopback_up": ("ioctl", lambda: "lo IFF_UP", "a new network namespace has a loopback that is down"),
    "net_devices": (
        "RTM_SETLINK",
        _words,
        "interfaces of the host move into the container's network namespace",
    ),
    "keyring": ("keyctl", _words, "a session keyring of its own: the host's keys stay outside"),
    "cpu_affinity": ("sched_setaffinity", _words, "on which processors it may run"),
    "propagation": ("mount", _propagation, "what is mounted from here on must not travel back to the host"),
    "root_overlay": ("fsmount", _overlay, "the image's layers, and one layer that takes all writes"),
    "root_bind": ("open_tree", _words, "pivot_root wants a root that is a mount of its own"),
    "mount": ("mount", _words, ""),
    "bind": ("bind mount", _words, "a part of the host's file system at a place in the container's"),
    "remount": ("mount_setattr", _words, "change what is mounted there already"),
    "mount_cgroup1": (
        "mount",
        lambda spec, groups: f"{spec} {_groups(groups)}",
        _MOUNT_REASONS["/sys/fs/cgroup"],
    ),
    "mount_cgroup2": ("mount", _words, _MOUNT_REASONS["/sys/fs/cgroup"]),
    "devices": ("mknod", _devices, "the devices that every container has; the cgroup allows no others"),
    "dev_links": (
        "symlink",
        lambda links: " ".join(f"/dev/{name}" for name, _ in links),
        "names that programs expect in /dev",
    ),
    "parent_hooks": ("hooks", _no_words, "the runtime's turn: prestart and createRuntime"),
    "hooks": ("hooks", _hooks, "programs that the configuration wants to be run here"),
    "pivot": (
        "pivot_root",
        lambda: ". .",
        "swap the roots and unmount the old one: no path leads to the host's files any more",
    ),
    "chroot": ("chroot", lambda: ".", "for a root on ramfs, which pivot_root refuses"),
    "chroot_path": ("chroot", _words, "there is no mount namespace, so no pivot_root"),
    "reopen_null": (
        "open",
        lambda: "/dev/null",
        "standard streams on the host's null device change to the container's",
    ),
    "resolve_user": (
        "read",
        lambda: "/etc/passwd /etc/group",
        "who the user is, by the container's own files",
    ),
    "make_cwd": ("mkdir", _words, "the working directory, if it is missing"),
    "console": (
        "open",
        lambda size: f"/dev/pts/ptmx {size[0]}x{size[1]}",
        "a terminal of the container's own devpts",
    ),
    "remount_readonly": ("mount_setattr", lambda path: f"{path} ro", "everything in it has been made"),
    "hostname": ("sethostname", _words, "in the new uts namespace only"),
    "domainname": ("setdomainname", _words, "in the new uts namespace only"),
    "apparmor": ("apparmor", _words, "confined by this profile from execve on"),
    "sysctl": ("sysctl", _words, "a kernel setting that belongs to the container's namespaces"),
    "readonly_paths": (
        "bind mount ro",
        _words,
        "settings of the whole machine: to be read, not to be changed",
    ),
    "masked_paths": (
        "mask",
        _words,
        "tells too much about the host: hidden behind /dev/null or an empty directory",
    ),
    "personality": ("personality", _words, "which machine uname(2) reports"),
    "memory_policy": ("set_mempolicy", _words, "on which memory nodes"),
    "no_new_privs": (
        "prctl",
        lambda: "PR_SET_NO_NEW_PRIVS",
        "setuid programs give nothing, from here on and for ever",
    ),
    "scheduling": ("sched_setattr", _no_words, "scheduler and I/O priority"),
    "rlimits": ("setrlimit", _words, "limits of the process and its children"),
    "selinux_label": ("selinux", _words, "the label from execve on"),
    "chdir": ("chdir", _words, "after the root has changed, and without following links of procfs"),
    "drop_bounding": (
        "PR_CAPBSET_DROP",
        lambda bits: f"all but {_capabilities(bits)}",
        "what is not in the bounding set no program can regain, not even a setuid one",
    ),
    "become_user": (
        "setresuid",
        lambda user: f"setgroups setresgid setresuid {user}",
        "groups first: afterwards the right to change them is gone",
    ),
    "look_path": (
        "stat",
        _words,
        "find the program as its user would; refuse one that leads out through procfs",
    ),
    "death_signal": (
        "prctl",
        lambda number: f"PR_SET_PDEATHSIG {number}",
        "the container must not outlive its monitor",
    ),
    "wait_for_start": (
        "open",
        lambda: "exec.fifo",
        "created: everything is ready, wait until somebody says `start`",
    ),
    "close_range": (
        "close_range",
        lambda first: f"{first}- CLOEXEC",
        "nothing of ours stays open in the program",
    ),
    "seccomp": (
        "seccomp",
        lambda count, flags: f"SECCOMP_SET_MODE_FILTER flags={flags:#x}, {count} instructions",
        "the filter that every system call of the container passes from now on",
    ),
    "capset": (
        "capset",
        lambda effective, permitted, inheritable: (
            f"permitted={_capabilities(permitted)}"
            + ("" if effective == permitted else f" effective={_capabilities(effective)}")
            + (f" inheritable={_capabilities(inheritable)}" if inheritable else "")
        ),
        "root with a part of root's powers",
    ),
    "ambient": (
        "prctl",
        lambda bits: f"PR_CAP_AMBIENT_RAISE {_capabilities(bits)}",
        "capabilities that execve keeps",
    ),
    "execve": ("execve", _words, "become the program: it is process 1 of the container"),
}


# For `document`, where the steps are those of an exec.
EXEC_WORDS = {
    "clone3": ("clone3", "fork a helper, which the container cannot see: it gets everything ready out here"),
    "execve": ("execve", "become the program, beside the container's first process"),
}


def document(rows: Sequence[Row], more: Mapping[str, tuple[str, str]] | None = None) -> Document:
    """Return the steps of a start for `satsuma.wire.steps`.

    Args:
        more: name and reason of steps that are not the runtime's, or have another reason here.
    """
    first = min((row[3] for row in rows if row[3] is not None), default=0)
    return [_entry(row, first, more or {}) for row in rows]


def _entry(row: Row, first: int, more: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    process, step, arguments, start, took, failed = row
    name, text, reason = _STEPS.get(step, (step, _words, ""))
    if step in more:
        name, reason = more[step]
    return {
        "Process": process,
        "Step": name,
        "Arguments": text(*arguments),
        "Reason": reason or _mount_reason(arguments),
        "Start": 0 if start is None else start - first,
        "Duration": took,
        "Failed": failed == "failed",
    }


def _mount_reason(arguments: Sequence[Any]) -> str:
    """Return the reason of a mount, by its place: the word after "on" (`MountSpec.describe`)."""
    words = str(arguments[0]).split() if arguments else []
    place = words[words.index("on") + 1] if "on" in words[:-1] else ""
    return _MOUNT_REASONS.get(place, "a file system of the container's own")


def planned(plan: Plan) -> Document:
    """Return what would be done for *plan*, without times."""
    steps = [["runtime", "clone3", [plan.clone_flags], None, None, ""]]
    steps += [[INSIDE, step.name, step.values(), None, None, ""] for step in timeline(plan)]
    return document(steps)
