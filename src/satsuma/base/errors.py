"""The shared error tree: a class says what the caller can do about it.

The text is part of Docker's API: lower case, no full stop, the object named, Docker's own words where clients
match on them.  Only `satsuma.api` knows which HTTP status belongs to which class.
"""

from __future__ import annotations


class EngineError(Exception):
    """Anything the engine tells a client; `str(error)` is the client's message."""


class NotFound(EngineError):
    """The named object does not exist."""


class InvalidParameter(EngineError):
    """The request can never succeed as it stands."""


class Conflict(EngineError):
    """The request does not fit the present state of the object."""


class NotModified(EngineError):
    """The object already is in the wanted state."""


class Unauthorized(EngineError):
    """Credentials are missing or wrong."""


class Forbidden(EngineError):
    """The operation is not allowed on this object, whoever asks."""


class Unavailable(EngineError):
    """It may work later, or on an engine that is set up differently."""


class Unsupported(EngineError):
    """This engine does not have the operation; the message names it."""


class System(EngineError):
    """The host failed us: disk, kernel, helper."""


class DataLoss(EngineError):
    """What the database promises is not on disk any more."""
