"""The program `satsuma-oci`, as managers call it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import cgroup_directories
from satsuma.runtime.features import example_spec

ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "src"}
APPLETS = "sh ls cat id true sleep env pwd kill tty stty readlink echo mount".split()


class Oci:
    """A bundle and a state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bundle = directory / "bundle"
        self.root = directory / "root"
        self.id = f"satsuma-test-{uuid.uuid4().hex[:8]}"
        binaries = self.bundle / "rootfs/bin"
        binaries.mkdir(parents=True)
        shutil.copy("/bin/busybox", binaries / "busybox")
        for name in APPLETS:
            (binaries / name).symlink_to("busybox")
        self.config = example_spec()
        self.config["process"]["terminal"] = False
        self.args("sleep", "100")

    def args(self, *args: str) -> None:
        self.config["process"]["args"] = list(args)

    def argv(self, *args: str) -> list[str]:
        (self.bundle / "config.json").write_text(json.dumps(self.config))
        return [sys.executable, "-m", "satsuma.runtime.cli", "--root", str(self.root), *args]

    def __call__(self, *args: str, stdin: str = "") -> tuple[int, str, str]:
        """Run one command; what it leaves running must not hold our pipes."""
        out, err = self.directory / "out", self.directory / "err"
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            done = subprocess.run(
                self.argv(*args),
                stdout=stdout,
                stderr=stderr,
                input=stdin.encode(),
                timeout=20,
                env=ENV,
                check=False,
            )
        return done.returncode, out.read_text(), err.read_text()

    def ok(self, *args: str, stdin: str = "") -> str:
        code, out, err = self(*args, stdin=stdin)
        assert code == 0, err
        return out

    def create(self, *flags: str) -> str:
        return self.ok("create", "--bundle", str(self.bundle), *flags, self.id)

    def run(self, *flags: str) -> tuple[int, str, str]:
        return self("run", "--bundle", str(self.bundle), *flags, self.id)

    def status(self) -> str:
        return json.loads(self.ok("state", self.id))["status"]

    def wait_status(self, wanted: str) -> None:
        deadline = time.monotonic() + 5
        while self.status() != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def oci(tmp_path: Path) -> Iterator[Oci]:
    made = Oci(tmp_path)
    yield made
    made("delete", "--force", made.id)
    assert not cgroup_directories(made.id)
    assert not made.root.exists() or not list(made.root.iterdir())


def test_life(oci: Oci) -> None:
    pid_file = oci.directory / "pid"
    oci.create("--pid-file", str(pid_file))
    state = json.loads(oci.ok("state", oci.id))
    assert (state["status"], state["pid"], state["bundle"]) == (
        "created",
        int(pid_file.read_text()),
        str(oci.bundle),
    )
    assert oci("create", "--bundle", str(oci.bundle), oci.id)[2].endswith(
        'container with given ID already exists"\n'
    )
    oci.ok("start", oci.id)
    assert oci.status() == "running"
    assert "cannot start an already running container" in oci("start", oci.id)[2]
    assert oci("delete", oci.id)[0] == 1
    oci.ok("pause", oci.id)
    assert oci.status() == "paused"
    assert oci("exec", oci.id, "true")[0] == 255
    oci.ok("resume", oci.id)
    assert oci.ok("exec", oci.id, "id").startswith("uid=0")
    assert oci("exec", oci.id, "sh", "-c", "exit 7")[0] == 7
    assert oci("exec", oci.id, "sh", "-c", "kill -9 $$")[0] == 137
    assert oci("exec", oci.id, "nope")[::2][0] == 255
    assert json.loads(oci.ok("ps", "--format", "json", oci.id)) == [state["pid"]]
    assert "sleep 100" in oci.ok("ps", oci.id)
    listed = json.loads(oci.ok("list", "-f", "json"))
    assert [entry["id"] for entry in listed] == [oci.id]
    oci.ok("kill", oci.id, "KILL")
    oci.wait_status("stopped")
    assert "container not running" in oci("kill", oci.id)[2]
    assert "cannot exec in a stopped container" in oci("exec", oci.id, "true")[2]
    oci.ok("delete", oci.id)
    assert "container does not exist" in oci("state", oci.id)[2]
    oci.ok("delete", "--force", oci.id)


