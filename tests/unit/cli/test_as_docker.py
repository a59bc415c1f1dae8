"""Each command line twice, by the stock `docker` and by `satsuma`, against one engine: same requests, same output.

`data/commands.txt` holds one command a line.  What is not in it differs by intent: `version` and `info` speak of
another client, some errors say more, and what docker does in random order is not compared.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recording_engine import FakeEngine

DATA = Path(__file__).parent / "data"
DOCKER = shutil.which("docker")
SATSUMA = str(Path(sys.executable).parent / "satsuma")
COMMANDS = (DATA / "commands.txt").read_text(encoding="utf-8").splitlines()

pytestmark = pytest.mark.skipif(not DOCKER, reason="compares with the stock docker command line")

_SERVERS_OWN = {
    "DNSNames",
    "EndpointID",
    "Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "NetworkID",
}
"""Fields of an endpoint that only the engine fills in; docker sends them empty."""


def answers() -> dict[tuple[str, str], Any]:
    stored = json.loads((DATA / "answers.json").read_text(encoding="utf-8"))
    done = (204, b"")
    return {
        ("GET", "/containers/json"): stored["containers"],
        ("GET", "/containers/apig/json"): stored["container"],
        ("GET", "/containers/apig/top"): stored["top"],
        ("GET", "/containers/apig/changes"): [
            {"Kind": 0, "Path": "/e"},
            {"Kind": 1, "Path": "/a"},
            {"Kind": 2, "Path": "/b"},
        ],
        ("GET", "/images/json"): stored["images"],
        ("GET", "/images/bb/json"): stored["image"],
        ("GET", "/images/bb/history"): stored["history"],
        ("GET", "/networks"): stored["networks"],
        ("GET", "/networks/bridge"): stored["network"],
        ("GET", "/volumes"): stored["volumes"],
        ("GET", "/volumes/data"): stored["volumes"]["Volumes"][0],
        ("GET", "/version"): stored["version"],
        ("GET", "/info"): stored["info"],
        ("GET", "/system/df"): stored["df"],
        ("POST", "/containers/create"): (201, {"Id": "a" * 64, "Warnings": ["careful"]}),
        ("DELETE", "/containers/a"): done,
        ("POST", "/containers/a/stop"): done,
        ("POST", "/containers/a/kill"): done,
        ("POST", "/containers/a/rename"): done,
        ("POST", "/containers/a/restart"): done,
        ("POST", "/containers/a/wait"): {"StatusCode": 3},
        ("POST", "/networks/create"): (201, {"Id": "nid", "Warning": ""}),
        ("POST", "/networks/n/disconnect"): (200, b""),
        ("DELETE", "/volumes/v"): done,
        ("DELETE", "/images/bb"): [{"Untagged": "bb:latest"}, {"Deleted": "sha256:1"}],
        ("POST", "/containers/prune"): {"ContainersDeleted": ["a", "b"], "SpaceReclaimed": 1234567},
        ("POST", "/images/prune"): {
            "ImagesDeleted": [{"Untagged": "x"}, {"Deleted": "y"}],
            "SpaceReclaimed": 5,
        },
        ("POST", "/networks/prune"): {"NetworksDeleted": ["n"]},
        ("POST", "/volumes/prune"): {"VolumesDeleted": ["v"], "SpaceReclaimed": 0},
    }


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngine]:
    fake = FakeEngine(tmp_path_factory.mktemp("engine") / "s", answers())
    yield fake
    fake.close()


def run(program: str, command: str, engine: FakeEngine, home: Path) -> tuple[int, str, str, list[Any]]:
    engine.requests.clear()
    done = subprocess.run(
        [program, *shlex.split(command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=home,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "DOCKER_HOST": engine.host,
            "DOCKER_BUILDKIT": "0",
            "TZ": "UTC",
        },
    )
    requests = [(method, path, query, plain(body)) for method, path, query, body in engine.requests]
    return done.returncode, neutral(done.stdout), neutral(done.stderr), sorted(requests, key=repr)


def neutral(text: str) -> str:
    """Forget which of the two speaks, blank lines, and what is said in addition."""
    lines = text.replace("Docker", "Satsuma").replace("docker", "satsuma").split("\n")
    return "\n".join(
        line
        for line in lines
        if line.strip() and not line.startswith(("Did you mean", "  anatomy", "  bootstrap", "  check"))
    )


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if item or key not in _SERVERS_OWN}
    return value


@pytest.mark.parametrize("command", COMMANDS)
def test_same_as_docker(command: str, engine: FakeEngine, tmp_path: Path) -> None:
    assert DOCKER
    assert run(SATSUMA, command, engine, tmp_path) == run(DOCKER, command, engine, tmp_path)
