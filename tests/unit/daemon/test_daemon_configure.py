"""dockerd's flags and daemon.json: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from satsuma.base.errors import InvalidParameter
from satsuma.daemon.configure import configure
from satsuma.daemon.settings import ABSENT, BY_FLAG, BY_KEY, SINGLE
from satsuma.engine import EngineConfig


def of(*flags: str) -> EngineConfig:
    return configure(["--config-file", "/dev/null", *flags]).engine


@pytest.mark.parametrize(
    ("host", "means"),
    [
        ("unix:///a", "unix:///a"),
        ("/a", "unix:///a"),
        ("unix://", "unix:///run/satsuma/satsuma.sock"),
        ("tcp://0.0.0.0", "tcp://0.0.0.0:2375"),
        ("tcp://[::1]", "tcp://[::1]:2375"),
        ("tcp://[::1]:99", "tcp://[::1]:99"),
        ("10.1.1.1:99", "tcp://10.1.1.1:99"),
        ("fd://", "fd://"),
    ],
)
def test_hosts(host: str, means: str) -> None:
    assert of("-H", host).hosts == (means,)


def test_a_daemon_with_another_exec_root_has_a_socket_and_a_bridge_of_its_own() -> None:
    first, second = of("--exec-root", "/run/one"), of("--exec-root", "/run/two")
    assert first.hosts == ("unix:///run/one/satsuma.sock",)
    assert len({of().bridge, first.bridge, second.bridge}) == 3
    assert all(len(config.bridge) <= 15 for config in (of(), first, second))
    assert of().bridge == "satsuma0"
    assert of("--exec-root", "/run/one", "-b", "mine").bridge == "mine"
    assert of("--exec-root", "/run/one", "--bip", "10.1.1.1/24").bip == "10.1.1.1/24"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--log-driver", "nope"], "logger: no log driver named 'nope' is registered"),
        (["--log-opt", "bogus=1"], "unknown log opt 'bogus' for json-file log driver"),
        (["--default-ulimit", "bogus=1"], "invalid ulimit type: bogus"),
        (
            ["--default-ulimit", "nofile=5:2"],
            "ulimit soft limit must be less than or equal to hard limit: 5 > 2",
        ),
        (["--seccomp-profile", "/no/such"], r"opening seccomp profile \(/no/such\) failed"),
        (["--init-path", "/no/such"], "init-path /no/such: no such executable file"),
        (["--mtu", "-1"], "invalid default MTU: -1"),
        (["-b", "x", "--bip", "10.1.1.1/24"], "mutually exclusive"),
        (["-H", "tcp://x:y"], "invalid bind address"),
        (["--tlsverify"], "--tlsverify=true: not supported by this engine yet, the only value is false"),
        (["--storage-driver", "zfs"], "--storage-driver=zfs: not supported"),
        (["--ipv6"], "--ipv6: this setting of dockerd is not supported by this engine yet"),
        (["--no-such"], "unknown flag: --no-such"),
    ],
)
def test_refused_flags(flags: list[str], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        of(*flags)


def test_settings_that_say_what_the_engine_does_are_taken(tmp_path: Path) -> None:
    of("--storage-driver", "overlay2", "--iptables", "--userland-proxy=false", "--default-runtime=runc", "-D")
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"storage-driver": "overlay2", "iptables": True, "mtu": 0}))
    assert configure(["--config-file", str(file)]).engine.mtu == 1500


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ('{"ipv6": true}', "ipv6: these settings of dockerd are not supported by this engine yet"),
        ('{"iptables": false}', "iptables=false: not supported by this engine yet"),
        ('{"debug": "true"}', 'debug must be true or false, not "true"'),
        ('{"log-opts": {"max-size": 1}}', "log-opts must be an object whose values are strings"),
        ("[" * 100_000, "recursion"),
        ("[]", "the file must hold a JSON object"),
        ("\x00", "unable to configure the daemon with file"),
    ],
)
def test_refused_files(tmp_path: Path, document: str, words: str) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(document)
    with pytest.raises(InvalidParameter, match=words):
        configure(["--config-file", str(file)])


def test_a_seccomp_profile_is_read_at_once(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW"}
    file.write_text(json.dumps(profile))
    config = of("--seccomp-profile", str(file))
    assert json.loads(config.seccomp_profile) == profile
    assert config.seccomp_profile_name == str(file)
    assert (of().seccomp_profile, of().seccomp_profile_name) == ("", "builtin")
    file.write_text("[]")
    with pytest.raises(InvalidParameter, match="Decoding seccomp profile failed"):
        of("--seccomp-profile", str(file))


def test_no_setting_is_in_two_tables() -> None:
    known = set(BY_FLAG) | set(BY_KEY)
    assert not known & set(SINGLE) and not known & ABSENT and not set(SINGLE) & ABSENT
