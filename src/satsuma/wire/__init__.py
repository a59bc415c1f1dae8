"""Formats without I/O: bytes or text in, values out, and back.

Owns HTTP/1.1, Docker's multiplexed and JSON streams, WebSocket frames, tar and whiteouts, image archives, references,
the Dockerfile language, .dockerignore, Go templates.  Must not know sockets, files, asyncio, or what a value is used
for.  Modules are imported one by one: the command line pays only for those it needs.
"""
