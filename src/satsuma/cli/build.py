"""`image build`: the context as a tar to the engine, the engine's steps to the terminal.

Source: docker documentation "docker image build (legacy builder)"; Docker Engine API "ImageBuild".
"""

from __future__ import annotations

import os
import sys

from satsuma.base.sizes import format_size
from satsuma.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session
    from satsuma.wire.patterns import Matcher

_MAGIC = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd begin."""
_LIMIT = 1 << 20


class Context:
    """What is sent: pieces of a tar, and the name of the Dockerfile in it."""

    def __init__(self, dockerfile: str, pieces: Iterable[bytes] | None, *, remote: str = "") -> None:
        self.dockerfile = dockerfile
        self.pieces = pieces
        self.remote = remote
        """An address that the engine fetches itself."""


def build(session: Session, flags: Flags) -> int:
    """Build an image."""
    from satsuma.cli.run import refuse_trust

    refuse_trust(flags)
    if flags["iidfile"] and os.path.exists(flags["iidfile"]):
        os.unlink(flags["iidfile"])
    context = _prepare(flags)
    query = _query(session, flags, context)
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": _registry_config(session)}
    stream: Iterable[bytes] | None = None
    if context.pieces is not None:
        pieces = _compress(context.pieces) if flags["compress"] else context.pieces
        stream = _announce(session, pieces, quiet=flags["quiet"])
    answer = session.engine.request("POST", "/build", query, headers=headers, stream=stream)
    image = _show(answer.documents(), quiet=flags["quiet"])
    if flags["iidfile"]:
        if not image:
            raise CliError(f"server did not provide an image ID. Cannot write {flags['iidfile']}")
        with open(flags["iidfile"], "w", encoding="ascii") as file:
            file.write(image)
    return 0


def _show(documents: Iterable[Mapping[str, Any]], *, quiet: bool) -> str:
    """Show the stream and return the id of the image; empty if the engine did not tell it."""
    from satsuma.cli.progress import show_stream

    image: list[str] = []

    def take(aux: Mapping[str, Any]) -> None:
        if aux.get("ID"):
            image.append(str(aux["ID"]))

    if not quiet:
        show_stream(documents, sys.stdout, take)
        return image[-1] if image else ""
    import io

    buffer = io.StringIO()
    try:
        show_stream(documents, buffer, take)
    except CliError:
        sys.stderr.write(buffer.getvalue())
        raise
    # With `q=1` the engine says nothing but the id; whatever else it says is not for standard output.
    last = buffer.getvalue().strip().rpartition("\n")[2]
    sys.stdout.write((image[-1] if image else last) + "\n")
    return image[-1] if image else last


def _announce(session: Session, pieces: Iterable[bytes], *, quiet: bool) -> Iterator[bytes]:
    """Pass pieces on and say how much was sent: as it grows on a terminal, at the end elsewhere."""
    import time

    text = f"Sending build context to {session.program.capitalize()} daemon"
    terminal = sys.stdout.isatty()
    total, shown = 0, 0.0
    for piece in pieces:
        total += len(piece)
        yield piece
        if terminal and not quiet and time.monotonic() - shown > 0.1:
            shown = time.monotonic()
            sys.stdout.write(f"\r\033[2K{text}  {format_size(total)}")
            sys.stdout.flush()
    if not quiet:
        sys.stdout.write(("\r\033[2K" if terminal else "") + f"{text}  {format_size(total)}\n")
        sys.stdout.flush()


def _compress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    import zlib

    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


# -- the request --------------------------------------------------------------------------------------------------


def _json(value: Any) -> str | None:
    import json

    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) if value else None


def _query(session: Session, flags: Flags, context: Context) -> dict[str, Any]:
    from satsuma.cli.config import proxy_environment

    arguments: dict[str, str | None] = {}
    if session.config.get("proxies"):
        arguments.update(proxy_environment(session.config, session.engine.endpoint.host))
    for text in flags["build-arg"]:
        name, equals, value = text.partition("=")
        arguments[name] = value if equals else None
    labels = {name: value for name, _, value in (text.partition("=") for text in flags["label"])}
    limits = [{"Name": n, "Hard": hard, "Soft": soft} for n, (soft, hard) in sorted(flags["ulimit"].items())]
    return {
        "version": "1",
        "t": flags["tag"],
        "dockerfile": context.dockerfile,
        "remote": context.remote or None,
        "q": flags["quiet"],
        "nocache": flags["no-cache"],
        "rm": True if flags["rm"] else "0",
        "forcerm": flags["force-rm"],
        "pull": flags["pull"],
        "squash": flags["squash"],
        "memory": flags["memory"] or None,
        "memswap": flags["memory-swap"] or None,
        "cpushares": flags["cpu-shares"] or None,
        "cpuperiod": flags["cpu-period"] or None,
        "cpuquota": flags["cpu-quota"] or None,
        "cpusetcpus": flags["cpuset-cpus"] or None,
        "cpusetmems": flags["cpuset-mems"] or None,
        "cgroupparent": flags["cgroup-parent"] or None,
        "shmsize": flags["shm-size"] or None,
        "networkmode": flags["network"] or "default",
        "isolation": flags["isolation"] or None,
        "target": flags["target"] or None,
        "platform": flags["platform"].lower() or None,
        "extrahosts": ",".join(flags["add-host"]) or None,
        "buildargs": _json(arguments),
        "labels": _json(labels),
        "ulimits": _json(limits),
        "cachefrom": _json(flags["cache-from"]),
        "securityopt": _json(flags["security-opt"]),
    }


def _registry_config(session: Session) -> str:
    import base64
    import json

    from satsuma.cli.distribution import credentials

    known = {}
    for server in session.config.get("auths") or {}:
        found = credentials(session, server)
        if found:
            known[server] = found
    return base64.urlsafe_b64encode(json.dumps(known, separators=(",", ":")).encode()).decode()


# -- the context --------------------------------------------------------------------------------------------------


def _prepare(flags: Flags) -> Context:
    source, dockerfile = flags.args[0], flags["file"]
    if source == "-":
        if dockerfile == "-":
            raise CliError("invalid argument: can't use stdin for both build context and dockerfile")
        return _from_stdin(dockerfile)
    if source.startswith(("http://", "https://", "git://", "github.com/", "git@")):
        if dockerfile == "-":
            raise CliError("the Dockerfile from standard input needs a context on this host")
        return Context(dockerfile or "Dockerfile", None, remote=source)
    if not os.path.exists(source):
        raise CliError(f'unable to prepare context: path "{source}" not found')
    if not os.path.isdir(source):
        raise CliError(f"unable to prepare context: context must be a directory: {os.path.abspath(source)}")
    return _from_directory(os.path.realpath(source), dockerfile)


def _from_stdin(dockerfile: str) -> Context:
    """Take a tar, or else a Dockerfile, from standard input."""
    if os.isatty(0):
        raise CliError("unable to prepare context: a context or a Dockerfile is expected on standard input")
    source = sys.stdin.buffer
    first = source.read(512)
    if _is_archive(first):

        def whole() -> Iterator[bytes]:
            yield first
            while piece := source.read(1 << 18):
                yield piece

        return Context(dockerfile or "Dockerfile", whole())
    if dockerfile:
        raise CliError(
            "unable to prepare context: ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles"
        )
    content = first + source.read(_LIMIT)
    return Context("Dockerfile", _dockerfile_only(content))


def _is_archive(head: bytes) -> bool:
    if head.startswith(_MAGIC):
        return True
    if len(head) < 512:
        return False
    try:
        total = int(head[148:156].split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return False
    return total == sum(head[:148]) + 8 * 32 + sum(head[156:512])


def _dockerfile_only(content: bytes) -> Iterator[bytes]:
    from satsuma.cli.tarball import Packer
    from satsuma.wire.tar import END

    yield from Packer(root_owner=True).data("Dockerfile", content)
    yield END


def _from_directory(directory: str, dockerfile: str) -> Context:
    from_outside: bytes | None = None
    if dockerfile == "-":
        from_outside = sys.stdin.buffer.read(_LIMIT)
        name = ""
    else:
        name, from_outside = _locate(directory, dockerfile)
    if from_outside is not None:
        name = f".dockerfile.{os.urandom(10).hex()}"
    matcher = _ignore_rules(directory, name)
    return Context(name, _directory_pieces(directory, matcher, name, from_outside))


def _locate(directory: str, dockerfile: str) -> tuple[str, bytes | None]:
    """Return the Dockerfile's name in the context, or its content if it lies outside."""
    if not dockerfile:
        path = os.path.join(directory, "Dockerfile")
        if not os.path.exists(path) and os.path.exists(os.path.join(directory, "dockerfile")):
            path = os.path.join(directory, "dockerfile")
    else:
        path = os.path.abspath(dockerfile)
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CliError(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {path}: {reason}"
        ) from None
    inside = os.path.relpath(real, directory)
    if not inside.startswith("../"):
        return inside, None
    if not dockerfile:
        raise CliError("unable to prepare context: the Dockerfile must be within the build context")
    try:
        with open(real, "rb") as file:
            return "", file.read(_LIMIT)
    except OSError as error:
        raise CliError(f"unable to prepare context: open {real}: {(error.strerror or '').lower()}") from None


