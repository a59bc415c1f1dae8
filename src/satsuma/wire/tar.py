"""tar archives as streams: ustar, PAX, GNU long names, big numbers and sparse files in; ustar and PAX out.

Owns the format, and the limits that keep hostile archives from costing memory.  Must not know files or
sockets: a `Reader` pulls bytes through a function, `encode` returns header bytes.

Names, link targets and attribute values are `bytes`: an archive may hold anything but NUL.  Nothing is decided
here about what a name means ("..", absolute, whiteouts); that belongs to who extracts.

Source: POSIX pax(1); GNU tar manual "Basic Tar Format"; Go archive/tar, whose leniency Docker has.
"""

from __future__ import annotations

import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 512
FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
END = bytes(2 * BLOCK)
"""What ends an archive."""

MAX_PATH = 4096
MAX_PAX = 1 << 20
MAX_SPARSE = 1 << 16
MAX_ENTRIES = 5_000_000
_CHUNK = 1 << 18
_ZERO_BLOCK = bytes(BLOCK)
_SPACES = 8 * ord(" ")
_ADLER = 65521  # the modulus of Adler-32
_MAX_SIZE = 1 << 62
_NS = 1_000_000_000
_XATTR = b"SCHILY.xattr."
_REGULAR = frozenset((b"0", b"\0", b"7", b"S"))
_WITHOUT_DATA = frozenset((LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO))


class TarError(ValueError):
    """The archive is malformed, cut off or beyond the limits."""


class Entry:
    """One member; numbers are what the archive says, unchecked beyond their range."""

    __slots__ = (
        "devmajor",
        "devminor",
        "gid",
        "gname",
        "kind",
        "linkname",
        "mode",
        "mtime_ns",
        "name",
        "size",
        "sparse",
        "uid",
        "uname",
        "xattrs",
    )

    def __init__(
        self,
        name: bytes,
        kind: bytes = FILE,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime_ns: int = 0,
        linkname: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime_ns = mtime_ns
        self.linkname = linkname
        self.devmajor, self.devminor = device
        self.xattrs = xattrs or {}
        self.uname = self.gname = b""
        self.sparse: list[tuple[int, int]] | None = None
        """(offset, length) of the parts that hold data, in order; None for an ordinary file."""

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.kind!r}, mode={self.mode:o}, size={self.size})"


