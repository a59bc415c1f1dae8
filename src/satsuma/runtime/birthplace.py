"""Namespaces into which only children can be born: an existing pid namespace, a new time namespace.

setns(2) and unshare(2) leave the caller where it is and say where its children go, so the parent says it, clones,
and takes it back.

Source: pid_namespaces(7), time_namespaces(7).
"""

from __future__ import annotations

import os

from satsuma.linux import ns, syscalls
from satsuma.runtime.errors import StartFailed, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.runtime.plan import Plan

_PREFIX = "unable to start container process: "


class Birthplace:
    """Where the children of this process go until the block ends.

    Needs: CAP_SYS_ADMIN; a single-threaded caller.
    """

    __slots__ = ("_offsets", "_own", "_pid")

    def __init__(self, plan: Plan) -> None:
        self._pid = plan.join_pid
        self._offsets = plan.time_offsets
        self._own: list[tuple[int, int]] = []

    def __enter__(self) -> Birthplace:
        try:
            if self._pid is not None:
                self._remember("pid")
                _join_pidns(self._pid)
            if self._offsets is not None:
                self._remember("time")
                _new_timens(self._offsets)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _remember(self, kind: str) -> None:
        self._own.append((ns.open_ns("self", kind), ns.FLAGS[kind]))

    def __exit__(self, *exc: object) -> None:
        while self._own:
            fd, flag = self._own.pop()
            syscalls.setns(fd, flag)
            os.close(fd)


def _join_pidns(where: int | str) -> None:
    fd = where if isinstance(where, int) else os.open(where, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ns.ns_type(fd) != syscalls.CLONE_NEWPID:
            raise StartFailed(f"{_PREFIX}namespace {where} is not of type pid")
        syscalls.setns(fd, syscalls.CLONE_NEWPID)
    finally:
        if not isinstance(where, int):
            os.close(fd)


def _new_timens(offsets: dict[str, Any]) -> None:
    """Make a time namespace; its clocks can be set until the first process is in it."""
    try:
        syscalls.unshare(syscalls.CLONE_NEWTIME)
        fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            for clock, offset in offsets.items():
                os.write(fd, f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}\n".encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise StartFailed(f"{_PREFIX}error setting up the time namespace: {error_text(error)}") from error
