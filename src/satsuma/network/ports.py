"""Published ports: which host port a container gets, and a bound socket that reserves it.

The table in memory knows the ports of our own containers; a socket bound to the port finds out about everybody
else's and keeps the port reserved as long as anyone holds a copy of it.  Nobody ever accepts on these sockets:
nf_tables rewrites packets before they get there.

Source: moby v28.5.2 libnetwork/portallocator, drivers/bridge/port_mapping_linux.go.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from satsuma.base.errors import InvalidParameter, System, Unsupported
from satsuma.network.firewall import PROTOCOLS, PortRule
from satsuma.network.model import PortSpec

DEFAULT_RANGE = (49153, 65535)
"""Used when the kernel does not tell its own ephemeral range, as in Docker."""

ATTEMPTS = 4096
"""Ports of a range to try.  Engines side by side take theirs from the same end of the ephemeral range, one after the
other: the first dozens may all be a neighbour's.  A try costs two system calls."""

ANY = "0.0.0.0"
_PROTOCOL_ORDER = {"tcp": 0, "udp": 1, "sctp": 2}


class PortTaken(Exception):
    """The host port is not to be had; the text is Docker's, without the driver's preface."""


@dataclass(slots=True, kw_only=True)
class Binding:
    """A published port with the socket that reserves it (None where the kernel lacks the protocol)."""

    rule: PortRule
    socket: socket.socket | None = None

    def as_record(self) -> dict[str, Any]:
        """Return the port as plain JSON."""
        rule = self.rule
        return {
            "protocol": rule.protocol,
            "host_ip": rule.host_ip,
            "host_port": rule.host_port,
            "address": rule.address,
            "port": rule.port,
        }


def ephemeral_range(path: str = "/proc/sys/net/ipv4/ip_local_port_range") -> tuple[int, int]:
    """Return the kernel's range of ephemeral ports, from which Docker takes unspecified host ports."""
    try:
        with open(path) as file:
            first, last = (int(part) for part in file.read().split())
    except (OSError, ValueError):
        return DEFAULT_RANGE
    return first, last


def parse_host_port(text: str) -> tuple[int, int]:
    """Parse "", "8080" or "8000-8010"; (0, 0) means any.

    Raises:
        InvalidParameter: not a port.
    """
    first, dash, last = text.partition("-")
    parts = [first, last] if dash else [first or "0"]
    if not all(part.isascii() and part.isdigit() and int(part) < 65536 for part in parts):
        raise InvalidParameter(f'invalid port specification: "{text}"')
    start, end = int(parts[0]), int(parts[-1])
    if end < start or (dash and not start):
        raise InvalidParameter(f'invalid range specified for port: "{text}"')
    return start, end


def _order(item: tuple[PortSpec, int, int, str]) -> tuple[Any, ...]:
    """Order as moby's cmpPortBinding: exact ports before ranges that might swallow them."""
    spec, start, end, host_ip = item
    is_range = start == 0 or start != end
    return is_range, spec.port, _PROTOCOL_ORDER[spec.protocol], start, end, socket.inet_aton(host_ip)


