"""Fixtures: a launcher in directories of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import monitor_host


@pytest.fixture
async def host():
    async with monitor_host.open_host(monitor_host.FAKE_COMMAND) as value:
        yield value
