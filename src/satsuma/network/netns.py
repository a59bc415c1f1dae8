"""Make network namespaces, and do inside them what only a thread inside can do: open sockets, write sysctls.

A network namespace is an attribute of a thread (setns(2), unshare(2)).  Each call here starts a thread that
enters the namespace, does one thing and ends; it never comes back to the host's, so that no other work can ever
run in the wrong namespace.  Nothing else of a container is entered: files, processes and users stay the host's.
Measured: a namespace by a thread 0.5 ms, by a fork of the launcher 2.3 ms (and the launcher has containers to
start meanwhile); a socket in an existing one 0.1 ms.

Source: setns(2), network_namespaces(7), moby libnetwork/osl (which does it with locked threads as well).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from satsuma.linux import ns
from satsuma.linux import rtnetlink as rt

T = TypeVar("T")
S = TypeVar("S")

_LOOPBACK = 1  # the index of lo is the same in every namespace
_SYS_IPV6 = "/proc/sys/net/ipv6/conf/default"


async def run_inside(netns_fd: int, fn: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Run *fn* in a thread of its own inside a namespace and return its result.

    Args:
        discard: disposes of the result when the caller was cancelled meanwhile; called on the event loop.
    """
    # A descriptor of our own: the caller may be cancelled and close its one while the thread starts.
    fd = os.dup(netns_fd)

    def inside() -> T:
        try:
            ns.setns(fd, "net")
        finally:
            os.close(fd)
        return fn()

    return await _in_own_thread(inside, discard)


@dataclass(slots=True, kw_only=True)
class Netns:
    """A network namespace, and the socket to configure it from outside."""

    fd: int
    route: rt.Route

    def close(self) -> None:
        """Close both descriptors; with the last one the kernel dissolves the namespace."""
        self.route.close()
        os.close(self.fd)


async def make_netns() -> Netns:
    """Make a network namespace with loopback up, that keeps IPv6 off the interfaces which come into it."""

    def inside() -> Netns:
        ns.unshare("net")
        _quiet_ipv6()
        with contextlib.ExitStack() as undo:
            route = undo.enter_context(rt.Route())
            route.run(rt.set_link(_LOOPBACK, up=True))
            fd = ns.open_ns("thread-self", "net")
            undo.pop_all()
            return Netns(fd=fd, route=route)

    return await _in_own_thread(inside, Netns.close)


def _quiet_ipv6() -> None:
    """Keep IPv6 off the interfaces that will come into this thread's namespace; loopback keeps ::1.

    As Docker on networks without IPv6: no address, and no router advertisement of another container counts.
    """
    for key, value in (("accept_ra", b"0"), ("disable_ipv6", b"1")):
        try:
            fd = os.open(f"{_SYS_IPV6}/{key}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # a kernel without IPv6
            return
        try:
            os.write(fd, value)
        finally:
            os.close(fd)


async def _in_own_thread(fn: Callable[[], T], discard: Callable[[T], None]) -> T:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def succeed(result: T) -> None:
        if done.cancelled():
            discard(result)
        else:
            done.set_result(result)

    def fail(error: BaseException) -> None:
        if not done.cancelled():
            done.set_exception(error)

    def run() -> None:
        try:
            result = fn()
        except BaseException as error:  # a supervisor: the caller gets it
            _tell(loop, fail, error)
        else:
            _tell(loop, succeed, result)

    threading.Thread(target=run, name="network-inside", daemon=True).start()
    return await done


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[S], None], value: S) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(callback, value)


async def open_sockets(netns_fd: int, specs: Sequence[tuple[int, int, int]]) -> list[int]:
    """Open sockets `(family, type, protocol)` inside a namespace; they stay in it, whoever uses them."""

    def inside() -> list[int]:
        opened: list[socket.socket] = []
        try:
            for family, kind, protocol in specs:
                opened.append(socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))
        except BaseException:
            for sock in opened:
                sock.close()
            raise
        return [sock.detach() for sock in opened]

    def discard(fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)

    return await run_inside(netns_fd, inside, discard)
