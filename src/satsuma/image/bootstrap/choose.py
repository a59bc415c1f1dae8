"""Which base image a name means, and the directory in which it grows."""

from __future__ import annotations

import os
import shutil
import tempfile

from satsuma.base.errors import InvalidParameter
from satsuma.image.bootstrap import busybox, debian
from satsuma.image.bootstrap.run import Reporter
from satsuma.image.catalog import Catalog
from satsuma.image.load import Progress
from satsuma.image.model import Image
from satsuma.linux.root import Root
from satsuma.wire import reference

_DEBIAN_REPOSITORY = "docker.io/library/debian"
_BUSYBOX_REPOSITORY = "docker.io/library/busybox"


def bootstrap(catalog: Catalog, name: str, progress: Progress) -> Image:
    """Make the base image *name* and tag it.

    Everything temporary is below `<data root>/tmp` and removed, also after a failure.

    Raises:
        InvalidParameter: no base image of that name.
        Unavailable: a program or package is missing on this host.
        System: a program failed; the message has its last words.
    """
    ref = reference.parse(name).with_default_tag()
    report = Reporter(progress, ref.familiar())
    parent = f"{catalog.store.data_root}/tmp"
    os.makedirs(parent, mode=0o700, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="bootstrap-", dir=parent)
    try:
        if ref.name == _BUSYBOX_REPOSITORY and ref.tag:
            image = busybox.make(catalog, ref, directory, report)
        elif ref.name == _DEBIAN_REPOSITORY and ref.tag:
            image = debian.make(catalog, ref, directory, report)
        else:
            raise InvalidParameter(
                f"cannot bootstrap {ref.familiar()!r}: known are busybox, debian:<suite> and debian:<suite>-slim"
            )
    finally:
        _remove(directory)
    catalog.emit("tag", image, ref.familiar())
    report.say(f"Status: Built {ref.familiar()} ({image.id})")
    return image


def _remove(directory: str) -> None:
    try:
        with Root.open_path(os.path.dirname(directory)) as parent:
            # Not shutil: it must stop at mounts, should a package's script have left one.
            parent.rmtree(os.path.basename(directory))
    except OSError:
        shutil.rmtree(directory, ignore_errors=True) if not _has_mounts(directory) else None


def _has_mounts(directory: str) -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return any(f" {directory}" in line for line in file)
