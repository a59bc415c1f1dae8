"""The engine: opens every service of one daemon, in order, and closes them in reverse."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from dataclasses import replace

from satsuma.base.aio import blocking
from satsuma.base.clock import now_ns
from satsuma.engine import health, recover, supervise
from satsuma.engine.builds import Builds
from satsuma.engine.config import EngineConfig
from satsuma.engine.containers import Containers
from satsuma.engine.core import Core
from satsuma.engine.hostfacts import read_facts
from satsuma.engine.images import Images
from satsuma.engine.networks import Networks
from satsuma.engine.system import System
from satsuma.engine.volumes import Volumes
from satsuma.image import Image, ImageService
from satsuma.linux import caps
from satsuma.monitor.client import Launcher
from satsuma.network import DEFAULT_ADDRESS_POOLS, NetworkOptions, NetworkService
from satsuma.store import Store
from satsuma.volume import VolumeService

_log = logging.getLogger(__name__)

CLOSE_LIMIT = 0.5
"""Seconds that background work gets when the engine closes; SIGTERM has to end the daemon within two."""


class Engine:
    """A running engine; `open` makes one, `close` ends it and leaves the containers running."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.containers = Containers(core)
        self.images = Images(core)
        self.volumes = Volumes(core)
        self.networks = Networks(core)
        self.system = System(core, self.containers, self.images)
        self.builder = Builds(core)

    @property
    def config(self) -> EngineConfig:
        return self._core.config

    @classmethod
    async def open(cls, config: EngineConfig) -> Engine:
        """Open the data root, start the launcher, set up networks, take up running containers.

        Raises:
            Unavailable: another engine has the data root; System, DataLoss: it cannot be used.
        """
        os.makedirs(config.exec_root, mode=0o711, exist_ok=True)
        loop = asyncio.get_running_loop()
        store = await blocking(Store.open, config.data_root)
        core: Core | None = None

        def tell(action: str, image: Image, name: str) -> None:
            """Publish an image's event; comes from any thread."""
            loop.call_soon_threadsafe(_image_event, core, action, image, name)

        try:
            launcher = await Launcher.start(config.exec_root, cgroup_driver=config.cgroup_driver)
            images = await blocking(ImageService, store, tell)
            volumes = VolumeService(store.db.collection("volumes"), f"{config.data_root}/volumes")
            await blocking(volumes.open, store.db.collection("volumes").all())
            core = Core(config, store=store, images=images, volumes=volumes, facts=read_facts())
            core.launcher = launcher
            core.started_ns = now_ns()
            core.engine_id = await blocking(_engine_id, store)
            core.available_caps = tuple(caps.names(caps.bounding()))
            core.registry.load(store.db.collection("containers").all(), _report_row)
            core.networks = NetworkService(
                store.db.collection("networks"),
                options=network_options(config),
            )
            await core.networks.open()
            await recover.recover(core)
        except BaseException:
            await blocking(store.close)
            raise
        return cls(core)

    async def reload(self, fresh: EngineConfig) -> None:
        """Take what may change while the daemon runs: labels, debug, live-restore, timeouts."""
        core = self._core
        core.config = replace(
            core.config,
            labels=fresh.labels,
            debug=fresh.debug,
            live_restore=fresh.live_restore,
            shutdown_timeout=fresh.shutdown_timeout,
            default_stop_timeout=fresh.default_stop_timeout,
        )
        core.bus.publish("daemon", "reload", core.engine_id, {"name": os.uname().nodename})

    @property
    def close_limit(self) -> float:
        """Seconds that `close` may take for stopping containers."""
        config = self._core.config
        return 0.0 if config.live_restore else float(config.shutdown_timeout)

    async def close(self) -> None:
        """Stop; containers run on, unless `live_restore` is off."""
        core = self._core
        core.closing = True
        if not core.config.live_restore:
            await supervise.stop_all(core, float(core.config.shutdown_timeout))
        for actor in core.actors:
            health.end(actor)
            supervise.cancel_restart(actor)
            if actor.supervisor is not None:
                actor.supervisor.cancel()
            for monitor in (actor.monitor, actor.leaving):
                if monitor is not None:
                    monitor.close()
            actor.drop_pending()
        await core.drain(CLOSE_LIMIT)
        await core.networks.close()
        await core.launcher.close()
        await blocking(core.store.close)


def _image_event(core: Core | None, action: str, image: Image, name: str) -> None:
    if core is not None:
        core.bus.publish("image", action, image.id, image.labels | {"name": name or image.id})


def _report_row(container_id: str, error: Exception) -> None:
    _log.error("container %s cannot be read from the database: %s", container_id, error)


def _engine_id(store: Store) -> str:
    settings = store.db.collection("settings")
    row = settings.get("engine-id")
    if row is not None:
        return row.doc.decode()
    fresh = str(uuid.uuid4())
    settings.insert("engine-id", fresh.encode())
    return fresh


def network_options(config: EngineConfig) -> NetworkOptions:
    """Return what the daemon's flags mean for networks."""
    return NetworkOptions(
        exec_root=config.exec_root,
        bridge=config.bridge,
        bip=config.bip or None,
        mtu=config.mtu,
        icc=config.icc,
        default_ip=config.default_bind_ip,
        address_pools=config.default_address_pools or DEFAULT_ADDRESS_POOLS,
        dns=config.dns,
    )
