"""Volumes: directories that outlive containers and are shared between them.

Owns `volumes/<name>/_data`, the collection "volumes", the rules about names and options of the local driver, who
uses a volume, and copying an image's content into a new one.  Must not know containers, images or HTTP: users are
plain ids, an image's tree arrives as an open `Root`.
"""

from satsuma.volume.copyup import copy_up
from satsuma.volume.service import Volume, VolumeService

__all__ = ["Volume", "VolumeService", "copy_up"]
