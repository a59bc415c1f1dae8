"""An attached terminal: standard streams on one side, a hijacked connection on the other.

One thread and one poll(2): input is sent as the connection takes it, output is written as it comes, signals go to the
container, a new window size to its terminal, and the answer of a waiting request is read when it arrives.

Source: Docker Engine API "Attach to a container"; behaviour of docker 28.2.
"""

from __future__ import annotations

import os
import select
import signal
import socket

from satsuma.cli.errors import ApiError, CliError
from satsuma.cli.terminal import DetachDetector, RawMode, window_size
from satsuma.wire.http import ProtocolError
from satsuma.wire.stdcopy import STDERR, Decoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from satsuma.cli.client import Answer, Engine

_PIECE = 1 << 16
DETACHED = "read escape sequence"
"""What `attach` and `exec` say, with status 1, when the user detaches; for `run` and `start` it is success."""
_NEVER_FORWARDED = ("SIGCHLD", "SIGPIPE", "SIGURG", "SIGWINCH", "SIGTTIN", "SIGTTOU", "SIGKILL", "SIGSTOP",
                    "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS", "SIGABRT")  # fmt: skip


class Signals:
    """Signals as bytes on a pipe, so that poll(2) sees them; old handlers come back at the end."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old: dict[int, object] = {}
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        return self._reader

    def catch(self, *numbers: int) -> None:
        """Take note of these signals from now on."""
        for number in numbers:
            self._old[number] = signal.signal(number, _noted)

    def take(self) -> list[int]:
        """Return the signals that came."""
        try:
            return list(os.read(self._reader, 512))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Put everything back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Handle nothing: the wake-up descriptor has the number already."""


def forwardable() -> list[int]:
    """Return the signals that an attached container gets in our stead."""
    skip = {getattr(signal, name) for name in _NEVER_FORWARDED}
    named = [number for number in signal.Signals if number not in skip]
    return [int(number) for number in named]


class Attachment:
    """One attached session."""

    def __init__(self, engine: Engine, connection: socket.socket, initial: bytes, *, tty: bool) -> None:
        self.engine = engine
        self.connection = connection
        self.initial = initial
        self.tty = tty
        self.stdin = False
        self.detach_keys = b""
        self.resize_path = ""
        """Where to tell a new window size; empty without a terminal on both sides."""
        self.kill_path = ""
        """Where signals go; empty: they are ours."""
        self.wait: Answer | None = None
        self.wait_result: dict[str, object] | None = None
        self.show_stdout = True
        self.show_stderr = True
        self._decoder = Decoder()
        self._pending = bytearray()
        self._stdin_open = False
        self._detector = DetachDetector(b"")
        self.signals = Signals()

    # -- whole session ----------------------------------------------------------------------------------------------

    def catch_signals(self) -> None:
        """From now on signals go to the container, not to us."""
        self.signals.catch(*forwardable())

    def pump(self) -> bool:
        """Move bytes until the other side has no more, or the user detaches.

        Returns: False when the user typed the detach keys.
        """
        self._stdin_open = self.stdin
        self._detector = DetachDetector(self.detach_keys if self.tty and self.stdin else b"")
        if self.resize_path:
            self.signals.catch(signal.SIGWINCH)
        with RawMode(wanted=self.tty and self.stdin):
            self._show(self.initial)
            return self._loop()

    def close(self) -> None:
        """Close the connection and give the signals back."""
        self.connection.close()
        self.signals.close()

    def resize(self) -> None:
        """Tell the size of our window; a container that has ended does not care."""
        height, width = window_size()
        if height and width:
            try:
                self.engine.post(self.resize_path, {"h": height, "w": width})
            except ApiError:
                pass

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _loop(self) -> bool:
        self.connection.setblocking(False)
        while True:
            poll = select.poll()
            poll.register(self.signals, select.POLLIN)
            poll.register(self.connection, select.POLLIN | (select.POLLOUT if self._pending else 0))
            if self._stdin_open and not self._pending:
                poll.register(0, select.POLLIN)
            for fd, events in poll.poll():
                if fd == self.signals.fileno():
                    self._take_signals()
                elif fd == 0:
                    if not self._read_stdin():
                        return False
                else:
                    if events & select.POLLOUT:
                        self._flush()
                    if events & ~select.POLLOUT and not self._read_connection():
                        return True

    def _take_signals(self) -> None:
        for number in self.signals.take():
            if number == signal.SIGWINCH:
                if self.resize_path:
                    self.resize()
            elif self.kill_path:
                forward(self.engine, self.kill_path, number)

    def _read_stdin(self) -> bool:
        try:
            data = os.read(0, _PIECE)
        except OSError:
            data = b""
        if not data:
            self._stdin_open = False
            try:
                self.connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            return True
        data, detached = self._detector.feed(data)
        self._pending += data
        self._flush()
        return not detached

    def _flush(self) -> None:
        try:
            while self._pending:
                del self._pending[: self.connection.send(self._pending)]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            # The process has closed its input; what it still says is worth hearing.
            self._pending.clear()
            self._stdin_open = False

    def _read_connection(self) -> bool:
        try:
            data = self.connection.recv(_PIECE)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        self._show(data)
        return bool(data)

    def _show(self, data: bytes) -> None:
        if not data:
            return
        if self.tty:
            _write(1, data)
            return
        for stream, payload in self._decoder.feed(data):
            if stream == STDERR:
                if self.show_stderr:
                    _write(2, payload)
            elif self.show_stdout:
                _write(1, payload)

    # -- the end ----------------------------------------------------------------------------------------------------

    def exit_status(self, answer: Answer) -> int:
        """Return the status in the answer of a wait request, passing on signals while it is not there.

        Raises:
            CliError: the engine could not wait.
        """
        parser, body = answer.parser, bytearray()
        try:
            while True:
                if piece := parser.read_body():
                    body += piece
                elif parser.body_done:
                    break
                else:
                    self._await(answer)
        except (ProtocolError, ConnectionError) as error:
            raise CliError(f"error waiting for container: {error or 'unexpected EOF'}", 125) from None
        return wait_status(bytes(body))

    def _await(self, answer: Answer) -> None:
        poll = select.poll()
        poll.register(self.signals, select.POLLIN)
        poll.register(answer.connection, select.POLLIN)
        for fd, _ in poll.poll():
            if fd == self.signals.fileno():
                self._take_signals()
            else:
                answer.parser.feed(answer.connection.recv(_PIECE))


def wait_status(body: bytes) -> int:
    """Return the status in the body of a wait answer.

    Raises:
        CliError: the body holds an error.
    """
    import json

    result = json.loads(body)
    if result.get("Error"):
        raise CliError(f"error waiting for container: {result['Error'].get('Message')}", 125)
    return int(result["StatusCode"])


def forward(engine: Engine, path: str, number: int) -> None:
    """Send a signal on; a container that has ended in the meantime is no error."""
    try:
        name = signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        name = str(number)
    try:
        engine.post(path, {"signal": name})
    except ApiError:
        pass


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
