"""Flags of commands that change what is done, one by one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from oci_lab import ENV, Runtime, until

from harness import cgroup_directories
from satsuma.linux.cgroup import layout


def test_no_pivot_is_a_chroot_from_which_the_host_is_not_to_be_seen(box: Runtime) -> None:
    box.sh("pwd; ls /; cat /proc/self/mountinfo | wc -l; ls /proc/1/root/")
    out = box.output("--no-pivot")
    assert out.startswith("/\n") and "home" not in out and "bin" in out
    box.args("cat", "/proc/self/mountinfo")
    assert str(box.directory.parent) not in box.output("--no-pivot").split(" - ")[0].split()[4:]


def test_pidfd_socket(box: Runtime) -> None:
    path = box.directory / "pidfd.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    assert box.create("--pidfd-socket", str(path)).code == 0
    connection = listener.accept()[0]
    _, fds, _, _ = socket.recv_fds(connection, 100, 1)
    info = Path(f"/proc/self/fdinfo/{fds[0]}").read_text()
    assert f"Pid:\t{box.state()['pid']}\n" in info
    for thing in (listener, connection):
        thing.close()
    os.close(fds[0])


def test_session_keyring(box: Runtime) -> None:
    def keys(*flags: str) -> str:
        box.linux["maskedPaths"] = []
        box.args("cat", "/proc/keys")
        return box.output(*flags)

    # In this order: the kernel collects a key some time after its last user.
    assert f"_ses.{box.id}" not in keys("--no-new-keyring")
    assert f"_ses.{box.id}" in keys()


def test_run_detached_and_kept(box: Runtime) -> None:
    assert box.run("-d", "--pid-file", str(box.directory / "pid")).code == 0
    assert int((box.directory / "pid").read_text()) == box.state()["pid"]
    box.ok("delete", "-f", box.id)
    box.sh("exit 9")
    assert box.run("--keep").code == 9
    assert box.state()["status"] == "stopped"
    box.ok("delete", box.id)


def test_kill_all(box: Runtime) -> None:
    box.sh("sleep 1000 & sleep 1000 & wait")
    box.start()
    until(lambda: len(json.loads(box.ok("ps", "-f", "json", box.id))) == 3)
    box.ok("kill", "--all", box.id, "KILL")
    until(lambda: json.loads(box.ok("ps", "-f", "json", box.id)) == [])
    box.wait("stopped")


def test_kill_of_init_that_shares_its_processes_reaches_all(box: Runtime) -> None:
    box.without("pid")
    box.sh("sleep 1000 & sleep 1000 & wait")
    box.start()
    until(lambda: len(json.loads(box.ok("ps", "-f", "json", box.id))) == 3)
    box.ok("kill", box.id, "KILL")
    until(lambda: json.loads(box.ok("ps", "-f", "json", box.id)) == [])


def test_a_paused_container_can_be_killed_and_deleted(box: Runtime) -> None:
    box.start()
    box.ok("pause", box.id)
    box.ok("kill", box.id, "KILL")
    box.wait("stopped")
    box.ok("delete", box.id)
    box.start()
    box.ok("pause", box.id)
    box.ok("delete", "--force", box.id)


def test_exec_into_a_group_below(box: Runtime) -> None:
    box.start()
    group = next(path for path in cgroup_directories(box.id) if "/pids/" in path or layout().mode == "v2")
    below = Path(group, "below")
    below.mkdir()
    if layout().mode == "v2":
        assert box.ok("exec", "--cgroup", "below", box.id, "cat", "/proc/self/cgroup") == "0::/below\n"
        assert box.ok("exec", "--cgroup", "/", box.id, "cat", "/proc/self/cgroup") == "0::/\n"
        refused = box("exec", "--cgroup", "nope:below", box.id, "true").err
        assert "unknown controller nope" in refused
        below.rmdir()
        return
    out = box.ok("exec", "--cgroup", "pids:below", box.id, "cat", "/proc/self/cgroup")
    lines = dict(line.split(":", 2)[1:] for line in out.splitlines())
    assert lines["pids"].endswith("/below") and not lines["memory"].endswith("/below")
    assert "unknown controller nope" in box("exec", "--cgroup", "nope:x", box.id, "true").err
    assert "invalid --cgroup argument" in box("exec", "--cgroup", "a:b:c", box.id, "true").err
    result = box("exec", "--cgroup", "pids:missing", box.id, "true")
    assert result.code == 255 and f"{group}/missing: no such file or directory" in result.err
    below.rmdir()


def test_exec_from_a_process_file(box: Runtime) -> None:
    box.start()
    process = {**box.process, "args": ["sh", "-c", "id -u; pwd"], "cwd": "/tmp", "user": {"uid": 7, "gid": 8}}
    path = box.directory / "process.json"
    path.write_text(json.dumps(process))
    assert box.ok("exec", "--process", str(path), box.id).split() == ["7", "/tmp"]
    pid_file = box.directory / "exec.pid"
    process["args"] = ["sleep", "100"]
    path.write_text(json.dumps(process))
    box.ok("exec", "-d", "--pid-file", str(pid_file), "-p", str(path), box.id)
    assert int(pid_file.read_text()) in json.loads(box.ok("ps", "-f", "json", box.id))
    path.write_text("{")
    result = box("exec", "-p", str(path), box.id)
    assert result.code == 255 and "malformed process file" in result.err


def test_events_tell_of_statistics_and_of_memory_that_ran_out(box: Runtime) -> None:
    box.linux["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    box.sh("read x < /data/go; tail /dev/zero")
    (box.rootfs / "bin/tail").symlink_to("busybox")
    os.mkfifo(box.rootfs / "data/go")
    box.start()
    out = box.directory / "events"
    with open(out, "wb") as file:
        events = subprocess.Popen(box.argv("events", "--interval", "100ms", box.id), stdout=file, env=ENV)
    until(lambda: out.read_text().count("\n") >= 2)
    (box.rootfs / "data/go").write_text("\n")
    assert events.wait(15) == 0
    kinds = [json.loads(line)["type"] for line in out.read_text().splitlines()]
    assert kinds[:2] == ["stats", "stats"] and "oom" in kinds


WEIRD = [None, 0, -1, 1 << 70, "", "x\0", [], {}, [None], [[]], {"a": 1}, True, 1.5, "\udcff"]


@pytest.mark.parametrize(
    "key", ["args", "cwd", "env", "user", "capabilities", "rlimits", "scheduler", "terminal"]
)
def test_exec_of_a_hostile_process_file(box: Runtime, key: str) -> None:
    box.start()
    path = box.directory / "process.json"
    for value in WEIRD:
        process = {"args": ["true"], "cwd": "/", "env": ["A=b"], "user": {"uid": 0, "gid": 0}, key: value}
        path.write_text(json.dumps(process))
        result = box("exec", "--process", str(path), box.id, env={"LISTEN_FDS": "0"})
        assert result.code in (0, 255) and "internal" not in result.err, (value, result)
        assert result.code == 255 or key not in ("args", "cwd"), value
    for value in WEIRD:
        path.write_text(json.dumps(value))
        result = box("exec", "--process", str(path), box.id)
        assert result.code == 255 and "internal" not in result.err, (value, result)


@pytest.mark.parametrize(
    "words",
    [("events", "--interval", "soon", "ID"), ("exec", "-g", "audio", "ID", "id"), ("exec", "-g", "", "ID")],
)
def test_values_that_are_none_are_wrong_usage(box: Runtime, words: tuple[str, ...]) -> None:
    box.start()
    result = box(*(box.id if word == "ID" else word for word in words))
    assert result.code == 1 and result.out.startswith("Incorrect Usage: invalid value")


def test_debug_and_log_entries(box: Runtime) -> None:
    log = box.directory / "log"
    box.global_flags = ["--debug", "--log", str(log), "--log-format", "json"]
    box.args("nope")
    assert box.create().err == (
        "satsuma-oci create failed: unable to start container process: "
        'exec: "nope": executable file not found in $PATH\n'
    )
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["level"] == "error" and 'exec: "nope"' in last["msg"] and last["time"].endswith("Z")
    box.global_flags = ["--log", str(log), "--log-format", "text"]
    box("state", box.id)
    assert 'level=error msg="container does not exist"' in log.read_text().splitlines()[-1]


def test_foreground_run_passes_signals_on(box: Runtime) -> None:
    ready = box.rootfs / "ready"
    box.sh("trap 'exit 33' USR1; touch /ready; while :; do sleep 0.05; done")
    box.write()
    process = subprocess.Popen(box.argv("run", "-b", str(box.bundle), box.id), env=ENV)
    until(ready.exists)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(10) == 33


def test_help_of_every_command(box: Runtime) -> None:
    text = box.ok("--help")
    commands = [
        line.split()[0] for line in text.split("COMMANDS:")[1].split("GLOBAL")[0].splitlines() if line.strip()
    ]
    assert {
        "create",
        "start",
        "run",
        "exec",
        "state",
        "kill",
        "delete",
        "list",
        "ps",
        "pause",
        "resume",
    } <= set(commands)
    assert {"update", "events", "spec", "features", "checkpoint", "restore", "plan"} <= set(commands)
    for name in commands:
        shown = box.ok(name, "--help")
        assert shown == box.ok("help", name) and f"satsuma-oci {name}" in shown
        options = shown.split("OPTIONS:")[1].splitlines() if "OPTIONS:" in shown else []
        assert all(len(line.split("  ")) > 2 for line in options if line.strip()), name


def test_list_takes_directories_only_for_containers(box: Runtime) -> None:
    box.create()
    stray = box.root / "stray"
    stray.write_text("")
    try:
        result = box("list", "-q")
        assert (result.out.split(), result.err) == ([box.id], "")
    finally:
        stray.unlink()
