"""Small rules of the engine that need no engine."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from satsuma.base.errors import InvalidParameter, NotFound
from satsuma.container import Record
from satsuma.container.config import ContainerConfig
from satsuma.engine.anatomy import process_tree
from satsuma.engine.attach import detach_keys_bytes
from satsuma.engine.commit import new_config
from satsuma.engine.copying import clean_path, go_file_mode, resolve_link, stat_path
from satsuma.engine.endpoints import check_settings, port_specs
from satsuma.engine.links import split_link
from satsuma.engine.start import log_tag
from satsuma.engine.stats import parse_ps
from satsuma.linux.root import Root
from satsuma.monitor import escape
from satsuma.spec.docker import EndpointIpamConfig, EndpointSettings, HostConfig, PortBinding


def record(config: dict[str, Any] | None = None, **host: Any) -> Record:
    return Record(
        id="a" * 64,
        name="web",
        created_ns=1,
        path="sh",
        args=[],
        config=ContainerConfig(image="busybox", **(config or {})),
        host=HostConfig(**({"network_mode": "bridge"} | host)),
        image_id="sha256:" + "b" * 64,
    )


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (None, escape.DEFAULT),
        ("", escape.DEFAULT),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@,ctrl-[,ctrl-_", b"\x00\x1b\x1f"),
    ],
)
def test_detach_keys(text: str | None, keys: bytes) -> None:
    assert detach_keys_bytes(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "abc", "ctrl-aa"])
def test_bad_detach_keys(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid escape keys"):
        detach_keys_bytes(text)


def test_file_modes_are_gos() -> None:
    assert go_file_mode(stat.S_IFDIR | 0o755) == 0x800001ED
    assert go_file_mode(stat.S_IFREG | 0o644) == 0o644
    assert go_file_mode(stat.S_IFLNK | 0o777) == 0x80001FF
    assert go_file_mode(stat.S_IFREG | stat.S_ISUID | 0o755) == 0x8001ED
    assert go_file_mode(stat.S_IFDIR | stat.S_ISVTX | 0o777) == 0x801001FF


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("a", "/a"),
        ("/a/../b", "/b"),
        ("/a/", "/a/"),
        ("/a/.", "/a/."),
        ("/", "/"),
        ("//a", "/a"),
        ("/.", "/."),
    ],
)
def test_clean_paths_keep_what_means_the_directory(path: str, clean: str) -> None:
    assert clean_path(path) == clean


def test_stat_of_links_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "file").write_text("x")
    (tmp_path / "link").symlink_to("/etc/file")
    (tmp_path / "out").symlink_to("../../../../etc/hostname")
    with Root.open_path(str(tmp_path)) as root:
        found = stat_path(root, "/link")
        assert found["name"] == "link" and found["linkTarget"] == "/etc/file"
        assert found["mode"] & 1 << 27
        assert resolve_link(root, "/out") == "/etc/hostname"
        assert stat_path(root, "/etc/")["mode"] & 1 << 31


def test_ps_output_is_filtered_by_pid() -> None:
    text = "UID   PID  PPID CMD\nroot    7     1 sh -c 'a b'\nroot    8     1 other\n"
    assert parse_ps(text, {7}) == {
        "Titles": ["UID", "PID", "PPID", "CMD"],
        "Processes": [["root", "7", "1", "sh -c 'a b'"]],
    }
    with pytest.raises(NotFound, match="Couldn't find PID field in ps output"):
        parse_ps("A B\n1 2\n", {1})


def test_ports_to_publish() -> None:
    specs = port_specs(
        record(
            {"exposed_ports": {"53/udp": {}, "80/tcp": {}}},
            port_bindings={"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8080")], "81/tcp": None},
            publish_all_ports=True,
        )
    )
    assert [(s.port, s.protocol, s.host_ip, s.host_port) for s in specs] == [
        (80, "tcp", "127.0.0.1", "8080"),
        (81, "tcp", "", ""),
        (53, "udp", "", ""),
    ]
    assert port_specs(record(port_bindings={"80/tcp": None}, network_mode="host")) == []


def test_addresses_on_the_default_network_are_refused() -> None:
    settings = EndpointSettings(ipam_config=EndpointIpamConfig(ipv4_address="172.17.0.9"))
    with pytest.raises(InvalidParameter, match="supported on user defined networks only"):
        check_settings("bridge", settings)
    check_settings("mine", settings)
    with pytest.raises(InvalidParameter, match="invalid MAC address"):
        check_settings("mine", EndpointSettings(mac_address="zz"))


def test_links() -> None:
    assert split_link("db") == ("db", "db")
    assert split_link("db:store") == ("db", "store")
    assert split_link("/db:/web/store") == ("db", "store")
    for bad in ("", "a:b:c", ":x"):
        with pytest.raises(InvalidParameter, match="bad format for links"):
            split_link(bad)


def test_log_tags() -> None:
    assert log_tag(record(), {"tag": "{{.Name}}/{{ .ID }}/{{.ImageName}}"}) == "web/aaaaaaaaaaaa/busybox"
    assert log_tag(record(), {}) == ""


def test_the_config_of_a_commit() -> None:
    container = record({"env": ["A=1"], "cmd": ["sh"], "labels": {"x": "1"}, "hostname": "box"})
    changed = new_config(container, None, ['CMD ["other"]', "ENV B=2", "LABEL y=2"])
    assert changed["Cmd"] == ["other"]
    assert sorted(changed["Env"]) == ["A=1", "B=2"]
    assert changed["Labels"] == {"x": "1", "y": "2"}
    assert "Image" not in changed


def test_a_process_tree_names_both_pids() -> None:
    found = process_tree([os.getpid()], os.getpid())
    assert found[0]["HostPid"] == os.getpid() and found[0]["Depth"] == 0
