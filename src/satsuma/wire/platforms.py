"""Platform names: `linux/arm64/v8`, `arm64`, `linux`, as clients write them.

Source: containerd/platforms platforms.go (`Parse`), database.go.
"""

from __future__ import annotations

import os
from collections import namedtuple

from satsuma.base.errors import InvalidParameter

__all__ = ["Platform", "host_architecture", "parse"]

_SYSTEMS = frozenset(
    "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows "
    "zos".split()
)
_ARCHITECTURES = frozenset(
    "386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 "
    "mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm".split()
)
_OTHER_NAMES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
}
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")

Platform = namedtuple("Platform", "os architecture variant")


def host_architecture() -> str:
    """Return this machine's architecture by its Go name."""
    machine = os.uname().machine
    return _OTHER_NAMES.get(machine, (machine, ""))[0]


def parse(text: str) -> Platform:
    """Parse a platform; what is left out is the host's.

    Raises:
        InvalidParameter: `"foo": unknown operating system or architecture: invalid argument`, and its kin.
    """
    parts = text.split("/")
    if len(parts) > 3:
        raise InvalidParameter(f'"{text}": cannot parse platform specifier: invalid argument')
    for part in parts:
        if not part or not _LETTERS.issuperset(part):
            raise InvalidParameter(
                f'"{part}" is an invalid component of "{text}": platform specifier component must match '
                '"^[A-Za-z0-9_-]+$": invalid argument'
            )
    system, given = parts[0].lower(), [part.lower() for part in parts[1:]]
    if given:
        return Platform(system, *_architecture(*given))
    if system in _SYSTEMS:
        return Platform(system, host_architecture(), "")
    architecture, variant = _architecture(system)
    if architecture in _ARCHITECTURES:
        return Platform("linux", architecture, variant)
    raise InvalidParameter(f'"{text}": unknown operating system or architecture: invalid argument')


def _architecture(name: str, variant: str = "") -> tuple[str, str]:
    name, usual = _OTHER_NAMES.get(name, (name, "v7" if name == "arm" else ""))
    variant = variant or usual
    if (name == "arm64" and variant in ("8", "v8")) or (name == "amd64" and variant == "v1"):
        variant = ""
    if name == "arm" and variant in ("5", "6", "7", "8"):
        variant = f"v{variant}"
    return name, variant
