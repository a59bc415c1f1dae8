"""Time the engine, paired with dockerd in one run, and print a table of medians and ratios."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from breakdown import breakdown, exec_breakdown, print_breakdown
from engines import Engine, engines, exchange

PAUSE = 0.03
LIVE = 100
"""Containers that run on while their daemon is killed."""
Measure = Callable[[Engine], float]


def timed(action: Callable[[], object]) -> float:
    """Return how long *action* takes, in milliseconds."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def run_bridge(engine: Engine) -> float:
    """`docker run --rm busybox true` on the default bridge network."""
    return timed(lambda: engine.docker("run", "--rm", "busybox", "true"))


def run_none(engine: Engine) -> float:
    """The same without a network."""
    return timed(lambda: engine.docker("run", "--rm", "--net", "none", "busybox", "true"))


def exec_true(engine: Engine) -> float:
    """`docker exec` of true in a running container."""
    return timed(lambda: engine.docker("exec", "bench-idle", "true"))


def client_alone(engine: Engine) -> float:
    """The docker program itself: one ping and one answer."""
    return timed(lambda: engine.docker("version"))


def ps_many(engine: Engine) -> float:
    """`docker ps -a` with the containers that `prepare_many` made."""
    return timed(lambda: engine.docker("ps", "-a"))


def api_cycle(engine: Engine) -> float:
    """Create, start, wait, remove over one API connection; network none, no client program."""
    connection = engine.connection()

    def cycle() -> None:
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
        status, answer = exchange(connection, "POST", "/containers/create", body)
        assert status == 201, answer
        container = json.loads(answer)["Id"]
        status, answer = exchange(connection, "POST", f"/containers/{container}/start")
        assert status == 204, answer
        exchange(connection, "POST", f"/containers/{container}/wait")
        status, answer = exchange(connection, "DELETE", f"/containers/{container}")
        assert status == 204, answer

    exchange(connection, "GET", "/_ping")
    try:
        return timed(cycle)
    finally:
        connection.close()


def first_byte(engine: Engine) -> float:
    """From `POST start` of a container with a published port to the first byte of its HTTP answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    body = {
        "Image": "busybox",
        "Cmd": ["httpd", "-f", "-p", "80", "-h", "/"],
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}},
    }
    container = json.loads(engine.request("POST", "/containers/create", body)[1])["Id"]

    def start_and_ask() -> None:
        status, answer = engine.request("POST", f"/containers/{container}/start")
        assert status == 204, answer
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as client:
                    client.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
                    if client.recv(1):
                        return
            except OSError:
                pass
            time.sleep(0.001)
        raise TimeoutError("no answer from the published port")

    try:
        return timed(start_and_ask)
    finally:
        engine.request("DELETE", f"/containers/{container}?force=1")


TIMINGS: list[tuple[str, Measure]] = [
    ("docker version (the client alone)", client_alone),
    ("docker run --rm busybox true, bridge", run_bridge),
    ("docker run --rm --net none busybox true", run_none),
    ("docker exec C true", exec_true),
    ("create, start, wait, remove over the API", api_cycle),
    ("start to first byte of a published port", first_byte),
]


def private_kib(pid: int) -> int:
    """Return the private memory of a process, in KiB."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1])
    return total


