"""The host's side of bridge networks: bridges, their sysctls, the routes that subnets must not overlap.

Synchronous; called in the network room's kernel thread.
Needs: CAP_NET_ADMIN in the host's network namespace.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from satsuma.base.errors import Conflict, System
from satsuma.base.failpoints import failpoint
from satsuma.linux import rtnetlink as rt

_ARP = struct.Struct(">HHBBH6s4s6s4s")
_BROADCAST = b"\xff" * 6
_SYS_NET = "/sys/class/net"


def write_sysctl(path: str, value: str) -> None:
    """Write /proc/sys/*path*."""
    with open(f"/proc/sys/{path}", "w") as file:
        file.write(value)


def read_sysctl(path: str) -> str:
    """Read /proc/sys/*path*."""
    with open(f"/proc/sys/{path}") as file:
        return file.read().strip()


def random_mac(random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Return a random unicast, locally administered hardware address (moby netutils.GenerateRandomMAC)."""
    draw = bytearray(random(6))
    draw[0] = draw[0] & ~0x01 | 0x02
    return bytes(draw)


def format_mac(address: bytes) -> str:
    """Return a hardware address with colons."""
    return address.hex(":")


def enable_forwarding() -> list[str]:
    """Turn IPv4 forwarding on; if it was off, return the host's physical interfaces.

    A host whose forwarding we turn on must not become a router between its own uplinks (Docker sets the
    policy of FORWARD to DROP for that, which hits everybody's virtual networks): the caller has the firewall
    drop what goes from one of these interfaces to another.
    """
    if read_sysctl("net/ipv4/ip_forward") == "1":
        return []
    write_sysctl("net/ipv4/ip_forward", "1")
    return sorted(name for name in os.listdir(_SYS_NET) if os.path.exists(f"{_SYS_NET}/{name}/device"))


class Host:
    """The host's links, through one rtnetlink socket.  One caller at a time.

    Args:
        owner: the engine's own mark (its table name), kept as the alias of every bridge it makes, so that
            engines side by side do not take each other's bridges.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.route = rt.Route()
        self._packet: socket.socket | None = None

    def close(self) -> None:
        """Close the sockets."""
        self.route.close()
        if self._packet is not None:
            self._packet.close()

    def taken_networks(self, own: set[str]) -> list[IPv4Network]:
        """Return the networks that the host routes or has addresses in, except through interfaces in *own*."""
        skip = {link.index for link in self.route.links() if link.name in own or link.name == "lo"}
        found: set[IPv4Network] = set()
        for address in self.route.addresses():
            if address.index not in skip:
                found.add(IPv4Interface((address.address, address.prefix_length)).network)
        for route in self.route.routes():
            if (
                route.prefix_length
                and route.destination
                and route.index not in skip
                and route.kind == rt.RTN_UNICAST
            ):
                found.add(IPv4Network((route.destination, route.prefix_length)))
        return sorted(found)

    def bridge_address(self, name: str) -> IPv4Interface | None:
        """Return the first IPv4 address of an interface, None when it has none or does not exist."""
        link = self.route.link(name)
        if link is None:
            return None
        for address in self.route.addresses():
            if address.index == link.index:
                return IPv4Interface((address.address, address.prefix_length))
        return None

    def bridge_owner(self, name: str) -> str | None:
        """Return who made an existing bridge: an engine's mark, "" for a person, None when it does not exist.

        Raises:
            System: an interface of that name is no bridge.
        """
        link = self.route.link(name)
        if link is None:
            return None
        if link.kind != "bridge":
            raise System(f"cannot use interface {name} as a bridge: it is no bridge")
        return str(link.alias) or (self.owner if self.is_ours(link) else "")

    def bridge_mac(self, name: str) -> bytes:
        """Return the hardware address of a bridge that we make.

        The alias comes after the birth of a bridge, so we may die between them; then this says whose it is.
        """
        digest = hashlib.sha256(f"{self.owner} {name}".encode()).digest()
        return random_mac(lambda size: digest[:size])

    def is_ours(self, link: rt.Link) -> bool:
        """Tell whether this engine has made a bridge or a dummy link."""
        if link.kind not in ("bridge", "dummy"):
            return False
        return link.alias == self.owner or (not link.alias and link.address == self.bridge_mac(link.name))

    def ensure_bridge(self, name: str, address: IPv4Interface | None, mtu: int) -> int:
        """Make a bridge, or take over the one that is there, and return its index.

        Raises:
            Conflict: another engine owns a bridge of this name.
        """
        owner = self.bridge_owner(name)
        if owner and owner != self.owner:
            raise Conflict(f"bridge {name} belongs to another engine ({owner}): choose another name")
        if owner is None:
            self.route.run(rt.add_bridge(name, address=self.bridge_mac(name), mtu=mtu))
            failpoint("network.bridge.made")
        link = self.route.link(name)
        if link is None:
            raise System(f"bridge {name} vanished")
        if owner != "" and link.alias != self.owner:
            self.route.run(rt.set_link(link.index, alias=self.owner))
        if owner != "":
            self._quiet_ipv6(name)
        if address is not None:
            self._set_address(link.index, address, replace=owner != "")
        # Frames to 127.0.0.1 that were rewritten to a container leave by the bridge only with this; the raw
        # chain of the firewall keeps containers from using it the other way.
        write_sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
        self.route.run(rt.set_link(link.index, up=True))
        return int(link.index)

    def _set_address(self, index: int, address: IPv4Interface, *, replace: bool) -> None:
        present = [a for a in self.route.addresses() if a.index == index]
        wanted = (address.ip.packed, address.network.prefixlen)
        messages = []
        if replace:
            messages += [
                rt.del_addr(index, a.address, a.prefix_length)
                for a in present
                if (a.address, a.prefix_length) != wanted
            ]
        if wanted not in [(a.address, a.prefix_length) for a in present]:
            messages.append(rt.add_addr(index, *wanted))
        self.route.run(*messages)

    def _quiet_ipv6(self, name: str) -> None:
        """Keep IPv6 off a bridge of an IPv4 network: a container's router advertisements must reach nobody."""
        for key, value in (("accept_ra", "0"), ("disable_ipv6", "1")):
            try:
                write_sysctl(f"net/ipv6/conf/{name}/{key}", value)
            except FileNotFoundError:  # a kernel without IPv6
                return

    def delete_bridge(self, name: str) -> None:
        """Delete a bridge if it is ours; one that is gone already is no error."""
        link = self.route.link(name)
        if link is not None and self.is_ours(link):
            self.route.run(rt.del_link(link.index), ignore=(errno.ENODEV,))

    def announce(self, bridge: str, address: IPv4Address, mac: bytes) -> None:
        """Tell the other containers of a bridge that *address* has a new hardware address (gratuitous ARP).

        The frame leaves from the host's end of the bridge and is flooded to every port.
        """
        if self._packet is None:
            # Protocol 0: this socket never receives.
            self._packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        packed = address.packed
        arp = _ARP.pack(1, 0x0800, 6, 4, 1, mac, packed, bytes(6), packed)
        try:
            self._packet.sendto(_BROADCAST + mac + b"\x08\x06" + arp, (bridge, 0x0806))
        except OSError as error:
            if error.errno not in (errno.ENETDOWN, errno.ENXIO, errno.ENODEV):
                raise
