"""The stock of sandboxes: makes them ahead of time, hands them out, takes the used ones apart."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from satsuma.linux import rtnetlink as rt
from satsuma.network.host import Host
from satsuma.network.model import NetworkOptions
from satsuma.network.nameport import open_name_sockets
from satsuma.network.netns import Netns
from satsuma.network.pool import (
    Graveyard,
    MakeNetns,
    Prepared,
    SandboxPool,
    make_veth,
    plug,
)
from satsuma.network.registry import KernelThread, Registry


class Stock:
    """Prepared sandboxes of all kinds, and the graveyard of links.

    Args:
        options: sizes of the pools; the exec-root, from which names and the link group derive.
    """

    def __init__(
        self,
        registry: Registry,
        host: Host,
        kernel: KernelThread,
        make_netns: MakeNetns,
        options: NetworkOptions,
    ) -> None:
        digest = hashlib.sha256(options.exec_root.encode()).digest()
        self.veth_prefix = "sts" + digest[:2].hex()
        # A link group of our own for links that are to be deleted; 0 is the default group.
        self.group = int.from_bytes(digest[4:8], "big") & 0x7FFFFFFF | 0x40000000
        self._registry = registry
        self._host = host
        self._kernel = kernel
        self._make_netns = make_netns
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="network-slow")
        self._default = SandboxPool(self._prepare_default, options.pool_size)
        self._user = SandboxPool(self._prepare_user, options.user_pool_size)
        self._bare = SandboxPool(self._prepare_bare, options.bare_pool_size)
        self._pools = (self._default, self._user, self._bare)
        self.graveyard = Graveyard(self.group, self.in_slow_thread)

    def start(self) -> None:
        """Start making sandboxes."""
        for pool in self._pools:
            pool.start()

    def prepare(self) -> None:
        """Make what is missing: a container has ended, the moment is a good one."""
        for pool in self._pools:
            pool.prepare()

    async def fill(self) -> None:
        """Wait until the pools are full; for tests and measurements."""
        for pool in self._pools:
            await pool.fill()

    async def discard(self) -> None:
        """Take apart what is ready, as when the default bridge is a new one; others are made."""
        for prepared in self._default.drain():
            await self._kernel.run(self._bury, prepared)

    async def stop(self) -> None:
        """Stop making sandboxes and take apart those that wait."""
        for pool in self._pools:
            for prepared in await pool.stop():
                await self._kernel.run(self._bury, prepared)

    async def close(self) -> None:
        """Delete what is left of dead sandboxes and end the threads; after `stop`."""
        await self.graveyard.stop()
        self._slow.shutdown()

    async def take_default(self) -> Prepared:
        """Return a sandbox whose eth0 is on the default bridge."""
        return await self._default.take()

    async def take_user(self) -> Prepared:
        """Return a sandbox for a user-defined bridge network: its eth0 is to be plugged in."""
        return await self._user.take()

    async def bare(self) -> Netns:
        """Return a namespace with loopback only."""
        return (await self._bare.take()).netns

    def new_veth_name(self) -> str:
        """Return a name for a veth; its beginning tells whose it is."""
        return self.veth_prefix + os.urandom(4).hex()

    async def in_slow_thread(self, fn: Callable[[], None]) -> None:
        """Run *fn* where waiting for the kernel's grace periods holds up nobody."""
        await asyncio.get_running_loop().run_in_executor(self._slow, fn)

    async def _prepare_bare(self) -> Prepared:
        return Prepared(netns=await self._make_netns())

    async def _prepare_default(self) -> Prepared:
        netns = await self._make_netns()
        bridge = self._registry.default_bridge
        if bridge is None or bridge.config is None:
            return Prepared(netns=netns)
        prepared = Prepared(netns=netns)
        config, index = bridge.config, bridge.link_index

        def make() -> None:
            route = self._host.route
            veth = make_veth(route, netns, name=self.new_veth_name(), mtu=config.mtu)
            plug(route, netns, veth, bridge_index=index, mtu=config.mtu, isolated=not config.icc)
            prepared.veth = veth

        await self._finish(prepared, make)
        return prepared

    async def _prepare_user(self) -> Prepared:
        prepared = Prepared(netns=await self._make_netns())

        def make() -> None:
            prepared.veth = make_veth(self._host.route, prepared.netns, name=self.new_veth_name(), mtu=1500)

        await self._finish(prepared, make)
        try:
            prepared.names = await open_name_sockets(prepared.netns.fd)
        except BaseException:
            await self._kernel.run(prepared.close)
            raise
        return prepared

    async def _finish(self, prepared: Prepared, make: Callable[[], None]) -> None:
        try:
            await self._kernel.run(make)
        except BaseException:
            # In the kernel thread, after what a cancelled caller left running there with these descriptors.
            await self._kernel.run(prepared.close)
            raise

    def _bury(self, prepared: Prepared) -> None:
        if prepared.veth is not None:
            message = rt.set_link(prepared.veth.index, master=0, group=self.group)
            self._host.route.run(message, ignore=(errno.ENODEV,))
        prepared.close()
