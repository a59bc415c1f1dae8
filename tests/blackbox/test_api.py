"""The API on the wire, as clients drive it that are no command line: raw sockets against a real engine."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

import harness
from satsuma.wire import stdcopy, websocket
from satsuma.wire.http_client import ResponseParser, encode_request


class Wire:
    """One connection to the engine."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(path)

    def send(self, method: str, target: str, body: object = None, *fields: tuple[str, str]) -> ResponseParser:
        """Send a request and return its parser with the head of the answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = [("Host", "docker"), *fields]
        if data is not None:
            headers.append(("Content-Type", "application/json"))
        self.sock.sendall(encode_request(method, target, headers, data))
        parser = ResponseParser(method)
        while parser.head is None:
            parser.feed(self.sock.recv(65536))
        return parser

    def ask(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        """Send a request and return status and decoded body."""
        parser = self.send(method, target, body)
        return parser.head.status, self.rest(parser)

    def rest(self, parser: ResponseParser) -> Any:
        """Read the rest of an answer."""
        data = b""
        while not parser.body_done:
            piece = parser.read_body()
            data += piece
            if not piece and not parser.body_done:
                parser.feed(self.sock.recv(65536))
        return json.loads(data) if data else None

    def hijack(self, target: str, body: object = None) -> bytes:
        """Upgrade the connection; return the bytes that came with the head."""
        parser = self.send("POST", target, body, ("Connection", "Upgrade"), ("Upgrade", "tcp"))
        assert parser.head.status == 101, self.rest(parser)
        return parser.take_tail()

    def read_frames(self, data: bytes = b"") -> dict[int, bytes]:
        """Read stdcopy frames to the end; return the bytes by stream."""
        decoder = stdcopy.Decoder()
        streams: dict[int, bytes] = {}
        while True:
            for stream, payload in decoder.feed(data):
                streams[stream] = streams.get(stream, b"") + payload
            data = self.sock.recv(65536)
            if not data:
                decoder.close()
                return streams


@pytest.fixture
def wire(daemon: harness.Daemon) -> Iterator[Wire]:
    connection = Wire(str(daemon.socket))
    yield connection
    connection.sock.close()


@pytest.fixture
def sleeper(daemon: harness.Daemon) -> Iterator[str]:
    """A running container."""
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Init": True}}
    status, created = daemon.api("POST", "/containers/create", body)
    assert status == 201, created
    assert daemon.api("POST", f"/containers/{created['Id']}/start")[0] == 204
    yield created["Id"]
    daemon.api("DELETE", f"/containers/{created['Id']}?force=1")


def test_exit_code_of_an_exec_is_there_when_its_stream_ends(
    daemon: harness.Daemon, wire: Wire, sleeper: str
) -> None:
    for code in range(20):
        command = {
            "Cmd": ["sh", "-c", f"echo out; echo err >&2; exit {code}"],
            "AttachStdout": True,
            "AttachStderr": True,
        }
        status, created = wire.ask("POST", f"/containers/{sleeper}/exec", command)
        assert status == 201
        stream = Wire(str(daemon.socket))
        assert stream.read_frames(stream.hijack(f"/exec/{created['Id']}/start", {})) == {
            1: b"out\n",
            2: b"err\n",
        }
        stream.sock.close()
        inspected = wire.ask("GET", f"/exec/{created['Id']}/json")[1]
        assert (inspected["Running"], inspected["ExitCode"]) == (False, code)


def test_run_as_the_command_line_does_it(daemon: harness.Daemon, wire: Wire) -> None:
    body = {"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
    created = wire.ask("POST", "/containers/create", body)[1]["Id"]
    stream, waiting = Wire(str(daemon.socket)), Wire(str(daemon.socket))
    tail = stream.hijack(f"/containers/{created}/attach?stream=1&stdin=1&stdout=1&stderr=1")
    parser = waiting.send("POST", f"/containers/{created}/wait?condition=next-exit")
    assert parser.head.status == 200, "the head comes before the container even starts"
    stream.sock.sendall(b"early ")
    assert wire.ask("POST", f"/containers/{created}/start")[0] == 204
    stream.sock.sendall(b"late")
    stream.sock.shutdown(socket.SHUT_WR)
    assert stream.read_frames(tail) == {1: b"early late"}
    assert waiting.rest(parser) == {"StatusCode": 0}
    assert wire.ask("POST", f"/containers/{created}/stop")[0] == 304
    assert wire.ask("DELETE", f"/containers/{created}")[0] == 204
    for connection in (stream, waiting):
        connection.sock.close()


def test_wait_for_removal_answers_after_it(daemon: harness.Daemon, wire: Wire) -> None:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "exit 7"], "HostConfig": {"AutoRemove": True}}
    created = wire.ask("POST", "/containers/create", body)[1]["Id"]
    waiting = Wire(str(daemon.socket))
    parser = waiting.send("POST", f"/containers/{created}/wait?condition=removed")
    assert wire.ask("POST", f"/containers/{created}/start")[0] == 204
    assert waiting.rest(parser)["StatusCode"] == 7
    assert wire.ask("GET", f"/containers/{created}/json")[0] == 404
    waiting.sock.close()


def test_attach_over_a_websocket(daemon: harness.Daemon, wire: Wire) -> None:
    created = wire.ask(
        "POST",
        "/containers/create",
        {"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True},
    )[1]["Id"]
    assert wire.ask("POST", f"/containers/{created}/start")[0] == 204
    stream = Wire(str(daemon.socket))
    key = base64.b64encode(b"0123456789abcdef").decode()
    parser = stream.send(
        "GET",
        f"/containers/{created}/attach/ws?stream=1&stdin=1&stdout=1",
        None,
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    )
    assert parser.head.headers.get("sec-websocket-accept") == websocket.accept_key(key)
    decoder = websocket.Decoder(masked=False)
    frames = decoder.feed(parser.take_tail())
    stream.sock.sendall(websocket.encode(websocket.BINARY, b"hello", mask=b"abcd"))
    stream.sock.sendall(websocket.encode(websocket.CLOSE, b"", mask=b"abcd"))
    while not any(opcode == websocket.CLOSE for opcode, _ in frames):
        frames += decoder.feed(stream.sock.recv(65536))
    assert b"".join(data for opcode, data in frames if opcode == websocket.BINARY) == b"hello"
    stream.sock.close()
    wire.ask("DELETE", f"/containers/{created}?force=1")


def test_restart_has_its_ports_again(wire: Wire) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}},
    }
    created = wire.ask("POST", "/containers/create", body)[1]["Id"]
    assert wire.ask("POST", f"/containers/{created}/start")[0] == 204
    for _ in range(6):
        assert wire.ask("POST", f"/containers/{created}/restart?t=0") == (204, None)
    wire.ask("DELETE", f"/containers/{created}?force=1")


def test_old_versions_see_old_shapes(wire: Wire, sleeper: str) -> None:
    assert wire.ask("GET", "/v1.43/images/busybox/json")[1]["VirtualSize"] > 0
    assert "VirtualSize" not in wire.ask("GET", "/v1.44/images/busybox/json")[1]
    assert {image["Containers"] for image in wire.ask("GET", "/v1.50/images/json")[1]} == {-1}
    assert all("Containers" in network for network in wire.ask("GET", "/v1.27/networks")[1])
    assert wire.ask("GET", f"/v1.24/containers/{sleeper}/json")[1]["Id"] == sleeper
    assert wire.ask("GET", "/v1.52/info")[0] == 400


def test_body_of_a_refused_upload_is_read(wire: Wire, sleeper: str) -> None:
    for target in ("/containers/nope/archive?path=/", f"/containers/{sleeper}/archive?path=/no/such/place"):
        size = 2_000_000
        wire.sock.sendall(
            f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + b"\0" * size
        )
        parser = ResponseParser("PUT")
        while parser.head is None:
            parser.feed(wire.sock.recv(65536))
        assert parser.head.status == 404
        assert wire.rest(parser)["message"]
    assert wire.ask("GET", "/containers/json")[0] == 200


def test_many_connections_at_once(daemon: harness.Daemon, wire: Wire, sleeper: str) -> None:
    followers = [Wire(str(daemon.socket)) for _ in range(10)]
    for follower in followers:
        assert follower.send("GET", f"/containers/{sleeper}/logs?follow=1&stdout=1").head.status == 200
    assert wire.ask("GET", "/containers/json")[0] == 200
    assert wire.ask("DELETE", f"/containers/{sleeper}?force=1")[0] == 204
    for follower in followers:
        assert b"0\r\n\r\n" in follower.sock.recv(65536), "following ends with the container"
        follower.sock.close()


def test_lists_that_were_not_sent_are_null(daemon: harness.Daemon) -> None:
    def host_config(**sent: object) -> dict[str, object]:
        body = {"Image": "busybox", "HostConfig": sent}
        identity = daemon.api("POST", "/containers/create", body)[1]["Id"]
        answer = daemon.api("GET", f"/containers/{identity}/json")[1]["HostConfig"]
        daemon.api("DELETE", f"/containers/{identity}")
        return dict(answer)

    names = ("Binds", "Devices", "Dns", "ExtraHosts", "PortBindings", "SecurityOpt", "BlkioDeviceReadBps")
    absent = host_config()
    assert [absent[name] for name in (*names, "Ulimits", "Links")] == [None] * 9
    empty = host_config(**{name: {} if name == "PortBindings" else [] for name in (*names, "Links")})
    assert [empty[name] for name in names] == [[], [], [], [], {}, [], []] and empty["Links"] is None
