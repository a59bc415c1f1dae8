"""Containers as values: what a client asks for, what is stored, what is shown, what the runtime is told.

Owns the record and its state machine, the merge of request and image, validation, mount points, health and restart
arithmetic, the shapes of list and inspect, and the translation to an OCI configuration.  Must not know images,
volumes, networks as services, nor HTTP, nor processes: everything here is pure, the engine does the work.
"""

from satsuma.container.config import as_list, command_line, lay_over, merge_config, process_env, replace_env
from satsuma.container.record import Health, NetworkState, ProbeResult, Record, Security, State
from satsuma.container.registry import Registry
from satsuma.container.signals import parse_signal
from satsuma.container.state import Event, Status, next_status
from satsuma.container.validate import HostFacts

__all__ = [
    "Event",
    "Health",
    "HostFacts",
    "NetworkState",
    "ProbeResult",
    "Record",
    "Registry",
    "Security",
    "State",
    "Status",
    "as_list",
    "command_line",
    "lay_over",
    "merge_config",
    "next_status",
    "parse_signal",
    "process_env",
    "replace_env",
]
