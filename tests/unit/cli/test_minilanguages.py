"""The small languages inside flags: ports, volumes, mounts, networks, devices, files of variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.cli import createbody, devices, endpoints, envfiles, mounts, ports, values
from satsuma.cli.flags import Flags, Parser, read_table
from satsuma.cli.flagtable import FLAGS
from satsuma.wire.csvflags import CsvError, split_fields


def run_flags(*argv: str) -> Flags:
    return Parser(read_table(FLAGS["container run"]), stop_at_argument=True).parse([*argv, "image"])


# -- ports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("80", {"80/tcp": [("", "")]}),
        ("8080:80", {"80/tcp": [("", "8080")]}),
        (":80", {"80/tcp": [("", "")]}),
        ("127.0.0.1:8080:80/udp", {"80/udp": [("127.0.0.1", "8080")]}),
        ("127.0.0.1::80", {"80/tcp": [("127.0.0.1", "")]}),
        ("[::1]:8080:80", {"80/tcp": [("::1", "8080")]}),
        ("::1:8080:80", {"80/tcp": [("::1", "8080")]}),
        ("8000-8001:80-81", {"80/tcp": [("", "8000")], "81/tcp": [("", "8001")]}),
        ("8000-8005:80", {"80/tcp": [("", "8000-8005")]}),
        ("80-81", {"80/tcp": [("", "")], "81/tcp": [("", "")]}),
        ("target=80,published=8080,protocol=udp", {"80/udp": [("", "8080")]}),
        ("80/SCTP", {"80/sctp": [("", "")]}),
    ],
)
def test_publish(spec: str, expected: dict[str, list[tuple[str, str]]]) -> None:
    found = ports.parse_publish([spec])
    assert {
        port: [(b["HostIp"], b["HostPort"]) for b in bindings] for port, bindings in found.items()
    } == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no port specified: <empty>"),
        ("8080:", "no port specified: 8080:<empty>"),
        ("99999:1", "invalid hostPort: 99999"),
        ("1:99999", "invalid containerPort: 99999"),
        ("1:2:3", "invalid IP address: 1"),
        ("a:b", "invalid containerPort: b"),
        ("1-3:5-6", "invalid ranges specified for container and host Ports: 5-6 and 1-3"),
        ("80/foo", "invalid proto: foo"),
        ("=x", "invalid publish opts format (should be name=value but got '=x')"),
    ],
)
def test_publish_refuses(spec: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        ports.parse_publish([spec])
    assert str(caught.value) == message


def test_expose_spells_ranges_out() -> None:
    assert ports.parse_expose(["80", "90-92/udp"]) == {"80/tcp": {}, "90/udp": {}, "91/udp": {}, "92/udp": {}}
    with pytest.raises(ValueError, match="invalid range format for --expose"):
        ports.parse_expose(["90-80"])


@given(st.text(alphabet="0123456789:-/.[]tcpud=,a", max_size=24))
def test_publish_never_breaks(spec: str) -> None:
    try:
        found = ports.parse_publish([spec])
    except ValueError:
        return
    assert all("/" in port for port in found)


# -- volumes and mounts -------------------------------------------------------------------------------------------


def test_volumes_and_binds() -> None:
    binds, volumes = mounts.parse_volumes(["/a", "/b:/c:ro", "name:/d", "./x:/y", "/b:/c:ro", "x"])
    assert binds == ["/b:/c:ro", "name:/d", f"{os.getcwd()}/x:/y"]
    assert volumes == {"/a": {}, "x": {}}


@pytest.mark.parametrize("spec", ["", "::::", "a:b:c:dd:e", ":/x"])
def test_volumes_refuse(spec: str) -> None:
    with pytest.raises(ValueError, match="spec"):
        mounts.parse_volumes([spec])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("src=v,dst=/a", {"Type": "volume", "Source": "v", "Target": "/a"}),
        (
            "type=bind,source=/a,target=/b,readonly",
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
        ),
        (
            "type=bind,src=/a,dst=/b,bind-propagation=rshared,bind-recursive=disabled",
            {
                "Type": "bind",
                "Source": "/a",
                "Target": "/b",
                "BindOptions": {"Propagation": "rshared", "NonRecursive": True},
            },
        ),
        (
            "type=tmpfs,dst=/t,tmpfs-size=10m,tmpfs-mode=1770",
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 10 << 20, "Mode": 0o1770}},
        ),
        (
            'type=volume,dst=/x,"volume-opt=o=addr=a,rw",volume-driver=local,volume-label=a=b,volume-nocopy',
            {
                "Type": "volume",
                "Target": "/x",
                "VolumeOptions": {
                    "DriverConfig": {"Options": {"o": "addr=a,rw"}, "Name": "local"},
                    "Labels": {"a": "b"},
                    "NoCopy": True,
                },
            },
        ),
        (
            "type=image,src=i,dst=/i,image-subpath=s",
            {"Type": "image", "Source": "i", "Target": "/i", "ImageOptions": {"Subpath": "s"}},
        ),
    ],
)
def test_mount(text: str, expected: dict[str, Any]) -> None:
    assert mounts.parse_mount(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "value is empty"),
        ("foo", "invalid field 'foo' must be a key=value pair"),
        ("a=b", "unexpected key 'a' in 'a=b'"),
        ("type=bind,src=/a", "target is required"),
        ("type=bind,dst=/a,tmpfs-size=1", "cannot mix 'tmpfs-*' options with mount type 'bind'"),
        ("type=bind,dst=/a,ro=maybe", "invalid value for ro: maybe"),
        (
            "type=bind,dst=/a,bind-recursive=x",
            'invalid value for bind-recursive: x (must be "enabled", "disabled", "writable", or "readonly")',
        ),
        ("type=tmpfs,dst=/a,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
    ],
)
def test_mount_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        mounts.parse_mount(text)
    assert str(caught.value) == message


# -- networks -----------------------------------------------------------------------------------------------------


def test_network_in_long_form() -> None:
    spec = endpoints.parse_network(
        "name=n,alias=a,alias=b,ip=1.2.3.4,driver-opt=k=v,gw-priority=3,mac-address=02:00:00:00:00:01"
    )
    assert spec == {
        "target": "n",
        "aliases": ["a", "b"],
        "ip": "1.2.3.4",
        "driver_opts": {"k": "v"},
        "gw_priority": 3,
        "mac": "02:00:00:00:00:01",
    }
    assert endpoints.parse_network("container:abc") == {"target": "container:abc"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--network", "bridge", "--network-alias", "a"],
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (["--network", "n", "--network", "n"], 'network "n" is specified multiple times'),
        (
            ["--network", "n", "--network", "host"],
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            ["--network", "name=n,ip=1.1.1.1", "--ip", "1.1.1.2"],
            "conflicting options: cannot specify both --ip and per-network IPv4 address",
        ),
    ],
)
def test_networks_that_contradict(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        createbody.plan_body(run_flags(*argv))
    assert str(caught.value) == message


# -- devices, limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("/dev/a", ("/dev/a", "/dev/a", "rwm")),
        ("/dev/a:/dev/b", ("/dev/a", "/dev/b", "rwm")),
        ("/dev/a:r", ("/dev/a", "/dev/a", "r")),
        ("/dev/a:/dev/b:rw", ("/dev/a", "/dev/b", "rw")),
    ],
)
def test_device(spec: str, expected: tuple[str, str, str]) -> None:
    ((found,), cdi) = devices.parse_devices([spec])
    assert (found["PathOnHost"], found["PathInContainer"], found["CgroupPermissions"]) == expected and not cdi


@pytest.mark.parametrize("spec", ["x", "/dev/a:/x:zz", "a:b:c:d", ":x"])
def test_device_refuses(spec: str) -> None:
    with pytest.raises(ValueError):
        devices.parse_devices([spec])


def test_devices_by_cdi_name() -> None:
    assert devices.parse_devices(["vendor.com/class=dev"]) == ([], ["vendor.com/class=dev"])


def test_gpus() -> None:
    assert devices.parse_gpus("all")["Count"] == -1
    assert devices.parse_gpus('"device=0,1",driver=nvidia')["DeviceIDs"] == ["0", "1"]
    with pytest.raises(ValueError, match="invalid count"):
        devices.parse_gpus("x")


@pytest.mark.parametrize(
    ("text", "nano"), [("1", 10**9), (".5", 5 * 10**8), ("1e-1", 10**8), ("2/4", 5 * 10**8), ("-1", -(10**9))]
)
def test_cpus(text: str, nano: int) -> None:
    assert values.parse_cpus(text) == nano


@pytest.mark.parametrize("text", ["", "x", "1/0", "1.", "e5", "1/x", "--1"])
def test_cpus_refuses_or_takes_as_go(text: str) -> None:
    if text == "1.":
        assert values.parse_cpus(text) == 10**9
    else:
        with pytest.raises(ValueError):
            values.parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:1.2.3.4", "a:1.2.3.4"),
        ("a=::1", "a:::1"),
        ("a:[::1]", "a:::1"),
        ("a:host-gateway", "a:host-gateway"),
    ],
)
def test_add_host(text: str, expected: str) -> None:
    assert values.check_host(text) == expected


def test_restart_policies() -> None:
    assert createbody.parse_restart("on-failure:3") == {"Name": "on-failure", "MaximumRetryCount": 3}
    with pytest.raises(ValueError, match="no policy provided before colon"):
        createbody.parse_restart(":3")
    with pytest.raises(ValueError, match="maximum retry count must be an integer"):
        createbody.parse_restart("on-failure:x")


# -- files of variables -------------------------------------------------------------------------------------------


def test_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWN", "from here")
    monkeypatch.delenv("UNKNOWN", raising=False)
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbf# comment\nA=1\n\n  B= two \r\nKNOWN\nUNKNOWN\nC=a=b\nD=\n")
    found = envfiles.read_pairs([str(file)], ["Z=9"], from_environment=True)
    assert found == ["A=1", "B= two ", "KNOWN=from here", "C=a=b", "D=", "Z=9"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"=x\n", "no variable name on line '=x'"),
        (b"a b=1\n", "variable 'a b' contains whitespaces"),
        (b"A=\xff\n", "invalid utf8 bytes at line 1"),
    ],
)
def test_env_file_refuses(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "env"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        envfiles.read_pairs([str(file)], [], from_environment=True)


def test_env_file_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="open /nope: no such file or directory"):
        envfiles.read_pairs(["/nope"], [], from_environment=True)


# -- records ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a", ["a"]),
        ("a,b,", ["a", "b", ""]),
        ('"a,b",c', ["a,b", "c"]),
        ('"a""b"', ['a"b']),
        ("k=v,k2=v2", ["k=v", "k2=v2"]),
    ],
)
def test_records(text: str, fields: list[str]) -> None:
    assert split_fields(text) == fields


@pytest.mark.parametrize("text", ["", 'a"b', '"a', '"a"b'])
def test_records_that_are_none(text: str) -> None:
    with pytest.raises(CsvError):
        split_fields(text)


# -- the whole body -----------------------------------------------------------------------------------------------


def test_a_body_holds_what_was_asked_for() -> None:
    body = createbody.plan_body(
        run_flags(
            "-it",
            "-m",
            "10m",
            "--cap-add",
            "net_admin",
            "--cap-drop",
            "ALL",
            "-e",
            "A=1",
            "--entrypoint",
            "",
            "--init",
        )
    )
    host = body["HostConfig"]
    assert body["Tty"] and body["OpenStdin"] and body["StdinOnce"] and body["Entrypoint"] == [""]
    assert host["Memory"] == 10 << 20 and host["CapAdd"] == ["CAP_NET_ADMIN"] and host["CapDrop"] == ["ALL"]
    assert body["Env"] == ["A=1"] and host["Init"] is True and body["Image"] == "image"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rm", "--restart", "always"], "conflicting options: cannot specify both --restart and --rm"),
        (["--no-healthcheck", "--health-cmd", "x"], "--no-healthcheck conflicts with --health-* options"),
        (["--health-interval=-1s"], "--health-interval cannot be negative"),
        (["--memory-swappiness", "101"], "invalid value: 101. Valid memory swappiness range is 0-100"),
        (["--pid", "foo"], "--pid: invalid PID mode"),
        (["--log-driver", "none", "--log-opt", "a=b"], "invalid logging opts for driver none"),
        (["--security-opt", "foo"], 'Invalid --security-opt: "foo"'),
        (
            ["--security-opt", "seccomp=/nope"],
            "opening seccomp profile (/nope) failed: open /nope: no such file or directory",
        ),
        (["--storage-opt", "x"], "invalid storage option"),
        (["--mac-address", "foo"], "foo is not a valid mac address"),
    ],
)
def test_bodies_that_contradict(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        createbody.plan_body(run_flags(*argv))
    assert str(caught.value) == message


def test_unmasked_system_paths_are_for_the_body_not_for_the_engine() -> None:
    host = createbody.plan_body(run_flags("--security-opt", "systempaths=unconfined"))["HostConfig"]
    assert host["SecurityOpt"] is None and host["MaskedPaths"] == [] and host["ReadonlyPaths"] == []
