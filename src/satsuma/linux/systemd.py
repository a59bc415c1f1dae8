"""The few calls to systemd's manager that containers need: transient units, their end, their properties.

Root talks to the system's manager, everybody else to his own.  The bus is tried first, then systemd's private
socket, which needs no bus daemon (and lets only the owner in).

Source: org.freedesktop.systemd1(5), systemd.resource-control(5), systemd.scope(5).
"""

from __future__ import annotations

import os
import time

from satsuma.linux.dbus import CallError, Connection, ProtocolError, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Property = tuple[str, tuple[str, Any]]

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_JOB_TIMEOUT = 30.0
_SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"


class SystemdError(Exception):
    """systemd is not there, or did not do what it was asked for."""


def _sockets() -> list[tuple[str, bool]]:
    """Return (socket name, is private) in the order in which they are tried."""
    if os.geteuid() == 0:
        address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM_BUS
        private = "/run/systemd/private"
    else:
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
        address = os.environ.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={runtime}/bus"
        private = runtime + "/systemd/private"
    return [*((name, False) for name in parse_address(address)), (private, True)]


class Manager:
    """A connection to systemd."""

    __slots__ = ("_connection", "_listening", "version")

    def __init__(self) -> None:
        """
        Raises:
            SystemdError: no systemd can be reached; the text says what was tried.
        """
        self._listening = False
        tried = []
        for name, peer in _sockets():
            connection = None
            try:
                connection = Connection(name, peer=peer)
                self._connection = connection
                self.version = _parse_version(self.manager_property("Version"))
                return
            except (OSError, CallError, ProtocolError) as error:
                if connection is not None:
                    connection.close()
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                tried.append(f"{name.replace(chr(0), '@')}: {reason}")
        raise SystemdError(f"systemd cannot be reached over D-Bus ({'; '.join(tried)})")

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, member: str, signature: str = "", *values: Any) -> list[Any]:
        try:
            return self._connection.call(_NAME, _PATH, _MANAGER, member, signature, *values)
        except (OSError, ProtocolError) as error:
            raise SystemdError(f"{member} of systemd failed: {error}") from error

    def _get(self, path: str, interface: str, name: str) -> Any:
        properties = "org.freedesktop.DBus.Properties"
        ((_, value),) = self._connection.call(_NAME, path, properties, "Get", "ss", interface, name)
        return value

    def manager_property(self, name: str) -> Any:
        """Return a property of the manager, "Version" or "ControlGroup" for two."""
        return self._get(_PATH, _MANAGER, name)

    def unit_property(self, unit: str, interface: str, name: str) -> Any:
        """Return a property of a loaded unit; *interface* is "Unit", "Scope" or "Slice"."""
        (path,) = self._call("GetUnit", "s", unit)
        return self._get(path, f"{_NAME}.{interface}", name)

    def start_transient_unit(self, name: str, properties: list[Property]) -> None:
        """Make a unit that is gone when it has stopped; return when it is there.

        A failed unit of that name, left by an earlier container, is forgotten first.

        Raises:
            SystemdError: it was not made.
        """
        self._listen()
        for attempt in (1, 2):
            try:
                job = self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", name, "replace", properties, [])[0]
                break
            except CallError as error:
                if error.name != f"{_NAME}.UnitExists" or attempt == 2:
                    raise SystemdError(f"unable to start unit {name!r}: {error}") from error
                self.reset_failed_unit(name)
        self._wait(job, f"create {name}")

    def stop_unit(self, name: str) -> None:
        """Stop a unit and wait until it is gone; one that is not there is fine."""
        self._listen()
        try:
            job = self._call("StopUnit", "ss", name, "replace")[0]
        except CallError as error:
            if error.name == f"{_NAME}.NoSuchUnit":
                return
            raise SystemdError(f"unable to stop unit {name!r}: {error}") from error
        self._wait(job, f"stop {name}")

    def reset_failed_unit(self, name: str) -> None:
        """Let systemd forget a failed unit; one that is not there is fine."""
        try:
            self._call("ResetFailedUnit", "s", name)
        except CallError:
            return

    def set_unit_properties(self, name: str, properties: list[Property]) -> None:
        """Change properties until the unit stops.

        Raises:
            SystemdError: a property that systemd does not know or take; nothing was changed.
        """
        try:
            self._call("SetUnitProperties", "sba(sv)", name, True, properties)
        except CallError as error:
            raise SystemdError(f"unable to set properties of unit {name!r}: {error}") from error

    def _listen(self) -> None:
        # Before the job is made: it may be done before its number has arrived.
        if self._listening:
            return
        self._connection.match(
            f"type='signal',sender='{_NAME}',path='{_PATH}',interface='{_MANAGER}',member='JobRemoved'"
        )
        self._call("Subscribe")
        self._listening = True

    def _wait(self, job: str, what: str) -> None:
        deadline = time.monotonic() + _JOB_TIMEOUT
        while True:
            try:
                signal = self._connection.next_signal(deadline)
            except TimeoutError as error:
                raise SystemdError(f"timeout waiting for systemd to {what}") from error
            except (OSError, ProtocolError) as error:
                raise SystemdError(f"lost systemd while it was to {what}: {error}") from error
            if signal.member == "JobRemoved" and signal.signature == "uoss" and signal.body[1] == job:
                result = signal.body[3]
                if result != "done":
                    raise SystemdError(f"systemd could not {what}: job {result}")
                return


def _parse_version(text: Any) -> int:
    """Return 252 for "252.38-1~deb12u1" or "v252"."""
    digits = ""
    for character in str(text).lstrip("v"):
        if not character.isdigit():
            break
        digits += character
    return int(digits) if digits else 0
