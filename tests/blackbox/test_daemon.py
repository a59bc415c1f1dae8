"""The daemon itself: side by side, refused twice on one root, killed, moved, stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import harness


@pytest.fixture
def own() -> harness.Daemon:
    """A daemon that a test may kill."""
    daemon = harness.Daemon()
    daemon.start()
    harness.bootstrap_busybox(daemon)
    yield daemon
    daemon.close()


def test_second_daemon_on_the_same_root_is_refused_with_the_pid(daemon: harness.Daemon) -> None:
    second = subprocess.run(
        [
            str(harness.BIN / "satsumad"),
            "-H",
            f"unix://{daemon.root}/second.sock",
            "--data-root",
            str(daemon.data_root),
            "--exec-root",
            f"{daemon.root}/other",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert second.returncode == 1
    assert f"PID {daemon.process.pid} is still running" in second.stderr
    assert daemon.api("GET", "/_ping")[0] == 200


def test_two_daemons_side_by_side(daemon: harness.Daemon, own: harness.Daemon) -> None:
    for running in (daemon, own):
        client = harness.Client("satsuma", running)
        assert (
            client(
                "run",
                "--rm",
                "busybox",
                "sh",
                "-c",
                "ping -c1 -W2 $(ip route | awk '/default/{print $3}') >/dev/null && echo ok",
            )
            == "ok"
        )
    one = daemon.api("GET", "/networks/bridge")[1]["IPAM"]["Config"][0]["Subnet"]
    two = own.api("GET", "/networks/bridge")[1]["IPAM"]["Config"][0]["Subnet"]
    assert one != two


def test_sigterm_stops_within_two_seconds_and_containers_run_on(own: harness.Daemon) -> None:
    client = harness.Client("satsuma", own)
    container = client("run", "-d", "busybox", "sleep", "1000")
    pid = int(client("inspect", "--format", "{{.State.Pid}}", container))
    assert own.terminate() < 2
    assert Path(f"/proc/{pid}").exists()
    own.start()
    assert int(client("inspect", "--format", "{{.State.Pid}}", container)) == pid
    assert client("exec", container, "echo", "still here") == "still here"
    assert client("stop", "-t", "0", container)


def test_live_restore_false_stops_the_containers() -> None:
    with harness.private_daemon("--live-restore=false", "--shutdown-timeout", "3") as daemon:
        client = harness.Client("satsuma", daemon)
        harness.bootstrap_busybox(daemon)
        container = client("run", "-d", "--stop-timeout", "1", "busybox", "sleep", "1000")
        pid = int(client("inspect", "--format", "{{.State.Pid}}", container))
        daemon.terminate()
        assert not Path(f"/proc/{pid}").exists()
        daemon.start()
        assert client("inspect", "--format", "{{.State.Status}}", container) == "exited"


def test_restart_policies_when_the_daemon_comes_back() -> None:
    """What dockerd 28.5 does with each policy, running and stopped by hand, over a stop and a start of the daemon."""
    with harness.private_daemon("--live-restore=false") as daemon:
        harness.bootstrap_busybox(daemon)
        client = harness.Client("satsuma", daemon)
        for policy in ("no", "always", "unless-stopped", "on-failure"):
            client("run", "-d", "--name", f"up-{policy}", "--restart", policy, "busybox", "sleep", "1000")
            client(
                "run", "-d", "--name", f"stopped-{policy}", "--restart", policy, "busybox", "sleep", "1000"
            )
            client("stop", "-t", "0", f"stopped-{policy}")
        client("create", "--name", "created", "--restart", "always", "busybox")
        client("run", "-d", "--name", "paused", "--restart", "always", "busybox", "sleep", "1000")
        client("pause", "paused")
        daemon.terminate()
        daemon.start()
        expected = {
            "up-no": "exited",
            "up-always": "running",
            "up-unless-stopped": "running",
            "up-on-failure": "running",
            "stopped-no": "exited",
            "stopped-always": "running",
            "stopped-unless-stopped": "exited",
            "stopped-on-failure": "running",
            "created": "created",
            "paused": "running",
        }

        def states() -> dict[str, str]:
            lines = client("ps", "-a", "--format", "{{.Names}} {{.State}}").splitlines()
            return dict(line.split() for line in lines)

        harness.eventually(lambda: states() == expected, message=lambda: str(states()))


def test_killed_daemon_loses_nothing(own: harness.Daemon) -> None:
    client = harness.Client("satsuma", own)
    talker = client(
        "run",
        "-d",
        "busybox",
        "sh",
        "-c",
        "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.05; done; exit 5",
    )
    lasting = client("run", "-d", "-p", "127.0.0.1::80", "busybox", "httpd", "-f", "-p", "80")
    removed = client("run", "-d", "--rm", "busybox", "sleep", "1")
    port = client("port", lasting, "80/tcp").rpartition(":")[2]
    own.kill()
    answer = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}/"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout == "404"
    time.sleep(1.5)
    own.start()
    assert client("wait", talker) == "5"
    assert client("logs", talker).splitlines() == [f"line {n}" for n in range(1, 61)]
    assert client("inspect", "--format", "{{.State.Status}}", lasting) == "running"
    assert client("port", lasting, "80/tcp").endswith(f":{port}")
    harness.eventually(lambda: client.run("inspect", removed, check=False).returncode == 1)
    assert client("run", "--rm", "busybox", "echo", "new ones start") == "new ones start"


def test_exit_code_of_what_ended_while_no_daemon_was_there(own: harness.Daemon) -> None:
    client = harness.Client("satsuma", own)
    ended = client("run", "-d", "busybox", "sh", "-c", "sleep 0.5; echo last words; exit 33")
    own.kill()
    time.sleep(1.2)
    own.start()
    assert client("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", ended) == "exited 33"
    assert client("wait", ended) == "33"
    assert client("logs", ended) == "last words"
    finished = client("inspect", "--format", "{{.State.FinishedAt}}", ended)
    assert not finished.startswith("0001")


def test_repeated_kills_lose_no_container(own: harness.Daemon) -> None:
    client = harness.Client("satsuma", own)
    expected = set()
    for round_number in range(6):
        expected.add(client("run", "-d", "--name", f"r{round_number}", "busybox", "sleep", "1000"))
        own.kill()
        own.start()
        assert set(client("ps", "-q", "--no-trunc").split()) == expected
    for container in expected:
        assert client("exec", container, "echo", "up") == "up"


def test_data_root_can_be_moved(tmp_path: Path) -> None:
    daemon = harness.Daemon()
    try:
        daemon.start()
        client = harness.Client("satsuma", daemon)
        harness.bootstrap_busybox(daemon)
        client(
            "run",
            "--name",
            "keeper",
            "-v",
            "data:/d",
            "busybox",
            "sh",
            "-c",
            "echo moved >/d/f; echo own >/own",
        )
        daemon.terminate()
        moved = daemon.root / "elsewhere"
        shutil.move(daemon.data_root, moved)
        daemon.data_root = moved
        daemon.start()
        assert client("run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/f") == "moved"
        assert client("diff", "keeper").splitlines() == ["A /d", "A /own"]
        assert client("start", "-a", "keeper") == ""
    finally:
        daemon.close()


def test_configuration_file_sets_what_flags_set(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"labels": ["site=here"], "log-opts": {"max-size": "1m"}, "mtu": 1400}))
    with harness.private_daemon("--config-file", str(file)) as daemon:
        client = harness.Client("satsuma", daemon)
        harness.bootstrap_busybox(daemon)
        assert daemon.api("GET", "/info")[1]["Labels"] == ["site=here"]
        assert client("run", "--rm", "busybox", "cat", "/sys/class/net/eth0/mtu") == "1400"
        container = client("create", "busybox")
        assert (
            client("inspect", "--format", "{{json .HostConfig.LogConfig}}", container)
            == '{"Type":"json-file","Config":{"max-size":"1m"}}'
        )


@pytest.mark.parametrize(
    ("document", "flags", "words"),
    [
        ('{"nonsense": 1}', [], "the following directives don't match any configuration option: nonsense"),
        ('{"debug": true}', ["-D"], "specified both as a flag and in the configuration file: debug"),
        ("{", [], "unable to configure the daemon with file"),
        ('{"mtu": "x"}', [], "mtu"),
        ("{}", ["--exec-opt", "native.cgroupdriver=nope"], "invalid cgroup driver"),
        ("{}", ["--log-level", "loud"], "loud"),
        ("{}", ["-H", "ftp://x"], "invalid bind address"),
    ],
)
def test_wrong_configuration_is_refused(tmp_path: Path, document: str, flags: list[str], words: str) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(document)
    done = subprocess.run(
        [str(harness.BIN / "satsumad"), "--validate", "--config-file", str(file), *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and words in done.stderr


def test_validate_and_version() -> None:
    done = subprocess.run(
        [str(harness.BIN / "satsumad"), "--validate"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.strip() == "configuration OK"
    assert (
        "version"
        in subprocess.run(
            [str(harness.BIN / "satsumad"), "--version"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_api_versions_negotiate(daemon: harness.Daemon) -> None:
    assert daemon.api("GET", "/v1.24/version")[0] == 200
    assert daemon.api("GET", "/v1.51/version")[1]["ApiVersion"] == "1.51"
    status, answer = daemon.api("GET", "/v1.99/info")
    assert status == 400 and "Maximum supported API version is 1.51" in answer["message"]
    status, answer = daemon.api("POST", "/images/x/push")
    assert status in (404, 501)
    assert daemon.api("GET", "/nosuch") == (404, {"message": "page not found"})
    assert daemon.api("GET", "/swarm")[0] == 503


def test_socket_is_for_its_group_only(daemon: harness.Daemon) -> None:
    assert os.stat(daemon.socket).st_mode & 0o777 == 0o660
