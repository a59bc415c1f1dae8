"""The store: what the engine keeps on disk, and what survives a crash.

Owns the database (SQLite), content (blobs by digest), layers and snapshots (overlay directories), leases,
garbage collection and verification.  Must not know policy: what an image, a tag or a container is for.

All functions are synchronous and safe in any thread; the daemon calls them through `base.aio.blocking`.
"""

from satsuma.store.changes import Change
from satsuma.store.content import ContentStore, Writer
from satsuma.store.db import Collection, Database, Row
from satsuma.store.layers import GENERATED, Layer, Layers
from satsuma.store.snapshots import Active, Snapshots, tree_size
from satsuma.store.store import Store
from satsuma.store.trash import Trash
from satsuma.store.verify import Finding, check, repair

__all__ = [
    "Active",
    "Change",
    "Collection",
    "ContentStore",
    "Database",
    "Finding",
    "GENERATED",
    "Layer",
    "Layers",
    "Row",
    "Snapshots",
    "Store",
    "Trash",
    "Writer",
    "check",
    "repair",
    "tree_size",
]
