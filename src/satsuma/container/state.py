"""The life of a container as a table: which event is possible in which state, and where it leads.

The states are Docker's public words.  Everything that changes a container's state asks `next_status` first, so
that an impossible change is refused in one place and in Docker's words.

Source: moby container/state.go, daemon/{start,pause,unpause,kill,delete}.go of 28.5.2.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from satsuma.base.errors import Conflict, NotModified, System


class Status(StrEnum):
    """`State.Status` of the API."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Event(StrEnum):
    """What can happen to a container."""

    START = "start"
    EXIT = "exit"
    RESTART = "restart"
    """The init has ended and the restart policy will start it again."""
    GIVE_UP = "give up"
    """The restart was called off, or the next start failed."""
    PAUSE = "pause"
    UNPAUSE = "unpause"
    REMOVE = "remove"
    REMOVE_FAILED = "remove failed"


TRANSITIONS = MappingProxyType(
    {
        (Status.CREATED, Event.START): Status.RUNNING,
        (Status.EXITED, Event.START): Status.RUNNING,
        (Status.RESTARTING, Event.START): Status.RUNNING,
        (Status.RUNNING, Event.EXIT): Status.EXITED,
        (Status.PAUSED, Event.EXIT): Status.EXITED,
        (Status.RUNNING, Event.RESTART): Status.RESTARTING,
        (Status.PAUSED, Event.RESTART): Status.RESTARTING,
        (Status.RESTARTING, Event.GIVE_UP): Status.EXITED,
        (Status.RUNNING, Event.PAUSE): Status.PAUSED,
        (Status.PAUSED, Event.UNPAUSE): Status.RUNNING,
        (Status.CREATED, Event.REMOVE): Status.REMOVING,
        (Status.EXITED, Event.REMOVE): Status.REMOVING,
        (Status.DEAD, Event.REMOVE): Status.REMOVING,
        (Status.REMOVING, Event.REMOVE_FAILED): Status.DEAD,
    }
)

UP = frozenset({Status.RUNNING, Status.PAUSED, Status.RESTARTING})
"""States in which Docker says `Running: true`; a container that waits for its restart counts too."""

LIVE = frozenset({Status.RUNNING, Status.PAUSED})
"""States in which an init process exists."""


def next_status(status: Status, event: Event, *, container_id: str, name: str = "") -> Status:
    """Return the state after *event*.

    Raises:
        NotModified: the container already is where the event leads (start of a running one).
        Conflict: the event is not possible now; the text is Docker's.
        System: unpause of a container that is not paused, which dockerd answers with 500.
    """
    following = TRANSITIONS.get((status, event))
    if following is not None:
        return following
    raise _refusal(status, event, container_id, name or container_id)


def _refusal(status: Status, event: Event, container_id: str, name: str) -> Exception:
    if event is Event.START:
        return _refuse_start(status)
    if event is Event.PAUSE:
        return _refuse_pause(status, container_id)
    if event is Event.UNPAUSE:
        return System(f"Container {container_id} is not paused")
    if event is Event.REMOVE:
        return _refuse_remove(status, name)
    return Conflict(f"cannot {event} container {container_id}: it is {status}")


def _refuse_start(status: Status) -> Exception:
    if status is Status.PAUSED:
        return Conflict("cannot start a paused container, try unpause instead")
    if status is Status.RUNNING:
        return NotModified("container is already running")
    return Conflict("container is marked for removal and cannot be started")


def _refuse_pause(status: Status, container_id: str) -> Exception:
    if status is Status.PAUSED:
        return Conflict(f"Container {container_id} is already paused")
    if status is Status.RESTARTING:
        return Conflict(f"Container {container_id} is restarting, wait until the container is running")
    return Conflict(f"container {container_id} is not running")


def _refuse_remove(status: Status, name: str) -> Exception:
    if status is Status.REMOVING:
        return Conflict(f"removal of container {name} is already in progress")
    if status is Status.PAUSED:
        return Conflict(f'cannot remove container "{name}": container is paused and must be unpaused first')
    return Conflict(
        f'cannot remove container "{name}": container is {status}: '
        "stop the container before removing or force remove"
    )
