"""Ports as the API writes them: `80/tcp`, ranges, and the lists that `ps` and `inspect` show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from satsuma.base.errors import InvalidParameter
from satsuma.spec.docker import PortBinding

PROTOCOLS = frozenset({"tcp", "udp", "sctp"})


def split_port(text: str) -> tuple[str, str]:
    """Split `80/tcp` to the port text and the protocol; tcp is the default."""
    port, _, protocol = text.partition("/")
    return port, protocol or "tcp"


def parse_port(text: str) -> int:
    """Return a port number.

    Raises:
        ValueError: not a number from 0 to 65535.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) > 65535:
        reason = "value out of range" if text.isascii() and text.isdigit() else "invalid syntax"
        raise ValueError(f'strconv.ParseUint: parsing "{text}": {reason}')
    return int(text)


def parse_range(text: str) -> tuple[int, int]:
    """Return the first and the last port of `8000-8010` or `8000`."""
    first, separator, last = text.partition("-")
    start = parse_port(first)
    end = parse_port(last) if separator else start
    if end < start:
        raise ValueError(f"invalid range specified for port: {text}")
    return start, end


def normalize_port(text: str) -> str:
    """Return `80/tcp` for `80`, `80/TCP`, `80/tcp`.

    Raises:
        InvalidParameter: `invalid port specification: "x"`, or an unknown protocol.
    """
    port, protocol = split_port(text)
    try:
        parse_port(port)
    except ValueError:
        raise InvalidParameter(f'invalid port specification: "{port}"')
    if protocol.lower() not in PROTOCOLS:
        raise InvalidParameter(f"invalid proto: {protocol}")
    return f"{port}/{protocol.lower()}"


def check_port_bindings(bindings: Mapping[str, Iterable[PortBinding] | None]) -> None:
    """Refuse a port or a host port that is no number or range."""
    for port, targets in bindings.items():
        normalize_port(port)
        for target in targets or ():
            if not target.host_port:
                continue
            try:
                parse_range(target.host_port)
            except ValueError:
                raise InvalidParameter(f'invalid port specification: "{target.host_port}"')


def port_key(port: str) -> tuple[int, str]:
    """Sort key: by number, then by protocol."""
    number, protocol = split_port(port)
    return int(number), protocol


def list_ports(ports: Mapping[str, list[dict[str, str]] | None]) -> list[dict[str, Any]]:
    """Return the `Ports` list of a container summary from its port map."""
    answer: list[dict[str, Any]] = []
    for port in sorted(ports, key=port_key):
        number, protocol = port_key(port)
        bindings = ports[port]
        if not bindings:
            answer.append({"PrivatePort": number, "Type": protocol})
            continue
        for binding in bindings:
            item: dict[str, Any] = {"IP": binding["HostIp"]} if binding["HostIp"] else {}
            item |= {"PrivatePort": number, "PublicPort": int(binding["HostPort"]), "Type": protocol}
            answer.append(item)
    return answer
