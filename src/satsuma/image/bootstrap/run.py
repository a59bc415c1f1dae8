"""Programs of the host that make base images, their progress, and their failures."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from satsuma.base.errors import System, Unavailable

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class Reporter:
    """Turns lines into the JSON messages of `POST /images/create`."""

    def __init__(self, progress: Callable[[dict[str, Any]], None], name: str) -> None:
        self._progress = progress
        self._name = name

    def say(self, text: str) -> None:
        """Report one line."""
        self._progress({"status": text})

    def step(self, text: str, current: int | None = None, total: int | None = None) -> None:
        """Report one line about the image being made, with an amount if it is known."""
        message: dict[str, Any] = {"status": text, "id": self._name}
        if current is not None:
            message["progressDetail"] = {"current": current, "total": total}
        self._progress(message)


def environment() -> dict[str, str]:
    """Return the environment of helper programs: nothing of the daemon's but proxies."""
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
    return {"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", **kept}


def program(name: str, package: str, why: str) -> str:
    """Return the path of a program.

    Raises:
        Unavailable: it is not installed; the message says which package has it.
    """
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise Unavailable(
            f"{name} is not installed on this host, but {why} needs it (Debian package: {package})"
        )
    return found


def run(
    argv: Sequence[str], *, cwd: str, line: Callable[[str], None] = lambda text: None, name: str = ""
) -> str:
    """Run a program to its end, hand on its lines, and return its last ones.

    A process group of its own is killed when the caller is interrupted, so that nothing goes on below *cwd*.

    Args:
        name: what a failure calls it, if it is not the first word.
    Raises:
        System: it failed.
    """
    tail: deque[str] = deque(maxlen=20)
    with subprocess.Popen(
        list(argv),
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for text in process.stdout:
                tail.append(text.rstrip())
                line(text.rstrip())
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, 9)
            raise
    if status != 0:
        raise System(
            f"{name or os.path.basename(argv[0])} failed with status {status}: {' | '.join(tail)[-1500:]}"
        )
    return "\n".join(tail)
