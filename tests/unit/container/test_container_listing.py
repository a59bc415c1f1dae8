"""What `ps` shows and selects, and what `inspect` says."""

from __future__ import annotations

import time
from typing import Any

import pytest
from msgspec import structs

from satsuma.base.errors import InvalidParameter
from satsuma.container.config import ContainerConfig
from satsuma.container.inspect import config_json, host_config_json, inspect_json
from satsuma.container.listing import (
    Selection,
    check_ps_filters,
    command_text,
    select,
    status_text,
    summaries,
)
from satsuma.container.mounts import parse_bind
from satsuma.container.record import Health, NetworkState, Record, State, decode, encode
from satsuma.container.state import Status
from satsuma.spec.docker import HostConfig, Ulimit

NS = 10**9
NOW = 1_000_000 * NS


def record(number: int = 1, **fields: Any) -> Record:
    base = Record(
        id=f"{number:064x}",
        name=f"web{number}",
        created_ns=NOW - 100 * NS + number,
        path="sh",
        args=["-c", "echo a b"],
        config=ContainerConfig(image="busybox", labels={"tier": "front"}),
        host=HostConfig(network_mode="bridge"),
        image_id="sha256:" + "1" * 64,
        state=State(status=Status.RUNNING, started_ns=NOW - 3 * NS, pid=7),
        network=NetworkState(
            endpoints={"bridge": {"NetworkID": "abc", "IPAddress": "172.17.0.2", "Aliases": ["x"]}},
            ports={"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": None},
        ),
        mounts=[structs.replace(parse_bind("data:/d"), source="/v/data", driver="local", mode="z")],
    )
    return structs.replace(base, **fields)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(status=Status.RUNNING, started_ns=NOW - 3 * NS), "Up 3 seconds"),
        (
            State(status=Status.RUNNING, started_ns=NOW - 3 * NS, health=Health()),
            "Up 3 seconds (health: starting)",
        ),
        (
            State(status=Status.RUNNING, started_ns=NOW - 3 * NS, health=Health(status="healthy")),
            "Up 3 seconds (healthy)",
        ),
        (State(status=Status.PAUSED, started_ns=NOW - 60 * NS), "Up About a minute (Paused)"),
        (
            State(status=Status.EXITED, started_ns=1, finished_ns=NOW - 7200 * NS, exit_code=137),
            "Exited (137) 2 hours ago",
        ),
        (
            State(status=Status.RESTARTING, finished_ns=NOW - 5 * NS, exit_code=1),
            "Restarting (1) 5 seconds ago",
        ),
        (State(status=Status.REMOVING), "Removal In Progress"),
        (State(status=Status.DEAD), "Dead"),
    ],
)
def test_status_texts(state: State, text: str) -> None:
    assert status_text(state, NOW) == text


def test_a_record_survives_the_database() -> None:
    original = record(state=State(status=Status.RUNNING, health=Health(status="healthy")))
    assert decode(encode(original)) == original


def test_the_command_quotes_what_has_a_space() -> None:
    assert command_text(record()) == "sh -c 'echo a b'"


