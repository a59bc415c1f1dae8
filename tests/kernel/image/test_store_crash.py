"""Killed at every step: the store opens again, nothing acknowledged is lost, and the operation can be repeated."""

import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from satsuma.base.failpoints import EXIT_STATUS
from satsuma.image import ImageService
from satsuma.store import Store, check

SOURCE = Path(__file__).parents[3] / "src" / "satsuma"
CHILD = str(Path(__file__).parent / "store_crash_child.py")
POINTS = sorted(
    {
        name
        for room in ("store", "image")
        for path in (SOURCE / room).rglob("*.py")
        for name in re.findall(r'failpoint\("([a-z.]+)"\)', path.read_text())
    }
)


def make_tar(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def child(root, operation, archive, point=None, action="exit"):
    env = {**os.environ, "SATSUMA_FAILPOINTS": f"{point}={action}" if point else ""}
    command = [sys.executable, CHILD, root, operation, archive]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def prepared(tmp_path):
    root, archive = str(tmp_path / "root"), str(tmp_path / "other.tar")
    store = Store.open(root, collect=False)
    images = ImageService(store)
    images.import_tar(make_tar("other", b"o" * 2_000_000), "other")
    Path(archive).write_bytes(b"".join(images.save(["other"])))
    images.remove("other")
    images.import_tar(make_tar("base", b"b"), "base")
    store.trash.empty()
    store.close()
    return root, archive


def audit(root, operation):
    store = Store.open(root, collect=False)
    images = ImageService(store)
    store.trash.empty()
    assert check(store, deep=True) == []
    assert images.check(deep=True) == []
    if operation != "remove":
        assert images.resolve("base").repo_tags[0] == "base:latest"
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["load", "commit", "move", "tag", "remove", "container"])
def test_killed_at_each_step(prepared, operation):
    root, archive = prepared
    hits = 0
    for point in POINTS:
        result = child(root, operation, archive, point)
        assert result.returncode in (0, EXIT_STATUS), result.stderr
        hits += result.returncode == EXIT_STATUS
        audit(root, operation)
        again = child(root, operation, archive)
        if operation == "remove":
            assert again.returncode == 0 or "No such image" in again.stderr
            store = Store.open(root, collect=False)
            ImageService(store).import_tar(make_tar("base", b"b"), "base")
            store.close()
        else:
            assert again.returncode == 0, again.stderr
        audit(root, operation)
        store = Store.open(root, collect=False)
        images = ImageService(store)
        for name in ("other", "committed", "tagged"):
            if any(f"{name}:latest" in image.repo_tags for image in images.list()):
                images.remove(name)
        store.close()
    assert hits >= 1


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["load", "commit", "remove"])
@pytest.mark.parametrize("errno", ["ENOSPC", "EIO"])
def test_disk_errors_at_each_step_leave_a_sound_store(prepared, operation, errno):
    root, archive = prepared
    for point in POINTS:
        if point == "store.trash.remove":
            continue
        child(root, operation, archive, point, f"error({errno})")
        audit(root, operation)
        store = Store.open(root, collect=False)
        images = ImageService(store)
        for name in ("other", "committed", "base"):
            if any(f"{name}:latest" in image.repo_tags for image in images.list()):
                images.remove(name, force=True)
        images.import_tar(make_tar("base", b"b"), "base")
        store.close()
