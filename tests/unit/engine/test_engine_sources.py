"""Propagation of binds: only what the source's own mount can keep."""

from __future__ import annotations

import pytest

from satsuma.base.errors import System
from satsuma.container.mounts import MountPoint
from satsuma.engine import sources
from satsuma.linux import mountinfo

HOST = b"""21 1 8:1 / / rw - ext4 /dev/sda rw
22 21 8:2 / /shared rw shared:1 - ext4 /dev/sdb rw
23 21 8:3 / /slave rw master:1 - ext4 /dev/sdc rw
24 21 8:4 / /sharedx rw - ext4 /dev/sdd rw
25 22 8:5 / /shared rw - ext4 /dev/sde rw
26 22 8:5 / /shared/deep rw shared:7 - ext4 /dev/sde rw
"""


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.mountinfo, "read", lambda: mountinfo.parse(HOST))


@pytest.mark.parametrize(
    ("path", "propagation"),
    [
        ("/x", "rprivate"),
        ("/x", ""),
        ("/shared/deep", "shared"),
        ("/slave/d", "rslave"),
        ("/shared/deep/a", "slave"),
    ],
)
def test_what_the_mount_can_keep(path: str, propagation: str) -> None:
    sources.check_propagation(MountPoint(type="bind", destination="/d", source=path, propagation=propagation))


@pytest.mark.parametrize(
    ("path", "propagation", "words"),
    [
        ("/x", "rshared", "path /x is mounted on / but it is not a shared mount"),
        ("/sharedx", "shared", "path /sharedx is mounted on /sharedx but it is not a shared mount"),
        ("/shared", "shared", "path /shared is mounted on /shared but it is not a shared mount"),
        ("/slave", "shared", "path /slave is mounted on /slave but it is not a shared mount"),
        ("/x", "slave", "path /x is mounted on / but it is not a shared or slave mount"),
    ],
)
def test_what_it_cannot(path: str, propagation: str, words: str) -> None:
    point = MountPoint(type="bind", destination="/d", source=path, propagation=propagation)
    with pytest.raises(System, match=words):
        sources.check_propagation(point)
