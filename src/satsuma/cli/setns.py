"""`setns`: run a program of the host inside namespaces that already exist.

What the tutorial's C program does: open(2) the namespace file, setns(2), execvp(3).
"""

from __future__ import annotations

import errno
import os

from satsuma.cli.errors import CliError

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
    from satsuma.linux import ns

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
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the child, too
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _exec(command: list[str]) -> NoReturn:
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        raise CliError(f"setns: {command[0]}: command not found", 127) from None
    except OSError as error:
        raise CliError(f"setns: {command[0]}: {(error.strerror or '').lower()}", 126) from None
