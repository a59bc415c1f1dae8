"""Hundreds of lives of a container leave an engine as it was: descriptors, threads, memory, kernel objects.

`SATSUMA_LEAK_ROUNDS` asks for more lives than the regular run has; `-s` shows the figures.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import harness
from satsuma.base.aio import POOL_SIZE

ROUNDS = int(os.environ.get("SATSUMA_LEAK_ROUNDS", "300"))
WARM_UP = 40
"""Lives before the first look: pools are full then, threads started, caches filled."""
KEPT_PER_ROUND = 8
"""KiB of the daemon that one life may keep for some minutes: an exec session can be asked for after its end."""
OTHER_THREADS = 6
"""The main thread, the store's collector, the network's own ones."""
SLACK = 6 * 1024
"""KiB by which the heap of a Python program may grow from fragmentation alone."""

pytestmark = [
    pytest.mark.skipif(bool(harness.REFERENCE), reason="counts what ours consists of"),
    pytest.mark.slow,
]


@pytest.fixture
def own() -> Iterator[harness.Daemon]:
    with harness.private_daemon("--cgroup-parent", f"/leaks-{os.getpid()}") as daemon:
        harness.bootstrap_busybox(daemon)
        yield daemon


def one_life(daemon: harness.Daemon, number: int) -> None:
    """Create, start, look into, stop and remove one container; each way to end it comes in turn."""

    def ask(expected: int, method: str, path: str, body: Any = None) -> Any:
        status, answer = daemon.api(method, path, body)
        assert status == expected, f"{method} {path}: {status} {answer}"
        return answer

    remove_itself = number % 4 == 3
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "HostConfig": {
            "Binds": ["/anonymous"],
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]},
            "AutoRemove": remove_itself,
        },
    }
    identity = ask(201, "POST", "/containers/create", body)["Id"]
    ask(204, "POST", f"/containers/{identity}/start")
    session = ask(201, "POST", f"/containers/{identity}/exec", {"Cmd": ["true"], "AttachStdout": True})["Id"]
    ask(200, "POST", f"/exec/{session}/start", {})
    ask(200, "GET", f"/containers/{identity}/logs?stdout=1")
    ask(200, "GET", f"/containers/{identity}/stats?stream=0&one-shot=1")
    if number % 4 == 0:
        ask(204, "DELETE", f"/containers/{identity}?force=1&v=1")
        return
    ask(204, "POST", f"/containers/{identity}/{'kill' if number % 4 == 2 else 'stop?t=0'}")
    if remove_itself:
        harness.eventually(lambda: daemon.api("GET", f"/containers/{identity}/json")[0] == 404)
        return
    ask(200, "POST", f"/containers/{identity}/wait")
    ask(204, "DELETE", f"/containers/{identity}?v=1")


def live(daemon: harness.Daemon, rounds: int) -> None:
    """Lead *rounds* lives, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        assert all(
            result is None for result in pool.map(lambda number: one_life(daemon, number), range(rounds))
        )


def private_kib(pid: int) -> int:
    """Return the memory that a process shares with nobody."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def helpers(daemon: harness.Daemon) -> dict[str, int]:
    """Return the processes below the daemon by what they are; each one is there once."""
    found = {}
    parents = {daemon.process.pid if daemon.process else 0}
    for _ in range(4):
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{entry}/stat").read_text()
                name, rest = text[text.index("(") + 1 : text.rindex(")")], text.rpartition(")")[2].split()
                if int(rest[1]) in parents and int(entry) not in parents:
                    parents.add(int(entry))
                    found[f"{name} {(rest[0] == 'Z' and 'defunct') or ''}{len(found)}"] = int(entry)
    return found


def kernel_objects(daemon: harness.Daemon) -> dict[str, int]:
    """Return how many of each kind there are that the engine made outside of its own processes."""
    digest = hashlib.sha256(str(daemon.exec_root).encode()).hexdigest()
    table = subprocess.run(
        ["nft", "-j", "list", "table", "ip", f"satsuma_{digest[:8]}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    elements = [
        len(item.get("map", item.get("set", {})).get("elem", [])) for item in json.loads(table)["nftables"]
    ]
    parent = daemon.flags[daemon.flags.index("--cgroup-parent") + 1]
    root = str(daemon.root)
    return {
        "veths": sum(name.startswith(f"sts{digest[:4]}") for name in os.listdir("/sys/class/net")),
        "nft elements": sum(elements),
        "cgroups": sum(
            path.is_dir()
            for pattern in (f"*{parent}/*", f"{parent[1:]}/*")
            for path in Path("/sys/fs/cgroup").glob(pattern)
        ),
        "mounts": Path("/proc/self/mountinfo").read_text().count(root),
        "containers": len(os.listdir(daemon.data_root / "containers")),
        "volumes": len(list((daemon.data_root / "volumes").glob("[!.]*"))),
        "trash": len(os.listdir(daemon.data_root / "trash")),
        "exec-root": len(os.listdir(daemon.exec_root / "containers")) + len(os.listdir(daemon.exec_root)),
    }


def counts(daemon: harness.Daemon) -> dict[str, Any]:
    """Return everything that has to be the same before and after, apart from memory."""
    assert daemon.process is not None
    processes = helpers(daemon)
    return {
        "descriptors": harness.descriptors(daemon.process.pid),
        "helpers": sorted(name.rstrip("0123456789") for name in processes),
        "helpers' descriptors": {
            name: sum(harness.descriptors(pid).values()) for name, pid in processes.items()
        },
        **kernel_objects(daemon),
    }


def memory(daemon: harness.Daemon) -> dict[str, int]:
    """Return the private KiB of the daemon and the launcher."""
    assert daemon.process is not None
    launcher = next(pid for name, pid in helpers(daemon).items() if name.startswith("satsuma-launch"))
    return {"daemon": private_kib(daemon.process.pid), "launcher": private_kib(launcher)}


def _differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    return "\n".join(f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key])


@pytest.mark.timeout(1800)
def test_hundreds_of_lives_leave_the_engine_as_it_was(own: harness.Daemon) -> None:
    live(own, WARM_UP)
    settled: list[dict[str, Any]] = []

    def is_settled() -> bool:
        settled.append(counts(own))
        return len(settled) > 20 and all(entry == settled[-1] for entry in settled[-20:])

    harness.eventually(is_settled, limit=60, message="the engine does not come to rest")
    before, memory_before = settled[-1], memory(own)
    live(own, ROUNDS)
    harness.eventually(
        lambda: counts(own) == before, limit=60, message=lambda: _differences(before, counts(own))
    )
    memory_after = memory(own)
    # The pool's threads are made when that many calls block at once, and stay.
    assert (
        own.process is not None
        and len(os.listdir(f"/proc/{own.process.pid}/task")) <= POOL_SIZE + OTHER_THREADS
    )
    print(f"{ROUNDS} lives: {memory_before} -> {memory_after} KiB private\n{before}")
    assert memory_after["daemon"] - memory_before["daemon"] < SLACK + KEPT_PER_ROUND * ROUNDS
    assert memory_after["launcher"] - memory_before["launcher"] < 1024
