"""Image references: `[domain/]path[:tag][@digest]`, and what Docker makes of short ones.

Owns parsing, normalisation and the familiar form.  Must not know whether such an image exists.

    busybox            → docker.io/library/busybox:latest
    me/app:1           → docker.io/me/app:1
    localhost:5000/app → localhost:5000/app:latest

Source: distribution/reference (regexp.go, normalize.go); limits of the same package.
"""

from __future__ import annotations

import re

from satsuma.base.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _Fields(NamedTuple):
        domain: str
        path: str
        tag: str
        digest: str
else:
    from collections import namedtuple

    _Fields = namedtuple("_Fields", "domain path tag digest")

DEFAULT_DOMAIN = "docker.io"
_OFFICIAL = "library"
_LEGACY_DOMAIN = "index.docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"((?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::({_TAG}))?(?:@({_DIGEST}))?", re.ASCII
)
_ANCHORED_NAME = re.compile(rf"(?:({_DOMAIN})/)?({_COMPONENT}(?:/{_COMPONENT})*)", re.ASCII)
_TAG_PATTERN = re.compile(_TAG, re.ASCII)
_HEX_ID = re.compile(r"[a-f0-9]{64}", re.ASCII)
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_MAX_INPUT = 1024


class Reference(_Fields):
    """A normalised reference; `tag` and `digest` are empty when absent."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Domain and path: what the registry protocol and the tag table use."""
        return f"{self.domain}/{self.path}"

    def familiar_name(self) -> str:
        """Return the name as people write it: `busybox`, not `docker.io/library/busybox`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        first, slash, rest = self.path.partition("/")
        return rest if slash and first == _OFFICIAL and "/" not in rest else self.path

    def familiar(self) -> str:
        """Return the whole reference in the form that Docker shows."""
        return self.familiar_name() + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """Return the reference with `latest` when it has neither tag nor digest."""
        return self if self.tag or self.digest else Reference(self.domain, self.path, DEFAULT_TAG, "")

    def with_tag(self, tag: str) -> Reference:
        """Return the same name with *tag* and without a digest.

        Raises:
            InvalidParameter: not a tag.
        """
        return Reference(self.domain, self.path, check_tag(tag), "")


def check_tag(tag: str) -> str:
    """Return *tag* if it is one.

    Raises:
        InvalidParameter: `invalid tag format`.
    """
    if not _TAG_PATTERN.fullmatch(tag):
        raise InvalidParameter("invalid tag format")
    return tag


def parse(text: str) -> Reference:
    """Parse a reference as people write it; no tag is added (see `with_default_tag`).

    Raises:
        InvalidParameter: in Docker's words.
    """
    if _HEX_ID.fullmatch(text):
        raise InvalidParameter(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, remainder = _split_domain(text)
    remote = remainder.partition(":")[0]
    if remote.lower() != remote:
        raise InvalidParameter(f"invalid reference format: repository name ({remote}) must be lowercase")
    return _parse_full(f"{domain}/{remainder}")


def _split_domain(text: str) -> tuple[str, str]:
    """Split off the domain as Docker guesses it: a first part with "." or ":", `localhost`, or capitals."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        domain, remainder = DEFAULT_DOMAIN if first == _LEGACY_DOMAIN else first, rest
    else:
        domain, remainder = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = f"{_OFFICIAL}/{remainder}"
    return domain, remainder


def _parse_full(full: str) -> Reference:
    match = _REFERENCE.fullmatch(full) if len(full) <= _MAX_INPUT else None
    if match is None:
        raise InvalidParameter("invalid reference format")
    name, tag, digest = match.groups(default="")
    parts = _ANCHORED_NAME.fullmatch(name)
    if parts is None or not parts[1]:
        raise InvalidParameter("invalid reference format")
    domain, path = parts.groups()
    # The limit is on the path since distribution/reference 0.6.
    if len(path) > MAX_NAME:
        raise InvalidParameter(f"repository name must not be more than {MAX_NAME} characters")
    if digest:
        algorithm, _, encoded = digest.partition(":")
        if algorithm not in _DIGEST_LENGTHS:
            raise InvalidParameter("unsupported digest algorithm")
        if len(encoded) != _DIGEST_LENGTHS[algorithm] or encoded.lower() != encoded:
            raise InvalidParameter("invalid checksum digest length")
    return Reference(domain, path, tag, digest)
