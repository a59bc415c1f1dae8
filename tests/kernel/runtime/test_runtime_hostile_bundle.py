"""Hostile bundles through the program: a clear error or a container, never a traceback, and nothing left behind."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from satsuma.linux.cgroup import layout
from satsuma.runtime.features import example_spec

SEGMENTATION_FAULT = 128 + 11


class Hostile:
    """A bundle that can be broken in many ways."""

    def __init__(self, directory: Path) -> None:
        self.bundle = directory / "bundle"
        self.root = directory / "root"
        self.rootfs = self.bundle / "rootfs"
        (self.rootfs / "bin").mkdir(parents=True)
        for name in ("true", "sh"):
            shutil.copy("/bin/busybox", self.rootfs / "bin" / name)
        self.config: Any = example_spec()
        self.config["process"] |= {"terminal": False, "args": ["/bin/true"]}
        self.name = f"satsuma-test-{uuid.uuid4().hex[:10]}"

    def run(self, *flags: str, timeout: float = 60) -> tuple[int, str]:
        if self.config is not None:
            (self.bundle / "config.json").write_text(json.dumps(self.config))
        # In a pid namespace: a runtime that goes wrong must not reach the rest of the machine.
        argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv += [sys.executable, "-m", "satsuma.runtime.cli", "--root", str(self.root), "run", *flags]
        done = subprocess.run(
            [*argv, "-b", str(self.bundle), self.name],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in done.stderr and "internal error" not in done.stderr, done.stderr
        # What only execve(2) finds out is said on the program's own stderr, and a program without memory crashes.
        if done.returncode not in (0, SEGMENTATION_FAULT) and not done.stderr.startswith("exec /bin/true: "):
            assert "level=error" in done.stderr, done.stderr
        self.assert_clean()
        return done.returncode, done.stderr

    def assert_clean(self) -> None:
        assert not list(self.root.glob("*"))
        assert not [point for point in layout().mounts.values() if os.path.exists(f"{point}/{self.name}")]
        assert str(self.bundle) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    yield Hostile(tmp_path)


@pytest.mark.slow
def test_ten_thousand_mounts(hostile: Hostile) -> None:
    mount = {"type": "tmpfs", "source": "tmpfs", "options": ["size=4k"]}
    hostile.config["mounts"] += [{"destination": f"/m/{number}", **mount} for number in range(10_000)]
    status, errors = hostile.run()
    # The kernel may have a limit (fs.mount-max): then it says so.
    assert status == 0 or "no space left on device" in errors, errors


def test_links_that_run_in_circles(hostile: Hostile) -> None:
    (hostile.rootfs / "a").symlink_to("b")
    (hostile.rootfs / "b").symlink_to("a")
    hostile.config["mounts"].append({"destination": "/a/x", "type": "tmpfs", "source": "tmpfs"})
    status, errors = hostile.run()
    assert status == 1 and "too many levels of symbolic links" in errors
    hostile.config["mounts"].pop()
    hostile.config["process"]["cwd"] = "/a"
    status, errors = hostile.run()
    assert status == 1 and "too many levels of symbolic links" in errors
    hostile.config["process"]["cwd"] = "/"
    hostile.config["process"]["args"] = ["/a"]
    status, errors = hostile.run()
    assert status and "/a" in errors
    hostile.config["linux"]["maskedPaths"] = ["/a"]
    hostile.config["process"]["args"] = ["/bin/true"]
    status, errors = hostile.run()
    assert status == 1 and "masked path /a" in errors


def test_links_out_of_the_root_stay_inside(hostile: Hostile, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (hostile.rootfs / "door").symlink_to(outside)
    hostile.config["mounts"].append({"destination": "/door/x", "type": "tmpfs", "source": "tmpfs"})
    assert hostile.run()[0] == 0
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("process.args", ["/bin/true", "x" * (1 << 18)]),
        ("process.args", ["x" * 5000]),
        ("process.args", ["/bin/true"] * 300_000),
        ("process.env", ["A=" + "x" * (1 << 18)]),
        ("process.env", ["=", "", "A", "PATH="]),
        ("process.cwd", "/" + "d/" * 3000),
        ("process.cwd", "/" + "d" * 300),
        ("process.user", {"uid": 4294967295, "gid": 4294967295}),
        ("process.user.additionalGids", list(range(70_000))),
        ("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": (1 << 64) - 1, "hard": (1 << 64) - 1}]),
        ("process.rlimits", [{"type": "RLIMIT_AS", "soft": 1, "hard": 1}]),
        ("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 0, "hard": 0}]),
        ("process.rlimits", [{"type": "RLIMIT_FSIZE", "soft": 0, "hard": 0}]),
        ("process.rlimits", [{"type": "RLIMIT_NPROC", "soft": 0, "hard": 0}]),
        ("process.rlimits", [{"type": "RLIMIT_STACK", "soft": 1, "hard": 1}]),
        ("hostname", "h" * 500),
        ("hostname", "h\0h"),
        ("root.path", "x" * 5000),
        ("root.path", "bad\0path"),
        ("linux.cgroupsPath", "/" + "g" * 300),
        ("linux.cgroupsPath", "/satsuma\0x"),
        ("linux.resources", {"memory": {"limit": 1}}),
        ("linux.resources", {"memory": {"limit": 1 << 62}}),
        ("linux.resources", {"pids": {"limit": -5}}),
        ("linux.resources", {"cpu": {"quota": 1, "period": 1}}),
        ("linux.resources", {"cpu": {"cpus": "99-100000"}}),
        ("linux.resources", {"unified": {"../../x": "1"}}),
        (
            "linux.resources",
            {"devices": [{"allow": True, "type": "c", "major": 1 << 31, "minor": 5, "access": "r"}]},
        ),
        ("linux.devices", [{"path": "/dev/x", "type": "c", "major": 1 << 31, "minor": 1}]),
        ("linux.devices", [{"path": "relative", "type": "c", "major": 1, "minor": 3}]),
        ("linux.devices", [{"path": "/../../../x", "type": "c", "major": 1, "minor": 3}]),
        ("linux.devices", [{"path": f"/dev/n{n}", "type": "c", "major": 1, "minor": 3} for n in range(3000)]),
        ("linux.maskedPaths", ["", "/", "relative", "/proc/../..", "/" + "x" * 5000]),
        ("linux.maskedPaths", ["/proc/kcore"] * 3000),
        ("linux.readonlyPaths", ["/" + "y/" * 2500]),
        ("linux.namespaces", [{"type": "mount", "path": "/etc/passwd"}]),
        ("linux.namespaces", [{"type": "mount"}, {"type": "pid", "path": "/proc/1"}]),
        ("linux.namespaces", []),
        ("linux.sysctl", {"net." + "x" * 5000: "1"}),
        ("linux.sysctl", {"net.ipv4.ip_forward": "x" * 100_000}),
        ("hooks", {"createContainer": [{"path": "/nonexistent"}]}),
        ("hooks", {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 60"], "timeout": 1}]}),
        ("annotations", {f"key{n}": "v" * 100 for n in range(10_000)}),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else repr(value)[:40],
)
def test_extreme_values(hostile: Hostile, path: str, value: object) -> None:
    target = hostile.config
    *parents, last = path.split(".")
    for key in parents:
        target = target.setdefault(key, {})
    target[last] = value
    hostile.run()


def test_unknown_fields_that_nest_deeply_do_no_harm(hostile: Hostile) -> None:
    for depth in (100, 400, 900, 990, 3000):
        text = json.dumps(hostile.config)[:-1] + ', "x": ' + "[" * depth + "]" * depth + "}"
        (hostile.bundle / "config.json").write_text(text)
        config, hostile.config = hostile.config, None
        status, errors = hostile.run()
        hostile.config = config
        assert status == 0 or "nested too deeply" in errors


def test_files_that_are_no_files(hostile: Hostile) -> None:
    path = hostile.bundle / "config.json"
    config, hostile.config = hostile.config, None
    path.mkdir()
    assert hostile.run()[0] == 1
    path.rmdir()
    path.symlink_to(path)
    assert hostile.run()[0] == 1
    path.unlink()
    os.mkfifo(path)
    assert hostile.run(timeout=10)[0] == 1
    path.unlink()
    path.write_bytes(b"\0" * 1000)
    assert hostile.run()[0] == 1
    hostile.config = config


def test_bundle_whose_root_is_no_directory(hostile: Hostile) -> None:
    shutil.rmtree(hostile.rootfs)
    hostile.rootfs.write_text("x")
    assert "not a directory" in hostile.run()[1]
    hostile.rootfs.unlink()
    hostile.rootfs.symlink_to(hostile.rootfs)
    assert hostile.run()[0] == 1
    hostile.rootfs.unlink()
    hostile.rootfs.symlink_to("/")
    assert "root directory of the host" in hostile.run()[1]


@pytest.mark.parametrize("seed", range(20))
def test_bytes_of_the_file_changed_at_random(hostile: Hostile, seed: int) -> None:
    source = random.Random(seed)
    text = bytearray(json.dumps(copy.deepcopy(hostile.config)).encode())
    for _ in range(source.randint(1, 6)):
        text[source.randrange(len(text))] = source.choice(b'{}[]",:0129-.eE\\u\0\x7f\xff ntf')
    (hostile.bundle / "config.json").write_bytes(bytes(text))
    hostile.config = None
    hostile.run()
