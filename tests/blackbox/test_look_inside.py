"""Looking at containers and steering them: logs, events, cp, attach, top, wait, rename, kill, exec."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness


@pytest.fixture
def box(client: harness.Client) -> Iterator[str]:
    """A container that only sleeps, and ends at once on TERM."""
    container = client("run", "-d", "busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    yield container
    client.run("rm", "-f", "-v", container, check=False)


def test_logs_tail_since_timestamps_follow(client: harness.Client) -> None:
    container = client("run", "-d", "busybox", "sh", "-c", "seq 1 5; sleep 1; seq 6 8; sleep 1")
    try:
        follow = client.popen("logs", "-f", container, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert follow.communicate(timeout=60)[0].decode().split() == [str(n) for n in range(1, 9)]
        assert client("logs", "--tail", "2", container).split() == ["7", "8"]
        stamped = client("logs", "-t", container).splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z \d$", line) for line in stamped)
        middle = stamped[5].split()[0]
        assert client("logs", "--since", middle, container).split() == ["6", "7", "8"]
        assert client("logs", "--until", middle, "--tail", "all", container).split()[:5] == list("12345")
    finally:
        client("rm", "-f", container)


def test_events_in_order(client: harness.Client) -> None:
    since = str(time.time())
    client("run", "--rm", "--name", "eventful", "busybox", "true")
    harness.eventually(lambda: client.run("inspect", "eventful", check=False).returncode == 1)
    until = str(time.time() + 0.01)
    lines = client(
        "events",
        "--since",
        since,
        "--until",
        until,
        "--filter",
        "container=eventful",
        "--format",
        "{{json .}}",
    ).splitlines()
    actions = [json.loads(line)["Action"] for line in lines]
    assert [action for action in actions if action in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]
    assert actions.index("attach") < actions.index("start")
    died = next(json.loads(line) for line in lines if json.loads(line)["Action"] == "die")
    assert (
        died["Actor"]["Attributes"]["exitCode"] == "0" and died["Actor"]["Attributes"]["name"] == "eventful"
    )


def test_wait_kill_stop_start_restart(client: harness.Client, box: str) -> None:
    waiting = client.popen("wait", box, stdout=subprocess.PIPE)
    client("kill", "-s", "KILL", box)
    assert waiting.communicate(timeout=60)[0].strip() == b"137"
    assert client("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", box) == "exited 137"
    client("start", box)
    assert client("stop", "-t", "20", box) == box
    assert client("inspect", "--format", "{{.State.ExitCode}}", box) == "0"
    client("restart", "-t", "20", box)
    assert client("inspect", "--format", "{{.State.Running}}", box) == "true"
    done = client.run("kill", "-s", "NONSENSE", box, check=False)
    assert done.returncode == 1 and "nvalid signal: NONSENSE" in done.stderr


def test_stop_kills_what_does_not_end(client: harness.Client) -> None:
    container = client("run", "-d", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    client("stop", "-t", "1", container)
    assert client("inspect", "--format", "{{.State.ExitCode}}", container) == "137"
    client("rm", container)


def test_rename(client: harness.Client, box: str) -> None:
    client("rename", box, "renamed-box")
    assert client("inspect", "--format", "{{.Name}}", "renamed-box") == "/renamed-box"
    assert client("ps", "-q", "--filter", "name=renamed-box", "--no-trunc") == box


def test_top_shows_host_pids(client: harness.Client, box: str) -> None:
    lines = client("top", box, "-eo", "pid,comm").splitlines()
    assert lines[0].split() == ["PID", "COMMAND"]
    assert client("inspect", "--format", "{{.State.Pid}}", box) in [line.split()[0] for line in lines[1:]]


def test_diff_kinds(client: harness.Client) -> None:
    container = client(
        "run", "-d", "busybox", "sh", "-c", "rm /etc/group; echo x >>/etc/passwd; mkdir /new; sleep 100"
    )
    try:
        expected = {"C /etc", "D /etc/group", "C /etc/passwd", "A /new"}
        harness.eventually(lambda: set(client("diff", container).splitlines()) == expected)
    finally:
        client("rm", "-f", container)


def test_cp_both_ways(client: harness.Client, box: str, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("content\n")
    (source / "link").symlink_to("sub/file")
    client("cp", str(source), f"{box}:/tmp/copy")
    assert client("exec", box, "cat", "/tmp/copy/sub/file", "/tmp/copy/link") == "content\ncontent"
    client("cp", f"{box}:/tmp/copy/.", str(tmp_path / "back"))
    assert (tmp_path / "back" / "sub" / "file").read_text() == "content\n"
    assert (tmp_path / "back" / "link").is_symlink()
    with subprocess.Popen(
        [client.argv0, "cp", f"{box}:/tmp/copy", "-"], env=client.environment, stdout=subprocess.PIPE
    ) as process:
        data = process.stdout.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert "copy/sub/file" in tar.getnames()
    done = client.run("cp", f"{box}:/not/there", str(tmp_path), check=False)
    assert done.returncode == 1 and "Could not find the file /not/there in container" in done.stderr


def test_cp_into_a_stopped_container_and_its_volume(client: harness.Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("in volume\n")
    container = client("create", "-v", "/data", "busybox", "cat", "/data/f", "/etc/f")
    try:
        client("cp", str(tmp_path / "f"), f"{container}:/data/f")
        client("cp", str(tmp_path / "f"), f"{container}:/etc/f")
        assert client("start", "-a", container) == "in volume\nin volume"
    finally:
        client("rm", "-v", container)


def test_cp_out_through_a_link_of_the_container_stays_inside(client: harness.Client, tmp_path: Path) -> None:
    container = client(
        "run", "-d", "busybox", "sh", "-c", "ln -s /etc/shadow /tmp/evil; ln -s / /tmp/root; sleep 100"
    )
    try:
        harness.eventually(
            lambda: client.run("exec", container, "test", "-L", "/tmp/root", check=False).returncode == 0
        )
        client.run("cp", "-L", f"{container}:/tmp/evil", str(tmp_path / "out"), check=False)
        if (tmp_path / "out").exists():
            assert (tmp_path / "out").read_bytes() != Path("/etc/shadow").read_bytes()
        client("cp", f"{container}:/tmp/root/etc/passwd", str(tmp_path / "passwd"))
        assert (tmp_path / "passwd").read_bytes() != Path("/etc/passwd").read_bytes()
    finally:
        client("rm", "-f", container)


def test_attach_sees_output_and_sends_input(client: harness.Client) -> None:
    container = client(
        "run",
        "-d",
        "-i",
        "busybox",
        "sh",
        "-c",
        "while read line; do [ $line = quit ] && exit; echo got $line; done",
    )
    try:
        process = client.popen("attach", container, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None and process.stdout is not None
        for word in (b"one", b"two"):
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"got " + word + b"\n"
        process.communicate(b"quit\n", timeout=60)
    finally:
        client("rm", "-f", container)


def test_signals_are_proxied(client: harness.Client) -> None:
    process = client.popen(
        "run",
        "--rm",
        "--name",
        "proxied",
        "busybox",
        "sh",
        "-c",
        "trap 'echo term; exit 6' TERM; echo up; while :; do sleep 0.1; done",
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == b"term\n"
    assert process.returncode == 6


def test_exec_detached_and_environment_file(client: harness.Client, box: str, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("FROM_FILE=yes\n")
    assert client("exec", "--env-file", str(file), box, "sh", "-c", "echo $FROM_FILE") == "yes"
    client("exec", "-d", box, "sh", "-c", "echo detached >/tmp/d")
    harness.eventually(lambda: client.run("exec", box, "cat", "/tmp/d", check=False).stdout == "detached\n")
    privileged = client("exec", "--privileged", box, "grep", "CapEff", "/proc/self/status")
    assert privileged.split()[1] > "00000000a80425fb"
    for command, status in ((["nope"], 127), (["/etc"], 126)):
        done = client.run("exec", box, *command, check=False)
        assert done.returncode == status, done.stderr


def test_commit_options(client: harness.Client, box: str) -> None:
    image = client(
        "commit",
        "-a",
        "A <a@b>",
        "-m",
        "why",
        "-p=false",
        "-c",
        'CMD ["echo", "changed"]',
        "-c",
        "LABEL l=v",
        box,
        "opt:1",
    )
    try:
        assert client("run", "--rm", "opt:1") == "changed"
        data = json.loads(client("inspect", image))[0]
        assert (data["Author"], data["Comment"], data["Config"]["Labels"]) == ("A <a@b>", "why", {"l": "v"})
    finally:
        client("rmi", "opt:1")


def test_prune_removes_only_what_is_unused(client: harness.Client, box: str) -> None:
    dead = client("create", "--label", "prune-me=1", "busybox")
    assert dead in client("container", "prune", "-f", "--filter", "label=prune-me=1")
    assert client.run("inspect", dead, check=False).returncode == 1
    assert client("inspect", "--format", "{{.State.Running}}", box) == "true"
    client("volume", "create", "--label", "prune-me=1", "prunable")
    assert "prunable" in client("volume", "prune", "-f", "-a", "--filter", "label=prune-me=1")
    client("build", "-q", "-t", "dangle", "-", input="FROM busybox\nLABEL d=1\n")
    client("build", "-q", "-t", "dangle", "-", input="FROM busybox\nLABEL d=2\n")
    assert client("images", "-q", "--filter", "dangling=true")
    client("image", "prune", "-f")
    assert not client("images", "-q", "--filter", "dangling=true")
    client("rmi", "dangle")


def test_inspect_templates(client: harness.Client, box: str) -> None:
    assert client(
        "inspect",
        "--format",
        "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}:{{$v.Gateway}}{{end}}",
        box,
    ).startswith("bridge:")
    assert (
        client("inspect", "--format", '{{len .Args}} {{index .Args 0}} {{.State.Running | printf "%v"}}', box)
        == "2 -c true"
    )
    assert client(
        "inspect", "--format", "{{if .State.Running}}up{{else}}down{{end}} {{json .Config.Cmd}}", box
    ).startswith('up ["sh","-c",')
    done = client.run("inspect", "--format", "{{.Nothing.Here}}", box, check=False)
    assert done.returncode == 1 and "Nothing" in done.stderr
    size = json.loads(client("inspect", "-s", box))[0]
    assert size["SizeRootFs"] >= size["SizeRw"] >= 0


def test_stats_stream_and_system_commands(client: harness.Client, box: str) -> None:
    assert "Server" in client("version")
    assert "Server Version" in client("info") or "Server:" in client("info")
    assert client("system", "df").splitlines()[0].split()[0] == "TYPE"
    line = client("stats", "--no-stream", "--format", "{{json .}}", box)
    assert int(json.loads(line)["PIDs"]) >= 1


def test_a_container_with_rm_is_restarted_and_then_removed(client: harness.Client) -> None:
    client("run", "-d", "--rm", "--name", "again", "busybox", "sleep", "1000")
    client("exec", "again", "touch", "/kept")
    for _ in range(2):
        client("restart", "-t", "0", "again")
        assert client("exec", "again", "ls", "/kept") == "/kept"
    client("cp", "again:/kept", "-")
    client("stop", "-t", "0", "again")
    harness.eventually(lambda: client.run("inspect", "again", check=False).returncode == 1)


def test_logs_right_after_the_start_have_what_was_printed(client: harness.Client) -> None:
    for script, text in (
        ("echo a; echo b", "a\nb"),
        ("echo first; exec sleep 1000", "first"),
        ("exec sleep 1000", ""),
    ):
        container = client("run", "-d", "busybox", "sh", "-c", script)
        try:
            # dockerd makes no promise; its answer to the start comes late enough as a rule.
            assert harness.REFERENCE or client("logs", container) == text
        finally:
            client("rm", "-f", container)
