"""What the program costs before it does anything: imports, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recording_engine import FakeEngine

SATSUMA = str(Path(sys.executable).parent / "satsuma")

# `--help` and `ps` may import these and what the interpreter itself has loaded by then; see the import budgets of the
# house style.  A new name here costs every user milliseconds at every command.
_BARE_HELP = {"satsuma", "satsuma.cli", "satsuma.wire", "__future__"}
_HELP = _BARE_HELP | {
    f"satsuma.cli.{name}" for name in ("main", "errors", "catalog", "flags", "flagtable", "help")
} | {"satsuma.wire.goquote"}  # fmt: skip
_PS = {
    *_HELP - {"satsuma.cli.help"},
    *(
        f"satsuma.cli.{name}"
        for name in (
            "session",
            "config",
            "endpoint",
            "client",
            "transport",
            "containers",
            "formatting",
            "tables",
        )
    ),
    *(f"satsuma.wire.{name}" for name in ("http", "http_client")),
    *("satsuma.base", "satsuma.base.sizes"),
}
_STANDARD = {
    *(
        "socket",
        "_socket",
        "selectors",
        "select",
        "math",
        "errno",
        "array",
        "enum",
        "types",
        "operator",
        "_operator",
    ),
    *(
        "functools",
        "_functools",
        "collections",
        "itertools",
        "keyword",
        "reprlib",
        "_collections",
        "copyreg",
        "re",
    ),
    *(
        "re._casefix",
        "re._compiler",
        "re._constants",
        "re._parser",
        "_sre",
        "json",
        "json.decoder",
        "json.encoder",
    ),
    *("json.scanner", "_json", "_collections_abc", "collections.abc", "importlib", "importlib._bootstrap"),
    *("importlib._bootstrap_external", "importlib.abc", "warnings", "_weakref", "time"),
}


def loaded(arguments: list[str], environment: dict[str, str]) -> set[str]:
    """Return the modules that a command has loaded beyond those of the bare interpreter."""
    program = (
        "import os, sys\n"  # the interpreter itself loads `os`, by way of `site`
        "bare = set(sys.modules)\n"
        "from satsuma.cli.main import main\n"
        f"main({arguments!r})\n"
        "sys.stdout.flush()\n"
        "found = set(sys.modules) - bare; import json; sys.stderr.write(json.dumps(sorted(found)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}


def test_help_imports_nearly_nothing(environment: dict[str, str]) -> None:
    assert loaded(["--help"], environment) <= _HELP | {"keyword"}


def test_listing_containers_imports_little(environment: dict[str, str], tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "s", {("GET", "/containers/json"): []})
    found = loaded(["ps"], environment | {"DOCKER_HOST": engine.host})
    engine.close()
    assert found - _PS <= _STANDARD, sorted(found - _PS - _STANDARD)


@pytest.mark.parametrize(
    "name", ["typing", "dataclasses", "logging", "asyncio", "argparse", "subprocess", "pathlib"]
)
def test_no_command_imports_what_is_dear(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    """All of the program's own modules at once, the most that any command could load."""
    rooms = Path(__file__).parents[3] / "src/satsuma/cli"
    modules = [f"satsuma.cli.{file.stem}" for file in rooms.glob("*.py") if file.stem != "__init__"]
    program = f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\nprint({name!r} in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_a_reader_that_leaves_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{SATSUMA} --help | head -1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert "Traceback" not in done.stderr and done.stdout.splitlines()[0].startswith("Usage:")


def test_no_engine_is_a_clear_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [SATSUMA, "-H", f"unix://{tmp_path}/none", "ps"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == f"Cannot connect to the Satsuma daemon at unix://{tmp_path}/none. Is the satsumad daemon running?\n"
    )


def test_debugging_shows_requests(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "s", {("GET", "/containers/json"): []})
    done = subprocess.run(
        [SATSUMA, "-D", "-H", engine.host, "ps"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    engine.close()
    assert "DEBUG GET /v1.50/containers/json" in done.stderr and "-> 200" in done.stderr
