"""The helper of an exec (see `birth`), born ahead of time outside of everything that is the container's.

It waits for the message that says what to start.  One that says what will probably be asked for may come before: then
parent and helper have planned by the time of the request, and it has nothing more to say than "go".
"""

from __future__ import annotations

import array
import os
import socket as _socket

from satsuma.linux.root import Root
from satsuma.runtime import fastjson, stage
from satsuma.runtime.config import parse_process
from satsuma.runtime.cradle import Cradle, add, rehearse_finish, sample, takes_later
from satsuma.runtime.plan import Extras, Plan, plan_exec
from satsuma.runtime.trace import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from satsuma.linux.cgroup import Cgroup

    Json = dict[str, Any]
    Fds = array.array[int]


class ExecCradle(Cradle):
    """The helper, from its parent's side.

    Args:
        bpf: the filter that the process will probably get.
    """

    __slots__ = ("_expected", "_filter", "_plan", "_rehearsed")
    flags = 0

    def __init__(self, bpf: bytes | None = None) -> None:
        self._filter = bpf
        self._expected: tuple[Json, int] | None = None
        self._plan: Plan | None = None
        self._rehearsed = False
        super().__init__()

    def fits_exec(self, plan: Plan, cgroup: Cgroup | None) -> bool:
        """Tell whether the process can carry out *plan*."""
        compiled = plan.extras.seccomp_bpf is not None or plan.filter_bpf is None
        return compiled and (cgroup is None or takes_later(cgroup)) and self.suits(plan)

    def tell_ahead(self, plan: Plan, process: Json, namespaces: int) -> None:
        """Say what will probably be asked for (arguments of `wake_exec`).

        Raises:
            OSError: the process is dead, or this is too much to tell.
        """
        self.send(*self.message({"ahead": True, **_body(plan, process, namespaces)}, plan, (-1, -1, -1)))
        self._expected, self._plan = (process, namespaces), plan

    def planned(self, process: Json) -> tuple[Plan, int] | None:
        """Return (plan, namespaces) of what was told ahead, if it was this."""
        if self._plan is None or self._expected is None or self._expected[0] != process:
            return None
        return self._plan, self._expected[1]

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
        fds = array.array("i", (init_pidfd,))
        if plan is self._plan:
            body = {"stdio": [add(fds, fd) for fd in stdio], "trace": plan.extras.trace is not None}
            data = fastjson.dumps(body).encode()
        else:
            data, fds = self.message(_body(plan, process, namespaces), plan, stdio, fds)
        if plan.extras.trace is not None:
            plan.extras.trace.share(self._trace_page)
        self.send(data, fds)
        return self.sock

    # In the process.

    def rehearse(self, is_late: Callable[[], bool]) -> None:
        """Go through what is to come, once."""
        if self._rehearsed or is_late():
            return
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
        """Do what the parent says: plan, or become the program."""
        if "process" in body:
            process = parse_process(body["process"])
            height, width = body["console"]
            process.console_size = (height, width)
            self._plan = plan_exec(
                process,
                self.extras(body, bpf, fds),
                join_cgroup=body["join_cgroup"],
                namespaces=body["namespaces"],
            )
        if "ahead" not in body and self._plan is not None:
            self._plan.extras.trace = Trace() if body["trace"] else None
            self.run(self._plan, sock, body, fds, fds[0])


def _body(plan: Plan, process: Json, namespaces: int) -> Json:
    joins = next((step.args[0] for step in plan.steps if step.name == "join_cgroup"), None)
    return {"process": process, "join_cgroup": joins, "namespaces": namespaces}
