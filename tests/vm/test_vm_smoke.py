"""Limits bind in a unified tree with every controller: a few tests of each kind, in a virtual machine."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import machine
import suite


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_limits_bind_in_version_2() -> None:
    try:
        result = suite.run("smoke")
    except machine.Unavailable as error:
        pytest.skip(f"no virtual machine: {error}")
    assert result.status == 0, f"{result.output}\n{result.console}"
    passed = re.search(r"(\d+) passed", result.output)
    assert passed is not None and int(passed[1]) >= 10, result.output
