"""Content: what is under a digest is whole, and nothing else ever is."""

import hashlib
import os

import pytest

from satsuma.base.errors import InvalidParameter, NotFound
from satsuma.store.content import ContentStore


@pytest.fixture
def content(tmp_path):
    return ContentStore(str(tmp_path / "content"))


def test_blob_comes_back(content):
    with content.ingest("a/b c") as writer:
        writer.write(b"hello ")
        writer.write(b"world")
        digest = writer.commit(size=11)
    assert digest == "sha256:" + hashlib.sha256(b"hello world").hexdigest()
    assert content.read(digest, 100) == b"hello world"
    assert list(content.walk()) == [(digest, 11)]
    assert os.stat(content.path(digest)).st_mode & 0o777 == 0o444
    assert content.leftovers() == []


def test_wrong_digest_or_size_leaves_nothing(content):
    for promise in ({"digest": "sha256:" + "0" * 64}, {"size": 3}):
        with pytest.raises(InvalidParameter), content.ingest() as writer:
            writer.write(b"data")
            writer.commit(**promise)
    assert list(content.walk()) == []
    assert content.leftovers() == []


def test_same_blob_twice_is_one_blob(content):
    assert content.add(b"x") == content.add(b"x")
    assert len(list(content.walk())) == 1


@pytest.mark.parametrize("digest", ["sha256:../../x", "sha256:" + "A" * 64, "md5:" + "a" * 32, "", "a" * 64])
def test_no_path_is_built_from_what_is_no_digest(content, digest):
    with pytest.raises(InvalidParameter):
        content.path(digest)


def test_absent_blob(content):
    absent = "sha256:" + "0" * 64
    assert not content.has(absent)
    assert not content.delete(absent)
    with pytest.raises(NotFound):
        content.open(absent)


def test_clean_removes_unfinished_blobs(content):
    writer = content.ingest("left")
    writer.write(b"half")
    assert content.clean() == 1
    assert content.leftovers() == []
    writer.close()


def test_read_is_limited(content):
    digest = content.add(b"12345")
    with pytest.raises(InvalidParameter):
        content.read(digest, 4)
