"""Where the milliseconds of `docker run --rm busybox true` and `docker exec C true` go, from satsumad's debug log.

The daemon logs with `-D` how long each HTTP request took, and each step of a start and of an end, on the monotonic
clock that all processes of the machine share (`satsuma.engine.trace`); the client's part is what is left.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter

from engines import Engine

HTTP = re.compile(r'msg="http (\w+) (\S+) (\S+) ms=([\d.]+) at=(\d+)"')
SPAN = re.compile(r'msg="(start|end|exec) \w+ ms=([\d.]+) at=(\d+) ([^"]*)"')
REQUESTS = {
    "HEAD _ping answered": "HEAD /_ping",
    "POST create answered": "POST /containers/create",
    "POST attach handed-over": "POST /containers/x/attach, until its 101",
    "POST wait begun": "POST /containers/x/wait, until its head",
    "POST start answered": "POST /containers/x/start",
}
EXEC_REQUESTS = {
    "HEAD _ping answered": "HEAD /_ping",
    "GET json answered": "GET /containers/x/json",
    "POST exec answered": "POST /containers/x/exec",
    "POST start handed-over": "POST /exec/x/start, until its 101",
    "GET json answered 2": "GET /exec/x/json",
}
SMALL = 0.1
"""Steps of a start below this many milliseconds are shown as one."""

Figures = dict[str, float]


def breakdown(engine: Engine, runs: int) -> list[tuple[int, str, float]]:
    """Return (depth, what, median milliseconds) for each part of a run, in order.

    Args:
        engine: a satsumad that logs at debug level.
    """
    samples = [_one(engine) for _ in range(runs + 2)][2:]

    def median(name: str) -> float:
        return statistics.median(sample[name] for sample in samples)

    rows = [(0, "the whole run", median("whole")), (1, "docker, the client", median("client"))]
    for title in REQUESTS.values():
        rows.append((1, title, median(title)))
        if title.endswith("start"):
            rows += _steps(samples)
    rows.append((1, "start answered → the monitor sees the end", median("running")))
    rows.append((1, "the end → wait answered", median("ending")))
    rows += [(2, name.partition(" ")[2], median(name)) for name in samples[0] if name.startswith("end ")]
    return rows


def exec_breakdown(engine: Engine, runs: int) -> list[tuple[int, str, float]]:
    """As `breakdown`, for an exec in a container that runs."""
    engine.docker("run", "-d", "--name", "bench-exec", "busybox", "sleep", "100000")
    samples = []
    for _ in range(runs + 2):
        figures = _take_apart(engine, "exec", "bench-exec", "true")
        served = sum(figures[title] for title in EXEC_REQUESTS.values())
        figures["client"] = figures["whole"] - served - figures["exec"]
        samples.append(figures)
    del samples[:2]

    def median(name: str) -> float:
        return statistics.median(sample[name] for sample in samples)

    rows = [
        (0, "the whole exec", median("whole")),
        (1, "docker, the client; true; its end", median("client")),
    ]
    for title in EXEC_REQUESTS.values():
        rows.append((1, title, median(title)))
        if "start" in title:
            rows += [
                (1, "101 sent → the program runs, and the engine knows", median("exec")),
                *_steps(samples),
            ]
    return rows


def _steps(samples: list[Figures]) -> list[tuple[int, str, float]]:
    names = [name for name in samples[0] if name.startswith("step ")]
    medians = {name: statistics.median(sample.get(name, 0.0) for sample in samples) for name in names}
    rows = [(2, name.partition(" ")[2], value) for name, value in medians.items() if value >= SMALL]
    small = [value for value in medians.values() if value < SMALL]
    return [*rows, (2, f"{len(small)} steps below {SMALL} ms", sum(small))]


def _one(engine: Engine) -> Figures:
    """Run a container once and take it apart."""
    figures = _take_apart(engine, "run", "--rm", "busybox", "true")
    seen_end = figures["at end"] - figures["end"]
    figures["running"] = max(0.0, seen_end - figures["at POST start answered"])
    figures["ending"] = figures["at POST wait ended"] - seen_end
    served = sum(figures[title] for title in REQUESTS.values())
    figures["client"] = figures["whole"] - served - figures["running"] - figures["ending"]
    return figures


def _take_apart(engine: Engine, *arguments: str) -> Figures:
    """Run the client once; return the milliseconds of each request and step, and when each ended ("at …")."""
    log = engine.root / "log"
    before = log.stat().st_size
    started = time.monotonic_ns()
    engine.docker(*arguments)
    whole = (time.monotonic_ns() - started) / 1e6
    time.sleep(0.1)
    with log.open() as file:
        file.seek(before)
        text = file.read()
    figures: Figures = {"whole": whole}
    for method, path, what, ms, at in HTTP.findall(text):
        key = f"{method} {path.rpartition('/')[2]} {what}"
        key += " 2" if f"at {key}" in figures else ""
        figures[f"at {key}"] = int(at) / 1e6
        title = REQUESTS.get(key) if arguments[0] == "run" else EXEC_REQUESTS.get(key)
        if title is not None:
            figures[title] = float(ms)
    for kind, ms, at, words in SPAN.findall(text):
        figures[f"at {kind}"] = int(at) / 1e6
        figures[kind] = float(ms)
        seen: Counter[str] = Counter()
        for word in words.split():
            name, _, value = word.partition("=")
            seen[name] += 1
            number = f" {seen[name]}" if seen[name] > 1 else ""
            figures[f"{'end' if kind == 'end' else 'step'} {name}{number}"] = float(value)
    return figures


def print_breakdown(rows: list[tuple[int, str, float]], what: str) -> None:
    """Print it as an indented list."""
    print(f"\nwhere they go: `docker {what}; medians in ms\n")
    for depth, name, value in rows:
        print(f"{'  ' * depth + name:<54}{value:>8.2f}")
