"""`events`: out-of-memory is noticed also where the group is gone before its counter could be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from satsuma.linux import inotify
from satsuma.runtime.events import Hunger


class Group:
    """A group of version 2 with one file; *gone* is when systemd has removed it."""

    is_v2 = True

    def __init__(self, directory: Path) -> None:
        self.events = directory / "memory.events"
        self.events.write_text("0")
        self.gone = False

    def watch_oom(self) -> int:
        fd = inotify.init()
        inotify.add_watch(fd, str(self.events), inotify.IN_MODIFY)
        return fd

    def oom_kills(self) -> int:
        return 0 if self.gone else int(self.events.read_text())

    def exists(self) -> bool:
        return not self.gone

    def report(self, count: int) -> None:
        # One write without truncation: one event, as of the kernel.
        with open(self.events, "r+b") as file:
            file.write(b"%d" % count)


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return Group(tmp_path)


@pytest.fixture
def hunger(group: Group) -> Iterator[Hunger]:
    made = Hunger(group)  # type: ignore[arg-type]
    yield made
    os.close(made.fd)


def test_each_growth_of_the_counter_is_told_once(group: Group, hunger: Hunger) -> None:
    assert not hunger.has_killed()
    group.report(1)
    assert hunger.has_killed() and not hunger.has_killed()
    group.report(3)
    assert hunger.has_killed() and not hunger.has_killed()
    group.gone = True
    assert not hunger.has_killed()


def test_a_limit_that_was_reached_without_a_victim_is_no_news(group: Group, hunger: Hunger) -> None:
    group.report(0)
    assert not hunger.has_killed() and not hunger.has_killed()
    group.gone = True
    assert not hunger.has_killed()


def test_a_group_that_went_with_its_counter(group: Group, hunger: Hunger) -> None:
    group.report(1)
    group.gone = True
    assert hunger.has_killed() and not hunger.has_killed()


def test_a_group_that_went_between_counter_and_news(group: Group, hunger: Hunger) -> None:
    group.report(0)
    assert not hunger.has_killed()
    group.gone = True
    assert hunger.has_killed() and not hunger.has_killed()
