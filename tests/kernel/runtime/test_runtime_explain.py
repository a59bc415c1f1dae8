"""`run --explain` and `plan` of the program: the same steps, once with times and once without."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from satsuma.runtime.features import example_spec

pytestmark = pytest.mark.root
STEP = re.compile(r"^ *(\d*)  ([a-zA-Z_0-9 ]{17})(?:  (.*))?$")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", tmp_path / "rootfs/bin/sh")
    config = example_spec()
    config["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", "echo hello"]}
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["clock_gettime"], "action": "SCMP_ACT_ERRNO"}],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def oci(bundle: Path, *args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "satsuma.runtime.cli", "--root", str(bundle / "root"), *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def steps(text: str) -> list[tuple[str, str]]:
    found = [match for match in map(STEP.match, text.splitlines()) if match and match[2].strip()]
    return [(match[1], match[2].strip()) for match in found]


def test_run_explain_times_every_step_of_the_plan(bundle: Path):
    name = f"satsuma-test-{uuid.uuid4().hex[:8]}"
    done = oci(bundle, "run", "--explain", "-b", str(bundle), name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello\n"
    shown = steps(done.stderr)
    assert all(time for time, _ in shown if _ != "step")
    plan = [name for _, name in steps(oci(bundle, "plan", str(bundle)).stdout)]
    executed = [name for _, name in shown]
    # `run` has more: what the runtime does on the host, and the wait for `start`.
    position = 0
    for step in plan:
        position = executed.index(step, position) + 1
    for step in ("clone3", "pivot_root", "seccomp", "capset", "execve"):
        assert step in plan


def test_a_failed_start_shows_how_far_it_came(bundle: Path):
    config = json.loads((bundle / "config.json").read_text())
    config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "none"})
    (bundle / "config.json").write_text(json.dumps(config))
    done = oci(bundle, "run", "--explain", "-b", str(bundle), f"satsuma-test-{uuid.uuid4().hex[:8]}")
    assert done.returncode == 1
    before, _, after = done.stderr.partition("failed here")
    assert "nosuchfs none on /x" in before.splitlines()[-2]
    assert "pivot_root" not in [name for _, name in steps(done.stderr)]
    assert "no such device" in after


def test_exec_explain_shows_the_birth_inside_at_the_end(bundle: Path):
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["args"] = ["/bin/sh", "-c", "while :; do read x; done < /dev/zero"]
    (bundle / "config.json").write_text(json.dumps(config))
    name = f"satsuma-test-{uuid.uuid4().hex[:8]}"
    started = subprocess.run(
        [
            sys.executable,
            "-m",
            "satsuma.runtime.cli",
            "--root",
            str(bundle / "root"),
            "run",
            "-d",
            "-b",
            bundle,
            name,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=20,
        check=False,
    )
    assert started.returncode == 0
    try:
        done = oci(bundle, "exec", "--explain", name, "/bin/sh", "-c", "echo hello; exit 3")
        assert (done.returncode, done.stdout) == (3, "hello\n")
        names = [name for time, name in steps(done.stderr) if time]
        order = ["clone3", "setns", "setresuid", "stat", "capset clone", "capset", "execve"]
        assert [name for name in names if name in order] == order
        assert "become the program, beside" in done.stderr and "seccomp" in names
        failed = oci(bundle, "exec", "--explain", name, "/nope")
        assert failed.returncode == 255 and "failed here" in failed.stderr
        assert [name for time, name in steps(failed.stderr) if time][-1] == "stat"
    finally:
        oci(bundle, "delete", "--force", name)


def test_without_explain_nothing_of_it_is_imported(bundle: Path):
    argv = [sys.executable, "-X", "importtime", "-m", "satsuma.runtime.cli", "--root", str(bundle / "root")]
    argv += ["run", "-b", str(bundle), f"satsuma-test-{uuid.uuid4().hex[:8]}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0
    assert "satsuma.runtime.create" in done.stderr
    for module in ("satsuma.runtime.trace", "satsuma.runtime.explain", "satsuma.wire", "mmap"):
        assert module not in done.stderr
