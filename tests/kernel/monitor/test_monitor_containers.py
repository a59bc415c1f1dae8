"""Real containers from a busybox root: launcher, monitor and runtime together."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import monitor_host
import pytest
from monitor_host import joined

from satsuma.base import errors
from satsuma.linux import pidfd, seccomp
from satsuma.linux.cgroup import layout
from satsuma.monitor import client
from satsuma.runtime import default_spec
from satsuma.runtime.systemd import recorded_group

CAPS = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"]
NAMESPACES = ("mount", "pid", "ipc", "uts", "network", "cgroup")
PATH = "PATH=/bin:/sbin"


@pytest.fixture(scope="module")
def lowerdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("busybox")
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "root"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nweb:x:33:\n")
    root.chmod(0o755)
    return str(root)


@pytest.fixture
async def engine(lowerdir):
    async with monitor_host.open_host(None) as host:
        host.lowerdir = lowerdir
        yield host


def process(*args, tty=False, user=0):
    return {
        "args": list(args),
        "cwd": "/",
        "env": [PATH, "TERM=xterm"],
        "terminal": tty,
        "user": {"uid": user, "gid": user},
        "capabilities": default_spec.capability_sets(CAPS) if not user else None,
    }


def launch_spec(host, *args, namespaces=NAMESPACES, resources=None, user=0, **options):
    number = host.count + 1
    container_id = f"{number:064x}"
    profile = default_spec.default_seccomp(CAPS)
    config = {
        "ociVersion": "1.0.2",
        "process": process(*args, tty=options.get("tty", False), user=user),
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": default_spec.default_mounts(),
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces],
            "cgroupsPath": f"/satsuma-test-{os.getpid()}/{container_id}",
            "resources": resources or {},
            "maskedPaths": default_spec.masked_paths(),
            "readonlyPaths": list(default_spec.READONLY_PATHS),
        },
    }
    for name in ("upper", "work"):
        os.makedirs(f"{host.root}/{container_id}/{name}", exist_ok=True)
    extras = {
        "overlay": {
            "lowerdirs": [host.lowerdir],
            "upperdir": f"{host.root}/{container_id}/upper",
            "workdir": f"{host.root}/{container_id}/work",
            "volatile": True,
        },
        "seccomp_bpf": seccomp.compile_profile(profile),
        **options.pop("extras", {}),
    }
    return host.spec(config=config, extras=extras, container_id=container_id, **options)


async def launch(host, *args, **options):
    spec = launch_spec(host, *args, **options)
    return await host.launcher.launch(spec)


@pytest.fixture(scope="module", autouse=True)
def no_cgroup_left():
    yield
    for point in set(layout().mounts.values()):
        parent = f"{point}/satsuma-test-{os.getpid()}"
        if os.path.isdir(parent):
            os.rmdir(parent)


def logged(host, number=1):
    records = [json.loads(line) for line in host.log(number).splitlines()]
    return "".join(record["log"] for record in records)


async def test_output_and_exit_code(engine):
    monitor = await launch(engine, "sh", "-c", "id -u; hostname; echo $$; exit 3")
    assert (await monitor.wait()).exit_code == 3
    assert logged(engine) == "0\nbox\n1\n"


async def test_unknown_program(engine):
    with pytest.raises(client.LaunchError) as caught:
        await launch(engine, "nope")
    assert caught.value.exit_code == 127
    assert 'exec: "nope": executable file not found in $PATH' in str(caught.value)
    assert client.running_ids(engine.exec_root) == []


async def test_terminal(engine):
    peer = engine.peer()
    monitor = await launch(
        engine, "sh", tty=True, open_stdin=True, console_size=(33, 99), attaches=[peer.spec(stdin=True)]
    )
    peer.sent()
    await peer.send(b"stty size; tty; exit 5\n")
    text = await peer.read_all()
    assert b"33 99\r\n" in text
    assert b"/dev/pts/0\r\n" in text
    assert (await monitor.wait()).exit_code == 5


async def test_exec_joins_the_container(engine):
    monitor = await launch(engine, "sleep", "1000")
    peer = engine.peer()
    await monitor.exec(
        client.ExecSpec(
            exec_id="e1",
            process=process("sh", "-c", "hostname; ps | grep -c [s]leep; cat; exit 4"),
            attach=peer.spec(stdin=True),
        )
    )
    peer.sent()
    await peer.send(b"typed\n")
    peer.half_close()
    assert joined(await peer.read_all(), 1) == b"box\n1\ntyped\n"
    assert await monitor.exec_wait("e1") == 4
    with pytest.raises(client.LaunchError) as caught:
        await monitor.exec(client.ExecSpec(exec_id="e2", process=process("nope")))
    assert caught.value.exit_code == 127


async def test_exec_with_a_terminal(engine):
    monitor = await launch(engine, "sleep", "1000")
    peer = engine.peer()
    await monitor.exec(
        client.ExecSpec(
            exec_id="e1",
            process=process("sh", "-c", "tty; stty size", tty=True),
            tty=True,
            console_size=(20, 70),
            attach=peer.spec(),
        )
    )
    peer.sent()
    text = await peer.read_all()
    assert b"/dev/pts/" in text
    assert b"20 70" in text
    assert await monitor.exec_wait("e1") == 0


async def test_frozen_container_does_not_hold_up_its_monitor(engine):
    monitor = await launch(engine, "sleep", "1000")
    cgroup = recorded_group("", monitor.cgroup)
    await asyncio.to_thread(cgroup.freeze)
    session = asyncio.ensure_future(monitor.exec(client.ExecSpec(exec_id="e1", process=process("true"))))
    await asyncio.sleep(0.1)
    assert not session.done()
    async with asyncio.timeout(5):
        assert (await monitor.status())["execs"] == {}
        cgroup.thaw()
        assert await session > 0
        assert await monitor.exec_wait("e1") == 0


async def test_container_that_ends_takes_a_starting_session_with_it(engine):
    monitor = await launch(engine, "sleep", "1000")
    cgroup = recorded_group("", monitor.cgroup)
    await asyncio.to_thread(cgroup.freeze)
    session = asyncio.ensure_future(monitor.exec(client.ExecSpec(exec_id="e1", process=process("true"))))
    await asyncio.sleep(0.05)
    await monitor.kill_all()
    async with asyncio.timeout(5):
        assert (await monitor.wait()).exit_code == 137
        with pytest.raises((client.LaunchError, errors.Conflict)):
            await session


async def test_out_of_memory_is_recorded(engine):
    monitor = await launch(
        engine,
        "sh",
        "-c",
        "x=a; while true; do x=$x$x; done",
        resources={"memory": {"limit": 8 << 20, "swap": 8 << 20}},
    )
    status = await monitor.wait()
    assert status.exit_code == 137
    assert status.oom_killed


async def test_rest_of_a_shared_pid_namespace_dies_with_init(engine):
    shared = tuple(kind for kind in NAMESPACES if kind != "pid")
    monitor = await launch(engine, "sh", "-c", "sleep 4242 & echo started", namespaces=shared)
    assert (await monitor.wait()).exit_code == 0
    assert logged(engine) == "started\n"
    assert subprocess.run(["pgrep", "-f", "sleep 4242"], capture_output=True).stdout == b""


async def test_netns_by_descriptor(engine):
    namespace, netlink = await engine.launcher.make_netns()
    inode = os.fstat(namespace).st_ino
    monitor = await launch(engine, "sleep", "1000", extras={"netns_fd": namespace})
    os.close(namespace)
    os.close(netlink)
    assert os.stat(f"/proc/{monitor.init_pid}/ns/net").st_ino == inode


@pytest.mark.parametrize("user", [0, 33])
async def test_killed_monitor_takes_its_container_with_it(engine, user):
    monitor = await launch(engine, "sleep", "1000", user=user)
    await monitor.exec(client.ExecSpec(exec_id="e1", process=process("sleep", "1000", user=user)))
    exec_pid = (await monitor.status())["execs"]["e1"]
    monitor.close()
    os.kill(monitor.pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        while any(pidfd.is_alive(pid) for pid in (monitor.init_pid, exec_pid)):
            await asyncio.sleep(0.01)
    path = f"{engine.root}/{1:064x}/exit.json"
    assert client.read_exit(path) is None
    assert await client.reconnect(engine.exec_root, monitor.container_id, path) is None
    assert client.read_exit(path).exit_code == 137
    assert not any(os.path.exists(directory) for directory in monitor.cgroup.values())
    assert client.running_ids(engine.exec_root) == []


async def test_nothing_of_the_monitor_is_open_in_the_container(engine):
    monitor = await launch(engine, "sleep", "1000")
    assert sorted(os.listdir(f"/proc/{monitor.init_pid}/fd")) == ["0", "1", "2"]
    await monitor.exec(client.ExecSpec(exec_id="e1", process=process("sleep", "1000")))
    pid = (await monitor.status())["execs"]["e1"]
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]


def private_kib(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))


async def test_idle_monitor_is_small(engine):
    monitor = await launch(engine, "sleep", "1000")
    await monitor.exec(client.ExecSpec(exec_id="e1", process=process("true")))
    assert await monitor.exec_wait("e1") == 0
    assert private_kib(monitor.pid) < 5 * 1024


async def test_start_and_exec_are_quick(engine):
    starts, execs = [], []
    for _ in range(7):
        began = time.perf_counter()
        monitor = await launch(engine, "sleep", "1000")
        starts.append(time.perf_counter() - began)
        began = time.perf_counter()
        await monitor.exec(client.ExecSpec(exec_id="e1", process=process("true")))
        execs.append(time.perf_counter() - began)
        await monitor.signal(9)
        await monitor.wait()
    # The goals are 10 and 6 ms on a quiet machine; this catches only a lost order of magnitude.
    assert min(starts) < 0.05
    assert min(execs) < 0.03
