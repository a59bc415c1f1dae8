"""The embedded DNS server: containers on user-defined networks find each other by name.

Each such container has 127.0.0.11 as its name server.  Behind it are a UDP and a TCP socket which were opened
inside the container's network namespace (see `nameport`) and are served by the daemon; that is all it takes, a
socket stays in the namespace it was made in.

Names that no network of the container knows go to the container's upstream servers, asked from the host's
namespace.  A container that has internal networks only gets no answer about the outside: a forwarded question
would be a way out (CVE-2024-29018).

Source: moby v28.5.2 libnetwork/resolver.go, sandbox_dns_unix.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_address

from satsuma.base.aio import spawn
from satsuma.network import dnswire as dns
from satsuma.network.nameport import ADDRESS, open_name_sockets
from satsuma.network.sandbox import Live

_log = logging.getLogger(__name__)

TTL = 600
MAX_UPSTREAMS = 3
UPSTREAM_TIMEOUT = 4.0
MAX_QUERIES = 1024
"""Forwarded questions under way, of all containers; beyond that the answer is REFUSED."""
MAX_CONNECTIONS = 64
IDLE_TIMEOUT = 10.0
RESOLV_CONF = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


def host_nameservers(paths: Sequence[str] = RESOLV_CONF) -> list[str]:
    """Return the host's IPv4 name servers.

    systemd-resolved's stub at 127.0.0.53 would do (questions are asked from the host's namespace), but its
    servers behind it are asked directly where they are known, as Docker does.
    """
    found: list[str] = []
    for path in paths:
        try:
            with open(path, encoding="latin-1") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        words = [line.split() for line in lines]
        servers = [w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and _is_ipv4(w[1])]
        if servers and servers != ["127.0.0.53"]:
            return servers
        found = found or servers
    return found


def _is_ipv4(text: str) -> bool:
    try:
        return ip_address(text).version == 4
    except ValueError:
        return False


def lookup(live: Live, name: str) -> list[IPv4Address] | None:
    """Return the addresses of a name as one container sees it, None when no network of it knows the name.

    `web` is looked for on all user-defined networks of the container, `web.front` on the network front only.
    A link's alias counts for the container that has the link alone.
    """
    wanted = name.rstrip(".").lower()
    found: list[IPv4Address] = []
    for attachment in live.attachments.values():
        network = attachment.network
        if not network.is_user_defined:
            continue
        candidates = [wanted]
        suffix = "." + network.record.name.lower()
        if wanted.endswith(suffix):
            candidates.append(wanted.removesuffix(suffix))
        for candidate in candidates:
            target = link_target(attachment.info.links, candidate) or candidate
            found += network.names().get(target.lower(), ())
    return list(dict.fromkeys(found)) or None


def link_target(links: Sequence[str], alias: str) -> str | None:
    """Return the container that a link calls *alias*; a link is "container:alias"."""
    for link in links:
        target, _, name = link.partition(":")
        if (name or target).lower() == alias:
            return target.strip("/")
    return None


def reverse_lookup(live: Live, address: IPv4Address) -> str | None:
    """Return the name of an address on one of the container's networks, `web.front`."""
    for attachment in live.attachments.values():
        network = attachment.network
        if not network.is_user_defined:
            continue
        for other in network.attachments.values():
            if other.info.ip_address == str(address) and other.info.dns_names:
                return f"{other.info.dns_names[0]}.{network.record.name}"
    return None


def answer(live: Live, query: dns.Query, limit: int) -> bytes | None:
    """Return the answer that the container's networks know, None when upstream has to be asked."""
    if query.opcode != 0:
        return dns.encode_status(query, dns.NOTIMP)
    if query.qclass not in (dns.CLASS_IN, dns.CLASS_ANY):
        return None
    if query.qtype == dns.TYPE_PTR:
        address = dns.address_of_pointer(query.name)
        name = reverse_lookup(live, address) if address else None
        return dns.encode_pointer(query, name, TTL) if name else None
    if query.qtype not in (dns.TYPE_A, dns.TYPE_AAAA, dns.TYPE_MX):
        return None
    found = lookup(live, query.name)
    if found is None:
        return None
    if query.qtype != dns.TYPE_A:
        # The name is ours and has nothing of this type; upstream must not say NXDOMAIN to it.
        return dns.encode_status(query, dns.NOERROR)
    random.shuffle(found)
    return dns.encode_addresses(query, found, TTL, limit)


