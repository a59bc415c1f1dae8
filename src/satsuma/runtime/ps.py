"""The table of the command `ps`: the lines of ps(1) that belong to the container.

Source: runc ps.go.
"""

from __future__ import annotations

import os

from satsuma.runtime.errors import RuntimeFailure


def table(pids: list[int], args: list[str]) -> list[str]:
    """Run ps(1) and return its header and the lines of *pids*.

    Raises:
        RuntimeFailure: there is no ps, or its output has no PID column.
    """
    lines = _run(args).splitlines()
    if not lines or "PID" not in lines[0].split():
        raise RuntimeFailure("couldn't find PID field in ps output")
    column = lines[0].split().index("PID")
    wanted = {str(pid) for pid in pids}
    kept = [
        line for line in lines[1:] if line.split()[column : column + 1] and line.split()[column] in wanted
    ]
    return [lines[0], *kept]


def _run(args: list[str]) -> str:
    read, write = os.pipe()
    try:
        pid = os.posix_spawnp("ps", ["ps", *args], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
    except FileNotFoundError as error:
        raise RuntimeFailure('exec: "ps": executable file not found in $PATH') from error
    finally:
        os.close(write)
    with open(read, "rb") as file:
        output = file.read()
    status = os.waitpid(pid, 0)[1]
    if status:
        raise RuntimeFailure(f"exit status {os.waitstatus_to_exitcode(status)}")
    return output.decode("utf-8", "surrogateescape")
