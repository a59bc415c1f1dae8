"""The left side of COPY and ADD: what a word stands for, and its checksum for the cache.

A word is a path in the context, in another stage or image (`--from`), with wildcards perhaps; a URL (ADD); or the name
of a here-document.  Resolving gives a list of `Source`s; nothing has been copied then.

Error texts are those of Docker's classic builder.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace

from satsuma.base.errors import InvalidParameter, System
from satsuma.build.contenthash import file_checksum, join_checksums, tree_checksums
from satsuma.build.context import Workspace
from satsuma.build.download import DownloadFailed, download, is_git_url, is_url
from satsuma.linux.root import Root
from satsuma.wire.dockerfile import Add, Copy
from satsuma.wire.patterns import BadPattern, Glob, Matcher, clean, has_wildcards

__all__ = ["Resolver", "Source", "checksum_of"]

_UNNAMED = "__unnamed__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One thing to copy.

    Attributes:
        path: inside root, without leading slash; empty for the root itself.
        checksum: `file:…` or `dir:…`.
        remote: came over the network; not unpacked by itself.
        parents: directories that `--parents` puts in front of the name, with a trailing slash, or nothing.
        accept: tells of a path inside the directory whether it is copied.
    """

    root: Root
    path: bytes
    checksum: str
    directory: bool
    remote: bool = False
    parents: bytes = b""
    accept: Callable[[bytes], bool] | None = None

    @property
    def name(self) -> bytes:
        """The last part of the path as it was written."""
        return os.path.basename(self.path)


def checksum_of(sources: list[Source]) -> str:
    """Return what stands for *sources* in the history and in the cache key."""
    if len(sources) == 1:
        return sources[0].checksum
    return join_checksums("multi", [source.checksum for source in sources])


