"""A small D-Bus client: the wire format as pure functions, and a blocking connection to call methods with.

Must not know who is called; `satsuma.linux.systemd` does.  Own code, because a container's start must not pay for
the import of a library, and six methods need no more.

A message is a fixed header, an array of header fields, padding to 8, and the body; values are marshalled by
their signature, each aligned to its size.  Python values: integers, bool, float, str, bytes for "ay", lists for
other arrays, dictionaries for "a{…}", tuples for structs, and `(signature, value)` for a variant.

Source: D-Bus Specification 0.43, "Message Protocol", "Authentication Protocol", "Server Addresses".
"""

from __future__ import annotations

import _socket
import os
import select
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Values = list[Any]

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
_ALIGN = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}  # others: 4
_FIXED = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "b": "I", "h": "I"}
_MAX_MESSAGE = 16 << 20  # the protocol allows 128 MiB; nothing of what we ask for comes near
_MAX_ARRAY = 64 << 20
_MAX_DEPTH = 32
_FIELDS = {
    1: ("path", "o"),
    2: ("interface", "s"),
    3: ("member", "s"),
    4: ("error_name", "s"),
    5: ("reply_serial", "u"),
    6: ("destination", "s"),
    7: ("sender", "s"),
    8: ("signature", "g"),
}


class ProtocolError(ValueError):
    """Bytes or values that are no D-Bus message."""


