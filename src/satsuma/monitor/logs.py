"""Log drivers: which there are, what their options mean, and the object that the streams write to.

A driver is a format (`logformat`) over a rotating file (`logfile`).  `json-file` and `local` write what
Docker's drivers of these names write, so that tools that read the files go on to work; `none` writes nothing.

`mode=non-blocking` promises that a disk that hangs does not hang the container.  A write to a file cannot
promise that, so the file is then written by a child process behind a queue of `max-buffer-size` bytes; when
the queue is full, new lines are dropped, as moby's ring does (daemon/logger/ring.go).

`validate` is what Docker checks when a container is created, `parse_options` what it checks when it starts.
"""

from __future__ import annotations

import re

from satsuma.base.clock import now_ns
from satsuma.base.errors import InvalidParameter
from satsuma.base.sizes import parse_size
from satsuma.monitor.logchild import ChildFile
from satsuma.monitor.logfile import LogFile
from satsuma.monitor.logformat import JsonFormat, LocalFormat, Splitter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Protocol

    class Format(Protocol):
        """Turns pieces of output into records of a log file."""

        def encode(self, stream: int, pieces: list[tuple[bytes, int]], time_ns: int) -> list[bytes]: ...

    class RecordFile(Protocol):
        """Takes records, each of which stays in one piece."""

        def append(self, records: list[bytes]) -> None: ...
        def close(self) -> None: ...


DRIVERS = ("json-file", "local", "none")
_COMMON = frozenset(("mode", "max-buffer-size"))
_FILE_OPTIONS = frozenset(("max-file", "max-size", "compress"))
_OPTIONS = {
    "json-file": _FILE_OPTIONS | {"labels", "labels-regex", "env", "env-regex", "tag"},
    "local": _FILE_OPTIONS,
}
_UNKNOWN = {
    "json-file": "unknown log opt '{}' for json-file log driver",
    "local": "unknown log opt '{}' for log driver local",
}
DEFAULT_BUFFER = 1024 * 1024
"""moby daemon/logger/ring.go, defaultRingMaxSize."""


