"""The networks themselves: created, kept in the database, brought up at start, removed.

The row comes first and the bridge second: a bridge whose row is missing cannot exist, and a row whose bridge is
missing (the host was restarted, somebody deleted it) gets it back at the next start.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec

from satsuma.base.aio import blocking
from satsuma.base.clock import now_ns
from satsuma.base.errors import Forbidden, InvalidParameter, NotFound, System
from satsuma.base.ids import new_id
from satsuma.linux import rtnetlink as rt
from satsuma.network import plan
from satsuma.network.firewall import Firewall
from satsuma.network.host import Host
from satsuma.network.ipam import choose_subnet
from satsuma.network.model import NetworkOptions, NetworkRecord, NetworkSpec
from satsuma.network.sandbox import Network

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Row(Protocol):
    """A row of the database."""

    @property
    def id(self) -> str: ...
    @property
    def doc(self) -> bytes: ...


class Collection(Protocol):
    """The part of `store.db.Collection` that networks need; synchronous and thread-safe."""

    def insert(self, id: str, doc: bytes, *, name: str | None = None, created_ns: int = 0) -> object: ...
    def update(self, id: str, doc: bytes) -> object: ...
    def all(self) -> Any: ...
    def delete(self, id: str) -> bool: ...


class KernelThread:
    """The one thread that talks netlink, so that a held RTNL lock never stops the event loop.

    One thread, because a netlink socket serves one caller at a time.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="network")

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *fn* there.  It finishes even when the caller is cancelled."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: fn(*args, **kwargs))

    def close(self) -> None:
        """Wait for what is running and end the thread."""
        self._pool.shutdown()


