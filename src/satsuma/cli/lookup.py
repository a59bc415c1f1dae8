"""Looking at one container: logs, top, port, diff.

Source: docker documentation of these commands; measured on docker 28.2.
"""

from __future__ import annotations

import os
import re

from satsuma.cli.client import escape
from satsuma.cli.errors import CliError
from satsuma.cli.tables import align
from satsuma.wire.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session


def logs(session: Session, flags: Flags) -> None:
    """Show what a container has written."""
    from satsuma.wire.stdcopy import STDERR, Decoder

    name = escape(flags.args[0])
    tty = bool(session.engine.get(f"/containers/{name}/json")["Config"]["Tty"])
    query = {
        "stdout": True,
        "stderr": True,
        "since": timestamp(flags["since"], "since"),
        "until": timestamp(flags["until"], "until"),
        "timestamps": flags["timestamps"],
        "details": flags["details"],
        "follow": flags["follow"],
        "tail": flags["tail"],
    }
    answer = session.engine.request("GET", f"/containers/{name}/logs", query)
    decoder = Decoder()
    for piece in answer.pieces():
        if tty:
            write(1, piece)
            continue
        for stream, payload in decoder.feed(piece):
            write(2 if stream == STDERR else 1, payload)


def write(fd: int, data: bytes) -> None:
    """Write all of *data*."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def timestamp(text: str, flag: str) -> str | None:
    """Return a point in time as the API takes it: UNIX seconds with nine digits of fraction; None for no text.

    Durations count back from now on this side's clock, times without a zone are in this side's zone.

    Args:
        flag: where it was given, for the error; "" where docker does not say it.
    Raises:
        CliError: neither a time nor a duration.
    """
    from satsuma.base.clock import now_ns, parse_time

    if not text:
        return None
    if text.replace(".", "", 1).isdigit():
        return text
    try:
        is_duration = text[:1] in "0123456789-+" and text[-1:] in "smh"
        ns = parse_time(text) if is_duration or _has_zone(text) else _local(text)
    except (ValueError, IndexError):
        where = f'invalid value for "{flag}": ' if flag else ""
        raise CliError(f'{where}failed to parse value as time or duration: "{text}"') from None
    seconds, fraction = divmod(ns, 1_000_000_000)
    return f"{seconds}.{fraction:09d}" if ns <= now_ns() + (1 << 62) else text


def _has_zone(text: str) -> bool:
    clock = text.partition("T")[2]
    return text.endswith(("Z", "z")) or "+" in clock or "-" in clock


def _local(text: str) -> int:
    """Parse a time without a zone as local time."""
    import time

    from satsuma.base.clock import parse_rfc3339

    ns = parse_rfc3339(text)
    t = time.gmtime(ns // 1_000_000_000)
    seconds = int(time.mktime((t.tm_year, t.tm_mon, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, 0, 0, -1)))
    return seconds * 1_000_000_000 + ns % 1_000_000_000


def top(session: Session, flags: Flags) -> None:
    """Show the processes of a container."""
    query = {"ps_args": " ".join(flags.args[1:]) or None}
    found = session.engine.get(f"/containers/{escape(flags.args[0])}/top", query)
    lines = ["\t".join(found.get("Titles") or [])]
    lines += ["\t".join(process) for process in found.get("Processes") or []]
    session.line(align("\n".join(lines), minimum=20))


def port(session: Session, flags: Flags) -> None:
    """Show the published ports."""
    name = flags.args[0]
    info = session.engine.get(f"/containers/{escape(name)}/json")
    ports: dict[str, list[dict[str, str]] | None] = info["NetworkSettings"].get("Ports") or {}
    if len(flags.args) == 1:
        lines = [f"{inner} -> {_outer(binding)}" for inner, found in ports.items() for binding in found or []]
    else:
        number, _, protocol = flags.args[1].partition("/")
        if not number.isdigit() or int(number) > 65535:
            raise CliError(
                f"Error: invalid port ({number}): strconv.ParseUint: parsing {quote(number)}: invalid syntax"
            )
        bindings = ports.get(f"{number}/{protocol or 'tcp'}")
        if not bindings:
            raise CliError(f"Error: No public port '{flags.args[1]}' published for {name}")
        lines = [_outer(binding) for binding in bindings]
    lines.sort(key=natural_key)
    if lines:
        session.line("\n".join(lines))


def _outer(binding: dict[str, Any]) -> str:
    address = binding.get("HostIp") or "0.0.0.0"
    return f"[{address}]:{binding['HostPort']}" if ":" in address else f"{address}:{binding['HostPort']}"


def natural_key(text: str) -> list[tuple[int, int, int]]:
    """Return a key that sorts runs of digits as numbers, and all else by its code.

    A number stands where its first digit does, before letters; of equal ones that with fewer zeros in front
    comes first.

    Source: github.com/fvbommel/sortorder `NaturalLess`, with which the docker command line sorts.
    """
    key = []
    for digits, other in re.findall(r"([0-9]+)|(.)", text, re.DOTALL):
        if digits:
            key.append((ord("0"), int(digits), len(digits) - len(digits.lstrip("0"))))
        else:
            key.append((ord(other), 0, 0))
    return key


_KINDS = "CAD"


def diff(session: Session, flags: Flags) -> None:
    """Show what a container has changed in its file system."""
    name = flags.args[0]
    if not name:
        raise CliError("Container name cannot be empty")
    for change in session.engine.get(f"/containers/{escape(name)}/changes") or []:
        session.line(f"{_KINDS[change['Kind']]} {change['Path']}")
