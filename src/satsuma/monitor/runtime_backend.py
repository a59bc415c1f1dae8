"""The monitor's backend that makes real containers: an adapter to `satsuma.runtime`.

Names in the launch request's extras: `overlay`, `seccomp_bpf`, `init_path` go to the runtime as they are; a
descriptor `mount:<destination>_fd` is a detached mount for that place, and
`netns_fd`, `ipcns_fd`, `pidns_fd`, `utsns_fd`, `userns_fd` or `cgroupns_fd` is a namespace to join.
"""

from __future__ import annotations

import os
import signal

from satsuma.linux.cgroup import Cgroup, layout
from satsuma.monitor.backend import StartError
from satsuma.runtime import cradle, create
from satsuma.runtime import exec as runtime_exec
from satsuma.runtime.config import Config, parse
from satsuma.runtime.errors import RuntimeFailure, StartFailed
from satsuma.runtime.execcradle import ExecCradle
from satsuma.runtime.plan import Extras, plan_init
from satsuma.runtime.trace import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]
    Stdio = tuple[int, int, int] | None
    Size = tuple[int, int] | None

_NAMESPACES = {f"{kind}ns_fd": kind for kind in ("net", "ipc", "pid", "uts", "user", "cgroup")}
_PLAIN = ("overlay", "seccomp_bpf", "init_path")
_NO_OVERLAY: Json = {"lowerdirs": ["/"], "upperdir": "", "workdir": "", "volatile": False}
_MOUNT = "mount:"
_KNOWN = frozenset((*_NAMESPACES, *_PLAIN, "hold_fds", "explain"))


def load(cgroup_driver: str) -> None:
    """Import what the runtime loads only when a container needs it: in a sealed launcher that would be too late."""
    import satsuma.linux.syscall_table
    import satsuma.runtime.netdevices
    import satsuma.runtime.notify
    import satsuma.runtime.sources

    if layout().mode == "v2":
        import satsuma.linux.bpf_devices
        import satsuma.linux.inotify
    if cgroup_driver == "systemd":
        import satsuma.runtime.systemd  # noqa: F401


class RuntimeBackend:
    """One container made by `satsuma.runtime`."""

    __slots__ = ("_cgroup", "_config", "_cradle", "_exec_cradle", "_extras", "_hold_fds", "_init", "_trace")

    def __init__(self) -> None:
        self._cgroup: Cgroup | None = None
        self._config: Config | None = None
        self._cradle: cradle.Cradle | None = None
        self._exec_cradle: ExecCradle | None = None
        self._extras: Extras | None = None
        self._hold_fds: list[int] = []
        self._init: create.Init | None = None
        self._trace: Trace | None = None

    def start(self, config: Json, extras: Json, stdio: Stdio, size: Size) -> _Started:
        """Make the container and start its program.

        Raises:
            StartError: nothing is left behind.
        """
        mount_fds = {name[len(_MOUNT) : -3]: extras[name] for name in extras if name.startswith(_MOUNT)}
        unknown = sorted(name for name in set(extras) - _KNOWN if not name.startswith(_MOUNT))
        if unknown:
            raise StartError(f"unknown extras: {', '.join(unknown)}", 128)
        self._hold_fds = extras["hold_fds"]
        ns_fds = {kind: extras[name] for name, kind in _NAMESPACES.items() if name in extras}
        try:
            with _start_errors():
                parsed = parse(config)
                if size is not None and parsed.process is not None:
                    parsed.process.console_size = size
                cgroup = _group(parsed)
                given = {name: extras[name] for name in _PLAIN if name in extras}
                self._trace = Trace() if extras.get("explain") else None
                self._extras = Extras(
                    ns_fds=ns_fds,
                    mount_fds=mount_fds,
                    death_signal=signal.SIGKILL,
                    keyring=_keyring(parsed.cgroups_path),
                    trace=self._trace,
                    **given,
                )
                init = create.start(
                    parsed,
                    extras=self._extras,
                    stdio=stdio or (-1, -1, -1),
                    cgroup=cgroup,
                    cradle=self._cradle,
                )
        finally:
            for fd in (*ns_fds.values(), *mount_fds.values()):
                os.close(fd)
            if self._cradle is not None:
                if not self._cradle.used:
                    self._cradle.close()
                self._cradle = None
        self._cgroup, self._config, self._init = cgroup, parsed, init
        self._extras.trace = None
        return _Started(init)

    def take_steps(self) -> list[list[Any]]:
        """Return what the start has done, if the request asked for it (`runtime.trace`)."""
        trace, self._trace = self._trace, None
        return trace.rows() if trace is not None else []

    def exec(self, process: Json, stdio: Stdio, size: Size, *, explain: bool) -> _Starting:
        """Begin to start a further process in the container.

        Raises:
            StartError: it did not start.
        """
        assert self._init is not None
        helper, self._exec_cradle = self._exec_cradle, None
        extras = self._exec_extras()
        if explain:
            extras.trace = Trace()
        try:
            with _start_errors():
                return _Starting(
                    runtime_exec.begin_exec(
                        self._init.pid,
                        self._config,
                        process,
                        init_pidfd=self._init.pidfd,
                        extras=extras,
                        stdio=stdio or (-1, -1, -1),
                        cgroup=self._cgroup,
                        console=size,
                        cradle=helper,
                    ),
                    extras.trace,
                )
        finally:
            if helper is not None and helper.waits and not helper.used:
                self._exec_cradle = helper  # for another one
            elif helper is not None and not helper.used:
                helper.close()

    def _exec_extras(self) -> Extras:
        assert self._extras is not None
        return Extras(
            seccomp_bpf=self._extras.seccomp_bpf,
            death_signal=signal.SIGKILL,
            keyring=self._extras.keyring,
        )

    def expect_exec(self, process: Json, *, created: bool) -> bool:
        """Have the helper of an exec born ahead of time, if it could be used; True when there was none.

        Args:
            process: what it will probably be asked for.
            created: somebody has said so, who needs only to say "start" now.
        """
        if self._cgroup is None or not cradle.takes_later(self._cgroup):
            return False
        assert self._init is not None
        helper = self._exec_cradle
        if helper is not None and helper.committed:
            if helper.waits and (helper.planned(process) or not created):
                return False
            self.forget_exec()
        fresh = self._exec_cradle is None
        extras = self._exec_extras()
        try:
            helper = self._exec_cradle = self._exec_cradle or ExecCradle(extras.seccomp_bpf)
            if helper.planned(process) is None:
                runtime_exec.get_ready(
                    self._init.pid,
                    self._config,
                    process,
                    extras=extras,
                    cgroup=self._cgroup,
                    cradle=helper,
                    init_pidfd=self._init.pidfd,
                )
            if created:
                helper.commit()
        except (OSError, RuntimeFailure):
            pass  # the request itself will say what is wrong
        return fresh and self._exec_cradle is not None

    def forget_exec(self) -> None:
        """End the helper."""
        if self._exec_cradle is not None:
            self._exec_cradle.close()
            self._exec_cradle = None

    def warm_up(self) -> None:
        """Have the first process of the container born, and go through the planning of one, without effect."""
        if cradle.possible():
            try:
                self._cradle = cradle.Cradle()
            except OSError:
                self._cradle = None
        plan_init(parse(cradle.sample()), Extras(overlay=_NO_OVERLAY), cgroup=Cgroup("/satsuma"))

    def kill_all(self) -> None:
        """Kill every process of the container's cgroup."""
        if self._cgroup is not None and self._cgroup.is_populated():
            self._cgroup.kill_all()

    def oom_killed(self, status: int) -> bool:
        """Say whether the kernel killed a process of the container for lack of memory.

        Args:
            status: wait status of init.
        """
        if self._cgroup is None:
            return False
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        return self._cgroup.oom_kills() > 0 or (killed and self._cgroup.may_have_starved())

    def cgroup_dirs(self) -> dict[str, str]:
        """Return controller → directory."""
        return dict(self._cgroup.dirs) if self._cgroup is not None else {}

    def release(self) -> None:
        """Let go of the container's ports, which somebody may want before this process is gone."""
        self.forget_exec()
        while self._hold_fds:
            os.close(self._hold_fds.pop())

    def remove(self) -> None:
        """Remove the container's cgroup.

        Raises:
            OSError: processes are still in it.
        """
        if self._cgroup is not None:
            self._cgroup.remove()


