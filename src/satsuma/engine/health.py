"""Run health checks of running containers.

Source: moby daemon/health.go of 28.5.2.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from msgspec import structs

from satsuma.base.aio import spawn
from satsuma.base.clock import now_ns
from satsuma.base.errors import EngineError
from satsuma.base.sizes import format_duration_go
from satsuma.container import ProbeResult, Record
from satsuma.container.health import (
    OUTPUT_LIMIT,
    after_probe,
    pause_before_probe,
    probe_command,
    probe_timeout,
)
from satsuma.engine import execs
from satsuma.engine.actors import Actor
from satsuma.engine.core import Core
from satsuma.monitor.client import AttachSpec

_log = logging.getLogger(__name__)


def begin(core: Core, record: Record) -> None:
    """Start checking a container, if it has a check."""
    if probe_command(record.config) is None:
        return
    actor = core.actor(record)
    end(actor)
    actor.health = spawn(f"health:{record.short_id}", _check(core, record.id))


def end(actor: Actor) -> None:
    """Stop checking."""
    if actor.health is not None:
        actor.health.cancel()
        actor.health = None


async def _check(core: Core, container_id: str) -> None:
    while True:
        record = core.registry.get(container_id)
        if record is None or record.state.health is None or record.config.healthcheck is None:
            return
        check = record.config.healthcheck
        since_start = (now_ns() - record.state.started_ns) / 1e9
        await asyncio.sleep(pause_before_probe(check, record.state.health, since_start))
        record = core.registry.get(container_id)
        if record is None or not record.state.is_live:
            return
        result = await _probe(core, record)
        record = core.registry.get(container_id)
        if record is None or not record.state.is_live or record.state.health is None:
            return
        before = record.state.health
        after = after_probe(before, check, result, started_ns=record.state.started_ns)
        record = structs.replace(record, state=structs.replace(record.state, health=after))
        core.registry.note(record)
        if after.status != before.status:
            core.note_fact(record)
            core.emit(record, f"health_status: {after.status}")


async def _probe(core: Core, record: Record) -> ProbeResult:
    """Run the check once."""
    assert record.config.healthcheck is not None, "the caller has looked"
    start_ns = now_ns()
    limit = probe_timeout(record.config.healthcheck)
    output = bytearray()
    try:
        session = execs.make(core, record, argv=probe_command(record.config) or [])
        try:
            async with asyncio.timeout(limit):
                code = await _run(core, session, output)
        except TimeoutError:
            await session.kill()
            words = f"Health check exceeded timeout ({format_duration_go(limit)})"
            text = _text(output)
            return ProbeResult(
                start_ns=start_ns,
                end_ns=now_ns(),
                exit_code=-1,
                output=f"{words}: {text}" if text else words,
            )
    except (EngineError, OSError) as error:
        return ProbeResult(start_ns=start_ns, end_ns=now_ns(), exit_code=-1, output=str(error))
    return ProbeResult(start_ns=start_ns, end_ns=now_ns(), exit_code=code, output=_text(output))


async def _run(core: Core, session: execs.Session, output: bytearray) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        ours.setblocking(False)
        with theirs:
            spec = AttachSpec(
                fd=theirs.fileno(), stdin=False, stdout=True, stderr=True, framed=False, detach_keys=b""
            )
            await session.run(core, spec)
        await read_all(ours, output, OUTPUT_LIMIT)
        return await session.wait()


async def read_all(sock: socket.socket, output: bytearray, limit: int) -> None:
    """Read to the end; keep the first *limit* bytes."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(sock, 65536):
        output += data[: max(0, limit - len(output))]


def _text(output: bytearray) -> str:
    return output.decode("utf-8", "replace")
