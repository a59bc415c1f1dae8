"""Start the engine of this machine in the background, so that `satsuma run` can be the first command."""

from __future__ import annotations

import os
import sys
import time

from satsuma.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO

LOG = "/var/log/satsumad.log"
_PATIENCE = 20.0
_PAUSE = 0.02


def start_engine(path: str) -> None:
    """Run `satsumad` as a process of its own and wait until it answers on its socket.

    Raises:
        CliError: it ended, or does not answer; with the end of its log.
    """
    log, offset = _open_log()
    sys.stderr.write(f"satsuma: no engine is running, starting satsumad (log: {log.name!s})\n")
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        _become_engine(log.fileno())
    log.close()
    _wait_for(path, pid, str(log.name), offset)


def _open_log() -> tuple[FileIO, int]:
    for name in (LOG, os.path.join("/run/satsuma", "satsumad.log"), os.devnull):
        try:
            os.makedirs(os.path.dirname(name), exist_ok=True)
            file = open(name, "ab", buffering=0)
            return file, file.tell()
        except OSError:
            continue
    raise CliError("cannot open a log for satsumad")


def command() -> list[str]:
    """Return how to start the engine: the `satsumad` that was installed with this program."""
    beside = [os.path.dirname(os.path.abspath(sys.argv[0])), os.path.dirname(os.path.abspath(sys.executable))]
    for directory in (*beside, *os.environ.get("PATH", "").split(":")):
        candidate = os.path.join(directory, "satsumad")
        if directory and os.access(candidate, os.X_OK):
            return [candidate]
    return [sys.executable, "-c", "import sys; from satsuma.daemon.main import main; sys.exit(main())"]


def _become_engine(log: int) -> None:
    """Turn the forked child into the daemon: own session, no terminal, no descriptors of ours."""
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.closerange(3, 256)
        argv = command()
        environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        os.execve(argv[0], argv, environment)
    finally:
        os._exit(127)


def _wait_for(path: str, pid: int, log: str, offset: int) -> None:
    from satsuma.cli.transport import connect_unix

    deadline = time.monotonic() + _PATIENCE
    ended = 0
    while time.monotonic() < deadline:
        try:
            connect_unix(path).close()
            return
        except OSError:
            pass
        if not ended:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                ended = os.waitstatus_to_exitcode(status) or 1
                # Another command may have started one in the same moment; ours then ends, and the
                # other's socket is about to appear.
                deadline = min(deadline, time.monotonic() + 3.0)
        time.sleep(_PAUSE)
    what = f"satsumad ended with status {ended}" if ended else f"satsumad does not answer at {path}"
    raise CliError(f"{what}; the end of {log}:\n{_tail(log, offset)}")


def _tail(log: str, offset: int) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(offset)
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"  ({error.strerror})"
    lines = text.strip().split("\n")[-10:]
    return "\n".join(f"  {line}" for line in lines)
