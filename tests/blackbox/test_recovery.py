"""The daemon dies at each of its own steps; the next one finds the truth and nothing is left over."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from satsuma.base.failpoints import EXIT_STATUS

pytestmark = pytest.mark.skipif(bool(harness.REFERENCE), reason="failpoints are ours")


@pytest.fixture
def own() -> Iterator[harness.Daemon]:
    with harness.private_daemon() as daemon:
        harness.bootstrap_busybox(daemon)
        yield daemon


def restart_with(daemon: harness.Daemon, failpoints: str) -> None:
    daemon.terminate()
    daemon.start(SATSUMA_FAILPOINTS=failpoints)


def create(daemon: harness.Daemon, name: str, **body: Any) -> str:
    status, answer = daemon.api(
        "POST", f"/containers/create?name={name}", {"Image": "busybox", "Cmd": ["sleep", "1000"]} | body
    )
    assert status == 201, answer
    return str(answer["Id"])


def states(daemon: harness.Daemon) -> dict[str, str]:
    return {item["Names"][0][1:]: item["State"] for item in daemon.api("GET", "/containers/json?all=1")[1]}


def directories(daemon: harness.Daemon, kind: str) -> set[str]:
    return set(os.listdir(daemon.data_root / kind))


@pytest.mark.parametrize("point", ["store.snapshots.prepared", "volume.created"])
def test_a_create_that_dies_leaves_nothing(own: harness.Daemon, point: str) -> None:
    restart_with(own, f"{point}=exit")
    body = {"Image": "busybox", "HostConfig": {"Binds": ["data:/data"]}}
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        own.api("POST", "/containers/create?name=dying", body)
    assert own.process is not None and own.process.wait(20) == EXIT_STATUS
    own.start()
    assert states(own) == {}
    assert directories(own, "containers") == set()
    assert create(own, "dying")


@pytest.mark.parametrize("point", ["engine.started", "monitor.started", "monitor.listening"])
def test_a_start_that_dies_can_be_repeated(own: harness.Daemon, point: str) -> None:
    restart_with(own, f"{point}=exit")
    create(own, "web", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": ""}]}})
    if point.startswith("engine"):
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            own.api("POST", "/containers/web/start")
        assert own.process is not None and own.process.wait(20) == EXIT_STATUS
    else:
        assert own.api("POST", "/containers/web/start")[0] == 500
        own.terminate()
    own.start()
    # Nobody was told that it runs: what the dead daemon had started is ended.
    assert states(own) == {"web": "created"}
    assert own.api("POST", "/containers/web/start")[0] == 204
    assert states(own) == {"web": "running"}


def test_an_exit_during_which_the_daemon_dies_is_not_lost(own: harness.Daemon) -> None:
    create(own, "short", Cmd=["sh", "-c", "sleep 1; exit 7"])
    restart_with(own, "engine.exit=exit")
    assert own.api("POST", "/containers/short/start")[0] == 204
    assert own.process is not None and own.process.wait(20) == EXIT_STATUS
    own.start()
    assert own.api("POST", "/containers/short/wait")[1] == {"StatusCode": 7}
    assert own.api("GET", "/containers/short/json")[1]["State"]["Status"] == "exited"


@pytest.mark.parametrize("point", ["engine.removed", "store.trash.renamed", "store.trash.remove"])
def test_a_removal_that_dies_is_finished(own: harness.Daemon, point: str) -> None:
    create(own, "old", HostConfig={"Binds": ["/anonymous"]})
    restart_with(own, f"{point}=exit")
    try:
        own.api("DELETE", "/containers/old?v=1")
    except (ConnectionError, http.client.HTTPException):
        pass
    assert own.process is not None and own.process.wait(20) == EXIT_STATUS
    own.start()
    assert states(own) == {}
    assert directories(own, "containers") == set()
    harness.eventually(lambda: directories(own, "trash") == set())


def monitor_of(container_id: str) -> int | None:
    """Return the pid of the monitor of a container that it has been asked to start."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command = Path(f"/proc/{entry}/cmdline").read_text()
            except OSError:
                continue
            if command.startswith(f"satsuma-monitor {container_id}"):
                return int(entry)
    return None


def groups_of(container_id: str) -> list[Path]:
    """Return the directories of a container in the control groups."""
    return [*Path("/sys/fs/cgroup").glob(f"**/{container_id}")]


@pytest.mark.parametrize("daemon_too", [False, True])
def test_a_monitor_that_dies_before_it_has_written_leaves_no_group(
    own: harness.Daemon, daemon_too: bool
) -> None:
    restart_with(own, "monitor.started=sleep(30)")
    container = create(own, "dying")
    answers: list[int] = []

    def start() -> None:
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            answers.append(own.api("POST", "/containers/dying/start")[0])

    thread = threading.Thread(target=start)
    thread.start()
    harness.eventually(lambda: groups_of(container))
    time.sleep(0.3)  # and it is started
    monitor = monitor_of(container)
    assert monitor is not None
    if daemon_too:
        own.kill()
    os.kill(monitor, signal.SIGKILL)
    thread.join(30)
    assert answers == ([] if daemon_too else [500])
    if daemon_too:
        own.start()
    assert states(own) == {"dying": "created"}
    harness.eventually(lambda: not groups_of(container), message=lambda: f"{groups_of(container)}")


