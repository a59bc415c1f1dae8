"""`container create` and `container run`.

The order of requests is docker's: create, attach, wait, start, resize; attach and wait stand before the container
starts, so that no byte and no exit status can be missed.

Source: docker documentation "docker run"; measured on docker 28.2.
"""

from __future__ import annotations

import os
import sys

from satsuma.cli.createbody import plan_body
from satsuma.cli.errors import ApiError, CliError, ExitStatus
from satsuma.cli.terminal import DEFAULT_DETACH_KEYS, check_tty, is_terminal, parse_detach_keys, window_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

    Body = dict[str, Any]


def create(session: Session, flags: Flags) -> None:
    """Create a container and print its id."""
    body = _plan(session, flags, "create")
    session.line(_create(session, flags, body))


def run(session: Session, flags: Flags) -> int:
    """Create and start a container; attached, return its exit status."""
    body = _plan(session, flags, "run")
    if flags["detach"]:
        if flags["attach"]:
            raise CliError("conflicting options: cannot specify both --attach and --detach")
        body["AttachStdin"] = body["AttachStdout"] = body["AttachStderr"] = body["StdinOnce"] = False
    else:
        check_tty(stdin=body["AttachStdin"], tty=body["Tty"])
    keys = flags["detach-keys"] or str(session.config.get("detachKeys") or "")
    detach_keys = parse_detach_keys(keys or DEFAULT_DETACH_KEYS)
    try:
        identifier = _create(session, flags, body)
    except CliError as error:
        raise _explained(session, error) from None
    if not (body["AttachStdin"] or body["AttachStdout"] or body["AttachStderr"]):
        return _start_detached(session, flags, identifier)
    return _run_attached(session, flags, body, identifier, (keys, detach_keys))


def _plan(session: Session, flags: Flags, command: str) -> Body:
    if flags["pull"] not in ("always", "missing", "never", ""):
        raise CliError(
            _with_help(
                session,
                f'invalid pull option: \'{flags["pull"]}\': must be one of "always", "missing" or "never"',
                command,
            ),
            125,
        )
    refuse_trust(flags)
    if "kernel-memory" in flags.changed:
        session.warn("WARNING: --kernel-memory has no effect: kernels no longer have that limit")
    _refuse_windows(session, flags)
    _add_proxies(session, flags)
    try:
        return plan_body(flags)
    except ValueError as error:
        raise CliError(_with_help(session, str(error), command), 125) from None


def refuse_trust(flags: Flags) -> None:
    """Refuse `--disable-content-trust=false`: there are no signatures to check.

    Raises:
        CliError: the flag asks for content trust.
    """
    if flags.get("disable-content-trust", True) is False:
        raise CliError(
            "content trust is not supported: --disable-content-trust=false cannot be honoured", 125
        )


def _refuse_windows(session: Session, flags: Flags) -> None:
    program = session.program.capitalize()
    wrong = [
        f'"--{flag}" is only supported on a {program} daemon running on windows, '
        f"but the {program} daemon is running on linux"
        for flag in ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")
        if flag in flags.changed
    ]
    if wrong:
        raise CliError("\n".join(wrong))


def _add_proxies(session: Session, flags: Flags) -> None:
    from satsuma.cli.config import proxy_environment

    found = (
        proxy_environment(session.config, session.engine.endpoint.host)
        if session.config.get("proxies")
        else {}
    )
    given = {pair.partition("=")[0] for pair in flags["env"]}
    extra = [f"{name}={value}" for name, value in found.items() if name not in given]
    flags.values["env"] = [*extra, *flags["env"]]


def _with_help(session: Session, message: str, command: str) -> str:
    program = session.program
    return f"{program}: {message}\n\nRun '{program} {command} --help' for more information"


def _explained(session: Session, error: CliError) -> CliError:
    """Return the error of a run with docker's exit status: 127 not found, 126 not executable, else 125."""
    text = str(error)
    status = 125
    if "executable file not found" in text or "no such file or directory" in text:
        status = 127
    elif "permission denied" in text or "is a directory" in text:
        status = 126
    return CliError(_with_help(session, text, "run"), status)


# -- create -------------------------------------------------------------------------------------------------------


def _create(session: Session, flags: Flags, body: Body) -> str:
    """Create the container, pulling its image if that is wanted; return its id."""
    familiar = _familiar(body["Image"])
    if flags["use-api-socket"]:
        _mount_socket(session, body)
    if flags["platform"]:
        _check_platform(flags["platform"])
    cidfile = _CidFile(flags["cidfile"])
    try:
        if flags["pull"] == "always":
            _pull(session, flags, body["Image"])
        height, width = window_size()
        body["HostConfig"]["ConsoleSize"] = [height, width]
        query = {"name": flags["name"] or None, "platform": flags["platform"] or None}
        try:
            answer = session.engine.post("/containers/create", query, body)
        except ApiError as error:
            # A volume driver or a network that is not there is a 404 too; pulling would not help.
            missing = error.http_status == 404 and "no such image" in str(error).lower()
            if not missing or not familiar or flags["pull"] != "missing":
                raise
            if not flags["quiet"]:
                session.warn(f"Unable to find image '{familiar}' locally")
            _pull(session, flags, body["Image"])
            answer = session.engine.post("/containers/create", query, body)
        for warning in answer.get("Warnings") or []:
            session.warn(f"WARNING: {warning}")
        identifier = str(answer["Id"])
        cidfile.write(identifier)
        return identifier
    finally:
        cidfile.close()


