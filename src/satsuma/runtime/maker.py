"""New processes for `satsuma-oci`: a container from its bundle, a further process in a running one.

Source: runtime-spec runtime.md#create; runc utils_linux.go.
"""

from __future__ import annotations

import os
import stat as _stat

from satsuma.linux import pidfd
from satsuma.linux.cgroup import clean_path
from satsuma.runtime import create, fastjson, state
from satsuma.runtime.config import Config, parse
from satsuma.runtime.console import send_fd
from satsuma.runtime.errors import ConfigError, RuntimeFailure, StartFailed, error_text
from satsuma.runtime.exec import start_exec
from satsuma.runtime.manager import hook_base, host_hooks
from satsuma.runtime.plan import Extras
from satsuma.runtime.state import CREATING, PAUSED, STOPPED, Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from satsuma.linux.cgroup import Cgroup
    from satsuma.runtime import resctrl
    from satsuma.runtime.trace import Trace

_MAX_CONFIG = 16 << 20


class Options:
    """How a process is to be made (flags of create, run and exec).

    Attributes:
        console_socket: where the terminal's master goes, "" for nowhere.
        detach: our caller will not stay.
        may_lack_process: the configuration needs to say only at the start what to run.
        open_terminal: takes our own terminal for the container's, returns its size.
        systemd_cgroup: systemd makes the control group.
        trace: notes the steps, for `run --explain` and `exec --explain`.
    """

    __slots__ = (
        "console_size",
        "console_socket",
        "detach",
        "lsm_optional",
        "may_lack_process",
        "no_new_keyring",
        "no_pivot",
        "open_terminal",
        "pid_file",
        "pidfd_socket",
        "preserve_fds",
        "systemd_cgroup",
        "trace",
    )

    def __init__(self) -> None:
        self.console_socket = self.pid_file = self.pidfd_socket = ""
        self.detach = self.no_pivot = self.no_new_keyring = self.lsm_optional = self.systemd_cgroup = False
        self.preserve_fds = 0
        self.may_lack_process = False
        self.console_size: tuple[int, int] | None = None
        self.open_terminal: Callable[[], tuple[int, int]] | None = None
        self.trace: Trace | None = None


