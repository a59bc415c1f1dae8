"""The commands `checkpoint` and `restore`: a container's processes as files, and back, by CRIU.

What belongs to the host is "external" for CRIU: at the dump it gets a name, at the restore a source.  These are bind
mounts, the hierarchies of cgroups version 1 and the masks; a network or pid namespace that was given by its path; and
pipes which are the standard streams.

    <image path>/*.img              CRIU's
    <image path>/descriptors.json   what the standard streams were
    <work path>/dump.log, restore.log

Source: runc checkpoint.go, restore.go, libcontainer/criu_linux.go; criu(8) "--external", "--inherit-fd".
"""

from __future__ import annotations

import os
import stat as _stat
import time

from satsuma.linux import ns, pidfd, syscalls
from satsuma.linux.cgroup import clean_path, layout
from satsuma.linux.root import Root
from satsuma.runtime import criu, fastjson, maker, manager, resources, state
from satsuma.runtime.config import Config, parse
from satsuma.runtime.create import Init
from satsuma.runtime.errors import ConfigError, RuntimeFailure, error_text
from satsuma.runtime.mounts import MountSpec, parse_mount
from satsuma.runtime.plan import DEFAULT_DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.linux.cgroup import Cgroup
    from satsuma.runtime.state import Container

    Values = dict[str, Any]
    Fields = list[tuple[int, Any]]

_DESCRIPTORS = "descriptors.json"
_GONE_TIMEOUT = 10.0
_LOG_LEVEL = 4
_CLONE_NEWNET = 0x40000000
# criu_opts
_IMAGES, _PID, _LEAVE_RUNNING, _LOG_LEVEL_FIELD, _LOG_FILE, _PAGE_SERVER, _NOTIFY = 1, 2, 3, 9, 10, 11, 12
_ROOT, _PARENT, _TRACK_MEMORY, _WORK, _CGROUP_ROOT, _SIBLING, _INHERIT = 13, 14, 15, 17, 25, 26, 27
_CGROUP_MODE, _EXTERNAL, _EMPTY_NS, _FREEZE_CGROUP, _ORPHAN_MASTER, _LSM_PROFILE = 34, 37, 38, 44, 50, 53
_EVASIVE_DEVICES = 6
_FLAGS = {"ext-unix-sk": 4, "tcp-established": 5, "shell-job": 7, "file-locks": 8, "auto-dedup": 16}
_CGROUP_MODES = {"ignore": 0, "soft": 3, "full": 4, "strict": 5}
# Namespaces by path -> the names under which CRIU and peers know them.
_SHARED = {"net": "extRootNetNS", "pid": "extRootPidNS"}


