"""The state machine: total, and no way out of the end but the defined ones."""

from __future__ import annotations

import pytest

from satsuma.base.errors import EngineError
from satsuma.container.state import LIVE, TRANSITIONS, UP, Event, Status, next_status

ID = "a" * 64


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("event", Event)
def test_every_pair_gives_a_state_or_a_refusal(status: Status, event: Event) -> None:
    try:
        following = next_status(status, event, container_id=ID)
    except EngineError as error:
        assert (status, event) not in TRANSITIONS
        assert str(error)
    else:
        assert following is TRANSITIONS[status, event]


def test_every_state_can_be_left_and_reached() -> None:
    assert {status for status, _ in TRANSITIONS} == set(Status)
    assert set(TRANSITIONS.values()) == set(Status) - {Status.CREATED}


def test_live_states_have_an_exit_and_only_they() -> None:
    assert {status for status, event in TRANSITIONS if event is Event.EXIT} == LIVE
    assert LIVE < UP


def test_removal_never_starts_from_a_container_that_is_up() -> None:
    assert all((status, Event.REMOVE) not in TRANSITIONS for status in UP)


@pytest.mark.parametrize(
    ("status", "event", "words"),
    [
        (Status.RUNNING, Event.START, "container is already running"),
        (Status.PAUSED, Event.START, "cannot start a paused container, try unpause instead"),
        (Status.REMOVING, Event.START, "container is marked for removal and cannot be started"),
        (Status.EXITED, Event.PAUSE, f"container {ID} is not running"),
        (Status.PAUSED, Event.PAUSE, f"Container {ID} is already paused"),
        (Status.RUNNING, Event.UNPAUSE, f"Container {ID} is not paused"),
        (Status.REMOVING, Event.REMOVE, "removal of container web is already in progress"),
        (
            Status.RUNNING,
            Event.REMOVE,
            'cannot remove container "web": container is running: '
            "stop the container before removing or force remove",
        ),
        (
            Status.PAUSED,
            Event.REMOVE,
            'cannot remove container "web": container is paused and must be unpaused first',
        ),
    ],
)
def test_refusals_have_dockers_words(status: Status, event: Event, words: str) -> None:
    with pytest.raises(EngineError) as caught:
        next_status(status, event, container_id=ID, name="web")
    assert str(caught.value) == words
