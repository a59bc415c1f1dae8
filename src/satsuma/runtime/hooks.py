"""OCI hooks: run a program with the container's state on its standard input.

Works without `subprocess`, because it is also used inside a container before the program starts.

Source: runtime-spec config.md#posix-platform-hooks; messages of runc (libcontainer/configs/config.go).
"""

from __future__ import annotations

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


def run_all(kind: str, entries: list[dict[str, Any]], state: bytes, *, cwd: str | None) -> None:
    """Run the hooks of one kind in order.

    Raises:
        StepError: one failed; the later ones are not run.
    """
    for number, entry in enumerate(entries):
        try:
            _run(entry, state, cwd)
        except StepError as error:
            raise StepError(f"error running {kind} hook #{number}: {error}") from error


def _run(entry: dict[str, Any], state: bytes, cwd: str | None) -> None:
    stdin_read, stdin_write = os.pipe()
    output_read, output_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become_hook(entry, cwd, stdin_read, output_write)
    os.close(stdin_read)
    os.close(output_write)
    pidfd = os.pidfd_open(pid)
    try:
        timeout = entry.get("timeout")
        output, expired = _talk(stdin_write, output_read, pidfd, state, timeout)
        if expired:
            syscalls.pidfd_send_signal(pidfd, 9)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(output_read)
        os.close(pidfd)
    if expired:
        raise StepError(f"hook ran past specified timeout of {float(entry['timeout']):.1f}s")
    if status:
        code = os.waitstatus_to_exitcode(status)
        what = f"exit status {code}" if code > 0 else f"signal: {-code}"
        raise StepError(f"{what}, stdout: {output.decode('utf-8', 'replace')}, stderr: ")


def _become_hook(entry: dict[str, Any], cwd: str | None, stdin: int, output: int) -> None:
    try:
        os.dup2(stdin, 0, inheritable=True)
        os.dup2(output, 1, inheritable=True)
        os.dup2(output, 2, inheritable=True)
        syscalls.close_range(3)
        if cwd is not None:
            os.chdir(cwd)
        args = [syscalls.encode(arg) for arg in entry.get("args") or [entry["path"]]]
        env = [syscalls.encode(item) for item in entry.get("env") or []]
        syscalls.execve(
            syscalls.encode(entry["path"]), syscalls.string_array(args), syscalls.string_array(env)
        )
    except OSError as error:
        os.write(2, f"{entry['path']}: {error_text(error)}".encode("utf-8", "surrogateescape"))
    finally:
        os._exit(127)


def _talk(stdin: int, output: int, pidfd: int, state: bytes, timeout: float | None) -> tuple[bytes, bool]:
    """Feed the hook and collect its output until it ends; return (output, whether the time ran out)."""
    deadline = None if timeout is None else time.monotonic() + timeout
    os.set_blocking(stdin, False)
    poller = select.poll()
    poller.register(stdin, select.POLLOUT)
    poller.register(output, select.POLLIN)
    poller.register(pidfd, select.POLLIN)
    collected = b""
    pending = memoryview(state)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        events = poller.poll(left)
        if not events:
            os.close(stdin) if stdin >= 0 else None
            return collected, True
        for fd, _ in events:
            if fd == stdin:
                try:
                    pending = pending[os.write(stdin, pending) :]
                except BrokenPipeError:
                    pending = pending[len(pending) :]
                if not pending:
                    poller.unregister(stdin)
                    os.close(stdin)
                    stdin = -1
            elif fd == output:
                chunk = os.read(output, 65536)
                collected = (collected + chunk)[:_OUTPUT_LIMIT]
                if not chunk:
                    poller.unregister(output)
            else:
                if stdin >= 0:
                    os.close(stdin)
                return collected, False
