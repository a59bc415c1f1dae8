"""`satsuma-oci --systemd-cgroup` with the systemd of this machine, where there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from satsuma.linux.cgroup import layout
from satsuma.linux.systemd import Manager, SystemdError
from satsuma.runtime.features import example_spec

MIB = 1 << 20
APPLETS = "sh sleep cat true dd head mknod mkdir id".split()


def _reason() -> str:
    try:
        Manager().close()
    except SystemdError as error:
        return str(error)
    return ""


NO_SYSTEMD = _reason()
needs_systemd = pytest.mark.skipif(bool(NO_SYSTEMD), reason=NO_SYSTEMD or "systemd is there")
V2 = layout().mode == "v2"


class Box:
    """A bundle, and the program with --systemd-cgroup."""

    def __init__(self, directory: Path) -> None:
        self.id = f"t{uuid.uuid4().hex[:8]}"
        self.directory = directory
        (directory / "rootfs/bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", directory / "rootfs/bin/busybox")
        for name in APPLETS:
            (directory / "rootfs/bin" / name).symlink_to("busybox")
        self.config = example_spec()
        self.config["process"] |= {"terminal": False, "args": ["/bin/sleep", "1000"]}
        self.config["process"]["noNewPrivileges"] = False
        self.config["root"]["readonly"] = False
        self.config["linux"]["cgroupsPath"] = f"satsumatest.slice:satsuma:{self.id}"
        self.unit = f"satsuma-{self.id}.scope"
        self.path = f"/satsumatest.slice/{self.unit}"

    @property
    def limits(self) -> dict:
        return self.config["linux"]["resources"]

    def __call__(self, *args: str, ok: bool = True) -> str:
        (self.directory / "config.json").write_text(json.dumps(self.config))
        argv = [
            sys.executable,
            "-m",
            "satsuma.runtime.cli",
            "--root",
            str(self.directory / "state"),
            "--systemd-cgroup",
        ]
        out, err = self.directory / "out", self.directory / "err"
        # Files: what a created container holds open would keep a pipe from ending.
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            done = subprocess.run(
                [*argv, *args],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                timeout=120,
            )
        text = out.read_text() + err.read_text()
        assert (done.returncode == 0) is ok, text
        return text

    def show(self, *names: str, unit: str = "") -> dict[str, str]:
        argv = ["systemctl", "show", unit or self.unit, *(f"--property={name}" for name in names)]
        text = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
        return dict(line.split("=", 1) for line in text.splitlines())

    def directories(self) -> list[str]:
        return [point + self.path for point in dict.fromkeys(layout().mounts.values())]

    def read(self, controller: str, v1: str, v2: str) -> str:
        point = layout().mounts["" if V2 else controller]
        return Path(point + self.path, v2 if V2 else v1).read_text().strip()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    if not NO_SYSTEMD:
        made("delete", "--force", made.id)
        assert made.show("LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}
        assert not [directory for directory in made.directories() if os.path.exists(directory)]


@pytest.mark.skipif(not NO_SYSTEMD, reason="systemd runs here")
def test_without_systemd_it_is_refused(box: Box) -> None:
    text = box("run", "-d", box.id, ok=False)
    assert "cannot create systemd unit: systemd cannot be reached over D-Bus (" in text
    assert box("list", "-q") == ""
    assert not [directory for directory in box.directories() if os.path.exists(directory)]


@pytest.mark.skipif(bool(NO_SYSTEMD), reason=NO_SYSTEMD or "-")
def test_a_path_of_the_other_driver_is_refused(box: Box) -> None:
    box.config["linux"]["cgroupsPath"] = "/a/b"
    assert 'expected cgroupsPath to be of format \\"slice:prefix:name\\"' in box(
        "run", "-d", box.id, ok=False
    )


@needs_systemd
def test_the_container_is_a_scope_with_its_limits(box: Box) -> None:
    box.limits["memory"] = {"limit": 64 * MIB}
    box.limits["pids"] = {"limit": 33}
    box.limits["cpu"] = {"shares": 512, "quota": 33333, "period": 100000, "cpus": "0"}
    box.config["annotations"] = {"org.systemd.property.TimeoutStopUSec": "uint64 7000000"}
    box("run", "-d", box.id)
    shown = box.show(
        *(
            "ActiveState",
            "Slice",
            "Delegate",
            "ControlGroup",
            "TasksMax",
            "CPUQuotaPerSecUSec",
            "TimeoutStopUSec",
        ),
        *(
            "MemoryMax",
            "MemoryLimit",
            "CPUWeight",
            "CPUShares",
            "AllowedCPUs",
            "MemoryAccounting",
            "DevicePolicy",
        ),
    )
    assert shown["ActiveState"] == "active"
    assert (shown["Slice"], shown["Delegate"]) == ("satsumatest.slice", "yes")
    assert shown["ControlGroup"] == box.path
    assert (shown["TasksMax"], shown["MemoryAccounting"], shown["DevicePolicy"]) == ("33", "yes", "strict")
    assert shown["CPUQuotaPerSecUSec"] == "340ms"
    assert shown["TimeoutStopUSec"] == "7s"
    assert shown["MemoryMax" if V2 else "MemoryLimit"] == str(64 * MIB)
    assert shown["CPUWeight" if V2 else "CPUShares"] == ("59" if V2 else "512")
    assert shown["AllowedCPUs"] == "0"
    # The exact values are in the files.
    assert box.read("memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert box.read("cpu", "cpu.cfs_quota_us", "cpu.max") in ("33333", "33333 100000")
    assert box.read("pids", "pids.max", "pids.max") == "33"
    pid = json.loads(box("state", box.id))["pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if names.split(",")[0] in layout().mounts:
            assert path == box.path, line
    # The placeholder has gone; only init is there.
    assert box.read("pids", "cgroup.procs", "cgroup.procs") == str(pid)


@needs_systemd
def test_exec_pause_kill(box: Box) -> None:
    box("run", "-d", box.id)
    lines = box("exec", box.id, "/bin/cat", "/proc/self/cgroup").splitlines()
    assert {line.rpartition(":")[2] for line in lines} == {"/"}  # the root of its cgroup namespace
    box("pause", box.id)
    assert json.loads(box("state", box.id))["status"] == "paused"
    box("resume", box.id)
    box("kill", box.id, "KILL")
    deadline = time.monotonic() + 20
    while box.show("ActiveState")["ActiveState"] != "inactive":  # systemd sees that the scope is empty
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert json.loads(box("state", box.id))["status"] == "stopped"


@needs_systemd
def test_an_update_outlives_a_reload_of_systemd(box: Box) -> None:
    box.limits["memory"] = {"limit": 64 * MIB}
    box("run", "-d", box.id)
    box(
        "update",
        "--memory",
        "48m",
        "--pids-limit",
        "20",
        "--cpu-quota",
        "20000",
        "--cpu-period",
        "50000",
        box.id,
    )
    subprocess.run(["systemctl", "daemon-reload"], check=True, timeout=120)
    shown = box.show("MemoryMax", "MemoryLimit", "TasksMax", "CPUQuotaPerSecUSec")
    assert shown["MemoryMax" if V2 else "MemoryLimit"] == str(48 * MIB)
    assert (shown["TasksMax"], shown["CPUQuotaPerSecUSec"]) == ("20", "400ms")
    assert box.read("memory", "memory.limit_in_bytes", "memory.max") == str(48 * MIB)
    assert box.read("pids", "pids.max", "pids.max") == "20"


@needs_systemd
def test_devices_stay_out_of_reach_after_a_reload(box: Box) -> None:
    box.config["process"]["capabilities"] = {
        name: ["CAP_MKNOD"] for name in ("bounding", "effective", "permitted")
    }
    box("run", "-d", box.id)
    probe = (
        "exec",
        box.id,
        "/bin/sh",
        "-c",
        "mknod /m c 1 1; cat /dev/null && ! head -c1 /m 2>/dev/null && echo held",
    )
    assert "held" in box(*probe)
    subprocess.run(["systemctl", "daemon-reload"], check=True, timeout=120)
    assert "held" in box(*probe)
    box(
        "update",
        "-r",
        _file(box, {"devices": [{"allow": False}, {"allow": True, "type": "c", "major": 1, "minor": 1}]}),
        box.id,
    )
    subprocess.run(["systemctl", "daemon-reload"], check=True, timeout=120)
    assert "held" not in box(
        "exec", box.id, "/bin/sh", "-c", "dd if=/m of=/dev/null bs=1 count=1; cat /dev/null; true"
    )


def _file(box: Box, document: dict) -> str:
    path = box.directory / "resources.json"
    path.write_text(json.dumps(document))
    return str(path)


@needs_systemd
def test_a_killed_scope_that_failed_does_not_block_its_name(box: Box) -> None:
    box.limits["memory"] = {"limit": 16 * MIB, "swap": 16 * MIB} if V2 else {"limit": 16 * MIB}
    box.config["process"]["args"] = ["/bin/sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"]
    box("run", box.id, ok=False)
    box.config["process"]["args"] = ["/bin/sleep", "1000"]
    box("run", "-d", box.id)
    assert box.show("ActiveState")["ActiveState"] == "active"


@needs_systemd
def test_a_failed_start_leaves_no_unit(box: Box) -> None:
    box.config["process"]["args"] = ["/nope"]
    box("run", "-d", box.id, ok=False)
    assert box.show("LoadState")["LoadState"] == "not-found"
    box.config["annotations"] = {"org.systemd.property.NoSuchThing": "true"}
    box.config["process"]["args"] = ["/bin/true"]
    assert "cannot create systemd unit: unable to start unit" in box("run", "-d", box.id, ok=False)
    assert box("list", "-q") == ""


@needs_systemd
def test_the_default_place(box: Box) -> None:
    del box.config["linux"]["cgroupsPath"]
    box("run", "-d", box.id)
    box.unit = f"satsuma-{box.id}.scope"
    assert box.show("ControlGroup")["ControlGroup"] == f"/system.slice/{box.unit}"


@needs_systemd
def test_two_steps(box: Box) -> None:
    box("create", box.id)
    assert box.show("ActiveState")["ActiveState"] == "active"
    box("start", box.id)
    assert json.loads(box("state", box.id))["status"] == "running"
