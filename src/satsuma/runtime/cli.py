"""The program `satsuma-oci`: the OCI runtime command line, flag for flag that of runc.

Flags which mean nothing here are refused, with two exceptions that managers pass on every call: --criu (no
longer used by runc itself) and --rootless=false/auto.

Source: runtime-spec runtime.md#command-line; runc man pages; what containerd, podman and CRI-O call.
"""

from __future__ import annotations

import os
import sys

from satsuma.runtime import fastjson, state
from satsuma.runtime.cliargs import Flags, UsageError
from satsuma.runtime.errors import RuntimeFailure, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from satsuma.runtime.create import Init
    from satsuma.runtime.explainer import Explainer
    from satsuma.runtime.maker import Options
    from satsuma.runtime.sdnotify import Relay

    Values = dict[str, Any]

NAME = "satsuma-oci"
_GLOBAL = Flags(
    "root:str log:str log-format:str debug systemd-cgroup rootless:str criu:str missing-lsm:str version,v help,h"
)
_PROCESS = "console-socket:str pid-file:str pidfd-socket:str preserve-fds:int no-new-keyring"


class Context:
    """Global flags, and where errors go."""

    __slots__ = ("criu", "debug", "log", "log_format", "lsm_optional", "root", "systemd_cgroup")

    def __init__(self, values: Values) -> None:
        self.root: str = values.get("root") or _default_root()
        self.log: str = values.get("log", "")
        self.criu: str = values.get("criu", "criu")
        self.log_format: str = values.get("log-format", "text")
        self.debug = bool(values.get("debug"))
        if self.log_format not in ("text", "json"):
            raise RuntimeFailure(f"invalid log-format: {self.log_format}")
        missing_lsm = values.get("missing-lsm", "refuse")
        if missing_lsm not in ("refuse", "warn"):
            raise RuntimeFailure(f"invalid missing-lsm: {missing_lsm}")
        self.lsm_optional = missing_lsm == "warn"
        self.systemd_cgroup = bool(values.get("systemd-cgroup"))
        if values.get("rootless", "auto") not in ("auto", "false"):
            raise RuntimeFailure("--rootless=true is not supported: the runtime needs root")

    def entry(self, level: str, message: str) -> None:
        """Write one log entry to the log file, or to stderr when there is none."""
        if level == "debug" and not self.debug:
            return
        stamp = state.now_rfc3339()[:19] + "Z"
        if self.log_format == "json":
            line = fastjson.dumps({"level": level, "msg": message, "time": stamp})
        else:
            line = f'time="{stamp}" level={level} msg={fastjson.dumps(message)}'
        data = (line + "\n").encode("utf-8", "surrogateescape")
        if not self.log:
            os.write(2, data)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            fd = os.open(self.log, flags, 0o644)
        except OSError as error:
            os.write(2, f"open {self.log}: {error_text(error)}\n".encode())
            return
        os.write(fd, data)
        os.close(fd)

    def fail(self, message: str) -> None:
        """Report an error: to the log, and as bare text to stderr when the log is a file."""
        self.entry("error", message)
        if self.log:
            os.write(2, (message + "\n").encode("utf-8", "surrogateescape"))


def _default_root() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return f"{runtime}/satsuma-oci" if os.getuid() and runtime else "/run/satsuma-oci"


def _one_id(args: list[str], command: str) -> str:
    if len(args) != 1:
        raise UsageError(f'"{command}" requires exactly 1 argument(s)', count=True)
    return args[0]


def _options(context: Context, values: Values) -> Options:
    from satsuma.linux import prctl
    from satsuma.runtime.maker import Options

    # Before anything of a container can look at us; the commands that make no process are never in its sight.
    prctl.set_dumpable(dumpable=False)
    options = Options()
    options.preserve_fds = _preserved(values.get("preserve-fds", 0))
    options.console_socket = values.get("console-socket", "")
    options.pid_file = values.get("pid-file", "")
    options.pidfd_socket = values.get("pidfd-socket", "")
    options.no_new_keyring = bool(values.get("no-new-keyring"))
    options.no_pivot = bool(values.get("no-pivot"))
    options.detach = bool(values.get("detach"))
    options.lsm_optional = context.lsm_optional
    options.systemd_cgroup = context.systemd_cgroup
    return options


