"""OCI hooks: run a program with the container's state on its standard input.

Works without `subprocess`, because it is also used inside a container before the program starts.

Source: runtime-spec config.md#posix-platform-hooks; messages of runc (libcontainer/configs/config.go).
"""

from __future__ import annotations

import fcntl
import os
import select
import time

from satsuma.linux import syscalls
from satsuma.runtime import fastjson
from satsuma.runtime.errors import StepError, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OUTPUT_LIMIT = 64 << 10


def state_json(state: dict[str, Any], status: str, pid: int) -> bytes:
    """Return the state which a hook reads."""
    return fastjson.dumps(state | {"status": status, "pid": pid}).encode("utf-8", "surrogateescape")


def run_all(
    kind: str, entries: list[dict[str, Any]], state: bytes, *, cwd: str | None, first: int = 0
) -> None:
    """Run the hooks of one kind in order.

    Args:
        first: the number of the first entry, for messages.

    Raises:
        StepError: one failed; the later ones are not run.
    """
    for number, entry in enumerate(entries, first):
        try:
            _run(entry, state, cwd)
        except StepError as error:
            raise StepError(f"error running {kind} hook #{number}: {error}") from error


def _run(entry: dict[str, Any], state: bytes, cwd: str | None) -> None:
    pipes = [os.pipe() for _ in range(4)]  # stdin, stdout, stderr, why execve failed (close-on-exec)
    inner = (pipes[0][0], pipes[1][1], pipes[2][1], pipes[3][1])
    outputs = {pipe[0]: b"" for pipe in pipes[1:]}
    pid = os.fork()
    if pid == 0:
        _become_hook(entry, cwd, inner)
    for fd in inner:
        os.close(fd)
    pidfd = os.pidfd_open(pid)
    try:
        expired = _talk(pipes[0][1], outputs, pidfd, state, entry.get("timeout"))
        if expired:
            syscalls.pidfd_send_signal(pidfd, 9)
        _, status = os.waitpid(pid, 0)
    finally:
        for fd in (*outputs, pidfd):
            os.close(fd)
    if expired:
        raise StepError(f"hook ran past specified timeout of {float(entry['timeout']):.1f}s")
    stdout, stderr, failure = (data.decode("utf-8", "replace") for data in outputs.values())
    if failure:
        raise StepError(f"fork/exec {entry['path']}: {failure}")
    if status:
        code = os.waitstatus_to_exitcode(status)
        what = f"exit status {code}" if code > 0 else f"signal: {-code}"
        raise StepError(f"{what}, stdout: {stdout}, stderr: {stderr}")


def _become_hook(entry: dict[str, Any], cwd: str | None, inner: tuple[int, int, int, int]) -> None:
    try:
        # Away from where 0 to 3 will be: any of these may be closed in our caller.
        *streams, failure = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 4) for fd in inner)
        for target, fd in enumerate(streams):
            os.dup2(fd, target, inheritable=True)
        os.dup2(failure, 3, inheritable=False)
        syscalls.close_range(4)
        if cwd is not None:
            os.chdir(cwd)
        args = [syscalls.encode(arg) for arg in entry.get("args") or [entry["path"]]]
        env = [syscalls.encode(item) for item in entry.get("env") or []]
        syscalls.execve(
            syscalls.encode(entry["path"]), syscalls.string_array(args), syscalls.string_array(env)
        )
    except OSError as error:
        os.write(3, error_text(error).encode())
    finally:
        os._exit(127)


def _talk(stdin: int, outputs: dict[int, bytes], pidfd: int, state: bytes, timeout: float | None) -> bool:
    """Feed the hook and collect its output until it ends; return whether its time ran out instead."""
    deadline = None if timeout is None else time.monotonic() + timeout
    poller = select.poll()
    for fd in (stdin, *outputs):
        os.set_blocking(fd, False)
        poller.register(fd, select.POLLOUT if fd == stdin else select.POLLIN)
    poller.register(pidfd, select.POLLIN)
    pending = memoryview(state)
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = [fd for fd, _ in poller.poll(left)]
            if not ready:
                return True
            for fd in ready:
                if fd == stdin:
                    pending = _feed(stdin, pending)
                    if not pending:
                        poller.unregister(stdin)
                        os.close(stdin)
                        stdin = -1
                elif fd in outputs and not _collect(fd, outputs):
                    poller.unregister(fd)
            if pidfd in ready:
                for fd in outputs:
                    _collect(fd, outputs)  # what came between the look at the pipe and the end
                return False
    finally:
        if stdin >= 0:
            os.close(stdin)


def _feed(stdin: int, pending: memoryview) -> memoryview:
    try:
        return pending[os.write(stdin, pending) :]
    except BrokenPipeError:  # a hook need not read it
        return pending[len(pending) :]


def _collect(fd: int, outputs: dict[int, bytes]) -> bool:
    """Take what is there; False at the end."""
    try:
        chunk = os.read(fd, _OUTPUT_LIMIT)
    except BlockingIOError:
        return True
    outputs[fd] = (outputs[fd] + chunk)[:_OUTPUT_LIMIT]
    return bool(chunk)
