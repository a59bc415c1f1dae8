"""Commands that carry tars: container export, image import, load and save.

Source: docker documentation of these commands; measured on docker 28.2.
"""

from __future__ import annotations

import os
import sys

from satsuma.cli.client import escape
from satsuma.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

PIECE = 1 << 18


def read_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what a file holds, as it comes."""
    while piece := os.read(file.fileno(), PIECE):
        yield piece


def open_input(path: str) -> IO[bytes]:
    """Open a file to send.

    Raises:
        CliError: in Go's words.
    """
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or '').lower()}") from None


def write_output(pieces: Iterable[bytes], path: str, what: str) -> None:
    """Write a tar to a file, whole or not at all, or to standard output.

    Raises:
        CliError: standard output is a terminal, or the file cannot be written.
    """
    if not path:
        from satsuma.cli.lookup import write

        sys.stdout.flush()
        for piece in pieces:
            write(1, piece)
        return
    draft = f"{path}.tmp-{os.getpid()}"
    special = os.path.exists(path) and not os.path.isfile(path)
    target = path if special else draft
    try:
        with open(target, "wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
        if not special:
            os.chmod(draft, 0o600)
            os.rename(draft, path)
    except OSError as error:
        raise CliError(
            f"failed to {what}: {error.filename or path}: {(error.strerror or '').lower()}"
        ) from None
    finally:
        if not special and os.path.exists(draft):
            os.unlink(draft)


def check_directory(path: str, what: str) -> None:
    """Refuse an output file in a directory that is not there.

    Raises:
        CliError: in docker's words.
    """
    directory = os.path.dirname(path) or "."
    if path and not os.path.isdir(directory):
        reason = "not a directory" if os.path.lexists(directory) else "no such file or directory"
        raise CliError(f"failed to {what}: invalid output path: stat {directory}: {reason}")


def export(session: Session, flags: Flags) -> None:
    """Write a container's file system as a tar."""
    path = flags["output"]
    if not path and os.isatty(1):
        raise CliError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    check_directory(path, "export container")
    answer = session.engine.request("GET", f"/containers/{escape(flags.args[0])}/export")
    write_output(answer.pieces(), path, "export container")


def save(session: Session, flags: Flags) -> None:
    """Write images with their layers as a tar."""
    from satsuma.cli.inspect import _platform

    path = flags["output"]
    if not path and os.isatty(1):
        raise CliError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    check_directory(path, "save image")
    query = {"names": flags.args, "platform": _platform(flags["platform"])}
    answer = session.engine.request("GET", "/images/get", query)
    write_output(answer.pieces(), path, "save image")


def load(session: Session, flags: Flags) -> None:
    """Read images from a tar."""
    from satsuma.cli.inspect import _platform
    from satsuma.cli.progress import show_stream

    if flags["input"]:
        source = open_input(flags["input"])
    else:
        if os.isatty(0):
            raise CliError("requested load from stdin, but stdin is empty")
        source = sys.stdin.buffer
    quiet = flags["quiet"] or not os.isatty(1)
    query = {"quiet": True if quiet else "0", "platform": _platform(flags["platform"])}
    answer = session.engine.request(
        "POST",
        "/images/load",
        query,
        headers={"Content-Type": "application/x-tar"},
        stream=read_pieces(source),
    )
    if answer.header("content-type").startswith("application/json"):
        show_stream(answer.documents(), sys.stdout)
    else:
        session.out(answer.read().decode("utf-8", "replace"))


def import_(session: Session, flags: Flags) -> None:
    """Make an image of a file system in a tar."""
    from satsuma.base.errors import EngineError
    from satsuma.cli.progress import show_stream
    from satsuma.wire.reference import parse

    source = flags.args[0]
    name = flags.args[1] if len(flags.args) > 1 else ""
    if name:
        try:
            parse(name)
        except EngineError as error:
            raise CliError(str(error)) from None
    query = {
        "fromSrc": source if source.startswith(("http://", "https://")) else "-",
        "message": flags["message"] or None,
        "repo": name or None,
        "changes": flags["change"],
        "platform": flags["platform"].lower() or None,
    }
    if query["fromSrc"] != "-":
        answer = session.engine.request("POST", "/images/create", query)
    else:
        file = sys.stdin.buffer if source == "-" else open_input(source)
        answer = session.engine.request(
            "POST", "/images/create", query, headers={"Content-Type": "text/plain"}, stream=read_pieces(file)
        )
    show_stream(answer.documents(), sys.stdout)