def _directory(path: str) -> int:
    try:
        os.makedirs(path, 0o755, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeFailure(f"unable to use {path}: {error_text(error)}") from error


def _paths(values: Values) -> tuple[str, str]:
    """Return the directories of the images and of the logs (CRIU's default is the same one)."""
    images = os.path.abspath(values.get("image-path") or "checkpoint")
    return images, os.path.abspath(values.get("work-path") or images)


def _common(values: Values, images: int, work: int, log: str) -> Fields:
    options: Fields = [
        # CRIU opens these two by our own /proc/PID/fd.
        (_IMAGES, images),
        (_WORK, work),
        (_LOG_LEVEL_FIELD, _LOG_LEVEL),
        (_LOG_FILE, log),
        (_NOTIFY, 1),
        (_ORPHAN_MASTER, 1),
        (_CGROUP_MODE, _cgroup_mode(values.get("manage-cgroups-mode") or "soft")),
    ]
    options += [(number, 1) for flag, number in _FLAGS.items() if values.get(flag)]
    empty = 0
    for name in values.get("empty-ns", []):
        if name != "network":
            raise RuntimeFailure(f"namespace {name} is not supported for --empty-ns")
        empty |= _CLONE_NEWNET
    return [*options, (_EMPTY_NS, empty)] if empty else options


def _cgroup_mode(name: str) -> int:
    if name not in _CGROUP_MODES:
        raise RuntimeFailure(f"invalid manage-cgroups-mode: {name}")
    return _CGROUP_MODES[name]


def _external_mounts(config: Config, bundle: str, rootfs: str, group: Cgroup) -> dict[str, str]:
    """Return {place in the container: source on the host} of the mounts that CRIU must not look into."""
    found: dict[str, str] = {}
    for raw in config.mounts:
        spec = parse_mount(raw, bundle)
        place = clean_path(spec.destination)
        if spec.bind:
            found[place] = spec.source
        elif spec.fstype == "cgroup" and not group.is_v2:
            for mount_point, controllers in group.layout.hierarchies():
                if controllers != [""]:
                    name = mount_point.rpartition("/")[2]
                    found[f"{place}/{name}"] = group.dirs[controllers[0]]
    if "user" in config.namespaces and "/dev" not in found:
        # Where there is no mknod(2) they are bound.
        nodes = [
            *(f"/dev/{name}" for name, _, _ in DEFAULT_DEVICES),
            *(raw["path"] for raw in config.devices),
        ]
        found.update((clean_path(node), clean_path(node)) for node in nodes)
    with Root.open_path(rootfs) as root:
        for path in config.masked_paths:
            if not _is_directory(root, path):
                found[clean_path(path)] = "/dev/null"
    return found


def _is_directory(root: Root, path: str) -> bool:
    """Tell whether a masked path is a directory; those of procfs and sysfs are in ours as well."""
    where = path if path.startswith(("/proc/", "/sys/")) else ""
    try:
        mode = os.stat(where).st_mode if where else root.stat(path).st_mode
    except OSError:
        return True  # not there, so nothing was put over it
    return _stat.S_ISDIR(mode)


def checkpoint(container: Container, program: str, values: Values, warn: Any) -> None:
    """Write the state of a container's processes into files; they end, unless they are left running.

    Raises:
        RuntimeFailure: CRIU does not work here, or cannot dump what the container has.
    """
    if why := criu.unusable(program):
        raise RuntimeFailure(why)
    status = container.status()
    if status not in (state.RUNNING, state.PAUSED):
        raise RuntimeFailure(f"Container cannot be checkpointed in {status} state")
    images, work = _paths(values)
    images_fd, work_fd = _directory(images), _directory(work)
    pre_dump = bool(values.get("pre-dump"))
    stays = pre_dump or bool(values.get("leave-running"))
    config = parse(container.config)
    try:
        service = criu.Service(program)
        try:
            options = _common(values, images_fd, work_fd, "dump.log") + _dump_options(
                container, config, values
            )
            if not pre_dump:
                _save_descriptors(container.pid, f"{images}/{_DESCRIPTORS}")
            service.request(criu.PRE_DUMP if pre_dump else criu.DUMP, options)
        except RuntimeFailure as error:
            raise _failure(error, f"{work}/dump.log") from error
        finally:
            service.close()
    finally:
        os.close(images_fd)
        os.close(work_fd)
    if stays:
        return
    if not manager.wait_gone(container, _GONE_TIMEOUT):
        raise RuntimeFailure("container init still running")
    manager.delete_container(container, force=True, warn=warn)


def _dump_options(container: Container, config: Config, values: Values) -> Fields:
    options: Fields = [(_PID, container.pid), (_ROOT, container.data["rootfs"])]
    group = container.cgroup(layout())
    # A frozen group is one that CRIU need not stop itself; it is given back as it was.
    freezer = group.dirs.get("") if group.is_v2 else group.dirs.get("freezer")
    if freezer:
        options.append((_FREEZE_CGROUP, freezer))
    if values.get("leave-running") or values.get("pre-dump"):
        options.append((_LEAVE_RUNNING, 1))
    if values.get("pre-dump"):
        options.append((_TRACK_MEMORY, 1))
    if parent := values.get("parent-path"):
        if os.path.isabs(parent):
            raise RuntimeFailure("--parent-path must be relative to the image path")
        options += [(_PARENT, parent), (_TRACK_MEMORY, 1)]
    if server := values.get("page-server"):
        address, colon, port = server.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit() and len(port) < 6):
            raise RuntimeFailure("Use --page-server ADDRESS:PORT to specify page server")
        options.append((_PAGE_SERVER, [(1, address), (2, int(port))]))
    bundle, rootfs = container.data["bundle"], container.data["rootfs"]
    for place in _external_mounts(config, bundle, rootfs, group):
        options.append((_EXTERNAL, f"mnt[{place}]:{place}"))
    for kind, name in _SHARED.items():
        if config.namespaces.get(kind):
            options.append((_EXTERNAL, f"{kind}[{ns.ns_inode(container.pid, kind)}]:{name}"))
    return options


