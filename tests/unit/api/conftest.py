"""A server with the fake engine behind it, and a raw client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from satsuma.api import Server, serve
from satsuma.wire.http_client import ResponseParser

sys.path.insert(0, str(Path(__file__).parent))
from api_fake import FakeEngine


class Client:
    """One connection; `ask` sends a request and returns status, headers, body."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.tail = b""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, method: str = "GET", *, whole: bool = True) -> tuple[int, Any, bytes]:
        parser = ResponseParser(method, self.tail)
        self.tail = b""
        body = b""
        if True:
            parser._parse_head()
        while parser.head is None or (whole and not parser.body_done):
            if parser.head is not None:
                piece = parser.read_body()
                body += piece
                if piece or parser.body_done:
                    continue
            data = await asyncio.wait_for(self.reader.read(65536), 5)
            parser.feed(data)
        while whole and (piece := parser.read_body()):
            body += piece
        self.tail = parser.take_tail()
        return parser.head.status, parser.head.headers, body

    async def ask(
        self, method: str, target: str, body: bytes | None = None, *fields: str
    ) -> tuple[int, Any, bytes]:
        lines = [f"{method} {target} HTTP/1.1", "Host: docker", *fields]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
        return await self.answer(method)

    async def read_all(self) -> bytes:
        return self.tail + await asyncio.wait_for(self.reader.read(), 5)

    async def close(self) -> None:
        self.writer.close()


class Site:
    def __init__(self, engine: FakeEngine, server: Server, path: str) -> None:
        self.engine = engine
        self.server = server
        self.path = path
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_unix_connection(self.path))
        self.clients.append(client)
        return client


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    engine = FakeEngine()
    path = str(tmp_path / "api.sock")
    server = await serve(engine, [f"unix://{path}"], group="")  # type: ignore[arg-type]
    found = Site(engine, server, path)
    yield found
    for client in found.clients:
        await client.close()
    await server.close(grace=0.2)
