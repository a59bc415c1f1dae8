"""What the builder asks of the engine: run one RUN step, fetch a missing image.

Values and protocols only.  The engine implements them; tests have fakes.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

from satsuma.build.options import Ulimit

__all__ = ["ImagePuller", "MountSpec", "RunStep", "StepOutput", "StepRunner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """A mount of one RUN.

    Attributes:
        type: `bind` (source is a host path that the builder owns) or `tmpfs`.
        size: bytes, 0 for no limit (tmpfs).
    """

    type: str
    target: str
    source: str = ""
    readonly: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """One RUN: a container that lives for one command.

    Attributes:
        id: 64 hex digits, the container's id; also the key of its prepared snapshot
            (`store.snapshots.active(id)`), which the builder made and removes.
        image_id: what the container stands on, empty for a stage from scratch.
        config: the container's config in Docker's JSON shape, with `Cmd`, `Env`, `User`, `WorkingDir`,
            `Entrypoint` cleared and the health check off.
        args, env, user, cwd: the same again, ready to use.
        network_mode: never empty; `default` has been resolved to `bridge`.
        resources: Docker's HostConfig names (`Memory`, `CpuShares`, …), only those that were asked for.
        extra_hosts: `name:address`.
    """

    id: str
    image_id: str
    config: dict[str, Any]
    args: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    cwd: str
    network_mode: str = "bridge"
    resources: dict[str, Any]
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    mounts: tuple[MountSpec, ...] = ()


class StepOutput(Protocol):
    """Where a step's output goes."""

    def __call__(self, stream: int, data: bytes) -> None:
        """Take *data* of *stream* (1 or 2); never blocks."""

    def drain(self) -> Awaitable[None]:
        """Wait while the client is too far behind; to be awaited between calls, else output piles up."""


class StepRunner(Protocol):
    """Runs RUN steps.  Several builds may run at once; one step at a time for each snapshot."""

    async def run(self, step: RunStep, output: StepOutput) -> int:
        """Run *step* to its end and return its exit code; all its output has been delivered then.

        Nothing runs any more when this returns, raises or is cancelled (cancellation kills it).

        Raises:
            EngineError: it could not be started, with Docker's words.
        """

    def keep(self, step: RunStep, code: int) -> None:
        """Make an ended step an ordinary stopped container; its snapshot is the container's from now on."""


class ImagePuller(Protocol):
    """Fetches images that are not here."""

    async def pull(self, reference: str, output: StepOutput) -> None:
        """Make *reference* exist locally.

        Raises:
            EngineError: with Docker's words (`pull access denied for x, …`).
        """
