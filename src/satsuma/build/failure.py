"""The error of a RUN that ended with another code than 0."""

from __future__ import annotations

from satsuma.base.errors import EngineError

__all__ = ["StepFailed"]


class StepFailed(EngineError):
    """A command of the Dockerfile failed; `code` is its exit code, which becomes the client's."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
