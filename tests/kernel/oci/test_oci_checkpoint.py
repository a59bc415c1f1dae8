"""`checkpoint` and `restore`, where CRIU works; CRIU may name another one than that of the PATH.

CRIU 3.17 of Debian 12 does not work on kernels from 6.6 on; 4.2 does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from oci_lab import ENV, Runtime, until

from satsuma.runtime import criu

CRIU = os.environ.get("CRIU", "criu")
COUNT = "i=0; while :; do i=$((i+1)); echo $i > /tmp/n; sleep 0.02; done"


@pytest.fixture(autouse=True)
def box(box: Runtime) -> Runtime:
    if why := criu.unusable(CRIU):
        pytest.skip(why)
    box.global_flags = ["--criu", CRIU]
    return box


def detached(box: Runtime, *args: str, **streams: object) -> int:
    """Run a command that leaves a container with no stream of ours that CRIU could not dump."""
    log = box.directory / "log"
    streams = {name: streams.get(name, subprocess.DEVNULL) for name in ("stdin", "stdout", "stderr")}
    argv = [*box.command, "--root", str(box.root), *box.global_flags, "--log", str(log), *args]
    return subprocess.run(argv, env=ENV, timeout=60, cwd=box.directory, check=False, **streams).returncode  # type: ignore[call-overload]


def run(box: Runtime, **streams: object) -> None:
    box.write()
    assert detached(box, "run", "-d", "-b", str(box.bundle), box.id, **streams) == 0


def count(box: Runtime) -> int:
    try:
        return int((box.rootfs / "tmp/n").read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0


def counted(box: Runtime, above: int = 5) -> int:
    until(lambda: count(box) > above)
    return count(box)


def dump(box: Runtime, *flags: str) -> None:
    box.ok("checkpoint", "--image-path", "images", "--work-path", "work", *flags, box.id)


def restore(box: Runtime, *flags: str, **streams: object) -> None:
    status = detached(
        box, "restore", "-d", "--image-path", "images", "--work-path", "work", "-b", str(box.bundle), *flags, box.id,
        **streams,
    )  # fmt: skip
    assert status == 0, (box.directory / "log").read_text()


def test_the_processes_go_on_where_they_stood(box: Runtime) -> None:
    box.sh(COUNT)
    box.linux["resources"]["pids"] = {"limit": 77}
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}],
    }
    (box.directory / "shared").mkdir()
    box.config["mounts"].append(
        {"destination": "/m", "type": "bind", "source": str(box.directory / "shared"), "options": ["rbind"]}
    )
    run(box)
    before = counted(box)
    old = box.state()["pid"]
    dump(box)
    assert not os.path.exists(f"/proc/{old}/exe")
    assert "does not exist" in box("state", box.id).err
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{box.id}"))
    held = count(box)
    restore(box, "--pid-file", "pid")
    assert counted(box, held) > before
    now = box.state()
    assert now["status"] == "running" and now["pid"] == int((box.directory / "pid").read_text())
    # A container like any other: limits, filter, namespaces, mounts, exec, signals.
    assert box.ok(
        "exec", box.id, "sh", "-c", "echo $$; hostname x 2>/dev/null || echo refused; echo y > /m/y"
    ).split()[1:] == ["refused"]
    assert (box.directory / "shared/y").read_text() == "y\n"
    assert box.ok("exec", box.id, "cat", "/proc/1/comm").strip() == "sh"
    limits = [path.read_text().strip() for path in Path("/sys/fs/cgroup").glob(f"*/{box.id}/pids.max")]
    assert limits == ["77"]
    box.ok("pause", box.id)
    box.ok("resume", box.id)
    box.ok("kill", box.id, "KILL")
    box.wait("stopped")
    box.ok("delete", box.id)


def test_left_running_and_restored_under_another_id(box: Runtime) -> None:
    box.sh(COUNT)
    run(box)
    counted(box)
    dump(box, "--leave-running")
    held = counted(box, count(box))
    assert box.state()["status"] == "running"
    box.ok("delete", "--force", box.id)
    (box.rootfs / "tmp/n").write_text("0")
    box.id = f"satsuma-test-{uuid.uuid4().hex[:8]}"
    restore(box)
    until(lambda: count(box) > held)


def test_dumped_in_steps(box: Runtime) -> None:
    box.sh(COUNT)
    run(box)
    counted(box)
    first = box("checkpoint", "--pre-dump", "--image-path", "first", "--work-path", "work", box.id)
    if "Tracking memory is not available" in first.err:
        assert first.code == 1 and box.state()["status"] == "running"
        pytest.skip("this kernel does not tell which pages have changed (CONFIG_MEM_SOFT_DIRTY)")
    assert first.code == 0, first
    held = counted(box, count(box))
    dump(box, "--parent-path", "../first")
    assert (box.directory / "images/parent").is_symlink()
    restore(box)
    counted(box, held)


def test_restored_in_the_foreground_with_the_pipe_it_had(box: Runtime) -> None:
    box.sh("read line; echo got $line > /tmp/n; exit 7")
    read, write = os.pipe()
    run(box, stdin=read)
    os.close(read)
    os.close(write)
    box.ok("delete", "--force", box.id)
    read, write = os.pipe()
    run(box, stdin=read)
    dump(box)
    os.close(read)
    os.close(write)
    read, write = os.pipe()
    argv = box.argv("restore", "--image-path", "images", "-b", str(box.bundle), box.id)
    restoring = subprocess.Popen(
        argv, env=ENV, cwd=box.directory, stdin=read, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(read)
    os.write(write, b"a line\n")
    os.close(write)
    assert restoring.wait(30) == 7
    assert (box.rootfs / "tmp/n").read_text() == "got a line\n"
    assert not list(box.root.iterdir())


def test_a_signal_reaches_what_is_restored_in_the_foreground(box: Runtime) -> None:
    box.sh("trap 'exit 9' USR1; " + COUNT)
    run(box)
    counted(box)
    dump(box)
    held = count(box)
    argv = box.argv("restore", "--image-path", "images", "-b", str(box.bundle), box.id)
    restoring = subprocess.Popen(
        argv, env=ENV, cwd=box.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    counted(box, held)
    restoring.send_signal(signal.SIGUSR1)
    assert restoring.wait(10) == 9


@pytest.mark.parametrize("userns", [False, True])
def test_a_terminal_comes_back_on_the_console_socket(box: Runtime, userns: bool) -> None:
    if userns:
        box.user_namespace()
        (box.rootfs / "tmp").chmod(0o777)
    path = box.directory / "console"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        box.process["terminal"] = True
        box.sh("while read line; do echo got $line; done")
        box.write()
        assert detached(box, "run", "-d", "--console-socket", str(path), "-b", str(box.bundle), box.id) == 0
        master = receive(listening)
        assert answer(master, b"one\n", b"got one")
        dump(box)
        os.close(master)
        restore(box, "--console-socket", str(path))
        master = receive(listening)
        assert answer(master, b"two\n", b"got two")
        os.close(master)


def receive(listening: socket.socket) -> int:
    listening.settimeout(10)
    connection, _ = listening.accept()
    with connection:
        return socket.recv_fds(connection, 100, 1)[1][0]


def answer(master: int, line: bytes, expected: bytes) -> bool:
    os.write(master, line)
    collected = b""
    while expected not in collected and select.select([master], [], [], 10)[0]:
        collected += os.read(master, 4096)
    return expected in collected


def test_hooks_run_as_for_a_new_container(box: Runtime) -> None:
    out = box.directory / "hooks"
    script = f"echo $1 $(grep -c . /proc/self/mounts) $(cat) >> {out}"
    box.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", script, "sh", kind], "env": ["PATH=/bin"]}]
        for kind in ("prestart", "createRuntime", "poststop")
    }
    box.sh(COUNT)
    run(box)
    counted(box)
    dump(box)
    assert [line.split()[0] for line in out.read_text().splitlines()] == [
        "prestart",
        "createRuntime",
        "poststop",
    ]
    out.unlink()
    restore(box)
    ran = [line.split(" ", 2) for line in out.read_text().splitlines()]
    assert [kind for kind, _, _ in ran] == ["prestart", "createRuntime"]
    assert {json.loads(document)["pid"] for _, _, document in ran} == {box.state()["pid"]}
    # They are at home in the host's mounts, not in those that CRIU works in.
    assert {int(mounts) for _, mounts, _ in ran} == {len(Path("/proc/self/mounts").read_text().splitlines())}


def test_a_network_namespace_that_was_given_by_path(box: Runtime) -> None:
    holder = subprocess.Popen(["unshare", "--net", "sleep", "100"])
    try:
        own = os.readlink("/proc/self/ns/net")
        until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own)
        box.namespace("network", f"/proc/{holder.pid}/ns/net")
        box.sh(COUNT)
        run(box)
        counted(box)
        dump(box)
        restore(box)
        there = os.readlink(f"/proc/{box.state()['pid']}/ns/net")
        assert there == os.readlink(f"/proc/{holder.pid}/ns/net")
    finally:
        holder.kill()
        holder.wait()


def test_what_cannot_be_says_so_and_leaves_nothing(box: Runtime) -> None:
    box.sh(COUNT)
    box.write()
    assert detached(box, "create", "-b", str(box.bundle), box.id) == 0
    assert "cannot be checkpointed in created state" in box("checkpoint", "--image-path", "x", box.id).err
    box.ok("start", box.id)
    for flags, text in (
        (["--manage-cgroups-mode", "some"], "invalid manage-cgroups-mode: some"),
        (["--empty-ns", "pid"], "namespace pid is not supported"),
        (["--page-server", "here"], "Use --page-server ADDRESS:PORT"),
        (["--parent-path", "/abs"], "--parent-path must be relative"),
    ):
        result = box("checkpoint", "--image-path", "x", *flags, box.id)
        assert result.code == 1 and text in result.err
    assert box.state()["status"] == "running"
    box.ok("delete", "--force", box.id)
    result = box("restore", "--image-path", "none", "-b", str(box.bundle), box.id)
    assert result.code == 1 and "no such file" in result.err
    (box.directory / "images").mkdir()
    result = box("restore", "--image-path", "images", "-b", str(box.bundle), box.id)
    assert result.code == 1 and "descriptors.json" in result.err
    (box.directory / "images/descriptors.json").write_text('["/dev/null"]')
    result = box("restore", "--image-path", "images", "--work-path", "work", "-b", str(box.bundle), box.id)
    assert result.code == 1 and "criu failed: " in result.err and "work/restore.log" in result.err
    assert not list(box.root.iterdir())


def test_a_file_of_the_host_as_stream_is_refused_and_the_container_runs_on(box: Runtime) -> None:
    box.sh(COUNT)
    box.start()  # its output goes to a file out here
    counted(box)
    result = box("checkpoint", "--image-path", "images", "--work-path", "work", box.id)
    assert result.code == 1 and "fd=1" in result.err
    counted(box, count(box))
    assert box.state()["status"] == "running"


@pytest.mark.parametrize("command", ["checkpoint", "restore"])
def test_a_runtime_that_is_killed_leaves_nothing_that_delete_does_not_remove(
    box: Runtime, command: str
) -> None:
    box.sh(COUNT)
    run(box)
    counted(box)
    if command == "restore":
        dump(box)
        args = ["restore", "-d", "--image-path", "images", "-b", str(box.bundle), box.id]
    else:
        args = ["checkpoint", "--image-path", "images", "--leave-running", box.id]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    began = time.monotonic()
    subprocess.run(box.argv(*args), env=ENV, cwd=box.directory, check=True, timeout=60, **quiet)  # type: ignore[call-overload]
    took = time.monotonic() - began
    for part in range(1, 12):
        if command == "restore":
            box.ok("delete", "--force", box.id)
            assert not list(Path("/sys/fs/cgroup").glob(f"*/{box.id}"))
            assert str(box.rootfs) not in Path("/proc/self/mountinfo").read_text()
        killed = subprocess.Popen(box.argv(*args), env=ENV, cwd=box.directory, **quiet)  # type: ignore[call-overload]
        time.sleep(took * part / 11)
        killed.kill()
        killed.wait()
    box.ok("delete", "--force", box.id)
    needle = str(box.rootfs).encode()
    until(lambda: not any(needle in mounts_of(pid) for pid in os.listdir("/proc") if pid.isdigit()))


def mounts_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/mountinfo").read_bytes()
    except OSError:
        return b""
