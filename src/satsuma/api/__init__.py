"""The Docker Engine API: HTTP in, calls of the engine, answers out.

Owns the HTTP server, the routes of Docker's API up to 1.51 with the differences of its older versions, and the
mapping of errors to statuses.  Must not know how anything is done: a handler parses, calls the engine's facade and
writes the answer; never the kernel, the runtime or the stores.
"""

from satsuma.api.listen import Host, parse_host
from satsuma.api.server import Server, serve

__all__ = ["Host", "Server", "parse_host", "serve"]