class Reader:
    """Entries of an archive, one after the other.

    `next_entry` returns the next one and skips what was not read of the previous; `chunks` gives the payload.
    Memory is bounded whatever the archive says.

    Args:
        read: returns at most so many bytes, b"" at the end.
    """

    def __init__(self, read: Callable[[int], bytes], *, max_entries: int = MAX_ENTRIES) -> None:
        self._read = read
        self._buffer = b""
        self._position = 0
        self._left = 0  # payload of the current entry not yet read
        self._padding = 0
        self._entry: Entry | None = None
        self._globals: dict[bytes, bytes] = {}
        self._entries_left = max_entries
        self._done = False

    # Bytes

    def _fill(self) -> bool:
        """Read more into the empty buffer; False at the end."""
        self._buffer = self._read(_CHUNK)
        self._position = 0
        return bool(self._buffer)

    def _take(self, count: int) -> bytes:
        """Return exactly *count* bytes, fewer only at the end."""
        end = self._position + count
        if end <= len(self._buffer):
            data = self._buffer[self._position : end]
            self._position = end
            return data
        parts = [self._buffer[self._position :]]
        missing = count - len(parts[0])
        self._position = len(self._buffer)
        while missing and self._fill():
            part = self._buffer[:missing]
            self._position = len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _exactly(self, count: int) -> bytes:
        data = self._take(count)
        if len(data) != count:
            raise TarError("unexpected EOF")
        return data

    def _skip(self, count: int) -> None:
        while count:
            available = len(self._buffer) - self._position
            if not available:
                if not self._fill():
                    raise TarError("unexpected EOF")
                continue
            step = min(count, available)
            self._position += step
            count -= step

    # Entries

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.next_entry()) is not None:
            yield entry

    def next_entry(self) -> Entry | None:
        """Return the next entry, or None at the end of the archive.

        Raises:
            TarError: malformed, or beyond a limit.
        """
        if self._done:
            return None
        self._skip(self._left)
        # An archive may end with the payload of its last entry: the docker command line cuts padding and trailer
        # off when it adds a Dockerfile from outside of the context, and Go's archive/tar takes that.
        self._take(self._padding)
        self._left = self._padding = 0
        pax: dict[bytes, bytes] = {}
        long_name = long_link = None
        while True:
            block = self._header_block()
            if block is None:
                self._done = True
                if pax or long_name is not None or long_link is not None:
                    raise TarError("unexpected EOF")
                return None
            kind = block[156:157]
            if kind == b"x":
                pax = _parse_pax(self._meta(block, MAX_PAX))
            elif kind == b"g":
                self._globals.update(_parse_pax(self._meta(block, MAX_PAX)))
                if len(self._globals) > 1024:
                    raise TarError("too many global PAX records")
            elif kind == b"L":
                long_name = self._meta(block, MAX_PATH + 1).partition(b"\0")[0]
            elif kind == b"K":
                long_link = self._meta(block, MAX_PATH + 1).partition(b"\0")[0]
            else:
                return self._finish(
                    block, {**self._globals, **pax} if self._globals else pax, long_name, long_link
                )

    def _header_block(self) -> bytes | None:
        self._entries_left -= 1
        if self._entries_left < 0:
            raise TarError("too many entries")
        block = self._take(BLOCK)
        if not block:
            return None
        if len(block) != BLOCK:
            raise TarError("unexpected EOF")
        if block == _ZERO_BLOCK:
            # One zero block and the end of the stream is accepted, as by Go.
            second = self._take(BLOCK)
            if second and second != _ZERO_BLOCK:
                raise TarError("archive/tar: invalid tar header")
            return None
        _check_sum(block)
        return block

    def _meta(self, block: bytes, limit: int) -> bytes:
        size = _number(block[124:136])
        if size > limit:
            raise TarError("tar header record is too long")
        data = self._exactly(size)
        self._skip(-size % BLOCK)
        return data

    def _finish(
        self, block: bytes, pax: dict[bytes, bytes], long_name: bytes | None, long_link: bytes | None
    ) -> Entry:
        entry = _parse_header(block)
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.linkname = long_link
        sparse: list[bytes] = []
        if pax:
            sparse = _apply_pax(entry, pax)
        if entry.kind == FILE and entry.name.endswith(b"/"):
            entry.kind = DIRECTORY  # V7 tar
        if len(entry.name) > MAX_PATH or len(entry.linkname) > MAX_PATH:
            raise TarError(f"path of {max(len(entry.name), len(entry.linkname))} bytes is too long")
        if not 0 <= entry.size < _MAX_SIZE:
            raise TarError("archive/tar: invalid tar header: size")
        if entry.kind in _WITHOUT_DATA:
            # A hard link may carry a size without having data (old GNU tar).
            entry.size = 0
        self._left = entry.size
        self._padding = -entry.size % BLOCK
        if block[156:157] == b"S":
            self._old_sparse(entry, block)
        elif sparse or b"GNU.sparse.major" in pax or b"GNU.sparse.size" in pax:
            self._pax_sparse(entry, pax, sparse)
        self._entry = entry
        return entry

    # Payload

    def chunks(self) -> Iterator[tuple[int, memoryview]]:
        """Yield (offset in the file, data) of the current entry; holes of a sparse file are left out.

        The data is valid until the next step.
        """
        entry = self._entry
        if entry is None:
            return
        for offset, length in [(0, self._left)] if entry.sparse is None else entry.sparse:
            while length:
                available = len(self._buffer) - self._position
                if not available:
                    if not self._fill():
                        raise TarError("unexpected EOF")
                    continue
                step = min(length, available)
                view = memoryview(self._buffer)[self._position : self._position + step]
                self._position += step
                self._left -= step
                length -= step
                yield offset, view
                offset += step

    def read_payload(self, limit: int) -> bytes:
        """Return the payload of a small ordinary entry.

        Raises:
            TarError: it is larger than *limit*.
        """
        if self._left > limit:
            raise TarError(f"entry of {self._left} bytes is too large")
        return b"".join([bytes(view) for _, view in self.chunks()])

    def drain(self) -> None:
        """Read the stream to its end, after the last entry: what follows still counts for a digest."""
        while self._fill():
            pass
        self._position = len(self._buffer)

    # Sparse files

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        """GNU 'S': four parts in the header, 21 in each extension block."""
        parts = _sparse_fields(block[386:482], 4)
        extended = block[482]
        real_size = _number(block[483:495])
        while extended:
            if len(parts) > MAX_SPARSE:
                raise TarError("sparse map is too long")
            extension = self._exactly(BLOCK)
            parts += _sparse_fields(extension, 21)
            extended = extension[504]
        entry.kind = FILE
        self._set_sparse(entry, parts, real_size)

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes], records: list[bytes]) -> None:
        """GNU.sparse 0.0 and 0.1 (map in the records) and 1.0 (map before the data)."""
        if pax.get(b"GNU.sparse.name"):
            entry.name = pax[b"GNU.sparse.name"]
        real = pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b"0"
        if (pax.get(b"GNU.sparse.major"), pax.get(b"GNU.sparse.minor")) == (b"1", b"0"):
            numbers = self._sparse_map()
        elif pax.get(b"GNU.sparse.map"):
            numbers = [_decimal(n) for n in pax[b"GNU.sparse.map"].split(b",", 2 * MAX_SPARSE + 2)]
        else:
            numbers = [_decimal(n) for n in records]
        if len(numbers) % 2:
            raise TarError("invalid sparse map")
        parts = list(zip(numbers[::2], numbers[1::2], strict=True))
        self._set_sparse(entry, parts, _decimal(real))

    def _sparse_map(self) -> list[int]:
        """Read the map of format 1.0: decimal lines, the count first, padded to a block."""
        lines: list[bytes] = []
        rest = b""
        wanted = 1
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise TarError("invalid sparse map")
            *found, rest = (rest + self._exactly(BLOCK)).split(b"\n")
            self._left -= BLOCK
            lines += found
            if lines and wanted == 1:
                wanted = 1 + 2 * _decimal(lines[0])
                if wanted > 2 * MAX_SPARSE:
                    raise TarError("sparse map is too long")
        return [_decimal(line) for line in lines[1:wanted]]

    def _set_sparse(self, entry: Entry, parts: list[tuple[int, int]], real_size: int) -> None:
        if len(parts) > MAX_SPARSE:
            raise TarError("sparse map is too long")
        position = 0
        for offset, length in parts:
            if offset < position or length < 0:
                raise TarError("invalid sparse map")
            position = offset + length
        if position > real_size or real_size >= _MAX_SIZE or sum(n for _, n in parts) != self._left:
            raise TarError("invalid sparse map")
        entry.sparse = [part for part in parts if part[1]]
        entry.size = real_size


