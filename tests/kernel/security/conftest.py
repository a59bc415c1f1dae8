from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from security_lab import Bundles, Images, Sentinel

import harness
from satsuma.linux.cgroup import Cgroup


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Sentinel]:
    """A tree of the host that must be the same after the test."""
    tree = Sentinel(tmp_path / "sentinel")
    yield tree
    tree.assert_intact()


@pytest.fixture(scope="session")
def images(daemon: harness.Daemon, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Makes images on the shared engine."""
    return Images(harness.Client("satsuma", daemon), tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundles]:
    """Makes bundles for satsuma-oci."""
    made = Bundles(tmp_path_factory.mktemp("bundles"))
    yield made
    Cgroup(f"/{made.prefix}").remove()
