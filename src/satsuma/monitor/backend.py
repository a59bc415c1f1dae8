"""What a monitor asks of the runtime, in one place: start init, start an exec, kill, count, clean up.

The monitor knows only these methods; tests give it a backend that forks plain processes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    Config = dict[str, Any]
    Extras = dict[str, Any]

    class Started(Protocol):
        """A process that has passed execve.  The pidfd and the console belong to the receiver."""

        @property
        def pid(self) -> int: ...
        @property
        def pidfd(self) -> int: ...
        @property
        def start_time(self) -> int: ...
        @property
        def console(self) -> int | None: ...

    class Starting(Protocol):
        """A process on its way to its program: `step` when `fileno` is readable, until it returns True."""

        @property
        def pid(self) -> int: ...
        def fileno(self) -> int: ...
        def step(self) -> bool: ...
        def started(self) -> Started: ...
        def steps(self) -> dict[str, Any]: ...

    class Backend(Protocol):
        """One container's processes."""

        def start(
            self,
            config: Config,
            extras: Extras,
            stdio: tuple[int, int, int] | None,
            size: tuple[int, int] | None,
        ) -> Started: ...

        def exec(
            self,
            process: Config,
            stdio: tuple[int, int, int] | None,
            size: tuple[int, int] | None,
            *,
            explain: bool,
        ) -> Starting: ...

        def take_steps(self) -> list[list[Any]]: ...
        def warm_up(self) -> None: ...
        def expect_exec(self, process: Config, *, created: bool) -> bool: ...
        def forget_exec(self) -> None: ...
        def kill_all(self) -> None: ...
        def oom_killed(self, status: int) -> bool: ...
        def cgroup_dirs(self) -> dict[str, str]: ...
        def release(self) -> None: ...
        def remove(self) -> None: ...


class StartError(Exception):
    """A process did not start; `exit_code` is Docker's (125, 126, 127 or 128)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