def _group(config: Config) -> Cgroup | None:
    """Return the container's group: a path of cgroupfs, or one that systemd makes ("slice:prefix:name")."""
    path = config.cgroups_path
    if not path or path.startswith("/"):
        return Cgroup(path) if path else None
    from satsuma.runtime import systemd  # only with that driver: D-Bus and more

    return systemd.group_for(path, "", config.resources, config.annotations)


def _keyring(cgroups_path: str) -> str:
    """Return the name of the container's session keyring; its id is the last part of the path of its group."""
    name = cgroups_path.rpartition("/")[2].rpartition(":")[2]
    return f"_ses.{name}" if name else ""


class _start_errors:
    """Turns the runtime's errors into the monitor's."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, StartFailed):
            raise StartError(error.message, error.exit_code) from error
        if isinstance(error, RuntimeFailure):
            raise StartError(str(error), 128) from error


class _Starting:
    """`create.Launching` in the monitor's words."""

    __slots__ = ("_launching", "_trace")

    def __init__(self, launching: create.Launching, trace: Trace | None) -> None:
        self._launching = launching
        self._launching.loop_reaps = True
        self._trace = trace
        if trace is not None:
            trace.rest()

    @property
    def pid(self) -> int:
        return self._launching.init.pid

    def fileno(self) -> int:
        return self._launching.fileno()

    def step(self) -> bool:
        try:
            with _start_errors():
                done = self._launching.step()
        except BaseException:
            if self._trace is not None:
                self._trace.end(failed=True)
            raise
        if done and self._trace is not None:
            self._trace.end()
        return done

    def steps(self) -> Json:
        """Return the part of a reply that tells what was done, if somebody has asked."""
        return {} if self._trace is None else {"steps": self._trace.rows()}

    def started(self) -> _Started:
        return _Started(self._launching.init)


class _Started:
    """`create.Init` in the monitor's words."""

    __slots__ = ("console", "pid", "pidfd", "start_time")

    def __init__(self, init: create.Init) -> None:
        self.pid = init.pid
        self.pidfd = init.pidfd
        self.start_time = init.start_time
        self.console = init.console_master_fd
