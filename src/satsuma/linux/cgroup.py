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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

UNIFIED = ""
_REMOVE_DEADLINE = 2.0
_FREEZE_DEADLINE = 10.0


class Layout:
    """The hierarchies of this machine.

    Attributes:
        mode: "v1", "hybrid" or "v2".
        mounts: controller ("memory", "name=systemd", "" for the v2 tree) -> mount point.
        own: controller -> path of the calling process inside its hierarchy.
    """

    __slots__ = ("mode", "mounts", "own")

    def __init__(self, mounts: dict[str, str], own: dict[str, str]) -> None:
        self.mounts = mounts
        self.own = own
        if set(mounts) <= {UNIFIED}:
            self.mode = "v2"
        else:
            self.mode = "hybrid" if UNIFIED in mounts else "v1"

    def hierarchies(self) -> Iterator[tuple[str, list[str]]]:
        """Yield (mount point, its controllers); controllers that share a hierarchy come together."""
        seen: dict[str, list[str]] = {}
        for controller, mount_point in self.mounts.items():
            seen.setdefault(mount_point, []).append(controller)
        yield from seen.items()


def parse_layout(mounts: bytes, self_cgroup: bytes, controllers: frozenset[str] | None = None) -> Layout:
    """Find the hierarchies in the texts of /proc/self/mountinfo and /proc/self/cgroup."""
    own: dict[str, str] = {}
    for line in self_cgroup.decode("utf-8", "surrogateescape").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            own[name] = path
    found: dict[str, str] = {}
    for entry in mountinfo.parse(mounts):
        mount_point = entry.mount_point.decode("utf-8", "surrogateescape")
        if entry.fs_type == "cgroup2":
            found.setdefault(UNIFIED, mount_point)
        elif entry.fs_type == "cgroup":
            for option in entry.super_options:
                if option in own and option:
                    found.setdefault(option, mount_point)
    return Layout(found, own)


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

    __slots__ = ("_created", "dirs", "layout", "path")

    def __init__(self, path: str, where: Layout | None = None, *, dirs: dict[str, str] | None = None) -> None:
        """
        Args:
            path: below the mount point of each hierarchy.
            dirs: directories as recorded earlier, instead of *path* in every hierarchy.
        """
        self.path = clean_path(path)
        self.layout = where or layout()
        self.dirs = dirs or {name: point + self.path for name, point in self.layout.mounts.items()}
        self._created = False

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
            OSError: EBUSY when a parent in the v2 tree holds processes itself.
        """
        for directory in self.unique_dirs():
            try:
                os.mkdir(directory, 0o755)
            except FileExistsError:
                continue
            except FileNotFoundError:
                self._create_parents(directory)
                os.mkdir(directory, 0o755)
            if "cpuset" in self.dirs and directory == self.dirs["cpuset"]:
                _inherit_cpuset(directory)
        if self.is_v2:
            self._enable_controllers()
        self._created = True

    def _create_parents(self, directory: str) -> None:
        parent = directory.rpartition("/")[0]
        try:
            os.mkdir(parent, 0o755)
        except FileExistsError:
            return
        except FileNotFoundError:
            self._create_parents(parent)
            self._create_parents(directory)
            return
        cpuset = self.dirs.get("cpuset")
        if cpuset is not None and cpuset.startswith(parent + "/"):
            _inherit_cpuset(parent)

    def _enable_controllers(self) -> None:
        # From the top down; a controller is usable in a group when its parent hands it on.
        top = self.layout.mounts[UNIFIED]
        parts = self.path.strip("/").split("/")
        for depth in range(len(parts)):
            directory = "/".join([top, *parts[:depth]])
            available = read_text(directory + "/cgroup.controllers").split()
            enabled = read_text(directory + "/cgroup.subtree_control").split()
            missing = [name for name in available if name not in enabled]
            if missing:
                self._enable(directory, missing)

    @staticmethod
    def _enable(directory: str, controllers: list[str]) -> None:
        try:
            write_file(directory + "/cgroup.subtree_control", " ".join("+" + name for name in controllers))
        except OSError:
            # One of them may be impossible here (cpu with real-time tasks, threaded domains): the others
            # are still worth having; a limit that needs a missing one fails by itself.
            for name in controllers:
                try:
                    write_file(directory + "/cgroup.subtree_control", "+" + name)
                except OSError as error:
                    if error.errno == errno.EBUSY:
                        raise

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
            raise FileNotFoundError(errno.ENOENT, "no such cgroup controller", controller)
        return f"{directory}/{name}"

    def pids(self) -> list[int]:
        """Return the processes in the group and in groups below it."""
        directory = self.dirs.get(UNIFIED) or self.dirs.get("pids") or self.unique_dirs()[0]
        found: list[int] = []
        for top, _, _ in os.walk(directory):
            try:
                found.extend(int(pid) for pid in read_text(top + "/cgroup.procs").split())
            except OSError:
                continue
        return sorted(set(found))

    def freeze(self) -> None:
        """Stop all processes; returns when they have stopped.

        Raises:
            TimeoutError: they did not stop; the group is thawed again.
        """
        if self.is_v2:
            self.write(UNIFIED, "cgroup.freeze", "1")
            self._wait_frozen(lambda: "frozen 1" in self.read(UNIFIED, "cgroup.events"))
        else:
            self.write("freezer", "freezer.state", "FROZEN")
            self._wait_frozen(self._v1_is_frozen)

    def _v1_is_frozen(self) -> bool:
        if self.read("freezer", "freezer.state").strip() == "FROZEN":
            return True
        # The state may hang in FREEZING; writing it again makes the kernel look again (freezer-subsystem.txt).
        self.write("freezer", "freezer.state", "FROZEN")
        return False

    def _wait_frozen(self, is_frozen: object) -> None:
        deadline = time.monotonic() + _FREEZE_DEADLINE
        pause = 0.0001
        while not is_frozen():  # type: ignore[operator]
            if time.monotonic() > deadline:
                self.thaw()
                raise TimeoutError(errno.ETIMEDOUT, "unable to freeze", self.path)
            time.sleep(pause)
            pause = min(pause * 2, 0.01)

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
            return self.read("freezer", "freezer.state").strip() in ("FROZEN", "FREEZING")
        except FileNotFoundError:
            return False

    def kill_all(self, signum: int = 9) -> None:
        """Send *signum* to every process of the group; SIGKILL also thaws it."""
        if signum == 9 and UNIFIED in self.dirs:
            try:
                self._write_unified("cgroup.kill", "1")
                self._thaw_quietly()
                return
            except OSError:  # before Linux 5.14, or the group is gone
                pass
        frozen = False
        if signum != 9:
            frozen = self._freeze_quietly()
        for _ in range(10):
            alive = [pid for pid in self.pids() if _kill(pid, signum)]
            if signum != 9 or not alive:
                break
        if frozen or signum == 9:
            self._thaw_quietly()

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
        deadline = time.monotonic() + timeout
        for directory in self.unique_dirs():
            pause = 0.0005
            while True:
                try:
                    _remove_tree(directory)
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


def _inherit_cpuset(directory: str) -> None:
    # A new group of the v1 cpuset has neither cpus nor memory nodes and refuses processes until it has.
    parent = directory.rpartition("/")[0]
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read_text(f"{directory}/{name}").strip():
            write_file(f"{directory}/{name}", read_text(f"{parent}/{name}").strip())


def _remove_tree(directory: str) -> None:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        children = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
        if not children:
            raise
        for child in children:
            _remove_tree(child)
        os.rmdir(directory)


def read_text(path: str) -> str:
    """Return a file of cgroupfs."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def write_file(path: str, value: str) -> None:
    """Write to a file of cgroupfs with a single write(2)."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        error.filename = path
        error.add_note(f"write({path!r}, {value!r})")
        raise
    finally:
        os.close(fd)


def parse_flat(text: str) -> dict[str, int]:
    """Parse "key value" lines; values that are no numbers are left out."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        try:
            values[key] = int(value)
        except ValueError:
            continue
    return values
