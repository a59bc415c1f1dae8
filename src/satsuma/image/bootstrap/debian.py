"""placeholder"""

from satsuma.base.errors import Unsupported


def make(catalog, ref, directory, report):
    raise Unsupported("x")
