"""Image references, against the table of distribution/reference."""

import pytest

from satsuma.base.errors import InvalidParameter
from satsuma.wire import reference

DIGEST = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("me/app", "docker.io/me/app", "me/app"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox:x", "docker.io/library/busybox:x", "busybox:x"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("Host/app", "Host/app", "Host/app"),
        ("[::1]:5000/a/b", "[::1]:5000/a/b", "[::1]:5000/a/b"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"r.io/a/b:t@{DIGEST}", f"r.io/a/b:t@{DIGEST}", f"r.io/a/b:t@{DIGEST}"),
        ("docker.io/library/x/y", "docker.io/library/x/y", "library/x/y"),
        ("a__b/c-d--e/f.g", "docker.io/a__b/c-d--e/f.g", "a__b/c-d--e/f.g"),
        ("sha256:abc", "docker.io/library/sha256:abc", "sha256:abc"),
    ],
)
def test_normalises_as_docker_does(text, full, familiar):
    parsed = reference.parse(text)
    assert str(parsed) == full
    assert parsed.familiar() == familiar
    assert reference.parse(full) == parsed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:b c", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("../x", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("busybox:" + "t" * 129, "invalid reference format"),
        ("x" * 5000, "invalid reference format"),
        ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
        ("me/App:1", "invalid reference format: repository name (me/App) must be lowercase"),
        ("a" * 64, "invalid repository name (" + "a" * 64 + "), cannot specify 64-byte hexadecimal strings"),
        ("b/" + "a" * 256, "repository name must not be more than 255 characters"),
        ("a@sha256:" + "a" * 40, "invalid checksum digest length"),
        ("a@md5:" + "a" * 32, "unsupported digest algorithm"),
    ],
)
def test_refuses_in_dockers_words(text, message):
    with pytest.raises(InvalidParameter) as error:
        reference.parse(text)
    assert str(error.value) == message


def test_default_tag_is_added_only_when_nothing_else_is_there():
    assert reference.parse("a").with_default_tag().tag == "latest"
    assert reference.parse("a:1").with_default_tag().tag == "1"
    assert reference.parse(f"a@{DIGEST}").with_default_tag().tag == ""


def test_with_tag_refuses_what_is_no_tag():
    with pytest.raises(InvalidParameter, match="invalid tag format"):
        reference.parse("a").with_tag("no/tag")
