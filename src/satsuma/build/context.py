"""The build context: where it comes from, the directory it becomes, and the Dockerfile in it.

A context is a tar stream (plain or compressed), unpacked by `image.archive` into a directory of our own below
`<data-root>/tmp/build`; nothing of it can land or point outside.  `.dockerignore` is applied here as well, for
clients which do not filter by themselves.

Source: docs.docker.com/build/concepts/context/; error texts of Docker's classic builder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from typing import IO, BinaryIO

from satsuma.base.errors import InvalidParameter, System, Unsupported
from satsuma.build.archives import is_archive, unpack
from satsuma.build.download import download, is_git_url, is_url
from satsuma.build.options import BuildOptions
from satsuma.linux.root import Root
from satsuma.wire import dockerignore, patterns
from satsuma.wire.dockerfile import Dockerfile, DockerfileError, parse

__all__ = ["Context", "Workspace", "load"]

DEFAULT_NAME = "Dockerfile"
# Larger than any Dockerfile that a person or a generator wrote.
_MAX_DOCKERFILE = 16 << 20
_MAX_IGNORE = 16 << 20
# A clone of a large repository takes minutes, not hours.
_GIT_TIMEOUT_S = 1800


class Workspace:
    """The directory of one build; everything temporary is in it, and `close` removes it."""

    def __init__(self, parent: str) -> None:
        os.makedirs(parent, mode=0o700, exist_ok=True)
        self.path = tempfile.mkdtemp(prefix="build-", dir=parent)

    def directory(self, name: str) -> str:
        """Make a fresh directory inside."""
        return tempfile.mkdtemp(prefix=f"{name}-", dir=self.path)

    def file(self) -> IO[bytes]:
        """Make an anonymous file on the same file system."""
        return tempfile.TemporaryFile(dir=self.path)

    def close(self) -> None:
        """Remove everything; what cannot be removed now is removed by the next start."""
        with contextlib.suppress(OSError):
            # The owner of a context's directories may have taken away his own permissions: we are root.
            shutil.rmtree(self.path)


@dataclass(frozen=True, slots=True)
class Context:
    """An unpacked context."""

    path: str
    root: Root


def load(
    options: BuildOptions, stream: BinaryIO | None, workspace: Workspace
) -> tuple[Context | None, Dockerfile]:
    """Return the context (None when only a Dockerfile was given) and the parsed Dockerfile.

    Raises:
        EngineError: with Docker's words; nothing has been built then.
    """
    remote = options.remote
    if remote == "client-session":
        raise InvalidParameter(
            "experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead"
        )
    if not remote:
        if stream is None:
            raise InvalidParameter("missing build context")
        return _from_archive(stream, options, workspace)
    if is_git_url(remote):
        return _with_dockerfile(_clone(remote, workspace), options)
    if not is_url(remote):
        raise System(f"remoteURL ({remote}) could not be recognized as URL")
    with workspace.file() as spooled:
        fetched = download(remote, spooled)
        spooled.seek(0)
        if fetched.content_type == "text/plain" and not _looks_like_archive(spooled):
            return None, _parse(spooled.read(_MAX_DOCKERFILE), options.dockerfile or DEFAULT_NAME)
        return _from_archive(spooled, options, workspace)


def _looks_like_archive(file: IO[bytes]) -> bool:
    try:
        return is_archive(file)
    finally:
        file.seek(0)


def _from_archive(
    stream: BinaryIO | IO[bytes], options: BuildOptions, workspace: Workspace
) -> tuple[Context, Dockerfile]:
    path = workspace.directory("context")
    os.chmod(path, 0o755)
    root = Root.open_path(path)
    try:
        unpack(stream, root, b".")
        return _with_dockerfile(Context(path, root), options)
    except BaseException:
        root.close()
        raise


def _with_dockerfile(context: Context, options: BuildOptions) -> tuple[Context, Dockerfile]:
    name = options.dockerfile or DEFAULT_NAME
    data = _read_dockerfile(context.root, name)
    if data is None and name == DEFAULT_NAME:
        name = DEFAULT_NAME.lower()
        data = _read_dockerfile(context.root, name)
    if data is None:
        raise System(f"Cannot locate specified Dockerfile: {options.dockerfile or DEFAULT_NAME}")
    dockerfile = _parse(data, name)
    _apply_ignore(context.root, name)
    return context, dockerfile


def _read_dockerfile(root: Root, name: str) -> bytes | None:
    if patterns.clean(name).startswith("../"):
        raise InvalidParameter(f"forbidden path outside the build context: {name} ()")
    try:
        return root.read_file(name.encode("utf-8", "surrogateescape"), _MAX_DOCKERFILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as exc:
        raise InvalidParameter(f"unexpected error reading Dockerfile: read {name}: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    return (getattr(exc, "strerror", None) or str(exc)).lower()


def _parse(data: bytes, name: str) -> Dockerfile:
    if not data:
        raise InvalidParameter(f"the Dockerfile ({name}) cannot be empty")
    try:
        return parse(data)
    except DockerfileError as exc:
        raise DockerfileError(f"failed to parse {name}: {exc}", exc.first_line, exc.last_line) from None


def _apply_ignore(root: Root, dockerfile: str) -> None:
    """Remove what `.dockerignore` excludes, the Dockerfile and `.dockerignore` itself included."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            data = root.read_file(name.encode("utf-8", "surrogateescape"), _MAX_IGNORE)
            break
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise InvalidParameter(f"error reading .dockerignore: {_reason(exc)}") from exc
    else:
        return
    try:
        matcher = dockerignore.load(data)
    except ValueError as exc:
        raise InvalidParameter(f"error reading .dockerignore: {exc}") from None
    _Pruner(root, matcher).run(b"")


