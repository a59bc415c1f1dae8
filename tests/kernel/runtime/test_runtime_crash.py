"""The runtime is killed at any system call of any command: `delete --force` leaves nothing.

A profile function counts the calls that reach the kernel and kills the process at the n-th.  By default some points
of each command are tried; all of them with SATSUMA_SWEEP=1 (some minutes).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from satsuma.linux.cgroup import layout
from satsuma.runtime.features import example_spec

SOURCE = Path(__file__).parents[3] / "src"
pytestmark = pytest.mark.slow
EVERY_POINT = bool(os.environ.get("SATSUMA_SWEEP"))
POINTS = 8
KILLED = -9
DEATHS = ("killed before it could start", "parent process is gone", "container process is already dead")

DRIVER = """
import os, sys
sys.path.append(sys.argv[1])
victim, last, arguments = sys.argv[2], int(sys.argv[3]), sys.argv[4:]
from satsuma.linux import syscalls
from satsuma.runtime import cli, console, create, exec, execargs, hooks, maker, manager
MAIN, MODULES = os.getpid(), {"posix", "_socket", "select", "fcntl", "_signal", "resource"}
count = 0
def watch(frame, event, argument):
    global count
    if event == "c_call":
        if getattr(argument, "__module__", None) not in MODULES:
            return
    elif event != "call" or frame.f_code.co_name != "call" or frame.f_code.co_filename != syscalls.__file__:
        return
    if (os.getpid() == MAIN) != (victim == "runtime"):
        return
    count += 1
    if count == last:
        # Process 1 of a pid namespace cannot be killed from inside.
        os.kill(MAIN, 9) if victim == "runtime" else os._exit(137)
sys.setprofile(watch)
code = cli.main(arguments)
sys.setprofile(None)
if victim == "runtime" and last == 0:
    print(count, file=sys.stderr)
os._exit(code)
"""


class Crashing:
    """One container whose runtime dies."""

    def __init__(self, directory: Path) -> None:
        self.bundle = directory / "bundle"
        self.root = directory / "root"
        self.name = ""
        (self.bundle / "rootfs/bin").mkdir(parents=True)
        for name in ("sh", "sleep", "true"):
            shutil.copy("/bin/busybox", self.bundle / "rootfs/bin" / name)
        self.config = example_spec()
        self.new_name()

    def new_name(self) -> None:
        self.name = f"satsuma-test-{uuid.uuid4().hex[:10]}"
        self.config["process"] |= {
            "terminal": False,
            "args": ["/bin/sh", "-c", f": {self.name}; /bin/sleep 100"],
        }
        self.config["linux"]["cgroupsPath"] = f"/{self.name}"
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def call(self, *args: str, victim: str = "runtime", point: int = 0) -> tuple[int, str]:
        """Run one command and let it die at *point*; return (status, its errors)."""
        argv = [
            sys.executable,
            "-IS",
            "-c",
            DRIVER,
            str(SOURCE),
            victim,
            str(point),
            "--root",
            str(self.root),
        ]
        log = self.root.with_name("log")
        with open(log, "wb") as err:
            done = subprocess.run(
                [*argv, *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                timeout=30,
                check=False,
            )
        return done.returncode, log.read_text()

    def clean_up(self) -> None:
        status, errors = self.call("delete", "--force", self.name)
        assert status == 0, errors

    def remains(self) -> list[str]:
        found = [str(path) for path in self.root.glob("*")]
        found += [
            path for point in {*layout().mounts.values()} if os.path.exists(path := f"{point}/{self.name}")
        ]
        found += [
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.bundle) in line
        ]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if self.name.encode() in command:
                found.append(f"{process}: {command!r}")
        return found

    def assert_nothing_is_left(self, where: str) -> None:
        deadline = time.monotonic() + 5
        while (found := self.remains()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not found, f"{where}: {found}"


@pytest.fixture
def crashing(tmp_path: Path) -> Iterator[Crashing]:
    made = Crashing(tmp_path)
    yield made
    made.call("delete", "--force", made.name)


def points(count: int) -> list[int]:
    """Return the points to try: all, or some of all parts."""
    if EVERY_POINT:
        return list(range(1, count + 1))
    step = count / POINTS
    return sorted({1 + int(step * (number + random.random())) for number in range(POINTS)})


def prepare(crashing: Crashing, command: str) -> list[str]:
    """Bring a container into the state that *command* expects; return its arguments."""
    if command in ("create", "run"):
        return ["-b", str(crashing.bundle), *(["-d"] if command == "run" else []), crashing.name]
    status, errors = crashing.call("create", "-b", str(crashing.bundle), crashing.name)
    assert status == 0, errors
    if command == "start":
        return [crashing.name]
    assert crashing.call("start", crashing.name)[0] == 0
    if command == "exec":
        return ["-d", crashing.name, "/bin/sh", "-c", f": {crashing.name}; /bin/sleep 100"]
    return {"kill": [crashing.name, "KILL"], "delete": ["--force", crashing.name], "pause": [crashing.name]}[
        command
    ]


@pytest.mark.parametrize("command", ["create", "run", "start", "exec", "pause", "kill", "delete"])
def test_killed_runtime_leaves_nothing_that_delete_does_not_remove(crashing: Crashing, command: str) -> None:
    status, count = crashing.call(command, *prepare(crashing, command))
    assert status == 0, count
    crashing.clean_up()
    crashing.assert_nothing_is_left("unharmed")
    for point in points(int(count.splitlines()[-1])):
        crashing.new_name()
        status, errors = crashing.call(command, *prepare(crashing, command), point=point)
        assert status in (KILLED, 0), errors
        crashing.clean_up()
        crashing.assert_nothing_is_left(f"{command} killed at call {point}")


@pytest.mark.parametrize("command", ["create", "run", "exec"])
def test_new_process_that_dies_is_an_error_and_leaves_nothing(crashing: Crashing, command: str) -> None:
    # The number of calls that the new process makes is not known to us: until the command succeeds.
    point, failures = 1, 0
    while True:
        crashing.new_name()
        status, errors = crashing.call(command, *prepare(crashing, command), victim="init", point=point)
        if status == 0:
            break
        assert any(text in errors for text in DEATHS), errors
        assert "Traceback" not in errors
        if command == "exec":
            assert status == 255
            crashing.clean_up()
        crashing.assert_nothing_is_left(f"{command}: init died at call {point}")
        failures += 1
        point += 1 if EVERY_POINT else random.randint(5, 25)
    crashing.clean_up()
    assert failures > 5
