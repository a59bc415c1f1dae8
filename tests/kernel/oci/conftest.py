from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oci_lab import RUNC, Runtime, pair


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Runtime]:
    """Our runtime with a bundle of its own."""
    made = Runtime(tmp_path)
    yield made
    made.close()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Runtime, Runtime]]:
    """Our runtime and runc on one bundle."""
    if RUNC is None:
        pytest.skip("runc is not installed: nothing to compare with")
    made = pair(tmp_path)
    yield made
    for runtime in made:
        runtime.close()
