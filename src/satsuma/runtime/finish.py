"""The last part of a new process: limits, user, capabilities, filter, execve.

After the filter is loaded nothing happens but capset(2), prctl(2) and execve(2); with no_new_privs only the last.
Everything that could fail or allocate is done before, so a profile needs to allow nothing for our sake.  Only the
helper of an exec may load it earlier, if it allows what is left to do (`satsuma.runtime.birth`).

Source: runc libcontainer/init_linux.go finalizeNamespace; capabilities(7) "Effect of user ID changes".
"""

from __future__ import annotations

import errno
import os
import resource
import stat as _stat

from satsuma.linux import caps, prctl, seccomp, syscalls
from satsuma.runtime import birth, hooks
from satsuma.runtime.errors import StepError, error_text, exit_code_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from satsuma.runtime.config import Process
    from satsuma.runtime.plan import Plan
    from satsuma.runtime.stage import Stage

_IOPRIO_WHO_PROCESS = 1
_MAX_INTERPRETERS = 5  # binfmt handlers may call each other (fs/exec.c exec_binprm)


def finish(stage: Stage) -> NoReturn:
    """Become the program."""
    process = stage.plan.process
    if process is None:
        # Legal until `start`, which the validation suite wants to succeed all the same: so the error is the
        # container's (runtime-spec config.md#process, runtime.md#start; crun does the same).
        os.write(stage.sock, b"R")
        _wait_for_start(stage)
        os.write(2, b"process property must not be empty\n")
        os._exit(1)
    adopt(stage)
    env = _environment(process, stage.home)
    held = syscalls.capget()[1]
    sets = stage.plan.capabilities
    stage.at("look_path")
    # Look with the eyes of the program: its user and its effective capabilities.
    syscalls.capset(sets[1] & held, held, 0)
    path = look_path(stage.args[0], env)
    syscalls.capset(held, held, 0)
    _own_streams(stage.uid)
    is_safe = refuse_unsafe_program(path)
    program = None
    if stage.plan.filter_bpf and "seccomp" not in stage.done:
        program = seccomp.Program(stage.plan.filter_bpf)
    argv = syscalls.string_array([syscalls.encode(arg) for arg in stage.args])
    envp = syscalls.string_array([syscalls.encode(item) for item in env])
    if stage.plan.born_last:
        program = _be_born(stage, sets, program, None if is_safe else path)
    if stage.plan.extras.death_signal:
        stage.at("death_signal")
        # After the last change of credentials that could clear it (prctl(2)); losing capabilities does not.
        prctl.set_parent_death_signal(stage.plan.extras.death_signal)
    locked = stage.plan.listener is not None
    if stage.plan.extras.exec_fifo_fd >= 0:
        stage.private_procfs()  # for the FIFO: whether there can be one, `create` has to know
    if locked:
        # The descriptor needs the parent, who waits until we are ready and not for the start.
        _lock(stage, process, sets, program)
    stage.at("wait_for_start")
    os.write(stage.sock, b"R")
    _wait_for_start(stage)
    config = stage.plan.config
    if config is not None and "startContainer" in config.hooks:
        stage.at("hooks")
        state = hooks.state_json(stage.plan.extras.state, "created", os.getpid())
        hooks.run_all("startContainer", config.hooks["startContainer"], state, cwd=None)
    stage.at("close_range")
    syscalls.close_range(3 + stage.plan.extras.preserve_fds, flags=syscalls.CLOSE_RANGE_CLOEXEC)
    try:
        if not locked:
            _lock(stage, process, sets, program)
        stage.at("execve")
        syscalls.execve(path, argv, envp)
    except OSError as error:
        # The parent has been told that we are ready: from here on the program's own stderr is the place, and
        # 255 the status, as with Docker ("exec /x: exec format error").
        os.write(2, b"exec %s: %s\n" % (path, error_text(error).encode()))
        os._exit(255)


def adopt(stage: Stage) -> None:
    """Take limits, directory and user; the permitted capabilities are kept for what is left to do."""
    process = stage.plan.process
    assert process is not None
    if "adopt" in stage.done:
        for name in ("no_new_privs", "chdir", "drop_bounding", "become_user"):
            stage.at(name)
        return
    if process.no_new_privileges:
        stage.at("no_new_privs")
        prctl.set_no_new_privs()
    stage.at("scheduling")
    _set_scheduling(process)
    stage.at("rlimits")
    _set_rlimits(process)
    if stage.plan.selinux_label:
        stage.at("selinux_label")
        _set_selinux_label(stage, stage.plan.selinux_label)
    os.umask(0o022 if process.umask is None else process.umask)
    _become_user(stage, process, stage.plan.capabilities[0])


def _be_born(
    stage: Stage,
    sets: tuple[int, int, int, int, int],
    program: seccomp.Program | None,
    doubtful: bytes | None,
) -> seccomp.Program | None:
    """Go on as the process itself; returns the filter that is left to load.

    Args:
        doubtful: a program to look at again: only here /proc/self is a process of the container's procfs.
    """
    program = birth.give_birth(stage, sets, program)
    try:
        if doubtful is not None:
            refuse_unsafe_program(doubtful)
    finally:
        if stage.is_awaited:
            stage.take_answer()
    return program


