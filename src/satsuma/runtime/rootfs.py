"""Steps of a plan that build the root file system: mounts, devices, pivot_root, masks.

Everything inside the root goes through `Root` and detached mounts; no path of the container is ever joined to a
path of the host.  Sources of bind mounts are host paths, trusted as the caller gave them.

Source: runc libcontainer/rootfs_linux.go; CVE-2021-30465, 2019-16884, 2019-19921, 2025-31133, 2025-52881.
"""

from __future__ import annotations

import errno
import os
import stat as _stat

from satsuma.linux import mount as mounts
from satsuma.linux import mountinfo, syscalls
from satsuma.linux.root import Root
from satsuma.runtime.errors import StepError, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.runtime.mounts import MountSpec
    from satsuma.runtime.stage import Stage

# What may be bind-mounted below /proc (runc checkProcMount; lxcfs uses most of them).
_PROC_ALLOWED = frozenset(
    "/proc/" + name
    for name in (
        "cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo "
        "sys/kernel/ns_last_pid sys/crypto/fips_enabled"
    ).split()
)


def propagation(stage: Stage, flags: int) -> None:
    """Set the propagation of the mount at "/" (with MS_REC: of all mounts)."""
    syscalls.mount(None, "/", None, flags, None)


def open_overlay(overlay: dict[str, Any]) -> int:
    """Return the detached mount for `Extras.overlay`."""
    return mounts.overlay(
        overlay["lowerdirs"],
        overlay.get("upperdir"),
        overlay.get("workdir"),
        volatile=bool(overlay.get("volatile")),
    )


def root_overlay(stage: Stage, overlay: dict[str, Any]) -> None:
    """Mount the layers and lay them over "/", so that the mounts below can be attached."""
    try:
        given = stage.plan.root_fd
        _attach_root(stage, given if given >= 0 else open_overlay(overlay))
    except OSError as error:
        raise StepError(f"error mounting the root file system: overlay: {error_text(error)}") from error


def root_bind(stage: Stage, path: str) -> None:
    """Bind the root directory on a mount of its own, which pivot_root(2) needs."""
    try:
        try:
            fd = mounts.open_tree_clone(path, recursive=True)
        except PermissionError:
            if not stage.plan.in_userns:
                raise
            fd = stage.ask_mount(path)
        if not _stat.S_ISDIR(os.fstat(fd).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        _attach_root(stage, fd)
    except OSError as error:
        raise StepError(f"error preparing rootfs {path}: {error_text(error)}") from error


def _attach_root(stage: Stage, fd: int) -> None:
    mounts.mount_setattr(fd, propagation=syscalls.MS_PRIVATE, recursive=True)
    # On top of "/": no directory is needed for it, and our own root stays below, where paths still lead.
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.move_mount(fd, top)
    os.close(top)
    stage.root = Root(fd)


def _fail(spec: MountSpec, error: OSError, what: str = "") -> StepError:
    text = f'error mounting "{spec.source or spec.fstype}" to rootfs at "{spec.destination}": {what}{error_text(error)}'
    if error.errno == errno.ENOTDIR:
        text += (
            ": Are you trying to mount a directory onto a file (or vice-versa)? "
            "Check if the specified host path exists and is the expected type"
        )
        return StepError(text, 126)
    return StepError(text)


def mount(stage: Stage, spec: MountSpec) -> None:
    """Mount a new file system."""
    try:
        options = spec.data
        if spec.fstype == "tmpfs":
            options = _tmpfs_options(stage.root, spec)
        fd = mounts.create(
            spec.fstype, options, source=spec.source or spec.fstype, attr=_new_attributes(spec)
        )
    except OSError as error:
        raise _fail(spec, error) from error
    try:
        if spec.fstype in ("proc", "sysfs"):
            target = _open_ordinary_directory(stage.root, spec)
        else:
            target = _open_target(stage.root, spec, directory=True)
        if spec.copy_up:
            _copy_up(stage.root, spec, fd)
        _finish_mount(spec, fd)
        mounts.move_mount(fd, target)
        os.close(target)
        if spec.fstype == "proc" and stage.procfs < 0:
            stage.procfs = fd
            return
    except OSError as error:
        raise _fail(spec, error) from error
    os.close(fd)


def _new_attributes(spec: MountSpec) -> int:
    return spec.attr_set


def _tmpfs_options(root: Root, spec: MountSpec) -> list[tuple[str, str | None]]:
    """Without a mode, take that of the directory which is covered (as runc does)."""
    if any(key == "mode" for key, _ in spec.data):
        return spec.data
    try:
        mode = _stat.S_IMODE(root.stat(spec.destination).st_mode)
    except OSError:
        return spec.data
    return [*spec.data, ("mode", f"{mode:o}")]


def _finish_mount(spec: MountSpec, fd: int) -> None:
    """Set what can be set only on an existing mount: recursive attributes, propagation."""
    if spec.rec_set or spec.rec_clr:
        mounts.mount_setattr(fd, attr_set=spec.rec_set, attr_clr=_clear(spec.rec_clr), recursive=True)
    for flag, recursive in spec.propagation:
        mounts.mount_setattr(fd, propagation=flag, recursive=recursive)


def _clear(bits: int) -> int:
    # mount_setattr(2): a change of the atime mode must name the whole field.
    return bits | syscalls.MOUNT_ATTR__ATIME if bits & syscalls.MOUNT_ATTR__ATIME else bits


def _open_target(root: Root, spec: MountSpec, *, directory: bool) -> int:
    """Open the mount point inside the root, making it when it is missing."""
    _refuse_below_proc(root, spec)
    try:
        fd = root.open(spec.destination, os.O_PATH)
    except FileNotFoundError:
        pass
    else:
        if _stat.S_ISDIR(os.fstat(fd).st_mode) != directory:
            # move_mount(2) would say EINVAL.
            os.close(fd)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), spec.destination)
        return fd
    if directory:
        root.mkdirs(spec.destination, 0o755)
    else:
        make_file(root, spec.destination, 0o755 if spec.destination == "/sbin/docker-init" else 0o644)
    return root.open(spec.destination, os.O_PATH)


