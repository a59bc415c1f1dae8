"""The engine with native.cgroupdriver=systemd: containers are scopes of this machine's systemd, where there is one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
from satsuma.linux.cgroup import layout
from satsuma.linux.systemd import Manager, SystemdError

DRIVER = ("--exec-opt", "native.cgroupdriver=systemd")
MIB = 1 << 20


def _reason() -> str:
    try:
        Manager().close()
    except SystemdError as error:
        return str(error)
    return ""


NO_SYSTEMD = _reason()
needs_systemd = pytest.mark.skipif(bool(NO_SYSTEMD), reason=NO_SYSTEMD or "systemd is there")
V2 = layout().mode == "v2"


@pytest.fixture(scope="module")
def engine() -> Iterator[harness.Daemon]:
    with harness.private_daemon(*DRIVER) as daemon:
        harness.bootstrap_busybox(daemon)
        yield daemon
        daemon.remove_containers()
        assert _units() == []


@pytest.fixture
def run(engine: harness.Daemon) -> harness.Client:
    return harness.Client("satsuma", engine)


def _systemctl(*arguments: str) -> str:
    return subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def _units() -> list[str]:
    text = _systemctl("list-units", "--all", "--full", "--plain", "--no-legend", "satsuma-*.scope")
    return [line.split()[0] for line in text.splitlines()]


def _show(unit: str, *names: str) -> dict[str, str]:
    text = _systemctl("show", unit, *(f"--property={name}" for name in names))
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.mark.skipif(not NO_SYSTEMD, reason="systemd runs here")
def test_without_systemd_the_driver_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(harness.BIN / "satsumad"), "--validate", "--config-file", str(_empty(tmp_path)), *DRIVER],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        "invalid exec-opt native.cgroupdriver=systemd: systemd cannot be reached over D-Bus (" in done.stderr
    )


def _empty(directory: Path) -> Path:
    file = directory / "daemon.json"
    file.write_text("{}")
    return file


@needs_systemd
def test_a_parent_that_is_no_slice_is_refused(tmp_path: Path, run: harness.Client) -> None:
    words = 'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'
    done = run.run("create", "--cgroup-parent", "/a", "busybox", check=False)
    assert done.returncode == 1 and words in done.stderr
    flags = ["--validate", "--config-file", str(_empty(tmp_path)), *DRIVER, "--cgroup-parent", "/a"]
    refused = subprocess.run(
        [str(harness.BIN / "satsumad"), *flags], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1 and words in refused.stderr


@needs_systemd
def test_info_names_the_driver(engine: harness.Daemon) -> None:
    info = engine.api("GET", "/info")[1]
    assert (info["CgroupDriver"], info["CgroupVersion"]) == ("systemd", "2" if V2 else "1")


@needs_systemd
def test_a_container_is_a_scope_and_its_life_is_the_units(run: harness.Client) -> None:
    container = run("run", "-d", "--memory", "64m", "--pids-limit", "50", "busybox", "sleep", "1000")
    unit = f"satsuma-{container}.scope"
    shown = _show(unit, "ActiveState", "Slice", "TasksMax", "MemoryMax", "MemoryLimit", "ControlGroup")
    assert (shown["ActiveState"], shown["Slice"], shown["TasksMax"]) == ("active", "system.slice", "50")
    assert shown["MemoryMax" if V2 else "MemoryLimit"] == str(64 * MIB)
    pid = run("inspect", "--format", "{{.State.Pid}}", container)
    assert shown["ControlGroup"] == f"/system.slice/{unit}"
    assert shown["ControlGroup"] in Path(f"/proc/{pid}/cgroup").read_text()
    run("update", "--memory", "96m", "--memory-swap", "192m", container)
    assert _show(unit, "MemoryMax", "MemoryLimit")["MemoryMax" if V2 else "MemoryLimit"] == str(96 * MIB)
    assert run("exec", container, "echo", "hello") == "hello"
    run("pause", container)
    assert run("inspect", "--format", "{{.State.Status}}", container) == "paused"
    run("unpause", container)
    stats = run("stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", container)
    assert stats.split()[0] == "1" and "96MiB" in stats
    run("restart", "-t", "0", container)
    assert _show(unit, "ActiveState")["ActiveState"] == "active"
    run("rm", "-f", container)
    harness.eventually(lambda: unit not in _units())


@needs_systemd
def test_a_slice_of_ones_own(run: harness.Client) -> None:
    container = run("run", "-d", "--cgroup-parent", "satsumatest-web.slice", "busybox", "sleep", "1000")
    group = _show(f"satsuma-{container}.scope", "ControlGroup")["ControlGroup"]
    assert group == f"/satsumatest.slice/satsumatest-web.slice/satsuma-{container}.scope"
    run("rm", "-f", container)


@needs_systemd
def test_many_short_ones_leave_nothing(run: harness.Client) -> None:
    for _ in range(3):
        assert run("run", "--rm", "busybox", "echo", "hi") == "hi"
    assert run.run("run", "--rm", "busybox", "/nope", check=False).returncode == 127
    harness.eventually(lambda: _units() == [])


@needs_systemd
def test_out_of_memory(run: harness.Client) -> None:
    script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"
    done = run.run(
        "run",
        "--name",
        "hungry",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        script,
        check=False,
    )
    assert done.returncode == 137
    assert run("inspect", "--format", "{{.State.OOMKilled}}", "hungry") == "true"
    harness.eventually(lambda: _units() == [])
    run("rm", "hungry")


@needs_systemd
def test_the_daemon_dies_and_the_containers_are_found_again(
    engine: harness.Daemon, run: harness.Client
) -> None:
    container = run("run", "-d", "busybox", "sleep", "1000")
    unit = f"satsuma-{container}.scope"
    engine.kill()
    assert _show(unit, "ActiveState")["ActiveState"] == "active"
    engine.start()
    run("update", "--pids-limit", "33", container)
    assert _show(unit, "TasksMax")["TasksMax"] == "33"
    run("kill", container)
    harness.eventually(lambda: unit not in _units())
    run("rm", container)


def _monitor_of(run: harness.Client, container: str) -> int:
    pid = int(run("inspect", "--format", "{{.State.Pid}}", container))
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert "satsuma" in Path(f"/proc/{monitor}/cmdline").read_text()
    return monitor


@needs_systemd
def test_the_daemon_and_a_monitor_die_and_the_container_starts_again(
    engine: harness.Daemon, run: harness.Client
) -> None:
    container = run("run", "-d", "--memory", "64m", "busybox", "sleep", "1000")
    unit = f"satsuma-{container}.scope"
    monitor = _monitor_of(run, container)
    engine.kill()
    os.kill(monitor, signal.SIGKILL)
    engine.start()
    harness.eventually(lambda: run("inspect", "--format", "{{.State.Status}}", container) == "exited")
    harness.eventually(lambda: _units() == [])
    harness.eventually(lambda: harness.cgroup_directories(container) == [])
    run("start", container)
    assert _show(unit, "ActiveState")["ActiveState"] == "active"
    run("rm", "-f", container)
    harness.eventually(lambda: _units() == [])
    harness.eventually(lambda: harness.cgroup_directories(container) == [])


@needs_systemd
def test_a_killed_monitor_takes_its_scope_along(engine: harness.Daemon, run: harness.Client) -> None:
    container = run("run", "-d", "busybox", "sleep", "1000")
    os.kill(_monitor_of(run, container), signal.SIGKILL)
    harness.eventually(lambda: run("inspect", "--format", "{{.State.Status}}", container) == "exited")
    harness.eventually(lambda: _units() == [])
    run("rm", container)
