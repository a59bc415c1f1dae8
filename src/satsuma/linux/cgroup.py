"""Control groups of version 1, hybrid and version 2: where they are, making, joining, freezing, killing, removing.

Must not know limits: which file means what is told by the caller (`write`).

In version 1 every hierarchy is a tree of its own and a group is a directory in each of them; in a hybrid set-up
the version 2 tree is one more, used for tracking.  Joining is done by the process itself, which writes "0" to
`tasks`: to move another process the kernel takes a lock over all forks and waits a grace period of RCU (1-2 ms
for each hierarchy), to move the calling thread it does not (`cgroup_procs_write_start` in
kernel/cgroup/cgroup.c).  In the version 2 tree a process is born (CLONE_INTO_CGROUP).

Source: cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
import time

from satsuma.linux import mountinfo
from satsuma.linux.cgroup_tree import parse_flat, read_text, remove_tree, walk, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

__all__ = [
    "UNIFIED",
    "Cgroup",
    "Layout",
    "clean_path",
    "layout",
    "parse_flat",
    "parse_layout",
    "read_text",
    "write_file",
]

UNIFIED = ""
_REMOVE_DEADLINE = 2.0
_FREEZE_DEADLINE = 10.0
_THAW_AFTER = 50  # looks at the state


class Layout:
    """The hierarchies of this machine.

    Attributes:
        mode: "v1", "hybrid", "v2", or "none" when nothing is mounted.
        mounts: controller ("memory", "name=systemd", "" for the v2 tree) -> mount point.
        own: controller -> path of the calling process below the mount point.
    """

    __slots__ = ("_v2_half", "mode", "mounts", "own")

    def __init__(self, mounts: dict[str, str], own: dict[str, str]) -> None:
        self.mounts = mounts
        self.own = own
        self._v2_half: frozenset[str] | None = None
        if set(mounts) <= {UNIFIED}:
            self.mode = "v2" if mounts else "none"
        else:
            self.mode = "hybrid" if UNIFIED in mounts else "v1"

    def v2_half(self) -> frozenset[str]:
        """Return the controllers of the v2 tree in a hybrid set-up: those which no v1 hierarchy has taken."""
        if self._v2_half is None:
            try:
                text = (
                    read_text(self.mounts[UNIFIED] + "/cgroup.controllers") if self.mode == "hybrid" else ""
                )
            except OSError:
                text = ""
            self._v2_half = frozenset(text.split()) - self.mounts.keys()
        return self._v2_half

    def hierarchies(self) -> Iterator[tuple[str, list[str]]]:
        """Yield (mount point, its controllers); controllers that share a hierarchy come together."""
        seen: dict[str, list[str]] = {}
        for controller, mount_point in self.mounts.items():
            seen.setdefault(mount_point, []).append(controller)
        yield from seen.items()


def parse_layout(mounts: bytes, self_cgroup: bytes) -> Layout:
    """Find the hierarchies in the texts of /proc/self/mountinfo and /proc/self/cgroup.

    Of several mounts of one hierarchy the first below /sys/fs/cgroup counts, else the first.
    """
    own: dict[str, str] = {}
    for line in self_cgroup.decode("utf-8", "surrogateescape").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            own[name] = path
    found: dict[str, str] = {}
    for entry in mountinfo.parse(mounts):
        if entry.fs_type == "cgroup2":
            controllers = [UNIFIED]
        elif entry.fs_type == "cgroup":
            controllers = [option for option in entry.super_options if option and option in own]
        else:
            continue
        mount_point = entry.mount_point.decode("utf-8", "surrogateescape")
        for controller in controllers:
            before = found.get(controller)
            if before is not None and (_is_usual(before) or not _is_usual(mount_point)):
                continue
            found[controller] = mount_point
            own[controller] = _below(own.get(controller, "/"), entry.root.decode("utf-8", "surrogateescape"))
    return Layout(found, own)


def _is_usual(mount_point: str) -> bool:
    return mount_point == "/sys/fs/cgroup" or mount_point.startswith("/sys/fs/cgroup/")


def _below(path: str, root: str) -> str:
    """Return where *path* is below a mount that shows only *root* (a container without cgroup namespace)."""
    if root != "/" and (path + "/").startswith(root + "/"):
        return path[len(root) :] or "/"
    return path


_layout: Layout | None = None


def layout() -> Layout:
    """Return the layout of this machine, read once."""
    global _layout
    if _layout is None:
        with open("/proc/self/mountinfo", "rb") as mounts, open("/proc/self/cgroup", "rb") as own:
            _layout = parse_layout(mounts.read(), own.read())
    return _layout


def clean_path(path: str) -> str:
    """Return *path* absolute and without ".." (cleaned against the root of the hierarchy)."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


