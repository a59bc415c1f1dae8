"""Restart, health, /etc files, the index: rules without clocks or processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from satsuma.base.errors import Conflict, InvalidParameter, NotFound, System
from satsuma.container.config import ContainerConfig
from satsuma.container.etcfiles import hosts_text, resolv_conf_text, split_extra_host
from satsuma.container.health import after_probe, pause_before_probe, probe_command
from satsuma.container.record import Health, ProbeResult, Record
from satsuma.container.registry import Registry
from satsuma.container.restart import next_pause, should_restart, should_start_at_boot
from satsuma.spec.docker import HealthConfig, HostConfig, RestartPolicy

NS = 10**9


@pytest.mark.parametrize(
    ("name", "count", "code", "restarts", "by_hand", "expected"),
    [
        ("no", 0, 1, 0, False, False),
        ("", 0, 1, 0, False, False),
        ("always", 0, 0, 9, False, True),
        ("always", 0, 0, 0, True, False),
        ("unless-stopped", 0, 0, 0, False, True),
        ("on-failure", 0, 0, 0, False, False),
        ("on-failure", 0, 1, 99, False, True),
        ("on-failure", 3, 1, 2, False, True),
        ("on-failure", 3, 1, 3, False, False),
    ],
)
def test_restart_policies(
    name: str, count: int, code: int, restarts: int, by_hand: bool, expected: bool
) -> None:
    policy = RestartPolicy(name=name, maximum_retry_count=count)
    assert should_restart(policy, exit_code=code, restart_count=restarts, stopped_by_hand=by_hand) is expected


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=20))
def test_the_pause_doubles_up_to_a_minute_and_forgets_after_a_good_run(runs: list[float]) -> None:
    pause = 0.0
    for ran_for in runs:
        following = next_pause(pause, ran_for)
        assert 0.1 <= following <= 60
        assert following == (0.1 if ran_for >= 10 or pause == 0 else min(pause * 2, 60))
        pause = following


def test_boot() -> None:
    def starts(name: str, code: int, *, by_hand: bool, most: int = 0) -> bool:
        policy = RestartPolicy(name=name, maximum_retry_count=most)
        return should_start_at_boot(policy, exit_code=code, restart_count=2, stopped_by_hand=by_hand)

    assert starts("always", 0, by_hand=True)
    assert starts("unless-stopped", 0, by_hand=False)
    assert not starts("unless-stopped", 137, by_hand=True)
    assert starts("on-failure", 137, by_hand=True)
    assert not starts("on-failure", 0, by_hand=False)
    assert not starts("on-failure", 137, by_hand=False, most=2)
    assert not starts("no", 1, by_hand=False)


def result(code: int, at: float) -> ProbeResult:
    return ProbeResult(start_ns=int(at * NS), end_ns=int(at * NS) + 1, exit_code=code, output="")


def test_health_needs_three_failures_in_a_row() -> None:
    check = HealthConfig(test=["CMD", "x"])
    health = Health()
    for code, status, streak in (
        (0, "healthy", 0),
        (1, "healthy", 1),
        (1, "healthy", 2),
        (1, "unhealthy", 3),
    ):
        health = after_probe(health, check, result(code, 50), started_ns=0)
        assert (health.status, health.failing_streak) == (status, streak)
    health = after_probe(health, check, result(0, 51), started_ns=0)
    assert (health.status, health.failing_streak) == ("healthy", 0)


def test_failures_in_the_start_period_do_not_count() -> None:
    check = HealthConfig(test=["CMD", "x"], start_period=10 * NS, retries=1)
    health = after_probe(Health(), check, result(1, 5), started_ns=0)
    assert (health.status, health.failing_streak) == ("starting", 0)
    assert after_probe(health, check, result(1, 11), started_ns=0).status == "unhealthy"
    assert pause_before_probe(check, health, 5.0) == 5.0
    assert pause_before_probe(check, health, 50.0) == 30.0


def test_five_results_are_kept() -> None:
    health = Health()
    for number in range(9):
        health = after_probe(health, HealthConfig(), result(0, number), started_ns=0)
    assert [item.start_ns // NS for item in health.log] == [4, 5, 6, 7, 8]


def test_probe_commands() -> None:
    def command(test: list[str], **more: Any) -> list[str] | None:
        return probe_command(ContainerConfig(healthcheck=HealthConfig(test=test), **more))

    assert command(["CMD", "a", "b"]) == ["a", "b"]
    assert command(["CMD-SHELL", "a | b"]) == ["/bin/sh", "-c", "a | b"]
    assert command(["CMD-SHELL", "x"], shell=["/bin/bash", "-c"]) == ["/bin/bash", "-c", "x"]
    assert command(["NONE"]) is None
    assert probe_command(ContainerConfig()) is None


def test_hosts() -> None:
    text = hosts_text(addresses=["10.0.0.2"], hostname="box", domainname="lan", extra=[("db", "10.0.0.9")])
    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    assert text.endswith("10.0.0.9\tdb\n10.0.0.2\tbox.lan box\n")
    assert split_extra_host("gw:host-gateway", "172.17.0.1") == ("gw", "172.17.0.1")
    assert split_extra_host("v6:[::1]", "") == ("v6", "::1")


def test_resolv_conf() -> None:
    host = "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch lan\noptions edns0\n"
    assert resolv_conf_text(host) == "nameserver 10.0.0.1\nsearch lan\noptions edns0\n"
    assert "127.0.0.53" in resolv_conf_text(host, keep_loopback=True)
    assert resolv_conf_text("nameserver 127.0.0.1\n") == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
    assert resolv_conf_text(host, nameservers=["1.1.1.1"], search=["."], options=["x"]) == (
        "nameserver 1.1.1.1\noptions x\n"
    )
    assert resolv_conf_text(host, embedded=True) == (
        "nameserver 127.0.0.11\nsearch lan\noptions edns0 ndots:0\n"
    )


@dataclass
class FakeRows:
    rows: dict[str, bytes]
    full: bool = False

    def _check(self) -> None:
        if self.full:
            raise System("database or disk is full")

    def insert(
        self, id: str, doc: bytes, *, name: str | None = None, created_ns: int = 0, durable: bool = True
    ) -> None:
        self._check()
        self.rows[id] = doc

    def update(self, id: str, doc: bytes, *, name: str | bool | None = False) -> None:
        self._check()
        self.rows[id] = doc

    def delete(self, id: str) -> bool:
        self._check()
        return self.rows.pop(id, None) is not None


def make(identifier: str, name: str) -> Record:
    return Record(
        id=identifier.ljust(64, "0"),
        name=name,
        created_ns=1,
        path="x",
        args=[],
        config=ContainerConfig(),
        host=HostConfig(),
    )


@pytest.fixture
def registry() -> Registry:
    found = Registry(FakeRows({}))
    for identifier, name in (("abc1", "one"), ("abc2", "two"), ("def", "abc")):
        found.save(make(identifier, name))
    return found


def test_ids_then_names_then_prefixes(registry: Registry) -> None:
    assert registry.find("abc").name == "abc"  # a name wins over a prefix
    assert registry.find("/one").name == "one"
    assert registry.find("abc1").name == "one"
    assert registry.find("abc1".ljust(64, "0")).name == "one"
    with pytest.raises(InvalidParameter, match="multiple IDs found with provided prefix: ab"):
        registry.find("ab")
    with pytest.raises(NotFound, match=r"^No such container: nope$"):
        registry.find("nope")
    with pytest.raises(InvalidParameter):
        registry.find("")


def test_names_are_reserved_at_once(registry: Registry) -> None:
    assert registry.reserve("new", "f" * 64) == "new"
    holder = "abc1".ljust(64, "0")
    with pytest.raises(Conflict) as caught:
        registry.reserve("one", "f" * 64)
    assert str(caught.value) == (
        f'Conflict. The container name "/one" is already in use by container "{holder}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    registry.release("new", "f" * 64)
    assert registry.reserve("new", "e" * 64) == "new"
    assert registry.reserve("", "d" * 64)


def test_rename_and_removal_free_the_name(registry: Registry) -> None:
    record = registry.find("one")
    registry.save(structs.replace(record, name="uno"))
    assert registry.find("uno").id == record.id
    with pytest.raises(NotFound):
        registry.find("one")
    registry.remove(record.id)
    with pytest.raises(NotFound):
        registry.find("uno")
    assert len(registry) == 2
    assert registry.matches("abc") == ["abc2".ljust(64, "0")]


def test_a_full_disk_loses_no_fact() -> None:
    rows = FakeRows({})
    registry = Registry(rows)
    record = make("a", "one")
    registry.save(record)
    rows.full = True
    with pytest.raises(System):
        registry.save(structs.replace(record, path="y"))
    assert registry.find("one").path == "x"
    registry.state_fact(structs.replace(record, restart_count=3))
    assert registry.find("one").restart_count == 3
    with pytest.raises(System):
        registry.remove(record.id)
    assert registry.find("one")
    rows.full = False
    registry.save(make("b", "two"))
    assert b'"restart_count":3' in rows.rows[record.id]
