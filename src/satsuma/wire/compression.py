"""Compressed streams: recognise and read gzip, bzip2, xz and zstd, one member or many.

Owns detection by magic bytes and streaming decompression with bounds.  Must not know what is inside.

A gzip, bzip2 or xz file, and a zstd stream, may be several members one after the other; the decompressors of
the library stop after the first, so each rest starts a fresh one.  Memory: the window that a stream asks for is
limited (xz 128 MiB, zstd 128 MiB), output comes in steps.

Source: RFC 1952, RFC 8878; moby pkg/archive DetectCompression.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NONE, GZIP, BZIP2, XZ, ZSTD = "", "gzip", "bzip2", "xz", "zstd"
MAGIC_LENGTH = 10
_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW_LOG = 27
_INPUT = 1 << 17
_OUTPUT = 1 << 18


class CompressionError(ValueError):
    """The stream is damaged, cut off, or wants more memory than it may have."""


_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
"""What follows `BZh` and the level: the magic of a block, or of the end of an empty stream."""


def detect(prefix: bytes) -> str:
    """Return the kind of compression that a stream starting with *prefix* (10 bytes) has, "" for none."""
    if prefix.startswith(b"\x1f\x8b\x08"):
        return GZIP
    if prefix.startswith(b"BZh") and prefix[4:10] in _BZIP2_BLOCKS:
        return BZIP2
    if prefix.startswith(b"\xfd7zXZ\0"):
        return XZ
    if prefix.startswith(b"\x28\xb5\x2f\xfd") or (
        prefix[1:4] == b"\x2a\x4d\x18" and 0x50 <= prefix[0] <= 0x5F
    ):
        return ZSTD
    return NONE


class _Gzip:
    """zlib's decompressobj in the shape of the others."""

    def __init__(self) -> None:
        module: Any
        try:
            from zlib_ng import zlib_ng as module  # 1.8 times as fast
        except ImportError:
            import zlib as module
        self._object = module.decompressobj(31)  # 31: gzip header and checksum
        self._tail = b""

    @property
    def eof(self) -> bool:
        done: bool = self._object.eof
        return done

    @property
    def unused_data(self) -> bytes:
        rest: bytes = self._object.unused_data
        return rest

    @property
    def needs_input(self) -> bool:
        return not self._tail

    def decompress(self, data: bytes, limit: int) -> bytes:
        output: bytes = self._object.decompress(self._tail + data if self._tail else data, limit)
        self._tail = self._object.unconsumed_tail
        return output


def _decompressor(kind: str) -> Any:
    if kind == GZIP:
        return _Gzip()
    if kind == BZIP2:
        import bz2

        return bz2.BZ2Decompressor()
    if kind == XZ:
        import lzma

        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    zstd = _zstd()
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from backports import zstd
    return zstd


def _errors(kind: str) -> tuple[type[Exception], ...]:
    import zlib

    if kind == GZIP:
        try:
            from zlib_ng import zlib_ng

            other: Any = zlib_ng.error
            return (zlib.error, other)
        except ImportError:
            return (zlib.error,)
    if kind == XZ:
        import lzma

        return (lzma.LZMAError,)
    if kind == ZSTD:
        return (_zstd().ZstdError,)
    return (OSError, ValueError, EOFError)


class Decompressor:
    """The plain bytes of a stream; `read` is what the readers of archives take.

    Args:
        read: returns at most so many compressed bytes, b"" at the end.
        kind: of `detect`; NONE passes everything through.
    """

    def __init__(self, read: Callable[[int], bytes], kind: str) -> None:
        self.kind = kind
        self._read = read
        if kind == NONE:
            return
        self._errors = _errors(kind)
        self._object = _decompressor(kind)
        self._pending = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """Return at most *size* plain bytes, b"" at the end.

        Raises:
            CompressionError: the stream is not what it began as.
        """
        if self.kind == NONE:
            return self._read(size)
        size = min(size, _OUTPUT)
        while not self._ended:
            try:
                data = self._step(size)
            except self._errors as error:
                raise CompressionError(f"{self.kind}: {error}") from error
            if data:
                return data
        return b""

    def _step(self, size: int) -> bytes:
        if self._object.eof:
            return self._next_member()
        if not self._object.needs_input:
            data: bytes = self._object.decompress(b"", size)
            return data
        chunk = self._pending or self._read(_INPUT)
        self._pending = b""
        if not chunk:
            raise CompressionError(f"{self.kind}: unexpected EOF")
        plain: bytes = self._object.decompress(chunk, size)
        return plain

    def _next_member(self) -> bytes:
        rest = self._object.unused_data or b""
        while len(rest) < MAGIC_LENGTH and (more := self._read(_INPUT)):
            rest += more
        # gzip(1) and xz(1) allow zero bytes as padding between and after members.
        if not rest.lstrip(b"\0"):
            while more := self._read(_INPUT):
                if rest := more.lstrip(b"\0"):
                    break
            else:
                self._ended = True
                return b""
        if detect(rest.lstrip(b"\0")[:MAGIC_LENGTH]) != self.kind:
            raise CompressionError(f"{self.kind}: garbage after the end of the stream")
        self._pending = rest.lstrip(b"\0")
        self._object = _decompressor(self.kind)
        return b""


class Peeked:
    """A reading function with a look at the first bytes."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._head = b""

    def peek(self, count: int) -> bytes:
        """Return the first *count* bytes without consuming them, fewer only at the end."""
        while len(self._head) < count and (more := self._read(_INPUT)):
            self._head += more
        return self._head[:count]

    def read(self, size: int) -> bytes:
        """Return at most *size* bytes."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._read(size)


def open_stream(read: Callable[[int], bytes]) -> Decompressor:
    """Return the plain form of a stream, whatever its compression."""
    peeked = Peeked(read)
    kind = detect(peeked.peek(MAGIC_LENGTH))
    return Decompressor(peeked.read, kind)
