"""A first process that is born ahead of time becomes the same container as one that is not."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest
from runtime_lab import Lab

from satsuma.linux import ns, pidfd, seccomp, syscall_table, syscalls
from satsuma.runtime import birth, execcradle
from satsuma.runtime import cradle as cradles
from satsuma.runtime.config import parse
from satsuma.runtime.cradle import Cradle
from satsuma.runtime.errors import StartFailed
from satsuma.runtime.exec import begin_exec, get_ready
from satsuma.runtime.execcradle import ExecCradle
from satsuma.runtime.plan import Extras
from satsuma.runtime.seccomp_profile import default_profile
from satsuma.runtime.trace import Trace

pytestmark = pytest.mark.skipif(not cradles.possible(), reason="a v2 group takes a process at its birth only")

LOOK = """
id; hostname; pwd; umask; env; cat /proc/self/cgroup; grep -v Ctxt /proc/$$/status | grep -E "Cap|Sec|NoNew|Sig[BCI]|Umask"
ls -l /proc/self/fd | wc -l; echo /proc/[0-9]*; cut -d" " -f4- /proc/self/mountinfo
ls -ln /dev | cut -c1-10; cat /proc/sys/kernel/random/boot_id >/dev/null; echo x >/proc/sys/kernel/hostname; ulimit -n
"""


def spec(lab: Lab, *args: str) -> dict:
    """Docker's container on the host's network: a new network namespace always comes ready-made."""
    made = lab.spec(*args)
    made["linux"]["namespaces"] = [n for n in made["linux"]["namespaces"] if n["type"] != "network"]
    made["linux"]["sysctl"] = {}
    return made


def kill(cradle: Cradle) -> None:
    """Kill a process and wait until it is dead; its parent is still to reap it."""
    pidfd.send_signal(cradle.pidfd, signal.SIGKILL)
    dying = select.poll()
    dying.register(cradle.pidfd, select.POLLIN)
    assert dying.poll(10_000)


def plain(output: str) -> list[str]:
    """Leave out what differs between any two containers."""
    return [line for line in output.splitlines() if "overlay" not in line and not line.startswith("d")]


def test_it_is_the_same_container(lab: Lab) -> None:
    cold_status, cold = lab.run(spec(lab, "sh", "-c", LOOK))
    cradle = Cradle()
    warm_status, warm = lab.run(spec(lab, "sh", "-c", LOOK), cradle=cradle)
    assert cradle.used
    assert (warm_status, plain(warm)) == (cold_status, plain(cold))
    assert "uid=0" in warm


def test_it_sees_mounts_that_are_younger_than_itself(lab: Lab, tmp_path) -> None:
    source = tmp_path / "late"
    source.mkdir()
    cradle = Cradle()
    time.sleep(0.05)
    os.system(f"mount -t tmpfs late {source}")
    try:
        (source / "file").write_text("young")
        made = spec(lab, "cat", "/late/file")
        made["mounts"].append(
            {"destination": "/late", "type": "bind", "source": str(source), "options": ["bind", "ro"]}
        )
        assert lab.run(made, cradle=cradle) == (0, "young")
        assert cradle.used
    finally:
        os.system(f"umount {source}")


def test_a_failed_start_leaves_nothing(lab: Lab) -> None:
    cradle = Cradle()
    with pytest.raises(StartFailed, match="executable file not found") as failure:
        lab.run(spec(lab, "nope"), cradle=cradle)
    assert failure.value.exit_code == 127
    assert cradle.used
    assert not pidfd.is_alive(cradle.pid)


def test_one_that_has_died_is_replaced(lab: Lab) -> None:
    cradle = Cradle()
    kill(cradle)
    assert lab.run(spec(lab, "echo", "hello"), cradle=cradle) == (0, "hello\n")


def test_one_that_does_not_fit_stays(lab: Lab) -> None:
    cradle = Cradle()
    try:
        made = spec(lab, "echo", "hello")
        made["linux"]["namespaces"] = [n for n in made["linux"]["namespaces"] if n["type"] != "ipc"]
        made["mounts"] = [m for m in made["mounts"] if m["type"] != "mqueue"]
        assert lab.run(made, cradle=cradle) == (0, "hello\n")
        assert not cradle.used
    finally:
        cradle.close()


def test_one_that_is_too_old_is_not_used(lab: Lab, monkeypatch) -> None:
    cradle = Cradle()
    try:
        monkeypatch.setattr(cradles, "MAX_AGE_NS", 0)
        assert lab.run(spec(lab, "echo", "hello"), cradle=cradle) == (0, "hello\n")
        assert not cradle.used
    finally:
        cradle.close()


def test_more_than_a_message_holds(lab: Lab) -> None:
    made = spec(lab, "sh", "-c", "echo ${#LONG}")
    made["process"]["env"].append("LONG=" + "x" * 100_000)
    made["annotations"] = {"long": "y" * 100_000}
    assert lab.run(made, cradle=Cradle()) == (0, "100000\n")


def test_it_ends_with_its_parent() -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.write(write, str(Cradle().pid).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    child = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    deadline = time.monotonic() + 2
    while pidfd.is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not pidfd.is_alive(child)


def test_it_keeps_no_descriptor_of_its_parent() -> None:
    read, write = os.pipe()
    cradle = Cradle()
    os.close(write)
    try:
        assert os.read(read, 1) == b""
    finally:
        os.close(read)
        cradle.close()


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def joined(helper: ExecCradle, init) -> bool:
    """Say whether a helper is in the namespaces of the container."""
    return ns.ns_inode(helper.pid, "mnt") == ns.ns_inode(init.pid, "mnt")


def process(args: list[str], **more) -> dict:
    return {"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}} | more


def exec_status(
    init, group, made: dict, args: list[str], helper: ExecCradle | None, extras: Extras | None = None, **more
) -> tuple[int, str]:
    """Run a further process in a container; return (status, output)."""
    read, write = os.pipe()
    launching = begin_exec(
        init.pid,
        parse(made),
        process(args, **more),
        init_pidfd=init.pidfd,
        extras=extras,
        stdio=(-1, write, write),
        cgroup=group,
        cradle=helper,
    )
    try:
        while not launching.step():
            pass
    finally:
        os.close(write)
    output = b""
    while chunk := os.read(read, 65536):
        output += chunk
    os.close(read)
    done = os.waitid(os.P_PIDFD, launching.init.pidfd, os.WEXITED)
    os.close(launching.init.pidfd)
    return done.si_status, output.decode()


def tell(
    init,
    group,
    made: dict,
    args: list[str],
    helper: ExecCradle,
    *,
    commit: bool = True,
    extras: Extras | None = None,
    **more,
) -> None:
    """Tell a helper what will probably be asked for."""
    get_ready(
        init.pid,
        parse(made),
        process(args, **more),
        extras=extras,
        cgroup=group,
        cradle=helper,
        init_pidfd=init.pidfd,
    )
    if commit:
        helper.commit()


def running(lab: Lab) -> dict:
    made = spec(lab, "sleep", "1000")
    made["linux"].pop("seccomp")
    return made


SELF = [
    "sh",
    "-c",
    "id; pwd; umask; env; ulimit -n; cat /proc/self/oom_score_adj; cat /proc/self/cgroup; "
    "grep -E 'Cap|Sec|NoNew|Sig[BCI]' /proc/self/status; "
    "ls -l /proc/self/ns | cut -d'>' -f2; ls -l /proc/self/fd | wc -l; cat </dev/stdin; echo >/dev/stderr",
]
USER = {"user": {"uid": 1000, "gid": 1000, "additionalGids": [7]}, "cwd": "/tmp", "oomScoreAdj": 300}
LIMITED = {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 30}]}
STRICT = {"noNewPrivileges": True, "user": {"uid": 1000, "gid": 1000}}


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("more", [{}, USER, LIMITED, STRICT], ids=["root", "user", "limited", "strict"])
def test_an_exec_with_a_helper_is_the_same(lab: Lab, more: dict, told: bool) -> None:
    made = running(lab)
    first, helper = Cradle(), ExecCradle()
    with lab.container(made, cradle=first) as (init, group):
        assert first.used
        cold = exec_status(init, group, made, SELF, None, **more)
        if told:
            tell(init, group, made, SELF, helper, **more)
            until(lambda: joined(helper, init))
        warm = exec_status(init, group, made, SELF, helper, **more)
        assert helper.used
        assert warm == cold
        assert warm[0] == 0
        assert "uid=" in warm[1]
        assert ("\n300\n" in warm[1]) == ("oomScoreAdj" in more)


def test_a_helper_that_waits_in_the_container_is_not_of_it(lab: Lab) -> None:
    made = running(lab)
    helper = ExecCradle()
    try:
        with lab.container(made, cradle=Cradle()) as (init, group):
            look = ["sh", "-c", "set -- /proc/[0-9]*; echo $#"]
            before = exec_status(init, group, made, look, None)
            tell(init, group, made, ["id"], helper, **USER)
            until(lambda: joined(helper, init))
            assert exec_status(init, group, made, look, None) == before
            assert helper.pid not in group.pids()
            assert os.stat(f"/proc/{helper.pid}/environ").st_uid == 0, "it can be traced"
    finally:
        helper.close()


def test_a_helper_waits_for_what_it_was_told(lab: Lab) -> None:
    """It has become a user, and cannot be another one."""
    made = running(lab)
    helper = ExecCradle()
    with lab.container(made, cradle=Cradle()) as (init, group):
        tell(init, group, made, ["id", "-u"], helper, **USER)
        until(lambda: joined(helper, init))
        assert exec_status(init, group, made, ["id", "-u"], helper) == (0, "0\n")
        assert not helper.used
        assert helper.waits
        assert exec_status(init, group, made, ["id", "-u"], helper, **USER) == (0, "1000\n")
        assert helper.used


def test_what_a_helper_found_long_ago_counts_no_more(lab: Lab, monkeypatch) -> None:
    made = running(lab)
    helper = ExecCradle()
    try:
        with lab.container(made, cradle=Cradle()) as (init, group):
            tell(init, group, made, ["echo", "a"], helper)
            monkeypatch.setattr(execcradle, "FRESH_NS", 0)
            assert exec_status(init, group, made, ["echo", "a"], helper) == (0, "a\n")
            assert not helper.used
            assert not helper.waits
    finally:
        helper.close()


@pytest.mark.parametrize("exists", [False, True])
def test_what_failed_ahead_is_tried_again(lab: Lab, exists: bool) -> None:
    made = running(lab)
    helper = ExecCradle()
    late = {"cwd": "/tmp/late", "user": {"uid": 0, "gid": 0, "username": "late"}}
    with lab.container(made, cradle=Cradle()) as (init, group):
        tell(init, group, made, ["sh", "-c", "pwd; id -u"], helper, **late)
        until(lambda: joined(helper, init))
        if exists:
            make = "mkdir /tmp/late; echo late:x:1234:5:::/bin/sh >>/etc/passwd"
            exec_status(init, group, made, ["sh", "-c", make], None)
            assert exec_status(init, group, made, ["sh", "-c", "pwd; id -u"], helper, **late) == (
                0,
                "/tmp/late\n1234\n",
            )
        else:
            with pytest.raises(StartFailed, match="unable to find user late: no matching entries"):
                exec_status(init, group, made, ["sh", "-c", "pwd; id -u"], helper, **late)
        assert helper.used


def test_the_steps_that_were_done_ahead_are_told(lab: Lab) -> None:
    made = running(lab)
    helper = ExecCradle()
    with lab.container(made, cradle=Cradle()) as (init, group):
        told = []
        for cradle in (None, helper):
            if cradle is not None:
                tell(init, group, made, ["true"], helper)
                until(lambda: joined(helper, init))
            extras = Extras(trace=Trace())
            assert exec_status(init, group, made, ["true"], cradle, extras=extras) == (0, "")
            told.append([row[1:3] for row in extras.trace.rows() if row[0] == "init"])
        assert helper.used
        assert told[0] == told[1]
        assert [name for name, _ in told[0]][:3] == ["prepare", "join_cgroup", "setns_init"]


def filtered(helper: ExecCradle) -> bool:
    """Say whether a helper has loaded a filter."""
    return "\nSeccomp:\t2\n" in Path(f"/proc/{helper.pid}/status").read_text()


def strict_profile() -> dict:
    """Return a profile that kills whoever calls what a helper is not said to call, nor the program in the end."""
    names = {number: name for name, number in syscall_table.numbers(syscalls.MACHINE).items()}
    column = ("x86_64", "aarch64").index(syscalls.MACHINE)
    calls = [numbers[column] for numbers, _ in (*birth._CALLS, *birth._CALLS_AHEAD)]
    program = "arch_prctl set_tid_address set_robust_list rseq prlimit64 readlink readlinkat getrandom"
    program += " getuid getgid setuid setgid getpid"
    allowed = [*(names[number] for number in calls), *program.split()]
    return {
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}],
    }


@pytest.mark.parametrize("profile", [default_profile([]), strict_profile()], ids=["default", "strict"])
@pytest.mark.parametrize("more", [{}, USER], ids=["root", "user"])
def test_the_filter_is_loaded_ahead(lab: Lab, profile: dict, more: dict) -> None:
    made = running(lab)
    extras = Extras(seccomp_bpf=seccomp.compile_profile(profile))
    helper = ExecCradle(extras.seccomp_bpf)
    with lab.container(made, cradle=Cradle()) as (init, group):
        tell(init, group, made, ["true"], helper, extras=extras, **more)
        until(lambda: filtered(helper))
        time.sleep(0.05)
        assert pidfd.is_alive(helper.pid), "it was killed while it waited"
        assert exec_status(init, group, made, ["true"], helper, extras=extras, **more) == (0, "")
        assert helper.used


def test_the_filter_that_was_loaded_ahead_is_not_loaded_again(lab: Lab) -> None:
    made = running(lab)
    extras = Extras(seccomp_bpf=seccomp.compile_profile(default_profile([])))
    helper = ExecCradle(extras.seccomp_bpf)
    ask = ["grep", "Seccomp", "/proc/self/status"]
    with lab.container(made, cradle=Cradle()) as (init, group):
        tell(init, group, made, ask, helper, extras=extras)
        until(lambda: filtered(helper))
        status, output = exec_status(init, group, made, ask, helper, extras=extras)
        assert (status, output.split()) == (0, ["Seccomp:", "2", "Seccomp_filters:", "1"])


def test_a_filter_under_which_a_helper_cannot_wait_is_loaded_at_the_birth(lab: Lab) -> None:
    made = running(lab)
    refusing = {"names": ["recvmsg"], "action": "SCMP_ACT_ERRNO"}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refusing]}
    extras = Extras(seccomp_bpf=seccomp.compile_profile(profile))
    helper = ExecCradle(extras.seccomp_bpf)
    ask = ["grep", "Seccomp:", "/proc/self/status"]
    with lab.container(made, cradle=Cradle()) as (init, group):
        tell(init, group, made, ask, helper, extras=extras)
        until(lambda: joined(helper, init))
        time.sleep(0.05)
        assert not filtered(helper)
        status, output = exec_status(init, group, made, ask, helper, extras=extras)
        assert (status, output.split()) == (0, ["Seccomp:", "2"])
        assert helper.used


@pytest.mark.parametrize("asked", [["echo", "first"], ["echo", "second"]])
def test_a_helper_that_was_told_ahead_does_what_is_asked(lab: Lab, asked: list[str]) -> None:
    """What was told is a guess: the request decides."""
    made = running(lab)
    helper = ExecCradle()
    with lab.container(made, cradle=Cradle()) as (init, group):
        for args in (["cat", "/etc/passwd"], ["echo", "first"]):
            tell(init, group, made, args, helper, commit=False)
            until(lambda: joined(helper, init))
        assert exec_status(init, group, made, asked, helper) == (0, asked[1] + "\n")
        assert helper.used


def test_a_helper_that_died_after_it_was_told(lab: Lab) -> None:
    made = running(lab)
    helper = ExecCradle()
    with lab.container(made, cradle=Cradle()) as (init, group):
        tell(init, group, made, ["echo", "a"], helper)
        kill(helper)
        assert exec_status(init, group, made, ["echo", "a"], helper) == (0, "a\n")


def test_an_exec_that_fails_with_a_helper(lab: Lab) -> None:
    made = running(lab)
    helper = ExecCradle()
    with lab.container(made, cradle=Cradle()) as (init, group):
        with pytest.raises(StartFailed, match="executable file not found"):
            exec_status(init, group, made, ["nope"], helper)
        assert not pidfd.is_alive(helper.pid)


def test_an_exec_whose_helper_has_died(lab: Lab) -> None:
    made = running(lab)
    helper = ExecCradle()
    with lab.container(made, cradle=Cradle()) as (init, group):
        kill(helper)
        assert exec_status(init, group, made, ["echo", "hello"], helper) == (0, "hello\n")


def test_an_uncompiled_filter_does_not_get_lost(lab: Lab) -> None:
    made = spec(lab, "sleep", "1000")
    helper = ExecCradle()
    try:
        with lab.container(made, cradle=Cradle()) as (init, group):
            code, output = exec_status(init, group, made, ["grep", "Seccomp:", "/proc/self/status"], helper)
            assert not helper.used
            assert (code, output.split()) == (0, ["Seccomp:", "2"])
    finally:
        helper.close()