def can_adopt_ahead(plan: Plan) -> bool:
    """Tell whether `adopt` may come before the cgroup and the standard streams are there.

    A real-time policy needs the budget of its cgroup, and limits can hinder us in taking the streams.
    """
    process = plan.process
    return process is not None and not (
        process.rlimits or process.scheduler or process.io_priority or plan.selinux_label
    )


def _lock(
    stage: Stage, process: Process, sets: tuple[int, int, int, int, int], program: seccomp.Program | None
) -> None:
    """Load the filter and take the final capabilities, in the order that no_new_privs allows."""
    _, effective, permitted, inheritable, ambient = sets
    if program is not None and not process.no_new_privileges:
        # Without no_new_privs the filter needs CAP_SYS_ADMIN, so it comes before the capabilities go.
        _load(stage, program)
    stage.at("capset")
    syscalls.capset(effective, permitted, inheritable)
    if ambient:
        stage.at("ambient")
        caps.raise_ambient(ambient)
    if program is not None and process.no_new_privileges:
        _load(stage, program)


def _load(stage: Stage, program: seccomp.Program) -> None:
    stage.at("seccomp")
    mailbox = stage.plan.mailbox
    if mailbox is not None:
        os.write(stage.sock, b"N")
    listener = birth.load_filter(program, stage.plan.filter_flags)
    if mailbox is not None:
        mailbox.post(listener)


def _set_scheduling(process: Process) -> None:
    if process.scheduler is not None:
        try:
            syscalls.sched_setattr(0, process.scheduler)
        except OSError as error:
            raise StepError(
                f"error during container init: error setting scheduler: {error_text(error)}"
            ) from error
    if process.io_priority is not None:
        try:
            syscalls.ioprio_set(_IOPRIO_WHO_PROCESS, 0, process.io_priority)
        except OSError as error:
            raise StepError(
                f"error during container init: error setting io priority: {error_text(error)}"
            ) from error


def _set_rlimits(process: Process) -> None:
    for number, _, soft, hard in process.rlimits:
        try:
            resource.setrlimit(number, (_signed(soft), _signed(hard)))
        except (OSError, ValueError) as error:
            # setrlimit of Python turns EPERM and EINVAL into ValueError.
            text = error_text(error)
            if isinstance(error, ValueError):
                text = "invalid argument" if soft > hard else "operation not permitted"
            raise StepError(
                "error during container init: error setting rlimits for ready process: "
                f"error setting rlimit type {number}: {text}"
            )


def _signed(limit: int) -> int:
    return limit - (1 << 64) if limit >= 1 << 63 else limit


def _set_selinux_label(stage: Stage, label: str) -> None:
    try:
        stage.write_proc(f"{os.getpid()}/attr/exec", label)
    except OSError as error:
        raise StepError(f"unable to set process label: {error_text(error)}") from error


def _environment(process: Process, home: str) -> list[str]:
    """Return the environment: the last of equal names wins, HOME is added when absent or empty."""
    merged: dict[str, str] = {}
    for entry in process.env:
        name = entry.partition("=")[0]
        merged.pop(name, None)
        merged[name] = entry
    if len(merged.get("HOME", "HOME=")) <= len("HOME="):
        merged["HOME"] = f"HOME={home}"
    return list(merged.values())


def _become_user(stage: Stage, process: Process, bounding: int) -> None:
    """Change directory, ids and bounding set, keeping the permitted capabilities for what is left to do."""
    stage.at("chdir")
    again = _chdir(process.cwd, first=True)
    stage.at("drop_bounding")
    caps.drop_bounding(bounding)
    stage.at("become_user")
    prctl.set_keep_caps(keep=True)
    try:
        # setgroups and setresgid before setresuid: they need CAP_SETGID in the effective set, which the
        # change of the user id clears.
        if stage.groups or os.getgroups():
            syscalls.setgroups(stage.groups)
        syscalls.setresgid(stage.gid, stage.gid, stage.gid)
        syscalls.setresuid(stage.uid, stage.uid, stage.uid)
    except OSError as error:
        raise StepError(f"unable to set user {stage.uid}:{stage.gid}: {error_text(error)}") from error
    prctl.set_keep_caps(keep=False)
    prctl.set_dumpable(dumpable=False)
    if again:
        _chdir(process.cwd, first=False)
    # A directory outside of our root shows as "(unreachable)…" (CVE-2024-21626).
    if not syscalls.getcwd().startswith(b"/"):
        raise StepError(
            "current working directory is outside of container mount namespace root "
            + "-- possible container breakout detected"
        )