class Resolver:
    """Resolves the sources of one instruction.

    Args:
        root: the context, the stage or the image to copy from; None when there is no context.
        from_image: *root* is not the context.
        cache: checksums by path; to be shared as long as *root* is the same, unchanging tree.
    """

    def __init__(
        self,
        root: Root | None,
        workspace: Workspace,
        *,
        from_image: bool,
        cache: dict[bytes, str] | None = None,
    ) -> None:
        self._root = root
        self._workspace = workspace
        self._from_image = from_image
        self._cache = cache if cache is not None else {}
        self._roots: list[Root] = []

    def close(self) -> None:
        """Close what was opened for downloads and here-documents."""
        for root in self._roots:
            root.close()
        self._roots.clear()

    def resolve(self, instruction: Copy | Add) -> list[Source]:
        """Return the sources of *instruction*, whose variables are expanded.

        Raises:
            EngineError: with Docker's words, `COPY failed: …`.
        """
        keyword = instruction.name
        matcher = _exclusion(instruction.exclude)
        found: list[Source] = []
        try:
            for word in instruction.sources:
                found += self._word(word, instruction, matcher)
            found += [self._text(text.name, text.text) for text in instruction.texts]
        except InvalidParameter as exc:
            raise InvalidParameter(f"{keyword} failed: {exc}") from exc.__cause__
        except DownloadFailed as exc:
            raise System(f"{keyword} failed: {exc}") from exc.__cause__
        except OSError as exc:
            raise InvalidParameter(f"{keyword} failed: {exc.strerror or exc}") from exc
        if not found:
            raise InvalidParameter(f"{keyword} failed: no source files were specified")
        if len(found) > 1 and not instruction.target.endswith("/"):
            raise InvalidParameter(
                f"When using {keyword} with more than one source file, the destination must be a directory "
                "and end with a /"
            )
        return found

    def _word(self, word: str, instruction: Copy | Add, matcher: Matcher | None) -> list[Source]:
        if isinstance(instruction, Add):
            if is_url(word) and not is_git_url(word):
                return [self._download(word, instruction)]
            if is_git_url(word) and not self._exists(word):
                raise InvalidParameter(f"adding a git repository ({word}) requires BuildKit")
        elif is_url(word):
            raise InvalidParameter("source can't be a URL for COPY")
        if self._root is None:
            raise InvalidParameter("missing build context")
        parents = isinstance(instruction, Copy) and instruction.parents
        return self._paths(word, matcher, parents)

    def _exists(self, word: str) -> bool:
        return self._root is not None and self._root.exists(word.encode("utf-8", "surrogateescape"))

    # Paths

    def _paths(self, word: str, matcher: Matcher | None, parents: bool) -> list[Source]:
        pivot = ""
        if parents and "/./" in word:
            pivot = clean("/" + word.partition("/./")[0])[1:]
        outside = clean(word)
        if (
            not word.startswith("/")
            and (outside == ".." or outside.startswith("../"))
            and not self._from_image
        ):
            raise InvalidParameter(f"forbidden path outside the build context: {word} ()")
        path = word.removeprefix("/").removeprefix("./")
        if has_wildcards(path):
            names = self._wildcard(path)
        else:
            path = path.replace("\\", "") if "\\" in path and not self._exists(path) else path
            names = [clean("/" + path)[1:].encode("utf-8", "surrogateescape")]
        found = [self._path(name, word, matcher) for name in names]
        if not parents:
            return found
        return [_with_parents(source, pivot.encode("utf-8", "surrogateescape")) for source in found]

    def _wildcard(self, pattern: str) -> list[bytes]:
        assert self._root is not None
        try:
            glob = Glob(clean(pattern))
        except BadPattern as exc:
            raise InvalidParameter(str(exc)) from None
        return [
            path
            for path, _ in self._root.walk()
            if path and glob.matches(path.decode("utf-8", "surrogateescape"))
        ]

    def _path(self, path: bytes, word: str, matcher: Matcher | None) -> Source:
        assert self._root is not None
        try:
            status = self._root.stat(path or b".")
        except (FileNotFoundError, NotADirectoryError):
            shown = path.decode("utf-8", "replace")
            message = f"stat {shown}: file does not exist"
            if not self._from_image:
                message = f"file not found in build context or excluded by .dockerignore: {message}"
            raise InvalidParameter(message) from None
        except OSError as exc:
            raise InvalidParameter(f"stat {word}: {(exc.strerror or '').lower()}") from exc
        directory = stat.S_ISDIR(status.st_mode)
        accept = _acceptor(matcher) if matcher else None
        if accept is not None and not directory and not accept(os.path.basename(path)):
            raise InvalidParameter("no source files were specified")
        return Source(
            root=self._root,
            path=path,
            checksum=self._checksum(path, status, accept),
            directory=directory,
            accept=accept if directory else None,
        )

    def _checksum(self, path: bytes, status: os.stat_result, accept: Callable[[bytes], bool] | None) -> str:
        assert self._root is not None
        known = self._cache.get(path) if accept is None else None
        if known is not None:
            return known
        # The link itself is not copied but what it leads to, so that counts.
        real = _real_path(self._root, path)
        if stat.S_ISDIR(status.st_mode):
            checksum = join_checksums("dir", tree_checksums(self._root, real, accept))
        else:
            checksum = "file:" + file_checksum(self._root, real, real, status)
        if accept is None:
            self._cache[path] = checksum
        return checksum

    # Here-documents and downloads

    def _text(self, name: str, text: str) -> Source:
        root = self._own_root("text")
        file_name = name.encode("utf-8", "surrogateescape")
        if b"/" in file_name or file_name in (b".", b".."):
            raise InvalidParameter(f"invalid heredoc name {name}")
        root.write_file(file_name, text.encode("utf-8", "surrogateescape"), 0o644)
        # A here-document has no time of its own.
        root.utimens(file_name, 0, 0)
        checksum = "file:" + file_checksum(root, file_name, file_name, root.lstat(file_name))
        return Source(root=root, path=file_name, checksum=checksum, directory=False, remote=True)

    def _download(self, url: str, instruction: Add) -> Source:
        root = self._own_root("download")
        fd = root.open(_UNNAMED, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            fetched = download(url, file)
        if instruction.checksum and fetched.digest != instruction.checksum:
            raise InvalidParameter(f"digest mismatch {fetched.digest}: {instruction.checksum}")
        name = fetched.name
        if not name:
            if instruction.target.endswith("/"):
                raise InvalidParameter(f"cannot determine filename for source {url}")
            name = _UNNAMED
        path = name.encode("utf-8", "surrogateescape")
        if name != _UNNAMED:
            root.rename(_UNNAMED, path)
        time_ns = int(fetched.mtime * 1e9)
        root.utimens(path, time_ns, time_ns)
        checksum = "file:" + file_checksum(root, path, path, root.lstat(path))
        return Source(
            root=root, path=path, checksum=checksum, directory=False, remote=instruction.unpack is not True
        )

    def _own_root(self, name: str) -> Root:
        root = Root.open_path(self._workspace.directory(name))
        self._roots.append(root)
        return root


def _real_path(root: Root, path: bytes) -> bytes:
    """Return the path of what *path* leads to, links followed, relative to the root."""
    fd = root.open(path or b".", os.O_PATH)
    try:
        top = os.readlink(b"/proc/self/fd/%d" % root.fd)
        real = os.readlink(b"/proc/self/fd/%d" % fd)
    finally:
        os.close(fd)
    if top == b"/":
        # The top of a detached mount.
        return real.lstrip(b"/")
    with contextlib.suppress(ValueError):
        if real == top:
            return b""
        if real.startswith(top + b"/"):
            return real[len(top) + 1 :]
    return path


def _exclusion(exclude: tuple[str, ...]) -> Matcher | None:
    if not exclude:
        return None
    try:
        return Matcher(exclude)
    except ValueError as exc:
        raise InvalidParameter(str(exc)) from None


def _acceptor(matcher: Matcher) -> Callable[[bytes], bool]:
    return lambda path: not matcher.matches(path.decode("utf-8", "surrogateescape"))


def _with_parents(source: Source, pivot: bytes) -> Source:
    path = source.path
    if pivot and path.startswith(pivot + b"/"):
        path = path[len(pivot) + 1 :]
    parent = os.path.dirname(path)
    if source.directory:
        # The directory itself is kept as well, not only what is above it.
        return replace(source, parents=path + b"/" if path else b"")
    return replace(source, parents=parent + b"/" if parent else b"")
