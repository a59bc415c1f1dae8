"""Documents of image archives, hostile ones above all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.base.errors import InvalidParameter
from satsuma.wire.docker_archive import ArchivedImage, clean_name, parse_archive

PLATFORM = ("linux", "amd64", "")
D = "sha256:" + "d" * 64
BLOB = "blobs/sha256/" + "d" * 64
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": D}


def parse(**members):
    encoded = {
        name.replace("__", "/").replace("_", "."): json.dumps(v).encode() for name, v in members.items()
    }
    encoded.update({k: json.dumps(v).encode() for k, v in members.get("blobs", {}).items()})
    return parse_archive(encoded.get, PLATFORM)


def test_docker_manifest():
    items = [
        {"Config": "./c.json", "RepoTags": ["a:1"], "Layers": ["x//layer.tar"]},
        {"Config": "d", "Layers": None},
    ]
    assert parse(manifest_json=items) == [
        ArchivedImage("c.json", ["x/layer.tar"], ["a:1"]),
        ArchivedImage("d", [], []),
    ]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", ".", None, 7, "a\0b", ["x"]])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(InvalidParameter):
        clean_name(name)


def test_neither_document_is_no_archive():
    with pytest.raises(InvalidParameter, match="does not contain a manifest"):
        parse_archive(lambda name: None, PLATFORM)


def test_index_chooses_the_platform():
    other = "sha256:" + "e" * 64
    manifest = {"config": CONFIG, "layers": [{"digest": D}]}
    inner = {
        "manifests": [
            {"mediaType": IMAGE, "digest": other, "platform": {"os": "linux", "architecture": "arm64"}},
            {"mediaType": IMAGE, "digest": D, "platform": {"os": "linux", "architecture": "amd64"}},
        ]
    }
    third = "sha256:" + "f" * 64
    found = parse(
        index_json={"manifests": [{"mediaType": INDEX, "digest": third}]},
        blobs={f"blobs/sha256/{'f' * 64}": inner, BLOB: manifest},
    )
    assert found == [ArchivedImage(BLOB, [BLOB], [])]


def test_index_that_holds_itself_is_refused():
    loop = {"mediaType": INDEX, "manifests": [{"mediaType": INDEX, "digest": D}]}
    with pytest.raises(InvalidParameter, match="nested"):
        parse(index_json=loop, blobs={BLOB: loop})


def test_artifacts_are_no_images():
    manifest = {"config": {"mediaType": "application/x", "digest": D}, "layers": []}
    with pytest.raises(InvalidParameter, match="no image"):
        parse(index_json={"manifests": [{"mediaType": IMAGE, "digest": D}]}, blobs={BLOB: manifest})


@pytest.mark.parametrize("digest", ["sha256:../../x", "md5:" + "a" * 32, None, 7, "sha256:" + "A" * 64])
def test_digests_are_checked_before_they_become_names(digest):
    with pytest.raises(InvalidParameter):
        parse(index_json={"manifests": [{"mediaType": IMAGE, "digest": digest}]})


def test_duplicate_keys_are_refused():
    raw = b'[{"Config":"a","Config":"b"}]'
    with pytest.raises(InvalidParameter, match="duplicate"):
        parse_archive(lambda name: raw if name == "manifest.json" else None, PLATFORM)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(D),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Config", "Layers", "RepoTags", "manifests", "layers", "config", "digest", "mediaType"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(["manifest.json", "index.json"]), values, values)
def test_any_json_gives_an_answer_or_the_declared_error(name, document, blob):
    members = {name: json.dumps(document).encode(), BLOB: json.dumps(blob).encode()}
    try:
        parse_archive(members.get, PLATFORM)
    except InvalidParameter:
        pass
