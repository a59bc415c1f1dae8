"""The engine: composition root of the daemon, and the use cases that join its services.

Owns configuration, events, the lives of containers from create to removal, supervision (restart, health), recovery
after a crash, and the facade that the edges call.  Must not know HTTP or field names of older API versions, and holds
no mechanism of its own: what is done to the kernel is in the rooms below.

    engine       opens and closes          core        services and shared state
    create start supervise remove          one use case each
    attach execs logs stats copying commit what clients do with containers
    containers images volumes networks system builds   the facade
    recover      after a restart           anatomy     the picture of a container
"""

from satsuma.engine.config import EngineConfig
from satsuma.engine.engine import Engine

__all__ = ["Engine", "EngineConfig"]
