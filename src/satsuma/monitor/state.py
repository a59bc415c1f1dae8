"""Files of a monitor: where they are, what is in them, and the exit record that outlives it.

    <exec-root>/containers/<id>/monitor.sock    control socket, SOCK_SEQPACKET
    <exec-root>/containers/<id>/monitor.json    pids and cgroup: what is needed to clean up after a monitor
    <exit path>                                 the exit record; the engine says where (in the data-root)

The directory below exec-root goes when the monitor ends in order.  A directory with a socket that nobody
listens on means that the monitor was killed.

The exit record is renamed into place before anybody hears of the exit, so it survives a crash of the daemon
at any moment; it is fsync'ed right after, for the machine's sake, when nobody waits for it any more.
"""

from __future__ import annotations

import collections
import json
import os

from satsuma.base.atomic import fsync_dir, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ExitStatus = collections.namedtuple("ExitStatus", ["exit_code", "oom_killed", "finished_at_ns"])
"""How the init process ended: 0–255, or 128 + signal number."""

KILLED_WITH_MONITOR = 137
"""Exit code when the monitor was killed: its init gets SIGKILL with it.  containerd says the same of a
container whose shim died (128 + SIGKILL)."""

SOCKET = "monitor.sock"
STATE = "monitor.json"


def containers_dir(exec_root: str) -> str:
    """Return the directory that has one directory per running container."""
    return f"{exec_root}/containers"


def run_dir(exec_root: str, container_id: str) -> str:
    """Return the directory of one monitor."""
    return f"{exec_root}/containers/{container_id}"


def exit_code(status: int) -> int:
    """Return the exit code of a wait status as shells and Docker count it: 128 + n for signal n."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def write_exit(path: str, status: ExitStatus) -> None:
    """Put the exit record into place; `sync_exit` makes it durable."""
    write_file(path, json.dumps(status._asdict()).encode(), durable=False)


def sync_exit(path: str) -> None:
    """Make the exit record durable.  The container may have been removed meanwhile: that is no error."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        fsync_dir(os.path.dirname(path))
    except FileNotFoundError:
        pass


def read_exit(path: str) -> ExitStatus | None:
    """Read the exit record; None when there is none."""
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read())
    except FileNotFoundError:
        return None
    return ExitStatus(record["exit_code"], record["oom_killed"], record["finished_at_ns"])


def write_state(directory: str, state: dict[str, Any]) -> None:
    """Write monitor.json."""
    write_file(f"{directory}/{STATE}", json.dumps(state).encode(), durable=False)


def read_state(directory: str) -> dict[str, Any] | None:
    """Read monitor.json; None when there is none."""
    try:
        with open(f"{directory}/{STATE}", "rb") as file:
            state = json.loads(file.read())
    except FileNotFoundError:
        return None
    return state if isinstance(state, dict) else None


def remove_run_dir(directory: str) -> None:
    """Remove the files of a monitor and their directory, as far as they are there."""
    for name in (SOCKET, STATE):
        try:
            os.unlink(f"{directory}/{name}")
        except FileNotFoundError:
            pass
    try:
        os.rmdir(directory)
    except OSError:
        _remove_unfinished(directory)


def _remove_unfinished(directory: str) -> None:
    """Remove a directory in which a monitor was killed while it wrote."""
    try:
        for name in os.listdir(directory):
            if name.startswith(f"{STATE}."):
                os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except OSError:
        pass
