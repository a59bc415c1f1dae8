"""What can go wrong in the runtime, as seen by its callers.

Source: messages of runc; exit codes 125-127 of the docker command line.
"""

from __future__ import annotations

import errno
import os


class RuntimeFailure(Exception):
    """A runtime operation failed; the text is the whole message, lower case, in runc's words."""


class ConfigError(RuntimeFailure):
    """The configuration asks for something impossible, unknown or unsupported."""


class StartFailed(RuntimeFailure):
    """A process could not be started.

    Attributes:
        message: starts with "unable to start container process: ".
        exit_code: 127 program not found, 126 not executable, 128 anything else (as dockerd records it).
    """

    def __init__(self, message: str, exit_code: int = 128) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class StepError(Exception):
    """A step of a plan failed, inside the new process; travels to the parent as text."""

    def __init__(self, message: str, exit_code: int = 128) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def error_text(error: BaseException) -> str:
    """Return an error in the words Go programs use: "no such file or directory"."""
    if isinstance(error, OSError) and error.errno:
        text = os.strerror(error.errno).lower()
        notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("e ")]
        return f"{text} ({notes[-1][2:]})" if notes else text
    return str(error) or type(error).__name__


def exit_code_for(error: OSError) -> int:
    """Return the exit status that stands for a failed execve(2)."""
    if error.errno == errno.ENOENT:
        return 127
    return 126 if error.errno in (errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.ENOTDIR) else 128
