"""A systemd that exists only on a D-Bus socket: the whole conversation, no units.

It listens itself (as systemd's private socket does, with Hello answered as a bus would), or is a service on a real
dbus-daemon.  What it was asked is in `calls`; what it does wrong, in `faults`.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

from satsuma.linux import dbus

NAME = "org.freedesktop.systemd1"


class FakeSystemd:
    """
    Attributes:
        faults: member -> list of error names (used up one by one), or job result under "job".
        units: name -> properties.
    """

    def __init__(self, path: Path, *, version: str = "252.38-1~deb12u1", bus: str = "") -> None:
        self.path = path
        self.version = version
        self.calls: list[tuple[str, list[Any]]] = []
        self.units: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, list[str]] = {}
        self.early_signal = False
        self.silent = False
        self.control_group = ""
        self.auth_answer = b"OK 0123456789abcdef0123456789abcdef\r\n"
        self.job = 0
        self._serial = 0
        self._sockets: list[socket.socket] = []
        if bus:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(bus)
            sock.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
            assert sock.recv(4096).startswith(b"OK ")
            sock.sendall(b"BEGIN\r\n")
            self._ask(sock, "Hello", "", [])
            self._ask(sock, "RequestName", "su", [NAME, 4])
            self._start(self._serve, sock, b"")
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen()
            self._start(self._accept, listener)

    def _start(self, work: Any, sock: socket.socket, *more: Any) -> None:
        self._sockets.append(sock)
        threading.Thread(target=work, args=(sock, *more), daemon=True).start()

    def close(self) -> None:
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def _ask(self, sock: socket.socket, member: str, signature: str, body: list) -> None:
        bus = "org.freedesktop.DBus"
        self._send(
            sock,
            dbus.METHOD_CALL,
            destination=bus,
            path="/org/freedesktop/DBus",
            interface=bus,
            member=member,
            signature=signature,
            body=body,
        )

    def _send(self, sock: socket.socket, kind: int, **fields: Any) -> None:
        self._serial += 1
        sock.sendall(dbus.encode_message(dbus.Message(kind, self._serial, **fields)))

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._start(self._meet, sock)

    def _meet(self, sock: socket.socket) -> None:
        try:
            self._greet(sock)
        except OSError:  # the client has left
            return

    def _greet(self, sock: socket.socket) -> None:
        data = b""
        while b"\r\n" not in data:
            data += sock.recv(4096)
        line, _, rest = data.partition(b"\r\n")
        identity = str(os.geteuid()).encode().hex().encode()
        assert line == b"\0AUTH EXTERNAL " + identity, line
        # In two pieces: a client must not count on whole lines.
        sock.sendall(self.auth_answer[:5])
        sock.sendall(self.auth_answer[5:])
        if not self.auth_answer.startswith(b"OK"):
            return
        while b"\r\n" not in rest:
            rest += sock.recv(4096)
        line, _, rest = rest.partition(b"\r\n")
        assert line == b"BEGIN", line
        self._serve(sock, rest)

    def _serve(self, sock: socket.socket, data: bytes) -> None:
        while True:
            try:
                while len(data) < 16 or len(data) < dbus.message_length(data):
                    chunk = sock.recv(65536)
                    if not chunk:
                        return
                    data += chunk
                length = dbus.message_length(data)
                message, data = dbus.parse_message(data[:length]), data[length:]
                if message.kind == dbus.METHOD_CALL:
                    self._answer(sock, message)
            except OSError:
                return

    def _answer(self, sock: socket.socket, call: dbus.Message) -> None:
        self.calls.append((call.member, call.body))
        back = {"reply_serial": call.serial, "destination": call.sender}
        if self.silent and call.member not in ("Hello", "Get"):
            return
        faults = self.faults.get(call.member)
        if faults:
            name = faults.pop(0)
            self._send(sock, dbus.ERROR, error_name=name, signature="s", body=[f"no: {name}"], **back)
            return
        signature, body, job = getattr(self, f"on_{call.member}", self._nothing)(*call.body)
        if job and self.early_signal:
            self._removed(sock, job, call.body[0])
        self._send(sock, dbus.METHOD_RETURN, signature=signature, body=body, **back)
        if job and not self.early_signal:
            self._removed(sock, "/org/freedesktop/systemd1/job/1", "other.service")
            self._removed(sock, job, call.body[0])

    def _removed(self, sock: socket.socket, job: str, unit: str) -> None:
        results = self.faults.get("job")
        self._send(
            sock,
            dbus.SIGNAL,
            path="/org/freedesktop/systemd1",
            interface=f"{NAME}.Manager",
            member="JobRemoved",
            signature="uoss",
            body=[self.job, job, unit, results.pop(0) if results and "other" not in unit else "done"],
        )

    @staticmethod
    def _nothing(*_: Any) -> tuple[str, list, str]:
        return "", [], ""

    @staticmethod
    def on_Hello() -> tuple[str, list, str]:
        return "s", [":1.7"], ""

    def _new_job(self) -> str:
        self.job += 1
        return f"/org/freedesktop/systemd1/job/{1000 + self.job}"

    def on_Get(self, _interface: str, name: str) -> tuple[str, list, str]:
        value = {"Version": self.version, "ControlGroup": self.control_group}[name]
        return "v", [("s", value)], ""

    def on_GetUnit(self, _name: str) -> tuple[str, list, str]:
        return "o", ["/org/freedesktop/systemd1/unit/x"], ""

    def on_StartTransientUnit(
        self, name: str, _mode: str, properties: list, _aux: list
    ) -> tuple[str, list, str]:
        self.units[name] = dict(properties)
        job = self._new_job()
        return "o", [job], job

    def on_StopUnit(self, name: str, _mode: str) -> tuple[str, list, str]:
        self.units.pop(name, None)
        job = self._new_job()
        return "o", [job], job

    def on_SetUnitProperties(self, name: str, _runtime: bool, properties: list) -> tuple[str, list, str]:
        self.units.setdefault(name, {}).update(properties)
        return "", [], ""