class CallError(Exception):
    """The other side answered with an error.

    Attributes:
        name: like "org.freedesktop.systemd1.NoSuchUnit".
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message or name)
        self.name = name


# --- values ---------------------------------------------------------------------------------------------------


def split_signature(signature: str) -> list[str]:
    """Return the complete types of a signature."""
    types = []
    at = 0
    while at < len(signature):
        end = _type_end(signature, at)
        types.append(signature[at:end])
        at = end
    return types


def _type_end(signature: str, at: int, depth: int = 0) -> int:
    code = signature[at : at + 1]
    if depth > _MAX_DEPTH:
        raise ProtocolError("signature nested too deeply")
    if code == "a":
        return _type_end(signature, at + 1, depth + 1)
    if code in ("(", "{"):
        close = ")" if code == "(" else "}"
        at += 1
        while signature[at : at + 1] != close:
            at = _type_end(signature, at, depth + 1)
        return at + 1
    if not code or (code not in _FIXED and code not in "sogv"):
        raise ProtocolError(f"invalid signature {signature!r}")
    return at + 1


def _pad(out: bytearray, kind: str) -> None:
    out += b"\0" * (-len(out) % _ALIGN.get(kind[0], 4))


def _put(out: bytearray, kind: str, value: Any) -> None:
    code = kind[0]
    _pad(out, kind)
    if code in _FIXED:
        out += struct.pack("<" + _FIXED[code], value)
    elif code == "g":
        data = value.encode("ascii")
        out += bytes([len(data)]) + data + b"\0"
    elif code in "so":
        data = value.encode()
        if b"\0" in data:
            raise ProtocolError("string with a zero byte")
        out += struct.pack("<I", len(data)) + data + b"\0"
    elif code == "v":
        inner, content = value
        _put(out, "g", inner)
        _put(out, inner, content)
    elif code == "a":
        _put_array(out, kind[1:], value)
    else:
        members = split_signature(kind[1:-1])
        if len(members) != len(value):
            raise ProtocolError(f"{len(value)} values for the signature {kind!r}")
        for member, item in zip(members, value, strict=True):
            _put(out, member, item)


def _put_array(out: bytearray, element: str, value: Any) -> None:
    place = len(out)
    out += b"\0\0\0\0"
    _pad(out, element)  # not counted in the length
    start = len(out)
    if element == "y":
        out += bytes(value)
    else:
        for item in value.items() if element[0] == "{" else value:
            _put(out, element, item)
    struct.pack_into("<I", out, place, len(out) - start)


def marshal(signature: str, values: Values | tuple[Any, ...]) -> bytes:
    """Return *values* in little-endian wire format."""
    out = bytearray()
    types = split_signature(signature)
    if len(types) != len(values):
        raise ProtocolError(f"{len(values)} values for the signature {signature!r}")
    try:
        for kind, value in zip(types, values, strict=True):
            _put(out, kind, value)
    except (struct.error, AttributeError, TypeError, UnicodeError) as error:
        raise ProtocolError(f"values do not fit the signature {signature!r}: {error}") from error
    return bytes(out)


class _Reader:
    """Takes values from bytes; every length is checked against what is there."""

    __slots__ = ("at", "data", "order")

    def __init__(self, data: bytes, order: str, at: int = 0) -> None:
        self.data = data
        self.order = order
        self.at = at

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise ProtocolError("message is too short")
        chunk = self.data[self.at : end]
        self.at = end
        return chunk

    def align(self, kind: str) -> None:
        self.take(-self.at % _ALIGN.get(kind[0], 4))

    def value(self, kind: str, depth: int = 0) -> Any:
        code = kind[0]
        if depth > _MAX_DEPTH:
            raise ProtocolError("values nested too deeply")
        self.align(kind)
        if code in _FIXED:
            layout = struct.Struct(self.order + _FIXED[code])
            (number,) = layout.unpack(self.take(layout.size))
            return bool(number) if code == "b" else number
        if code in "sog":
            length = self.take(1)[0] if code == "g" else self.value("u")
            text = self.take(length)
            self.take(1)
            try:
                return text.decode()
            except UnicodeDecodeError as error:
                raise ProtocolError("string that is not UTF-8") from error
        if code == "v":
            inner = self.value("g")
            if len(split_signature(inner)) != 1:
                raise ProtocolError(f"variant of the signature {inner!r}")
            return (inner, self.value(inner, depth + 1))
        if code == "a":
            return self.array(kind[1:], depth)
        return tuple(self.value(member, depth + 1) for member in split_signature(kind[1:-1]))

    def array(self, element: str, depth: int) -> Any:
        length = self.value("u")
        if length > _MAX_ARRAY:
            raise ProtocolError("array is too long")
        self.align(element)
        end = self.at + length
        if end > len(self.data):
            raise ProtocolError("message is too short")
        if element == "y":
            return self.take(length)
        items = []
        while self.at < end:
            items.append(self.value(element, depth + 1))
        if self.at != end:
            raise ProtocolError("array of a wrong length")
        return dict(items) if element[0] == "{" else items


def unmarshal(signature: str, data: bytes, *, order: str = "<", at: int = 0) -> Values:
    """Return the values of *data* from offset *at*; *order* is "<" or ">".

    Raises:
        ProtocolError: they are not there.
    """
    reader = _Reader(data, order, at)
    return [reader.value(kind) for kind in split_signature(signature)]


# --- messages -------------------------------------------------------------------------------------------------


class Message:
    """A message that was received, or is to be sent."""

    __slots__ = (
        "body",
        "destination",
        "error_name",
        "flags",
        "interface",
        "kind",
        "member",
        "path",
        "reply_serial",
        "sender",
        "serial",
        "signature",
    )

    def __init__(self, kind: int, serial: int, **fields: Any) -> None:
        self.kind = kind
        self.serial = serial
        self.flags = 0
        self.path = self.interface = self.member = self.error_name = ""
        self.destination = self.sender = self.signature = ""
        self.reply_serial = 0
        self.body: Values = []
        for name, value in fields.items():
            setattr(self, name, value)


def encode_message(message: Message) -> bytes:
    """Return a message in little-endian wire format."""
    body = marshal(message.signature, message.body)
    fields = [
        (number, (kind, getattr(message, name)))
        for number, (name, kind) in _FIELDS.items()
        if getattr(message, name)
    ]
    head = bytearray(
        marshal("yyyyuua(yv)", (ord("l"), message.kind, message.flags, 1, len(body), message.serial, fields))
    )
    _pad(head, "(")
    return bytes(head) + body


def message_length(data: bytes) -> int:
    """Return how long the message that begins with *data* (at least 16 bytes) is.

    Raises:
        ProtocolError: it is not one, or too long for us.
    """
    order = {0x6C: "<", 0x42: ">"}.get(data[0])
    if order is None or data[3] != 1:
        raise ProtocolError("not a D-Bus message")
    body, _, fields = struct.unpack_from(order + "III", data, 4)
    total: int = 16 + fields + -fields % 8 + body
    if total > _MAX_MESSAGE:
        raise ProtocolError("message is too long")
    return total


def parse_message(data: bytes) -> Message:
    """Return the message of exactly these bytes.

    Raises:
        ProtocolError: it is not one.
    """
    if len(data) < 16 or message_length(data) != len(data):
        raise ProtocolError("not a whole D-Bus message")
    order = "<" if data[0] == 0x6C else ">"
    reader = _Reader(data, order)
    _, kind, flags, _, _, serial, fields = (
        reader.value(code) for code in ("y", "y", "y", "y", "u", "u", "a(yv)")
    )
    message = Message(kind, serial, flags=flags)
    for number, (signature, value) in fields:
        name, expected = _FIELDS.get(number, ("", ""))
        if name:
            if signature != expected:
                raise ProtocolError(f"header field {name} of type {signature!r}")
            setattr(message, name, value)
    reader.align("(")
    message.body = unmarshal(message.signature, data, order=order, at=reader.at)
    return message


# --- connection -----------------------------------------------------------------------------------------------


def parse_address(address: str) -> list[str]:
    """Return the UNIX socket names of a server address; abstract ones begin with a zero character."""
    names = []
    for entry in address.split(";"):
        transport, _, options = entry.partition(":")
        if transport != "unix":
            continue
        for option in options.split(","):
            key, _, value = option.partition("=")
            if key in ("path", "abstract"):
                names.append(("\0" if key == "abstract" else "") + _unescape(value))
    return names


def _unescape(text: str) -> str:
    first, *rest = text.split("%")
    try:
        data = first.encode() + b"".join(bytes([int(part[:2], 16)]) + part[2:].encode() for part in rest)
    except ValueError as error:
        raise ProtocolError(f"invalid D-Bus address: {text!r}") from error
    return os.fsdecode(data)


class Connection:
    """A connection to a bus, or (*peer*) directly to a service.  One thread, blocking, with a time limit per call."""

    __slots__ = ("_buffer", "_serial", "_signals", "_sock", "peer", "timeout")

    def __init__(self, name: str, *, peer: bool = False, timeout: float = 30.0) -> None:
        """
        Args:
            name: of the UNIX socket; see `parse_address`.
            timeout: seconds for an answer.
        Raises:
            OSError: nobody there, or he does not let us in.
        """
        self.peer = peer
        self.timeout = timeout
        self._serial = 0
        self._buffer = b""
        self._signals: list[Message] = []
        self._sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self._sock.settimeout(timeout)
            self._sock.connect(os.fsencode(name))
            self._authenticate()
            if not peer:
                self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _authenticate(self) -> None:
        # SASL EXTERNAL: the kernel tells the other side who we are; the zero byte goes first.
        identity = str(os.geteuid()).encode().hex().encode()
        self._sock.sendall(b"\0AUTH EXTERNAL " + identity + b"\r\n")
        answer = self._line()
        if not answer.startswith(b"OK "):
            raise ConnectionRefusedError(f"D-Bus authentication failed: {answer.decode(errors='replace')}")
        self._sock.sendall(b"BEGIN\r\n")

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > 16384:
                raise ProtocolError("endless line in the D-Bus authentication")
            self._receive(time.monotonic() + self.timeout)
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _receive(self, deadline: float) -> None:
        poller = select.poll()
        poller.register(self._sock.fileno(), select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("timed out waiting for an answer over D-Bus")
        chunk = self._sock.recv(65536)
        if not chunk:
            raise ConnectionResetError("the D-Bus connection was closed")
        self._buffer += chunk

    def _next(self, deadline: float) -> Message:
        while len(self._buffer) < 16 or len(self._buffer) < message_length(self._buffer):
            self._receive(deadline)
        length = message_length(self._buffer)
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return parse_message(data)

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *values: Any,
    ) -> Values:
        """Call a method; return the values of its answer.

        Raises:
            CallError: the answer is an error.
            OSError: no answer (TimeoutError), connection lost.
            ProtocolError: an answer that is no D-Bus.
        """
        self._serial += 1
        serial = self._serial
        message = Message(
            METHOD_CALL,
            serial,
            destination="" if self.peer else destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(values),
        )
        self._sock.sendall(encode_message(message))
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self._next(deadline)
            if answer.kind == SIGNAL:
                self._signals.append(answer)
            elif answer.reply_serial == serial and answer.kind == METHOD_RETURN:
                return answer.body
            elif answer.reply_serial == serial and answer.kind == ERROR:
                text = answer.body[0] if answer.body and isinstance(answer.body[0], str) else ""
                raise CallError(answer.error_name, text)

    def next_signal(self, deadline: float) -> Message:
        """Return the next signal, also one that came while a call was waiting for its answer.

        Raises:
            TimeoutError: none until *deadline* (of time.monotonic).
        """
        if self._signals:
            return self._signals.pop(0)
        while True:
            message = self._next(deadline)
            if message.kind == SIGNAL:
                return message

    def match(self, rule: str) -> None:
        """Ask the bus for signals; a peer sends them unasked."""
        if not self.peer:
            bus = "org.freedesktop.DBus"
            self.call(bus, "/org/freedesktop/DBus", bus, "AddMatch", "s", rule)
