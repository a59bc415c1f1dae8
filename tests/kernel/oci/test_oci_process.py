"""The process of an OCI configuration: user, limits, scheduling, security, what this kernel lacks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from oci_lab import Runtime

from harness import cgroup_directories


def test_user_groups_and_umask(box: Runtime) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [29, 30], "umask": 0o077}
    box.sh("id; umask; echo $HOME; stat -c %u /proc/self/fd/1")
    assert box.output().split("\n")[:3] == ["uid=1000(bob) gid=1001 groups=29(audio),30", "0077", "/home/bob"]


def test_environment(box: Runtime) -> None:
    box.process["env"] = ["PATH=/bin", "A=1", "A=2", "HOME="]
    box.args("env")
    assert sorted(box.output().split()) == ["A=2", "HOME=/root", "PATH=/bin"]
    box.process["env"] = ["PATH=/bin", "B"]
    assert 'invalid environment variable: \\"B\\"' in box.refused()


def test_working_directory_is_made(box: Runtime) -> None:
    box.process["cwd"] = "/new/deep"
    box.sh("pwd; stat -c '%a %u' .")
    assert box.output().split() == ["/new/deep", "755", "0"]
    box.process["cwd"] = "/etc/passwd"
    assert "not a directory" in box.refused()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["nope"], 'exec: \\"nope\\": executable file not found in $PATH'),
        (["/nope"], 'exec: \\"/nope\\": stat /nope: no such file or directory'),
        (["/etc/passwd"], 'exec: \\"/etc/passwd\\": permission denied'),
        (["/etc"], 'exec: \\"/etc\\": is a directory'),
        ([], "args must not be empty"),
    ],
)
def test_programs_that_cannot_run_are_found_by_create(box: Runtime, args: list[str], text: str) -> None:
    box.args(*args)
    result = box.create()
    assert result.code == 1 and text in result.err
    assert not box.root.exists() or not list(box.root.iterdir())


def test_rlimits(box: Runtime) -> None:
    box.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 55, "hard": 66},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": (1 << 64) - 1},
    ]
    box.args("cat", "/proc/self/limits")
    found = {line[:26].strip(): line[26:].split()[:2] for line in box.output().splitlines()}
    assert found["Max open files"] == ["55", "66"]
    assert found["Max core file size"] == ["0", "0"]
    assert found["Max stack size"] == ["1048576", "unlimited"]


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ({"type": "RLIMIT_TEST", "soft": 1, "hard": 1}, "wrong rlimit value: RLIMIT_TEST"),
        ({"type": "RLIMIT_NOFILE", "soft": 9, "hard": 5}, "error setting rlimit type 7: invalid argument"),
        ({"type": "RLIMIT_NOFILE", "soft": -1, "hard": 5}, "out of range"),
    ],
)
def test_wrong_rlimits(box: Runtime, limit: dict[str, object], text: str) -> None:
    box.process["rlimits"] = [limit]
    assert text in box.refused()


def test_oom_score(box: Runtime) -> None:
    box.process["oomScoreAdj"] = 321
    box.args("cat", "/proc/self/oom_score_adj")
    assert box.output() == "321\n"


def test_scheduler_io_priority_and_affinity_of_exec(box: Runtime) -> None:
    box.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    box.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    box.process["execCPUAffinity"] = {"initial": "0", "final": "0"}
    state = box.start()
    stat = Path(f"/proc/{state['pid']}/stat").read_text().rsplit(")", 1)[1].split()
    assert (int(stat[16]), int(stat[38])) == (7, 3)  # nice, policy SCHED_BATCH
    assert os.sched_getscheduler(state["pid"]) & ~os.SCHED_RESET_ON_FORK == os.SCHED_BATCH
    allowed = box.ok("exec", box.id, "grep", "Cpus_allowed_list", "/proc/self/status").split()
    assert allowed[1] == "0"
    init = Path(f"/proc/{state['pid']}/status").read_text()
    assert "Cpus_allowed_list:\t0\n" not in init or os.cpu_count() == 1


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("scheduler", {"policy": "SCHED_NOPE"}, "invalid scheduler policy"),
        ("scheduler", {"policy": "SCHED_OTHER", "flags": ["NOPE"]}, "invalid scheduler flag"),
        (
            "scheduler",
            {"policy": "SCHED_FIFO", "priority": 99, "nice": 5, "runtime": 1},
            "error setting scheduler",
        ),
        ("ioPriority", {"class": "NOPE"}, "invalid ioPriority class"),
        ("ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "out of range"),
        ("execCPUAffinity", {"initial": "x"}, "invalid list of numbers"),
        ("oomScoreAdj", 2000, "out of range"),
    ],
)
def test_scheduling_that_cannot_be(box: Runtime, key: str, value: object, text: str) -> None:
    box.process[key] = value
    if text == "error setting scheduler":
        box.process["args"] = ["true"]
        result = box.run()
        if result.code == 0:
            pytest.skip("this kernel gives real-time priorities to every group")
        assert text in result.err
        return
    assert text in box.refused()


def test_personality(box: Runtime) -> None:
    box.linux["personality"] = {"domain": "LINUX32"}
    box.args("uname", "-m")
    assert box.output().strip() in ("i686", "armv8l", "armv7l")
    box.linux["personality"] = {"domain": "LINUX", "flags": ["X"]}
    assert "personality flags are not supported" in box.refused()


def test_memory_policy(box: Runtime) -> None:
    box.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    box.sh("grep -c 'bind=static:0' /proc/self/numa_maps")
    assert int(box.output()) > 0
    box.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "63"}
    assert "unable to set memory policy" in box.refused()
    box.linux["memoryPolicy"] = {"mode": "MPOL_NOPE"}
    assert "invalid memory policy mode" in box.refused()


def test_a_further_process_has_the_personality_and_the_memory_policy_too(box: Runtime) -> None:
    box.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    box.linux["personality"] = {"domain": "LINUX32"}
    box.start()
    assert box.ok("exec", box.id, "uname", "-m").strip() in ("i686", "armv8l", "armv7l")
    assert int(box.ok("exec", box.id, "grep", "-c", "bind=static:0", "/proc/self/numa_maps")) > 0


def test_capabilities_in_five_sets(box: Runtime) -> None:
    kill, chown = 1 << 5, 1 << 0
    box.process["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    }
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.process["noNewPrivileges"] = False
    box.args("grep", "Cap", "/proc/self/status")
    found = {line.split()[0]: int(line.split()[1], 16) for line in box.output().splitlines()}
    # What remains after execve of an ordinary user: the ambient ones (capabilities(7)).
    assert found == {
        "CapInh:": kill,
        "CapPrm:": kill,
        "CapEff:": kill,
        "CapBnd:": kill | chown,
        "CapAmb:": kill,
    }


def test_unknown_capabilities_are_a_warning(box: Runtime) -> None:
    box.process["capabilities"] = {name: ["CAP_NOPE"] for name in ("bounding", "permitted", "effective")}
    box.args("true")
    result = box.run()
    assert result.code == 0 and "ignoring unknown or unavailable capabilities: [CAP_NOPE]" in result.err


def test_no_new_privileges(box: Runtime) -> None:
    for value in (True, False):
        box.process["noNewPrivileges"] = value
        box.args("grep", "NoNewPrivs", "/proc/self/status")
        assert box.output().split()[1] == str(int(value))


@pytest.mark.parametrize(
    ("key", "value", "module"),
    [("apparmorProfile", "strict", "AppArmor"), ("selinuxLabel", "a:b:c:s0", "SELinux")],
)
def test_security_modules_that_this_kernel_lacks(box: Runtime, key: str, value: str, module: str) -> None:
    present = {"AppArmor": "/sys/module/apparmor/parameters/enabled", "SELinux": "/sys/fs/selinux/enforce"}
    if os.path.exists(present[module]):
        pytest.skip(f"{module} is here")
    box.process[key] = value
    assert f"{module} is not enabled on this kernel" in box.refused()
    box.global_flags = ["--missing-lsm=warn"]
    box.args("true")
    result = box.run()
    assert result.code == 0 and f"{module} is not enabled on this kernel" in result.err
    box.global_flags = []
    box.process[key] = "unconfined" if module == "AppArmor" else ""
    assert box.run().code == 0


def test_exec_cannot_be_confined_either(box: Runtime) -> None:
    if os.path.exists("/sys/module/apparmor/parameters/enabled"):
        pytest.skip("AppArmor is here")
    box.start()
    result = box("exec", "--apparmor", "strict", box.id, "true")
    assert result.code == 255 and "AppArmor is not enabled" in result.err


def test_intel_rdt_needs_resctrl(box: Runtime) -> None:
    if " resctrl " in Path("/proc/mounts").read_text():
        pytest.skip("resctrl is mounted here")
    box.linux["intelRdt"] = {"closID": "x", "l3CacheSchema": "L3:0=f"}
    assert "none is mounted on this machine" in box.refused()


def test_annotations_are_in_the_state(box: Runtime) -> None:
    box.config["annotations"] = {"com.example.key": "value", "": "empty"}
    box.config["unknownKey"] = {"ignored": True}
    assert box.start()["annotations"] == {"com.example.key": "value", "": "empty"}


def test_preserved_descriptors_must_be_there(box: Runtime) -> None:
    assert "unable to stat preserved-fd 0 (of 2)" in box.refused("--preserve-fds", "2")


def test_a_pid_file_that_cannot_be_written_leaves_nothing(box: Runtime) -> None:
    result = box.create("--pid-file", "/nonexistent/pid")
    assert result.code == 1 and "open /nonexistent/.pid: no such file or directory" in result.err
    assert not list(box.root.iterdir())
    assert not cgroup_directories(box.id)


def test_too_little_memory_says_so(box: Runtime) -> None:
    box.linux["resources"]["memory"] = {"limit": 4096}
    assert "container init was OOM-killed (memory limit too low?)" in box.refused()


def test_a_limit_of_kernel_memory_is_no_secret_failure(box: Runtime) -> None:
    box.linux["resources"]["memory"] = {"kernel": 1 << 24}
    box.args("true")
    result = box.run()
    assert result.code == 0 and "ignoring memory.kernel" in result.err
    del box.linux["resources"]["memory"]
    box.args("sleep", "100")
    box.start()
    changes = {"memory": {"kernel": 1 << 24}}
    result = box("update", "--resources", "-", box.id, stdin=json.dumps(changes))
    assert result.code == 1 and "kernel memory limits are not supported" in result.err
    result = box("update", "--resources", "-", box.id, stdin='{"memory": {"limit": "1G"}}')
    assert result.code == 1 and "linux.resources.memory.limit has the wrong type" in result.err


def test_the_rootless_example_runs(box: Runtime) -> None:
    other = box.directory / "other"
    other.mkdir()
    box.ok("spec", "--rootless", "--bundle", str(other))
    box.config = json.loads((other / "config.json").read_text())
    assert [entry["type"] for entry in box.linux["namespaces"]] == [
        "pid",
        "ipc",
        "uts",
        "mount",
        "cgroup",
        "user",
    ]
    box.process["terminal"] = False
    box.sh("id -u; cat /proc/self/uid_map; ls /sys/kernel >/dev/null && echo sys")
    assert box.output().split() == ["0", "0", str(os.geteuid()), "1", "sys"]


def test_features_tell_what_the_configuration_may_ask_for(box: Runtime) -> None:
    known = json.loads(box.ok("features"))
    linux = known["linux"]
    assert {"time", "user"} <= set(linux["namespaces"])
    assert "SCMP_ACT_NOTIFY" in linux["seccomp"]["actions"]
    assert linux["mountExtensions"]["idmap"]["enabled"] and linux["netDevices"]["enabled"]
    assert {"rro", "idmap", "ridmap", "tmpcopyup", "rbind"} <= set(known["mountOptions"])
    assert known["annotations"]["org.opencontainers.runc.checkpoint.enabled"] == "true"
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": linux["seccomp"]["archs"],
        "flags": sorted({*linux["seccomp"]["supportedFlags"]} - {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}),
    }
    box.args("true")
    assert box.run().code == 0
    box.linux["seccomp"]["flags"] = linux["seccomp"]["supportedFlags"]
    assert "WAIT_KILLABLE_RECV without an action SCMP_ACT_NOTIFY" in box.refused()


def test_checkpoint_and_restore_say_why_not(box: Runtime) -> None:
    box.start()
    program = box.directory / "criu"
    program.write_text("#!/bin/sh\necho Error: no such kernel; exit 1\n")
    program.chmod(0o755)
    box.global_flags = ["--criu", str(program)]
    for words in (
        ("checkpoint", "--image-path", "x", "--leave-running", box.id),
        ("restore", "-b", "x", box.id),
    ):
        result = box(*words)
        assert result.code == 1 and "does not work on this machine: Error: no such kernel" in result.err
    box.global_flags = ["--criu", "/nonexistent/criu"]
    assert "need criu, which was not found" in box("checkpoint", box.id).err
