"""The program as it is installed: how it finds its package, what each command imports, one file of state."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from satsuma.linux.cgroup import layout
from satsuma.runtime.features import example_spec

REPOSITORY = Path(__file__).parents[3]
LINE = re.compile(r"^import time:[^|]*\|[^|]*\| *(\S+)$", re.MULTILINE)

# Beyond what a bare `python3 -IS` has loaded.  A new name costs 0.1 ms at the least, ctypes costs 2: is it needed by
# this command, for every container?  (typing, dataclasses, enum, json and re are never.)
STATE = set(
    """
    __future__ _json errno satsuma satsuma.linux satsuma.linux.cgroup satsuma.linux.cgroup_tree satsuma.linux.mountinfo
    satsuma.linux.pidfd satsuma.runtime satsuma.runtime.cli satsuma.runtime.cliargs satsuma.runtime.errors
    satsuma.runtime.fastjson satsuma.runtime.state
    """.split()
)
LIFE = STATE | {"satsuma.runtime.manager", "select"}
MAKE = LIFE | set(
    """
    _ctypes _socket _struct ctypes ctypes._endian fcntl gc math resource struct termios types
    satsuma.linux.caps satsuma.linux.lsm satsuma.linux.mount satsuma.linux.ns satsuma.linux.passwd satsuma.linux.prctl
    satsuma.linux.pty satsuma.linux.root satsuma.linux.seccomp satsuma.linux.syscalls satsuma.runtime.birth
    satsuma.runtime.birthplace satsuma.runtime.config satsuma.runtime.console satsuma.runtime.create
    satsuma.runtime.devices satsuma.runtime.exec satsuma.runtime.finish satsuma.runtime.hooks satsuma.runtime.maker
    satsuma.runtime.mounts satsuma.runtime.plan satsuma.runtime.resources satsuma.runtime.rootfs satsuma.runtime.stage
    """.split()
)

# Started by the interpreter of the host, as here, and not by the script, the program starts itself again.
MAKE |= {"satsuma.linux.sealed", "satsuma.runtime.seal"}
if layout().mode == "v2":
    MAKE |= {"satsuma.linux.bpf_devices"}


class Program:
    """The script below a prefix of its own, as an editable installation makes it."""

    def __init__(self, prefix: Path) -> None:
        self.path = prefix / "bin/satsuma-oci"
        self.root = prefix / "state"
        packages = prefix / "lib/python{}.{}/site-packages".format(*sys.version_info[:2])
        packages.mkdir(parents=True)
        self.path.parent.mkdir()
        shutil.copy(REPOSITORY / "programs/satsuma-oci", self.path)
        (prefix / "bin/python3").symlink_to(os.path.realpath(sys.executable))
        self.pointer = packages / "_editable_impl_satsuma_engine.pth"
        self.pointer.write_text(str(REPOSITORY / "src"))

    def run(self, *args: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        out, log = self.root.with_name("stdout"), self.root.with_name("stderr")
        # Files: what a created container holds open would keep a pipe from ending.
        with open(out, "wb") as stdout, open(log, "wb") as stderr:
            done = subprocess.run(
                [*before, str(self.path), "--root", str(self.root), *args],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                text=True,
                timeout=20,
                check=False,
            )
        done.stdout, done.stderr = out.read_text(), log.read_text()
        return done

    def imports(self, *args: str) -> set[str]:
        python = str(self.path.with_name("python3"))
        done = self.run(*args, before=(python, "-IS", "-X", "importtime"))
        assert done.returncode == 0, done.stderr
        return set(LINE.findall(done.stderr))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "prefix")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = tmp_path / "bundle"
    (directory / "rootfs/bin").mkdir(parents=True)
    for name in ("sh", "sleep", "true"):
        shutil.copy("/bin/busybox", directory / "rootfs/bin" / name)
    config = example_spec()
    config["process"] |= {"terminal": False, "args": ["/bin/sleep", "100"]}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
def container(program: Program) -> Iterator[str]:
    name = f"satsuma-test-{uuid.uuid4().hex[:8]}"
    yield name
    program.run("delete", "--force", name)


@pytest.fixture(scope="module")
def bare() -> set[str]:
    argv = [os.path.realpath(sys.executable), "-IS", "-X", "importtime", "-c", ""]
    return set(LINE.findall(subprocess.run(argv, capture_output=True, text=True, check=True).stderr))


def test_each_command_imports_what_is_on_its_list(
    program: Program, bundle: Path, container: str, bare: set[str]
) -> None:
    os_modules = {"os", "posixpath", "genericpath", "stat", "_stat", "_collections_abc", "abc", "_abc"}
    for args, allowed in (
        (("create", "-b", str(bundle), container), MAKE),
        (("start", container), LIFE),
        (("state", container), STATE),
        (("list",), STATE),
        (("exec", container, "/bin/true"), MAKE | {"satsuma.runtime.execargs"}),
        (("ps", "-f", "json", container), STATE),
        (("pause", container), LIFE),
        (("resume", container), LIFE),
        (("kill", container, "KILL"), LIFE),
        (("delete", "--force", container), LIFE),
        (("run", "-d", "-b", str(bundle), container), MAKE),
    ):
        more = program.imports(*args) - bare - os_modules - allowed
        assert not more, f"{args[0]} imports {sorted(more)}"


def test_state_reads_one_file_below_the_root(program: Program, bundle: Path, container: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert program.run("create", "-b", str(bundle), container).returncode == 0
    for command in (("state",), ("start",), ("kill",)):
        trace = program.root.with_name("trace")
        program.run(*command, container, before=("strace", "-f", "-e", "trace=openat", "-o", str(trace)))
        opened = re.findall(rf'"{program.root}/({container}/[^"]+)"', trace.read_text())
        assert [name for name in opened if not name.endswith("exec.fifo")] == [f"{container}/state.json"]


def test_script_works_through_a_link_and_from_site(program: Program, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere"
    link.symlink_to(program.path)
    done = subprocess.run([link, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("satsuma-oci version ")
    assert not done.stderr


def test_environment_and_working_directory_do_not_lead_astray(program: Program, tmp_path: Path) -> None:
    (tmp_path / "satsuma").mkdir()
    (tmp_path / "satsuma/__init__.py").write_text("raise SystemExit(99)")
    done = subprocess.run(
        [program.path, "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_peak_memory_of_run_stays_below_twelve_mebibytes(
    program: Program, bundle: Path, container: str
) -> None:
    argv = [program.path, "--root", program.root, "run", "-b", bundle, container]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            while program.run("state", container).returncode:
                pass
            while json.loads(program.run("state", container).stdout)["status"] != "running":
                pass
            status = Path(f"/proc/{process.pid}/status").read_text()
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        finally:
            program.run("kill", container, "KILL")
    private = sum(int(kib) for kib in re.findall(r"^Private_\w+: +(\d+)", rollup, re.MULTILINE))
    highest = int(re.search(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)[1])
    shared = sum(int(kib) for kib in re.findall(r"^Shared_\w+: +(\d+)", rollup, re.MULTILINE))
    # The highest resident size less what is shared with every other Python: what the process itself has needed.
    assert max(private, highest - shared) < 12 * 1024
