"""Attach clients to containers: before the start, while they run, and with a replay of the log.

The bytes do not pass the daemon: the client's socket is handed to the monitor.

Source: moby daemon/attach.go of 28.5.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
from collections.abc import AsyncIterator
from typing import Protocol

from satsuma.base.aio import blocking, spawn
from satsuma.base.errors import Conflict, EngineError, InvalidParameter
from satsuma.container import Record, Status
from satsuma.engine.actors import Actor
from satsuma.engine.core import Core
from satsuma.monitor import escape
from satsuma.monitor.client import Attachment, AttachSpec
from satsuma.monitor.logread import LogReader
from satsuma.wire import stdcopy

_log = logging.getLogger(__name__)

_KEYS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


class HijackedStream(Protocol):
    """A client's connection: a socket that we own, and what was read from it already."""

    @property
    def fd(self) -> int: ...
    @property
    def initial(self) -> bytes: ...


class Hijack(Protocol):
    """The right to take a client's connection over; before `accept` an error is an ordinary answer."""

    async def accept(self, *, tty: bool) -> HijackedStream: ...


def detach_keys_bytes(text: str | None) -> bytes:
    """Return the bytes of `ctrl-p,ctrl-q`, `a,b`; "" and None mean the default.

    Raises:
        InvalidParameter: `Invalid escape keys (x) provided`.
    """
    if not text:
        return escape.DEFAULT
    answer = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            answer.append(ord(key))
            continue
        name, _, letter = key.partition("-")
        if name.lower() != "ctrl" or len(letter) != 1 or not letter.isascii():
            raise InvalidParameter(f"Invalid escape keys ({text}) provided")
        if "a" <= letter.lower() <= "z":
            answer.append(ord(letter.lower()) - ord("a") + 1)
        elif letter in _KEYS:
            answer.append(_KEYS[letter])
        else:
            raise InvalidParameter(f"Invalid escape keys ({text}) provided")
    return bytes(answer)


def console_size(size: list[int] | None) -> tuple[int, int] | None:
    """Return (height, width), None when the client gave none."""
    return (size[0], size[1]) if size and len(size) == 2 and any(size) else None


async def attach(
    core: Core,
    reference: str,
    *,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    stream: bool,
    logs: bool,
    detach_keys: str | None,
    hijack: Hijack,
) -> None:
    """Hand a client's connection to a container.

    Raises:
        NotFound; Conflict: paused or restarting; InvalidParameter: detach keys.
    """
    keys = detach_keys_bytes(detach_keys)
    record = core.registry.find(reference)
    if record.state.status is Status.PAUSED:
        raise Conflict(f"container {reference} is paused, unpause the container before attach")
    if record.state.status is Status.RESTARTING:
        raise Conflict(f"container {reference} is restarting, wait until the container is running")
    tty = record.config.tty
    client = await hijack.accept(tty=tty)
    spec = AttachSpec(
        fd=client.fd,
        stdin=stdin and record.config.open_stdin,
        stdout=stdout,
        stderr=stderr,
        framed=not tty,
        detach_keys=keys,
        initial_stdin=client.initial if stdin else b"",
    )
    handed_over = False
    try:
        if logs:
            await replay(core, record, spec)
        if not stream:
            return
        core.emit(record, "attach")
        handed_over = await _enter(core, record, spec)
    finally:
        if not handed_over:
            os.close(client.fd)


async def _enter(core: Core, record: Record, spec: AttachSpec) -> bool:
    """Attach now, or keep the client for the start; True when the descriptor is kept."""
    async with core.locks.hold(record.id):
        current = core.registry.get(record.id)
        if current is None:
            return False
        actor = core.actor(current)
        if actor.monitor is None or not current.state.is_live:
            actor.pending.append(spec)
            _watch_hangup(actor, spec)
            return True
        try:
            attachment = await actor.monitor.attach(spec)
        except Conflict:
            # It ended this moment; the client sees the end of its stream.
            return False
    spawn(f"attached:{record.short_id}", report_detach(core, record, attachment))
    return False


async def report_detach(core: Core, record: Record, attachment: Attachment) -> None:
    """Publish the event when a client leaves by the detach keys."""
    if await attachment.ended == "detached":
        core.emit(record, "detach")


def _watch_hangup(actor: Actor, spec: AttachSpec) -> None:
    """Drop a client that leaves before the container starts.

    Only a hang-up of both directions counts, which epoll reports even when nothing is asked for: a client that
    has closed its sending side still wants the output.
    """
    loop = asyncio.get_running_loop()
    poller = select.epoll()
    poller.register(spec.fd, 0)

    def forget() -> None:
        loop.remove_reader(poller.fileno())
        poller.close()

    def ready() -> None:
        actor.on_handover.remove(forget)
        forget()
        if spec in actor.pending:
            actor.pending.remove(spec)
            os.close(spec.fd)

    loop.add_reader(poller.fileno(), ready)
    actor.on_handover.append(forget)


async def replay(core: Core, record: Record, spec: AttachSpec) -> None:
    """Write the log so far to a client."""
    driver = record.host.log_config.type
    if driver not in ("json-file", "local"):
        return
    with socket.socket(fileno=os.dup(spec.fd)) as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, EngineError):
            async for stream, line in log_lines(core, record):
                if (stream == stdcopy.STDOUT and spec.stdout) or (stream == stdcopy.STDERR and spec.stderr):
                    await loop.sock_sendall(sock, stdcopy.encode(stream, line) if spec.framed else line)


async def log_lines(core: Core, record: Record) -> AsyncIterator[tuple[int, bytes]]:
    """Yield (stream, bytes) of the log that is there now."""
    reader = await blocking(LogReader, record.host.log_config.type, core.log_file(record))
    try:
        while batch := await blocking(reader.read):
            for entry in batch:
                yield (stdcopy.STDERR if entry.stream == "stderr" else stdcopy.STDOUT), entry.line
    finally:
        reader.close()
