"""CRIU as a service: one process of it, which is asked by protocol buffers over a socket.

Only the messages and fields that a runtime needs; a request is a list of (field number, value), where a value is a
number, a truth value, a text or such a list again.

Source: criu(8) "swrk", "check"; CRIU's images/rpc.proto (field numbers).
"""

from __future__ import annotations

import _socket
import fcntl
import os
import struct

from satsuma.base import protobuf
from satsuma.runtime.errors import RuntimeFailure, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Fields = list[tuple[int, Any]]

DUMP, RESTORE, PRE_DUMP, _NOTIFY = 1, 2, 4, 6
"""criu_req_type"""
# criu_req and criu_resp
_TYPE, _OPTIONS, _NOTIFY_SUCCESS = 1, 2, 3
_SUCCESS, _RESTORED, _NOTIFIED, _MESSAGE = 2, 4, 5, 9
_MAX_MESSAGE = 1 << 16
_LOG_TAIL = 1 << 16


def unusable(program: str) -> str:
    """Return why *program*, a name or path of criu, cannot be used on this machine; "" when it can."""
    output, write = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)]
        pid = os.posix_spawnp(program, [program, "check"], os.environ, file_actions=actions)
    except OSError:
        os.close(output)
        return "checkpoint and restore need criu, which was not found"
    finally:
        os.close(write)
    with open(output, "rb") as file:
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    if os.waitpid(pid, 0)[1]:
        why = lines[-1].strip() if lines else "criu check failed"
        return f"checkpoint and restore need criu, which does not work on this machine: {why}"
    return ""


def encode(fields: Fields) -> bytes:
    """Return a message in the wire format of protocol buffers."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += protobuf.number_field(number, value)
        else:
            data = encode(value) if isinstance(value, list) else os.fsencode(value)
            out += protobuf.bytes_field(number, data)
    return out


def decode(data: bytes) -> dict[int, int | bytes]:
    """Return {field number: number or bytes}; of a repeated field the last.

    Raises:
        ValueError: not a message, or one of a kind that CRIU does not send.
    """
    try:
        return dict(protobuf.fields(data))
    except ValueError as error:
        raise ValueError("malformed message of criu") from error


class Service:
    """One process `criu swrk`, for one request.

    Attributes:
        pid: of the process, a child of ours; what it restores becomes our child too.
    """

    __slots__ = ("_numbers", "_sock", "pid")

    def __init__(self, program: str, fds: Mapping[str, int] | None = None) -> None:
        """
        Args:
            fds: name -> descriptor that the process shall have; `number` tells as which.  Standard streams are ours.
        Raises:
            RuntimeFailure: it cannot be started.
        """
        self._sock, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._numbers: dict[str, int] = {}
        copies = []
        actions: list[Any] = []
        try:
            for number, (name, fd) in enumerate({"": theirs.fileno(), **(fds or {})}.items(), 3):
                # Out of the way first: one of ours may have the number that another one gets.
                copies.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64))
                actions.append((os.POSIX_SPAWN_DUP2, copies[-1], number))
                self._numbers[name] = number
            self.pid = os.posix_spawnp(program, [program, "swrk", "3"], os.environ, file_actions=actions)
        except OSError as error:
            self._sock.close()
            raise RuntimeFailure(f"unable to start {program}: {error_text(error)}") from error
        finally:
            theirs.close()
            for fd in copies:
                os.close(fd)

    def number(self, name: str) -> int:
        """Return as which number the process has a descriptor."""
        return self._numbers[name]

    def request(
        self, kind: int, options: Fields, notified: Callable[[str, int, int], None] | None = None
    ) -> int:
        """Let it work; return the pid of what was restored (0 for a dump).

        Args:
            notified: called at its stages with their name, the pid of the first process (0 for unknown) and a
                descriptor that came with the message, which it owns (-1 for none).
        Raises:
            RuntimeFailure: criu's own words, if it has any.
        """
        self._send([(_TYPE, kind), (_OPTIONS, options)])
        while True:
            answer, fd = self._receive()
            if answer.get(_TYPE) == _NOTIFY:
                stage = decode(_bytes(answer.get(_NOTIFIED)))
                if notified is not None:
                    notified(_bytes(stage.get(1)).decode("utf-8", "replace"), _int(stage.get(2)), fd)
                self._send([(_TYPE, _NOTIFY), (_NOTIFY_SUCCESS, 1)])
                continue
            if not answer.get(_SUCCESS):
                raise RuntimeFailure(_bytes(answer.get(_MESSAGE)).decode("utf-8", "replace").strip())
            return _int(decode(_bytes(answer.get(_RESTORED))).get(1))

    def _send(self, message: Fields) -> None:
        try:
            self._sock.send(encode(message))
        except OSError as error:
            raise RuntimeFailure(f"criu has ended: {error_text(error)}") from error

    def _receive(self) -> tuple[dict[int, int | bytes], int]:
        data, ancillary, _, _ = self._sock.recvmsg(_MAX_MESSAGE, 64, _socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise RuntimeFailure("criu has ended without an answer")
        fd = -1
        for level, what, payload in ancillary:
            if level == _socket.SOL_SOCKET and what == _socket.SCM_RIGHTS:
                fd = struct.unpack("i", payload[:4])[0]
        try:
            return decode(data), fd
        except ValueError as error:
            raise RuntimeFailure(str(error)) from error

    def close(self) -> None:
        """Let it end, and wait for it."""
        self._sock.close()
        os.waitpid(self.pid, 0)


def _bytes(value: int | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else b""


def _int(value: int | bytes | None) -> int:
    return value if isinstance(value, int) else 0


def first_error(log: str) -> str:
    """Return the first error of a log of criu, "" when there is none: those that follow are consequences."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if "Error (" in line and "RLIMIT_NOFILE" not in line]
    except OSError:
        return ""
    return lines[0].partition("Error ")[2] if lines else ""
