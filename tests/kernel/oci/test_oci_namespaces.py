"""Namespaces of an OCI configuration: new, inherited, joined by path; users, clocks, network devices."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from oci_lab import Runtime

from satsuma.linux.cgroup import layout

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
LIST = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done"


def own() -> list[str]:
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS]


def of(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS]


def test_new_ones_are_new_and_the_others_inherited(box: Runtime) -> None:
    state = box.start()
    equal = [
        kind
        for kind, inside, outside in zip(KINDS, of(state["pid"]), own(), strict=True)
        if inside == outside
    ]
    assert equal == ["user"]


def test_without_any_namespace_everything_is_inherited(box: Runtime) -> None:
    box.config["linux"] = {"namespaces": []}
    box.config.pop("hostname")
    result = box.create()
    assert result.code == 0 and "ignoring all mounts" in result.err
    assert of(box.state()["pid"]) == own()
    box.ok("start", box.id)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda box: box.config["root"].update(readonly=True),
            "root.readonly needs a private mount namespace",
        ),
        (
            lambda box: box.linux.update(devices=[{"path": "/dev/x", "type": "p"}]),
            "linux.devices need a private mount namespace",
        ),
        (lambda box: box.linux.update(maskedPaths=["/x"]), "without a private MNT namespace"),
    ],
)
def test_what_needs_a_mount_namespace_is_refused_without(box: Runtime, change, text: str) -> None:  # type: ignore[no-untyped-def]
    box.config["linux"] = {"namespaces": [{"type": "pid"}]}
    box.config.pop("hostname")
    box.config["mounts"] = []
    change(box)
    assert text in box.refused()


def test_joined_by_path(box: Runtime, tmp_path: Path) -> None:
    first = box.start()
    (tmp_path / "second").mkdir()
    second = Runtime(tmp_path / "second", bundle=box.bundle)
    try:
        second.config.pop("hostname")
        for kind, name in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")):
            second.namespace(kind, f"/proc/{first['pid']}/ns/{name}")
        state = second.start()
        same = [k for k, a, b in zip(KINDS, of(state["pid"]), of(first["pid"]), strict=True) if a == b]
        assert same == ["ipc", "net", "pid", "user", "uts"]
    finally:
        second.close()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/nonexistent", "namespace path: lstat /nonexistent: no such file or directory"),
        ("/proc/self/ns/uts", "is not of type net"),
        ("relative", "must be absolute"),
        ("/etc/passwd", "unable to join net namespace /etc/passwd"),
    ],
)
def test_wrong_paths(box: Runtime, path: str, text: str) -> None:
    box.namespace("network", path)
    assert text in box.refused()


# --- users ---------------------------------------------------------------------------------------------------


def test_new_user_namespace(box: Runtime) -> None:
    box.user_namespace()
    box.process["user"] = {"uid": 1, "gid": 2, "additionalGids": [3]}
    box.sh("id; cat /proc/self/uid_map; stat -c %u:%g /dev/null /proc/self/fd/1")
    lines = box.output().splitlines()
    assert lines[0] == "uid=1 gid=2 groups=2,3" or lines[0].startswith("uid=1 gid=2 groups=3")
    assert lines[1].split() == ["0", "100000", "65536"]


def test_root_of_a_user_namespace_has_its_rights_inside(box: Runtime) -> None:
    box.user_namespace()
    caps = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_CHOWN"]
    box.process["capabilities"] = {name: caps for name in ("bounding", "effective", "permitted")}
    box.sh(
        "ip link set lo down && echo net; mount -t tmpfs x /data && echo mount; touch /data/x; chown 5 /data/x && echo own"
    )
    assert box.output().split() == ["net", "mount", "own"]


def test_unmapped_ids_are_refused(box: Runtime) -> None:
    box.user_namespace(size=10)
    box.process["user"] = {"uid": 20, "gid": 0}
    # In version 2 the user is looked up already when the cgroup is handed over.
    words = "user 20 of the container is not mapped" if layout().mode == "v2" else "unable to set user 20:0"
    assert words in box.refused()


def test_joined_user_namespace_owns_what_is_made_new(box: Runtime, tmp_path: Path) -> None:
    box.user_namespace(host=200000)
    first = box.start()
    (tmp_path / "second").mkdir()
    second = Runtime(tmp_path / "second", bundle=box.bundle)
    try:
        second.namespace("user", f"/proc/{first['pid']}/ns/user")
        second.process["capabilities"] = {
            n: ["CAP_NET_ADMIN"] for n in ("bounding", "effective", "permitted")
        }
        second.sh(
            "readlink /proc/self/ns/user; cat /proc/self/uid_map; echo $$; ip link set lo down && echo net"
        )
        out = second.output().split()
        assert out[0] == os.readlink(f"/proc/{first['pid']}/ns/user")
        assert out[1:] == ["0", "200000", "65536", "1", "net"]
        # The mappings may stand beside the path, if they are the right ones.
        second.linux["uidMappings"] = second.linux["gidMappings"] = [
            {"containerID": 0, "hostID": 200000, "size": 65536}
        ]
        assert second.output().split()[1:4] == ["0", "200000", "65536"]
        second.linux["uidMappings"] = [{"containerID": 0, "hostID": 1, "size": 5}]
        assert "are not those of the user namespace" in second.refused()
    finally:
        second.close()


def test_new_user_namespace_with_a_network_of_the_host(box: Runtime) -> None:
    box.user_namespace()
    box.namespace("network", "/proc/self/ns/net")
    box.config["mounts"] = [
        mount for mount in box.config["mounts"] if mount["type"] not in ("sysfs", "cgroup")
    ]
    box.sh("readlink /proc/self/ns/net; cat /proc/self/uid_map")
    assert box.output().split() == [os.readlink("/proc/self/ns/net"), "0", "100000", "65536"]


def test_new_user_namespace_cannot_see_the_processes_of_the_hosts_users(box: Runtime, tmp_path: Path) -> None:
    first = box.start()
    (tmp_path / "second").mkdir()
    second = Runtime(tmp_path / "second", bundle=box.bundle)
    try:
        second.user_namespace()
        second.namespace("pid", f"/proc/{first['pid']}/ns/pid")
        second.config["mounts"] = [
            m for m in second.config["mounts"] if m["type"] not in ("proc", "sysfs", "cgroup")
        ]
        second.config["linux"].pop("maskedPaths")
        second.config["linux"].pop("readonlyPaths")
        # Not ours to see: that namespace belongs to the host's users, so there is no procfs of it in here.
        assert "operation not permitted" in second.refused()
    finally:
        second.close()


# --- clocks ---------------------------------------------------------------------------------------------------


def test_clocks_of_a_time_namespace(box: Runtime) -> None:
    box.namespace("time")
    box.linux["timeOffsets"] = {"boottime": {"secs": 86400 * 365, "nanosecs": 0}, "monotonic": {"secs": 1000}}
    box.sh("cat /proc/uptime; cat /proc/self/timens_offsets; readlink /proc/self/ns/time")
    lines = box.output().splitlines()
    up = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(float(lines[0].split()[0]) - up - 86400 * 365) < 60
    assert {line.split()[0]: int(line.split()[1]) for line in lines[1:3]} == {
        "monotonic": 1000,
        "boottime": 86400 * 365,
    }
    assert lines[3] != os.readlink("/proc/self/ns/time")


def test_joined_time_namespace_also_for_exec(box: Runtime, tmp_path: Path) -> None:
    box.namespace("time")
    box.linux["timeOffsets"] = {"monotonic": {"secs": 5000}}
    first = box.start()
    name = os.readlink(f"/proc/{first['pid']}/ns/time")
    assert box.ok("exec", box.id, "readlink", "/proc/self/ns/time").strip() == name
    (tmp_path / "second").mkdir()
    second = Runtime(tmp_path / "second", bundle=box.bundle)
    try:
        second.namespace("time", f"/proc/{first['pid']}/ns/time")
        second.sh("readlink /proc/self/ns/time")
        assert second.output().strip() == name
    finally:
        second.close()


# --- network devices ------------------------------------------------------------------------------------------


@pytest.fixture
def device():  # type: ignore[no-untyped-def]
    name = f"std{os.getpid() % 100000}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    subprocess.run(["ip", "addr", "add", "198.51.100.7/28", "dev", name], check=True)
    subprocess.run(["ip", "-6", "addr", "add", "2001:db8::7/64", "dev", name, "nodad"], check=False)
    yield name
    subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)


def test_a_network_device_moves_with_its_addresses(box: Runtime, device: str) -> None:
    box.linux["netDevices"] = {device: {"name": "eth7"}}
    box.sh("ip addr show eth7; ip link show lo")
    out = box.output()
    assert "198.51.100.7/28" in out
    if Path("/proc/net/if_inet6").exists():
        assert "2001:db8::7/64" in out
    assert "UP" in out.split("eth7", 1)[1].split(">", 1)[0]
    # A device of software goes with its namespace.
    assert subprocess.run(["ip", "link", "show", device], capture_output=True, check=False).returncode


def test_a_network_device_keeps_its_name_or_takes_a_free_one(box: Runtime, device: str) -> None:
    box.linux["netDevices"] = {device: {"name": "eth%d"}}
    box.sh("ip link show eth0 >/dev/null && echo there")
    assert box.output() == "there\n"


def test_network_devices_that_cannot_move(box: Runtime, device: str) -> None:
    box.linux["netDevices"] = {"nosuchdevice0": {}}
    assert "unable to move network device nosuchdevice0" in box.refused()
    box.linux["netDevices"] = {device: {"name": "lo"}}
    assert "unable to move network device" in box.refused()
    assert subprocess.run(["ip", "link", "show", device], capture_output=True, check=False).returncode == 0
    box.linux["netDevices"] = {device: {}}
    box.without("network")
    assert "without a private NET namespace" in box.refused()


# --- names and sysctls ----------------------------------------------------------------------------------------


def test_names_and_sysctls(box: Runtime) -> None:
    box.config["domainname"] = "example.org"
    box.linux["sysctl"] = {
        "net.ipv4.ip_forward": "1",
        "net/ipv4/ip_default_ttl": "33",
        "kernel.msgmax": "9000",
    }
    box.sh(
        "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_default_ttl "
        "/proc/sys/kernel/msgmax"
    )
    assert box.output().split() == ["satsuma", "example.org", "1", "33", "9000"]


@pytest.mark.parametrize(
    ("sysctl", "text"),
    [
        ({"kernel.foo": "1"}, "is not in a separate kernel namespace"),
        ({"kernel.core_pattern": "|/x"}, "is not in a separate kernel namespace"),
        ({"net.ipv4.nope": "1"}, "open /proc/sys/net/ipv4/nope: no such file or directory"),
        ({"net.ipv4.ip_forward": "x"}, "write /proc/sys/net/ipv4/ip_forward: invalid argument"),
    ],
)
def test_sysctls_that_cannot_be_set(box: Runtime, sysctl: dict[str, str], text: str) -> None:
    box.linux["sysctl"] = sysctl
    assert text in box.refused()