def _check_sum(block: bytes) -> None:
    field = block[148:156]
    try:
        expected = _number(field)
    except TarError:
        raise TarError("archive/tar: invalid tar header") from None
    # The low half of Adler-32 is 1 + the sum of the bytes, modulo 65521: 20 times faster than sum().
    actual = (zlib.adler32(block) & 0xFFFF) - 1 - sum(field) + _SPACES
    if (actual - expected) % _ADLER == 0:
        return
    # Some old programs summed signed bytes.
    signed = sum(b - 256 if b > 127 else b for b in block[:148] + b" " * 8 + block[156:])
    if signed != expected:
        raise TarError("archive/tar: invalid tar header")


def _number(field: bytes) -> int:
    first = field[0]
    if first & 0x80:
        # GNU base-256, two's complement with the top bit as the mark.
        if first & 0x40:
            return int.from_bytes(field, "big", signed=True)
        return int.from_bytes(bytes((first & 0x7F,)) + field[1:], "big")
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():  # int() would take "_", "+" and "0o"
        raise TarError("archive/tar: invalid tar header: number")
    try:
        return int(digits, 8)
    except ValueError:
        raise TarError("archive/tar: invalid tar header: number") from None


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise TarError("invalid number in a PAX record")
    return int(text)


def _parse_header(block: bytes) -> Entry:
    name = block[:100].partition(b"\0")[0]
    magic = block[257:263]
    kind = block[156:157]
    entry = Entry(
        name,
        FILE if kind in _REGULAR else kind,
        mode=_number(block[100:108]) & 0o7777,
        uid=_number(block[108:116]),
        gid=_number(block[116:124]),
        size=_number(block[124:136]),
        mtime_ns=_number(block[136:148]) * _NS,
        linkname=block[157:257].partition(b"\0")[0],
    )
    if magic.startswith(b"ustar"):
        entry.uname = block[265:297].partition(b"\0")[0]
        entry.gname = block[297:329].partition(b"\0")[0]
        if kind in (CHAR, BLOCK_DEVICE):
            entry.devmajor = _number(block[329:337])
            entry.devminor = _number(block[337:345])
        # GNU's magic "ustar  " puts times and the sparse map where ustar has the prefix.
        if magic == b"ustar\0" and block[345]:
            prefix = block[345:500].partition(b"\0")[0]
            entry.name = prefix + b"/" + name
    return entry


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Parse "%d key=value\\n" records; of GNU.sparse 0.0's repeated ones all values are kept, joined by ","."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 12)
        if space < 0 or not data[position:space].isdigit():
            raise TarError("invalid PAX record")
        end = position + int(data[position:space])
        if end > len(data) or end < space + 3 or data[end - 1] != 0x0A:
            raise TarError("invalid PAX record")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise TarError("invalid PAX record")
        if b"\0" in value and not key.startswith(_XATTR):
            raise TarError("invalid PAX record")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            key, value = b"GNU.sparse.parts", records.get(b"GNU.sparse.parts", b"") + value + b","
        records[key] = value
        position = end
    return records


