"""Where the milliseconds of one `docker run --rm busybox true` go, from the debug log of a satsumad.

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
SPAN = re.compile(r'msg="(start|end) \w+ ms=([\d.]+) at=(\d+) ([^"]*)"')
REQUESTS = {
    "HEAD _ping answered": "HEAD /_ping",
    "POST create answered": "POST /containers/create",
    "POST attach handed-over": "POST /containers/x/attach, until its 101",
    "POST wait begun": "POST /containers/x/wait, until its head",
    "POST start answered": "POST /containers/x/start",
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


def _steps(samples: list[Figures]) -> list[tuple[int, str, float]]:
    names = [name for name in samples[0] if name.startswith("step ")]
    medians = {name: statistics.median(sample.get(name, 0.0) for sample in samples) for name in names}
    rows = [(2, name.partition(" ")[2], value) for name, value in medians.items() if value >= SMALL]
    small = [value for value in medians.values() if value < SMALL]
    return [*rows, (2, f"{len(small)} steps below {SMALL} ms", sum(small))]


def _one(engine: Engine) -> Figures:
    """Run a container once and take it apart."""
    log = engine.root / "log"
    before = log.stat().st_size
    started = time.monotonic_ns()
    engine.docker("run", "--rm", "busybox", "true")
    whole = (time.monotonic_ns() - started) / 1e6
    time.sleep(0.1)
    with log.open() as file:
        file.seek(before)
        text = file.read()
    figures: Figures = {"whole": whole}
    moments: dict[str, int] = {}
    for method, path, what, ms, at in HTTP.findall(text):
        key = f"{method} {path.rpartition('/')[2]} {what}"
        moments[key] = int(at)
        if key in REQUESTS:
            figures[REQUESTS[key]] = float(ms)
    for kind, ms, at, words in SPAN.findall(text):
        moments[kind] = int(at)
        figures[kind] = float(ms)
        seen: Counter[str] = Counter()
        for word in words.split():
            name, _, value = word.partition("=")
            seen[name] += 1
            number = f" {seen[name]}" if seen[name] > 1 else ""
            figures[f"{'step' if kind == 'start' else 'end'} {name}{number}"] = float(value)
    seen_end = moments["end"] - figures["end"] * 1e6
    figures["running"] = max(0.0, (seen_end - moments["POST start answered"]) / 1e6)
    figures["ending"] = (moments["POST wait ended"] - seen_end) / 1e6
    served = sum(figures[title] for title in REQUESTS.values())
    figures["client"] = whole - served - figures["running"] - figures["ending"]
    return figures


def print_breakdown(rows: list[tuple[int, str, float]]) -> None:
    """Print it as an indented list."""
    print("\nwhere they go: `docker run --rm busybox true`, bridge; medians in ms\n")
    for depth, what, value in rows:
        print(f"{'  ' * depth + what:<54}{value:>8.2f}")
