"""`container exec`.

Source: docker documentation "docker exec"; measured on docker 28.2.
"""

from __future__ import annotations

from satsuma.cli.client import escape
from satsuma.cli.envfiles import read_pairs
from satsuma.cli.errors import CliError, ExitStatus
from satsuma.cli.terminal import DEFAULT_DETACH_KEYS, check_tty, is_terminal, parse_detach_keys, window_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.cli.explain import Explanation
    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session


def execute(session: Session, flags: Flags) -> int:
    """Run a command in a running container; attached, return its exit status."""
    container = flags.args[0]
    body, detach_keys = _plan(session, flags)
    engine = session.engine
    path = f"/containers/{escape(container)}"
    engine.get(f"{path}/json")
    if not flags["detach"]:
        check_tty(stdin=body["AttachStdin"], tty=body["Tty"])
    size = list(window_size())
    if body["Tty"]:
        body["ConsoleSize"] = size
    identifier = (engine.post(f"{path}/exec", None, body) or {}).get("Id")
    if not identifier:
        raise CliError("exec ID empty")
    start: dict[str, Any] = {"Detach": flags["detach"], "Tty": body["Tty"]}
    if body["Tty"]:
        start["ConsoleSize"] = size
    explanation = None
    if flags["explain"]:
        from satsuma.cli.explain import Explanation

        explanation = Explanation(session, f"/exec/{identifier}")
    if flags["detach"]:
        try:
            engine.post(f"/exec/{identifier}/start", None, start)
        finally:
            if explanation is not None:
                explanation.show()
        return 0
    return _attached(session, identifier, start, body, detach_keys, explanation)


def _plan(session: Session, flags: Flags) -> tuple[dict[str, Any], bytes]:
    try:
        environment = read_pairs(flags["env-file"], flags["env"], from_environment=True)
    except ValueError as error:
        raise CliError(str(error)) from None
    keys = flags["detach-keys"] or str(session.config.get("detachKeys") or "")
    attached = not flags["detach"]
    body = {
        "User": flags["user"],
        "Privileged": flags["privileged"],
        "Tty": flags["tty"],
        "AttachStdin": attached and flags["interactive"],
        "AttachStderr": attached,
        "AttachStdout": attached,
        "DetachKeys": keys,
        "Env": environment or None,
        "WorkingDir": flags["workdir"],
        "Cmd": flags.args[1:],
    }
    return body, parse_detach_keys(keys or DEFAULT_DETACH_KEYS)


def _attached(
    session: Session,
    identifier: str,
    start: dict[str, Any],
    body: dict[str, Any],
    detach_keys: bytes,
    explanation: Explanation | None,
) -> int:
    from satsuma.cli.stream import DETACHED, Attachment

    engine = session.engine
    connection, initial, _ = engine.hijack(f"/exec/{identifier}/start", None, start)
    if explanation is not None:
        explanation.show()
    loop = Attachment(engine, connection, initial, tty=body["Tty"])
    loop.stdin = body["AttachStdin"]
    loop.detach_keys = detach_keys
    try:
        if body["Tty"] and is_terminal(0):
            loop.resize_path = f"/exec/{identifier}/resize"
            loop.resize()
        if not loop.pump():
            raise CliError(DETACHED)
    finally:
        loop.close()
    status = engine.get(f"/exec/{identifier}/json").get("ExitCode") or 0
    if status:
        raise ExitStatus(status)
    return 0
