"""The new process between clone and execve: carries out the steps of a plan.

Runs in a single-threaded child that must be treated like C code: everything is imported beforehand, imports are
shut off before the first step, no locks, no logging, no name lookups.  All errors travel to the parent as text
over one SOCK_SEQPACKET descriptor, whose closing by execve is the sign of success.

Messages to the parent, one packet each: b"E" exit code, text (error, the end); b"W" text (warning); b"C" with the
terminal's master attached; b"H" (run the hooks of the runtime, answer with a byte); b"U" (write the id maps,
answer with a byte); b"D" (move the network devices, answer with a byte); b"S" and the number of a step (make its
mount, answer with the descriptor attached); b"N" (the seccomp listener is in the mailbox); b"P" (from here on
another process speaks, the sender; answer with a byte); b"Q" (the same, without an answer); b"R" (ready: only the
program itself can fail from here on).

Source: runc libcontainer/standard_init_linux.go, setns_init_linux.go, init_linux.go.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` needs enum
import _socket
import errno
import fcntl
import gc
import os
import struct
import sys

from satsuma.linux import mount as mounts
from satsuma.linux import ns, prctl, pty, syscalls
from satsuma.linux.passwd import UserError, find_home, resolve_user
from satsuma.linux.root import Root
from satsuma.runtime import birth, hooks, rootfs
from satsuma.runtime.errors import StepError, error_text
from satsuma.runtime.finish import adopt, can_adopt_ahead, finish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from satsuma.runtime.plan import Plan

_PASSWD_LIMIT = 10 << 20
_NOT_BUILDING = frozenset(
    ("prepare", "join_cgroup", "setns", "setns_init", "check_maps", "resolve_user", "finish")
)
_JOINING = frozenset(("setns_init", "keyring", "enter_root"))
_NSIG = 65
# What join_session_keyring(2) gives, and search for the owner: without it the name is not found (runc keys.go).
_KEYRING_PERM = 0x3F130000 | 0x00080000
_LIBC_SIGNALS = (32, 33)
"""Used by glibc's threads; sigaction(3) refuses them, and whoever started us may have ignored them."""


class Stage:
    """What the steps share.

    Attributes:
        sock: descriptor of our end of the socket to the parent.
        root: the container's root file system, once it exists.
        procfs: mount descriptor of a procfs of our own making, -1 until needed.
        has_default_signals: `reset_signals` has been called in this process already.
        fifo: the exec FIFO, open for writing from `start` until execve closes it.
        done: names of the parts that `go_ahead` has done.
        group_files: what `join_cgroup` writes to, if it has been opened before the root changed.
    """

    __slots__ = (
        "args",
        "done",
        "fifo",
        "gid",
        "group_files",
        "groups",
        "has_default_signals",
        "home",
        "init_pidfd",
        "plan",
        "procfs",
        "root",
        "sock",
        "stdio",
        "uid",
    )

    def __init__(self, plan: Plan, sock: int, stdio: tuple[int, int, int], init_pidfd: int = -1) -> None:
        self.plan = plan
        self.sock = sock
        self.stdio = stdio
        self.init_pidfd = init_pidfd
        self.root: Root = Root(-1)
        self.procfs = -1
        self.has_default_signals = False
        self.fifo = -1
        self.done: set[str] = set()
        self.group_files: list[int] = []
        self.uid = self.gid = 0
        self.groups: list[int] = []
        self.home = "/"
        self.args: list[str] = list(plan.args)

    @property
    def is_awaited(self) -> bool:
        """True unless the parent listens before it reaps, as who tells a helper ahead does."""
        return "adopt" not in self.done

    def replan(self, plan: Plan) -> None:
        """Have other things to do, of which those in `done` are the same."""
        self.plan = plan
        self.args = list(plan.args)

    def at(self, step: str) -> None:
        """Say which step begins, if somebody has asked for times."""
        trace = self.plan.extras.trace
        if trace is not None:
            trace.reached(step)

    def warn(self, text: str) -> None:
        """Tell the parent something that does not stop us."""
        os.write(self.sock, b"W" + text.encode("utf-8", "surrogateescape")[:4000])

    def ask_parent(self, request: bytes) -> None:
        """Send a request and wait for its answer."""
        os.write(self.sock, request)
        self.take_answer()

    def take_answer(self) -> None:
        """Wait for the answer to a request."""
        answer = os.read(self.sock, 4096)
        if answer[:1] != b"K":
            raise StepError(answer[1:].decode("utf-8", "replace") or "parent process is gone")

    def ask_mount(self, what: object) -> int:
        """Let the parent make the mount of a step of the plan, which needs rights that we do not have."""
        index = next(
            number
            for number, entry in enumerate(self.plan.steps)
            if entry.name in ("bind", "root_bind") and entry.args[0] is what
        )
        os.write(self.sock, b"S" + index.to_bytes(4, "big"))
        sock = _socket.socket(fileno=self.sock)
        answer, ancillary, _, _ = sock.recvmsg(4096, 64, _socket.MSG_CMSG_CLOEXEC)
        sock.detach()
        if answer[:1] != b"K" or not ancillary:
            raise StepError(answer[1:].decode("utf-8", "replace") or "parent process is gone")
        return int(struct.unpack("i", ancillary[0][2][:4])[0])

    def private_procfs(self) -> int:
        """Return a procfs mount which nobody can have covered: all our writes below /proc go through it."""
        if self.procfs < 0:
            self.procfs = mounts.create("proc")
        return self.procfs

    def write_proc(self, path: str, value: str) -> None:
        """Write a file of procfs, without crossing mounts or following links."""
        proc = Root(self.private_procfs())
        fd = proc.open(path, os.O_WRONLY, resolve=syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS)
        try:
            os.write(fd, value.encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)


