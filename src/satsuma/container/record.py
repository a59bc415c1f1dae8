"""What is stored about one container: its row in the database, as an immutable value.

The engine changes a container by replacing its record; the row is the JSON of the record.  Times are
nanoseconds since the epoch, 0 means never.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from satsuma.container.mounts import MountPoint
from satsuma.container.state import LIVE, UP, Status
from satsuma.spec.docker import ContainerConfig, HostConfig


class ProbeResult(Struct, frozen=True, kw_only=True):
    """One run of a health check."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str


class Health(Struct, frozen=True, kw_only=True):
    """Health of a container that has a check: starting, healthy or unhealthy."""

    status: str = "starting"
    failing_streak: int = 0
    log: list[ProbeResult] = []


class State(Struct, frozen=True, kw_only=True):
    """The part of a record that changes while the container lives."""

    status: Status = Status.CREATED
    pid: int = 0
    pid_start_time: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    health: Health | None = None
    paused_by_commit: bool = False
    """Frozen by the engine for the time of a commit, and not by anybody's wish."""

    @property
    def is_up(self) -> bool:
        """Docker's `Running`: an init exists, or a restart is pending."""
        return self.status in UP

    @property
    def is_live(self) -> bool:
        return self.status in LIVE


class NetworkState(Struct, frozen=True, kw_only=True):
    """What the network room allocated, and what the client asked of each network.

    Attributes:
        endpoints: EndpointSettings by network name, the API's JSON objects.
        ports: `{"80/tcp": [{"HostIp","HostPort"}]}`, None for a port that is only exposed.
        asked: EndpointSettings as the client gave them; what the next start allocates.
        sandbox: the network room's own account, given back to it when a daemon restarts.
    """

    sandbox_id: str = ""
    endpoints: dict[str, dict[str, Any]] = {}
    ports: dict[str, list[dict[str, str]] | None] = {}
    asked: dict[str, dict[str, Any]] = {}
    sandbox: dict[str, Any] = {}


class Security(Struct, frozen=True, kw_only=True):
    """`SecurityOpt` taken apart."""

    no_new_privileges: bool = False
    seccomp_profile: str = ""
    """"" = default, "unconfined", "builtin", or the profile's JSON text."""
    apparmor_profile: str = ""
    label_disable: bool = False
    systempaths_unconfined: bool = False
    writable_cgroups: bool | None = None


class Record(Struct, frozen=True, kw_only=True):
    """One container."""

    id: str
    name: str
    created_ns: int
    path: str
    args: list[str]
    config: ContainerConfig
    host: HostConfig
    image_id: str = ""
    chain: list[str] = []
    """Chain ids of the image's layers, bottom first, so that a container outlives its image's tags."""
    security: Security = Security()
    mounts: list[MountPoint] = []
    state: State = State()
    network: NetworkState = NetworkState()
    restart_count: int = 0
    stopped_by_hand: bool = False
    started_before: bool = False
    log_path: str = ""
    hidden: bool = field(default=False)
    """A build's own container: in no list, no event."""

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def display_name(self) -> str:
        """The name as the API shows it."""
        return "/" + self.name


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """Return the row of a record."""
    return _encoder.encode(record)


def decode(row: bytes) -> Record:
    """Return the record of a row.

    Raises:
        msgspec.ValidationError: the row is not one of ours.
    """
    return _decoder.decode(row)
