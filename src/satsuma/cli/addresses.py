"""Addresses as texts: check and canonical form, without the import of `ipaddress`."""

from __future__ import annotations

import socket


def canonical_ip(text: str) -> str | None:
    """Return the canonical form of an IPv4 or IPv6 address, None if it is neither."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return socket.inet_ntop(family, packed)
    return None


def parse_mac(text: str) -> str | None:
    """Return a 48-bit hardware address in its canonical form, None if it is none.

    Go takes `aa:bb:…`, `aa-bb-…` and `aabb.ccdd.eeff`.
    """
    text = text.strip()
    if "." in text:
        groups, width = text.split("."), 4
    else:
        groups, width = text.replace("-", ":").split(":"), 2
        if ":" in text and "-" in text:
            return None
    digits = "".join(groups).lower()
    if len(digits) not in (12, 16, 40) or any(len(group) != width for group in groups):
        return None
    if set(digits) - set("0123456789abcdef"):
        return None
    return ":".join(digits[index : index + 2] for index in range(0, len(digits), 2))
