"""apt sources of the host, and what an image gets of them."""

import pytest

from satsuma.base.errors import InvalidParameter
from satsuma.image.bootstrap.debian import parse_tag
from satsuma.image.bootstrap.sources import Source, choose, format_deb822, parse_deb822, parse_list

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEB822 = f"""Types: deb
# a comment
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYRING}

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""
LIST = """deb http://one.example/debian bookworm main # the main one
deb [arch=amd64 signed-by=/k.gpg] http://two.example/debian bookworm-updates main
# deb http://three.example/debian bookworm main
deb-src http://four.example/debian bookworm main
deb https://other.example/apt stable main
"""


def test_deb822():
    assert parse_deb822(DEB822) == [
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib"), KEYRING),
        Source("http://mirror.example/debian", "bookworm-updates", ("main", "contrib"), KEYRING),
        Source("http://mirror.example/debian-security", "bookworm-security", ("main",), ""),
    ]


def test_one_line_format():
    assert parse_list(LIST) == [
        Source("http://one.example/debian", "bookworm", ("main",), ""),
        Source("http://two.example/debian", "bookworm-updates", ("main",), "/k.gpg"),
        Source("https://other.example/apt", "stable", ("main",), ""),
    ]


def test_image_gets_what_the_host_has():
    mirrors = choose(parse_deb822(DEB822), "bookworm")
    assert format_deb822(mirrors, KEYRING) == (
        f"Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n"
        f"Components: main\nSigned-By: {KEYRING}\n\n"
        f"Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n"
        f"Components: main\nSigned-By: {KEYRING}\n"
    )


def test_other_suites_come_from_the_hosts_mirror():
    mirrors = choose(parse_deb822(DEB822), "trixie")
    assert mirrors.main.uri == "http://mirror.example/debian"
    assert mirrors.security.uri == "http://mirror.example/debian-security"
    assert choose([], "sid").updates is None
    assert choose([], "trixie").main.uri == "http://deb.debian.org/debian"


def test_different_mirrors_get_stanzas_of_their_own():
    text = format_deb822(choose(parse_list(LIST), "bookworm"), KEYRING)
    assert "URIs: http://one.example/debian\nSuites: bookworm\n" in text
    assert "URIs: http://two.example/debian\nSuites: bookworm-updates\n" in text


@pytest.mark.parametrize(
    ("tag", "wanted"),
    [
        ("bookworm", ("bookworm", False)),
        ("bookworm-slim", ("bookworm", True)),
        ("12-slim", ("bookworm", True)),
        ("latest", ("stable", False)),
    ],
)
def test_tags(tag, wanted):
    assert parse_tag(tag) == wanted


@pytest.mark.parametrize("tag", ["bookworm-20250101", "bookworm-slim-x", "9", "a.b", "Bookworm", "x_y"])
def test_tags_that_are_no_suites(tag):
    with pytest.raises(InvalidParameter):
        parse_tag(tag)