def _save_descriptors(pid: int, path: str) -> None:
    names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3) if os.path.islink(f"/proc/{pid}/fd/{fd}")]
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(fastjson.dumps(names))


def _failure(error: RuntimeFailure, log: str) -> RuntimeFailure:
    why = criu.first_error(log) or str(error) or "no reason given"
    return RuntimeFailure(f"criu failed: {why}\nlog file: {log}")


def restore(
    root: str, container_id: str, program: str, values: Values, options: maker.Options
) -> tuple[Container, Init]:
    """Make a container whose processes go on where those of a checkpoint stood; leaves nothing when it fails.

    Raises:
        RuntimeFailure: CRIU does not work here, or the bundle is not that of the checkpoint.
    """
    if why := criu.unusable(program):
        raise RuntimeFailure(why)
    container, config, group = maker.prepare(root, container_id, values.get("bundle", "."), options)
    images, work = _paths(values)
    if not os.path.isdir(images):
        container.remove_directory()
        raise RuntimeFailure(f"unable to use {images}: no such file or directory")
    fds: dict[str, int] = {}
    try:
        for kind, name in _SHARED.items():
            if path := config.namespaces.get(kind):
                fds[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        init = _restore(container, config, group, program, values, fds, (images, work))
    except BaseException as error:
        _discard(container, group)
        if isinstance(error, RuntimeFailure) and not isinstance(error, ConfigError):
            raise _failure(error, f"{work}/restore.log") from error
        raise
    finally:
        for fd in fds.values():
            os.close(fd)
    return container, init


def _restore(
    container: Container,
    config: Config,
    group: Cgroup,
    program: str,
    values: Values,
    fds: dict[str, int],
    places: tuple[str, str],
) -> Init:
    rootfs, bundle = container.data["rootfs"], container.data["bundle"]
    _make_mount_points(config, bundle, rootfs)
    external = _external_mounts(config, bundle, rootfs, group)
    try:
        group.create()
        resources.apply(group, config.resources)
    except OSError as error:
        raise RuntimeFailure(resources.failure_text(error)) from error
    init = Init(0, -1, 0, None, [])
    mounts = _OwnMounts(rootfs)

    def notified(stage: str, pid: int, fd: int) -> None:
        if stage == "orphan-pts-master":
            init.console_master_fd = fd
        elif stage == "setup-namespaces":
            mounts.leave()
            for kind, status in (("prestart", "created"), ("createRuntime", "creating")):
                manager.host_hooks(container, kind, status, pid)
            mounts.enter()
        elif stage == "post-restore":
            container.data.update(init_process_pid=pid, init_process_start=pidfd.start_time(pid))
            container.save()

    with mounts:
        directories = [_directory(place) for place in places]
        service = criu.Service(program, fds)
        try:
            group.attach(service.pid)  # what it forks is born there
            options = _common(values, directories[0], directories[1], "restore.log")
            options += _restore_options(group, values, service, external, rootfs, places[0])
            pid = service.request(criu.RESTORE, options, notified)
            init.pid = pid
            init.pidfd = os.pidfd_open(pid)
            init.start_time = pidfd.start_time(pid)
        finally:
            service.close()
            for fd in directories:
                os.close(fd)
    return init


def _restore_options(
    group: Cgroup,
    values: Values,
    service: criu.Service,
    external: dict[str, str],
    rootfs: str,
    images: str,
) -> Fields:
    options: Fields = [(_ROOT, rootfs), (_SIBLING, 1), (_EVASIVE_DEVICES, 1)]
    options += [(_EXTERNAL, f"mnt[{place}]:{source}") for place, source in external.items()]
    if not group.is_v2:
        for controller, path in _group_paths(group):
            options.append((_CGROUP_ROOT, [(1, controller), (2, path)]))
    for name in _SHARED.values():
        try:
            number = service.number(name)
        except KeyError:
            continue
        options.append((_INHERIT, [(1, name), (2, number)]))
    if profile := values.get("lsm-profile"):
        options.append((_LSM_PROFILE, profile))
    return options + [(_INHERIT, [(1, name), (2, fd)]) for fd, name in _inherited_pipes(images)]


def _group_paths(group: Cgroup) -> list[tuple[str, str]]:
    """Return (controller, path in its hierarchy)."""
    return [
        (controller, directory.removeprefix(group.layout.mounts[controller]) or "/")
        for controller, directory in group.dirs.items()
        if controller and controller in group.layout.mounts
    ]


def _inherited_pipes(images: str) -> list[tuple[int, str]]:
    """Return (descriptor of ours, name at the dump) of the standard streams that were pipes."""
    try:
        with open(f"{images}/{_DESCRIPTORS}", "rb") as file:
            names = fastjson.loads(file.read())
    except (OSError, ValueError) as error:
        raise RuntimeFailure(f"unable to read {images}/{_DESCRIPTORS}: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RuntimeFailure(f"malformed {images}/{_DESCRIPTORS}")
    return [(fd, name) for fd, name in enumerate(names[:3]) if name.startswith("pipe:")]


class _OwnMounts:
    """A mount namespace of our own while the block lasts, in which the root is a mount, as CRIU needs it.

    CRIU opens its directories through us, so we must be there as well.
    """

    __slots__ = ("_directory", "_host", "_own", "_rootfs")

    def __init__(self, rootfs: str) -> None:
        self._rootfs = rootfs
        self._own = -1

    def __enter__(self) -> _OwnMounts:
        self._host = ns.open_ns("self", "mnt")
        self._directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ns.unshare("mnt")
            self._own = ns.open_ns("self", "mnt")
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE, None)
            syscalls.mount(self._rootfs, self._rootfs, None, syscalls.MS_BIND | syscalls.MS_REC, None)
        except OSError as error:
            self.__exit__()
            raise RuntimeFailure(f"unable to make a mount namespace: {error_text(error)}") from error
        return self

    def leave(self) -> None:
        """Go back to the host's mounts, and to the working directory, which setns(2) changes."""
        ns.setns(self._host, "mnt")
        os.fchdir(self._directory)

    def enter(self) -> None:
        """Come back."""
        ns.setns(self._own, "mnt")

    def __exit__(self, *_: object) -> None:
        self.leave()
        for fd in (self._host, self._directory, self._own):
            if fd >= 0:
                os.close(fd)


def _make_mount_points(config: Config, bundle: str, rootfs: str) -> None:
    """Make what the mounts of the checkpoint need in a root that has not seen them yet."""
    covered: list[str] = []
    with Root.open_path(rootfs) as root:
        for raw in config.mounts:
            spec = parse_mount(raw, bundle)
            place = clean_path(spec.destination)
            if not any(place.startswith(f"{above}/") for above in covered):
                _make_mount_point(root, spec)
            covered.append(place)


def _make_mount_point(root: Root, spec: MountSpec) -> None:
    from satsuma.runtime.rootfs import make_file

    if spec.bind and not os.path.isdir(spec.source):
        make_file(root, spec.destination, 0o644)
    else:
        root.mkdirs(spec.destination, 0o755)


def _discard(container: Container, group: Cgroup) -> None:
    """Undo a restore that has failed."""
    if group.exists():
        group.kill_all()
        deadline = time.monotonic() + _GONE_TIMEOUT
        while group.is_populated() and time.monotonic() < deadline:
            time.sleep(0.01)
        group.remove(timeout=_GONE_TIMEOUT)
    container.remove_directory()