def validate(driver: str, options: Mapping[str, str]) -> None:
    """Check the name of a driver and of its options, in Docker's order and words.

    Raises:
        InvalidParameter: unknown driver, option or mode.
    """
    if driver == "none":
        return
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidParameter(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        try:
            parse_size(options["max-buffer-size"])
        except ValueError as error:
            raise InvalidParameter(f"error parsing option max-buffer-size: {error}") from None
    if driver not in DRIVERS:
        raise InvalidParameter(f"logger: no log driver named '{driver}' is registered")
    for key in sorted(options):
        if key not in _COMMON and key not in _OPTIONS[driver]:
            raise InvalidParameter(_UNKNOWN[driver].format(key))


class Options:
    """The values of a driver's options.

    `max_size` is bytes, 0 is no limit; `max_buffer` is 0 in blocking mode.
    """

    __slots__ = ("compress", "max_buffer", "max_file", "max_size")

    def __init__(self, *, max_size: int, max_file: int, compress: bool, max_buffer: int) -> None:
        self.max_size = max_size
        self.max_file = max_file
        self.compress = compress
        self.max_buffer = max_buffer


def parse_options(driver: str, options: Mapping[str, str]) -> Options:
    """Parse the values of options, with the driver's defaults and checks.

    Raises:
        InvalidParameter: in the words of Docker's driver.
    """
    validate(driver, options)
    max_buffer = 0
    if options.get("mode") == "non-blocking":
        max_buffer = (
            parse_size(options["max-buffer-size"]) if "max-buffer-size" in options else DEFAULT_BUFFER
        )
    if driver == "local":
        return _local_options(options, max_buffer)
    max_size, max_file, compress = 0, 1, False
    if "max-size" in options:
        max_size = _human_size(options["max-size"])
        if max_size <= 0:
            raise InvalidParameter("max-size must be a positive number")
    if "max-file" in options:
        max_file = _integer(options["max-file"])
        if max_file < 1:
            raise InvalidParameter("max-file cannot be less than 1")
    if "compress" in options:
        compress = _boolean(options["compress"])
        if compress and (max_file == 1 or not max_size):
            raise InvalidParameter(
                "compress cannot be true when max-file is less than 2 or max-size is not set"
            )
    return Options(max_size=max_size, max_file=max_file, compress=compress, max_buffer=max_buffer)


def _local_options(options: Mapping[str, str], max_buffer: int) -> Options:
    """Source: moby daemon/logger/local/config.go, with its defaults of 20 MiB, five files, compressed."""
    max_size, max_file, compress = 20 * 1024 * 1024, 5, True
    if "max-size" in options:
        try:
            max_size = _human_size(options["max-size"])
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid value for max-size: {options['max-size']}: {error}") from None
    if "max-file" in options:
        try:
            max_file = _integer(options["max-file"])
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid value for max-file: {options['max-file']}: {error}") from None
    if "compress" in options:
        try:
            compress = _boolean(options["compress"])
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid boolean value for compress: {error}") from None
    if max_size < 0:
        raise InvalidParameter("max-size must not be negative")
    if max_file < 0:
        raise InvalidParameter("max-file must not be negative")
    if compress and max_file <= 1:
        raise InvalidParameter("compression cannot be enabled when max file count is 1")
    return Options(max_size=max_size, max_file=max(1, max_file), compress=compress, max_buffer=max_buffer)


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?([kKmMgGtTpP]?)[iI]?[bB]?", re.ASCII)
_DECIMAL = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def _human_size(text: str) -> int:
    """Parse a size with decimal units: the log drivers, unlike the memory flags, count 1m as 10^6 bytes.

    Source: docker/go-units FromHumanSize.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        if text.startswith("-") and _SIZE.fullmatch(text[1:]):
            return -1
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(float(match[1]) * 1000.0 ** _DECIMAL[match[2].lower()])


def _integer(text: str) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _boolean(text: str) -> bool:
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise InvalidParameter(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def extra_attributes(
    options: Mapping[str, str], *, labels: Mapping[str, str], env: Iterable[str], tag: str = ""
) -> dict[str, str]:
    """Select the labels and variables that the options name; they are stored with every line.

    Args:
        tag: the rendered `tag` template, "" when the option is not given.
    Raises:
        InvalidParameter: a regular expression that does not compile.
    """
    variables = dict(item.split("=", 1) for item in env if "=" in item)
    found: dict[str, str] = {}
    for option, values in (("labels", labels), ("env", variables)):
        for key in options.get(option, "").split(","):
            if key in values:
                found[key] = values[key]
        pattern = options.get(f"{option}-regex", "")
        if pattern:
            try:
                search = re.compile(pattern).search
            except re.error as error:
                raise InvalidParameter(f"error parsing regexp: {error}: `{pattern}`") from None
            found.update((key, value) for key, value in values.items() if search(key))
    if tag:
        found["tag"] = tag
    return found


class FileLog:
    """Lines of output → records → *append*, which is a log file or the child that owns one."""

    __slots__ = ("_file", "_format", "_last_ns", "_splitters")

    def __init__(self, file: RecordFile, encoding: Format) -> None:
        self._file = file
        self._format = encoding
        self._splitters = {1: Splitter(), 2: Splitter()}
        self._last_ns = 0

    def write(self, stream: int, data: bytes) -> None:
        """Log a chunk of output.  An unfinished line waits for its rest."""
        pieces = self._splitters[stream].feed(data)
        if pieces:
            self._append(stream, pieces)

    def _append(self, stream: int, pieces: list[tuple[bytes, int]]) -> None:
        # Lines get increasing times, one nanosecond apart within a chunk: readers resume behind a time, and
        # collectors take two equal lines of one time for one line.
        start = max(now_ns(), self._last_ns + 1)
        self._last_ns = start + len(pieces) - 1
        self._file.append(self._format.encode(stream, pieces, start))

    def close(self) -> None:
        """Log unfinished lines as they are and close the file."""
        for stream, splitter in self._splitters.items():
            pieces = splitter.close()
            if pieces:
                self._append(stream, pieces)
        self._file.close()


def open_log(driver: str, path: str, options: Mapping[str, str], attrs: Mapping[str, str]) -> FileLog | None:
    """Open the log of a container for appending; None when nothing is to be written.

    Raises:
        InvalidParameter: bad driver or options.
        OSError: the file cannot be opened.
    """
    values = parse_options(driver, options)
    if driver == "none":
        return None
    encoding: Format = JsonFormat(attrs) if driver == "json-file" else LocalFormat(attrs)
    file = LogFile(path, max_size=values.max_size, max_file=values.max_file, compress=values.compress)
    return FileLog(ChildFile(file, values.max_buffer) if values.max_buffer else file, encoding)
