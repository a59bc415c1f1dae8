"""Every hostile layer: nothing outside of the tree is touched, and the outcome is Docker's."""

import io
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import layer_corpus

from satsuma.base.errors import EngineError, InvalidParameter
from satsuma.image import ImageService
from satsuma.store import Store, check

SENTINEL = "/tmp/satsuma-corpus-sentinel"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    store = Store.open(str(tmp_path_factory.mktemp("corpus") / "root"), collect=False)
    yield ImageService(store)
    store.close()


@pytest.fixture
def sentinel():
    os.makedirs(SENTINEL, exist_ok=True)
    victim = f"{SENTINEL}/victim"
    with open(victim, "w") as file:
        file.write("innocent")
    os.chmod(victim, 0o600)
    yield
    assert os.listdir(SENTINEL) == ["victim"]
    assert open(victim).read() == "innocent"
    assert os.stat(victim).st_mode & 0o777 == 0o600
    assert os.stat(victim).st_nlink == 1
    os.unlink(victim)
    os.rmdir(SENTINEL)


@pytest.mark.parametrize("name", layer_corpus.cases(SENTINEL))
def test_case(images, sentinel, name):
    layers, loads, kept, extra = layer_corpus.cases(SENTINEL)[name]
    data = layer_corpus.archive(name, layers)
    if not loads:
        before = set(images.catalog.ids())
        with pytest.raises(InvalidParameter) as error:
            images.load(io.BytesIO(data), lambda message: None)
        assert str(error.value).startswith("Error processing tar file: ")
        assert set(images.catalog.ids()) == before
        return
    (image,) = images.load(io.BytesIO(data), lambda message: None)
    with images.store.snapshots.view(image.chain_ids) as root:
        if kept is not None:
            assert {p for p in layer_corpus.ALL if _there(root, p)} == kept
        for path in extra:
            assert root.lstat(path)
    assert b"".join(images.save([f"sectest:{name}"]))
    assert images.check(deep=True) == []
    images.remove(f"sectest:{name}")
    images.store.trash.empty()
    assert check(images.store) == []


def _there(root, path):
    try:
        root.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def test_capabilities_owner_and_setuid_survive(images, sentinel):
    for name in ("xattr-caps", "setuid", "huge-uid"):
        layers = layer_corpus.cases(SENTINEL)[name][0]
        images.load(io.BytesIO(layer_corpus.archive(name, layers)), lambda message: None)
    with images.store.snapshots.view(images.resolve("sectest:xattr-caps").chain_ids) as root:
        assert root.getxattr("bin/capfile", "security.capability") == layer_corpus.CAPABILITY.encode()
    with images.store.snapshots.view(images.resolve("sectest:setuid").chain_ids) as root:
        assert root.stat("bin/suid").st_mode & 0o7777 == 0o4755
    with images.store.snapshots.view(images.resolve("sectest:huge-uid").chain_ids) as root:
        assert root.stat("u").st_uid == 2**31 + 5
    for name in ("xattr-caps", "setuid", "huge-uid"):
        images.remove(f"sectest:{name}")


def test_truncated_archives_leave_nothing(images):
    data = layer_corpus.archive("cut", [[layer_corpus.member("x", data=b"x" * 3000)]])
    for end in range(0, data.index(b'[{"Config"'), 1024):
        with pytest.raises(EngineError):
            images.load(io.BytesIO(data[:end]), lambda message: None)
    images.store.trash.empty()
    assert check(images.store) == []


def test_deep_directories_can_be_loaded_and_removed(images):
    entries = [layer_corpus.member("/".join(["d"] * 1500) + "/f", data=b"x")]
    (image,) = images.load(io.BytesIO(layer_corpus.archive("deep", [entries])), lambda message: None)
    with images.store.snapshots.view(image.chain_ids) as root:
        assert root.read_file("/".join(["d"] * 1500) + "/f") == b"x"
    images.remove("sectest:deep")
    assert images.store.trash.empty() == 0
