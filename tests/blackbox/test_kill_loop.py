"""kill -9 at random moments while mixed work runs: a hundred deaths, and nothing acknowledged is lost.

`SATSUMA_KILL_SEED` repeats the choices of a run, `SATSUMA_KILL_ROUNDS` asks for more deaths.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mixedwork import Worker, answers, parent_of, processes

import harness

ROUNDS = int(os.environ.get("SATSUMA_KILL_ROUNDS", "100"))
SEED = int(os.environ.get("SATSUMA_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
WORKERS = 3

pytestmark = [
    pytest.mark.skipif(bool(harness.REFERENCE), reason="kills programs of ours"),
    pytest.mark.slow,
]


class Killer:
    """Kills the engine, or a helper of it, and starts it again."""

    def __init__(self, daemon: harness.Daemon, workers: list[Worker]) -> None:
        self.daemon = daemon
        self.workers = workers
        self.random = random.Random(SEED)
        self.kills = dict.fromkeys(("daemon", "starting", "launcher", "spare"), 0)
        self.recovery: list[float] = []

    @property
    def deaths(self) -> int:
        """How often the engine itself was killed."""
        return self.kills["daemon"] + self.kills["starting"]

    def round(self) -> None:
        """Let it work for a moment, kill, start again."""
        time.sleep(self.random.uniform(0, 0.2))
        if self.random.random() < 0.25:
            self._disturb(self.random.choice(["launcher", "spare"]))
            time.sleep(self.random.uniform(0, 0.1))
        for worker in self.workers:
            worker.alive.clear()
            worker.generation += 1
        self.daemon.kill()
        self.kills["daemon"] += 1
        while self.random.random() < 0.2:
            self.daemon.spawn()
            time.sleep(self.random.uniform(0, 0.6))
            self.daemon.kill()
            self.kills["starting"] += 1
        started = time.monotonic()
        self.daemon.start()
        self.recovery.append(time.monotonic() - started)
        for worker in self.workers:
            worker.alive.set()

    def _disturb(self, kind: str) -> None:
        launchers = [
            pid
            for pid in pids()
            if command_line(pid).startswith(f"satsuma-launcher {self.daemon.exec_root}\0")
        ]
        spares = [pid for pid in pids() if is_spare(pid) and parent_of(pid) in launchers]
        victims = spares if kind == "spare" else launchers
        # What starts from here on may meet them; what starts when they are dead may not notice.
        self._note_disturbance()
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills[kind] += 1
        # The spares of a launcher die a moment after it, if they are still spares by then.
        harness.eventually(
            lambda: not any(map(command_line, victims)) and not any(map(is_spare, spares)),
        )
        self._note_disturbance()

    def _note_disturbance(self) -> None:
        for worker in self.workers:
            worker.disturbed += 1


def pids() -> list[int]:
    """Return the processes of this machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid: int) -> str:
    """Return the arguments of a process, NUL terminated; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def is_spare(pid: int) -> bool:
    """Tell whether a process is a monitor without a container."""
    return command_line(pid).startswith("satsuma-monitor (waits")


@pytest.fixture
def own() -> Iterator[harness.Daemon]:
    with harness.private_daemon() as daemon:
        harness.bootstrap_busybox(daemon)
        yield daemon


@pytest.mark.timeout(900)
def test_a_hundred_deaths_lose_nothing_and_leak_nothing(own: harness.Daemon) -> None:
    print(f"SATSUMA_KILL_SEED={SEED}")
    tag = own.root.name
    own.flags = (*own.flags, "--cgroup-parent", f"/{tag}")
    own.terminate()
    own.start()
    files_before = count_files(own)
    body = {
        "Image": "busybox",
        "Cmd": ["httpd", "-f", "-p", "80"],
        "Env": [f"SATSUMA_TEST_WORK={tag}"],
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}},
    }
    assert own.api("POST", "/containers/create?name=web", body)[0] == 201
    assert own.api("POST", "/containers/web/start")[0] == 204
    web = own.api("GET", "/containers/web/json")[1]
    port = int(web["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])

    workers = [Worker(own, number, SEED, tag) for number in range(WORKERS)]
    killer = Killer(own, workers)
    for worker in workers:
        worker.alive.set()
        worker.start()
    try:
        while killer.deaths < ROUNDS and not any(worker.failure for worker in workers):
            killer.round()
            assert answers(port), "the published port is closed"
    finally:
        for worker in workers:
            worker.stop.set()
            worker.alive.set()
        for worker in workers:
            worker.join()
    for worker in workers:
        if worker.failure is not None:
            raise worker.failure
        worker.verify()
    after = own.api("GET", "/containers/web/json")[1]
    assert (after["State"]["Pid"], after["State"]["Status"]) == (web["State"]["Pid"], "running")
    recovery = sorted(killer.recovery)
    print(
        f"{killer.kills}, back after {recovery[len(recovery) // 2]:.2f} s (median), {recovery[-1]:.2f} s (worst)"
    )
    print(
        {
            name: sum(worker.done.get(name, 0) for worker in workers)
            for worker in workers
            for name in worker.done
        }
    )

    remove_everything(own)
    expect_nothing(own, files_before, tag, {identity for worker in workers for identity in worker.ids})


def count_files(daemon: harness.Daemon) -> dict[str, set[str]]:
    """Return the names in each directory of the data root that objects come and go in."""
    folders = (
        "containers",
        "volumes",
        "layers",
        "build",
        "build/tmp",
        "content/ingest",
        "content/blobs/sha256",
        "tmp",
    )
    found = {}
    for folder in folders:
        path = daemon.data_root / folder
        found[folder] = set(os.listdir(path)) if path.exists() else set()
    return found


def remove_everything(daemon: harness.Daemon) -> None:
    """Remove all objects but the image busybox, as a user would."""
    client = harness.Client("satsuma", daemon)
    daemon.remove_containers()
    for image in daemon.api("GET", "/images/json?all=1")[1]:
        if "busybox:latest" not in (image["RepoTags"] or []):
            daemon.api("DELETE", f"/images/{image['Id']}?force=1")
    client("builder", "prune", "-a", "-f")
    for volume in daemon.api("GET", "/volumes")[1]["Volumes"] or []:
        assert daemon.api("DELETE", f"/volumes/{volume['Name']}")[0] == 204
    for network in daemon.api("GET", "/networks")[1]:
        if network["Name"] not in ("bridge", "host", "none"):
            assert daemon.api("DELETE", f"/networks/{network['Id']}")[0] == 204


def open_kernel_objects(daemon: harness.Daemon) -> Counter[str]:
    """Return the daemon's descriptors apart from the database's, of which each thread has its own."""
    assert daemon.process is not None
    found = harness.descriptors(daemon.process.pid)
    return Counter({kind: count for kind, count in found.items() if "state.db" not in kind})


def expect_nothing(daemon: harness.Daemon, before: dict[str, set[str]], tag: str, ids: set[str]) -> None:
    """Assert that only what an empty engine has is left, while it runs and after its end."""
    harness.eventually(
        lambda: count_files(daemon) == before and not os.listdir(daemon.data_root / "trash"),
        message=lambda: (
            f"left in the data root: {json.dumps({k: sorted(v) for k, v in count_files(daemon).items()})}"
        ),
    )
    assert daemon.api("GET", "/satsuma/system/check")[1]["Findings"] == []
    harness.eventually(lambda: not os.listdir(daemon.exec_root / "containers"))
    mark = f"SATSUMA_TEST_WORK={tag}"
    harness.eventually(lambda: not processes(mark), message=lambda: f"processes: {processes(mark)}")
    looks: list[Counter[str]] = []

    def is_settled() -> bool:
        looks.append(open_kernel_objects(daemon))
        return len(looks) > 25 and all(look == looks[-1] for look in looks[-25:])

    harness.eventually(is_settled)
    worked = looks[-1]
    daemon.terminate()
    daemon.start()
    # What it opens on top when it works: a lazily made socket or two.
    harness.eventually(
        lambda: sum((worked - open_kernel_objects(daemon)).values()) <= 3,
        message=lambda: f"descriptors: {worked - open_kernel_objects(daemon)}",
    )
    daemon.terminate()
    assert daemon.leftovers() == []
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{tag}/*") if path.is_dir()] + [
        str(path) for path in Path("/sys/fs/cgroup").glob(f"{tag}/*") if path.is_dir()
    ]
    assert groups == []
