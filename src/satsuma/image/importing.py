"""`docker import`: a tar of a file system becomes an image of one layer.

Source: moby daemon/images/image_import.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from satsuma.base.clock import format_rfc3339nano, now_ns
from satsuma.image.archive import Stream
from satsuma.image.catalog import Catalog
from satsuma.image.changes import apply_changes
from satsuma.image.layering import next_config
from satsuma.image.model import Image
from satsuma.image.unpack import add_foreign_layer
from satsuma.spec.image import History
from satsuma.wire.platforms import Platform
from satsuma.wire.reference import Reference

DEFAULT_MESSAGE = "Imported from -"
_STEP = 1 << 18


def import_tar(
    catalog: Catalog,
    stream: Stream,
    ref: Reference | None,
    changes: Sequence[str] = (),
    message: str = "",
    *,
    platform: Platform | None = None,
    created_by: str = "",
    created_ns: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Image:
    """Register the content of a tar, plain or compressed, as an image.

    Args:
        ref: name with tag, or None.
        changes: Dockerfile instructions for the config.
        platform: what the content is for; None means this machine's.
        created_by: line for the history, as the build of a base image leaves it.
        advance: told the number of bytes read from the stream.
    Raises:
        InvalidParameter: malformed, hostile, or a change that is none.
    """
    # Order: the changes can fail at once, the stream may take minutes.
    config = apply_changes({}, changes)
    store = catalog.store
    with store.content.ingest("import") as writer:
        while data := stream.read(_STEP):
            writer.write(data)
            advance(len(data))
        layer = add_foreign_layer(store, writer, None)
    created = now_ns() if created_ns is None else created_ns
    entry = History(
        created=format_rfc3339nano(created), comment=message or DEFAULT_MESSAGE, created_by=created_by
    )
    try:
        raw = next_config(None, [layer], config, [entry], created_ns=created, target=platform)
        image = catalog.add(raw, pinned=[layer.chain_id])
    except BaseException:
        store.layers.unpin([layer.chain_id])
        raise
    if ref is not None:
        catalog.tag(image.id, ref)
        image = catalog.get(image.id)
        catalog.emit("tag", image, ref.familiar())
    catalog.emit("import", image, image.id)
    return image
