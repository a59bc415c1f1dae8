"""When each step of a start was done, on both sides of the clone; nothing of it is paid by who does not ask.

The new process notes its times in a page that it shares with its parent.  That needs no message and no system call
(the clock is read in the vDSO), so it disturbs neither the times nor the seccomp filter, and the page survives
whatever becomes of the process.

    trace = Trace()
    create.start(config, extras=Extras(trace=trace, …))
    trace.rows()        # [[process, step, arguments, start in ns, duration in ns, "" | "failed"], …] in time's order
"""

from __future__ import annotations

import mmap
import select
import struct
import time

from satsuma.runtime.plan import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from satsuma.runtime.plan import Plan

OUTSIDE, INSIDE = "runtime", "init"
_STAMP = struct.Struct("Q")
_PATIENCE_MS = 20


def timeline(plan: Plan) -> list[Step]:
    """Return all that a new process does, in order: the plan's steps and those of `finish`; some may be left out."""
    steps = [Step("prepare"), *plan.steps]

    def add(condition: object, name: str, *args: object) -> None:
        if condition:
            steps.append(Step(name, *args))

    process, extras = plan.process, plan.extras
    if process is not None:
        strict = process.no_new_privileges
        filtered = plan.filter_bpf is not None
        instructions = len(plan.filter_bpf or b"") // 8
        bounding, effective, permitted, inheritable, ambient = plan.capabilities
        add(strict, "no_new_privs")
        add(process.scheduler is not None or process.io_priority is not None, "scheduling")
        add(process.rlimits, "rlimits", [f"{name}={soft}:{hard}" for _, name, soft, hard in process.rlimits])
        add(plan.selinux_label, "selinux_label", plan.selinux_label)
        add(True, "chdir", process.cwd)
        add(True, "drop_bounding", bounding)
        add(True, "become_user", process.user if process.user is not None else f"{process.uid}:{process.gid}")
        add(True, "look_path", plan.args[0])
        if plan.born_last:
            # The filter before the birth or after it, whichever it allows itself (`birth.give_birth`).
            add(filtered, "seccomp", instructions, plan.filter_flags)
            add(True, "birth", permitted)
        add(extras.death_signal, "death_signal", extras.death_signal)
        add(extras.exec_fifo_fd >= 0, "wait_for_start")
        if plan.config is not None and "startContainer" in plan.config.hooks:
            add(True, "hooks", "startContainer", plan.config.hooks["startContainer"])
        add(True, "close_range", 3 + extras.preserve_fds)
        add(filtered and not strict, "seccomp", instructions, plan.filter_flags)
        add(True, "capset", effective, permitted, inheritable)
        add(ambient, "ambient", ambient)
        add(filtered and strict, "seccomp", instructions, plan.filter_flags)
        add(True, "execve", list(plan.args))
    return steps


class Trace:
    """The steps of one start.

    Attributes:
        on_progress: called now and then while the parent waits, for whoever wants to see steps at once.
    """

    __slots__ = ("_failed", "_finished", "_next", "_now", "_outside", "_page", "_steps", "on_progress")

    def __init__(self) -> None:
        self.on_progress: Callable[[], None] | None = None
        self._outside: list[list[Any]] = []
        self._steps: list[Step] = []
        self._page: mmap.mmap | None = None
        self._next = 0
        self._now = 0
        self._finished = 0
        self._failed = False

    # The parent's side.

    def at(self, step: str, *args: object) -> None:
        """Begin a step of the parent; the one before ends."""
        now = time.perf_counter_ns()
        self._end_outside(now)
        self._outside.append([OUTSIDE, step, list(args), now, -1, ""])

    def rest(self) -> None:
        """End the parent's step."""
        self._end_outside(time.perf_counter_ns())

    def _end_outside(self, now: int) -> None:
        if self._outside and self._outside[-1][4] < 0:
            self._outside[-1][4] = now - self._outside[-1][3]

    def bind(self, plan: Plan) -> None:
        """Prepare for the steps of *plan*, before the process is made."""
        self._steps = timeline(plan)
        self._page = mmap.mmap(-1, _STAMP.size * (len(self._steps) + 1))

    def share(self, page: mmap.mmap) -> None:
        """Take a page of a process that was made before: at least 8 bytes for each step and one more."""
        self._page = page

    def watch(self, fd: int) -> None:
        """Wait until *fd* is readable, and report progress meanwhile."""
        if self.on_progress is None:
            return
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        while not waiting.poll(_PATIENCE_MS):
            self.on_progress()

    def end(self, *, failed: bool = False) -> None:
        """Note that the program runs, or that the start has failed."""
        now = time.perf_counter_ns()
        self._end_outside(now)
        self._finished = self._finished or now
        self._failed = self._failed or failed

    def rows(self) -> list[list[Any]]:
        """Return the steps that have ended, ordered by their start."""
        rows = [row for row in self._outside if row[4] >= 0]
        starts = self._stamps()
        for number, (step, start) in enumerate(starts):
            last = number + 1 == len(starts)
            end = self._finished if last else starts[number + 1][1]
            if end:
                failed = "failed" if last and self._failed else ""
                rows.append([INSIDE, step.name, step.values(), start, end - start, failed])
        rows.sort(key=lambda row: row[3])
        return rows

    def _stamps(self) -> list[tuple[Step, int]]:
        if self._page is None:
            return []
        found = []
        for number, step in enumerate(self._steps):
            start = _STAMP.unpack_from(self._page, number * _STAMP.size)[0]
            if start:
                found.append((step, start))
        return found

    # The new process's side.

    def reached(self, step: str) -> None:
        """Note that the new process begins a step of its timeline."""
        for number in range(self._next, len(self._steps)):
            if self._steps[number].name == step:
                try:
                    self._now = time.perf_counter_ns()
                except OSError:
                    # Where the clock is not in the vDSO (HPET, emulation) a filter may refuse the call: the step
                    # begins when the last one did, and the start goes on.
                    pass
                _STAMP.pack_into(self._page, number * _STAMP.size, self._now)  # type: ignore[arg-type]
                self._next = number + 1
                return