def session_processes(engine: Engine) -> dict[int, str]:
    """Return pid → command line of the daemon and every descendant that is not a container's process."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    own_pidns = os.readlink("/proc/self/ns/pid")
    found = {}
    for pid in parents:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if os.readlink(f"/proc/{pid}/ns/pid") != own_pidns:
                continue
        except OSError:
            continue
        ancestor = pid
        while ancestor > 1 and ancestor != engine.process.pid:
            ancestor = parents.get(ancestor, 0)
        if ancestor == engine.process.pid or str(engine.root) in command:
            found[pid] = command
    return found


def memory(engine: Engine, count: int) -> tuple[float, float]:
    """Return MiB of private memory: (idle daemon with helpers, added by each running container's helpers)."""
    time.sleep(1)
    before = sum(map(private_kib, session_processes(engine)))
    names = [f"bench-memory-{index}" for index in range(count)]
    for name in names:
        engine.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    time.sleep(1)
    after = sum(map(private_kib, session_processes(engine)))
    engine.docker("rm", "-f", *names)
    return before / 1024, (after - before) / 1024 / count


def comes_back(engine: Engine, count: int, runs: int) -> float:
    """Return the ms from the start of a daemon whose predecessor was killed to its list of all running containers.

    Raises:
        RuntimeError: it does not know them all.
    """
    for index in range(count):
        engine.docker("run", "-d", "--name", f"bench-live-{index}", "-p", "80", "busybox", "sleep", "100000")
    up = engine.docker("ps", "-q").stdout
    samples = []
    for _ in range(runs):
        samples.append(timed(engine.die_and_come_back))
        if engine.docker("ps", "-q").stdout != up:
            raise RuntimeError("a container was lost over the restart")
    return statistics.median(samples)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--runs", type=int, default=20, help="counted runs of each timing (default 20)")
    parser.add_argument(
        "--containers", type=int, default=200, help="containers for the ps timing (default 200)"
    )
    parser.add_argument("--only", choices=["satsuma", "dockerd"], help="time one engine alone")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    if not shutil.which("docker") or not Path("/bin/busybox").exists():
        raise SystemExit("the benchmark needs the stock docker command line and the static /bin/busybox")
    wanted = {arguments.only} if arguments.only else {"satsuma", "dockerd"}
    figures: dict[str, dict[str, float]] = {}
    with engines(wanted) as running:
        for engine in running:
            engine.docker("run", "-d", "--name", "bench-idle", "busybox", "sleep", "100000")
        for title, measure in TIMINGS:
            figures[title] = paired(running, measure, arguments.runs)
        title = f"docker ps -a, {arguments.containers} containers"
        for engine in running:
            prepare_many(engine, arguments.containers)
        figures[title] = paired(running, ps_many, arguments.runs)
        for engine in running:
            idle, each = memory(engine, 10)
            figures.setdefault("idle daemon, private MiB", {})[engine.name] = idle
            figures.setdefault("per running container, private MiB", {})[engine.name] = each
        for engine in running:
            # dockerd stops its containers when it comes back, unless told otherwise.
            if engine.name == "satsuma":
                title = f"back after kill -9 with {LIVE} containers running"
                figures[title] = {engine.name: comes_back(engine, LIVE, 5)}
    print_table(figures)
    if "satsuma" in wanted:
        # Its own daemon: the one above does not log what it measures.
        with engines({"satsuma"}, "-D") as (engine,):
            rows = breakdown(engine, arguments.runs)
            exec_rows = exec_breakdown(engine, arguments.runs)
        print_breakdown(rows, "run --rm busybox true`, bridge")
        print_breakdown(exec_rows, "exec C true`")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


def prepare_many(engine: Engine, count: int) -> None:
    """Create containers that only exist."""
    connection = engine.connection()
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    for _ in range(count):
        exchange(connection, "POST", "/containers/create", body)
    connection.close()


def paired(running: list[Engine], measure: Measure, runs: int) -> dict[str, float]:
    """Let the engines take turns; two warm-up rounds are not counted.

    Both tidy up after the client has its answer: a pause keeps that out of the other's turn.
    """
    samples: dict[str, list[float]] = {engine.name: [] for engine in running}
    for turn in range(runs + 2):
        for engine in running:
            value = measure(engine)
            time.sleep(PAUSE)
            if turn >= 2:
                samples[engine.name].append(value)
    return {name: statistics.median(values) for name, values in samples.items()}


def print_table(figures: dict[str, dict[str, float]]) -> None:
    """Print what was measured; a ratio only where both engines were."""
    kernel = os.uname().release
    version = (
        subprocess.run(["dockerd", "--version"], stdout=subprocess.PIPE, check=False).stdout
        if shutil.which("dockerd")
        else b""
    )
    print(
        f"\n{os.cpu_count()} CPUs, kernel {kernel}, load {os.getloadavg()[0]:.1f}; {version.decode().strip()}"
    )
    print("medians; times in ms\n")
    print(f"{'':<44}{'satsuma':>10}{'dockerd':>10}{'ratio':>8}")
    for title, values in figures.items():
        row = f"{title:<44}"
        for name in ("satsuma", "dockerd"):
            row += f"{values[name]:>10.1f}" if name in values else f"{'':>10}"
        if len(values) == 2 and values["satsuma"]:
            row += f"{values['dockerd'] / values['satsuma']:>7.1f}x"
        print(row)


if __name__ == "__main__":
    main()
