"""Images: what they are called, what they are made of, and every way in which they come and go.

Owns image records, tags, layers' identity, unpacking, commit, save, load, import, removal and the base images
that can be made from the host's packages.  Must not know containers beyond their ids, HTTP, or the network.

All functions are synchronous and safe in any thread; the daemon calls them through `base.aio.blocking`.
"""

from satsuma.image.archive import tar_path, untar
from satsuma.image.catalog import Listener, NoSuchImage
from satsuma.image.changes import apply_change, apply_changes
from satsuma.image.extract import Extracted
from satsuma.image.layering import layer_tar
from satsuma.image.model import Image
from satsuma.image.removal import InUse
from satsuma.image.service import ImageService
from satsuma.image.treetar import tar_tree
from satsuma.image.unpack import apply_layer

__all__ = [
    "Extracted",
    "Image",
    "ImageService",
    "InUse",
    "Listener",
    "NoSuchImage",
    "apply_change",
    "apply_changes",
    "apply_layer",
    "layer_tar",
    "tar_path",
    "tar_tree",
    "untar",
]
