"""Hooks of the six kinds: order, namespaces, state, environment, failure."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from oci_lab import Runtime

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
HOST = ("prestart", "createRuntime", "poststart", "poststop")


def hook(log: Path | str, name: str) -> dict[str, object]:
    script = (
        f'echo "$(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/net) $(pwd) $A $(cat)" >> {log}; '
        f"echo {name} >> {log}.order"
    )
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin", "A=set"]}


def test_where_when_and_with_what_state_they_run(box: Runtime, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    box.config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(logs), "options": ["rbind"]}
    )
    box.config["annotations"] = {"key": "value"}
    box.config["hooks"] = {
        kind: [hook(f"{'/data' if kind == 'startContainer' else logs}/{kind}", str(n)) for n in (1, 2)]
        for kind in KINDS
    }
    box.args("readlink", "/proc/self/ns/mnt", "/proc/self/ns/net")
    result = box.create()
    assert result.code == 0, result
    pid = box.state()["pid"]
    inside = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("mnt", "net")]
    host = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net")]
    assert {path.name for path in logs.glob("*[a-z]") if not path.suffix} == {
        "prestart",
        "createRuntime",
        "createContainer",
    }
    box.ok("start", box.id)
    box.wait("stopped")
    box.ok("delete", box.id)
    statuses = {}
    for kind in KINDS:
        assert (logs / f"{kind}.order").read_text().split() == ["1", "2"], kind
        mnt, net, cwd, value, text = (logs / kind).read_text().splitlines()[0].split(" ", 4)
        state = json.loads(text)
        assert value == "set" and state["annotations"] == {"key": "value"} and state["id"] == box.id
        assert state["bundle"] == str(box.bundle)
        assert [mnt, net] == (host if kind in HOST else inside), kind
        assert cwd == {"startContainer": "/"}.get(kind, str(box.bundle) if kind in HOST else cwd)
        statuses[kind] = (state["status"], state["pid"])
    assert statuses == {
        "prestart": ("created", pid),
        "createRuntime": ("creating", pid),
        "createContainer": ("creating", 1),
        "startContainer": ("created", 1),
        "poststart": ("running", pid),
        "poststop": ("stopped", 0),
    }


@pytest.mark.parametrize("kind", KINDS[:5])
@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (
            {"args": ["sh", "-c", "echo out; echo err >&2; exit 3"]},
            "exit status 3, stdout: out\\n, stderr: err\\n",
        ),
        ({"path": "/bin/nonexistent"}, "fork/exec /bin/nonexistent: no such file or directory"),
        ({"args": ["sh", "-c", "kill -9 $$"]}, "signal: 9"),
        ({"args": ["sh", "-c", "sleep 60"], "timeout": 1}, "hook ran past specified timeout of 1.0s"),
    ],
)
def test_failures(box: Runtime, kind: str, entry: dict[str, object], text: str) -> None:
    box.config["hooks"] = {kind: [{"path": "/bin/sh", "env": ["PATH=/bin:/usr/bin"], **entry}]}
    assert f"error running {kind} hook #0: {text}" in box.refused()


def test_poststop_hooks_that_fail_are_warnings_and_the_rest_still_runs(box: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    box.config["hooks"] = {
        "poststop": [
            {"path": "/bin/sh", "args": ["sh", "-c", "exit 4"]},
            {"path": "/bin/nonexistent"},
            {"path": "/bin/sh", "args": ["sh", "-c", f"echo ran > {log}"]},
        ]
    }
    box.args("true")
    result = box.run()
    assert result.code == 0
    assert (
        "error running poststop hook #0: exit status 4" in result.err
        and "poststop hook #1: fork/exec" in result.err
    )
    assert log.read_text() == "ran\n"


def test_a_hook_need_not_read_its_state(box: Runtime) -> None:
    box.config["annotations"] = {"long": "x" * (1 << 20)}
    box.config["hooks"] = {"createRuntime": [{"path": "/bin/true"}], "poststop": [{"path": "/bin/true"}]}
    box.args("true")
    assert box.run().code == 0


def test_a_hook_that_leaves_a_process_behind_does_not_hold_us(box: Runtime) -> None:
    box.config["hooks"] = {
        "createRuntime": [
            {"path": "/bin/sh", "args": ["sh", "-c", "sleep 3 & exit 0"], "env": ["PATH=/bin:/usr/bin"]}
        ]
    }
    box.args("true")
    assert box.run().code == 0


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"path": "bin/sh"}, "is not absolute"),
        ({"path": "/bin/sh", "timeout": 0}, "must be greater than zero"),
        ({"path": "/bin/sh", "args": "sh"}, "wrong type"),
        ({"path": "/bin/sh", "env": [1]}, "must be a list of strings"),
    ],
)
def test_impossible_hooks(box: Runtime, entry: dict[str, object], text: str) -> None:
    box.config["hooks"] = {"prestart": [entry]}
    assert text in box.refused()
