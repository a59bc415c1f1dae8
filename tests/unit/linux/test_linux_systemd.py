"""Calls to systemd, over sockets, with one that only pretends: alone, and behind a real bus."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_systemd import NAME, FakeSystemd

from satsuma.linux import dbus, systemd
from satsuma.linux.systemd import Manager, SystemdError

UNIT = "satsuma-x.scope"


@pytest.fixture(params=["peer", "bus"])
def fake(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeSystemd]:
    path = tmp_path / "socket"
    daemon = None
    if request.param == "bus":
        if shutil.which("dbus-daemon") is None:
            pytest.skip("dbus-daemon is not installed")
        daemon = _dbus_daemon(path, tmp_path)
        made = FakeSystemd(path, bus=str(path))
        _wait_for_owner(str(path))
    else:
        made = FakeSystemd(path)
    monkeypatch.setattr(systemd, "_sockets", lambda: [(str(path), request.param == "peer")])
    yield made
    made.close()
    if daemon is not None:
        daemon.terminate()
        daemon.wait()


def _dbus_daemon(path: Path, directory: Path) -> subprocess.Popen[bytes]:
    config = directory / "bus.conf"
    config.write_text(
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" '
        '"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd"><busconfig><type>session</type>'
        f"<listen>unix:path={path}</listen><auth>EXTERNAL</auth><policy context='default'>"
        "<allow send_destination='*'/><allow own='*'/><allow receive_sender='*'/></policy></busconfig>"
    )
    daemon = subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"])
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return daemon


def _wait_for_owner(path: str) -> None:
    bus = "org.freedesktop.DBus"
    with dbus.Connection(path) as connection:
        deadline = time.monotonic() + 10
        while not connection.call(bus, "/org/freedesktop/DBus", bus, "NameHasOwner", "s", NAME)[0]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("early", [False, True])
def test_start_and_stop(fake: FakeSystemd, early: bool) -> None:
    fake.early_signal = early
    properties = [("Delegate", ("b", True)), ("PIDs", ("au", [5])), ("MemoryMax", ("t", 1 << 63))]
    with Manager() as manager:
        assert manager.version == 252
        manager.start_transient_unit(UNIT, properties)
        assert fake.units == {UNIT: dict(properties)}
        manager.set_unit_properties(UNIT, [("TasksMax", ("t", 7))])
        assert fake.units[UNIT]["TasksMax"] == ("t", 7)
        manager.stop_unit(UNIT)
        assert fake.units == {}
        manager.reset_failed_unit(UNIT)
    members = [member for member, _ in fake.calls if member not in ("Hello", "Get")]
    assert members == ["Subscribe", "StartTransientUnit", "SetUnitProperties", "StopUnit", "ResetFailedUnit"]
    start = next(body for member, body in fake.calls if member == "StartTransientUnit")
    assert start[:2] == [UNIT, "replace"] and start[3] == []


def test_a_left_over_unit_is_forgotten_and_the_start_tried_again(fake: FakeSystemd) -> None:
    fake.faults["StartTransientUnit"] = [f"{NAME}.UnitExists"]
    with Manager() as manager:
        manager.start_transient_unit(UNIT, [])
    assert [member for member, _ in fake.calls][-3:] == [
        "StartTransientUnit",
        "ResetFailedUnit",
        "StartTransientUnit",
    ]


def test_a_unit_that_exists_is_an_error(fake: FakeSystemd) -> None:
    fake.faults["StartTransientUnit"] = [f"{NAME}.UnitExists"] * 2
    with (
        Manager() as manager,
        pytest.raises(SystemdError, match=f"unable to start unit '{UNIT}': no: .*UnitExists"),
    ):
        manager.start_transient_unit(UNIT, [])


@pytest.mark.parametrize("result", ["failed", "timeout", "canceled", "dependency"])
def test_a_job_that_fails(fake: FakeSystemd, result: str) -> None:
    fake.faults["job"] = [result]
    with Manager() as manager, pytest.raises(SystemdError, match=f"could not create {UNIT}: job {result}"):
        manager.start_transient_unit(UNIT, [])


def test_what_is_gone_need_not_be_stopped(fake: FakeSystemd) -> None:
    fake.faults["StopUnit"] = [f"{NAME}.NoSuchUnit"]
    fake.faults["ResetFailedUnit"] = [f"{NAME}.NoSuchUnit"]
    with Manager() as manager:
        manager.stop_unit(UNIT)
        manager.reset_failed_unit(UNIT)
        fake.faults["StopUnit"] = [f"{NAME}.Nonsense"]
        with pytest.raises(SystemdError, match="unable to stop"):
            manager.stop_unit(UNIT)


def test_a_property_that_systemd_does_not_know(fake: FakeSystemd) -> None:
    fake.faults["SetUnitProperties"] = ["org.freedesktop.DBus.Error.PropertyReadOnly"]
    with Manager() as manager, pytest.raises(SystemdError, match="unable to set properties of unit"):
        manager.set_unit_properties(UNIT, [("Nope", ("s", ""))])


def test_a_silent_systemd_does_not_hold_us_up_for_ever(
    fake: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.silent = True
    with Manager() as manager:
        manager._connection.timeout = 0.2
        with pytest.raises(SystemdError, match="timed out"):
            manager.set_unit_properties(UNIT, [])


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    monkeypatch.setattr(
        systemd, "_sockets", lambda: [(f"{tmp_path}/none", False), (f"{tmp_path}/private", True)]
    )
    with pytest.raises(SystemdError) as caught:
        Manager()
    assert str(caught.value) == (
        f"systemd cannot be reached over D-Bus ({tmp_path}/none: No such file or directory; "
        f"{tmp_path}/private: No such file or directory)"
    )


def test_a_bus_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed")
    daemon = _dbus_daemon(tmp_path / "socket", tmp_path)
    monkeypatch.setattr(systemd, "_sockets", lambda: [(f"{tmp_path}/socket", False)])
    try:
        with pytest.raises(SystemdError, match="org.freedesktop.systemd1 was not provided"):
            Manager()
    finally:
        daemon.terminate()
        daemon.wait()


@pytest.mark.parametrize("answer", [b"REJECTED EXTERNAL\r\n", b"ERROR\r\n", b"\r\n"])
def test_refused_at_the_door(tmp_path: Path, answer: bytes) -> None:
    fake = FakeSystemd(tmp_path / "socket")
    fake.auth_answer = answer
    with pytest.raises(ConnectionRefusedError, match="authentication failed"):
        dbus.Connection(str(tmp_path / "socket"))
    fake.close()


@pytest.mark.parametrize(
    "rubbish", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"OK 1\r\nl\1\0\1\xff\xff\xff\xff\0\0\0\0\0\0\0\0", b""]
)
def test_somebody_else_answers(tmp_path: Path, rubbish: bytes) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()

    def answer() -> None:
        sock, _ = listener.accept()
        sock.recv(100)
        sock.sendall(rubbish)
        sock.recv(1000)
        sock.close()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with pytest.raises((OSError, dbus.ProtocolError)):
        dbus.Connection(str(tmp_path / "socket"), timeout=0.5)
    thread.join(5)
    listener.close()


@pytest.mark.parametrize(
    ("text", "number"), [("252.38-1~deb12u1", 252), ("v245", 245), ("257", 257), ("", 0)]
)
def test_versions(text: str, number: int) -> None:
    assert systemd._parse_version(text) == number
