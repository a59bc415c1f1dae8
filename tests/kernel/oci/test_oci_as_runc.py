"""The same commands and configurations given to satsuma-oci and to the installed runc, on one bundle.

What must differ (names, ids, times, pids) is made equal first; where runc 1.1 is known to be wrong or silent, the
case is not here but in the other modules of this directory, with the behaviour that we want.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from oci_lab import Result, Runtime, normal, until

from satsuma.linux.cgroup import layout

Pair = tuple[Runtime, Runtime]
CREATE = ("create", "-b", "@B", "@ID")
RUN = ("run", "-d", "-b", "@B", "@ID")
V2 = layout().mode == "v2"
PREFIXES = (
    "error during container init: ",
    "error setting cgroup config for procHooks process: ",
    *(("unable to apply cgroup configuration: ",) if V2 else ()),
)
# Accepted and ignored by runc 1.1 in version 2; refused by us.
only_v1 = pytest.mark.skipif(V2, reason="runc ignores in version 2 what it cannot do")


def command(runtime: Runtime, words: tuple[str, ...]) -> tuple[int, str, str]:
    """Run one command; a word "<TEXT" is standard input."""
    stdin = ""
    if words[0].startswith("<"):
        stdin, words = words[0][1:], words[1:]
    places = (("@ID", runtime.id), ("@B", str(runtime.bundle)), ("@D", str(runtime.directory)))
    args = []
    for word in words:
        for name, value in places:
            word = word.replace(name, value)
        args.append(word)
    return shown(runtime, runtime(*args, stdin=stdin))


def shown(runtime: Runtime, result: Result) -> tuple[int, str, str]:
    # The help differs in its examples, and the version of the specification in the state.
    out = "HELP" if result.out.startswith("Incorrect Usage") else normal(runtime, result.out)
    for version in ('"1.0.2-dev"', '"1.2.0"'):
        out = out.replace(version, '"VERSION"')
    err = (
        normal(runtime, result.err)
        .replace(f"{runtime.command[0]}:", "RUNTIME:")
        .replace("/usr/sbin/RUNTIME:", "RUNTIME:")
    )
    return result.code, out, err


@pytest.mark.parametrize(
    "steps",
    [
        [("state", "@ID")],
        [CREATE, ("state", "@ID"), ("start", "@ID"), ("start", "@ID"), ("delete", "@ID")],
        [CREATE, ("kill", "@ID", "FOO"), ("kill", "@ID", "KILL")],
        [CREATE, CREATE],
        [("list",), ("list", "-q"), ("list", "-f", "foo")],
        [CREATE, ("list", "-q"), ("list", "-f", "json")],
        [("create",)],
        [("start",)],
        [("start", "a", "b")],
        [("kill",)],
        [("exec",)],
        [("ps",)],
        [("kill", "@ID")],
        [("delete", "@ID"), ("delete", "-f", "@ID")],
        [("create", "--foo", "@ID")],
        [("update", "--pids-limit", "x", "@ID")],
        [("create", "-b", "@B", "a/b"), ("create", "-b", "@B", ".."), ("state", "a b")],
        [("create", "-b", "/nonexistent", "@ID")],
        [("create", "-b", "@B", "--pid-file", "/nonexistent/x", "@ID"), ("state", "@ID")],
        [("create", "-b", "@B", "--console-socket", "/x", "@ID")],
        [("spec", "-b", "@B")],
        [("--log-format", "foo", "list")],
        [("--log", "@D/log", "--log-format", "json", "state", "@ID")],
        [RUN, ("exec", "@ID")],
        [("exec", "@ID", "true")],
        [RUN, ("exec", "@ID", "id"), ("exec", "-u", "5:6", "-g", "7", "-g", "8", "@ID", "id")],
        [RUN, ("exec", "-u", "foo", "@ID", "id"), ("exec", "--cwd", "tmp", "@ID", "pwd")],
        [RUN, ("exec", "--cwd", "/new/one", "@ID", "pwd"), ("exec", "-e", "A=1", "@ID", "env")],
        [RUN, ("exec", "-e", "B", "@ID", "env")],
        [RUN, ("exec", "@ID", "nope"), ("exec", "@ID", "/etc/passwd"), ("exec", "@ID", "/nope")],
        [RUN, ("exec", "@ID", "sh", "-c", "exit 7"), ("exec", "@ID", "sh", "-c", "kill -9 $$")],
        [RUN, ("exec", "-c", "CAP_SYS_ADMIN", "@ID", "grep", "Cap", "/proc/self/status")],
        [RUN, ("exec", "-d", "-t", "@ID", "sh"), ("exec", "--console-socket", "/x", "@ID", "sh")],
        [
            RUN,
            ("pause", "@ID"),
            ("state", "@ID"),
            ("exec", "@ID", "true"),
            ("pause", "@ID"),
            ("resume", "@ID"),
        ],
        [RUN, ("resume", "@ID")],
        [RUN, ("update", "--memory", "64M", "--memory-swap", "128M", "--pids-limit", "20", "@ID")],
        [
            RUN,
            ("update", "--memory", "foo", "@ID"),
            ("update", "-r", "/nonexistent", "@ID"),
            ("update", "@ID"),
        ],
        [RUN, ('<{"memory":{"limit":33554432}}', "update", "-r", "-", "@ID")],
        [RUN, ("update", "--l3-cache-schema", "x", "@ID"), ("update", "--mem-bw-schema", "x", "@ID")],
        [RUN, ("ps", "@ID", "-o", "comm"), ("ps", "-f", "foo", "@ID")],
        [RUN, ("events", "--interval", "0", "--stats", "@ID")],
    ],
    ids=lambda steps: "-".join(step[0].lstrip("-<{") for step in steps)[:60],
)
def test_commands(both: Pair, steps: list[tuple[str, ...]]) -> None:
    answers = []
    for runtime in both:
        runtime.write()
        answers.append([command(runtime, step) for step in steps])
        runtime("delete", "-f", runtime.id)
    assert answers[0] == answers[1]


def test_a_stopped_container(both: Pair) -> None:
    answers = []
    for runtime in both:
        runtime.args("true")
        runtime.start()
        runtime.wait("stopped")
        steps = (
            ("state", "@ID"),
            ("exec", "@ID", "true"),
            ("kill", "@ID", "9"),
            ("kill", "-a", "@ID", "9"),
            ("pause", "@ID"),
            ("resume", "@ID"),
            ("update", "--memory", "10M", "@ID"),
            ("events", "--stats", "@ID"),
            ("start", "@ID"),
            ("delete", "@ID"),
            ("delete", "@ID"),
        )
        answers.append([command(runtime, step) for step in steps])
    assert answers[0] == answers[1]


def test_statistics_have_the_same_fields(both: Pair) -> None:
    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(entry) for key, entry in value.items()}
        return type(value).__name__

    def is_zero(value: Any) -> bool:
        return all(map(is_zero, value.values())) if isinstance(value, dict) else not value

    shapes = []
    for runtime in both:
        runtime.start()
        data = json.loads(runtime.ok("events", "--stats", runtime.id))
        # The kernel names more counters than runc 1.1 passes on.
        assert data["data"]["memory"].pop("raw")
        # Left out when they are zero, which depends on the moment.
        for name in ("percpu_kernel", "percpu_user"):
            data["data"]["cpu"]["usage"].pop(name, None)
        for entry in data["data"]["memory"].values():
            if isinstance(entry, dict):
                entry.pop("usage", None)
                entry.pop("max", None)
        data["data"]["memory"].pop("cache", None)
        data["data"]["blkio"] = {}
        if V2:  # runc 1.1 knows nothing of cpusets there and shows counters of version 1 as zeros
            data["data"].pop("cpuset")
            memory = data["data"]["memory"]
            data["data"]["memory"] = {name: memory[name] for name in memory if not is_zero(memory[name])}
        shapes.append(shape(data))
    assert shapes[0] == shapes[1]


LOOK = (
    "id; pwd; env; umask; hostname; cat /proc/self/cgroup | wc -l; ls -la /dev | grep -v ' \\.\\.$'; ls /proc/self/fd; "
    "grep -E 'Cap|NoNew|Seccomp:|Groups' /proc/self/status; cat /proc/1/oom_score_adj; cat /proc/self/limits"
)
MOUNTS = "cat /proc/self/mountinfo | while read a b c d e f g h; do echo $e $f; done"


def value_at(path: str, value: Any) -> Callable[[Runtime], None]:
    def change(runtime: Runtime) -> None:
        *parents, last = path.split(".")
        target = runtime.config
        for name in parents:
            target = target.setdefault(name, {})
        target[last] = value

    return change


def mounted(**mount: Any) -> Callable[[Runtime], None]:
    return lambda runtime: runtime.config["mounts"].append(mount)


ALL_SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")


@pytest.mark.parametrize(
    ("change", "script"),
    [
        (None, LOOK),
        (None, MOUNTS),
        (value_at("process.args", []), ""),
        (value_at("process.args", None), ""),
        (value_at("process", None), ""),
        (value_at("process.cwd", "tmp"), "true"),
        (value_at("process.cwd", "/new/dir"), "pwd; stat -c %a .; stat -c %a .."),
        (value_at("process.args", ["nope"]), ""),
        (value_at("process.args", ["/nope"]), ""),
        (value_at("process.args", ["/etc/passwd"]), ""),
        (value_at("process.env", ["PATH=/bin", "B"]), "true"),
        (value_at("process.env", ["PATH=/bin", "B=1", "B=2", "HOME="]), "env"),
        (value_at("process.env", []), "/bin/env"),
        (value_at("process.user", {"uid": 1000, "gid": 1000, "additionalGids": [29], "umask": 63}), LOOK),
        (value_at("process.rlimits", [{"type": "RLIMIT_TEST", "soft": 1, "hard": 1}]), "true"),
        (value_at("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 5}]), "true"),
        (value_at("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]), LOOK),
        (value_at("process.oomScoreAdj", 500), LOOK),
        (value_at("process.capabilities", None), LOOK),
        (value_at("process.capabilities", {name: ["CAP_KILL"] for name in ALL_SETS}), LOOK),
        (value_at("process.capabilities", {name: ["CAP_FOO"] for name in ALL_SETS[:3]}), LOOK),
        (value_at("process.noNewPrivileges", False), LOOK),
        (value_at("root.path", "nope"), "true"),
        (value_at("root.readonly", True), "touch /x; touch /tmp/x"),
        (value_at("linux.sysctl", {"kernel.foo": "1"}), "true"),
        (value_at("linux.sysctl", {"net.ipv4.nope": "1"}), "true"),
        (value_at("linux.sysctl", {"net.ipv4.ip_forward": "foo"}), "true"),
        (value_at("linux.sysctl", {"net.ipv4.ip_forward": "1"}), "cat /proc/sys/net/ipv4/ip_forward"),
        (value_at("linux.sysctl", {"kernel.hostname": "x"}), "true"),
        (
            value_at("linux.maskedPaths", ["/etc/group", "/data", "/nope"]),
            "cat /etc/group; ls -la /data | wc -l",
        ),
        (value_at("linux.readonlyPaths", ["/data", "/nope"]), "touch /data/x"),
        (value_at("linux.rootfsPropagation", "foo"), "true"),
        (value_at("linux.devices", [{"path": "/dev/foo", "type": "x"}]), "true"),
        (value_at("linux.seccomp", {"defaultAction": "SCMP_ACT_FOO"}), "true"),
        (value_at("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["FOO"]}), "true"),
        (
            value_at(
                "linux.seccomp",
                {
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
                },
            ),
            "mkdir /tmp/x; grep Seccomp: /proc/self/status",
        ),
        (
            value_at(
                "linux.seccomp",
                {
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
                },
            ),
            "mkdir /tmp/x; echo $?",
        ),
        (mounted(destination="/m", type="bind", source="/nonexistent", options=["bind"]), "true"),
        (mounted(destination="/m/f", type="bind", source="/etc/hostname", options=["bind", "ro"]), MOUNTS),
        (
            mounted(
                destination="/m",
                type="tmpfs",
                source="x",
                options=["ro", "noexec", "nosuid", "nodev", "noatime"],
            ),
            MOUNTS,
        ),
        (
            mounted(destination="/etc", type="tmpfs", source="x", options=["tmpcopyup"]),
            "cat /etc/passwd; ls -ld /etc",
        ),
        (mounted(destination="/proc/uptime", type="bind", source="/etc/hostname", options=["bind"]), MOUNTS),
        (value_at("linux.resources", {"pids": {"limit": 30}, "cpu": {"shares": 100}}), LOOK),
        (value_at("linux.resources", {"cpu": {"cpus": "99"}}), "true"),
        pytest.param(value_at("linux.resources", {"network": {"classID": 1}}), "true", marks=only_v1),
        pytest.param(value_at("linux.resources", {"memory": {"swappiness": 101}}), "true", marks=only_v1),
        (lambda runtime: runtime.without("uts"), "true"),
        (lambda runtime: runtime.linux["namespaces"].append({"type": "pid"}), "true"),
        (lambda runtime: runtime.linux["namespaces"].append({"type": "foo"}), "true"),
        (lambda runtime: runtime.user_namespace(), "id; cat /proc/self/uid_map; stat -c %u /etc/passwd"),
    ],
)
def test_configurations(both: Pair, change: Callable[[Runtime], None] | None, script: str) -> None:
    original = copy.deepcopy(both[0].config)
    answers = []
    for runtime in both:
        runtime.config = copy.deepcopy(original)
        if script:
            runtime.sh(script)
        if change is not None:
            change(runtime)
        result = shown(runtime, runtime.run())
        err = "".join(line for line in result[2].splitlines(True) if "level=warning" not in line)
        for prefix in PREFIXES:
            err = err.replace(prefix, "")
        answers.append((result[0], result[1], err))
    assert answers[0] == answers[1]


def test_terminal_size_and_console(both: Pair) -> None:
    for runtime in both:
        runtime.process["terminal"] = True
        result = runtime.create()
        assert result.code == 1
        assert "cannot allocate tty if runc will detach without setting console socket" in result.err


def signalled(runtime: Runtime, name: str) -> tuple[str, int, str, str]:
    """Return the name, the status of `kill`, what the traps noted, the error."""
    log, ready = (runtime.rootfs / f"{what}-{runtime.id}" for what in ("log", "ready"))
    traps = "; ".join(f"trap 'echo {n} >> /{log.name}' {n}" for n in ("TERM", "USR1", "USR2"))
    runtime.sh(f"{traps}; touch /{ready.name}; while :; do sleep 0.05; done")
    runtime.start()
    until(ready.exists)
    result = runtime("kill", runtime.id, name)
    if name in ("TERM", "SIGUSR1", "usr2", "10", ""):
        until(lambda: log.exists() and log.read_text())
    noted = log.read_text() if log.exists() else ""
    runtime("delete", "-f", runtime.id)
    log.unlink(missing_ok=True)
    ready.unlink()
    return name, result.code, noted, normal(runtime, result.err)


@pytest.mark.parametrize("name", ["TERM", "SIGUSR1", "usr2", "10", "0", "65", "SIGNOPE", ""])
def test_signals(both: Pair, name: str) -> None:
    assert signalled(both[0], name) == signalled(both[1], name)