def _chdir(cwd: str, *, first: bool) -> bool:
    """Change to the working directory without magic links; return True when it has to be tried again."""
    try:
        fd = syscalls.openat2(
            syscalls.AT_FDCWD, cwd, os.O_PATH | os.O_DIRECTORY, resolve=syscalls.RESOLVE_NO_MAGICLINKS
        )
        try:
            os.fchdir(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if first and error.errno == errno.EACCES:
            return True
        raise StepError(f'chdir to cwd ("{cwd}") set in config.json failed: {error_text(error)}') from error
    return False


def _own_streams(uid: int) -> None:
    """Give the standard streams to the user, so that it can reopen them by /dev/stdout."""
    for fd in (0, 1, 2):
        info = os.fstat(fd)
        if info.st_uid == uid or (_stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)):
            continue
        try:
            os.fchown(fd, uid, -1)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
                raise


def look_path(name: str, env: list[str]) -> bytes:
    """Find the program as Go's exec.LookPath does, with runc's errors.

    Raises:
        StepError: exit code 127 (not found) or 126 (not executable).
    """
    if not name:
        raise StepError('exec: "": executable file not found in $PATH', 127)
    if "/" in name:
        try:
            _check_executable(syscalls.encode(name))
        except OSError as error:
            text = error_text(error)
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                text = f"stat {name}: {text}"
            raise StepError(f'exec: "{name}": {text}', exit_code_for(error)) from error
        return syscalls.encode(name)
    search = next((entry[5:] for entry in env if entry.startswith("PATH=")), "")
    denied = False
    for directory in search.split(":"):
        # An empty entry is the working directory, which Go refuses to use.
        if not directory:
            continue
        path = syscalls.encode(directory.rstrip("/") + "/" + name)
        try:
            _check_executable(path)
        except PermissionError:
            denied = True
            continue
        except OSError:
            continue
        return path
    if denied:
        raise StepError(f'exec: "{name}": permission denied', 126)
    raise StepError(f'exec: "{name}": executable file not found in $PATH', 127)


def _check_executable(path: bytes) -> None:
    mode = os.stat(path).st_mode
    if _stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not mode & 0o111 or not os.access(path, os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def refuse_unsafe_program(path: bytes) -> bool:
    """Refuse a program, script interpreter or ELF loader that procfs would resolve.

    Until execve has happened /proc/self/exe is the host's interpreter; a program that leads there would run it
    inside the container (CVE-2019-5736).

    Returns:
        False when one of them could not be opened, so that nobody has seen where it leads.
    Raises:
        StepError: exit code 126.
    """
    for _ in range(_MAX_INTERPRETERS):
        try:
            fd = syscalls.openat2(
                syscalls.AT_FDCWD, path, os.O_RDONLY | os.O_NONBLOCK, resolve=syscalls.RESOLVE_NO_MAGICLINKS
            )
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _unsafe(path) from error
            return False  # execve will tell what is wrong, in its own words
        try:
            if syscalls.fstatfs(fd)[0] == syscalls.PROC_SUPER_MAGIC:
                raise _unsafe(path)
            interpreter = _interpreter(fd)
        except OSError:
            return False
        finally:
            os.close(fd)
        if not interpreter:
            return True
        path = interpreter
    return True  # and execve refuses so many


def _unsafe(path: bytes) -> StepError:
    text = path.decode("utf-8", "surrogateescape")
    return StepError(f'exec: "{text}": refusing to execute a file of procfs', 126)


def _interpreter(fd: int) -> bytes:
    """Return the path after "#!", or the loader that an ELF file asks for, or nothing."""
    head = os.pread(fd, 4096, 0)
    if head.startswith(b"#!"):
        return head[2:256].split(b"\n", 1)[0].strip(b" \t").split(b" ", 1)[0].split(b"\t", 1)[0]
    if not head.startswith(b"\x7fELF") or len(head) < 64:
        return b""
    wide = head[4] == 2
    order = "little" if head[5] == 1 else "big"

    def number(data: bytes, offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], order)  # type: ignore[arg-type]

    # elf(5): e_phoff, e_phentsize, e_phnum; then p_type, p_offset, p_filesz.
    table = number(head, 32, 8) if wide else number(head, 28, 4)
    size, count = (
        (number(head, 54, 2), number(head, 56, 2)) if wide else (number(head, 42, 2), number(head, 44, 2))
    )
    if not 32 <= size <= 256:
        return b""
    segments = os.pread(fd, size * min(count, 128), table)
    for start in range(0, len(segments), size):
        entry = segments[start : start + size]
        if len(entry) < 32 or number(entry, 0, 4) != 3:
            continue
        offset = number(entry, 8, 8) if wide else number(entry, 4, 4)
        length = number(entry, 32, 8) if wide else number(entry, 16, 4)
        return os.pread(fd, min(length, 4096), offset).split(b"\0", 1)[0]
    return b""


def _wait_for_start(stage: Stage) -> None:
    """With an exec FIFO: wait until `start` opens it, and say so by one byte; execve closes it."""
    fifo = stage.plan.extras.exec_fifo_fd
    if fifo < 0:
        return
    # By the link in our own procfs: the container's may be covered, the FIFO itself is outside of its root.
    stage.fifo = os.open(f"self/fd/{fifo}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=stage.private_procfs())
    os.write(stage.fifo, b"0")