def test_created_container_can_be_killed_and_deleted(oci: Oci) -> None:
    oci.create()
    oci.ok("kill", oci.id, "9")
    oci.wait_status("stopped")
    oci.ok("delete", oci.id)
    oci.create()
    oci.ok("delete", oci.id)


@pytest.mark.parametrize(
    ("args", "status"), [(["sh", "-c", "exit 5"], 5), (["sh", "-c", "kill -9 $$"], 137), (["true"], 0)]
)
def test_run_returns_the_programs_status(oci: Oci, args: list[str], status: int) -> None:
    oci.args(*args)
    if "kill" in args[-1]:
        # PID 1 is not killed by its own signals (pid_namespaces(7)); a child of it is.
        oci.args("sh", "-c", "sh -c 'kill -9 $$'; exit $?")
    assert oci.run()[0] == status


def test_run_forwards_signals(oci: Oci) -> None:
    oci.args("sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done")
    process = subprocess.Popen(
        oci.argv("run", "--bundle", str(oci.bundle), oci.id), stdout=subprocess.PIPE, env=ENV
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.wait(10) == 42
    process.stdout.close()


def test_errors_of_create_leave_nothing(oci: Oci) -> None:
    oci.args("nope")
    code, _, err = oci.run()
    assert code == 1
    assert (
        'satsuma-oci run failed: unable to start container process: exec: \\"nope\\": executable file not found in $PATH'
        in err
    )
    oci.config["root"]["path"] = "nope"
    assert "invalid rootfs: stat " in oci.run()[2]
    assert not list(oci.root.iterdir())


def test_log_file_in_json(oci: Oci) -> None:
    log = oci.directory / "log.json"
    code, _, err = oci("--log", str(log), "--log-format", "json", "state", oci.id)
    assert (code, err) == (1, "container does not exist\n")
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", "container does not exist")


def test_unsupported_flags_are_refused(oci: Oci) -> None:
    assert "not defined: -foo" in oci("create", "--foo", "x")[2]
    assert oci("checkpoint", oci.id)[0] == 1
    assert "criu" in oci("--criu", "/nonexistent", "restore", oci.id)[2]
    assert oci.ok("--version").startswith("satsuma-oci version")


def test_hooks(oci: Oci) -> None:
    log = oci.directory / "hooks"
    hooks = {}
    for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop"):
        script = f"echo {kind} $(pwd) $(cat) >> {log}"
        hooks[kind] = [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]
    hooks["startContainer"] = [{"path": "/bin/sh", "args": ["sh", "-c", "echo inside"]}]
    oci.config["hooks"] = hooks
    oci.config["root"]["readonly"] = False
    oci.args("echo", "program")
    code, out, err = oci.run()
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "program"
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ]
    states = [json.loads(line[2])["status"] for line in lines]
    assert states == ["created", "creating", "creating", "running", "stopped"]
    assert lines[0][1] == str(oci.bundle)
    assert json.loads(lines[2][2])["pid"] == 1


@pytest.mark.parametrize("kind", ["prestart", "createContainer", "startContainer", "poststart"])
def test_failing_hooks_fail_the_run(oci: Oci, kind: str) -> None:
    oci.config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo broken; exit 3"]}]}
    code, _, err = oci.run()
    assert code == 1
    assert f"error running {kind} hook #0: exit status 3, stdout: broken" in err


def test_hook_that_takes_too_long(oci: Oci) -> None:
    oci.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]}
    began = time.monotonic()
    assert "hook ran past specified timeout of 1.0s" in oci.run()[2]
    assert time.monotonic() - began < 5


def test_console_socket(oci: Oci) -> None:
    oci.config["process"]["terminal"] = True
    oci.config["process"]["consoleSize"] = {"height": 5, "width": 6}
    oci.args("sh", "-c", "tty; stty size; read x")
    assert "without setting console socket" in oci("create", "--bundle", str(oci.bundle), oci.id)[2]
    path = oci.directory / "socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    oci.create("--console-socket", str(path))
    connection = listener.accept()[0]
    name, fds, _, _ = socket.recv_fds(connection, 100, 1)
    assert name == b"/dev/ptmx"
    oci.ok("start", oci.id)
    data = b""
    while data.count(b"\n") < 2:
        data += os.read(fds[0], 100)
    assert data == b"/dev/pts/0\r\n5 6\r\n"
    for fd in (connection, listener):
        fd.close()
    os.close(fds[0])