def _familiar(image: str) -> str:
    """Return the name of the image as people write it, with its tag; empty for an id.

    Raises:
        CliError: no image can have this name.
    """
    from satsuma.base.errors import EngineError
    from satsuma.wire.reference import parse

    if len(image) == 64 and not set(image) - set("0123456789abcdef"):
        return ""
    if image.startswith("sha256:"):
        return ""
    try:
        return parse(image).with_default_tag().familiar()
    except EngineError as error:
        raise CliError(str(error)) from None


def _check_platform(text: str) -> None:
    from satsuma.base.errors import InvalidParameter
    from satsuma.wire import platforms

    try:
        platforms.parse(text)
    except InvalidParameter as error:
        raise CliError(f"error parsing specified platform: {error}") from None


def _mount_socket(session: Session, body: Body) -> None:
    endpoint = session.engine.endpoint
    if endpoint.scheme != "unix":
        raise CliError("flag --use-api-socket needs an engine on a UNIX socket of this machine")
    mount = {"Type": "bind", "Source": endpoint.path, "Target": "/var/run/docker.sock", "BindOptions": {}}
    body["HostConfig"].setdefault("Mounts", []).append(mount)


def _pull(session: Session, flags: Flags, image: str) -> None:
    from satsuma.cli.distribution import pull_image

    pull_image(session, image, platform=flags["platform"], quiet=flags["quiet"], out=sys.stderr)


class _CidFile:
    """`--cidfile`: made before the container, removed again if there will be none."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1
        self.written = False
        if not path:
            return
        if os.path.exists(path):
            raise CliError(
                f"container ID file found, make sure the other container isn't running or delete {path}"
            )
        try:
            self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise CliError(f"failed to create the container ID file: open {path}: {reason}") from None

    def write(self, identifier: str) -> None:
        """Write the id."""
        if self.fd >= 0:
            os.write(self.fd, identifier.encode())
            self.written = True

    def close(self) -> None:
        """Close the file; without an id in it, it goes."""
        if self.fd >= 0:
            os.close(self.fd)
            if not self.written:
                os.unlink(self.path)


# -- start --------------------------------------------------------------------------------------------------------


def _start(session: Session, flags: Flags, identifier: str) -> None:
    """Start the container, and show how if that is wanted.

    Raises:
        CliError: it did not start.
    """
    if not flags["explain"]:
        session.engine.post(f"/containers/{identifier}/start")
        return
    from satsuma.cli.explain import Explanation

    explanation = Explanation(session, f"/containers/{identifier}")
    try:
        session.engine.post(f"/containers/{identifier}/start")
    finally:
        explanation.show()


def _start_detached(session: Session, flags: Flags, identifier: str) -> int:
    session.line(identifier)
    try:
        _start(session, flags, identifier)
    except CliError as error:
        sys.stdout.flush()
        raise _explained(session, error) from None
    return 0


def _run_attached(
    session: Session, flags: Flags, body: Body, identifier: str, keys: tuple[str, bytes]
) -> int:
    from satsuma.cli.stream import Attachment

    engine = session.engine
    container = f"/containers/{identifier}"
    query = {
        "stream": True,
        "stdin": body["AttachStdin"],
        "stdout": body["AttachStdout"],
        "stderr": body["AttachStderr"],
        "detachKeys": keys[0] or None,
    }
    connection, initial, _ = engine.hijack(f"{container}/attach", query)
    session_loop = Attachment(engine, connection, initial, tty=body["Tty"])
    session_loop.stdin = body["AttachStdin"]
    session_loop.detach_keys = keys[1]
    try:
        if flags["sig-proxy"]:
            session_loop.kill_path = f"{container}/kill"
            session_loop.catch_signals()
        condition = "removed" if flags["rm"] else "next-exit"
        waiting = engine.request("POST", f"{container}/wait", {"condition": condition})
        try:
            _start(session, flags, identifier)
        except CliError as error:
            if flags["rm"]:
                _await_removal(waiting.connection)
            raise _explained(session, error) from None
        if body["Tty"] and is_terminal(1):
            session_loop.resize_path = f"{container}/resize"
            session_loop.resize()
        if not session_loop.pump():
            return 0
        status = session_loop.exit_status(waiting)
    finally:
        session_loop.close()
    if status:
        raise ExitStatus(status)
    return 0


def _await_removal(connection: Any) -> None:
    """Give the engine time to remove a `--rm` container that did not start, so that its name is free again."""
    connection.settimeout(10)
    try:
        connection.recv(1 << 16)
    except OSError:
        pass
