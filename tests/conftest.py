"""Fixtures that all tests share; what needs root says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hypothesis import settings

import harness
from satsuma.runtime import seal

# No test may fail because the machine is slow: hypothesis's deadline is a timing test.
settings.register_profile("satsuma", deadline=None)
settings.load_profile("satsuma")

ROOT_FOLDERS = ("kernel", "blackbox", "tutorial", "conformance", "vm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of the folders that need root; skip them where there is none."""
    base = Path(__file__).parent
    skip = pytest.mark.skip(reason="needs root: namespaces, mounts, cgroups")
    for item in items:
        parts = item.path.relative_to(base).parts if item.path.is_relative_to(base) else ()
        if parts and parts[0] in ROOT_FOLDERS:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def no_bound_interpreter() -> Iterator[None]:
    """The first call of satsuma-oci as root binds its interpreter until the next boot: not for tests."""
    place = Path(seal.PLACE)
    was_there = seal.PLACE in Path("/proc/self/mounts").read_text()
    yield
    if os.geteuid() == 0 and not was_there and place.exists():
        subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL)
        place.unlink()
        place.parent.rmdir()


@pytest.fixture(scope="session")
def daemon() -> Iterator[harness.Daemon]:
    """One engine for the whole run, with the image `busybox:latest` on it."""
    with harness.private_daemon() as running:
        harness.bootstrap_busybox(running)
        yield running


@pytest.fixture(params=harness.clients())
def client(request: pytest.FixtureRequest, daemon: harness.Daemon) -> harness.Client:
    """Each command line in turn, on the shared engine."""
    return harness.Client(request.param, daemon)


@pytest.fixture
def satsuma(daemon: harness.Daemon) -> harness.Client:
    """Our own command line on the shared engine."""
    return harness.Client("satsuma", daemon)
