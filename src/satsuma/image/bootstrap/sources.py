"""Where this host gets Debian packages from: apt's lists, parsed.

Owns the two formats of apt sources, one-line and deb822, as pure functions.

Source: sources.list(5).
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

DEFAULT_MIRROR = "http://deb.debian.org/debian"
DEFAULT_SECURITY = "http://deb.debian.org/debian-security"
DEFAULT_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MAX_FILE = 1 << 20


class Source(NamedTuple):
    """One repository that apt may use."""

    uri: str
    suite: str
    components: tuple[str, ...]
    keyring: str = ""


class Mirrors(NamedTuple):
    """What a Debian image of one suite is made from and updated from."""

    main: Source
    updates: Source | None
    security: Source | None


def read_host_sources(etc: str = "/etc/apt") -> list[Source]:
    """Return the repositories configured on the host."""
    found: list[Source] = []
    names = ["sources.list"]
    directory = f"{etc}/sources.list.d"
    if os.path.isdir(directory):
        names += [f"sources.list.d/{name}" for name in sorted(os.listdir(directory))]
    for name in names:
        try:
            with open(f"{etc}/{name}", encoding="utf-8", errors="replace") as file:
                text = file.read(_MAX_FILE)
        except OSError:
            continue
        if name.endswith(".list"):
            found += parse_list(text)
        elif name.endswith(".sources"):
            found += parse_deb822(text)
    return found


def parse_list(text: str) -> list[Source]:
    """Parse the one-line format: `deb [options] uri suite component…`."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)(?:#.*)?", line)
        if match is None:
            continue
        options, uri, suite, components = match.groups(default="")
        keyring = ""
        for option in options.split():
            key, _, value = option.partition("=")
            if key.lower() == "signed-by" and value.startswith("/"):
                keyring = value.split(",")[0]
        found.append(Source(uri.rstrip("/"), suite, tuple(components.split()), keyring))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Parse stanzas with `Types`, `URIs`, `Suites`, `Components` and `Signed-By`."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                if last:
                    fields[last] += "\n" + line.strip()
                continue
            key, colon, value = line.partition(":")
            if colon:
                last = key.strip().lower()
                fields[last] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        # Signed-By may also hold the key itself.
        keyring = fields.get("signed-by", "")
        keyring = keyring.split()[0] if keyring.startswith("/") else ""
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                found.append(
                    Source(uri.rstrip("/"), suite, tuple(fields.get("components", "").split()), keyring)
                )
    return found


def choose(sources: list[Source], suite: str) -> Mirrors:
    """Choose the host's mirrors for *suite*; where it has none, mirrors it has for other suites of Debian."""
    main = _find(sources, suite, "main")
    updates = _find(sources, f"{suite}-updates", "main")
    security = _find(sources, f"{suite}-security", "main")
    if main is None:
        uri = next((s.uri for s in sources if _is_debian(s) and "-" not in s.suite), DEFAULT_MIRROR)
        main = Source(uri, suite, ("main",))
        security_uri = next(
            (s.uri for s in sources if s.suite.endswith("-security") and "debian" in s.uri), DEFAULT_SECURITY
        )
        if suite not in ("sid", "unstable"):
            updates = Source(uri, f"{suite}-updates", ("main",))
            security = Source(security_uri, f"{suite}-security", ("main",))
    return Mirrors(main, updates, security)


def _is_debian(source: Source) -> bool:
    return source.uri.rstrip("/").endswith("/debian") and "main" in source.components


def _find(sources: list[Source], suite: str, component: str) -> Source | None:
    return next(
        (s for s in sources if s.suite == suite and component in s.components and "debian" in s.uri), None
    )


def format_deb822(mirrors: Mirrors, keyring: str) -> str:
    """Return the `debian.sources` of the image, in the form of the official images."""
    stanzas = []
    suites = mirrors.main.suite
    if mirrors.updates is not None and mirrors.updates.uri == mirrors.main.uri:
        suites += f" {mirrors.updates.suite}"
    elif mirrors.updates is not None:
        stanzas.append(_stanza(mirrors.updates.uri, mirrors.updates.suite, keyring))
    stanzas.insert(0, _stanza(mirrors.main.uri, suites, keyring))
    if mirrors.security is not None:
        stanzas.append(_stanza(mirrors.security.uri, mirrors.security.suite, keyring))
    return "\n".join(stanzas)


def _stanza(uri: str, suites: str, keyring: str) -> str:
    return f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {keyring}\n"
