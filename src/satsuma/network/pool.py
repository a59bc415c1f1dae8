"""Network namespaces kept ready, so that a start only adds an address.

Three kinds: with a veth pair that is a port of the default bridge already; for user-defined networks with a
veth pair that only has to be plugged in and the sockets of the embedded DNS; with loopback alone.  One costs 2 to
3 ms to make and 0.1 ms to finish.  The pool makes them while nobody waits: after an allocation it lets `QUIET` seconds
pass without another one before it refills, unless it runs low or hears that a container has ended.

Sandboxes are used once.  Recycling one (flush addresses and routes, hand it to the next container) would be
cheaper and is wrong: sysctls, firewall rules, sockets and conntrack entries of the old container would stay.

End of a sandbox: the near end of its veth leaves the bridge at once, so that its address can be given to the next
container; then the last descriptor of the namespace is closed, and the kernel removes both ends in its own
worker.  Measured on Linux 6.18: closing costs the caller 0.02 ms, deleting the link 13 to 28 ms.  A namespace
that something else holds (a process that lingers, a container that shares it) keeps its veth; `Graveyard`
deletes those by link group, any number at the price of one.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from satsuma.base.aio import spawn
from satsuma.linux import rtnetlink as rt
from satsuma.network.host import random_mac
from satsuma.network.nameport import NameSockets
from satsuma.network.netns import Netns

_log = logging.getLogger(__name__)

QUIET = 0.05
SETTLED = 0.004
"""Seconds after which a refill does not disturb: without an allocation, or after the end of a container."""
LOW_WATER = 2
GRACE = 1.0
"""Seconds after which a veth that outlived its namespace's last descriptor of ours is deleted."""
INNER_NAME = "eth0"
MakeNetns = Callable[[], Awaitable[Netns]]
"""Makes a network namespace with loopback up (see `netns.make_netns`)."""


@dataclass(slots=True, kw_only=True)
class Veth:
    """A veth pair: the near end on a bridge of the host, the far end in a container."""

    name: str
    index: int
    inner_index: int
    mac: bytes
    mtu: int = 1500


@dataclass(slots=True, kw_only=True)
class Prepared:
    """A namespace that waits for a container."""

    netns: Netns
    veth: Veth | None = None
    names: NameSockets | None = None
    """Of one that is meant for a user-defined network: the embedded DNS's sockets, bound and led to."""

    def close(self) -> None:
        """Close everything; with the namespace its interfaces go."""
        if self.names is not None:
            self.names.close()
        self.netns.close()


def make_veth(
    host: rt.Route,
    netns: Netns,
    *,
    name: str,
    mtu: int,
    inner_name: str = INNER_NAME,
    mac: bytes | None = None,
) -> Veth:
    """Make a veth pair from the host into a namespace, the far end up; `plug` brings the near end to a bridge."""
    mac = mac or random_mac()
    host.run(rt.add_veth(name, peer_name=inner_name, peer_netns_fd=netns.fd, peer_address=mac, mtu=mtu))
    far = netns.route.link(inner_name)
    if far is None:
        raise OSError(errno.ENODEV, f"{inner_name} vanished")
    index = socket.if_nametoindex(name)
    # A bridge port needs no IPv6 address, and the kernel no duplicate address detection.  Asked for before
    # "up", which is when the kernel would make the address.
    host.run(rt.set_link(index, addr_gen_none=True), ignore=(errno.EAFNOSUPPORT,))
    netns.route.run(rt.set_link(far.index, up=True))
    return Veth(name=name, index=index, inner_index=far.index, mac=mac, mtu=mtu)


def plug(host: rt.Route, netns: Netns, veth: Veth, *, bridge_index: int, mtu: int, isolated: bool) -> None:
    """Make a veth's near end a port of a bridge, up."""
    if mtu != veth.mtu:
        host.run(rt.set_link(veth.index, mtu=mtu))
        netns.route.run(rt.set_link(veth.inner_index, mtu=mtu))
        veth.mtu = mtu
    host.run(
        rt.set_link(veth.index, master=bridge_index),
        # Where br_netfilter is loaded, a container that calls its own published port is rewritten inside the
        # bridge and has to leave by the port it came in, which is what hairpin mode allows.
        rt.set_bridge_port(veth.index, hairpin=True, isolated=isolated or None),
        rt.set_link(veth.index, up=True),
    )