class Server:
    """The name server of one container."""

    def __init__(self, live: Live, upstreams: Sequence[str], slots: asyncio.Semaphore) -> None:
        self._live = live
        self._upstreams = upstreams
        self._slots = slots
        self._udp: socket.socket | None = None
        self._tcp: asyncio.Server | None = None
        self._connections = 0

    async def start(self) -> None:
        """Open the sockets inside the container's namespace, if it has none, and serve them."""
        live = self._live
        if live.names is None:
            assert live.netns is not None, "a container on a user-defined network has a namespace"
            live.names = await open_name_sockets(live.netns.fd)
        self._tcp = await asyncio.start_server(self._serve_tcp, sock=live.names.tcp)
        self._udp = live.names.udp
        asyncio.get_running_loop().add_reader(self._udp.fileno(), self._on_datagrams, self._udp)

    def close(self) -> None:
        """Stop serving."""
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp.fileno())
            self._udp = None
        if self._tcp is not None:
            self._tcp.close()
            self._tcp = None
        if self._live.names is not None:
            self._live.names.close()
            self._live.names = None

    def _on_datagrams(self, udp: socket.socket) -> None:
        for _ in range(64):  # a flood leaves the loop time for others
            try:
                data, client = udp.recvfrom(4096)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue
            try:
                query = dns.parse_query(data)
            except dns.DnsFormatError:
                continue
            local = answer(self._live, query, query.udp_size)
            if local is not None:
                _send(udp, local, client)
            elif self._slots.locked():
                _send(udp, dns.encode_status(query, dns.REFUSED), client)
            else:
                spawn(f"dns:{self._live.name}", self._forward_udp(udp, data, query, client))

    async def _forward_udp(
        self, udp: socket.socket, data: bytes, query: dns.Query, client: tuple[str, int]
    ) -> None:
        async with self._slots:
            response = await self._forward(data, _exchange_udp)
        if self._udp is udp:
            _send(udp, response or dns.encode_status(query, dns.SERVFAIL), client)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            while self._connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(IDLE_TIMEOUT):
                    data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                query = dns.parse_query(data)
                response = answer(self._live, query, dns.MAX_SIZE)
                if response is None:
                    async with self._slots:
                        response = await self._forward(data, _exchange_tcp)
                response = response or dns.encode_status(query, dns.SERVFAIL)
                writer.write(len(response).to_bytes(2, "big") + response)
                await writer.drain()
        except (OSError, EOFError, TimeoutError, dns.DnsFormatError):
            pass  # the client's problem; the connection ends
        finally:
            self._connections -= 1
            writer.close()

    async def _forward(self, data: bytes, exchange: Callable[[str, bytes], Awaitable[bytes]]) -> bytes | None:
        """Ask the upstream servers in turn; a failure or refusal of one leads to the next."""
        for server in self._reachable_upstreams():
            try:
                async with asyncio.timeout(UPSTREAM_TIMEOUT):
                    response = await exchange(server, data)
            except (OSError, EOFError, TimeoutError):
                continue
            if dns.rcode_of(response) not in (dns.SERVFAIL, dns.REFUSED):
                return response
        return None

    def _reachable_upstreams(self) -> list[str]:
        servers = [s for s in self._upstreams if s != ADDRESS][:MAX_UPSTREAMS]
        if self._live.gateway_id:
            return servers
        # Internal networks only: a server on one of them is all that may be asked.
        subnets = [
            IPv4Network(a.network.record.subnet)
            for a in self._live.attachments.values()
            if a.network.record.subnet
        ]
        return [s for s in servers if any(IPv4Address(s) in subnet for subnet in subnets)]


def _send(udp: socket.socket, data: bytes, client: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):  # a client that went away, a full buffer: it asks again
        udp.sendto(data, client)


class _Answer(asyncio.DatagramProtocol):
    """Waits for the datagram that answers one question."""

    def __init__(self, query: bytes, done: asyncio.Future[bytes]) -> None:
        self._query = query
        self._done = done

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        # The socket is connected: only the server's datagrams come here.  A guessed one has a wrong id.
        if not self._done.done() and dns.answers_query(data, self._query):
            self._done.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(exc)


async def _exchange_udp(server: str, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Answer(data, done), remote_addr=(server, UPSTREAM_PORT)
    )
    try:
        transport.sendto(data)
        return await done
    finally:
        transport.close()


async def _exchange_tcp(server: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, UPSTREAM_PORT)
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        response = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        if not dns.answers_query(response, data):
            raise EOFError("not the answer to this question")
        return response
    finally:
        writer.close()


UPSTREAM_PORT = 53


class EmbeddedDns:
    """The name servers of all containers on user-defined networks."""

    def __init__(self, upstreams: Sequence[str] = ()) -> None:
        self._upstreams = tuple(upstreams)
        self._slots = asyncio.Semaphore(MAX_QUERIES)
        self._servers: dict[str, Server] = {}

    async def start(self, live: Live) -> None:
        """Serve a container, unless it is served already."""
        if live.container_id in self._servers:
            return
        upstreams = live.dns or self._upstreams or host_nameservers()
        server = Server(live, upstreams, self._slots)
        await server.start()
        self._servers[live.container_id] = server

    def stop(self, container_id: str) -> None:
        """Stop serving a container; one that is not served is no error."""
        server = self._servers.pop(container_id, None)
        if server is not None:
            server.close()

    def close(self) -> None:
        """Stop serving everybody; the rules inside the containers wait for the next daemon."""
        for container_id in list(self._servers):
            self.stop(container_id)
