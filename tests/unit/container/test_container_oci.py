"""A container as an OCI configuration."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from satsuma.base.errors import InvalidParameter
from satsuma.container.devices import Device
from satsuma.container.mounts import parse_bind
from satsuma.container.oci import Plan, parse_device_rule, plan_config, plan_seccomp
from satsuma.container.record import Record, Security
from satsuma.container.seccomp import resolve_profile
from satsuma.spec.docker import ContainerConfig, HostConfig, Ulimit

CAPS = ("CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN")


def record(*, config: dict[str, Any] | None = None, security: Security | None = None, **host: Any) -> Record:
    return Record(
        id="a" * 64,
        name="web",
        created_ns=1,
        path="sleep",
        args=["1"],
        config=ContainerConfig(hostname="box", **(config or {})),
        host=HostConfig(
            **({"shm_size": 64 << 20, "cgroupns_mode": "private", "network_mode": "bridge"} | host)
        ),
        security=security or Security(),
        mounts=[parse_bind("data:/x/y"), parse_bind("/host:/x:ro")],
    )


def plan(**more: Any) -> Plan:
    return Plan(
        cgroups_path="/docker/a",
        etc_files={"/etc/hosts": "/c/hosts"},
        available_caps=CAPS,
        sources={"/x/y": "/volumes/data/_data"},
        **more,
    )


def destinations(config: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in config["mounts"]]


def by_destination(config: dict[str, Any], destination: str) -> dict[str, Any]:
    return next(mount for mount in config["mounts"] if mount["destination"] == destination)


def test_defaults_are_dockers() -> None:
    config = plan_config(record(), plan())
    assert config["process"]["args"] == ["sleep", "1"]
    assert config["process"]["cwd"] == "/"
    assert config["hostname"] == "box"
    kinds = [item["type"] for item in config["linux"]["namespaces"]]
    assert kinds == ["mount", "network", "uts", "pid", "ipc", "cgroup"]
    assert "/proc/kcore" in config["linux"]["maskedPaths"]
    assert config["linux"]["readonlyPaths"][0] == "/proc/bus"
    assert config["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert config["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert config["process"]["capabilities"]["inheritable"] == []
    assert "ro" in by_destination(config, "/sys")["options"]


def test_user_mounts_come_by_depth_and_then_our_files() -> None:
    config = plan_config(record(), plan())
    order = destinations(config)
    assert order.index("/dev/shm") < order.index("/x") < order.index("/x/y") < order.index("/etc/hosts")
    assert by_destination(config, "/x")["options"] == ["rbind", "rro", "rprivate"]
    assert by_destination(config, "/x/y")["source"] == "/volumes/data/_data"


def test_a_mount_over_ours_replaces_it() -> None:
    base = record()
    changed = structs.replace(base, mounts=[parse_bind("/h:/etc/hosts"), parse_bind("/d:/dev")])
    order = destinations(plan_config(changed, plan()))
    assert order.count("/etc/hosts") == 1
    assert not [item for item in order if item.startswith("/dev/")]


def test_privileged_opens_everything_that_the_daemon_has() -> None:
    config = plan_config(
        record(privileged=True),
        plan(host_devices=lambda: [Device("/dev/kvm", "c", 10, 232, 0o666, 0, 0)]),
    )
    linux = config["linux"]
    assert config["process"]["capabilities"]["bounding"] == list(CAPS)
    assert "seccomp" not in linux
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert linux["devices"][0]["path"] == "/dev/kvm"
    assert "ro" not in by_destination(config, "/sys")["options"]
    assert "ro" not in by_destination(config, "/sys/fs/cgroup")["options"]


def test_shared_namespaces() -> None:
    config = plan_config(
        record(ipc_mode="host", uts_mode="host", network_mode="container:x", cgroupns_mode="host"),
        plan(namespaces={"ipc": "host", "uts": "host", "network": "/proc/7/ns/net"}),
    )
    assert config["linux"]["namespaces"] == [
        {"type": "mount"},
        {"type": "network", "path": "/proc/7/ns/net"},
        {"type": "pid"},
    ]
    assert "hostname" not in config
    assert config["linux"]["sysctl"] == {}
    assert by_destination(config, "/dev/shm")["source"] == "/dev/shm"


def test_no_ipc_means_no_shm() -> None:
    assert "/dev/shm" not in destinations(plan_config(record(ipc_mode="none"), plan()))


def test_a_read_only_root_makes_the_rest_read_only_but_dev() -> None:
    config = plan_config(record(readonly_rootfs=True, tmpfs={"/run": "size=1m"}), plan())
    assert config["root"]["readonly"]
    assert "ro" not in by_destination(config, "/dev/shm")["options"]
    assert "ro" not in by_destination(config, "/run")["options"]
    assert by_destination(config, "/run")["options"] == [
        "noexec",
        "nosuid",
        "nodev",
        "rprivate",
        "size=1m",
    ]


def test_ulimits_of_the_container_win() -> None:
    config = plan_config(
        record(ulimits=[Ulimit(name="nofile", soft=5, hard=-1)]),
        plan(default_ulimits=(Ulimit(name="nofile", soft=1, hard=1), Ulimit(name="core", soft=0, hard=0))),
    )
    assert {item["type"]: item["soft"] for item in config["process"]["rlimits"]} == {
        "RLIMIT_NOFILE": 5,
        "RLIMIT_CORE": 0,
    }
    assert config["process"]["rlimits"][0]["hard"] == 2**64 - 1


def test_device_rules() -> None:
    assert parse_device_rule("c 42:* rmw") == {
        "allow": True,
        "type": "c",
        "major": 42,
        "minor": -1,
        "access": "rmw",
    }
    with pytest.raises(InvalidParameter, match="invalid device cgroup rule format: 'x'"):
        parse_device_rule("x")


def test_seccomp_profiles() -> None:
    assert plan_seccomp("unconfined", [], privileged=False) is None
    assert plan_seccomp("", [], privileged=True) is None
    with pytest.raises(InvalidParameter, match="Decoding seccomp profile failed"):
        plan_seccomp("{", [], privileged=False)


def test_a_docker_profile_is_resolved_for_its_container() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"name": "s390", "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
        ],
    }
    found = resolve_profile(profile, ["CAP_SYS_ADMIN"], machine="x86_64", kernel="6.1.0")
    assert found is not None
    assert [rule["names"] for rule in found["syscalls"]] == [["read"], ["mount"], ["ptrace"]]
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