class _Pruner:
    """Walks a context and removes what is ignored, except what a later `!` takes back."""

    def __init__(self, root: Root, matcher: patterns.Matcher) -> None:
        self._root = root
        self._matcher = matcher

    def run(self, directory: bytes) -> bool:
        """Prune below *directory*; return whether anything is left in it."""
        left = False
        for name in self._root.listdir(directory or b"."):
            path = directory + b"/" + name if directory else name
            left = self._entry(path) or left
        return left

    def _entry(self, path: bytes) -> bool:
        text = path.decode("utf-8", "surrogateescape")
        ignored = self._matcher.matches(text)
        if stat.S_ISDIR(self._root.lstat(path).st_mode):
            if ignored and (not self._matcher.negated or self._matcher.prunes(text)):
                self._root.rmtree(path)
                return False
            if not self.run(path) and ignored:
                self._root.rmtree(path)
                return False
            return True
        if ignored:
            self._root.unlink(path)
        return not ignored


def _clone(url: str, workspace: Workspace) -> Context:
    git = shutil.which("git")
    if git is None:
        raise Unsupported(
            f"unable to build from git repository {url}: git is not installed on the host of the engine"
        )
    address, _, fragment = url.partition("#")
    branch, _, subdirectory = fragment.partition(":")
    if address.startswith("github.com/"):
        address = "https://" + address
    if branch.startswith("-") or address.startswith("-"):
        raise InvalidParameter(f"invalid refspec: {branch or address}")
    path = workspace.directory("git")
    _git(git, path, "init", "--quiet")
    _git(git, path, "remote", "add", "origin", address)
    _git(git, path, "fetch", "--quiet", "--depth", "1", "--", "origin", branch or "HEAD")
    _git(git, path, "checkout", "--quiet", "FETCH_HEAD")
    _git(git, path, "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    shutil.rmtree(f"{path}/.git")
    root = Root.open_path(path)
    if not subdirectory:
        return Context(path, root)
    with root:
        try:
            fd = root.open(subdirectory, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            raise InvalidParameter(f"error setting git context, not a directory: {subdirectory}") from None
    return Context(path, Root(fd))


def _git(git: str, path: str, *args: str) -> None:
    # Only transports that cannot run a program or read the host's files, also for submodules; no questions.
    env = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": path,
        "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
    }
    command = [git, "-C", path, "-c", "core.hooksPath=/dev/null", *args]
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise System(f"error fetching: git {args[0]} took longer than {_GIT_TIMEOUT_S} s") from None
    if done.returncode:
        raise InvalidParameter(f"error fetching: {done.stderr.decode('utf-8', 'replace').strip()}")