def make_file(root: Root, path: str, mode: int) -> None:
    """Make an empty file with its parents, also at the end of a dangling link; an existing one stays."""
    parent = path.rstrip("/").rpartition("/")[0]
    if parent:
        root.mkdirs(parent, 0o755)
    try:
        os.close(root.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC, mode))
    except OSError as error:
        # ENXIO: a FIFO without reader; it exists, which is all that matters.
        if error.errno not in (errno.ENXIO, errno.EISDIR):
            raise


def _clean(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _refuse_below_proc(root: Root, spec: MountSpec) -> None:
    """Nothing but an allow-list may cover files of procfs, by whatever path it is reached."""
    try:
        fd = root.open(spec.destination, os.O_PATH)
    except OSError:
        return
    try:
        inside = syscalls.fstatfs(fd)[0] == syscalls.PROC_SUPER_MAGIC
    finally:
        os.close(fd)
    destination = _clean(spec.destination)
    if not inside or (destination == "/proc" and spec.fstype == "proc"):
        return
    if destination in _PROC_ALLOWED and spec.bind:
        return
    raise StepError(
        f'error mounting "{spec.source}" to rootfs at "{spec.destination}": check proc-safety: '
        f'"{destination}" cannot be mounted because it is inside /proc'
    )


def _open_ordinary_directory(root: Root, spec: MountSpec) -> int:
    """Open the place of procfs or sysfs, which must be exactly /proc or /sys and no link."""
    destination = _clean(spec.destination)
    try:
        return root.open(destination, os.O_PATH | os.O_DIRECTORY, resolve=syscalls.RESOLVE_NO_SYMLINKS)
    except FileNotFoundError:
        root.mkdirs(destination, 0o755)
        return root.open(destination, os.O_PATH | os.O_DIRECTORY, resolve=syscalls.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise StepError(
            f'error mounting "{spec.source}" to rootfs at "{spec.destination}": '
            f'filesystem "{spec.fstype}" must be mounted on ordinary directory'
        ) from error


def bind(stage: Stage, spec: MountSpec) -> None:
    """Bind-mount a file or directory of the host."""
    try:
        # A mount that was made for us elsewhere: it belongs to no mount namespace, so it can be moved into ours.
        fd = os.dup(spec.source_fd) if spec.source_fd >= 0 else _clone_source(stage, spec)
    except OSError as error:
        raise _fail(spec, error, f"stat {spec.source}: ") from error
    try:
        if _clean(spec.destination) == "/proc" and syscalls.fstatfs(fd)[0] != syscalls.PROC_SUPER_MAGIC:
            raise StepError(
                f'error mounting "{spec.source}" to rootfs at "{spec.destination}": '
                '"/proc" cannot be mounted because it is not of type proc'
            )
        target = _open_target(stage.root, spec, directory=_stat.S_ISDIR(os.fstat(fd).st_mode))
        if spec.attr_set or spec.attr_clr:
            attr_set, attr_clr = spec.attr_set, _clear(spec.attr_clr)
            if attr_set & syscalls.MOUNT_ATTR__ATIME:
                attr_clr |= syscalls.MOUNT_ATTR__ATIME
            mounts.mount_setattr(fd, attr_set=attr_set, attr_clr=attr_clr)
        _finish_mount(spec, fd)
        mounts.move_mount(fd, target)
        os.close(target)
    except OSError as error:
        raise _fail(spec, error) from error
    finally:
        os.close(fd)


def _clone_source(stage: Stage, spec: MountSpec) -> int:
    if spec.idmap:
        return stage.ask_mount(spec)
    try:
        return mounts.open_tree_clone(spec.source, recursive=spec.recursive)
    except PermissionError:
        if not stage.plan.in_userns:
            raise
    # Root of the container is an ordinary user out here, who may not walk to everything.
    return stage.ask_mount(spec)


def remount(stage: Stage, spec: MountSpec) -> None:
    """Change the attributes of what is mounted at the destination already."""
    try:
        fd = stage.root.open(spec.destination, os.O_PATH)
        try:
            attr_clr = _clear(spec.attr_clr)
            if spec.attr_set & syscalls.MOUNT_ATTR__ATIME:
                attr_clr |= syscalls.MOUNT_ATTR__ATIME
            mounts.mount_setattr(fd, attr_set=spec.attr_set, attr_clr=attr_clr)
            _finish_mount(spec, fd)
            if spec.data and not spec.bind:
                mounts.reconfigure(fd, spec.data)
        finally:
            os.close(fd)
    except OSError as error:
        raise _fail(spec, error) from error


def _copy_up(root: Root, spec: MountSpec, fd: int) -> None:
    """Copy what the tmpfs is going to cover into it: owners, modes, links, attributes, content."""
    try:
        source = root.subroot(spec.destination)
    except FileNotFoundError:
        return
    target = Root(os.dup(fd))
    with source, target:
        for path, info in source.walk():
            _copy_entry(source, target, path, info)


def _copy_entry(source: Root, target: Root, path: bytes, info: os.stat_result) -> None:
    kind = _stat.S_IFMT(info.st_mode)
    name = path or b"."
    if kind == _stat.S_IFDIR:
        if path:
            target.mkdir(path, 0o700)
    elif kind == _stat.S_IFLNK:
        target.symlink(source.readlink(path), path)
    elif kind == _stat.S_IFREG:
        _copy_file(source, target, path)
    else:
        target.mknod(path, info.st_mode, info.st_rdev)
    target.lchown(name, info.st_uid, info.st_gid)
    target.chmod(name, _stat.S_IMODE(info.st_mode))
    for attribute in source.listxattr(name):
        if attribute.startswith(("user.", "security.capability")):
            target.setxattr(name, attribute, source.getxattr(name, attribute))
    target.utimens(name, info.st_atime_ns, info.st_mtime_ns)


def _copy_file(source: Root, target: Root, path: bytes) -> None:
    reader = source.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    writer = target.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while os.sendfile(writer, reader, None, 1 << 24):
            pass
    finally:
        os.close(reader)
        os.close(writer)


def mount_cgroup1(stage: Stage, spec: MountSpec, entries: list[tuple[str, list[str], str]]) -> None:
    """Make a tmpfs with one mount for each hierarchy of version 1."""
    readonly = spec.attr_set & syscalls.MOUNT_ATTR_RDONLY
    attr = spec.attr_set & ~syscalls.MOUNT_ATTR_RDONLY
    try:
        fd = mounts.create("tmpfs", [("mode", "755")], source="tmpfs", attr=attr)
        target = _open_target(stage.root, spec, directory=True)
        mounts.move_mount(fd, target)
        os.close(target)
        for name, controllers, source in entries:
            os.mkdir(name, 0o755, dir_fd=fd)
            if source:
                tree = mounts.open_tree_clone(source)
                mounts.mount_setattr(tree, attr_set=spec.attr_set)
            else:
                options: list[tuple[str, str | None]] = [_cgroup_option(c) for c in controllers]
                tree = mounts.create("cgroup", options, source="cgroup", attr=attr | readonly)
            place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            mounts.move_mount(tree, place)
            os.close(tree)
            os.close(place)
            for controller in controllers:
                link = controller.removeprefix("name=")
                if link != name:
                    os.symlink(name, link, dir_fd=fd)
        _finish_mount(spec, fd)
        os.close(fd)
    except OSError as error:
        raise _fail(spec, error) from error


def _cgroup_option(controller: str) -> tuple[str, str | None]:
    name, equals, value = controller.partition("=")
    return (name, value if equals else None)


def mount_cgroup2(stage: Stage, spec: MountSpec, source: str) -> None:
    """Mount the unified hierarchy, or bind the group's own directory when there is no cgroup namespace."""
    try:
        if source:
            fd = mounts.open_tree_clone(source)
            mounts.mount_setattr(fd, attr_set=spec.attr_set)
        else:
            fd = mounts.create("cgroup2", spec.data, source="cgroup", attr=spec.attr_set)
        _finish_mount(spec, fd)
        target = _open_target(stage.root, spec, directory=True)
        mounts.move_mount(fd, target)
        os.close(target)
        os.close(fd)
    except OSError as error:
        raise _fail(spec, error) from error


_KINDS = {"c": _stat.S_IFCHR, "u": _stat.S_IFCHR, "b": _stat.S_IFBLK, "p": _stat.S_IFIFO}


def devices(
    stage: Stage,
    defaults: tuple[tuple[str, int, int], ...],
    configured: list[tuple[str, str, int, int, int, int, int]],
) -> None:
    """Make the device nodes."""
    stage.root.mkdirs("dev", 0o755)
    configured_paths = {_clean(device[0]) for device in configured}
    directory = stage.root.open("dev", os.O_PATH | os.O_DIRECTORY)
    try:
        for name, major, minor in defaults:
            if f"/dev/{name}" in configured_paths:
                continue
            # umask is 0 here, so the mode is exact.
            mode, number = _stat.S_IFCHR | 0o666, os.makedev(major, minor)
            _make_node(directory, name.encode(), mode, number, f"/dev/{name}")
    finally:
        os.close(directory)
    for path, kind, major, minor, mode, uid, gid in configured:
        parent, base = stage.root.open_parent(path, create=True)
        try:
            number = 0 if kind == "p" else os.makedev(major, minor)
            _make_node(parent, base, _KINDS[kind] | mode, number, path)
            if uid or gid:
                os.chown(base, uid, gid, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            raise StepError(f"error creating device nodes: mknod {path}: {error_text(error)}") from error
        finally:
            os.close(parent)


def _make_node(directory: int, name: bytes, mode: int, number: int, path: str) -> None:
    try:
        os.mknod(name, mode, number, dir_fd=directory)
    except FileExistsError:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if _stat.S_IFMT(found.st_mode) != _stat.S_IFMT(mode) or found.st_rdev != number:
            text = name.decode("utf-8", "surrogateescape")
            raise StepError(
                f"error creating device nodes: {text} exists and is not the expected device"
            ) from None
    except PermissionError:
        # In a user namespace there is no mknod(2): bind the host's node instead.
        _bind_node(directory, name, mode, number, path)


def _bind_node(directory: int, name: bytes, mode: int, number: int, path: str) -> None:
    source = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        found = os.fstat(source)
        if _stat.S_IFMT(found.st_mode) != _stat.S_IFMT(mode) or found.st_rdev != number:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o666, dir_fd=directory))
        target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        fd = mounts.open_tree_clone(source)
        mounts.move_mount(fd, target)
        os.close(fd)
        os.close(target)
    finally:
        os.close(source)


def dev_links(stage: Stage, links: tuple[tuple[str, str], ...]) -> None:
    """Make the links in /dev; a link that is there already stays, ptmx is always ours."""
    directory = stage.root.open("dev", os.O_PATH | os.O_DIRECTORY)
    try:
        if os.path.exists("/proc/kcore"):
            links = (*links, ("core", "/proc/kcore"))
        for name, target in links:
            try:
                os.symlink(target, name, dir_fd=directory)
            except FileExistsError:
                continue
        try:
            os.symlink("pts/ptmx", "ptmx", dir_fd=directory)
        except FileExistsError:
            os.unlink("ptmx", dir_fd=directory)
            os.symlink("pts/ptmx", "ptmx", dir_fd=directory)
    except OSError as error:
        raise StepError(f"error setting up /dev symlinks: {error_text(error)}") from error
    finally:
        os.close(directory)


def pivot(stage: Stage) -> None:
    """Make the new root the root, and let go of the old one."""
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(stage.root.fd)
        syscalls.pivot_root(".", ".")
        # The old root lies over the new one now.  A slave, so that the unmount does not travel to the host.
        os.fchdir(old)
        syscalls.mount(None, ".", None, syscalls.MS_SLAVE | syscalls.MS_REC, None)
        syscalls.umount2(".", syscalls.MNT_DETACH)
        os.chdir("/")
    except OSError as error:
        raise StepError(f"error jailing process inside rootfs: pivot_root .: {error_text(error)}") from error
    finally:
        os.close(old)


def chroot(stage: Stage) -> None:
    """Enter the root without pivot_root(2), for a root on ramfs; the old mounts stay below, unreachable."""
    try:
        _hide_host(stage)
        # It lies on top of "/" already, where MS_MOVE would bring it.
        os.fchdir(stage.root.fd)
        os.chroot(".")
        os.chdir("/")
    except OSError as error:
        raise StepError(f"error jailing process inside rootfs: chroot: {error_text(error)}") from error


def _hide_host(stage: Stage) -> None:
    """Unmount or cover the host's procfs and sysfs, which are in our mount namespace for good (runc msMoveRoot).

    Where they are visible, a user namespace may mount new ones without what masks them here.
    """
    proc, pid = Root(stage.private_procfs()), os.getpid()
    info = proc.read_file(f"{pid}/fdinfo/{stage.root.fd}", 1 << 16)
    own = next(int(line.split()[1]) for line in info.splitlines() if line.startswith(b"mnt_id:"))
    entries = mountinfo.parse(proc.read_file(f"{pid}/mountinfo", 1 << 26))
    inside, before = {own}, 0
    while len(inside) > before:
        before = len(inside)
        inside.update(entry.mount_id for entry in entries if entry.parent_id in inside)
    for entry in reversed(entries):
        if entry.mount_id in inside or entry.fs_type not in ("proc", "sysfs"):
            continue
        try:
            syscalls.umount2(entry.mount_point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except OSError:
            place = os.open(entry.mount_point, os.O_PATH | os.O_CLOEXEC)  # locked: not ours to unmount
            fd = mounts.create("tmpfs", [("nr_blocks", "1")], source="tmpfs", attr=syscalls.MOUNT_ATTR_RDONLY)
            mounts.move_mount(fd, place)
            os.close(fd)
            os.close(place)


def chroot_path(stage: Stage, path: str) -> None:
    """Enter the root without a mount namespace."""
    try:
        os.chroot(path)
        os.chdir("/")
    except OSError as error:
        raise StepError(f"error jailing process inside rootfs: chroot {path}: {error_text(error)}") from error
    stage.root = Root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def reopen_null(stage: Stage) -> None:
    """Exchange standard streams on the host's /dev/null for the container's own node."""
    ours = None
    for fd in (0, 1, 2):
        info = os.fstat(fd)
        if not _stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
            continue
        if ours is None:
            try:
                ours = open_null(stage.root, os.O_RDWR)
            except OSError:
                return
        os.dup2(ours, fd, inheritable=True)
    if ours is not None:
        os.close(ours)


def open_null(root: Root, flags: int) -> int:
    """Open the container's /dev/null and make sure that it is the null device (CVE-2025-31133)."""
    if flags != os.O_PATH:  # which takes no other flags (openat2(2) EINVAL)
        flags |= os.O_NOCTTY | os.O_NONBLOCK
    fd = root.open("dev/null", flags | os.O_NOFOLLOW)
    info = os.fstat(fd)
    if not _stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise OSError(errno.ENODEV, "/dev/null is not the null device")
    return fd


def remount_readonly(stage: Stage, path: str) -> None:
    """Make a mount read-only now that everything in it has been made."""
    fd = stage.root.fd if path == "/" else stage.root.open(path, os.O_PATH)
    try:
        mounts.mount_setattr(fd, attr_set=syscalls.MOUNT_ATTR_RDONLY)
    except OSError as error:
        raise StepError(f"error remounting {path} as readonly: {error_text(error)}") from error
    finally:
        if path != "/":
            os.close(fd)


_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def readonly_paths(stage: Stage, paths: list[str]) -> None:
    """Cover each path with a read-only view of itself; missing ones are skipped."""
    for path in paths:
        try:
            target = stage.root.open(path, os.O_PATH)
        except OSError as error:
            if error.errno in _ABSENT:
                continue
            raise StepError(f"error setting readonly path {path}: {error_text(error)}") from error
        try:
            fd = mounts.open_tree_clone(target, recursive=True)
            mounts.mount_setattr(fd, attr_set=syscalls.MOUNT_ATTR_RDONLY)
            mounts.move_mount(fd, target)
            os.close(fd)
        except OSError as error:
            raise StepError(f"error setting readonly path {path}: {error_text(error)}") from error
        finally:
            os.close(target)


def _open_mask(root: Root, path: str) -> int:
    try:
        return open_null(root, os.O_PATH)
    except OSError as error:
        raise StepError(
            f"error setting masked path {path}: /dev/null of the container is not the null device"
        ) from error


def masked_paths(stage: Stage, paths: list[str]) -> None:
    """Hide each path: a file behind /dev/null, a directory behind an empty read-only tmpfs that all share."""
    null = empty = -1
    for path in paths:
        try:
            target = stage.root.open(path, os.O_PATH)
        except OSError as error:
            if error.errno in _ABSENT:
                continue
            raise StepError(f"error setting masked path {path}: {error_text(error)}") from error
        try:
            if _stat.S_ISDIR(os.fstat(target).st_mode):
                first = empty < 0
                if first:
                    limits: list[tuple[str, str | None]] = [("nr_blocks", "1"), ("nr_inodes", "1")]
                    empty = mounts.create("tmpfs", limits, source="tmpfs", attr=syscalls.MOUNT_ATTR_RDONLY)
                fd = empty if first else mounts.open_tree_clone(empty)
            else:
                if null < 0:
                    null = _open_mask(stage.root, path)
                fd = mounts.open_tree_clone(null)
            mounts.move_mount(fd, target)
            if fd != empty:
                os.close(fd)
        except OSError as error:
            raise StepError(f"error setting masked path {path}: {error_text(error)}") from error
        finally:
            os.close(target)
    for fd in (null, empty):
        if fd >= 0:
            os.close(fd)


OPERATIONS: dict[str, Any] = {
    "propagation": propagation,
    "root_overlay": root_overlay,
    "root_bind": root_bind,
    "mount": mount,
    "bind": bind,
    "remount": remount,
    "mount_cgroup1": mount_cgroup1,
    "mount_cgroup2": mount_cgroup2,
    "devices": devices,
    "dev_links": dev_links,
    "pivot": pivot,
    "chroot": chroot,
    "chroot_path": chroot_path,
    "reopen_null": reopen_null,
    "remount_readonly": remount_readonly,
    "readonly_paths": readonly_paths,
    "masked_paths": masked_paths,
}