def test_preserved_descriptors(oci: Oci) -> None:
    oci.args("sh", "-c", "cat <&3; ls /proc/self/fd; echo $LISTEN_FDS")
    read, write = os.pipe()
    os.write(write, b"passed\n")
    os.close(write)
    script = f'exec 3<&{read}; exec "$@"'
    argv = [
        "bash",
        "-c",
        script,
        "bash",
        *oci.argv("run", "--bundle", str(oci.bundle), "--preserve-fds", "1", oci.id),
    ]
    done = subprocess.run(
        argv, pass_fds=[read], capture_output=True, text=True, env=ENV, timeout=20, check=False
    )
    os.close(read)
    assert done.stdout.split() == ["passed", "0", "1", "2", "3", "4"], done.stderr


def test_update_and_events(oci: Oci) -> None:
    oci.create()
    oci.ok("start", oci.id)
    oci.ok("update", "--memory", "32M", "--memory-swap", "64M", "--pids-limit", "9", oci.id)
    oci.ok("update", "-r", "-", oci.id, stdin='{"cpu": {"shares": 77}}')
    stats = json.loads(oci.ok("events", "--stats", oci.id))
    assert stats["type"] == "stats"
    assert stats["data"]["memory"]["usage"]["limit"] == 32 << 20
    assert stats["data"]["pids"]["limit"] == 9
    saved = json.loads((oci.root / oci.id / "state.json").read_text())["config"]["linux"]["resources"]
    assert saved["cpu"] == {"shares": 77}
    oci.ok("kill", oci.id, "9")


def test_process_is_needed_only_at_start(oci: Oci) -> None:
    del oci.config["process"]
    oci.create()
    assert "process property must not be empty" in oci("start", oci.id)[2]


def test_namespaces_can_be_inherited_or_joined(oci: Oci) -> None:
    oci.args("sh", "-c", "for n in net uts ipc mnt; do readlink /proc/self/ns/$n; done")
    oci.config["linux"]["namespaces"] = [
        {"type": "mount"},
        {"type": "pid"},
        {"type": "uts", "path": "/proc/self/ns/uts"},
    ]
    code, out, err = oci.run()
    assert code == 0, err
    own = [os.readlink(f"/proc/self/ns/{name}") for name in ("net", "uts", "ipc", "mnt")]
    assert out.split()[:3] == own[:3] and out.split()[3] != own[3]
    oci.config["linux"]["namespaces"][2]["path"] = "/proc/self/ns/net"
    assert "is not of type uts" in oci.run()[2]


def test_no_mount_namespace_is_a_chroot(oci: Oci) -> None:
    oci.config["linux"] = {"namespaces": [{"type": "uts"}]}
    oci.config["mounts"] = []
    oci.config["root"]["readonly"] = False
    oci.args("pwd")
    assert oci.run() == (0, "/\n", "")


def test_root_propagation(oci: Oci) -> None:
    for wanted, text in (("shared", "shared:"), ("private", ""), ("slave", "")):
        oci.config["linux"]["rootfsPropagation"] = wanted
        oci.args("cat", "/proc/self/mountinfo")
        first = oci.run()[1].splitlines()[0]
        assert (text in first) if text else ("shared" not in first)


def test_spec_and_features_and_plan(oci: Oci) -> None:
    other = oci.directory / "other"
    other.mkdir()
    oci.ok("spec", "--bundle", str(other))
    assert json.loads((other / "config.json").read_text())["process"]["args"] == ["sh"]
    assert "File config.json exists. Remove it first" in oci("spec", "--bundle", str(other))[2]
    assert json.loads(oci.ok("features"))["linux"]["seccomp"]["enabled"] is True
    assert "pivot" in oci.ok("plan", "--bundle", str(oci.bundle))