def _ignore_rules(directory: str, dockerfile: str) -> Matcher | None:
    """Return the rules of the ignore file; Dockerfile and ignore file are sent whatever they say."""
    from satsuma.wire.dockerignore import parse
    from satsuma.wire.patterns import Matcher

    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            with open(os.path.join(directory, name), "rb") as file:
                patterns = parse(file.read())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise CliError(f"error checking context: error reading {name}: {error}") from None
        try:
            return Matcher([*patterns, f"!{name}", f"!{dockerfile}"])
        except ValueError as error:
            raise CliError(f"error checking context: {error}") from None
    return None


def _directory_pieces(
    directory: str, matcher: Matcher | None, dockerfile: str, content: bytes | None
) -> Iterator[bytes]:
    from satsuma.cli.tarball import Packer
    from satsuma.wire.tar import END

    packer = Packer(root_owner=True, leave_out=".dockerignore" if content is not None else "")
    yield from packer.tree(directory, "", matcher)
    if content is not None:
        # The Dockerfile travels under a name of its own, which the ignore file keeps out of the image.
        yield from packer.data(dockerfile, content)
        yield from packer.data(".dockerignore", _ignore_file(directory, dockerfile), 0o644)
    yield END


def _ignore_file(directory: str, dockerfile: str) -> bytes:
    """Return the context's ignore file with one more name to ignore."""
    try:
        with open(os.path.join(directory, ".dockerignore"), "rb") as file:
            return file.read() + f"\n{dockerfile}\n".encode()
    except OSError:
        return f"{dockerfile}\n.dockerignore\n".encode()