def _apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> list[bytes]:
    """Override header fields by PAX records; return the parts of a sparse map of format 0.0."""
    for key, value in pax.items():
        if key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :]] = value
        elif (
            value and (rule := _PAX_FIELDS.get(key)) is not None
        ):  # an empty value takes a global record back
            setattr(entry, rule[0], rule[1](value) if rule[1] is not None else value)
    parts = pax.get(b"GNU.sparse.parts", b"").rstrip(b",")
    return parts.split(b",", 2 * MAX_SPARSE + 2) if parts else []


def _pax_time(value: bytes) -> int:
    negative = value.startswith(b"-")
    whole, _, fraction = value.lstrip(b"-").partition(b".")
    if not (whole or fraction) or not (whole + fraction).isdigit() or len(value) > 64:
        raise TarError("invalid time in a PAX record")
    ns = int(whole or b"0") * _NS + int((fraction + b"000000000")[:9])
    return -ns if negative else ns


_PAX_FIELDS = {
    b"path": ("name", None),
    b"linkpath": ("linkname", None),
    b"size": ("size", _decimal),
    b"uid": ("uid", _decimal),
    b"gid": ("gid", _decimal),
    b"mtime": ("mtime_ns", _pax_time),
    b"uname": ("uname", None),
    b"gname": ("gname", None),
}


def _sparse_fields(data: bytes, count: int) -> list[tuple[int, int]]:
    parts = []
    for i in range(0, 24 * count, 24):
        if data[i] == 0:
            break
        parts.append((_number(data[i : i + 12]), _number(data[i + 12 : i + 24])))
    return parts


def encode(entry: Entry) -> bytes:
    """Return the header of *entry*: one ustar block, with a PAX header before it only if something does not fit.

    The result depends on nothing but the entry, so equal trees make equal archives.  `size` bytes of payload
    and `padding(size)` must follow for a `FILE`.
    """
    records = _pax_records(entry)
    head = b""
    if records:
        body = b"".join(_pax_record(key, value) for key, value in records)
        parent, slash, base = entry.name.rstrip(b"/").rpartition(b"/")
        name = parent + slash + b"PaxHeaders.0/" + base
        head = _block(Entry(name, b"x", size=len(body))) + body + padding(len(body))
    return head + _block(entry)


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of a payload."""
    return bytes(-size % BLOCK)


def _fit(value: int, digits: int) -> int:
    return value if 0 <= value < 8**digits else 0


def _ascii(text: bytes) -> bytes:
    return text if text.isascii() else bytes(c for c in text if c < 128)


def _pax_records(entry: Entry) -> list[tuple[bytes, bytes]]:
    records: list[tuple[bytes, bytes]] = []
    if len(entry.name) > 100 or not entry.name.isascii():
        records.append((b"path", entry.name))
    if len(entry.linkname) > 100 or not entry.linkname.isascii():
        records.append((b"linkpath", entry.linkname))
    for key, value, digits in ((b"uid", entry.uid, 7), (b"gid", entry.gid, 7), (b"size", entry.size, 11)):
        if value >= 8**digits:
            records.append((key, b"%d" % value))
    seconds, fraction = divmod(entry.mtime_ns, _NS)
    if fraction or not 0 <= seconds < 8**11:
        records.append((b"mtime", _format_time(entry.mtime_ns)))
    records += [(_XATTR + name, data) for name, data in entry.xattrs.items()]
    return sorted(records)


def _format_time(ns: int) -> bytes:
    seconds, fraction = divmod(abs(ns), _NS)
    text = b"%d.%09d" % (seconds, fraction)
    return (b"-" if ns < 0 else b"") + text.rstrip(b"0").rstrip(b".")


def _pax_record(key: bytes, value: bytes) -> bytes:
    # The length counts its own digits.
    content = len(key) + len(value) + 3
    length = content + len(str(content))
    if len(str(length)) != len(str(content)):
        length = content + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(entry: Entry) -> bytes:
    """Encode one ustar header; what does not fit is cut, the PAX records have it whole."""
    seconds = entry.mtime_ns // _NS
    block = (
        b"%s%07o\0%07o\0%07o\0%011o\0%011o\0        %s%sustar\x0000%s%s%07o\0%07o\0"
        % (
            _ascii(entry.name)[:100].ljust(100, b"\0"),
            entry.mode & 0o7777,
            _fit(entry.uid, 7),
            _fit(entry.gid, 7),
            _fit(entry.size, 11),
            _fit(seconds, 11),
            entry.kind,
            _ascii(entry.linkname)[:100].ljust(100, b"\0"),
            entry.uname[:32].ljust(32, b"\0"),
            entry.gname[:32].ljust(32, b"\0"),
            entry.devmajor,
            entry.devminor,
        )
    ).ljust(BLOCK, b"\0")
    return b"%s%06o\0 %s" % (block[:148], sum(block), block[156:])
