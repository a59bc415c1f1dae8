"""What a command can fail with: a text for the terminal and an exit status."""

from __future__ import annotations


class CliError(Exception):
    """A command failed; *str(error)* is printed, the process ends with *status*."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class FlagError(CliError):
    """The command line is wrong; the usage is printed below the message, as docker does."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 125)


class HelpWanted(Exception):
    """`--help` was among the flags."""


class ApiError(CliError):
    """The engine refused; `http_status` is what it answered."""

    def __init__(self, message: str, http_status: int) -> None:
        super().__init__(message)
        self.http_status = http_status


class ConnectionFailed(CliError):
    """No engine could be reached."""


class ExitStatus(Exception):
    """End the process with a status of somebody else's, silently."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
