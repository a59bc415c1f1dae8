"""Why there is no checkpoint and no restore: whether CRIU is here, and whether it works on this kernel.

Source: criu(8) check.
"""

from __future__ import annotations

import os


def reason(program: str) -> str:
    """Return the error of the commands `checkpoint` and `restore`.

    Args:
        program: name or path of criu.
    """
    output, write = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)]
        pid = os.posix_spawnp(program, [program, "check"], os.environ, file_actions=actions)
    except OSError:
        os.close(output)
        return "checkpoint and restore need criu, which was not found"
    finally:
        os.close(write)
    with open(output, "rb") as file:
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    if os.waitpid(pid, 0)[1]:
        why = lines[-1].strip() if lines else "criu check failed"
        return f"checkpoint and restore need criu, which does not work on this machine: {why}"
    return "checkpoint and restore are not supported"
