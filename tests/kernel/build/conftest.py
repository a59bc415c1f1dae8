"""A builder for each test."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from build_lab import Lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    built = Lab(tmp_path / "data")
    yield built
    try:
        assert built.left_behind() == []
    finally:
        built.close()
