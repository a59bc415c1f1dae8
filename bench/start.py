"""Time the starts of containers inside the engine: one alone, step by step, and a hundred at once.

"request to execve" runs from the moment when the engine hands the configuration over until the program has replaced
the runtime, as `GET /satsuma/containers/{id}/explain` tells; "to the exit record" until the program (`true`) has ended,
its cgroup and mounts are gone and the API's `wait` has answered.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time

from engines import Engine, engines, exchange


def create(connection: object, command: list[str], network: str) -> str:
    """Create a container and return its id."""
    body = {"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": network}}
    status, answer = exchange(connection, "POST", "/containers/create", body)
    assert status == 201, answer
    return json.loads(answer)["Id"]


def one(engine: Engine, network: str) -> tuple[float, float, list[dict]]:
    """Start one container: (ms from request to execve, ms from request to the answer of wait, its steps)."""
    connection, asking, waiting = engine.connection(), engine.connection(), engine.connection()
    container = create(connection, ["true"], network)
    asking.request("GET", f"/satsuma/containers/{container}/explain")
    explained = asking.getresponse()
    waiting.request("POST", f"/containers/{container}/wait?condition=next-exit")
    waited = waiting.getresponse()
    started = time.monotonic_ns()
    status, answer = exchange(connection, "POST", f"/containers/{container}/start")
    assert status == 204, answer
    waited.read()
    ended = time.monotonic_ns()
    steps = json.loads(explained.read())["Steps"]
    exchange(connection, "DELETE", f"/containers/{container}")
    for each in (connection, asking, waiting):
        each.close()
    sent = next(step["Start"] for step in steps if step["Step"] == "send")
    execve = next(step for step in steps if step["Step"] == "execve")
    # The first step begins some microseconds after our request: they count against us.
    return (execve["Start"] + execve["Duration"] - sent) / 1e6, (ended - started - sent) / 1e6, steps


def many(engine: Engine, count: int, clients: int, network: str) -> float:
    """Start *count* containers over *clients* connections at once; return the seconds until all run."""
    connections = [engine.connection() for _ in range(clients)]
    containers = [create(connections[0], ["sleep", "1000"], network) for _ in range(count)]
    failures: list[bytes] = []

    def work(number: int) -> None:
        for container in containers[number::clients]:
            status, answer = exchange(connections[number], "POST", f"/containers/{container}/start")
            if status != 204:
                failures.append(answer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    for container in containers:
        exchange(connections[0], "DELETE", f"/containers/{container}?force=1")
    assert not failures, failures[0]
    return elapsed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--runs", type=int, default=20, help="single starts (default 20)")
    parser.add_argument("--containers", type=int, default=100, help="containers at once (default 100)")
    parser.add_argument("--clients", type=int, default=20, help="connections that start them (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the many (default 3)")
    arguments = parser.parse_args()
    with engines({"satsuma"}) as running:
        (engine,) = running
        print(f"{os.cpu_count()} CPUs, kernel {os.uname().release}, load {os.getloadavg()[0]:.1f}")
        print(f"\n{'one container, ms, minimum / median':<44}{'to execve':>18}{'to the exit record':>22}")
        for network in ("none", "bridge"):
            figures = [one(engine, network)[:2] for _ in range(arguments.runs + 3)][3:]
            cells = [
                f"{min(each):.1f} / {statistics.median(each):.1f}" for each in zip(*figures, strict=True)
            ]
            print(f"{'  network ' + network:<44}{cells[0]:>18}{cells[1]:>22}")
        print(f"\n{arguments.containers} containers at once, {arguments.clients} clients, seconds")
        for network in ("none", "bridge"):
            rounds = [
                many(engine, arguments.containers, arguments.clients, network)
                for _ in range(arguments.rounds)
            ]
            print(f"{'  network ' + network:<44}{min(rounds):>10.2f} / {statistics.median(rounds):.2f}")


if __name__ == "__main__":
    main()
