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
        "since": timestamp(flags["since"], ""),
        "until": timestamp(flags["until"], ""),
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
    if flags["format"] not in ("", "json"):
        raise CliError(f"unknown format '{flags['format']}': it is a list, or \"json\"")
    method = "POST" if flags["repair"] else "GET"
    found = session.engine.request(method, "/satsuma/system/check").json() or {}
    findings = found.get("Findings") or []
    if flags["format"] == "json":
        from satsuma.wire.gotemplate import encode_json

        session.line(encode_json(found))
    else:
        _show_findings(session, findings)
    if any(not finding.get("Repaired") for finding in findings):
        raise ExitStatus(1)


_SEVERITIES = {"garbage": "garbage, nothing is lost", "loss": "LOST"}


def _show_findings(session: Session, findings: list[dict[str, Any]]) -> None:
    """List findings, what is lost first."""
    for finding in sorted(findings, key=lambda finding: finding.get("Severity") != "loss"):
        severity = str(finding.get("Severity"))
        state = "mended" if finding.get("Repaired") else _SEVERITIES.get(severity, severity)
        session.line(f"{finding.get('Subject')}: {finding.get('Message')} ({state})")
    open_ones = [finding for finding in findings if not finding.get("Repaired")]
    if not findings:
        session.line("Everything that the engine knows is on disk, and nothing else is.")
    elif any(finding.get("Severity") == "garbage" for finding in open_ones):
        session.line(f"`{session.program} system check --repair` removes the garbage.")


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
