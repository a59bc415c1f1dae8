"""`setns`: run a program of the host inside namespaces that already exist.

What the tutorial's C program does: open(2) the namespace file, setns(2), execvp(3).
"""

from __future__ import annotations

import errno
import os
import signal

from satsuma.cli.errors import CliError
from satsuma.linux import ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session


def setns(_session: Session, flags: Flags) -> int:
    """Join the namespaces of the files in the first argument and become the command of the rest."""
    fds = [(path, _open(path)) for path in flags.args[0].split(",")]
    joined_pid = False
    for path, fd in fds:
        joined_pid |= _join(path, fd) == "pid"
        os.close(fd)
    # From here on files may be somebody else's: nothing is imported any more.
    command = flags.args[1:]
    if joined_pid:
        # setns(2): a pid namespace is entered by children only, never by the caller.
        return _run_as_child(command)
    _exec(command)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError) and path.startswith("/proc/"):
            hint = " (has the process ended?)"
        raise CliError(f"setns: open {path}: {(error.strerror or '').lower()}{hint}") from None


def _join(path: str, fd: int) -> str:
    """Join one namespace and return its kind."""
    try:
        kind = _kind(fd)
        ns.setns(fd, kind)
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = " (joining a namespace takes CAP_SYS_ADMIN: run it as root)"
        elif error.errno == errno.EINVAL:
            hint = " (a namespace that this process may not join)"
        raise CliError(f"setns: {path}: {(error.strerror or '').lower()}{hint}") from None
    if kind == "mnt":
        os.chdir("/")
    return kind


def _kind(fd: int) -> str:
    """Return the kind of namespace behind a descriptor, as its magic link names it: `net:[4026531992]`."""
    kind, colon, _ = os.readlink(f"/proc/self/fd/{fd}").partition(":[")
    if not colon:
        raise OSError(errno.EINVAL, "not a namespace file")
    return kind


def _run_as_child(command: list[str]) -> int:
    pid = os.fork()
    if not pid:
        try:
            _exec(command)
        except CliError as error:
            os.write(2, f"{error}\n".encode())
            os._exit(error.status)
        finally:
            os._exit(127)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the child, too
    _, status = os.waitpid(pid, 0)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _exec(command: list[str]) -> NoReturn:
    """Become the command, found in PATH as a shell finds it (`os.execvp` would import modules here)."""
    name = command[0]
    folders = [""] if "/" in name else os.environ.get("PATH", "/usr/bin:/bin").split(":")
    failure: OSError | None = None
    for folder in folders:
        try:
            os.execve(f"{folder}/{name}" if folder else name, command, os.environ)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            failure = failure or error
    if failure is None:
        raise CliError(f"setns: {name}: command not found", 127)
    raise CliError(f"setns: {name}: {(failure.strerror or '').lower()}", 126)
