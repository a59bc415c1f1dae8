"""Command-line plugins of docker, such as compose: programs `docker-NAME` that take over a command of that name.

The plugin speaks to the same engine: the address goes to it in `DOCKER_HOST`, the rest of the configuration is shared.

Source: docker documentation "docker plugins", `cli-plugins/manager`.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SYSTEM = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def _directories() -> Iterator[str]:
    from satsuma.cli.config import directory

    yield os.path.join(directory(""), "cli-plugins")
    yield from _SYSTEM


def find_plugin(name: str) -> str | None:
    """Return the program of the plugin *name*, None if there is none."""
    if not name.isascii() or not name.isalnum():
        return None
    for directory in _directories():
        path = os.path.join(directory, f"docker-{name}")
        if os.access(path, os.X_OK):
            return path
    return None


def run_plugin(words: list[str]) -> None:
    """Become the plugin that *words* name; return if there is none."""
    path = find_plugin(words[0])
    if path is None:
        return
    environment = dict(os.environ)
    if not environment.get("DOCKER_HOST") and not environment.get("DOCKER_CONTEXT"):
        from satsuma.cli.endpoint import DEFAULT_HOST

        environment["DOCKER_HOST"] = DEFAULT_HOST
    environment["DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"] = "docker"
    os.execve(path, [path, *words], environment)
