"""The one table from error classes to HTTP statuses.

Owns nothing else.  Lookup goes by the class's MRO, so a service's own subclass needs no entry; a test checks that
every class of `satsuma.base.errors` is in the table.
"""

from __future__ import annotations

from satsuma.base.errors import (
    Conflict,
    DataLoss,
    EngineError,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotModified,
    System,
    Unauthorized,
    Unavailable,
    Unsupported,
)

STATUS: dict[type, int] = {
    NotFound: 404,
    InvalidParameter: 400,
    Conflict: 409,
    NotModified: 304,
    Unauthorized: 401,
    Forbidden: 403,
    Unavailable: 503,
    Unsupported: 501,
    System: 500,
    DataLoss: 500,
    EngineError: 500,
}


def status_of(error: BaseException) -> int:
    """Return the status of an error; what is not ours is 500."""
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), 500)


def reworded(error: EngineError, message: str) -> EngineError:
    """Return an error of the same meaning with another message."""
    cls: type[EngineError] = next((cls for cls in type(error).__mro__ if cls in STATUS), EngineError)
    return cls(message)