class Registry:
    """All networks of the engine.  Methods on the event loop; changes one at a time under `lock`."""

    def __init__(
        self,
        collection: Collection,
        options: NetworkOptions,
        host: Host,
        firewall: Firewall,
        kernel: KernelThread,
    ) -> None:
        self._collection = collection
        self._options = options
        self._host = host
        self._firewall = firewall
        self._kernel = kernel
        self._networks: dict[str, Network] = {}
        self._user_bridge = False
        self.lock = asyncio.Lock()

    def __iter__(self) -> Iterator[Network]:
        return iter(list(self._networks.values()))

    def records(self) -> list[NetworkRecord]:
        """Return all records, oldest first."""
        return [network.record for network in self._networks.values()]

    def find(self, ref: str) -> Network:
        """Return the network of an id, name or unique id prefix."""
        return self._networks[plan.find(ref, self.records()).id]

    def by_id(self, network_id: str) -> Network | None:
        """Return the network of a full id."""
        return self._networks.get(network_id)

    def bridges(self) -> list[str]:
        """Return the interfaces of all bridge networks."""
        return [n.config.interface for n in self._networks.values() if n.config and not n.record.config_only]

    @property
    def default_bridge(self) -> Network | None:
        """Return the network `bridge`, None with --bridge=none."""
        for network in self._networks.values():
            if network.record.name == "bridge":
                return network
        return None

    async def open(self) -> None:
        """Load the networks, make the predefined ones, bring every bridge up."""
        rows = await blocking(self._collection.all)
        records = [msgspec.json.decode(row.doc, type=NetworkRecord) for row in rows]
        self._networks = {record.id: Network(record=record) for record in records}
        for name, driver in (("none", "null"), ("host", "host")):
            if not any(record.name == name for record in records):
                await self._insert(NetworkRecord(id=new_id(), name=name, created_ns=now_ns(), driver=driver))
        await self._open_default_bridge()
        for network in list(self._networks.values()):
            if network.record.name == "bridge":
                continue
            try:
                await self._bring_up(network)
            except OSError as error:
                # One broken network must not keep the daemon from starting; a container on it fails by itself.
                _log.error("cannot bring up network %s: %s", network.record.name, error)

    async def _open_default_bridge(self) -> None:
        present = self.default_bridge
        if self._options.bridge == "none":
            if present is not None:
                await blocking(self._collection.delete, present.record.id)
                del self._networks[present.record.id]
            return
        record = await self._kernel.run(self._plan_default_bridge, present.record if present else None)
        if present is None:
            present = await self._insert(record)
        elif present.record != record:
            present.record = record
            await blocking(self._collection.update, record.id, msgspec.json.encode(record))
        await self._bring_up(present)

    def _plan_default_bridge(self, old: NetworkRecord | None) -> NetworkRecord:
        """Return the record of `bridge` for the options of this start; its subnet stays if nothing is against it."""
        options = self._options
        owner = self._host.bridge_owner(options.bridge)
        self._user_bridge = owner == ""
        own = {options.bridge} | {n.config.interface for n in self._networks.values() if n.config}
        found = self._host.bridge_address(options.bridge) if self._user_bridge else None
        if options.bip:
            interface = IPv4Interface(options.bip)
        elif found is not None:
            interface = found
        else:
            interface = self._default_subnet(old, own)
        record = NetworkRecord(
            id=old.id if old else new_id(),
            name="bridge",
            created_ns=old.created_ns if old else now_ns(),
            driver="bridge",
            subnet=str(interface.network),
            ip_range=options.fixed_cidr or "",
            gateway=options.default_gateway or str(interface.ip),
            options={
                plan.BRIDGE_DEFAULT: "true",
                plan.BRIDGE_ICC: str(options.icc).lower(),
                plan.BRIDGE_MASQUERADE: str(options.ip_masq).lower(),
                plan.BRIDGE_HOST_BINDING: options.default_ip,
                plan.BRIDGE_NAME: options.bridge,
                plan.DRIVER_MTU: str(options.mtu),
            },
        )
        if options.default_gateway and IPv4Address(options.default_gateway) not in interface.network:
            raise InvalidParameter("default gateway ip must be part of the network")
        return record

    def _default_subnet(self, old: NetworkRecord | None, own: set[str]) -> IPv4Interface:
        taken = self._subnets(but=old.id if old else "")
        host = self._host.taken_networks(own)
        if old is not None and not self._options.default_gateway:
            subnet = IPv4Network(old.subnet)
            if not any(subnet.overlaps(other) for other in (*taken, *host)):
                return IPv4Interface((old.gateway, subnet.prefixlen))
        subnet = choose_subnet(self._options.address_pools, taken, host)
        return IPv4Interface((int(subnet.network_address) + 1, subnet.prefixlen))

    def _subnets(self, *, but: str = "") -> list[IPv4Network]:
        return [IPv4Network(r.subnet) for r in self.records() if r.subnet and r.id != but]

    async def create(self, spec: NetworkSpec) -> Network:
        """Create a network.

        Raises:
            Conflict, Forbidden, InvalidParameter, NotFound, Unsupported: in Docker's words.
        Crash: row first, bridge second; the next start makes the bridge.
        """
        plan.check_spec(spec)
        async with self.lock:
            plan.check_free_name(spec.name, self.records())
            base = self._config_network(spec.config_from) if spec.config_from else None
            record = plan.make_record(spec, new_id(), now_ns(), base)
            self._check_driver(record)
            record = await self._kernel.run(self._give_subnet, record)
            network = await self._insert(record)
            try:
                await self._bring_up(network)
            except BaseException as error:
                await self._forget(network)
                if isinstance(error, OSError):
                    raise System(f"failed to create network {spec.name}: {error}") from error
                raise
            return network

    def _config_network(self, name: str) -> NetworkRecord:
        for record in self.records():
            if record.name == name and record.config_only:
                return record
        raise NotFound(f'configuration network "{name}" does not exist')

    def _check_driver(self, record: NetworkRecord) -> None:
        if record.driver == "bridge" and not record.config_only:
            config = plan.bridge_config(record, default_mtu=1500)
            for network in self._networks.values():
                if network.config and network.config.interface == config.interface:
                    raise Forbidden(
                        f"cannot create network {record.id} ({config.interface}): conflicts with network "
                        f"{network.record.id} ({config.interface}): networks have same bridge name"
                    )
        elif record.driver in ("macvlan", "ipvlan"):
            plan.check_sublink(record)

    def _give_subnet(self, record: NetworkRecord) -> NetworkRecord:
        """Return the record with its subnet and gateway settled."""
        if record.config_only:
            return record
        wanted = next((c for c in record.ipam_config if c.subnet), None)
        taken = self._subnets()
        if wanted is None:
            own = {n.config.interface for n in self._networks.values() if n.config}
            subnet = choose_subnet(self._options.address_pools, taken, self._host.taken_networks(own))
            record = replace(record, subnet=str(subnet))
        else:
            subnet = IPv4Network(wanted.subnet)
            if any(subnet.overlaps(other) for other in taken):
                raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
            record = replace(
                record,
                subnet=wanted.subnet,
                ip_range=wanted.ip_range,
                aux_addresses=dict(wanted.aux_addresses),
                gateway=wanted.gateway,
            )
        if not record.gateway:
            # As in Docker the gateway is the first address of the ip-range where there is one.
            pool = plan.open_pool(replace(record, aux_addresses={}))
            record = replace(record, gateway=str(pool.request()))
        return record

    async def remove(self, ref: str) -> NetworkRecord:
        """Remove a network that no live container is on.

        Raises:
            NotFound, Forbidden.
        Crash: row first; a bridge that is left is found at the next start by its alias.
        """
        async with self.lock:
            network = self.find(ref)
            record = network.record
            if record.is_predefined:
                raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
            if record.config_only and any(r.config_from == record.name for r in self.records()):
                raise Forbidden(
                    f'error while removing network: configuration network "{record.name}" is in use'
                )
            if network.attachments:
                listed = ", ".join(
                    f'name:"{a.container_name}" id:"{a.info.endpoint_id[:12]}"'
                    for a in network.attachments.values()
                )
                raise Forbidden(
                    f"error while removing network: network {record.name} has active endpoints ({listed})"
                )
            await self._forget(network)
            return record

    async def _insert(self, record: NetworkRecord) -> Network:
        await blocking(
            self._collection.insert,
            record.id,
            msgspec.json.encode(record),
            name=record.name,
            created_ns=record.created_ns,
        )
        network = self._networks[record.id] = Network(record=record)
        return network

    async def _forget(self, network: Network) -> None:
        # Out of sight first: no container may find it while its row is being deleted.
        self._networks.pop(network.record.id, None)
        try:
            await blocking(self._collection.delete, network.record.id)
        except BaseException:
            self._networks[network.record.id] = network
            raise
        await self._kernel.run(self._take_down, network)

    async def _bring_up(self, network: Network) -> None:
        record = network.record
        if record.config_only or record.driver in ("host", "null"):
            return
        network.addresses = plan.open_pool(record)
        if record.driver == "bridge":
            network.config = plan.bridge_config(record)
        await self._kernel.run(self._bring_up_links, network)

    async def heal(self) -> list[str]:
        """Make bridges again that somebody deleted; return their names."""
        async with self.lock:
            return await self._kernel.run(self._heal_links)

    def _heal_links(self) -> list[str]:
        healed = []
        for network in list(self._networks.values()):
            config = network.config
            if config is None:
                continue
            link = self._host.route.link(config.interface)
            if link is None or link.index != network.link_index:
                self._bring_up_links(network)
                healed.append(config.interface)
        return healed

    def _bring_up_links(self, network: Network) -> None:
        record, config = network.record, network.config
        if config is None:
            network.link_index = self._parent(record)
            return
        address: IPv4Interface | None = None
        prefix_length = IPv4Network(record.subnet).prefixlen
        if not config.inhibit_ipv4:
            address = IPv4Interface((record.gateway, prefix_length))
        if record.name == "bridge":
            if self._user_bridge and not self._options.bip and self._host.bridge_address(config.interface):
                address = None  # a bridge that a person set up keeps its address
            elif self._options.bip:
                address = IPv4Interface(self._options.bip)
        network.link_index = self._host.ensure_bridge(config.interface, address, config.mtu)
        rules = network.rules()
        assert rules is not None, "a bridge network has rules"
        self._firewall.add_bridge(rules)
        self._firewall.let_through(self.bridges())

    def _parent(self, record: NetworkRecord) -> int:
        """Return the index of the parent link of a macvlan or ipvlan network; without one, of a dummy."""
        parent = record.option("parent")
        name = parent or f"dm-{record.id[:12]}"
        link = self._host.route.link(name)
        if link is None:
            if parent:
                raise OSError(errno.ENODEV, f"parent interface {parent} does not exist")
            try:
                self._host.route.run(rt.add_dummy(name))
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                # A kernel without dummy links: a bridge without ports is as good a parent.
                self._host.route.run(rt.add_bridge(name))
            link = self._host.route.link(name)
            if link is None:
                raise OSError(errno.ENODEV, f"{name} vanished")
        if not parent and not link.alias:
            self._host.route.run(rt.set_link(link.index, alias=self._host.owner, up=True))
        return int(link.index)

    def _take_down(self, network: Network) -> None:
        rules = network.rules()
        if rules is not None:
            self._firewall.remove_bridge(rules)
            self._firewall.let_through(self.bridges())
            self._host.delete_bridge(rules.interface)
        elif network.record.driver in ("macvlan", "ipvlan") and not network.record.option("parent"):
            # Nobody else makes a link of this name: it is ours also without an alias.
            link = self._host.route.link(f"dm-{network.record.id[:12]}")
            if link is not None:
                self._host.route.run(rt.del_link(link.index), ignore=(errno.ENODEV,))

    def delete_bridges(self) -> None:
        """Delete all bridges of this engine, with or without a network; in the kernel thread."""
        for link in self._host.route.links():
            if self._host.is_ours(link):
                self._host.route.run(rt.del_link(link.index))

    def delete_stray_bridges(self) -> None:
        """Delete bridges of this engine that belong to no network; in the kernel thread."""
        known = {network.link_index for network in self._networks.values()}
        for link in self._host.route.links():
            if self._host.is_ours(link) and link.index not in known:
                self._host.route.run(rt.del_link(link.index))