class Cgroup:
    """One group: a directory in each hierarchy.

    Attributes:
        dirs: controller -> absolute directory; `UNIFIED` for the v2 tree.
    """

    __slots__ = ("dirs", "layout", "path")
    unit = ""  # of a group that systemd has made

    def __init__(self, path: str, where: Layout | None = None, *, dirs: dict[str, str] | None = None) -> None:
        """
        Args:
            path: below the mount point of each hierarchy.
            dirs: directories as recorded earlier, instead of *path* in every hierarchy.
        """
        self.path = clean_path(path)
        self.layout = where or layout()
        self.dirs = dirs or {name: point + self.path for name, point in self.layout.mounts.items()}

    @property
    def is_v2(self) -> bool:
        """True when all controllers are in the v2 tree."""
        return self.layout.mode == "v2"

    def unique_dirs(self) -> list[str]:
        """Return each directory once."""
        return list(dict.fromkeys(self.dirs.values()))

    def create(self) -> None:
        """Make the directories with their parents; existing ones are used.

        Raises:
            OSError: ENOENT when no hierarchy is mounted; EOPNOTSUPP when the place in the v2 tree is one for
                threads.
        """
        if not self.dirs:
            raise FileNotFoundError(errno.ENOENT, "cgroup mountpoint does not exist")
        self._refuse_root()
        cpuset = self.dirs.get("cpuset")
        for directory in self.unique_dirs():
            _make_group(directory)
            if directory == cpuset:
                _inherit_cpuset(directory, self.layout.mounts.get("cpuset", ""))
        if self.is_v2:
            self.enable()
            self._refuse_threaded()

    def enable(self, controllers: Iterable[str] | None = None) -> None:
        """Hand controllers (None: all there are) on from the root of the v2 tree down to this group's parent.

        One that cannot be handed on is left out, be it that processes are in the way (EBUSY) or that we may not:
        a limit which needs it says so when it is set, and a group without limits works without it.
        """
        directory = self.layout.mounts[UNIFIED]
        for part in self.path.strip("/").split("/"):
            available = read_text(directory + "/cgroup.controllers").split()
            enabled = read_text(directory + "/cgroup.subtree_control").split()
            wanted = available if controllers is None else [name for name in controllers if name in available]
            _hand_on(directory, [name for name in wanted if name not in enabled])
            directory += "/" + part

    def _refuse_threaded(self) -> None:
        try:
            kind = self.read(UNIFIED, "cgroup.type").strip()
        except FileNotFoundError:  # the root has none
            return
        if kind != "domain":
            # Below a threaded group, or in one with processes of its own and controllers for its children.
            state = "an invalid state" if kind == "domain invalid" else f"{kind} mode"
            text = f'cannot enter cgroupv2 "{self.dirs[UNIFIED]}" with domain controllers -- it is in {state}'
            raise OSError(errno.EOPNOTSUPP, text)

    def delegate(self, uid: int) -> None:
        """Let *uid* manage the groups below this one (v2 only; in v1 that would be a way out).

        Source: cgroup-v2.rst "Delegation"; /sys/kernel/cgroup/delegate lists the files.
        """
        directory = self.dirs[UNIFIED]
        try:
            names = read_text("/sys/kernel/cgroup/delegate").split()
        except FileNotFoundError:
            names = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]
        os.chown(directory, uid, -1, follow_symlinks=False)
        for name in names:
            try:
                os.chown(f"{directory}/{name}", uid, -1, follow_symlinks=False)
            except FileNotFoundError:
                continue

    def settle(self) -> None:
        """Note that the container's first process is in the group, or will never be."""

    def set_properties(self, changes: dict[str, Any]) -> None:
        """Tell the manager of the group, if it has one, that these limits are going to change."""

    def exists(self) -> bool:
        """Tell whether any of the directories is there."""
        return any(os.path.isdir(directory) for directory in self.unique_dirs())

    def join_files(self) -> list[str]:
        """Return the files to which a single-threaded process writes "0" to become a member (v1 only).

        The v2 tree is not among them: see `open_unified`.
        """
        unified = self.dirs.get(UNIFIED)
        return [directory + "/tasks" for directory in self.unique_dirs() if directory != unified]

    def open_unified(self) -> int:
        """Open the directory in the v2 tree for CLONE_INTO_CGROUP; -1 when there is none."""
        directory = self.dirs.get(UNIFIED)
        if directory is None:
            return -1
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def leave_out_v2(self) -> None:
        """Do without the v2 tree of a hybrid set-up, for a process that is not going to be born into the group."""
        if not self.is_v2:
            self.dirs.pop(UNIFIED, None)

    def attach(self, pid: int) -> None:
        """Move a process with all its threads into the group."""
        for directory in self.unique_dirs():
            for attempt in range(5):
                try:
                    write_file(directory + "/cgroup.procs", str(pid))
                    break
                except OSError as error:
                    # EINVAL: a real-time task while the group has no rt_runtime yet (runc retries as well).
                    if error.errno != errno.EINVAL or attempt == 4:
                        raise
                    time.sleep(0.03)

    def write(self, controller: str, name: str, value: str) -> None:
        """Write *value* to a file of the group.

        Raises:
            OSError: ENOENT when the controller is not there.
        """
        write_file(self.file(controller, name), value)

    def read(self, controller: str, name: str) -> str:
        """Return the content of a file of the group."""
        return read_text(self.file(controller, name))

    def file(self, controller: str, name: str) -> str:
        """Return the path of a file of *controller* (its own directory in v1)."""
        directory = self.dirs.get(UNIFIED if self.is_v2 else controller)
        if directory is None:
            raise FileNotFoundError(errno.ENOENT, "no such cgroup controller", controller or "cgroup2")
        return f"{directory}/{name}"

    def pids(self) -> list[int]:
        """Return the processes in the group and in groups below it."""
        found: set[int] = set()
        for directory in (self.dirs.get(UNIFIED) or self.dirs.get("pids"), *self.unique_dirs()):
            if directory is None:
                continue
            try:
                for fd in walk(directory):
                    found.update(map(int, _processes(fd)))
            except FileNotFoundError:
                continue
            break
        return sorted(found - {0})  # 0: a process of a pid namespace that is not below ours

    def freeze(self) -> None:
        """Stop all processes; returns when they have stopped.

        Raises:
            TimeoutError: they did not stop; the group is thawed again.
        """
        self._refuse_root()
        if self.is_v2:
            self.write(UNIFIED, "cgroup.freeze", "1")
            self._wait_frozen(lambda _: "frozen 1" in self.read(UNIFIED, "cgroup.events"))
        else:
            self.write("freezer", "freezer.state", "FROZEN")
            self._wait_frozen(self._v1_is_frozen)

    def _v1_is_frozen(self, attempt: int) -> bool:
        if self.read("freezer", "freezer.state").strip() == "FROZEN":
            return True
        if attempt % _THAW_AFTER == _THAW_AFTER - 1:
            # A task that was caught in the middle of a fork or vfork can keep the group FREEZING until it has
            # run a little (runc libcontainer/cgroups/fs/freezer.go).
            self.write("freezer", "freezer.state", "THAWED")
            time.sleep(0.001)
        # Writing it again makes the kernel look again (freezer-subsystem.rst).
        self.write("freezer", "freezer.state", "FROZEN")
        return False

    def _wait_frozen(self, is_frozen: Callable[[int], bool]) -> None:
        deadline = time.monotonic() + _FREEZE_DEADLINE
        pause = 0.0001
        attempt = 0
        while not is_frozen(attempt):
            if time.monotonic() > deadline:
                self.thaw()
                raise TimeoutError(errno.ETIMEDOUT, "unable to freeze", self.path)
            time.sleep(pause)
            pause = min(pause * 2, 0.01)
            attempt += 1

    def thaw(self) -> None:
        """Let all processes run again."""
        if self.is_v2:
            self.write(UNIFIED, "cgroup.freeze", "0")
        else:
            self.write("freezer", "freezer.state", "THAWED")

    def is_frozen(self) -> bool:
        """Tell whether the group was frozen (not one above it)."""
        try:
            if self.is_v2:
                return self.read(UNIFIED, "cgroup.freeze").strip() == "1"
            if "freezer" not in self.dirs:
                return False
            return self.read("freezer", "freezer.self_freezing").strip() == "1"
        except FileNotFoundError:
            return False

    def kill_all(self, signum: int = 9) -> None:
        """Send *signum* to every process of the group; SIGKILL also thaws it."""
        self._refuse_root()
        self._refuse_own()
        if signum == 9 and UNIFIED in self.dirs:
            try:
                self._write_unified("cgroup.kill", "1")
                self._thaw_quietly()
                return
            except OSError:  # before Linux 5.14, or the group is gone
                pass
        # Frozen processes cannot fork faster than they are found.
        frozen = self._freeze_quietly()
        for _ in range(10):
            alive = [pid for pid in self.pids() if _kill(pid, signum)]
            if signum != 9 or not alive:
                break
        if frozen or signum == 9:
            self._thaw_quietly()

    def _refuse_root(self) -> None:
        """Everything that runs on the machine is below the root: no group of ours, whatever a caller thinks.

        Raises:
            PermissionError: the group is the root of a hierarchy.
        """
        if self.path == "/":
            raise PermissionError(errno.EPERM, "the root cgroup is not a container's", self.path)

    def _refuse_own(self) -> None:
        """A group with us or process 1 in it is no container's: killing it would take the machine along.

        Raises:
            PermissionError: we are in it, or process 1 is.
        """
        if not {1, os.getpid(), os.getppid()}.isdisjoint(self.pids()):
            raise PermissionError(errno.EPERM, "the caller's own cgroup is not a container's", self.path)

    def _write_unified(self, name: str, value: str) -> None:
        write_file(f"{self.dirs[UNIFIED]}/{name}", value)

    def _freeze_quietly(self) -> bool:
        if self.is_frozen():
            return False
        try:
            self.freeze()
        except OSError:
            return False
        return True

    def _thaw_quietly(self) -> None:
        try:
            if self.is_frozen():
                self.thaw()
        except OSError:
            return

    def is_populated(self) -> bool:
        """Tell whether a process is left in the group or below it."""
        try:
            if UNIFIED in self.dirs:
                return "populated 1" in read_text(f"{self.dirs[UNIFIED]}/cgroup.events")
        except OSError:
            return False
        return bool(self.pids())

    def remove(self, *, timeout: float = _REMOVE_DEADLINE) -> None:
        """Remove the directories, also groups that were made below them; gone ones are fine.

        Raises:
            OSError: EBUSY when processes are still there after *timeout* seconds.
        """
        self._refuse_root()
        deadline = time.monotonic() + timeout
        for directory in self.unique_dirs():
            pause = 0.0005
            while True:
                try:
                    remove_tree(directory)
                    break
                except OSError as error:
                    # A process that was killed leaves its groups a little after its parent has reaped it.
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        raise
                time.sleep(pause)
                pause = min(pause * 2, 0.05)

    def oom_kills(self) -> int:
        """Return how many processes of the group the kernel has killed for lack of memory."""
        try:
            if self.is_v2:
                return parse_flat(self.read(UNIFIED, "memory.events")).get("oom_kill", 0)
            return parse_flat(self.read("memory", "memory.oom_control")).get("oom_kill", 0)
        except OSError:
            return 0

    def may_have_starved(self) -> bool:
        """Tell whether a group that was removed behind our back, with its counters, had reached its memory limit."""
        return False

    def watch_oom(self) -> int:
        """Return a descriptor which becomes readable when the kernel runs out of memory for the group.

        Read 8 bytes (v1, an eventfd) or all inotify events (v2) from it and compare `oom_kills`.
        """
        if self.is_v2:
            from satsuma.linux import inotify  # brings ctypes, which most programs do without

            fd = inotify.init()
            try:
                inotify.add_watch(fd, self.file(UNIFIED, "memory.events"), inotify.IN_MODIFY)
            except OSError:
                os.close(fd)
                raise
            return fd
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(self.file("memory", "memory.oom_control"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.write("memory", "cgroup.event_control", f"{fd} {control}")
        except OSError:
            os.close(fd)
            raise
        finally:
            os.close(control)
        return fd


def _kill(pid: int, signum: int) -> bool:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def _processes(fd: int) -> list[str]:
    try:
        return read_text("cgroup.procs", fd).split()
    except OSError as error:
        # EOPNOTSUPP: a threaded group; its processes are listed in its domain.
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            raise
        return []


def _make_group(directory: str) -> None:
    missing = []
    while True:
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            pass
        except FileNotFoundError:
            missing.append(directory)
            directory = directory.rpartition("/")[0]
            if not directory:
                raise
            continue
        if not missing:
            return
        directory = missing.pop()


def _hand_on(directory: str, controllers: list[str]) -> None:
    if not controllers:
        return
    path = directory + "/cgroup.subtree_control"
    try:
        write_file(path, " ".join("+" + name for name in controllers))
    except OSError as error:
        if error.errno == errno.EBUSY:
            # Processes are in the way.  The kernel would still hand on those controllers that know threads, but
            # then no group below could hold processes any more (cgroup-v2.rst "Threads").
            return
        for name in controllers:
            try:
                write_file(path, "+" + name)
            except OSError:
                continue


def _inherit_cpuset(directory: str, top: str) -> None:
    # A new group of the v1 cpuset has neither cpus nor memory nodes and refuses processes until it has; a parent
    # that somebody else made may lack them too.
    for name in ("cpuset.cpus", "cpuset.mems"):
        lacking = []
        value = ""
        at = directory
        while not value and len(at) >= len(top):
            value = read_text(f"{at}/{name}").strip()
            if not value:
                lacking.append(at)
                at = at.rpartition("/")[0]
        for group in reversed(lacking):
            write_file(f"{group}/{name}", value)
