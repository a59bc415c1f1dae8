"""The OCI runtime-tools validation suite on satsuma-oci, where the suite is at hand.

`scripts/oci-conformance --help` tells how to build it; SATSUMA_OCI_SUITE names its folder.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
EXPECTED: dict[str, dict[str, int]] = json.loads(Path(__file__).with_name("expected.json").read_text())
SUITE = os.environ.get("SATSUMA_OCI_SUITE", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not SUITE,
        reason="SATSUMA_OCI_SUITE does not name a folder with the built runtime-tools validation suite",
    ),
]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """What each program of the suite says about satsuma-oci."""
    path = tmp_path_factory.mktemp("conformance") / "outcome.json"
    command = [str(PROJECT / "scripts/oci-conformance"), SUITE, "--save", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert path.exists(), done.stderr
    return json.loads(path.read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("program", [name for name, entry in EXPECTED.items() if entry["pass"]])
def test_program_passes(outcome: dict[str, dict[str, int]], program: str) -> None:
    assert outcome[program]["pass"], outcome[program]


def test_no_program_is_worse_than_before(outcome: dict[str, dict[str, int]]) -> None:
    worse = {name: entry for name, entry in outcome.items() if entry["not_ok"] > EXPECTED[name]["not_ok"]}
    assert not worse
