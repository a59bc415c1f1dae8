"""Requests that cannot be, and what dockerd says about them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from satsuma.base.errors import EngineError, InvalidParameter, Unsupported
from satsuma.container.capabilities import DEFAULT_CAPABILITIES, effective_capabilities
from satsuma.container.resources import oci_resources, parse_cpu_list, update_resources
from satsuma.container.signals import parse_signal
from satsuma.container.validate import CREATE_FAILED, HostFacts, check_create, check_name, parse_security
from satsuma.spec.docker import (
    CreateRequest,
    DeviceRequest,
    HealthConfig,
    HostConfig,
    LogConfig,
    Mount,
    PortBinding,
    RestartPolicy,
    Ulimit,
    UpdateRequest,
)

FACTS = HostFacts(
    cpu_count=2,
    cgroup_version=1,
    cpus=frozenset({0, 1}),
    mems=frozenset({0}),
    cpus_text="0-1",
    mems_text="0",
)
MIB = 1 << 20


def check(**fields: Any) -> tuple[CreateRequest, list[str]]:
    config = {name: fields.pop(name) for name in list(fields) if name in CreateRequest.__struct_fields__}
    body = CreateRequest(**config, host_config=HostConfig(**fields))
    return check_create(body, FACTS, lambda path: path == "/exists")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory": 5 * MIB}, "Minimum memory limit allowed is 6MB"),
        (
            {"memory": 8 * MIB, "memory_swap": 7 * MIB},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"memory_swap": 8 * MIB},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            {"memory": 8 * MIB, "memory_reservation": 9 * MIB},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        ({"memory_swappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        (
            {"nano_cpus": 3 * 10**9},
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            {"nano_cpus": 10**9, "cpu_quota": 5000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            {"cpu_period": 1},
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ({"cpuset_cpus": "0-7"}, "Requested CPUs are not available - requested 0-7, available: 0-1"),
        ({"blkio_weight": 5}, None),
        ({"oom_score_adj": 2000}, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        ({"shm_size": -1}, "SHM size can not be less than 0"),
        ({"pid_mode": "x"}, "invalid PID mode: x"),
        ({"ipc_mode": "x"}, "invalid IPC mode: x"),
        ({"uts_mode": "x"}, "invalid UTS mode: x"),
        ({"cgroupns_mode": "x"}, "invalid cgroup namespace mode: x"),
        ({"isolation": "hyperv"}, "invalid isolation (hyperv): linux only supports 'default'"),
        ({"cap_add": ["nope"]}, 'invalid CapAdd: unknown capability: "CAP_NOPE"'),
        (
            {"restart_policy": RestartPolicy(name="sometimes")},
            "invalid restart policy: unknown policy 'sometimes'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            {"restart_policy": RestartPolicy(name="always", maximum_retry_count=3)},
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            {"auto_remove": True, "restart_policy": RestartPolicy(name="always")},
            "can't create 'AutoRemove' container with restart policy",
        ),
        ({"extra_hosts": ["name"]}, 'bad format for add-host: "name"'),
        ({"extra_hosts": ["name:x"]}, 'invalid IP address in add-host: "x"'),
        ({"port_bindings": {"x/tcp": None}}, 'invalid port specification: "x"'),
        (
            {"port_bindings": {"80/tcp": [PortBinding(host_port="y")]}},
            'invalid port specification: "y"',
        ),
        (
            {"network_mode": "container:x", "hostname": "h"},
            "conflicting options: hostname and the network mode",
        ),
        (
            {"network_mode": "container:"},
            "invalid network mode: invalid container format container:<name|id>",
        ),
        (
            {"network_mode": "container:x", "port_bindings": {"80/tcp": None}},
            "conflicting options: port publishing and the container type network mode",
        ),
        ({"uts_mode": "host", "hostname": "h"}, "conflicting options: hostname and the UTS mode"),
        ({"env": ["=x"]}, "invalid environment variable: =x"),
        ({"stop_signal": "SIGNOPE"}, "invalid signal: SIGNOPE"),
        (
            {"working_dir": "x"},
            "the working directory 'x' is invalid, it needs to be an absolute path",
        ),
        (
            {"healthcheck": HealthConfig(test=["CMD", "x"], interval=5)},
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            {"mounts": [Mount(type="bind", source="/not", target="/x")]},
            'invalid mount config for type "bind": bind source path does not exist: /not',
        ),
        ({"tmpfs": {"/": ""}}, "invalid specification: destination can't be '/'"),
        (
            {"sysctls": {"kernel.panic": "1"}},
            f'{CREATE_FAILED}sysctl "kernel.panic" is not in a separate kernel namespace',
        ),
        (
            {"device_requests": [DeviceRequest(driver="", capabilities=[["gpu"]])]},
            'could not select device driver "" with capabilities: [[gpu]]',
        ),
        ({"runtime": "kata"}, "unknown or invalid runtime name: kata"),
        (
            {"ulimits": [Ulimit(name="nofile", soft=10, hard=5)]},
            "ulimit soft limit must be less than or equal to hard limit: 10 > 5",
        ),
    ],
)
def test_refusals(fields: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert check(**fields)[1]
        return
    with pytest.raises(EngineError) as caught:
        check(**fields)
    assert str(caught.value) == words
    assert isinstance(caught.value, InvalidParameter)


@pytest.mark.parametrize("fields", [{"storage_opt": {"size": "1g"}}, {"cgroup": "container:x"}])
def test_what_has_no_mechanism_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        check(**fields)


def test_a_plain_request_passes_without_warnings() -> None:
    body, warnings = check(cmd=["true"], memory=64 * MIB, working_dir="/a/./b")
    assert warnings == []
    assert body.working_dir == "/a/b"


@pytest.mark.parametrize("name", ["web", "a1", "A.b-c_d", "/web"])
def test_good_names(name: str) -> None:
    assert check_name(name) == name.lstrip("/")


@pytest.mark.parametrize("name", ["", "a", "-a", "a b", "ä1", "//a", "a/b"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check_name(name)
    assert str(caught.value) == (
        f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )


def test_capability_sets() -> None:
    assert effective_capabilities(None, None, privileged=False) == list(DEFAULT_CAPABILITIES)
    assert "CAP_CHOWN" not in effective_capabilities(None, ["chown"], privileged=False)
    assert effective_capabilities(["NET_ADMIN"], ["all"], privileged=False) == ["CAP_NET_ADMIN"]
    everything = effective_capabilities(["ALL"], ["CAP_SYS_ADMIN"], privileged=False)
    assert "CAP_BPF" in everything and "CAP_SYS_ADMIN" not in everything
    assert effective_capabilities(None, None, privileged=True, available=["CAP_KILL"]) == ["CAP_KILL"]


def test_security_options() -> None:
    found = parse_security(
        ["seccomp=unconfined", "no-new-privileges:true", "label=disable", "systempaths=unconfined"],
        no_new_privileges=False,
    )
    assert found.seccomp_profile == "unconfined"
    assert found.no_new_privileges and found.label_disable and found.systempaths_unconfined
    for bad in ("nonsense", "x=y", "no-new-privileges=perhaps"):
        with pytest.raises(InvalidParameter, match="invalid --security-opt"):
            parse_security([bad], no_new_privileges=False)


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("WINCH", 28)],
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NOPE", "RTMIN+40", "-1"])
def test_bad_signals(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid signal"):
        parse_signal(text)


def test_resources_in_the_runtimes_words() -> None:
    assert oci_resources(HostConfig(memory=64 * MIB, memory_swap=128 * MIB, nano_cpus=5 * 10**8)) == {
        "memory": {"limit": 64 * MIB, "swap": 128 * MIB},
        "cpu": {"period": 100000, "quota": 50000},
    }
    assert oci_resources(HostConfig(pids_limit=0)) == {"pids": {"limit": -1}}
    assert oci_resources(HostConfig()) == {}


def test_update_keeps_what_it_does_not_mention() -> None:
    host = HostConfig(memory=64 * MIB, memory_swap=128 * MIB, cpu_shares=10)
    changed = update_resources(host, UpdateRequest(memory=32 * MIB))
    assert (changed.memory, changed.memory_swap, changed.cpu_shares) == (32 * MIB, 128 * MIB, 10)
    with pytest.raises(EngineError, match="Memory limit should be smaller than already set memoryswap limit"):
        update_resources(host, UpdateRequest(memory=256 * MIB))
    with pytest.raises(EngineError, match="NanoCPUs has already been set"):
        update_resources(structs.replace(host, nano_cpus=1), UpdateRequest(cpu_quota=2000))


def test_cpu_lists() -> None:
    assert parse_cpu_list("0-2,7") == {0, 1, 2, 7}
    assert parse_cpu_list("") == frozenset()
    for bad in ("x", "1-", "3-1", "0-99999"):
        with pytest.raises(ValueError, match="invalid"):
            parse_cpu_list(bad)


def test_log_config_is_left_to_the_log_drivers() -> None:
    body, _ = check(cmd=["x"], log_config=LogConfig(type="nope"))
    assert body.host_config.log_config.type == "nope"
