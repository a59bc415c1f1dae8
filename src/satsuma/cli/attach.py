"""`container attach` and `container start`.

Source: docker documentation "docker attach", "docker start"; measured on docker 28.2.
"""

from __future__ import annotations

from satsuma.cli.client import escape
from satsuma.cli.errors import ApiError, CliError, ExitStatus
from satsuma.cli.stream import DETACHED, Attachment
from satsuma.cli.terminal import DEFAULT_DETACH_KEYS, check_tty, is_terminal, parse_detach_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session


def _keys(session: Session, flags: Flags) -> tuple[str, bytes]:
    text = flags["detach-keys"] or str(session.config.get("detachKeys") or "")
    return text, parse_detach_keys(text or DEFAULT_DETACH_KEYS)


def attach(session: Session, flags: Flags) -> int:
    """Join the standard streams of a running container; return its exit status."""
    text, keys = _keys(session, flags)
    engine = session.engine
    name = flags.args[0]
    info = engine.get(f"/containers/{escape(name)}/json")
    _check_attachable(info["State"])
    config = info["Config"]
    tty = bool(config["Tty"])
    stdin = not flags["no-stdin"] and bool(config["OpenStdin"])
    check_tty(stdin=not flags["no-stdin"], tty=tty)
    path = f"/containers/{info['Id']}"
    query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True, "detachKeys": text or None}
    waiting = engine.request("POST", f"{path}/wait")
    connection, initial, _ = engine.hijack(f"{path}/attach", query)
    loop = Attachment(engine, connection, initial, tty=tty)
    loop.stdin, loop.detach_keys = stdin, keys
    try:
        if flags["sig-proxy"] and not tty:
            loop.kill_path = f"{path}/kill"
            loop.catch_signals()
        if tty and is_terminal(1):
            loop.resize_path = f"{path}/resize"
            _redraw(loop)
        if not loop.pump():
            raise CliError(DETACHED)
        status = loop.exit_status(waiting)
    finally:
        loop.close()
        waiting.close()
    if status:
        raise ExitStatus(status)
    return 0


def _redraw(loop: Attachment) -> None:
    """Change the size twice: a program draws itself anew when its window changes."""
    from satsuma.cli.terminal import window_size

    height, width = window_size()
    if height and width:
        try:
            loop.engine.post(loop.resize_path, {"h": height + 1, "w": width + 1})
        except ApiError:
            return
        loop.resize()


def _check_attachable(state: dict[str, Any]) -> None:
    if not state["Running"]:
        raise CliError("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise CliError("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise CliError("You cannot attach to a restarting container, wait until it is running")


def start(session: Session, flags: Flags) -> int:
    """Start containers; with `-a` or `-i` one of them, attached."""
    text, keys = _keys(session, flags)
    checkpoint = {
        "checkpoint": flags["checkpoint"] or None,
        "checkpoint-dir": flags["checkpoint-dir"] or None,
    }
    if flags["attach"] or flags["interactive"]:
        if len(flags.args) > 1:
            raise CliError("you cannot start and attach multiple containers at once")
        return _start_attached(session, flags, checkpoint, text, keys)
    if flags["checkpoint"] and len(flags.args) > 1:
        raise CliError("you cannot restore multiple containers at once")
    failed = []
    for name in flags.args:
        try:
            session.engine.post(f"/containers/{escape(name)}/start", checkpoint)
        except ApiError as error:
            session.warn(str(error))
            failed.append(name)
            continue
        session.line(name)
    if failed:
        raise CliError(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _start_attached(
    session: Session, flags: Flags, checkpoint: dict[str, Any], text: str, keys: bytes
) -> int:
    engine = session.engine
    info = engine.get(f"/containers/{escape(flags.args[0])}/json")
    path = f"/containers/{info['Id']}"
    tty = bool(info["Config"]["Tty"])
    stdin = flags["interactive"] and bool(info["Config"]["OpenStdin"])
    query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True, "detachKeys": text or None}
    connection, initial, _ = engine.hijack(f"{path}/attach", query)
    loop = Attachment(engine, connection, initial, tty=tty)
    loop.stdin, loop.detach_keys = stdin, keys
    try:
        if not tty:
            loop.kill_path = f"{path}/kill"
            loop.catch_signals()
        removed = info["HostConfig"].get("AutoRemove")
        waiting = engine.request("POST", f"{path}/wait", {"condition": "removed" if removed else "next-exit"})
        engine.post(f"{path}/start", checkpoint)
        if tty and is_terminal(1):
            loop.resize_path = f"{path}/resize"
            loop.resize()
        if not loop.pump():
            return 0
        status = loop.exit_status(waiting)
    finally:
        loop.close()
    if status:
        raise ExitStatus(status)
    return 0
