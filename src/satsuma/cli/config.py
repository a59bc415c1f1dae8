"""The client's configuration directory: `config.json` as docker's client keeps it.

Source: docker documentation "Docker CLI configuration file".
"""

from __future__ import annotations

import os

from satsuma.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def directory(flag: str) -> str:
    """Return the directory: `--config`, `DOCKER_CONFIG`, or `~/.docker`."""
    return flag or os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")


def load(path: str) -> dict[str, Any]:
    """Read `config.json` of the directory *path*; without the file there is no configuration.

    A file that cannot be read is a warning, as in docker: the command may not need it.
    """
    name = os.path.join(path, "config.json")
    try:
        with open(name, "rb") as file:
            raw = file.read()
    except OSError:
        return {}
    import json
    import sys

    try:
        config = json.loads(raw)
    except ValueError as error:
        sys.stderr.write(f"WARNING: Error loading config file: {name}: {error}\n")
        return {}
    return config if isinstance(config, dict) else {}


def save(path: str, config: dict[str, Any]) -> None:
    """Write `config.json`, whole or not at all.

    Raises:
        CliError: the directory cannot be written to.
    """
    import json

    name = os.path.join(path, "config.json")
    draft = f"{name}.{os.getpid()}"
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        # The file may hold credentials: nobody else reads it, at no moment.
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(json.dumps(config, indent="\t", sort_keys=True))
        os.replace(draft, name)
    except OSError as error:
        raise CliError(f"cannot write {name}: {error.strerror}") from None


def proxy_environment(config: dict[str, Any], host: str) -> dict[str, str]:
    """Return the proxy variables that containers and builds get from the `proxies` of the configuration."""
    proxies = config.get("proxies")
    if not isinstance(proxies, dict):
        return {}
    chosen = proxies.get(host) or proxies.get("default") or {}
    names = {
        "httpProxy": "HTTP_PROXY",
        "httpsProxy": "HTTPS_PROXY",
        "noProxy": "NO_PROXY",
        "ftpProxy": "FTP_PROXY",
        "allProxy": "ALL_PROXY",
    }
    found = {}
    for key, name in names.items():
        if chosen.get(key):
            found[name] = found[name.lower()] = str(chosen[key])
    return found
