"""Bundles for OCI runtimes, ours and that of others: one root file system, a state directory for each runtime."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import cgroup_directories
from satsuma.runtime.features import example_spec

ENV = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "src"),
}
OURS = (sys.executable, "-m", "satsuma.runtime.cli")
FLAGS = os.environ.get("SATSUMA_TEST_OCI_FLAGS", "").split()
"""More global flags for our runtime, so that all tests can be run in another mode."""
RUNC = shutil.which("runc")
APPLETS = (
    "sh ls cat id true false sleep env pwd kill tty stty readlink echo mount umount stat touch mkdir rm hostname "
    "grep head ip wc nice test chmod chown date dmesg taskset seq uname"
).split()


class Result(tuple[int, str, str]):
    """(status, stdout, stderr) of one command."""

    @property
    def code(self) -> int:
        return self[0]

    @property
    def out(self) -> str:
        return self[1]

    @property
    def err(self) -> str:
        return self[2]


class Runtime:
    """One runtime with a state directory and an id of its own, on a bundle that it may share with others."""

    def __init__(self, directory: Path, command: tuple[str, ...] = OURS, bundle: Path | None = None) -> None:
        self.directory = directory
        self.command = command
        self.bundle = bundle or make_bundle(directory / "bundle")
        self.root = directory / "state"
        self.id = f"satsuma-test-{uuid.uuid4().hex[:8]}"
        self.config: dict[str, Any] = example_spec()
        self.config["process"]["terminal"] = False
        self.config["root"]["readonly"] = False
        self.args("sleep", "100")
        self.global_flags: list[str] = list(FLAGS) if command == OURS else []

    @property
    def rootfs(self) -> Path:
        return self.bundle / "rootfs"

    @property
    def process(self) -> dict[str, Any]:
        return self.config["process"]  # type: ignore[no-any-return]

    @property
    def linux(self) -> dict[str, Any]:
        return self.config["linux"]  # type: ignore[no-any-return]

    def args(self, *args: str) -> None:
        self.config["process"]["args"] = list(args)

    def sh(self, script: str) -> None:
        self.args("sh", "-c", script)

    def namespace(self, kind: str, path: str | None = None) -> None:
        """Add a namespace, or replace the one of that kind."""
        kept = [entry for entry in self.linux["namespaces"] if entry["type"] != kind]
        self.linux["namespaces"] = [*kept, {"type": kind, **({"path": path} if path else {})}]

    def without(self, *kinds: str) -> None:
        """Remove namespaces."""
        self.linux["namespaces"] = [entry for entry in self.linux["namespaces"] if entry["type"] not in kinds]

    def user_namespace(self, host: int = 100000, size: int = 65536) -> None:
        self.namespace("user")
        self.linux["uidMappings"] = self.linux["gidMappings"] = [
            {"containerID": 0, "hostID": host, "size": size}
        ]

    def write(self) -> None:
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def argv(self, *args: str) -> list[str]:
        return [*self.command, "--root", str(self.root), *self.global_flags, *args]

    def __call__(self, *args: str, stdin: str = "", env: dict[str, str] | None = None) -> Result:
        """Run one command; what it leaves running must not hold our pipes."""
        out, err = self.directory / "out", self.directory / "err"
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            done = subprocess.run(
                self.argv(*args),
                stdout=stdout,
                stderr=stderr,
                input=stdin.encode(),
                timeout=30,
                env={**ENV, **(env or {})},
                cwd=self.directory,
                check=False,
            )
        return Result((done.returncode, out.read_text(), err.read_text()))

    def ok(self, *args: str, stdin: str = "") -> str:
        result = self(*args, stdin=stdin)
        assert result.code == 0, result
        return result.out

    def create(self, *flags: str) -> Result:
        self.write()
        return self("create", "--bundle", str(self.bundle), *flags, self.id)

    def run(self, *flags: str, stdin: str = "") -> Result:
        self.write()
        return self("run", "--bundle", str(self.bundle), *flags, self.id, stdin=stdin)

    def output(self, *flags: str) -> str:
        """Run the container to its end; return what it prints."""
        result = self.run(*flags)
        assert result.code == 0, result
        return result.out

    def refused(self, *flags: str) -> str:
        """Run a container that cannot be made; return the error."""
        result = self.run(*flags)
        assert result.code == 1, result
        assert not list(self.root.iterdir()) if self.root.exists() else True
        return result.err

    def start(self, *flags: str) -> dict[str, Any]:
        """Create and start; return the state."""
        result = self.create(*flags)
        assert result.code == 0, result
        self.ok("start", self.id)
        return self.state()

    def state(self) -> dict[str, Any]:
        return json.loads(self.ok("state", self.id))  # type: ignore[no-any-return]

    def wait(self, status: str) -> None:
        until(lambda: self.state()["status"] == status)

    def close(self) -> None:
        """Remove the container; nothing of it may be left."""
        self("delete", "--force", self.id)
        assert not cgroup_directories(self.id)
        assert not self.root.exists() or not list(self.root.iterdir())


def until(check: Callable[[], object], limit: float = 10.0) -> None:
    deadline = time.monotonic() + limit
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def make_bundle(bundle: Path) -> Path:
    """Make a directory with a busybox root; everybody may enter it, as users of other namespaces must."""
    rootfs = bundle / "rootfs"
    for name in ("bin", "etc", "tmp", "dev", "proc", "sys", "data", "m"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for name in APPLETS:
        (rootfs / "bin" / name).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")
    (rootfs / "etc/group").write_text("root:x:0:\nbob:x:1000:\naudio:x:29:bob\n")
    path = bundle
    while path != path.parent and str(path).startswith("/tmp/") and path != Path("/tmp"):
        os.chmod(path, 0o755)
        path = path.parent
    return bundle


def pair(directory: Path) -> tuple[Runtime, Runtime]:
    """Return our runtime and runc on one bundle."""
    assert RUNC is not None
    bundle = make_bundle(directory / "bundle")
    made = []
    for name, command in (("ours", OURS), ("runc", (RUNC,))):
        (directory / name).mkdir()
        made.append(Runtime(directory / name, command, bundle))
    made[1].id = made[0].id + "r"
    made[1].config = made[0].config
    return made[0], made[1]


_CHANGES = (
    (re.compile(r"satsuma-oci|\brunc\b"), "RUNTIME"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|\d{4}-\d\d-\d\dT[\d:]+[+-]\d\d:\d\d"), "TIME"),
    # Of a file, to the minute.
    (re.compile(r"\b[A-Z][a-z]{2} [ \d]\d \d\d:\d\d\b"), "TIME"),
    (re.compile(r"(\"?pid\"?: ?)\d+"), r"\g<1>PID"),
)


def normal(runtime: Runtime, text: str) -> str:
    """Replace what must differ: names, ids, paths of the runtime, times, pids."""
    for old, new in ((runtime.id, "ID"), (str(runtime.directory), "DIR")):
        text = text.replace(old, new)
    for pattern, replacement in _CHANGES:
        text = pattern.sub(replacement, text)
    return text


__all__ = ["OURS", "RUNC", "Runtime", "copy", "make_bundle", "normal", "pair", "until"]
