"""What is done to containers one after another: stop, restart, kill, pause, unpause, rm, wait, rename, update, commit.

Source: docker documentation of these commands; measured on docker 28.2.
"""

from __future__ import annotations

from satsuma.cli.client import escape
from satsuma.cli.errors import ApiError, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session


def each(session: Session, names: Iterable[str], act: Callable[[str], Any], *, show: bool = True) -> None:
    """Do something to every name; print each that went well, report all errors at the end.

    Raises:
        CliError: one line for each that failed.
    """
    errors = []
    for name in names:
        try:
            act(name)
        except ApiError as error:
            errors.append(str(error))
            continue
        if show:
            session.line(name)
    if errors:
        import sys

        sys.stdout.flush()
        raise CliError("\n".join(errors))


_AT_ONCE = 50
"""How many requests are under way at a time, as in docker."""


def all_at_once(session: Session, names: list[str], method: str, path: str, query: Any = None) -> None:
    """Do the same to every container at the same time; print each that went well, errors at the end.

    Args:
        session: where to.
        names: containers.
        method: of the requests.
        path: with `{}` for the name.
        query: of the requests.
    Raises:
        CliError: one line for each that failed.
    """
    errors = []
    for start in range(0, len(names), _AT_ONCE):
        batch = names[start : start + _AT_ONCE]
        pending = [session.engine.begin(method, path.format(escape(name)), query) for name in batch]
        for name, request in zip(batch, pending, strict=True):
            try:
                request.finish().read()
            except ApiError as error:
                errors.append(str(error))
                continue
            session.line(name)
    if errors:
        import sys

        sys.stdout.flush()
        raise CliError("\n".join(errors))


def _stop_query(flags: Flags) -> dict[str, Any]:
    if "time" in flags.changed and "timeout" in flags.changed:
        raise CliError("conflicting options: cannot specify both --timeout and --time")
    given = next((flags[name] for name in ("timeout", "time") if name in flags.changed), None)
    return {"signal": flags["signal"] or None, "t": given}


def stop(session: Session, flags: Flags) -> None:
    """Stop containers."""
    query = _stop_query(flags)
    all_at_once(session, flags.args, "POST", "/containers/{}/stop", query)


def restart(session: Session, flags: Flags) -> None:
    """Restart containers."""
    query = _stop_query(flags)
    all_at_once(session, flags.args, "POST", "/containers/{}/restart", query)


def kill(session: Session, flags: Flags) -> None:
    """Send a signal."""
    query = {"signal": flags["signal"] or None}
    all_at_once(session, flags.args, "POST", "/containers/{}/kill", query)


def pause(session: Session, flags: Flags) -> None:
    """Freeze all processes."""
    all_at_once(session, flags.args, "POST", "/containers/{}/pause")


def unpause(session: Session, flags: Flags) -> None:
    """Thaw all processes."""
    all_at_once(session, flags.args, "POST", "/containers/{}/unpause")


def rm(session: Session, flags: Flags) -> None:
    """Remove containers."""
    query = {"v": flags["volumes"], "link": flags["link"], "force": flags["force"]}

    def remove(name: str) -> None:
        plain = name.strip("/")
        if not plain:
            raise ApiError("container name cannot be empty", 400)
        try:
            session.engine.delete(f"/containers/{escape(plain)}", query)
        except ApiError as error:
            # What is not there need not be removed: --force makes that a warning.
            if not (flags["force"] and error.http_status == 404):
                raise
            session.warn(str(error))
            raise _Skip from None

    errors = []
    for name in flags.args:
        try:
            remove(name)
        except _Skip:
            continue
        except ApiError as error:
            errors.append(str(error))
            continue
        session.line(name)
    if errors:
        raise CliError("\n".join(errors))


class _Skip(Exception):
    """Nothing was done, and that is fine."""


def wait(session: Session, flags: Flags) -> None:
    """Print exit statuses as containers end."""
    from satsuma.cli.stream import wait_status

    def await_end(name: str) -> None:
        answer = session.engine.request("POST", f"/containers/{escape(name)}/wait")
        session.line(str(wait_status(answer.read())))
        import sys

        sys.stdout.flush()

    each(session, flags.args, await_end, show=False)


def rename(session: Session, flags: Flags) -> None:
    """Rename a container."""
    old, new = (name.strip() for name in flags.args)
    if not old or not new:
        raise CliError("Error: Neither old nor new names may be empty")
    try:
        session.engine.post(f"/containers/{escape(old)}/rename", {"name": new})
    except ApiError as error:
        raise CliError(f"{error}\nError: failed to rename container named {old}") from None


_UPDATE = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "cpus": "NanoCpus",
    "pids-limit": "PidsLimit",
}


def update(session: Session, flags: Flags) -> None:
    """Change limits and the restart policy."""
    from satsuma.cli.createbody import parse_restart

    if not flags.changed:
        raise CliError("you must provide one or more flags when using this command")
    if "kernel-memory" in flags.changed:
        session.warn("WARNING: --kernel-memory has no effect: kernels no longer have that limit")
    body: dict[str, Any] = {field: flags[flag] for flag, field in _UPDATE.items() if flag in flags.changed}
    try:
        body["RestartPolicy"] = parse_restart(flags["restart"])
    except ValueError as error:
        raise CliError(str(error)) from None
    warnings: list[str] = []

    def change(name: str) -> None:
        answer = session.engine.post(f"/containers/{escape(name)}/update", None, body) or {}
        warnings.extend(answer.get("Warnings") or [])

    try:
        each(session, flags.args, change)
    finally:
        if warnings:
            session.line("\n".join(warnings))


def commit(session: Session, flags: Flags) -> None:
    """Make an image of a container's changes."""
    container, name = flags.args[0], flags.args[1] if len(flags.args) > 1 else ""
    repository, tag = _split_name(name)
    if flags["no-pause"] and "pause" in flags.changed:
        raise CliError("conflicting options: cannot specify both --no-pause and --pause")
    pause_it = flags["pause"] and not flags["no-pause"]
    query = {
        "container": container,
        "repo": repository or None,
        "tag": tag or None,
        "comment": flags["message"] or None,
        "author": flags["author"] or None,
        "changes": flags["change"],
        "pause": None if pause_it else "0",
    }
    session.line(session.engine.post("/commit", query)["Id"])


def _split_name(name: str) -> tuple[str, str]:
    from satsuma.base.errors import EngineError
    from satsuma.wire.reference import parse

    if not name:
        return "", ""
    try:
        reference = parse(name)
    except EngineError as error:
        raise CliError(str(error)) from None
    if reference.digest:
        raise CliError("refusing to create a tag with a digest reference")
    return reference.familiar_name(), reference.with_default_tag().tag
