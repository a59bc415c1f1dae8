"""T-R16: the verdict on every system call, compared with Docker's.

The golden vector is what runc 1.1.5 with libseccomp 2.5.4 answered to the probe for the profile of moby/profiles
0.2.3, for Docker's capabilities and with each one added that the profile knows.  Ten calls, 457 (statmount) and
later, are unknown to that libseccomp; for them it says what the profile's text says.  Ours is nowhere more lenient
and nowhere stricter: there is no list of deviations.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
import seccomp_probe
from security_lab import INTERPRETER, Bundles, python_binds, python_flags

import harness
from satsuma.linux import seccomp, syscalls
from satsuma.runtime import default_spec

pytestmark = pytest.mark.skipif(syscalls.MACHINE != "x86_64", reason="the golden vector is of x86_64")

GOLDEN = json.loads((Path(__file__).parent / "seccomp_golden.json").read_text())
DEFAULT = frozenset(default_spec.DEFAULT_CAPABILITIES)
IN_PROFILE = [name[1:] for name in GOLDEN if name.startswith("+")]
QUESTIONS = list(seccomp_probe.every_number())
PROBE = (INTERPRETER, "-ISB", "/probe/seccomp_probe.py")


@cache
def _read(name: str) -> dict[seccomp_probe.Question, int]:
    answers = {} if name == "default" else dict(_read("default"))
    for arch, by_errno in GOLDEN[name].items():
        for error, words in by_errno.items():
            for word in words.split():
                if match := re.fullmatch(r"(\d+)\((\w+),(\w+)\)", word):
                    number, first, second = (int(part, 0) for part in match.groups())
                    answers[(arch, number, first, second)] = int(error)
                else:
                    low, _, high = word.partition("-")
                    for number in range(int(low), int(high or low) + 1):
                        answers[(arch, number, 0, 0)] = int(error)
    return answers


def _differences(got: dict, want: dict) -> list:
    assert got.keys() == want.keys()
    return [(question, got[question], want[question]) for question in got if got[question] != want[question]]


def _capabilities(name: str) -> set[str]:
    if name == "none":
        return set()
    added = IN_PROFILE if name == "all" else [name[1:]] if name.startswith("+") else []
    return DEFAULT | {f"CAP_{cap}" for cap in added}


@pytest.mark.parametrize("name", list(GOLDEN))
def test_every_number_of_every_architecture_has_dockers_errno(name: str) -> None:
    profile = default_spec.default_seccomp(_capabilities(name))
    got = seccomp_probe.in_child(QUESTIONS, [seccomp.compile_profile(profile)])
    assert not _differences(got, _read(name))


def test_the_probe_sees_what_is_allowed_and_what_is_not() -> None:
    got = seccomp_probe.in_child(QUESTIONS, [])
    assert set(got.values()) == {0}


def _vector(output: str) -> dict[seccomp_probe.Question, int]:
    return seccomp_probe.parse(output.splitlines())


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "default"),
        (["--cap-add", "SYS_ADMIN"], "+SYS_ADMIN"),
        (["--cap-add", "sys_ptrace"], "+SYS_PTRACE"),
        (["--cap-drop", "ALL"], "none"),
        (["--cap-add", "ALL"], "all"),
        (["-u", "1000:1000"], "default"),
        (["--security-opt", "no-new-privileges"], "default"),
    ],
)
def test_containers_of_the_engine(satsuma: harness.Client, flags: list[str], name: str) -> None:
    out = satsuma("run", "--rm", *flags, *python_flags(), "busybox", *PROBE)
    assert not _differences(_vector(out), _read(name))


@pytest.mark.parametrize("flags", [["--privileged"], ["--security-opt", "seccomp=unconfined"]])
def test_unconfined_containers(satsuma: harness.Client, flags: list[str]) -> None:
    out = satsuma("run", "--rm", *flags, *python_flags(), "busybox", *PROBE)
    assert set(_vector(out).values()) == {0}


@pytest.mark.parametrize(
    ("flags", "name"), [([], "default"), (["--cap-add", "ALL"], "all"), (["--privileged"], "")]
)
def test_execs_have_the_filter_of_their_container(
    satsuma: harness.Client, flags: list[str], name: str
) -> None:
    container = satsuma("run", "-d", *flags, *python_flags(), "busybox", "sleep", "1000")
    try:
        got = _vector(satsuma("exec", container, *PROBE))
        assert not _differences(got, _read(name)) if name else set(got.values()) == {0}
    finally:
        satsuma("rm", "-f", container)


def test_a_custom_profile_replaces_the_default(satsuma: harness.Client, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
            }
        )
    )
    out = satsuma(
        "run", "--rm", "--security-opt", f"seccomp={path}", *python_flags(), "busybox", *PROBE, "x86_64"
    )
    got = _vector(out)
    assert got[("x86_64", 83, 0, 0)] == 95
    assert {error for question, error in got.items() if question[1] != 83} == {0}


def test_oci_runtime(bundles: Bundles) -> None:
    bundle, config = bundles.make(*PROBE)
    for source, target in python_binds():
        config["mounts"].append(
            {"destination": target, "type": "bind", "source": source, "options": ["rbind", "ro"]}
        )
    done = bundles.run(bundle, config)
    assert done.returncode == 0, done.stderr
    assert not _differences(_vector(done.stdout), _read("default"))


def test_a_profile_that_refuses_what_an_exec_needs_before_its_birth(
    satsuma: harness.Client, tmp_path: Path
) -> None:
    """The filter cannot be loaded before the last fork then; it is there all the same."""
    path = tmp_path / "profile.json"
    refused = {"names": ["setsid", "clone", "mkdir"], "action": "SCMP_ACT_ERRNO"}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}))
    flags = ("--security-opt", f"seccomp={path}", *python_flags())
    container = satsuma("run", "-d", *flags, "busybox", "sleep", "1000")
    try:
        got = _vector(satsuma("exec", container, *PROBE, "x86_64"))
        assert [got[("x86_64", number, 0, 0)] for number in (112, 56, 83, 84)] == [1, 1, 1, 0]
    finally:
        satsuma("rm", "-f", container)
