"""Base images made on this machine: `busybox` and `debian:<suite>[-slim]`.

Owns the choice by name and the temporary directory.  For a host without a registry, and for tests, demos and
people who want to know where their base image comes from.
"""

from satsuma.image.bootstrap.choose import bootstrap

__all__ = ["bootstrap"]