class SandboxPool:
    """Namespaces of one kind.  All methods on the event loop.

    Args:
        prepare: makes one (see `NetworkService`); its blocking part runs in the kernel thread.
        size: how many to keep.
    """

    def __init__(self, prepare: Callable[[], Awaitable[Prepared]], size: int) -> None:
        self._prepare = prepare
        self._size = size
        self._low_water = min(LOW_WATER, (size - 1) // 2)
        self._ready: deque[Prepared] = deque()
        self._wanted = asyncio.Event()
        self._waiting: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._task: asyncio.Task[None] | None = None
        self._making: asyncio.Task[Prepared] | None = None

    def __len__(self) -> int:
        return len(self._ready)

    def start(self) -> None:
        """Start the refilling task."""
        if self._size:
            self._wanted.set()
            self._task = spawn("network:pool", self._refill())

    async def take(self) -> Prepared:
        """Return a prepared namespace, or make one now when the pool is dry."""
        self._be_quiet(QUIET)
        self._wanted.set()
        if self._ready:
            return self._ready.popleft()
        return await self._prepare()

    async def fill(self) -> None:
        """Wait until the pool is full; for tests and measurements."""
        while self._task is not None and len(self._ready) < self._size:
            await asyncio.sleep(0.005)

    def drain(self) -> list[Prepared]:
        """Return and forget all prepared namespaces, as when the default bridge changes."""
        drained = list(self._ready)
        self._ready.clear()
        self._wanted.set()
        return drained

    async def stop(self) -> list[Prepared]:
        """Stop refilling and return what was ready; the caller buries it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if self._making is not None:
            # One that is half made is finished, so that it can be buried like the others.
            await asyncio.wait([self._making])
            if not self._making.cancelled() and self._making.exception() is None:
                self._ready.append(self._making.result())
            self._making = None
        return self.drain()

    async def _refill(self) -> None:
        failures = 0
        while True:
            await self._wanted.wait()
            await self._wait_for_quiet()
            if len(self._ready) >= self._size:
                self._wanted.clear()
                continue
            try:
                self._making = spawn("network:prepare", self._prepare_one())
                self._ready.append(await asyncio.shield(self._making))
                self._making, failures = None, 0
            except Exception as error:  # a supervisor: the next start makes its own and reports
                self._making, failures = None, failures + 1
                _log.warning("cannot prepare a network namespace: %s", error)
                await asyncio.sleep(min(30.0, 0.1 * 2**failures))

    async def _prepare_one(self) -> Prepared:
        return await self._prepare()

    def prepare(self) -> None:
        """Refill soon: a container has ended, the moment is a good one."""
        self._be_quiet(SETTLED)

    def _be_quiet(self, seconds: float) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._quiet.clear()
        self._waiting = asyncio.get_running_loop().call_later(seconds, self._quiet.set)

    async def _wait_for_quiet(self) -> None:
        while len(self._ready) > self._low_water and not self._quiet.is_set():
            await self._quiet.wait()


class Graveyard:
    """Deletes veths that outlive their namespaces, in bulk and off every path.

    `bury` marks a link with the engine's own group; a moment later the task looks whether links of that group
    are left and deletes them with one message, which costs the kernel's grace periods once.
    """

    def __init__(self, group: int, in_background: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self.group = group
        self._in_background = in_background
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task."""
        self._task = spawn("network:graveyard", self._run())

    def notify(self) -> None:
        """Say that something was buried."""
        self._wanted.set()

    async def stop(self) -> None:
        """Stop the task and delete what is left now."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self._in_background(self._sweep)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            await asyncio.sleep(GRACE)
            self._wanted.clear()
            try:
                await self._in_background(self._sweep)
            except OSError as error:
                _log.warning("cannot delete left-over links: %s", error)

    def _sweep(self) -> None:
        # ENODEV: the kernel was faster, as mostly.
        with rt.Route() as route:
            route.run(rt.del_group(self.group), ignore=(errno.ENODEV,))