def run(stage: Stage) -> NoReturn:
    """Carry out the plan and become the program; never returns."""
    code = 255
    name = "prepare"
    try:
        stage.at(name)
        if name in stage.done:
            _take_streams(stage)
        else:
            _prepare(stage)
        for step in stage.plan.steps:
            name = step.name
            stage.at(name)
            if name not in stage.done:
                OPERATIONS[name](stage, *step.args)
        name = "finish"
        finish(stage)
    except StepError as error:
        # runc puts it before what fails while it builds the container, and not before the rest.
        prefix = "" if name in _NOT_BUILDING else "error during container init: "
        _report(stage, prefix + str(error), error.exit_code)
    except (OSError, UserError, ValueError) as error:
        _report(stage, f"error during container init: {error_text(error)}", 128)
    except BaseException as error:
        _report(stage, f"internal error in container init: {type(error).__name__}: {error}", 128)
    finally:
        os._exit(code)


def go_ahead(stage: Stage, *, become: bool) -> None:
    """Do as much of an exec's plan as the container's programs cannot see, outside of their pid namespace.

    What fails is left for `run`, which tries it again at its time and reports it.

    Args:
        become: find the user and the directory too, and take them; without, what is done fits every process.
    """
    try:
        if "prepare" not in stage.done:
            _prepare(stage)
            stage.done.add("prepare")
        for step in stage.plan.steps:
            if step.name == "join_cgroup":
                # Their paths are the host's.  The kernel asks for the rights of who has opened them.
                files: list[str] = step.args[0]  # type: ignore[assignment]
                if not stage.group_files:
                    stage.group_files = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in files]
            elif step.name not in _JOINING and not (become and step.name == "resolve_user"):
                return
            elif step.name not in stage.done:
                OPERATIONS[step.name](stage, *step.args)
                stage.done.add(step.name)
        if become and can_adopt_ahead(stage.plan):
            adopt(stage)
            stage.done.add("adopt")
            if birth.load_ahead(stage.plan):
                stage.done.add("seccomp")
    except (StepError, OSError, UserError, ValueError):
        return


def _report(stage: Stage, text: str, exit_code: int) -> None:
    message = b"E" + bytes([exit_code]) + text.encode("utf-8", "surrogateescape")[:16000]
    # Whoever called `start` waits at the other end of the FIFO; before that, the parent does at the socket.
    for fd in (stage.fifo, stage.sock):
        try:
            os.write(fd, message)
            return
        except OSError:
            continue


