"""The network service: networks for clients, sandboxes for containers.

    open       predefined networks, firewall table, bridges
    recover    live containers of an earlier daemon; left-overs go; the pool starts
    allocate   a sandbox for a container that starts: namespace, interfaces, addresses, published ports
    release    the end of it
    close      stop; live containers keep their network, without any nothing stays on the host

One task per container at a time (the engine holds the container's lock); any number of containers at once.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from satsuma.base.clock import now_ns
from satsuma.base.errors import EngineError, Forbidden, NotFound, System, Unavailable
from satsuma.base.ids import new_id, short_id
from satsuma.linux import rtnetlink as rt
from satsuma.network import filters as network_filters
from satsuma.network import host as host_side
from satsuma.network import plan, recovery, sandbox
from satsuma.network.firewall import Firewall, PortRule, table_name
from satsuma.network.guests import legacy_tables
from satsuma.network.model import (
    EndpointInfo,
    EndpointSpec,
    NetworkOptions,
    NetworkRecord,
    NetworkSpec,
    PortSpec,
    Sandbox,
)
from satsuma.network.netns import make_netns
from satsuma.network.pool import INNER_NAME, MakeNetns
from satsuma.network.ports import PortAllocator, PortTaken
from satsuma.network.registry import Collection, KernelThread, Registry
from satsuma.network.resolver import EmbeddedDns
from satsuma.network.sandbox import Attachment, Live, Network
from satsuma.network.stock import Stock
from satsuma.network.watch import Watch

_log = logging.getLogger(__name__)

SETUP_FAILED = "failed to set up container networking"


class NetworkService:
    """All networking of one engine.  Async methods on the event loop.

    Args:
        collection: the database's "networks".
        options: the daemon's flags.
        make_netns: makes a network namespace; tests may give another.
    """

    def __init__(
        self,
        collection: Collection,
        *,
        options: NetworkOptions,
        make_netns: MakeNetns = make_netns,
    ) -> None:
        self.options = options
        self.table = table_name(options.exec_root)
        self._kernel = KernelThread()
        self._host = host_side.Host(self.table)
        self._firewall = Firewall(self.table)
        self._ports = PortAllocator(default_ip=options.default_ip)
        self.registry = Registry(collection, options, self._host, self._firewall, self._kernel)
        self.stock = Stock(self.registry, self._host, self._kernel, make_netns, options)
        self._dns = EmbeddedDns(options.dns)
        self._watch = Watch(self.table, self._firewall.port, self._repair_firewall)
        self._live: dict[str, Live] = {}

    # Life of the service.

    async def open(self) -> None:
        """Make or adopt the firewall table, the predefined networks and all bridges.

        `recover` comes next, also when there is nothing to recover.
        """
        await self._kernel.run(self._open_host)
        await self.registry.open()
        self.stock.graveyard.start()
        self._watch.start()

    def _open_host(self) -> None:
        self._firewall.open()
        if self.options.ip_forward:
            uplinks = host_side.enable_forwarding()
            if len(uplinks) > 1:
                self._firewall.block_forwarding_between(uplinks)
        elif host_side.read_sysctl("net/ipv4/ip_forward") == "0":
            _log.warning("IPv4 forwarding is disabled, networking will not work")
        if "filter" in legacy_tables():
            _log.warning(
                "iptables-legacy is in use; a FORWARD policy of DROP there stops containers' packets"
            )

    async def recover(
        self,
        records: Mapping[str, Mapping[str, Any]],
        netns_fd_of: Callable[[str], int | None],
    ) -> dict[str, Sandbox]:
        """Take up the containers that lived on while no daemon ran, drop what nobody owns, start the pool.

        Args:
            records: `Sandbox.record` of each live container, by container id.
            netns_fd_of: opens the network namespace of a live container (`/proc/PID/ns/net`); the descriptor
                becomes ours.  None when the container is gone after all.
        Returns: the sandboxes, by container id.
        """
        found: dict[str, Sandbox] = {}
        for container_id, record in records.items():
            try:
                netns = await recovery.reopen_netns(record, netns_fd_of(container_id))
                if netns is None and record["has_netns"]:
                    continue
                live = await self._kernel.run(
                    recovery.rebuild, container_id, record, netns, self.registry, self._host
                )
                recovery.enter(live, self._ports)
                self._live[container_id] = live
                await self._serve_names(live)
                found[container_id] = live.sandbox
            except (OSError, KeyError, TypeError, ValueError, EngineError) as error:
                _log.error("cannot recover the network of container %s: %r", short_id(container_id), error)
        stray = await self._kernel.run(
            recovery.drop_leftovers,
            self._live.values(),
            self.registry,
            self._host,
            self._firewall,
            veth_prefix=self.stock.veth_prefix,
            group=self.stock.group,
        )
        if stray:
            self.stock.graveyard.notify()
        self.stock.start()
        return found

    async def _repair_firewall(self) -> None:
        await self._kernel.run(self._put_back)

    def _put_back(self) -> None:
        _log.warning("another program changed the firewall table %s; putting it back", self.table)
        self._firewall.open()
        rules = [rules for network in self.registry if (rules := network.rules()) is not None]
        self._firewall.restore(
            rules, [p for live in list(self._live.values()) for p in live.published_rules()]
        )
        self._firewall.let_through(self.registry.bridges())

    async def close(self) -> bool:
        """Stop.  Live containers keep everything they have; without any, nothing of the engine stays on the host.

        Returns: whether bridges and firewall table were removed.
        """
        await self._watch.stop()
        await self.stock.stop()
        self._dns.close()
        alone = not self._live
        if alone:
            await self._kernel.run(self._remove_all)
        for live in self._live.values():
            live.sandbox.close_hold_fds()
            if live.netns is not None:
                live.netns.close()
        self._live.clear()
        await self.stock.close()
        self._kernel.close()
        self._firewall.close()
        self._host.close()
        return alone

    def _remove_all(self) -> None:
        self._firewall.let_through(())
        self.registry.delete_bridges()
        self._firewall.delete()

    # Networks.

    def list_networks(self, filters: network_filters.Filters | None = None) -> list[dict[str, Any]]:
        """Return Docker's list of networks (the containers on them are not listed there)."""
        chosen = network_filters.select(self.registry.records(), filters or {}, self._in_use)
        return [plan.inspect_shape(record, {}) for record in chosen]

    def get(self, ref: str) -> NetworkRecord:
        """Return a network's record.

        Raises:
            NotFound: `network nope not found`.
        """
        return self.registry.find(ref).record

    def inspect(self, ref: str) -> dict[str, Any]:
        """Return Docker's inspection of a network, with the live containers on it."""
        network = self.registry.find(ref)
        containers = {cid: attachment.resource() for cid, attachment in network.attachments.items()}
        return plan.inspect_shape(network.record, containers)

    async def create(self, spec: NetworkSpec) -> NetworkRecord:
        """Create a network and return its record."""
        return (await self.registry.create(spec)).record

    async def remove(self, ref: str) -> NetworkRecord:
        """Remove a network; returns what it was, for the event."""
        return await self.registry.remove(ref)

    async def prune(self, filters: network_filters.Filters | None = None) -> list[NetworkRecord]:
        """Remove all networks without live containers; returns what they were."""
        removed: list[NetworkRecord] = []
        records = self.registry.records()
        for record in network_filters.select_prunable(records, filters or {}, self._in_use, now_ns()):
            try:
                removed.append(await self.registry.remove(record.id))
            except (Forbidden, NotFound):
                continue  # somebody was faster
        return removed

    def _in_use(self, record: NetworkRecord) -> bool:
        network = self.registry.by_id(record.id)
        return network is not None and bool(network.attachments)

    def check_endpoint(self, ref: str, spec: EndpointSpec) -> NetworkRecord:
        """Check a container's wish for a network without fulfilling it, as at `create` or before start."""
        record = self.registry.find(ref).record
        plan.check_endpoint(record, spec)
        return record

    # Sandboxes.

    async def allocate(
        self,
        container_id: str,
        endpoints: Sequence[EndpointSpec],
        ports: Sequence[PortSpec] = (),
        hostname: str = "",
        *,
        name: str = "",
        dns: Sequence[str] = (),
    ) -> Sandbox:
        """Give a starting container its network.

        Args:
            endpoints: in the order in which their interfaces shall be numbered.  One endpoint "host" means the
                host's own namespace, "none" or no endpoint at all a namespace with loopback only.
            ports: what to publish; nothing is published when all networks are internal.
            hostname: one more name on user-defined networks.
            name: the container's name, its first name on user-defined networks.
            dns: the container's own upstream name servers.
        Returns: the sandbox; the caller keeps `record` with the container.
        Raises:
            NotFound, InvalidParameter, Forbidden, System: in Docker's words; nothing is left behind.
        """
        if container_id in self._live:
            await self.release(container_id)
        live = Live(
            container_id=container_id,
            name=name or short_id(container_id),
            hostname=hostname,
            dns=tuple(dns),
            sandbox=Sandbox(sandbox_id=new_id(), netns_fd=None),
            port_specs=tuple(ports),
        )
        try:
            await self._make(live, endpoints)
        except OSError as error:
            # A bridge that somebody deleted is made again, once; then the container gets what it asked for.
            if not await self._heal():
                raise System(f"{SETUP_FAILED}: {error}") from error
            try:
                await self._make(live, endpoints)
            except OSError as again:
                raise System(f"{SETUP_FAILED}: {again}") from again
        self._live[container_id] = live
        live.update_sandbox()
        return live.sandbox

    async def _make(self, live: Live, endpoints: Sequence[EndpointSpec]) -> None:
        try:
            self._reserve(live, endpoints)
            await self._build(live)
            await self._serve_names(live)
        except BaseException:
            await self._undo(live)
            raise

    async def _heal(self) -> bool:
        """Put back bridges that are gone; returns whether there were any."""
        healed = await self.registry.heal()
        if healed:
            _log.warning("bridges had been deleted and are back: %s", ", ".join(healed))
            await self.stock.discard()
        return bool(healed)

    def _reserve(self, live: Live, endpoints: Iterable[EndpointSpec]) -> None:
        """Take addresses and host ports; no kernel object is made yet but the bound sockets."""
        for spec in endpoints:
            self._attach(live, self.registry.find(spec.network), spec)
        gateway = live.choose_gateway()
        live.gateway_id = gateway.network.record.id if gateway else ""
        if gateway is not None:
            self._publish(live, gateway)

    def _attach(self, live: Live, network: Network, spec: EndpointSpec) -> Attachment:
        record = network.record
        if record.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        plan.check_endpoint(record, spec)
        info = EndpointInfo(
            network_id=record.id,
            network_name=record.name,
            endpoint_id=new_id(),
            aliases=list(spec.aliases),
            links=list(spec.links),
            ipam_config=spec.ipam_config,
            driver_opts=dict(spec.driver_opts),
            gw_priority=spec.gw_priority,
        )
        attachment = Attachment(
            network=network,
            info=info,
            container_id=live.container_id,
            container_name=live.name,
            wanted_mac=sandbox.wanted_mac(spec.mac_address),
        )
        if network.is_user_defined:
            info.dns_names = dns_names(live, spec.aliases)
        if network.addresses is not None:
            self._give_address(attachment, spec, live)
        live.attachments[record.id] = attachment
        network.attachments[live.container_id] = attachment
        network.changed()
        return attachment

    def _give_address(self, attachment: Attachment, spec: EndpointSpec, live: Live) -> None:
        network, info = attachment.network, attachment.info
        assert network.addresses is not None, "the caller has looked"
        try:
            address = network.addresses.request(spec.ipv4_address or None)
        except Unavailable:
            name, number = network.record.name, network.record.id
            raise System(
                f"{SETUP_FAILED}: no available IPv4 addresses on this network's address pools: {name} ({number})"
            ) from None
        except EngineError as error:
            raise type(error)(f"{SETUP_FAILED}: {error}") from None
        info.ip_address = str(address)
        info.prefix_length = network.prefix_length
        info.gateway = "" if network.record.internal else network.record.gateway
        attachment.announce = info.ip_address in network.given
        network.given.add(info.ip_address)
        prefix = network.config.interface_prefix if network.config else "eth"
        info.interface = spec.driver_opts.get(plan.ENDPOINT_IFNAME) or live.next_interface(prefix)

    def _publish(self, live: Live, gateway: Attachment) -> None:
        config = gateway.network.config
        if config is None or not live.port_specs:
            return
        try:
            live.bindings = self._ports.allocate(
                live.port_specs, gateway.info.ip_address, default_ip=config.host_binding
            )
        except PortTaken as error:
            raise self._port_error(live, gateway, error) from None

    def _port_error(self, live: Live, gateway: Attachment, error: PortTaken) -> System:
        return System(
            f"{SETUP_FAILED}: driver failed programming external connectivity on endpoint {live.name} "
            f"({gateway.info.endpoint_id}): {error}"
        )

    async def _build(self, live: Live) -> None:
        """Make the kernel's side of a reserved sandbox."""
        first = next(iter(live.attachments.values()), None)
        if first is not None and first.network.record.driver == "host":
            return
        plug_first = False
        if first is None or first.network.config is None or first.info.interface != INNER_NAME:
            live.netns = await self.stock.bare()
        else:
            is_default = first.network is self.registry.default_bridge
            prepared = await (self.stock.take_default() if is_default else self.stock.take_user())
            first.veth, live.netns, live.names = prepared.veth, prepared.netns, prepared.names
            plug_first = not is_default
        live.sandbox.netns_fd = live.netns.fd
        try:
            await self._kernel.run(self._realise, live, first if plug_first else None)
        except PortTaken as error:
            assert first is not None, "ports need an endpoint"
            raise self._port_error(live, first, error) from None

    def _realise(self, live: Live, to_plug: Attachment | None) -> None:
        """Finish a sandbox in the kernel thread: interfaces, addresses, routes, ports."""
        netns = live.netns
        assert netns is not None, "the host's namespace is not ours to configure"
        for attachment in live.attachments.values():
            if attachment.network.addresses is None:
                continue
            if attachment.veth is None:
                sandbox.attach_link(self._host, netns, attachment, self.stock.new_veth_name())
            elif attachment is to_plug:
                sandbox.plug_in(self._host, netns, attachment)
            attachment.info.host_interface = attachment.veth.name if attachment.veth else ""
            attachment.info.mac_address = host_side.format_mac(attachment.veth.mac) if attachment.veth else ""
            is_gateway = attachment.network.record.id == live.gateway_id
            sandbox.give_address(self._host, netns, attachment, gateway=is_gateway)
        if live.bindings:
            self._open_ports(live)
            # The sockets are the sandbox's now, and through it the monitor's.
            for binding in live.bindings:
                if binding.socket is not None:
                    live.sandbox.hold_fds.append(binding.socket.detach())
                    binding.socket = None

    async def _serve_names(self, live: Live) -> None:
        """Start the embedded DNS of a container on a user-defined network."""
        if live.netns is not None and any(a.network.is_user_defined for a in live.attachments.values()):
            await self._dns.start(live)

    async def _undo(self, live: Live) -> None:
        """Take back a sandbox that did not come to be, or one that ended."""
        self._dns.stop(live.container_id)
        try:
            await self._kernel.run(sandbox.withdraw, self._host, self._firewall, live, self.stock.group)
        except OSError as error:
            _log.error("cannot withdraw the network of %s: %s", live.name, error)
        self._ports.release(live.bindings)
        live.bindings = []
        for attachment in live.attachments.values():
            network = attachment.network
            if network.attachments.get(live.container_id) is attachment:
                del network.attachments[live.container_id]
                network.changed()
            if network.addresses is not None and attachment.info.ip_address:
                network.addresses.release(attachment.info.ip_address)
        live.attachments.clear()
        live.sandbox.close_hold_fds()
        if live.netns is not None:
            if live.names is not None:
                live.names.close()
                live.names = None
            live.netns.close()
            live.netns = None
            self.stock.graveyard.notify()

    def prepare(self) -> None:
        """Make what the next containers will need, as a container has ended: now it holds up nobody."""
        self.stock.prepare()

    async def release(self, container_id: str) -> None:
        """End a container's network; one that has none is no error.

        When this returns, its ports and addresses are free and its interfaces reach nobody.  The kernel takes
        the links apart afterwards.
        """
        live = self._live.pop(container_id, None)
        if live is not None:
            await self._undo(live)

    def sandbox(self, container_id: str) -> Sandbox | None:
        """Return a live container's sandbox."""
        live = self._live.get(container_id)
        return live.sandbox if live else None

    def rename(self, container_id: str, name: str) -> Sandbox | None:
        """Let a live container answer to its new name; the sandbox's record has it, to be stored again."""
        live = self._live.get(container_id)
        if live is None:
            return None
        live.name = name
        for attachment in live.attachments.values():
            attachment.container_name = name
            if attachment.network.is_user_defined:
                attachment.info.dns_names = dns_names(live, attachment.info.aliases)
                attachment.network.changed()
        live.update_sandbox()
        return live.sandbox

    # Networks of a running container.

    async def connect(self, ref: str, container_id: str, spec: EndpointSpec) -> Sandbox:
        """Attach a running container to one more network.

        Raises:
            NotFound, Forbidden, InvalidParameter, System: in Docker's words.
        """
        network = self.registry.find(ref)
        live = self._require(container_id)
        if network.record.id in live.attachments:
            raise Forbidden(f"endpoint with name {live.name} already exists in network {network.record.name}")
        if live.netns is None:
            raise Forbidden(
                "container sharing network namespace with another container or host cannot be connected to any "
                "other network"
            )
        attachment = self._attach(live, network, spec)
        try:
            await self._kernel.run(self._connect_one, live, attachment)
            await self._move_gateway(live)
            await self._serve_names(live)
        except BaseException as error:
            await self._detach(live, attachment)
            if isinstance(error, OSError):
                raise System(f"{SETUP_FAILED}: {error}") from error
            raise
        live.update_sandbox()
        return live.sandbox

    def _connect_one(self, live: Live, attachment: Attachment) -> None:
        assert live.netns is not None, "checked by the caller"
        sandbox.attach_link(self._host, live.netns, attachment, self.stock.new_veth_name())
        sandbox.give_address(self._host, live.netns, attachment, gateway=False)

    async def disconnect(self, ref: str, container_id: str) -> Sandbox:
        """Detach a running container from a network.

        Raises:
            NotFound, Forbidden.
        """
        network = self.registry.find(ref)
        live = self._require(container_id)
        attachment = live.attachments.get(network.record.id)
        if attachment is None:
            raise Forbidden(f"container {container_id} is not connected to network {network.record.name}")
        await self._detach(live, attachment)
        await self._move_gateway(live)
        live.update_sandbox()
        return live.sandbox

    async def _detach(self, live: Live, attachment: Attachment) -> None:
        """Remove one interface of a running container; the container sees it vanish, as with Docker."""
        network = attachment.network
        live.attachments.pop(network.record.id, None)
        network.attachments.pop(live.container_id, None)
        network.changed()
        if attachment.veth is not None:
            await self.stock.in_slow_thread(lambda: self._delete_link(live, attachment))
        if network.addresses is not None and attachment.info.ip_address:
            network.addresses.release(attachment.info.ip_address)

    def _delete_link(self, live: Live, attachment: Attachment) -> None:
        veth = attachment.veth
        assert veth is not None and live.netns is not None, "checked by the caller"
        if veth.index:
            with rt.Route() as route:
                route.run(rt.del_link(veth.index), ignore=(errno.ENODEV,))
        else:
            live.netns.route.run(rt.del_link(veth.inner_index), ignore=(errno.ENODEV,))

    async def _move_gateway(self, live: Live) -> None:
        """Give the default route and the published ports to the endpoint that is the gateway now.

        Host ports stay the same: their sockets are in the monitor's hands.
        """
        chosen = live.choose_gateway()
        gateway_id = chosen.network.record.id if chosen else ""
        if gateway_id == live.gateway_id:
            return
        previous = live.attachments.get(live.gateway_id)
        live.gateway_id = gateway_id
        old_rules = live.port_rules()
        if chosen is not None and live.bindings:
            for binding in live.bindings:
                binding.rule = replace(binding.rule, address=chosen.info.ip_address)
        elif chosen is not None:
            self._publish(live, chosen)
        await self._kernel.run(self._move_gateway_links, live, chosen, previous, old_rules)

    def _move_gateway_links(
        self, live: Live, chosen: Attachment | None, previous: Attachment | None, old_rules: list[PortRule]
    ) -> None:
        assert live.netns is not None, "checked by the caller"
        self._firewall.remove_ports(old_rules)
        sandbox.set_default_route(live.netns, chosen, previous)
        if chosen is not None:
            self._open_ports(live)

    def _open_ports(self, live: Live) -> None:
        self._firewall.add_ports(live.port_rules())
        self._firewall.forget_flows(live.port_rules())
        self._ports.listen(live.bindings)

    def _require(self, container_id: str) -> Live:
        live = self._live.get(container_id)
        if live is None:
            raise NotFound(f"network sandbox for container {container_id} not found")
        return live


def dns_names(live: Live, aliases: Iterable[str]) -> list[str]:
    """Return the names a container answers to on a user-defined network, in moby's order, once each."""
    names = [live.name, *aliases, short_id(live.container_id), live.hostname]
    return [name for name in dict.fromkeys(names) if name]
