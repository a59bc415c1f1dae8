"""Names on user-defined networks, asked from inside the containers."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from network_lab import Namespaces

from satsuma.base.ids import new_id
from satsuma.network import EndpointSpec, NetworkService, NetworkSpec, dnswire, resolver


def question(name: str, qtype: int = dnswire.TYPE_A) -> bytes:
    return (
        struct.pack(">HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0)
        + dnswire.encode_name(name)
        + struct.pack(">HH", qtype, 1)
    )


def ask(
    namespaces: Namespaces, netns_fd: int, name: str, qtype: int = dnswire.TYPE_A, *, tcp: bool = False
) -> bytes:
    def exchange() -> bytes:
        if tcp:
            with socket.create_connection(("127.0.0.11", 53), 2) as stream:
                data = question(name, qtype)
                stream.sendall(len(data).to_bytes(2, "big") + data)
                size = int.from_bytes(stream.recv(2, socket.MSG_WAITALL), "big")
                return stream.recv(size, socket.MSG_WAITALL)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(2)
            datagrams.connect(("127.0.0.11", 53))
            datagrams.send(question(name, qtype))
            return datagrams.recv(4096)

    return namespaces.run(netns_fd, exchange)


async def aask(
    namespaces: Namespaces, netns_fd: int, name: str, qtype: int = dnswire.TYPE_A, *, tcp: bool = False
) -> bytes:
    import asyncio

    return await asyncio.to_thread(ask, namespaces, netns_fd, name, qtype, tcp=tcp)


def addresses(response: bytes) -> list[str]:
    count = struct.unpack_from(">H", response, 6)[0]
    records = response[len(response) - 16 * count :]
    return sorted(socket.inet_ntoa(records[n * 16 + 12 : n * 16 + 16]) for n in range(count))


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A name server on the host's loopback that answers every question with 192.0.2.7."""
    asked: list[bytes] = []
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    monkeypatch.setattr(resolver, "UPSTREAM_PORT", server.getsockname()[1])
    monkeypatch.setattr(resolver, "host_nameservers", lambda: ["127.0.0.1"])

    def serve() -> None:
        while True:
            try:
                data, client = server.recvfrom(4096)
            except OSError:
                return
            if data == b"end":
                return
            asked.append(data)
            query = dnswire.parse_query(data)
            server.sendto(
                dnswire.encode_addresses(query, [dnswire.IPv4Address("192.0.2.7")], 60, 512), client
            )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield asked
    server.sendto(b"end", server.getsockname())
    thread.join(2)
    server.close()


async def test_names_aliases_and_ids(service: NetworkService, namespaces: Namespaces) -> None:
    await service.create(NetworkSpec(name="front"))
    cid = new_id()
    web = await service.allocate(
        cid, [EndpointSpec(network="front", aliases=("api",))], name="web", hostname="h1"
    )
    other = await service.allocate(
        new_id(), [EndpointSpec(network="front", aliases=("api",), links=("web:db",))], name="cli"
    )
    assert web.uses_embedded_dns
    assert other.netns_fd is not None
    first, second = web.endpoints["front"].ip_address, other.endpoints["front"].ip_address
    for name in ("web", "WEB", "web.front", "h1", cid[:12], "db"):
        assert addresses(await aask(namespaces, other.netns_fd, name)) == [first], name
    assert addresses(await aask(namespaces, other.netns_fd, "web", tcp=True)) == [first]
    assert addresses(await aask(namespaces, other.netns_fd, "api")) == sorted([first, second])
    # Known, but no IPv6: an answer without records, not "no such name".
    response = await aask(namespaces, other.netns_fd, "web", dnswire.TYPE_AAAA)
    assert dnswire.rcode_of(response) == dnswire.NOERROR and response[6:8] == b"\0\0"
    reverse = ".".join(reversed(first.split("."))) + ".in-addr.arpa"
    assert dnswire.encode_name("web.front") in await aask(
        namespaces, other.netns_fd, reverse, dnswire.TYPE_PTR
    )
    service.rename(cid, "shop")
    assert addresses(await aask(namespaces, other.netns_fd, "shop")) == [first]


async def test_networks_do_not_share_names(
    service: NetworkService, namespaces: Namespaces, upstream: list[bytes]
) -> None:
    await service.create(NetworkSpec(name="n1"))
    await service.create(NetworkSpec(name="n2"))
    await service.allocate(new_id(), [EndpointSpec(network="n1")], name="secret")
    outsider_id = new_id()
    outsider = await service.allocate(outsider_id, [EndpointSpec(network="n2")], name="outsider")
    assert outsider.netns_fd is not None
    assert addresses(await aask(namespaces, outsider.netns_fd, "secret")) == ["192.0.2.7"]
    assert len(upstream) == 1
    await service.connect("n1", outsider_id, EndpointSpec(network="n1"))
    assert addresses(await aask(namespaces, outsider.netns_fd, "secret")) != ["192.0.2.7"]
    await service.disconnect("n1", outsider_id)
    assert addresses(await aask(namespaces, outsider.netns_fd, "secret")) == ["192.0.2.7"]


async def test_an_internal_network_asks_nobody_outside(
    service: NetworkService, namespaces: Namespaces, upstream: list[bytes]
) -> None:
    await service.create(NetworkSpec(name="inner", internal=True))
    box = await service.allocate(new_id(), [EndpointSpec(network="inner")], name="a")
    assert box.netns_fd is not None
    response = await aask(namespaces, box.netns_fd, "exfiltrate.example.org")
    assert dnswire.rcode_of(response) == dnswire.SERVFAIL
    assert upstream == []
    assert addresses(await aask(namespaces, box.netns_fd, "a")) == [box.endpoints["inner"].ip_address]


async def test_a_container_may_have_its_own_name_server(
    service: NetworkService, namespaces: Namespaces
) -> None:
    await service.create(NetworkSpec(name="own"))
    box = await service.allocate(new_id(), [EndpointSpec(network="own")], name="a")
    assert box.netns_fd is not None

    def bind() -> None:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as server:
                server.bind(("0.0.0.0", 53))

    namespaces.run(box.netns_fd, bind)
