"""A network service with names of its own, which leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from network_lab import Namespaces, Rows, new_service, settled

from satsuma.network import NetworkOptions, NetworkService


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kernel/network" in str(item.path):
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    made = Namespaces()
    yield made
    made.close()


@pytest.fixture
def options(tmp_path: os.PathLike[str]) -> NetworkOptions:
    return NetworkOptions(
        exec_root=str(tmp_path), bridge=f"stt{os.getpid() % 100000}", pool_size=2, bip="10.213.0.1/24"
    )


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
async def service(
    namespaces: Namespaces, options: NetworkOptions, rows: Rows
) -> AsyncIterator[NetworkService]:
    made = new_service(rows, options)
    await made.open()
    await made.recover({}, lambda container_id: None)
    yield made
    for container_id in list(made._live):
        await made.release(container_id)
    assert await made.close()
    assert await settled(made) == set(), "links or the table are left"
