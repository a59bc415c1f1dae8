"""Frozen types and JSON codec of the formats that we share with the world.

Owns the OCI image, runtime and distribution documents and the bodies of the Docker Engine API: one attribute
per JSON field, in `snake_case`; the JSON name stands here and nowhere else.  Must not know any I/O, nor what a
field leads to.  Modules are imported one by one, because only the daemon may pay for msgspec.
"""