def _preserved(count: int) -> int:
    """Return *count*, the descriptors from 3 on that the process shall get, if they are there.

    Checked before we open any ourselves: one of ours in their place would end up in the container.
    """
    passed = os.environ.get("LISTEN_FDS", "")
    total = count + (int(passed) if passed.isascii() and passed.isdigit() and len(passed) < 5 else 0)
    if not 0 <= count <= 1 << 16:
        raise RuntimeFailure(f"invalid number of file descriptors to preserve: {count}")
    for number in range(total):
        try:
            os.fstat(3 + number)
        except OSError as error:
            where = f"stat /proc/self/fd/{3 + number}: no such file or directory"
            raise RuntimeFailure(f"unable to stat preserved-fd {number} (of {total}): {where}") from error
    return count


def _create(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import maker

    options = _options(context, values)
    options.detach = options.may_lack_process = True
    container_id = _one_id(args, "create")
    try:
        _, init = maker.create_container(context.root, container_id, values.get("bundle", "."), options)
    except RuntimeFailure as error:
        raise RuntimeFailure(f"{NAME} create failed: {error}") from error
    _warn_all(context, init.warnings)
    return 0


def _warn_all(context: Context, warnings: list[str]) -> None:
    for warning in warnings:
        context.entry("warning", warning)


def _run(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.linux import prctl
    from satsuma.runtime import manager
    from satsuma.runtime.console import Foreground

    options = _options(context, values)
    container_id = _one_id(args, "run")
    if not values.get("no-subreaper"):
        prctl.set_child_subreaper()
    explainer = _explainer(options) if values.get("explain") else None
    foreground = None if options.detach else Foreground()
    if foreground is not None:
        options.open_terminal = foreground.open_terminal
    try:
        container, init, relay = _create_and_start(context, container_id, values.get("bundle", "."), options)
    except RuntimeFailure as error:
        if foreground is not None:
            foreground.close()
        if explainer is not None:
            explainer.failed()
        raise RuntimeFailure(f"{NAME} run failed: {error}") from error
    if explainer is not None:
        explainer.started()
    if foreground is None:
        if relay is not None:
            relay.wait(init.pidfd, init.pid)
        return 0
    status = foreground.wait(init.pidfd, init.console_master_fd, relay)
    foreground.close()
    if not values.get("keep"):
        if explainer is not None:
            explainer.trace.at("remove", container.cgroup().unique_dirs(), container.directory)
        manager.delete_container(container, force=True, warn=_warner(context))
        if explainer is not None:
            explainer.ended()
    return status


def _explainer(options: Options, *, exec_: bool = False) -> Explainer:
    from satsuma.runtime.explain import EXEC_WORDS
    from satsuma.runtime.explainer import Explainer

    explainer = Explainer(EXEC_WORDS if exec_ else None)
    options.trace = explainer.trace
    return explainer


def _create_and_start(
    context: Context, container_id: str, bundle: str, options: Options
) -> tuple[state.Container, Init, Relay | None]:
    from satsuma.runtime import maker, manager

    container, init = maker.create_container(context.root, container_id, bundle, options)
    _warn_all(context, init.warnings)
    relay = None
    try:
        if host := os.environ.get("NOTIFY_SOCKET"):
            from satsuma.runtime import sdnotify

            relay = sdnotify.Relay(container, host, _warner(context))
        if options.trace is not None:
            options.trace.at("open_fifo", container.fifo)
        manager.start_container(container)
    except RuntimeFailure:
        manager.delete_container(container, force=True, warn=_warner(context))
        raise
    return container, init, relay


def _warner(context: Context) -> Callable[[str], None]:
    return lambda text: context.entry("warning", text)


def _start(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import manager

    container = state.load(context.root, _one_id(args, "start"))
    if host := os.environ.get("NOTIFY_SOCKET"):
        from satsuma.runtime import sdnotify

        sdnotify.start(container, host)
    else:
        manager.start_container(container)
    if container.config.get("process") is None:
        context.entry("error", "process property must not be empty")
    return 0


def _state(context: Context, values: Values, args: list[str]) -> int:
    container = state.load(context.root, _one_id(args, "state"))
    document = container.oci_state() | {"owner": ""}  # only `list` tells it, as runc
    os.write(1, fastjson.dumps_indented(document).encode("utf-8", "surrogateescape"))
    return 0


def _print(text: str) -> None:
    os.write(1, (text + "\n").encode("utf-8", "surrogateescape"))


def _list(context: Context, values: Values, args: list[str]) -> int:
    try:
        # What is no directory is no container: the interpreter (`seal`), for one.
        with os.scandir(context.root) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        names = []
    states = []
    for name in names:
        try:
            states.append(state.load(context.root, name).oci_state())
        except RuntimeFailure as error:
            context.entry("error", f"load container {name}: {error}")
    if values.get("quiet"):
        for entry in states:
            _print(entry["id"])
    elif values.get("format", "table") == "json":
        _print(fastjson.dumps(states))
    elif values.get("format", "table") == "table":
        rows = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
        keys = ("id", "pid", "status", "bundle", "created", "owner")
        rows += [[str(entry[key]) for key in keys] for entry in states]
        _print_table(rows)
    else:
        raise RuntimeFailure("invalid format option")
    return 0


def _print_table(rows: list[list[str]]) -> None:
    # text/tabwriter with a minimum width of 12 and a padding of 3, as runc sets it.
    widths = [max(12, *(len(row[i]) + 3 for row in rows)) for i in range(len(rows[0]) - 1)]
    for row in rows:
        _print("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1])


def _kill(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import manager

    if not 1 <= len(args) <= 2:
        raise UsageError('"kill" requires a minimum of 1 argument(s)', count=True)
    container = state.load(context.root, args[0])
    signum = parse_signal(args[1] if len(args) == 2 and args[1] else "SIGTERM")
    manager.kill_container(container, signum, everyone=bool(values.get("all")))
    return 0


_SIGNALS = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU "
    "URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()


def parse_signal(text: str) -> int:
    """Return the number of "9", "KILL", "SIGKILL" or "RTMIN+1".

    Raises:
        RuntimeFailure: unknown signal "FOO"
    """
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)  # the kernel knows which there are; 0 only asks whether the process is there
    name = text.upper().removeprefix("SIG")
    if name in _SIGNALS:
        return _SIGNALS.index(name) + 1
    if name == "POLL":
        return 29
    for base, start, sign in (("RTMIN", 34, 1), ("RTMAX", 64, -1)):
        if name.startswith(base):
            offset = name[len(base) :].lstrip("+-")
            if not offset or (offset.isascii() and offset.isdigit()):
                number = start + sign * int(offset or 0)
                if 34 <= number <= 64:
                    return number
    raise RuntimeFailure(f'unknown signal "{text}"')


def _delete(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import manager

    container_id = _one_id(args, "delete")
    force = bool(values.get("force"))
    try:
        container = state.load(context.root, container_id)
    except state.ContainerNotFound:
        # A create that was killed leaves a directory without a state file.
        try:
            state.remove_directory(f"{context.root}/{container_id}")
        except FileNotFoundError:
            pass
        if force:
            return 0
        raise
    manager.delete_container(container, force=force, warn=_warner(context))
    return 0


def _exec(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import execargs, maker
    from satsuma.runtime.console import Foreground

    if not args:
        raise UsageError('"exec" requires a minimum of 1 argument(s)', count=True)
    foreground = explainer = None
    try:
        options = _options(context, values)
        explainer = _explainer(options, exec_=True) if values.get("explain") else None
        foreground = None if options.detach else Foreground()
        container = state.load(context.root, args[0])
        process = execargs.process_from(container.config, values, args[1:])
        if foreground is not None and process.get("terminal"):
            options.console_size = foreground.open_terminal()
        init = maker.exec_process(
            container,
            process,
            options,
            ignore_paused=bool(values.get("ignore-paused")),
            cgroup_paths=values.get("cgroup", ()),
        )
    except RuntimeFailure as error:
        if foreground is not None:
            foreground.close()
        if explainer is not None:
            explainer.failed()
        context.fail(f"exec failed: {error}")
        return 255
    if explainer is not None:
        explainer.started()
    _warn_all(context, init.warnings)
    if foreground is None:
        return 0
    status = foreground.wait(init.pidfd, init.console_master_fd)
    foreground.close()
    return status


def _ps(context: Context, values: Values, args: list[str]) -> int:
    if not args:
        raise UsageError('"ps" requires a minimum of 1 argument(s)', count=True)
    container = state.load(context.root, args[0])
    pids = container.cgroup().pids() if container.cgroup().exists() else []
    form = values.get("format", "table")
    if form == "json":
        _print(fastjson.dumps(pids))
        return 0
    if form != "table":
        raise RuntimeFailure("invalid format option")
    from satsuma.runtime import ps

    for line in ps.table(pids, args[1:] or ["-ef"]):
        _print(line)
    return 0


def _pause(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import manager

    manager.pause_container(state.load(context.root, _one_id(args, "pause")))
    return 0


def _resume(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import manager

    manager.resume_container(state.load(context.root, _one_id(args, "resume")))
    return 0


def _update(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import updateargs

    updateargs.update(state.load(context.root, _one_id(args, "update")), values)
    return 0


def _events(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import events

    container = state.load(context.root, _one_id(args, "events"))
    events.run(container, once=bool(values.get("stats")), interval=values.get("interval", "5s"), out=_print)
    return 0


def _spec(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import features

    rootless = bool(values.get("rootless"))
    document = features.rootless_spec(os.geteuid(), os.getegid()) if rootless else features.example_spec()
    path = os.path.join(values.get("bundle", "."), "config.json")
    text = fastjson.dumps_indented(document, indent=4)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise RuntimeFailure("File config.json exists. Remove it first") from error
    os.write(fd, text.encode())
    os.close(fd)
    return 0


def _features(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import features

    _print(fastjson.dumps_indented(features.features(), indent=4))
    return 0


def _plan(context: Context, values: Values, args: list[str]) -> int:
    """Print the plan of a bundle, without doing anything (not in runc)."""
    from satsuma.runtime import explainer, maker, plan
    from satsuma.runtime.config import parse

    if len(args) > 1:
        raise UsageError(f'"{NAME} plan" takes one bundle')
    bundle = os.path.realpath(args[0] if args else values.get("bundle", "."))
    config = parse(maker.load_config(bundle))
    group = maker.group_for(config, os.path.basename(bundle) or "plan", systemd=context.systemd_cgroup)
    explainer.print_plan(plan.plan_init(config, plan.Extras(bundle=bundle), cgroup=group))
    return 0


def _checkpoint(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.runtime import checkpoint

    container = state.load(context.root, _one_id(args, "checkpoint"))
    checkpoint.checkpoint(container, context.criu, values, _warner(context))
    return 0


def _restore(context: Context, values: Values, args: list[str]) -> int:
    from satsuma.linux import prctl
    from satsuma.runtime import checkpoint, maker, manager
    from satsuma.runtime.console import Foreground

    options = _options(context, values)
    container_id = _one_id(args, "restore")
    if not values.get("no-subreaper"):
        prctl.set_child_subreaper()
    foreground = None if options.detach else Foreground()
    if foreground is not None:
        options.open_terminal = foreground.open_terminal
    try:
        container, init = checkpoint.restore(context.root, container_id, context.criu, values, options)
        try:
            maker.deliver(init, options)
        except BaseException:
            manager.delete_container(container, force=True, warn=_warner(context))
            raise
    except RuntimeFailure:
        if foreground is not None:
            foreground.close()
        raise
    if foreground is None:
        return 0
    status = foreground.wait(init.pidfd, init.console_master_fd)
    foreground.close()
    manager.delete_container(container, force=True, warn=_warner(context))
    return status


_RESOURCES = (
    "resources,r:str blkio-weight:int cpu-period:int cpu-quota:int cpu-burst:int cpu-share:int cpu-rt-period:int "
    "cpu-rt-runtime:int cpu-idle:int cpuset-cpus:str cpuset-mems:str memory:str memory-reservation:str "
    "memory-swap:str kernel-memory:str kernel-memory-tcp:str pids-limit:int l3-cache-schema:str mem-bw-schema:str"
)
_EXEC = (
    "console-socket:str cwd:str env,e:list tty,t user,u:str additional-gids,g:ints process,p:str detach,d "
    "pid-file:str pidfd-socket:str process-label:str apparmor:str no-new-privs cap,c:list preserve-fds:int "
    "cgroup:list ignore-paused no-new-keyring explain"
)
_CRIU = (
    "image-path:str work-path:str tcp-established ext-unix-sk shell-job file-locks "
    "manage-cgroups-mode:str empty-ns:list auto-dedup"
)
# command: (flags, function)
COMMANDS: dict[str, tuple[str, Callable[[Context, Values, list[str]], int]]] = {
    "create": (f"bundle,b:str no-pivot {_PROCESS}", _create),
    "run": (f"bundle,b:str no-pivot detach,d keep no-subreaper explain {_PROCESS}", _run),
    "start": ("", _start),
    "state": ("", _state),
    "list": ("format,f:str quiet,q", _list),
    "kill": ("all,a", _kill),
    "delete": ("force,f", _delete),
    "exec": (_EXEC, _exec),
    "ps": ("format,f:str", _ps),
    "pause": ("", _pause),
    "resume": ("", _resume),
    "update": (_RESOURCES, _update),
    "events": ("interval:str stats", _events),
    "spec": ("bundle,b:str rootless", _spec),
    "features": ("", _features),
    "plan": ("bundle,b:str", _plan),
    "checkpoint": (f"{_CRIU} leave-running pre-dump page-server:str parent-path:str", _checkpoint),
    "restore": (
        f"{_CRIU} bundle,b:str detach,d pid-file:str console-socket:str no-subreaper lsm-profile:str",
        _restore,
    ),
}


def _version() -> str:
    from satsuma.runtime.features import SPEC_VERSION, VERSION

    return f"{NAME} version {VERSION}\nspec: {SPEC_VERSION}"


def _usage(command: str = "") -> str:
    from satsuma.runtime import help as texts

    if command in COMMANDS:
        return texts.command_help(NAME, command, COMMANDS[command][0])
    return texts.program_help(NAME, _version().replace(f"{NAME} version ", ""), _GLOBAL, sorted(COMMANDS))


def _wrong_usage(context: Context, error: UsageError, command: str) -> int:
    """As runc: the help goes to the standard output, the error where all errors go."""
    what = "." if error.count else f": {error}" if command else f". {error}"
    _print(f"Incorrect Usage{what}\n\n{_usage(command)}")
    context.fail(f"{NAME}: {error}" if error.count else str(error))
    return 1


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    context = None
    command = ""
    try:
        values, rest = _GLOBAL.parse(arguments)
        if values.get("version"):
            _print(_version())
            return 0
        context = Context(values)
        command = rest[0] if rest else "help"
        if values.get("help") or command in ("help", "h"):
            _print(_usage(*rest[1:2]))
            return 0
        return _dispatch(context, rest)
    except UsageError as error:
        return _wrong_usage(context or _plain, error, command)
    except RuntimeFailure as error:
        (context or _plain).fail(str(error))
        return 1
    except OSError as error:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        (context or _plain).fail(where + error_text(error))
        return 1
    except Exception as error:
        (context or _plain).fail(f"internal error: {type(error).__name__}: {error}")
        if context is not None and context.debug:
            raise
        return 1


# Commands with a process of ours inside a container.
_ENTERING = frozenset(("create", "run", "exec", "restore"))


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def program() -> NoReturn:
    """Be the program: leave without taking the interpreter apart, which would cost a millisecond."""
    if not _ENTERING.isdisjoint(sys.argv) and os.geteuid() == 0 and not _is_read_only("/proc/self/exe"):
        # What others may get hold of must not be the host's interpreter.
        from satsuma.runtime import seal

        seal.start_again()
    os._exit(main())


def _dispatch(context: Context, rest: list[str]) -> int:
    command = COMMANDS.get(rest[0])
    if command is None:
        context.fail(f"No help topic for '{rest[0]}'")
        return 3
    flags = Flags(command[0] + " help,h")
    # Only the program of `exec` and the arguments of `ps` may look like flags.
    values, args = flags.parse(rest[1:], stop_at_positional=rest[0] in ("exec", "ps"))
    if values.get("help"):
        _print(_usage(rest[0]))
        return 0
    return command[1](context, values, args)


_plain = Context({})


if __name__ == "__main__":
    sys.exit(main())
