"""The face of networks towards the API.

Source: moby daemon/network.go, daemon/container_operations.go of 28.5.2.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from satsuma.base.errors import EngineError, Forbidden, InvalidParameter
from satsuma.container import Record
from satsuma.engine import endpoints
from satsuma.engine.core import Core
from satsuma.engine.etc import update_hosts
from satsuma.engine.events import Filters
from satsuma.network import IpamConfig, NetworkRecord, NetworkSpec
from satsuma.spec.docker import EndpointSettings, NetworkCreateRequest

Json = dict[str, Any]


class Networks:
    """Operations on networks."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def _event(self, action: str, network: NetworkRecord, **more: str) -> None:
        self._core.bus.publish(
            "network", action, network.id, {"name": network.name, "type": network.driver} | more
        )

    async def list(self, filters: Filters) -> list[Json]:
        return self._core.networks.list_networks(filters)

    async def inspect(self, ref: str, *, verbose: bool = False, scope: str = "") -> Json:
        return self._core.networks.inspect(ref)

    async def create(self, body: NetworkCreateRequest) -> Json:
        """Make a network; returns `{"Id", "Warning"}`."""
        ipam = body.ipam
        spec = NetworkSpec(
            name=body.name,
            driver=body.driver,
            scope=body.scope,
            internal=body.internal,
            attachable=body.attachable,
            ingress=body.ingress,
            config_only=body.config_only,
            config_from=str((body.config_from or {}).get("Network", "")),
            enable_ipv4=body.enable_ipv4,
            enable_ipv6=body.enable_ipv6,
            ipam_driver=ipam.driver if ipam else "",
            ipam_options=ipam.options if ipam else None,
            ipam_config=tuple(
                IpamConfig(
                    subnet=pool.subnet,
                    ip_range=pool.ip_range,
                    gateway=pool.gateway,
                    aux_addresses=pool.auxiliary_addresses or {},
                )
                for pool in (ipam.config if ipam else None) or ()
            ),
            options=body.options or {},
            labels=body.labels or {},
        )
        record = await self._core.networks.create(spec)
        self._event("create", record)
        return {"Id": record.id, "Warning": ""}

    async def remove(self, ref: str) -> None:
        self._event("destroy", await self._core.networks.remove(ref))

    async def prune(self, filters: Filters) -> Json:
        """Remove the networks that no running container is on."""
        removed = await self._core.networks.prune(filters)
        for record in removed:
            self._event("destroy", record)
        self._core.bus.publish("network", "prune", "", {"reclaimed": "0"})
        return {"NetworksDeleted": [record.name for record in removed] or None}

    async def connect(self, ref: str, container: str, endpoint: EndpointSettings | None) -> None:
        """Connect a container, at once when it runs, else with its next start."""
        core = self._core
        record = core.registry.find(container)
        network = core.networks.get(ref)
        settings = endpoint or EndpointSettings()
        self._check_connect(record, network)
        endpoints.check_settings(network.name, settings)
        asked = endpoints.settings_json(settings)
        async with core.locks.hold(record.id):
            record = core.current(record)
            if network.name in record.network.asked and record.state.is_live:
                raise Forbidden(f"endpoint with name {record.name} already exists in network {network.name}")
            state = structs.replace(record.network, asked=record.network.asked | {network.name: asked})
            if record.state.is_live:
                sandbox = await core.networks.connect(
                    network.id, record.id, endpoints.endpoint_spec(network.name, asked)
                )
                sandbox.close_hold_fds()
                record = structs.replace(record, network=state)
                record = structs.replace(record, network=endpoints.live_state(record, sandbox))
                self._rewrite_hosts(record)
            else:
                state = structs.replace(state, endpoints=state.endpoints | {network.name: asked})
                record = structs.replace(record, network=state)
            core.save(record)
        if record.state.is_live:
            self._event("connect", network, container=record.id)

    def _check_connect(self, record: Record, network: NetworkRecord) -> None:
        mode = record.host.network_mode
        if mode == "host" or mode.startswith("container:"):
            raise InvalidParameter(
                "container sharing network namespace with another container or host cannot be connected to "
                "any other network"
            )
        if network.name == "host":
            raise InvalidParameter(
                "cannot connect container to host network - container must be created in host network mode"
            )
        if network.name == "none" or (mode == "none" and "none" in record.network.asked):
            raise InvalidParameter(
                "container cannot be connected to multiple networks with one of the networks in private "
                "(none) mode"
            )

    def _rewrite_hosts(self, record: Record) -> None:
        addresses = [str(point.get("IPAddress", "")) for point in record.network.endpoints.values()]
        update_hosts(self._core, record, addresses)

    async def disconnect(self, ref: str, container: str, force: bool) -> None:
        """Disconnect a container."""
        core = self._core
        record = core.registry.find(container)
        network = core.networks.get(ref)
        if record.host.network_mode == "host" and network.name == "host":
            raise InvalidParameter(
                "cannot disconnect container from host network - container was created in host network mode"
            )
        async with core.locks.hold(record.id):
            record = core.current(record)
            if network.name not in record.network.asked:
                raise Forbidden(f"container {record.id} is not connected to network {network.name}")
            asked = {name: value for name, value in record.network.asked.items() if name != network.name}
            state = structs.replace(
                record.network,
                asked=asked,
                endpoints={n: v for n, v in record.network.endpoints.items() if n != network.name},
            )
            record = structs.replace(record, network=state)
            live = record.state.is_live
            if live:
                try:
                    sandbox = await core.networks.disconnect(network.id, record.id)
                except EngineError:
                    if not force:
                        raise
                else:
                    sandbox.close_hold_fds()
                    record = structs.replace(record, network=endpoints.live_state(record, sandbox))
                self._rewrite_hosts(record)
            core.save(record)
        if live:
            self._event("disconnect", network, container=record.id)
