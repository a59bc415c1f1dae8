"""Further processes in a running container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runtime_lab import Lab

from satsuma.linux import pidfd, pty
from satsuma.runtime import exec as runtime_exec
from satsuma.runtime.config import parse
from satsuma.runtime.errors import StartFailed
from satsuma.runtime.plan import Extras


def test_exec_is_in_every_namespace_group_and_limit_of_the_container(lab: Lab) -> None:
    spec = lab.spec("sleep", "100")
    with lab.container(spec) as (init, group):
        script = "hostname; id -u; cat /proc/1/cmdline | tr '\\0' ' '; grep -E 'CapEff|Seccomp:' /proc/self/status; ls /proc/self/fd"
        status, out = lab.exec(init, group, spec, lab.spec("sh", "-c", script)["process"])
        assert status == 0
        lines = out.split("\n")
        assert lines[:2] == ["lab", "0"]
        assert lines[2].startswith("sleep 100")
        assert "00000000a80425fb" in out and "Seccomp:\t2" in out
        namespaces = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done"
        out = lab.exec(init, group, spec, lab.spec("sh", "-c", namespaces)["process"])[1]
        assert out.split() == [
            os.readlink(f"/proc/{init.pid}/ns/{n}") for n in ("cgroup", "ipc", "mnt", "net", "pid", "uts")
        ]
        # Before its first instruction it is in the group of every hierarchy.
        out = lab.exec(init, group, spec, lab.spec("cat", "/proc/self/cgroup")["process"])[1]
        assert {line.rpartition(":")[2] for line in out.split()} == {"/"}


def test_exit_statuses(lab: Lab) -> None:
    spec = lab.spec("sleep", "100")
    with lab.container(spec) as (init, group):
        assert lab.exec(init, group, spec, lab.spec("sh", "-c", "exit 7")["process"])[0] == 7
        assert lab.exec(init, group, spec, lab.spec("sh", "-c", "kill -9 $$")["process"])[0] == 137
        for args, code, text in ((["nope"], 127, "not found in $PATH"), (["/etc"], 126, "is a directory")):
            with pytest.raises(StartFailed, match="unable to start container process: exec: ") as caught:
                lab.exec(init, group, spec, lab.spec(*args)["process"])
            assert caught.value.exit_code == code and text in str(caught.value)


def test_user_directory_and_environment(lab: Lab) -> None:
    spec = lab.spec("sleep", "100")
    with lab.container(spec) as (init, group):
        process = lab.spec("sh", "-c", "id; pwd; echo $HOME", cwd="/tmp", user={"username": "bob"})["process"]
        out = lab.exec(init, group, spec, process)[1].splitlines()
        assert out == ["uid=1000(bob) gid=1000(bob) groups=29(audio),1000(bob)", "/tmp", "/home/bob"]
        for cwd in ("/proc/self/fd/5", "/proc/1/root", "/tmp/new"):
            with pytest.raises(StartFailed):
                lab.exec(init, group, spec, lab.spec("pwd", cwd=cwd)["process"])


def test_privileged_exec_gets_no_more_than_asked(lab: Lab) -> None:
    spec = lab.spec("sleep", "100")
    with lab.container(spec) as (init, group):
        process = lab.spec("grep", "CapEff", "/proc/self/status")["process"]
        process["capabilities"] = {
            "bounding": ["CAP_CHOWN"],
            "effective": ["CAP_CHOWN"],
            "permitted": ["CAP_CHOWN"],
        }
        assert lab.exec(init, group, spec, process)[1].endswith("0000000000000001\n")


def test_terminal_of_exec(lab: Lab) -> None:
    spec = lab.spec("sleep", "100")
    with lab.container(spec) as (init, group):
        process = lab.spec("sh", "-c", "tty; read x; echo got $x; stty size", terminal=True)["process"]
        made = runtime_exec.start_exec(init.pid, parse(spec), process, cgroup=group, console=(9, 99))
        assert made.console_master_fd is not None
        pty.set_size(made.console_master_fd, 10, 20)
        os.write(made.console_master_fd, b"abc\n")
        data = b""
        try:
            while chunk := os.read(made.console_master_fd, 4096):
                data += chunk
        except OSError:
            pass
        os.waitpid(made.pid, 0)
        os.close(made.pidfd)
        os.close(made.console_master_fd)
        assert b"/dev/pts/0" in data and b"got abc" in data and b"10 20" in data


def test_exec_in_a_stopped_container(lab: Lab) -> None:
    spec = lab.spec("true")
    with lab.container(spec) as (init, group):
        os.waitid(os.P_PIDFD, init.pidfd, os.WEXITED | os.WNOWAIT)
        with pytest.raises(StartFailed):
            runtime_exec.start_exec(
                init.pid, parse(spec), lab.spec("true")["process"], init_pidfd=init.pidfd, cgroup=group
            )


def test_our_own_namespaces_do_not_change(lab: Lab) -> None:
    kinds = os.listdir("/proc/self/ns")
    before = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    spec = lab.spec("sleep", "100")
    with lab.container(spec) as (init, group):
        fds = len(os.listdir("/proc/self/fd"))
        lab.exec(init, group, spec, lab.spec("true")["process"])
        with pytest.raises(StartFailed):
            lab.exec(init, group, spec, lab.spec("nope")["process"])
        assert len(os.listdir("/proc/self/fd")) == fds
    assert [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds] == before


SCANNER = """
while :; do
  for p in /proc/[0-9]*; do
    n=${p#/proc/}
    [ $n -gt 3 ] || continue
    readlink $p/exe $p/cwd $p/root >> /tmp/seen 2>/dev/null
    ls -l $p/fd >> /tmp/fds 2>/dev/null
    head -c 20 $p/environ >> /tmp/seen 2>/dev/null
  done
done
"""


def test_a_scanner_inside_never_sees_the_host(lab: Lab) -> None:
    overlay = lab.overlay()
    spec = lab.spec("sh", "-c", SCANNER)
    with lab.container(spec, overlay=overlay) as (init, group):
        for _ in range(60):  # a number, not a time: a slow machine tries as often
            assert lab.exec(init, group, spec, lab.spec("true")["process"])[0] == 0
        seen = (Path(overlay["upperdir"]) / "tmp/seen").read_text(errors="replace")
    assert "python" not in seen and "/usr" not in seen and "satsuma" not in seen


def test_pre_compiled_filter_and_frozen_half_way(lab: Lab) -> None:
    spec = lab.spec("sleep", "100")
    with lab.container(spec) as (init, group):
        group.freeze()
        launching = runtime_exec.begin_exec(
            init.pid,
            parse(spec),
            lab.spec("true")["process"],
            cgroup=group,
            extras=Extras(),
            stdio=(-1, -1, -1),
        )
        # A frozen group holds the new process up, and does not hold us.
        assert pidfd.is_alive(launching.init.pid)
        group.thaw()
        while not launching.step():
            pass
        os.waitpid(launching.init.pid, 0)
        os.close(launching.init.pidfd)


def test_container_that_manages_groups_of_its_own(lab: Lab) -> None:
    """systemd in a container moves itself into init.scope and hands out controllers: the top takes no more."""
    spec = lab.spec("sleep", "100")
    with lab.container(spec) as (init, group):
        unified = Path(group.dirs.get("") or "/nonexistent")
        top = unified.parents[1] / "cgroup.subtree_control"
        offered = (unified.parents[1] / "cgroup.controllers").read_text().split() if top.exists() else []
        if not offered:
            pytest.skip("no controller in the v2 hierarchy")
        handed = offered[0] in top.read_text().split()
        try:
            for path in (top, unified.parent / "cgroup.subtree_control"):
                path.write_text(f"+{offered[0]}")
            (unified / "init.scope").mkdir()
            (unified / "init.scope/cgroup.procs").write_text(str(init.pid))
            (unified / "cgroup.subtree_control").write_text(f"+{offered[0]}")
            out = lab.exec(init, group, spec, lab.spec("cat", "/proc/self/cgroup")["process"])[1]
            assert "0::/init.scope" in out.splitlines()
        finally:
            for path in (unified / "cgroup.subtree_control", unified.parent / "cgroup.subtree_control"):
                path.write_text(f"-{offered[0]}")
            if not handed:
                top.write_text(f"-{offered[0]}")