class PortAllocator:
    """The host ports of our containers.  Synchronous; one caller at a time."""

    def __init__(self, *, default_ip: str = ANY, span: tuple[int, int] | None = None) -> None:
        self._default_ip = default_ip
        self._span = span or ephemeral_range()
        self._used: dict[tuple[str, str], set[int]] = {}
        self._last: dict[tuple[str, str, int, int], int] = {}

    def allocate(self, specs: Sequence[PortSpec], address: str, *, default_ip: str = "") -> list[Binding]:
        """Reserve a host port for each of *specs*, all or none.

        Specs that differ in the host address only get the same port.
        Raises:
            PortTaken: a port is in use, by us or by another process.
            InvalidParameter, Unsupported: a spec that can never work.
        """
        items = []
        for spec in specs:
            if spec.protocol not in PROTOCOLS:
                raise InvalidParameter(f"invalid proto: {spec.protocol}")
            host_ip = self._host_ip(spec.host_ip or default_ip or self._default_ip)
            items.append((spec, *parse_host_port(spec.host_port), host_ip))
        items.sort(key=_order)
        done: list[Binding] = []
        try:
            for key, group in groupby(items, key=lambda i: (i[0].port, i[0].protocol, i[1], i[2])):
                port, protocol, start, end = key
                host_ips = list(dict.fromkeys(item[3] for item in group))
                done += self._bind_group(protocol, host_ips, start, end, address, port)
        except BaseException:
            self.release(done)
            raise
        return done

    def listen(self, bindings: Iterable[Binding]) -> None:
        """Put the TCP sockets into LISTEN, after the firewall rules are there.

        bind(2) with SO_REUSEADDR does not notice a listener on a more specific address; listen(2) does.  It
        also makes the port visible in ss(8).
        Raises:
            PortTaken: somebody else listens.
        """
        for binding in bindings:
            if binding.socket is not None and binding.rule.protocol == "tcp":
                try:
                    binding.socket.listen(0)
                except OSError as error:
                    raise PortTaken(f"failed to listen on TCP socket: {_go_text(error)}") from error

    def adopt(self, rules: Iterable[PortRule]) -> None:
        """Enter the ports of live containers after a restart; their monitors hold the sockets."""
        for rule in rules:
            self._ports(rule.host_ip, rule.protocol).add(rule.host_port)

    def release(self, bindings: Iterable[Binding]) -> None:
        """Free ports and close our copies of their sockets."""
        for binding in bindings:
            self._ports(binding.rule.host_ip, binding.rule.protocol).discard(binding.rule.host_port)
            if binding.socket is not None:
                binding.socket.close()
                binding.socket = None

    def _host_ip(self, text: str) -> str:
        if ":" in text:
            raise Unsupported(f"publishing a port on an IPv6 address is not supported: {text}")
        try:
            return socket.inet_ntoa(socket.inet_pton(socket.AF_INET, text))
        except OSError:
            raise InvalidParameter(f"invalid host IP address: {text}") from None

    def _ports(self, host_ip: str, protocol: str) -> set[int]:
        return self._used.setdefault((host_ip, protocol), set())

    def _blocking(self, host_ips: Sequence[str], protocol: str) -> list[tuple[str, set[int]]]:
        """Return the sets in which a port must be free: 0.0.0.0 collides with every address."""
        if ANY in host_ips:
            return [(ip, ports) for (ip, proto), ports in self._used.items() if proto == protocol]
        return [(ip, self._ports(ip, protocol)) for ip in (*host_ips, ANY)]

    def _bind_group(
        self, protocol: str, host_ips: list[str], start: int, end: int, address: str, port: int
    ) -> list[Binding]:
        exact = start != 0 and start == end
        failure: PortTaken | None = None
        size = end - start + 1 if start else ATTEMPTS
        for _ in range(min(size, ATTEMPTS)):
            host_port = start if exact else self._next(protocol, host_ips, start, end)
            if exact:
                for ip, ports in self._blocking(host_ips, protocol):
                    if host_port in ports:
                        raise PortTaken(f"Bind for {ip}:{host_port} failed: port is already allocated")
            done: list[Binding] = []
            try:
                for host_ip in host_ips:
                    rule = PortRule(
                        protocol=protocol, host_ip=host_ip, host_port=host_port, address=address, port=port
                    )
                    wanted = f"{host_ip}:{_wanted(start, end)}{address}:{port}/{protocol}"
                    done.append(Binding(rule=rule, socket=_bind(rule, wanted, exact=exact)))
                    self._ports(host_ip, protocol).add(host_port)
                return done
            except PortTaken as error:
                self.release(done)
                failure = error
        assert failure is not None
        raise failure

    def _next(self, protocol: str, host_ips: Sequence[str], start: int, end: int) -> int:
        """Return the port after the last one that was given out of this range, going round."""
        first, last = (start, end) if start else self._span
        key = (host_ips[0], protocol, first, last)
        blocking = self._blocking(host_ips, protocol)
        port = self._last.get(key, last)
        for _ in range(first, last + 1):
            port = port + 1 if port < last else first
            if not any(port in ports for _ip, ports in blocking):
                self._last[key] = port
                return port
        raise PortTaken("all ports are allocated")


def _wanted(start: int, end: int) -> str:
    """Return the host port as moby's PortBinding.String shows it in errors."""
    if not start:
        return ""
    return f"{start}:" if start == end else f"{start}-{end}:"


def _go_text(error: OSError) -> str:
    text = os.strerror(error.errno or errno.EIO)
    return text[:1].lower() + text[1:]


def _bind(rule: PortRule, wanted: str, *, exact: bool) -> socket.socket | None:
    """Bind a socket to the host port.

    UDP goes without SO_REUSEADDR: there it would let two sockets have one port, and hide a conflict.
    """
    kind = socket.SOCK_DGRAM if rule.protocol == "udp" else socket.SOCK_STREAM
    try:
        sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, PROTOCOLS[rule.protocol])
    except OSError as error:
        if rule.protocol == "sctp" and error.errno == errno.EPROTONOSUPPORT:
            return None  # the host cannot speak SCTP, so nobody can hold the port; forwarding needs no socket
        raise System(f"failed to create socket for {wanted}: {_go_text(error)}") from error
    try:
        if rule.protocol != "udp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((rule.host_ip, rule.host_port))
    except OSError as error:
        sock.close()
        chosen = "" if exact else f"{rule.host_port} "
        raise PortTaken(f"failed to bind host port {chosen}for {wanted}: {_go_text(error)}") from error
    return sock