class _NoImports:
    """The last finder: after the root has changed, an import would run files of the container."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        raise ImportError(f"import of {name} inside a container")


def _prepare(stage: Stage) -> None:
    """Make the child a clean place: no host descriptors, no imports, default signals, undumpable."""
    prctl.set_dumpable(dumpable=False)
    gc.disable()
    sys.path[:] = []
    sys.path_hooks[:] = []
    sys.meta_path[:] = [_NoImports]
    sys.dont_write_bytecode = True
    if not stage.has_default_signals:
        reset_signals()
    _arrange_descriptors(stage)
    os.umask(0)
    os.setsid()


def reset_signals() -> None:
    """Give every signal its default action and block none."""
    # Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored over execve.
    for signum in range(1, _NSIG):
        if signum in (_signal.SIGKILL, _signal.SIGSTOP):
            continue
        if signum in _LIBC_SIGNALS:
            syscalls.rt_sigaction_default(signum)
            continue
        try:
            _signal.signal(signum, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _arrange_descriptors(stage: Stage) -> None:
    """Put the standard streams on 0-2 and close everything else of the parent's that no step needs."""
    extras = stage.plan.extras
    keep = set(range(3, 3 + extras.preserve_fds))
    keep.update(extras.ns_fds.values())
    keep.update(extras.mount_fds.values())
    keep.update((stage.sock, extras.exec_fifo_fd, stage.init_pidfd, stage.plan.root_fd))
    streams = [
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + extras.preserve_fds) if fd >= 0 else -1
        for fd in stage.stdio
    ]
    null = -1
    for target, fd in enumerate(streams):
        if fd < 0:
            if null < 0:
                null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            fd = null
        os.dup2(fd, target, inheritable=True)
    for fd in range(3, 3 + extras.preserve_fds):
        try:
            os.set_inheritable(fd, True)
        except OSError as error:
            raise StepError(f"file descriptor {fd} to preserve is not open") from error
    start = 3
    for fd in sorted(number for number in keep if number >= 3):
        if fd > start:
            syscalls.close_range(start, fd - 1)
        start = fd + 1
    syscalls.close_range(start)


def _take_streams(stage: Stage) -> None:
    """Put the standard streams in their places, after `go_ahead` has put /dev/null there; -1 leaves it."""
    for target, fd in enumerate(stage.stdio):
        if fd >= 0:
            os.dup2(fd, target, inheritable=True)


# --- steps: namespaces and groups -------------------------------------------------------------------------


def join_cgroup(stage: Stage, files: list[str]) -> None:
    """Become a member of the groups; "0" means the writer itself."""
    for number, path in enumerate(files):
        fd = stage.group_files[number] if stage.group_files else os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        except OSError as error:
            raise StepError(f"unable to join cgroup {path}: {error_text(error)}") from error
        finally:
            os.close(fd)


def userns_maps(stage: Stage) -> None:
    """Wait for the id maps, then become root of the user namespace."""
    stage.ask_parent(b"U")
    _become_root()


def _become_root() -> None:
    syscalls.setresgid(0, 0, 0)
    syscalls.setresuid(0, 0, 0)
    # The change of ids has reset it to /proc/sys/fs/suid_dumpable.
    prctl.set_dumpable(dumpable=False)