def test_a_summary_has_dockers_shape() -> None:
    (found,) = summaries([record()], lambda item: item.config.image)
    assert found["Names"] == ["/web1"]
    assert found["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]
    assert found["NetworkSettings"]["Networks"]["bridge"]["Aliases"] is None
    assert found["Mounts"] == [
        {
            "Type": "volume",
            "Name": "data",
            "Source": "/v/data",
            "Destination": "/d",
            "Driver": "local",
            "Mode": "z",
            "RW": True,
            "Propagation": "",
        }
    ]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [2, 1]),
        ({"status": ["exited"]}, [3]),
        ({"exited": ["5"], "status": ["exited"]}, [3]),
        ({"exited": ["0"], "status": ["exited"]}, []),
        ({"name": ["web1"]}, [1]),
        ({"name": ["^/web2$"]}, [2]),
        ({"label": ["tier"]}, [2, 1]),
        ({"label": ["tier=back"]}, []),
        ({"publish": ["8080"]}, [2, 1]),
        ({"publish": ["80"]}, []),
        ({"expose": ["443-444/tcp"]}, [2, 1]),
        ({"volume": ["data"]}, [2, 1]),
        ({"volume": ["/nope"]}, []),
        ({"network": ["ab"]}, [2, 1]),
        ({"network": ["bridge"]}, [2, 1]),
        ({"health": ["none"]}, [2, 1]),
        ({"is-task": ["true"]}, []),
    ],
)
def test_filters(filters: dict[str, list[str]], expected: list[int]) -> None:
    exited = State(status=Status.EXITED, started_ns=1, finished_ns=2, exit_code=5)
    records = [record(1), record(2), record(3, state=exited)]
    check_ps_filters(filters)
    chosen = select(
        records,
        Selection(filters, ids=None, images=None, show_all=False),
        before=None,
        since=None,
        limit=0,
    )
    assert [int(item.id, 16) for item in chosen] == expected


def test_before_since_and_limit() -> None:
    records = [record(n) for n in range(1, 6)]
    everything = Selection({}, ids=None, images=None, show_all=True)

    def numbers(**more: Any) -> list[int]:
        chosen = select(records, everything, **({"before": None, "since": None, "limit": 0} | more))
        return [int(item.id, 16) for item in chosen]

    assert numbers(before=records[2]) == [2, 1]
    assert numbers(since=records[2]) == [5, 4]
    assert numbers(limit=2) == [5, 4]
    assert numbers(limit=-1) == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "filters",
    [{"nope": ["1"]}, {"exited": ["x"]}, {"status": ["x"]}, {"health": ["x"]}, {"is-task": ["maybe"]}],
)
def test_bad_filters(filters: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidParameter, match="invalid filter"):
        check_ps_filters(filters)


def test_a_thousand_containers_are_listed_in_time() -> None:
    records = [record(n) for n in range(1, 1001)]
    everything = Selection({}, ids=None, images=None, show_all=True)
    best = min(_seconds(records, everything) for _ in range(3))
    # The promise is 10 ms on a quiet machine; a busy one gets slack.
    assert best < 0.1


def _seconds(records: list[Record], everything: Selection) -> float:
    start = time.perf_counter()
    chosen = select(records, everything, before=None, since=None, limit=0)
    summaries(chosen, lambda item: item.config.image)
    return time.perf_counter() - start


def test_inspect_has_nulls_and_lists_where_docker_has_them() -> None:
    host = host_config_json(HostConfig())
    assert host["CapAdd"] is None and host["VolumesFrom"] is None and host["Links"] is None
    for name in ("Dns", "Devices", "Ulimits", "BlkioDeviceReadBps", "PortBindings"):
        assert host[name] is None
    sent = host_config_json(HostConfig(dns=[], devices=[], ulimits=[], port_bindings={}, links=[]))
    assert sent["Dns"] == sent["Devices"] == sent["Ulimits"] == []
    assert sent["PortBindings"] == {} and sent["Links"] is None
    added = host_config_json(HostConfig(), [Ulimit(name="nofile", soft=1, hard=2)])
    assert added["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    for absent in ("Tmpfs", "Sysctls", "Mounts", "StorageOpt", "Init", "Runtime", "KernelMemory"):
        assert absent not in host
    config = config_json(ContainerConfig(cmd="x"))
    assert config["Cmd"] == ["x"] and config["Volumes"] is None and config["Labels"] == {}
    for absent in ("ExposedPorts", "StopSignal", "Shell", "Healthcheck", "StopTimeout"):
        assert absent not in config
    whole = inspect_json(record(), directory="/c", graph={}, exec_ids=[])
    assert whole["ExecIDs"] is None
    assert whole["NetworkSettings"]["IPAddress"] == "172.17.0.2"
    assert "Health" not in whole["State"]
