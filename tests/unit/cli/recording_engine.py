"""An engine that knows a few fixed answers and writes down what it is asked."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

API_VERSION = "1.50"
"""What the stock command line 28.2 speaks at most, so that both ask for the same."""

Request = tuple[str, str, list[tuple[str, str]], Any]


class FakeEngine:
    """Serves a UNIX socket until it is closed."""

    def __init__(self, path: Path, answers: dict[tuple[str, str], Any]) -> None:
        self.host = f"unix://{path}"
        self.answers = answers
        self.requests: list[Request] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(50)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(connection,), daemon=True).start()

    def _connection(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                method, target, _ = line.decode().split()
                headers = {}
                while (field := stream.readline().decode().strip()) != "":
                    name, _, value = field.partition(":")
                    headers[name.lower()] = value.strip()
                body = self._body(stream, headers)
                url = urlsplit(target)
                path = re.sub(r"^/v1\.\d+", "", url.path)
                if path != "/_ping":
                    query = sorted(parse_qsl(url.query, keep_blank_values=True))
                    self.requests.append((method, path, query, _decoded(body)))
                self._answer(connection, method, path)

    @staticmethod
    def _body(stream: Any, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return stream.read(int(headers.get("content-length", 0)))
        body = b""
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
        return body

    def _answer(self, connection: socket.socket, method: str, path: str) -> None:
        status, value = 200, self.answers.get((method, path))
        if path == "/_ping":
            value = b"OK"
        elif value is None:
            status, value = 404, {"message": f"page not found: {method} {path}"}
        elif isinstance(value, tuple):
            status, value = value
        data = value if isinstance(value, bytes) else _encoded(value)
        head = [f"HTTP/1.1 {status} X", f"Api-Version: {API_VERSION}", "Ostype: linux", "Builder-Version: 1"]
        head += ["Docker-Experimental: false", "Content-Type: application/json"]
        if status not in (204, 304):
            head.append(f"Content-Length: {len(data)}")
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else data))


def _encoded(value: Any) -> bytes:
    """Write JSON as Go does, HTML escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return (text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e") + "\n").encode()


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body
