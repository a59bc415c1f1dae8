"""Changesets: how a layer's tar says "deleted", and how overlayfs says it.

Owns the names `.wh.*` and overlay's extended attributes.  Must not know files.

    tar                          overlay directory
    dir/.wh.name                 dir/name, a character device 0:0
    dir/.wh..wh..opq             dir with trusted.overlay.opaque=y

Source: image-spec layer.md "Whiteouts"; overlayfs.rst "whiteouts and opaque directories"; moby pkg/archive
archive_linux.go.
"""

from __future__ import annotations

WHITEOUT_PREFIX = b".wh."
META_PREFIX = b".wh..wh."
OPAQUE_NAME = b".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
OPAQUE_VALUE = b"y"
CAPABILITY_XATTR = "security.capability"


class ChangesetError(ValueError):
    """An entry that no layer may have."""


def whiteout_target(name: bytes) -> bytes | None:
    """Return the name that a last component `.wh.x` deletes, or None if it is an ordinary name.

    AUFS' own entries (`.wh..wh.plnk` …) are ordinary names, as for Docker; the opaque mark is asked for first.

    Raises:
        ChangesetError: it would delete the directory itself, its parent, or nothing.
    """
    if not name.startswith(WHITEOUT_PREFIX) or name.startswith(META_PREFIX):
        return None
    target = name[len(WHITEOUT_PREFIX) :]
    if target in (b"", b".", b".."):
        raise ChangesetError(f"invalid whiteout {name.decode('ascii', 'replace')!r}")
    return target


def whiteout_name(name: bytes) -> bytes:
    """Return the tar name that deletes *name* (a path or a last component)."""
    parent, slash, base = name.rpartition(b"/")
    return parent + slash + WHITEOUT_PREFIX + base


def opaque_name(directory: bytes) -> bytes:
    """Return the tar name that makes *directory* opaque."""
    return directory.rstrip(b"/") + b"/" + OPAQUE_NAME if directory.rstrip(b"/") else OPAQUE_NAME


def keeps_xattr(name: bytes) -> bool:
    """Tell whether an attribute of a foreign layer may be set on a file of ours.

    `trusted.*` would let a layer forge overlay's own marks (opaque, redirect, metacopy), `user.overlay.*` the
    same in a user namespace, and `security.*` beyond capabilities speaks to the host's security modules.
    """
    if name.startswith(b"trusted.") or name.startswith(b"user.overlay."):
        return False
    return name == b"security.capability" or not name.startswith((b"security.", b"system."))
