"""`container stats`: use of processor, memory, network and disk, once or as a live table.

Source: docker documentation "docker stats"; measured on docker 28.2.
"""

from __future__ import annotations

import sys
import time

from satsuma.base.sizes import format_size, format_size_binary
from satsuma.cli.client import escape
from satsuma.cli.errors import ApiError, CliError
from satsuma.cli.formatting import Listing, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from satsuma.cli.client import Engine
    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

_NOTHING = "--"
_TICK = 0.5

LISTING = Listing(
    "*container.statsContext",
    "ID Name CPUPerc MemUsage MemPerc NetIO BlockIO PIDs",
    {
        "Container": "CONTAINER",
        "Name": "NAME",
        "ID": "CONTAINER ID",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    },
)


class Sampler:
    """The samples of one container: a stream that is read when there is something to read."""

    def __init__(self, engine: Engine, name: str) -> None:
        from satsuma.wire.jsonstream import Splitter

        self.name = name
        self.sample: Mapping[str, Any] | None = None
        self.ended = False
        self._splitter = Splitter()
        self.answer = engine.request("GET", f"/containers/{escape(name)}/stats", {"stream": True})

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self.answer.connection.fileno()

    def read(self) -> None:
        """Take what has arrived."""
        import json

        parser = self.answer.parser
        data = self.answer.connection.recv(1 << 16)
        parser.feed(data)
        while piece := parser.read_body():
            for document in self._splitter.feed(piece):
                self.sample = json.loads(document)
        self.ended = parser.body_done or not data

    def close(self) -> None:
        """Stop asking."""
        self.answer.close()


def stats(session: Session, flags: Flags) -> None:
    """Show what containers use."""
    source = flags["format"] or str(session.config.get("statsFormat") or "")
    if flags["no-stream"]:
        _once(session, flags, source)
        return
    try:
        _live(session, flags, source)
    except KeyboardInterrupt:
        sys.stdout.write("\n")


def _running(session: Session, flags: Flags) -> list[str]:
    if flags.args:
        return list(flags.args)
    found = session.engine.get("/containers/json", {"all": flags["all"] or None}) or []
    return [item["Id"] for item in found]


def _once(session: Session, flags: Flags, source: str) -> None:
    """Take one sample of each; the samples take the engine a second each, so they are asked for at once."""
    samplers: list[Sampler] = []
    errors: list[str] = []
    rows = []
    try:
        for name in _running(session, flags):
            try:
                samplers.append(Sampler(session.engine, name))
            except ApiError as error:
                errors.append(str(error))
        if errors and flags.args:
            raise CliError("\n".join(errors))
        _wait_for_samples(samplers)
        rows = [row(sampler.sample, sampler.name, truncate=not flags["no-trunc"]) for sampler in samplers]
    finally:
        for sampler in samplers:
            sampler.close()
    if rows:
        LISTING.write(source, rows)


def _complete(sampler: Sampler) -> bool:
    """Tell whether the sample has a sample before it, without which there is no rate."""
    if sampler.ended or sampler.sample is None:
        return sampler.ended
    before = (sampler.sample.get("precpu_stats") or {}).get("system_cpu_usage")
    running = (sampler.sample.get("cpu_stats") or {}).get("system_cpu_usage")
    return bool(before) or not running


def _wait_for_samples(samplers: list[Sampler]) -> None:
    import select

    deadline = time.monotonic() + 5
    while (open_ones := [s for s in samplers if not _complete(s)]) and time.monotonic() < deadline:
        ready, _, _ = select.select(open_ones, [], [], 1.0)
        for sampler in ready:
            sampler.read()


def _live(session: Session, flags: Flags, source: str) -> None:
    """Draw the table twice a second; containers come and go as they start and end."""
    import select

    samplers: dict[str, Sampler] = {}
    follow = not flags.args
    asked = 0.0
    while True:
        now = time.monotonic()
        if not asked or (follow and now - asked >= 1.0):
            asked = now
            names = _running(session, flags)
            for name in names:
                if name not in samplers:
                    samplers[name] = Sampler(session.engine, name)
            for name in [known for known in samplers if follow and known not in names]:
                samplers.pop(name).close()
        end = now + _TICK
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([s for s in samplers.values() if not s.ended], [], [], left)
            for sampler in ready:
                sampler.read()
        if not follow and all(sampler.ended for sampler in samplers.values()):
            return
        rows = [row(s.sample, s.name, truncate=not flags["no-trunc"]) for s in samplers.values()]
        _draw(LISTING.text(source, rows))


def _draw(text: str) -> None:
    if sys.stdout.isatty():
        lines = "".join(f"{line}\033[K\n" for line in text.rstrip("\n").split("\n"))
        sys.stdout.write(f"\033[H{lines}\033[J")
    else:
        sys.stdout.write(text)
    sys.stdout.flush()


def row(sample: Mapping[str, Any] | None, name: str, *, truncate: bool) -> dict[str, Any]:
    """Return the fields of one container that templates know."""
    sample = sample or {}
    identifier = str(sample.get("id") or "")
    memory = sample.get("memory_stats") or {}
    networks = (sample.get("networks") or {}).values()
    valid = bool(sample)
    used, limit = memory_used(memory), memory.get("limit") or 0
    reads, writes = _block_io(sample.get("blkio_stats") or {})
    share = used / limit * 100 if limit else 0.0
    received = sum(network["rx_bytes"] for network in networks)
    sent = sum(network["tx_bytes"] for network in networks)
    return {
        "Container": name,
        "Name": str(sample.get("name") or "").removeprefix("/") or _NOTHING,
        "ID": short_id(identifier) if truncate else identifier,
        "CPUPerc": f"{cpu_percent(sample):.2f}%" if valid else _NOTHING,
        "MemUsage": f"{format_size_binary(used)} / {format_size_binary(limit)}" if valid else "-- / --",
        "MemPerc": f"{share:.2f}%" if valid else _NOTHING,
        "NetIO": f"{format_size(received, precision=3)} / {format_size(sent, precision=3)}"
        if valid
        else _NOTHING,
        "BlockIO": f"{format_size(reads, precision=3)} / {format_size(writes, precision=3)}"
        if valid
        else _NOTHING,
        "PIDs": str((sample.get("pids_stats") or {}).get("current") or 0) if valid else _NOTHING,
    }


def cpu_percent(sample: Mapping[str, Any]) -> float:
    """Return the use of processors since the sample before; 100 is one whole processor."""
    now, before = sample.get("cpu_stats") or {}, sample.get("precpu_stats") or {}
    spent = _total(now) - _total(before)
    passed = (now.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    count = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or [])
    return float(spent / passed * count * 100) if spent > 0 and passed > 0 else 0.0


def _total(stats: Mapping[str, Any]) -> int:
    return int((stats.get("cpu_usage") or {}).get("total_usage") or 0)


def memory_used(memory: Mapping[str, Any]) -> int:
    """Return the memory in use without the page cache that could go at once."""
    usage = memory.get("usage") or 0
    detail = memory.get("stats") or {}
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    return int(usage - cache) if cache < usage else int(usage)


def _block_io(blkio: Mapping[str, Any]) -> tuple[int, int]:
    reads = writes = 0
    for entry in blkio.get("io_service_bytes_recursive") or []:
        operation = str(entry.get("op") or "")[:1].lower()
        reads += entry["value"] if operation == "r" else 0
        writes += entry["value"] if operation == "w" else 0
    return reads, writes