def setns(stage: Stage, kind: str, where: int | str) -> None:
    """Join one namespace, given by descriptor or by path."""
    try:
        fd = where if isinstance(where, int) else os.open(where, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StepError(f"namespace path: lstat {where}: {error_text(error)}") from error
    try:
        if ns.ns_type(fd) != ns.FLAGS[kind]:
            raise StepError(f"namespace {where} is not of type {kind}")
        ns.setns(fd, kind)
        if kind == "user":
            _become_root()
    except OSError as error:
        raise StepError(f"unable to join {kind} namespace {where}: {error_text(error)}") from error
    finally:
        os.close(fd)


def check_maps(
    stage: Stage, uid_mappings: list[tuple[int, int, int]], gid_mappings: list[tuple[int, int, int]]
) -> None:
    """The mappings beside the path of a user namespace may only say what holds there anyway."""
    for name, wanted in (("uid_map", uid_mappings), ("gid_map", gid_mappings)):
        with open(f"/proc/self/{name}", "rb") as file:
            lines = [tuple(map(int, line.split())) for line in file]
        if sorted(lines) != sorted(wanted):
            raise StepError(f"the mappings of the configuration are not those of the user namespace ({name})")


def setns_init(stage: Stage, flags: int) -> None:
    """Join namespaces of the container's init, all at once, by its pidfd."""
    try:
        syscalls.setns(stage.init_pidfd, flags)
    except OSError as error:
        raise StepError(f"unable to join the namespaces of the container: {error_text(error)}") from error
    if flags & syscalls.CLONE_NEWUSER:
        _become_root()


def unshare(stage: Stage, flags: int) -> None:
    """Make further new namespaces."""
    syscalls.unshare(flags)


def loopback_up(stage: Stage) -> None:
    """Set the flag IFF_UP of "lo" in a network namespace that has just been made."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock.fileno(), 0x8913, request))[1]
        fcntl.ioctl(sock.fileno(), 0x8914, struct.pack("16sh14x", b"lo", flags | 1))
    finally:
        sock.close()


def net_devices(stage: Stage, devices: dict[str, str]) -> None:
    """Let the parent move interfaces of the host to us."""
    stage.ask_parent(b"D")


def keyring(stage: Stage, name: str) -> None:
    """Leave the host's session keyring; a later exec joins the container's by its name."""
    try:
        serial = syscalls.keyctl_join_session_keyring(name)
        syscalls.keyctl_setperm(serial, _KEYRING_PERM)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise StepError(f"unable to join session keyring: {error_text(error)}") from error


def cpu_affinity(stage: Stage, cpus: list[int]) -> None:
    """sched_setaffinity(2)."""
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise StepError(f"unable to set CPU affinity: {error_text(error)}") from error


# --- steps: after the root ---------------------------------------------------------------------------------


def enter_root(stage: Stage) -> None:
    """Take the present root as the container's (exec: after setns)."""
    stage.root = Root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def parent_hooks(stage: Stage) -> None:
    """Let the parent run prestart and createRuntime."""
    stage.ask_parent(b"H")


def run_hooks(stage: Stage, kind: str, entries: list[dict[str, Any]]) -> None:
    """Run hooks here, inside the namespaces."""
    state = hooks.state_json(stage.plan.extras.state, "creating", os.getpid())
    hooks.run_all(kind, entries, state, cwd=None)


def _read_optional(root: Root, path: str) -> bytes:
    try:
        return root.read_file(path, _PASSWD_LIMIT)
    except OSError:
        return b""


def resolve(stage: Stage) -> None:
    """Find out uid, gid, groups and home with the container's own files."""
    process = stage.plan.process
    if process is None:
        return
    stage.uid, stage.gid, stage.groups = process.uid, process.gid, list(process.additional_gids)
    wants_home = not any(entry.startswith("HOME=") and len(entry) > 5 for entry in process.env)
    if process.user is None and not process.additional_groups:
        if wants_home:
            stage.home = find_home(_read_optional(stage.root, "etc/passwd"), stage.uid)
        return
    passwd, group = (_read_optional(stage.root, path) for path in ("etc/passwd", "etc/group"))
    spec = process.user if process.user is not None else f"{process.uid}:{process.gid}"
    try:
        user = resolve_user(spec, passwd, group, additional=process.additional_groups)
    except UserError as error:
        raise StepError(str(error), 126) from error
    stage.uid, stage.gid, stage.home = user.uid, user.gid, user.home
    # The primary group among the supplementary ones: else a file mode of 0604 denies nothing (CVE-2022-36109).
    stage.groups = list(dict.fromkeys([user.gid, *user.groups, *stage.groups]))


def make_cwd(stage: Stage, path: str) -> None:
    """Make the working directory when it is missing."""
    try:
        stage.root.mkdirs(path, 0o755)
    except (NotADirectoryError, FileExistsError):
        return  # chdir(2) will say so, in its own words
    except PermissionError:
        return
    except OSError as error:
        if error.errno == errno.EROFS:
            return
        raise StepError(f"unable to create working directory {path!r}: {error_text(error)}") from error


def console(stage: Stage, size: tuple[int, int]) -> None:
    """Open a terminal in the container's devpts, send its master to the parent, make it ours."""
    try:
        master = stage.root.open("dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        slave, _ = pty.open_pair(master)
    except OSError as error:
        raise StepError(f"unable to allocate a terminal: open /dev/ptmx: {error_text(error)}") from error
    if size != (0, 0):
        pty.set_size(slave, *size)
    os.fchown(slave, stage.uid, -1)
    if stage.plan.config is not None and "mnt" in stage.plan.config.namespaces:
        _mount_console(stage, slave)
    sock = _socket.socket(fileno=stage.sock)
    sock.sendmsg([b"C"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", master))])
    sock.detach()
    os.close(master)
    if not stage.plan.born_last:
        pty.set_controlling(slave)
    for target in (0, 1, 2):
        os.dup2(slave, target, inheritable=True)
    os.close(slave)


def _mount_console(stage: Stage, slave: int) -> None:
    # From descriptor to descriptor: a path below /dev/pts could be exchanged meanwhile (CVE-2025-52565).
    rootfs.make_file(stage.root, "dev/console", 0o666)
    target = stage.root.open("dev/console", os.O_PATH | os.O_NOFOLLOW)
    fd = mounts.open_tree_clone(slave)
    mounts.move_mount(fd, target)
    os.close(fd)
    os.close(target)


def hostname(stage: Stage, name: str) -> None:
    """sethostname(2)."""
    try:
        syscalls.sethostname(name)
    except OSError as error:
        raise StepError(f"sethostname: {error_text(error)}") from error


def domainname(stage: Stage, name: str) -> None:
    """setdomainname(2)."""
    try:
        syscalls.setdomainname(name)
    except OSError as error:
        raise StepError(f"setdomainname: {error_text(error)}") from error


def apparmor(stage: Stage, profile: str) -> None:
    """Confine the program by a profile from its execve on; never start unconfined instead."""
    own = os.getpid()  # "self" is a link, and none is followed
    for path in (f"{own}/attr/apparmor/exec", f"{own}/attr/exec"):
        try:
            stage.write_proc(path, f"exec {profile}")
            return
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                continue  # EINVAL: attr/exec belongs to no security module
            raise StepError(
                f"unable to apply apparmor profile: apparmor failed to apply profile: {error_text(error)}"
            )
    raise StepError("unable to apply apparmor profile: AppArmor is not enabled on this kernel")


def sysctl(stage: Stage, name: str, value: str) -> None:
    """Write one sysctl of our namespaces."""
    path = "sys/" + "/".join(part.replace("/", ".") for part in name.split("."))
    try:
        stage.write_proc(path, value)
    except OSError as error:
        what = "open" if error.errno in (errno.ENOENT, errno.EACCES, errno.ELOOP) else "write"
        raise StepError(f"{what} /proc/{path}: {error_text(error)}") from error


def personality(stage: Stage, persona: int) -> None:
    """personality(2)."""
    syscalls.personality(persona)


def memory_policy(stage: Stage, mode: int, nodes: list[int]) -> None:
    """set_mempolicy(2)."""
    mask = 0
    for node in nodes:
        mask |= 1 << node
    size = (max(nodes, default=-1) + 8) // 8 * 8 or 8
    raw = mask.to_bytes((size + 63) // 64 * 8, "little") if nodes else b""
    try:
        syscalls.set_mempolicy(mode, raw, len(raw) * 8 + 1 if raw else 0)
    except OSError as error:
        raise StepError(f"unable to set memory policy: {error_text(error)}") from error


OPERATIONS: dict[str, Any] = {
    "join_cgroup": join_cgroup,
    "userns_maps": userns_maps,
    "setns": setns,
    "check_maps": check_maps,
    "rebirth": birth.rebirth,
    "setns_init": setns_init,
    "unshare": unshare,
    "loopback_up": loopback_up,
    "net_devices": net_devices,
    "keyring": keyring,
    "cpu_affinity": cpu_affinity,
    "enter_root": enter_root,
    "parent_hooks": parent_hooks,
    "hooks": run_hooks,
    "resolve_user": resolve,
    "make_cwd": make_cwd,
    "console": console,
    "hostname": hostname,
    "domainname": domainname,
    "apparmor": apparmor,
    "sysctl": sysctl,
    "personality": personality,
    "memory_policy": memory_policy,
    **rootfs.OPERATIONS,
}
