"""A builder for each test."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from build_lab import Lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    # As in the daemon: nothing that ends up in an image may depend on it.
    before = os.umask(0o077)
    built = Lab(tmp_path / "data")
    try:
        yield built
        assert built.left_behind() == []
    finally:
        built.close()
        os.umask(before)
