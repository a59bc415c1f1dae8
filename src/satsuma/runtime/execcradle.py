"""The helper of an exec (see `birth`), born ahead of time outside of everything that is the container's.

It waits for the message that says what to start.  One that says what will probably be asked for may come before: then
parent and helper have planned by the time of the request, and the helper, which the container cannot see, has joined
the namespaces and become the user (`stage.go_ahead`).  The request says little more than "go".
"""

from __future__ import annotations

import array
import os
import socket as _socket
import time

from satsuma.linux import prctl
from satsuma.linux.root import Root
from satsuma.runtime import birth, fastjson, stage
from satsuma.runtime.config import parse_process
from satsuma.runtime.cradle import Cradle, add, rehearse_finish, sample, streams, takes_later
from satsuma.runtime.plan import Extras, Plan, plan_exec
from satsuma.runtime.trace import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from satsuma.linux.cgroup import Cgroup

    Json = dict[str, Any]
    Fds = array.array[int]

FRESH_NS = 500 * 10**6
"""For how long the user and the directory that were found ahead are taken for those of the request."""


class ExecCradle(Cradle):
    """The helper, from its parent's side.

    Args:
        bpf: the filter that the process will probably get.
    """

    __slots__ = ("_committed", "_expected", "_filter", "_plan", "_rehearsed", "_stage")
    flags = 0

    def __init__(self, bpf: bytes | None = None) -> None:
        self._committed = 0
        self._expected: tuple[Json, int] | None = None
        self._filter = bpf
        self._plan: Plan | None = None
        self._rehearsed = False
        self._stage: stage.Stage | None = None
        if bpf:
            birth.consents(bpf)  # for this helper and all that follow
        super().__init__()

    @property
    def committed(self) -> bool:
        """True when the process can only become what it was told ahead."""
        return self._committed > 0

    @property
    def waits(self) -> bool:
        """True when the process was told ahead what it can only become, and that is still likely to come."""
        return self.committed and time.monotonic_ns() - self._committed < FRESH_NS

    def fits_exec(self, plan: Plan, cgroup: Cgroup | None) -> bool:
        """Tell whether the process can carry out *plan*."""
        if self.committed and plan is not self._plan:
            return False
        compiled = plan.extras.seccomp_bpf is not None or plan.filter_bpf is None
        return compiled and (cgroup is None or takes_later(cgroup)) and self.suits(plan)

    def tell_ahead(self, plan: Plan, process: Json, namespaces: int, init_pidfd: int) -> None:
        """Say what will probably be asked for (arguments of `wake_exec`).

        Raises:
            OSError: the process is dead, or this is too much to tell.
        """
        fds = array.array("i", (init_pidfd,))
        body = {"ahead": True, **_body(plan, process, namespaces)}
        self.send(*self.message(body, plan, (-1, -1, -1), fds))
        self._expected, self._plan = (process, namespaces), plan

    def commit(self) -> None:
        """Let the process take the user and the directory of what it was told: it fits nothing else from here on.

        Raises:
            OSError: it is dead.
        """
        plan = self._plan
        if self.committed or plan is None or plan.process is None or not plan.born_last:
            return
        # A terminal's size comes with the request, and what the container can see has to wait for it.
        if not plan.process.terminal:
            self.send(b'{"ahead": true}', array.array("i"))
            self._committed = time.monotonic_ns()

    def planned(self, process: Json) -> tuple[Plan, int] | None:
        """Return (plan, namespaces) of what was told ahead, if it was this and not too long ago."""
        if self._plan is None or self._expected is None or self._expected[0] != process:
            return None
        return (self._plan, self._expected[1]) if self.waits or not self.committed else None

    def wake_exec(
        self, plan: Plan, process: Json, stdio: tuple[int, int, int], namespaces: int, init_pidfd: int
    ) -> _socket.socket:
        """As `wake`.

        Args:
            process: from which *plan* was made.
            namespaces: which to join by *init_pidfd*.
        """
        self.used = True
        if plan.born_last:
            self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        if plan is self._plan:
            fds = array.array("i")
            body = {"stdio": [add(fds, fd) for fd in stdio], "trace": plan.extras.trace is not None}
            data = fastjson.dumps(body).encode()
        else:
            fds = array.array("i", (init_pidfd,))
            data, fds = self.message(_body(plan, process, namespaces), plan, stdio, fds)
        if plan.extras.trace is not None:
            plan.extras.trace.share(self._trace_page)
        self.send(data, fds)
        return self.sock

    # In the process.

    def rehearse(self, is_late: Callable[[], bool]) -> None:
        """Go through what is to come, once; then join the namespaces, if it is known which."""
        if not self._rehearsed and not is_late():
            self._rehearse(is_late)
        if self._stage is not None and not is_late():
            self._go_ahead(self._stage, become=False)

    def _rehearse(self, is_late: Callable[[], bool]) -> None:
        extras = Extras(seccomp_bpf=self._filter)
        plan = plan_exec(parse_process(sample()["process"]), extras, join_cgroup=[], namespaces=1)
        scratch = stage.Stage(plan, -1, (-1, -1, -1))
        with Root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            scratch.root = root
            stage.resolve(scratch)
        if not is_late():
            rehearse_finish(plan)
            self._rehearsed = True

    def take(self, sock: _socket.socket, body: Json, bpf: bytes, fds: Fds) -> None:
        """Do what the parent says: plan, take the user of what is planned, or become the program."""
        if "process" in body:
            self._take_plan(sock, body, bpf, fds)
        it = self._stage
        assert it is not None, "the first message says what to start"
        if "ahead" not in body:
            it.plan.extras.trace = Trace() if body["trace"] else None
            it.stdio = streams(body, fds)
            self.run(it)
        if "process" not in body:
            self._go_ahead(it, become=True)

    def _take_plan(self, sock: _socket.socket, body: Json, bpf: bytes, fds: Fds) -> None:
        process = parse_process(body["process"])
        height, width = body["console"]
        process.console_size = (height, width)
        extras = self.extras(body, bpf, fds)
        plan = plan_exec(process, extras, join_cgroup=body["join_cgroup"], namespaces=body["namespaces"])
        if self._stage is None:
            self._stage = stage.Stage(plan, sock.fileno(), (-1, -1, -1), fds[0])
            self._stage.has_default_signals = True
        else:
            self._stage.replan(plan)
            os.close(fds[0])

    def _go_ahead(self, it: stage.Stage, *, become: bool) -> None:
        # Without a pid namespace of its own the container could see us.
        if it.plan.born_last:
            stage.go_ahead(it, become=become)
            # A change of the user has cleared it.
            prctl.set_parent_death_signal(9)
            self._rehearsed = True


def _body(plan: Plan, process: Json, namespaces: int) -> Json:
    joins = next((step.args[0] for step in plan.steps if step.name == "join_cgroup"), None)
    return {"process": process, "join_cgroup": joins, "namespaces": namespaces}