def alias(interface: str) -> str | None:
    """Return the alias of an interface, None when there is none of that name."""
    path = Path(f"/sys/class/net/{interface}/ifalias")
    return path.read_text().strip() if path.exists() else None


def test_a_network_whose_creation_dies_can_be_removed(own: harness.Daemon) -> None:
    create(own, "runs")
    assert own.api("POST", "/containers/runs/start")[0] == 204  # and keeps the bridge of `bridge`
    restart_with(own, "network.bridge.made=exit")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        own.api("POST", "/networks/create", {"Name": "dying"})
    assert own.process is not None and own.process.wait(20) == EXIT_STATUS
    own.start()
    network = own.api("GET", "/networks/dying")[1]
    interface = f"br-{network['Id'][:12]}"
    assert alias(interface) == alias(own.bridge)
    assert own.api("DELETE", "/networks/dying")[0] == 204
    assert alias(interface) is None


def test_a_first_start_that_dies_leaves_no_bridge_of_a_stranger(own: harness.Daemon) -> None:
    own.terminate()
    assert alias(own.bridge) is None
    with pytest.raises(AssertionError):
        own.start(SATSUMA_FAILPOINTS="network.bridge.made=exit")
    assert alias(own.bridge) == ""
    own.start()
    assert alias(own.bridge)
    own.terminate()
    assert alias(own.bridge) is None


@pytest.mark.parametrize(
    ("point", "path", "after"),
    [
        ("engine.frozen", "/containers/ticking/pause", "running"),
        ("engine.thawed", "/containers/ticking/unpause", "paused"),
        ("engine.commit.frozen", "/commit?container=ticking&repo=half", "running"),
    ],
)
def test_no_container_stays_frozen_that_nobody_paused(
    own: harness.Daemon, point: str, path: str, after: str
) -> None:
    create(own, "ticking", Cmd=["sh", "-c", "while :; do date +%s%N; sleep 0.02; done"])
    assert own.api("POST", "/containers/ticking/start")[0] == 204
    if after == "paused":
        assert own.api("POST", "/containers/ticking/pause")[0] == 204
    restart_with(own, f"{point}=exit")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        own.api("POST", path, {})
    assert own.process is not None and own.process.wait(20) == EXIT_STATUS
    own.start()
    assert states(own) == {"ticking": after}
    client = harness.Client("satsuma", own)
    if after == "paused":
        settled = client("logs", "ticking")
        time.sleep(0.3)
        assert client("logs", "ticking") == settled
        client("unpause", "ticking")
    lines = len(client("logs", "ticking").splitlines())
    harness.eventually(lambda: len(client("logs", "ticking").splitlines()) > lines)


def test_rm_and_restart_policies_are_kept_over_a_crash(own: harness.Daemon) -> None:
    client = harness.Client("satsuma", own)
    client("run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "1")
    client("run", "-d", "--restart", "always", "--name", "again", "busybox", "sleep", "1")
    client("run", "-d", "--name", "paused", "busybox", "sleep", "1000")
    client("pause", "paused")
    own.kill()
    time.sleep(2)
    own.start()
    harness.eventually(lambda: "gone" not in states(own))
    harness.eventually(lambda: states(own).get("again") == "running")
    assert states(own)["paused"] == "paused"
    client("unpause", "paused")
    assert client("exec", "paused", "echo", "alive") == "alive"
    restarts = int(client("inspect", "--format", "{{.RestartCount}}", "again"))
    assert restarts >= 1


def test_a_builds_container_does_not_outlive_its_daemon(own: harness.Daemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo begun; sleep 1000\n")
    client = harness.Client("satsuma", own)
    build = client.popen("build", str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert build.stdout is not None
    for line in build.stdout:
        if line.strip() == b"begun":
            break
    assert os.listdir(own.exec_root / "containers")
    own.kill()
    build.wait(20)
    own.start()
    assert os.listdir(own.exec_root / "containers") == []
    assert directories(own, "containers") == set()
    assert client("run", "--rm", "busybox", "echo", "fine") == "fine"


def test_volumes_and_names_are_as_before(own: harness.Daemon) -> None:
    client = harness.Client("satsuma", own)
    client("run", "-d", "--name", "holder", "-v", "data:/d", "busybox", "sleep", "1000")
    own.kill()
    own.start()
    done = client.run("volume", "rm", "data", check=False)
    assert done.returncode == 1 and "volume is in use" in done.stderr
    done = client.run("create", "--name", "holder", "busybox", check=False)
    assert "is already in use by container" in done.stderr
    client("rm", "-f", "holder")
    client("volume", "rm", "data")