def load_config(bundle: str) -> dict[str, Any]:
    """Read the bundle's configuration."""
    path = bundle + "/config.json"
    try:
        # Not blocking: a FIFO without a writer would hold us for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not _stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RuntimeFailure(f"open {path}: not a regular file")
            data = file.read(_MAX_CONFIG + 1)
    except FileNotFoundError as error:
        raise RuntimeFailure("JSON specification file config.json not found") from error
    except OSError as error:
        raise RuntimeFailure(f"open {path}: {error_text(error)}") from error
    if len(data) > _MAX_CONFIG:
        raise ConfigError("config.json is larger than 16 MiB")
    try:
        raw = fastjson.loads(data)
        if b"\\ud" in data.lower():
            fastjson.check_text(raw)
    except ValueError as error:
        raise ConfigError(f"malformed spec file: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError("malformed spec file: not a JSON object")
    return raw


def _check_rootfs(config: Config, bundle: str) -> str:
    path = os.path.normpath(os.path.join(bundle, config.root_path))
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        raise ConfigError(f"invalid rootfs: stat {path}: {error_text(error)}") from error
    if not os.path.isdir(real):
        raise ConfigError(f"invalid rootfs: {path} is not a directory")
    if real == "/":
        raise ConfigError("invalid rootfs: rootfs must not be the root directory of the host")
    return real


def _check_console(config: Config, options: Options) -> None:
    terminal = config.process is not None and config.process.terminal
    if options.detach and terminal and not options.console_socket:
        raise RuntimeFailure("cannot allocate tty if runc will detach without setting console socket")
    if options.console_socket and not (options.detach and terminal):
        raise RuntimeFailure("cannot use console socket if runc will not detach or allocate tty")


def _pass_listen_fds(env: list[str]) -> int:
    """Return how many descriptors socket activation has given us (sd_listen_fds(3)); tell the process of them."""
    passed = os.environ.get("LISTEN_FDS", "")
    if not (passed.isascii() and passed.isdigit() and len(passed) < 5):
        return 0
    env.extend((f"LISTEN_FDS={passed}", "LISTEN_PID=1"))
    return int(passed)


def _check_environment(env: list[str], prefix: str = "") -> None:
    for entry in env:
        if "=" not in entry:
            raise StartFailed(
                f'unable to start container process: {prefix}invalid environment variable: "{entry}"'
            )


def create_container(
    root: str, container_id: str, bundle: str, options: Options
) -> tuple[Container, create.Init]:
    """Make a container that waits for `start_container`; leaves nothing behind when it fails."""
    container, config, group = prepare(root, container_id, bundle, options)
    try:
        preserve = options.preserve_fds
        if config.process is not None:
            preserve += _pass_listen_fds(config.process.env)
        if os.environ.get("NOTIFY_SOCKET"):
            from satsuma.runtime import sdnotify

            sdnotify.prepare(container, config)
        init = _create(container, config, group, options, preserve)
    except BaseException:
        container.remove_directory()
        raise
    return container, init


def prepare(root: str, container_id: str, bundle: str, options: Options) -> tuple[Container, Config, Cgroup]:
    """Check a bundle and take the id; return the container without processes, its configuration and its group.

    Raises:
        RuntimeFailure: nothing is left behind.
    """
    try:
        os.stat(bundle)
    except OSError as error:
        raise RuntimeFailure(f"chdir {bundle}: {error_text(error)}") from error
    bundle = os.path.realpath(bundle)
    if options.trace is not None:
        options.trace.at("config", bundle + "/config.json")
    raw = load_config(bundle)
    config = parse(raw)
    if config.process is None and not options.may_lack_process:
        raise RuntimeFailure("process property must not be empty")
    _check_environment(
        config.process.env if config.process is not None else [], "error during container init: "
    )
    _check_console(config, options)
    rootfs = _check_rootfs(config, bundle)
    config.root_path = rootfs
    if options.open_terminal is not None and config.process is not None and config.process.terminal:
        options.console_size = options.open_terminal()
    group = group_for(config, state.check_id(container_id), systemd=options.systemd_cgroup)
    if options.trace is not None:
        options.trace.at("directory", f"{root}/{container_id}")
    directory = state.reserve(root, container_id)
    container = Container(directory, {"id": container_id})
    try:
        if group.exists() and group.is_populated():
            raise RuntimeFailure("container's cgroup is not empty")
        container.data.update(_first_state(raw, group, bundle, rootfs))
        # Before there is anything to remove: when we are killed, `delete --force` must know what to look for.
        container.save()
    except BaseException:
        container.remove_directory()
        raise
    return container, config, group


def group_for(config: Config, container_id: str, *, systemd: bool) -> Cgroup:
    """Return the control group that `linux.cgroupsPath` names.

    Raises:
        RuntimeFailure: not a name for this driver.
    """
    if not systemd:
        return state.cgroup_for(config.cgroups_path, container_id)
    from satsuma.runtime import systemd as driver

    try:
        return driver.group_for(config.cgroups_path, container_id, config.resources, config.annotations)
    except OSError as error:
        raise RuntimeFailure(error.strerror or str(error)) from error


def _first_state(raw: dict[str, Any], group: Cgroup, bundle: str, rootfs: str) -> dict[str, Any]:
    return {
        "init_process_pid": 0,
        "init_process_start": 0,
        "created": state.now_rfc3339(),
        "bundle": bundle,
        "rootfs": rootfs,
        "owner": os.environ.get("SUDO_USER", "") or ("root" if os.getuid() == 0 else ""),
        "cgroup_path": group.path,
        "cgroup_paths": group.dirs,
        "systemd_cgroup": bool(group.unit),
        "config": raw,
    }


def _create(
    container: Container, config: Config, group: Cgroup, options: Options, preserve: int
) -> create.Init:
    bundle = container.data["bundle"]
    if options.trace is not None:
        options.trace.at("fifo", container.fifo)
    os.mkfifo(container.fifo, 0o622)
    os.chmod(container.fifo, 0o622)  # root of a user namespace opens it as one of the others
    fifo = os.open(container.fifo, os.O_PATH | os.O_CLOEXEC)
    extras = Extras(
        bundle=bundle,
        preserve_fds=preserve,
        exec_fifo_fd=fifo,
        keyring="" if options.no_new_keyring else f"_ses.{container.id}",
        no_pivot=options.no_pivot,
        lsm_optional=options.lsm_optional,
        state=hook_base(container),
        trace=options.trace,
    )

    rdt = _intel_rdt(container, config)

    def remember(init: create.Init) -> None:
        if rdt is not None:
            rdt.join(init.pid)
        container.data.update(init_process_pid=init.pid, init_process_start=init.start_time)
        if options.trace is not None:
            options.trace.at("state", container.directory + "/state.json")
        container.save()

    def runtime_hooks(pid: int) -> None:
        # The names of the states are those which the validation suite of the runtime-spec expects.
        for kind, status in (("prestart", "created"), ("createRuntime", "creating")):
            try:
                host_hooks(container, kind, status, pid)
            except RuntimeFailure as error:
                text = f"unable to start container process: error during container init: {error}"
                raise StartFailed(text) from error

    try:
        init = create.start(
            config,
            extras=extras,
            cgroup=group,
            console=options.console_size,
            on_created=remember,
            on_runtime_hooks=runtime_hooks,
        )
        try:
            deliver(init, options)
        except BaseException:
            _discard(init, group)
            raise
    except BaseException:
        if rdt is not None:
            rdt.remove()
        raise
    finally:
        os.close(fifo)
    return init


def _discard(init: create.Init, group: Cgroup) -> None:
    """Undo `create.start`."""
    pidfd.send_signal(init.pidfd, 9)
    pidfd.wait(init.pidfd)
    group.kill_all()
    group.remove(timeout=10.0)


def _intel_rdt(container: Container, config: Config) -> resctrl.Group | None:
    """Make the group of `linux.intelRdt` and remember what of it goes with the container."""
    if config.intel_rdt is None:
        return None
    from satsuma.runtime import resctrl

    group = resctrl.Group(config.intel_rdt, container.id, resctrl.mount_point())
    group.create()
    container.data.update(intel_rdt_path=group.directory, intel_rdt_made=group.made)
    return group


def _enter_intel_rdt(container: Container) -> None:
    """Join the container's group of `linux.intelRdt` ourselves: what we start is born there."""
    stored = container.data.get("intel_rdt_path")
    if not stored:
        return
    from satsuma.runtime import resctrl

    try:
        resctrl.enter(stored, container.data.get("intel_rdt_made", ()), os.getpid())
    except OSError as error:
        raise RuntimeFailure(f"unable to join Intel RDT group {stored}: {error_text(error)}") from error


def deliver(init: create.Init, options: Options) -> None:
    """Hand out terminal, pidfd and pid file."""
    if options.console_socket and init.console_master_fd is not None:
        send_fd(options.console_socket, init.console_master_fd, b"/dev/ptmx")
        os.close(init.console_master_fd)
        init.console_master_fd = None
    if options.pidfd_socket:
        send_fd(options.pidfd_socket, init.pidfd, b"pidfd")
    if options.pid_file:
        write_pid_file(options.pid_file, init.pid)


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid without a newline, visible only when it is complete."""
    directory, _, name = path.rpartition("/")
    temporary = f"{directory or '.'}/.{name}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RuntimeFailure(f"open {temporary}: {error_text(error)}") from error
    try:
        os.write(fd, str(pid).encode())
    finally:
        os.close(fd)
    os.rename(temporary, path)


def _enter_subgroups(group: Cgroup, arguments: Sequence[str]) -> None:
    """Apply the values of `exec --cgroup`: "PATH" for all hierarchies, or "CONTROLLER,…:PATH".

    Raises:
        RuntimeFailure: not of this form, or a controller that the container does not have.
    """
    wanted: dict[str, str] = {}
    for argument in arguments:
        controllers, colon, path = argument.partition(":")
        if ":" in path:
            raise RuntimeFailure(f"invalid --cgroup argument: {argument}")
        if not colon:
            if len(arguments) != 1:
                raise RuntimeFailure(f"invalid --cgroup argument: {argument} (missing <controller>: prefix)")
            wanted = dict.fromkeys(group.dirs, argument)
            continue
        for controller in controllers.split(","):
            if controller in wanted:
                raise RuntimeFailure(f"invalid --cgroup argument(s): duplicate controller: {controller}")
            if controller not in group.dirs:
                raise RuntimeFailure(f"unknown controller {controller} in SubCgroupPaths")
            wanted[controller] = path
    group.dirs = {
        name: directory + clean_path(wanted[name]).rstrip("/") if name in wanted else directory
        for name, directory in group.dirs.items()
    }
    for name in wanted:
        if not os.path.isdir(group.dirs[name]):
            raise RuntimeFailure(f"unable to join cgroup {group.dirs[name]}: no such file or directory")


def exec_process(
    container: Container,
    process: dict[str, Any],
    options: Options,
    *,
    ignore_paused: bool,
    cgroup_paths: Sequence[str] = (),
) -> create.Init:
    """Start a further process."""
    status = container.status()
    if status in (CREATING, STOPPED):
        raise RuntimeFailure("cannot exec in a stopped container")
    if status == PAUSED and not ignore_paused:
        raise RuntimeFailure("cannot exec in a paused container (use --ignore-paused to override)")
    terminal = bool(process.get("terminal"))
    if options.detach and terminal and not options.console_socket:
        raise RuntimeFailure("cannot allocate tty if runc will detach without setting console socket")
    if options.console_socket and not (options.detach and terminal):
        raise RuntimeFailure("cannot use console socket if runc will not detach or allocate tty")
    group = container.cgroup()
    _enter_subgroups(group, cgroup_paths)
    env = process["env"] = [] if process.get("env") is None else process["env"]
    preserve = options.preserve_fds
    if isinstance(env, list) and all(isinstance(entry, str) for entry in env):  # else it is refused below
        _check_environment(env)
        preserve += _pass_listen_fds(env)
    extras = Extras(
        preserve_fds=preserve,
        keyring=f"_ses.{container.id}",
        lsm_optional=options.lsm_optional,
        trace=options.trace,
        state={**hook_base(container), "status": status, "pid": container.pid},
    )
    if options.no_new_keyring:
        extras.keyring = ""
    _enter_intel_rdt(container)
    init = start_exec(
        container.pid,
        parse(container.config),
        process,
        extras=extras,
        cgroup=group,
        console=options.console_size,
    )
    try:
        deliver(init, options)
    except BaseException:
        pidfd.send_signal(init.pidfd, 9)
        raise
    return init
