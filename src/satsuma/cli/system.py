"""`system events`, `system check`, `system dial-stdio`.

Source: docker documentation "docker system events"; measured on docker 28.2.
"""

from __future__ import annotations

import os
import sys

from satsuma.cli.client import as_filters
from satsuma.cli.errors import CliError, ExitStatus
from satsuma.cli.lookup import timestamp, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session


def events(session: Session, flags: Flags) -> None:
    """Print what happens, as it happens."""
    template = _template(flags["format"])
    query = {
        "since": timestamp(flags["since"], "since"),
        "until": timestamp(flags["until"], "until"),
        "filters": as_filters(flags["filter"]),
    }
    answer = session.engine.request("GET", "/events", query)
    for event in answer.documents():
        session.line(_pretty(event) if template is None else template.execute(_record(event)))
        sys.stdout.flush()


def _template(source: str) -> Any:
    from satsuma.wire.gotemplate import TemplateError, parse

    if not source:
        return None
    try:
        template = parse("{{json .}}" if source == "json" else source)
        template.execute(_record({}))
    except TemplateError as error:
        raise CliError(f"Error parsing format: {error}", 64) from None
    return template


def _record(event: Mapping[str, Any]) -> Any:
    from satsuma.wire.gotemplate import GoMap, Record

    actor = event.get("Actor") or {}
    fields = {
        "Status": event.get("status") or "",
        "ID": event.get("id") or "",
        "From": event.get("from") or "",
        "Type": event.get("Type") or "",
        "Action": event.get("Action") or "",
        "Actor": {"ID": actor.get("ID") or "", "Attributes": GoMap(actor.get("Attributes") or {})},
        "Scope": event.get("scope") or "",
        "Time": event.get("time") or 0,
        "TimeNano": event.get("timeNano") or 0,
    }
    names = {
        "Status": "status",
        "ID": "id",
        "From": "from",
        "Scope": "scope",
        "Time": "time",
        "TimeNano": "timeNano",
    }
    names.update(
        {name: "" for name in ("Status", "ID", "From", "Scope", "Time", "TimeNano") if not fields[name]}
    )
    return Record("*events.Message", fields, names)


def _pretty(event: Mapping[str, Any]) -> str:
    import time

    actor = event.get("Actor") or {}
    ns = event.get("timeNano") or (event.get("time") or 0) * 1_000_000_000
    head = ""
    if ns:
        moment = time.localtime(ns // 1_000_000_000)
        zone = time.strftime("%z", moment)
        zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
        head = f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{ns % 1_000_000_000:09d}{zone} "
    text = f"{head}{event.get('Type')} {event.get('Action')} {actor.get('ID')}"
    attributes = actor.get("Attributes") or {}
    if attributes:
        text += f" ({', '.join(f'{key}={attributes[key]}' for key in sorted(attributes))})"
    return text


def check(session: Session, flags: Flags) -> None:
    """Check, and mend, what the engine keeps on disk."""
    if flags["repair"]:
        found = session.engine.post("/satsuma/system/check", {"repair": True})
    else:
        found = session.engine.get("/satsuma/system/check")
    if flags["format"] == "json":
        from satsuma.wire.gotemplate import encode_json

        session.line(encode_json(found))
    else:
        _show_findings(session, found or {}, repair=flags["repair"])
    problems = (found or {}).get("Problems") or []
    left = [problem for problem in problems if not problem.get("Repaired")]
    if left:
        raise ExitStatus(1)


def _show_findings(session: Session, found: Mapping[str, Any], *, repair: bool) -> None:
    for name, value in (found.get("Checked") or {}).items():
        session.line(f"checked {value} {name}")
    problems = found.get("Problems") or []
    for problem in problems:
        mended = "repaired" if problem.get("Repaired") else "found"
        kind = problem.get("Kind") or "problem"
        session.line(
            f"{mended}: {kind}: {problem.get('Object') or ''} {problem.get('Message') or ''}".rstrip()
        )
    if not problems:
        session.line("No problems found.")
    elif not repair:
        session.line(
            f"{len(problems)} problem(s); `{session.program} system check --repair` mends what can be mended."
        )


def dial_stdio(session: Session, _flags: Flags) -> None:
    """Carry bytes between standard input and output and the engine, for clients that come by ssh."""
    import select
    import socket

    connection = session.engine.connect()
    reading = True
    while True:
        waiting: list[Any] = [connection, *([0] if reading else [])]
        ready, _, _ = select.select(waiting, [], [])
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if data:
                connection.sendall(data)
            else:
                reading = False
                connection.shutdown(socket.SHUT_WR)
        if connection in ready:
            data = connection.recv(1 << 16)
            if not data:
                return
            write(1, data)
