"""Builds through the real clients: what RUN gets from the engine, the cache, exit codes, and a client that leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness


@pytest.fixture(autouse=True)
def nothing_stays(daemon: harness.Daemon) -> Iterator[None]:
    """A RUN that fails leaves its container behind."""
    yield
    daemon.remove_containers()


def write(directory: Path, dockerfile: str, **files: str) -> str:
    (directory / "Dockerfile").write_text(dockerfile)
    for name, content in files.items():
        (directory / name).write_text(content)
    return str(directory)


def test_run_is_a_container_like_any_other(client: harness.Client, tmp_path: Path) -> None:
    context = write(
        tmp_path,
        "FROM busybox\n"
        "RUN echo host=$(hostname) pid=$$ && ulimit -n && df /dev/shm | tail -n 1 && grep foo /etc/hosts\n"
        "RUN ! mount -t tmpfs x /mnt 2>/dev/null && ! touch /proc/sys/kernel/hostname 2>/dev/null && echo confined\n"
        "RUN ip route | grep -c default && ping -c 1 -w 5 $(ip route | awk '/default/ {print $3}') >/dev/null && echo network\n",
    )
    done = client.run(
        "build",
        "--no-cache",
        "--ulimit",
        "nofile=100:200",
        "--shm-size",
        "5m",
        "--add-host",
        "foo:1.2.3.4",
        context,
    )
    text = done.stdout
    step = re.search(r"Running in ([0-9a-f]{12})", text)
    assert step
    assert f"host={step[1]} pid=1\n100\n" in text
    assert re.search(r"shm +5120 ", text)
    assert "1.2.3.4" in text
    assert "confined" in text
    assert "network" in text


def test_network_none(client: harness.Client, tmp_path: Path) -> None:
    context = write(tmp_path, "FROM busybox\nRUN ls /sys/class/net | tr '\\n' ' '\n")
    assert "\nlo ---> " in client("build", "--no-cache", "--network", "none", context).replace(
        "lo  --->", "lo --->"
    )


def test_memory_limit_binds(satsuma: harness.Client, tmp_path: Path) -> None:
    context = write(tmp_path, "FROM busybox\nRUN head -c 200m /dev/zero | tail -c 150m | wc -c\n")
    done = satsuma.run("build", "--no-cache", "--memory", "32m", context, check=False)
    assert "157286400" not in done.stdout


def test_what_engine_files_hold_is_not_in_the_image(client: harness.Client, tmp_path: Path) -> None:
    context = write(
        tmp_path,
        "FROM busybox\nRUN cat /etc/hosts /etc/hostname /etc/resolv.conf >/dev/null; echo x > /mark\n",
    )
    client("build", "--no-cache", "-t", "marked", context)
    sizes = client("history", "--human=false", "--format", "{{.Size}}", "marked").split()
    assert sizes[0] == "2"
    client("rmi", "marked")


def test_a_changed_file_breaks_the_cache_and_a_touched_one_does_not(
    client: harness.Client, tmp_path: Path
) -> None:
    context = write(
        tmp_path, "FROM busybox\nCOPY data /d\nRUN cat /d\n", data="one", **{".dockerignore": "noise\n"}
    )
    client("build", "-t", "cached", context)
    os.utime(tmp_path / "data", (1, 1))
    (tmp_path / "noise").write_text(str(time.time()))
    assert client("build", "-t", "cached", context).count("Using cache") == 2
    (tmp_path / "data").write_text("two")
    assert client("build", "-t", "cached", context).count("Using cache") == 0
    client("rmi", "cached")


def test_id_file_and_quiet(client: harness.Client, tmp_path: Path) -> None:
    context = write(tmp_path, "FROM busybox\nLABEL x=y\n")
    file = tmp_path / "id"
    client("build", "--iidfile", str(file), context)
    assert file.read_text() == client("build", "-q", context).strip()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", file.read_text())


@pytest.mark.parametrize(("line", "code"), [("exit 7", 7), ("nosuchcommand", 127)])
def test_the_command_decides_the_exit_code(
    client: harness.Client, tmp_path: Path, line: str, code: int
) -> None:
    done = client.run("build", "--no-cache", write(tmp_path, f"FROM busybox\nRUN {line}\n"), check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert f"returned a non-zero code: {code}" in done.stderr


def test_the_container_of_a_failed_step_stays(client: harness.Client, tmp_path: Path) -> None:
    """Whoever wants to know why can look into it; `--force-rm` is for the others."""
    context = write(tmp_path, "FROM busybox\nRUN touch /made && false\n")
    done = client.run("build", "--no-cache", context, check=False)
    step = re.search(r"Running in (\w{12})", done.stdout)
    assert done.returncode == 1 and step and "Removed intermediate container" not in done.stdout
    assert client("ps", "-aq") == step[1]
    assert client("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.Path}} {{.Args}}", step[1]) == (
        "exited 1 /bin/sh [-c touch /made && false]"
    )
    assert client("diff", step[1]) == "A /made"
    client("commit", step[1], "left")
    assert client("run", "--rm", "left", "ls", "/made") == "/made"
    assert client.run("start", "-a", step[1], check=False).returncode == 1
    client("rm", step[1])
    client("rmi", "left")
    assert client.run("build", "--no-cache", "--force-rm", context, check=False).returncode == 1
    assert client("ps", "-aq") == ""


def test_without_rm_every_step_stays(client: harness.Client, tmp_path: Path) -> None:
    context = write(tmp_path, "FROM busybox\nRUN touch /one\nRUN touch /two\n")
    done = client.run("build", "--no-cache", "--rm=false", "-t", "kept", context)
    assert "Removed intermediate container" not in done.stdout
    assert sorted(client("ps", "-aq").split()) == sorted(re.findall(r"Running in (\w{12})", done.stdout))
    assert client("diff", client("ps", "-lq")) == "A /two"
    # The layer was copied, not taken away from the container.
    assert client("run", "--rm", "kept", "ls", "/one", "/two") == "/one\n/two"


def test_a_client_that_leaves_ends_the_step(
    client: harness.Client, daemon: harness.Daemon, tmp_path: Path
) -> None:
    context = write(tmp_path, "FROM busybox\nRUN echo started && sleep 98765\n")
    process = client.popen("build", "--no-cache", context, stdout=subprocess.PIPE)
    assert process.stdout
    for line in process.stdout:
        if line.startswith(b"started"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    def gone() -> bool:
        return (
            subprocess.run(["pgrep", "-f", "sleep 98765"], capture_output=True, check=False).returncode == 1
        )

    harness.eventually(gone, limit=20, message="the step of a client that left still runs")
    workspaces = daemon.data_root / "build" / "tmp"
    harness.eventually(lambda: not os.listdir(workspaces), limit=20, message="the build left its workspace")
