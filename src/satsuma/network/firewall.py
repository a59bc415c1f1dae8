"""The engine's nf_tables table: published ports, masquerading, isolation between bridges.

One fixed table per engine; everything that changes is an element of a set or a map, so that a published port
costs the same whether there are ten or ten thousand.  As nft(8) prints it:

    table ip satsuma_1a2b3c4d {
      map ports_any { type inet_proto . inet_service : ipv4_addr . inet_service }          # -p 8080:80
      map ports_ip  { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service }  # -p 127.0.0.1:8080:80
      set bridges  { type ifname }              # all our bridges
      set same     { type ifname . ifname }     # (b, b) of each bridge whose containers may talk to each other
      set internal { type ifname }              # bridges of internal networks
      set open     { type ifname }              # gateway mode nat-unprotected: any direct traffic may come in
      set masq     { type ipv4_addr; flags interval }   # subnets that are masqueraded
      set subnets  { type ipv4_addr; flags interval }   # all subnets of ours
      set uplinks  { type ifname }              # between these nothing is forwarded (see `host.enable_forwarding`)

      chain raw         { hook prerouting priority raw:     from a bridge, no packet to 127.0.0.0/8 }
      chain prerouting  { hook prerouting priority dstnat:  to a local address, not 127.0.0.0/8: dnat by ports_* }
      chain output      { hook output     priority dstnat:  to a local address: dnat by ports_* }
      chain postrouting { hook postrouting priority srcnat: masquerade (see `_rules`) }
      chain forward     { hook forward    priority filter:  isolation (see `_rules`) }
    }

Why 127.0.0.0/8 is special: publishing on loopback needs route_localnet on the bridge, and that would let a
container (or, before the routing decision, a neighbour of the host) send packets to the host's loopback
addresses; CVE-2020-8558 and moby issue 45610 are this hole.

Other tables at the same hooks (Docker's, firewalld's) still see every packet: an accept here is no accept there.
See `guests` for living with a FORWARD policy of DROP.
"""

from __future__ import annotations

import errno
import hashlib
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from satsuma.linux import conntrack
from satsuma.linux import nftables as nft
from satsuma.linux.netlink import Message
from satsuma.linux.nfnetlink import Netfilter
from satsuma.network.guests import Guests

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}

_LOOPBACK_NET = bytes((127, 0, 0, 0))
_LOOPBACK_MASK = bytes((255, 0, 0, 0))
_HOST = struct.Struct("=I")


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeRules:
    """What the table holds about one bridge."""

    interface: str
    subnets: tuple[IPv4Network, ...]
    icc: bool = True
    internal: bool = False
    masquerade: bool = True
    unprotected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRule:
    """One published port: packets to (*host_ip*, *host_port*) go to (*address*, *port*)."""

    protocol: str
    host_ip: str
    host_port: int
    address: str
    port: int


def table_name(exec_root: str) -> str:
    """Return the name of the table of the engine with this exec-root: engines side by side do not meet."""
    return "satsuma_" + hashlib.sha256(exec_root.encode()).hexdigest()[:8]


def _th_map_rule(
    table: nft.Table, chain: str, set_name: str, *, with_address: bool, skip_loopback: bool
) -> Message:
    """Encode `[ip daddr & 255.0.0.0 != 127.0.0.0] fib daddr type local dnat to <key> map @set_name`."""
    expressions: list[bytes] = []
    daddr = nft.payload(nft.NFT_PAYLOAD_NETWORK_HEADER, 16, 4, nft.NFT_REG_1)
    if skip_loopback:
        expressions += [
            daddr,
            nft.bitwise(nft.NFT_REG_1, _LOOPBACK_MASK),
            nft.compare(nft.NFT_REG_1, nft.NFT_CMP_NEQ, _LOOPBACK_NET),
        ]
    expressions += [
        nft.fib(nft.NFT_FIB_RESULT_ADDRTYPE, nft.NFTA_FIB_F_DADDR, nft.NFT_REG_1),
        nft.compare(nft.NFT_REG_1, nft.NFT_CMP_EQ, _HOST.pack(nft.RTN_LOCAL)),
        nft.meta(nft.NFT_META_L4PROTO, nft.NFT_REG_1),
    ]
    # The parts of a concatenated key sit in consecutive 32-bit registers; NFT_REG_1 is 8, the next are 9, 10.
    next_register = nft.NFT_REG32_00 + 1
    if with_address:
        expressions.append(nft.payload(nft.NFT_PAYLOAD_NETWORK_HEADER, 16, 4, next_register))
        next_register += 1
    expressions += [
        nft.payload(nft.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, next_register),
        nft.lookup(set_name, nft.NFT_REG_1, to=nft.NFT_REG_1),
        nft.dnat(nft.NFT_REG_1, nft.NFT_REG32_00 + 1),
    ]
    return table.add_rule(chain, *expressions)


def _structure(table: nft.Table) -> list[Message]:
    ip, proto, port, ifname = nft.TYPE_IPV4_ADDR, nft.TYPE_INET_PROTO, nft.TYPE_INET_SERVICE, nft.TYPE_IFNAME
    return [
        table.add_set("ports_any", (proto, port), 8, data_types=(ip, port), data_length=8, number=1),
        table.add_set("ports_ip", (proto, ip, port), 12, data_types=(ip, port), data_length=8, number=2),
        table.add_set("bridges", (ifname,), 16, number=3),
        table.add_set("same", (ifname, ifname), 32, number=4),
        table.add_set("internal", (ifname,), 16, number=5),
        table.add_set("open", (ifname,), 16, number=6),
        table.add_set("masq", (ip,), 4, interval=True, number=7),
        table.add_set("subnets", (ip,), 4, interval=True, number=8),
        table.add_set("uplinks", (ifname,), 16, number=9),
        table.add_chain("raw", kind="filter", hook=nft.NF_INET_PRE_ROUTING, priority=nft.NF_IP_PRI_RAW),
        table.add_chain(
            "prerouting", kind="nat", hook=nft.NF_INET_PRE_ROUTING, priority=nft.NF_IP_PRI_NAT_DST
        ),
        table.add_chain("output", kind="nat", hook=nft.NF_INET_LOCAL_OUT, priority=nft.NF_IP_PRI_NAT_DST),
        table.add_chain(
            "postrouting", kind="nat", hook=nft.NF_INET_POST_ROUTING, priority=nft.NF_IP_PRI_NAT_SRC
        ),
        table.add_chain("forward", kind="filter", hook=nft.NF_INET_FORWARD, priority=nft.NF_IP_PRI_FILTER),
    ]


def _rules(table: nft.Table) -> list[Message]:
    oif = nft.meta(nft.NFT_META_OIFNAME, nft.NFT_REG_1)
    iif = nft.meta(nft.NFT_META_IIFNAME, nft.NFT_REG_1)
    saddr = nft.payload(nft.NFT_PAYLOAD_NETWORK_HEADER, 12, 4, nft.NFT_REG_1)
    daddr = nft.payload(nft.NFT_PAYLOAD_NETWORK_HEADER, 16, 4, nft.NFT_REG_1)
    is_loopback = (
        nft.bitwise(nft.NFT_REG_1, _LOOPBACK_MASK),
        nft.compare(nft.NFT_REG_1, nft.NFT_CMP_EQ, _LOOPBACK_NET),
    )
    to_bridge = (oif, nft.lookup("bridges", nft.NFT_REG_1))
    was_dnat = (
        nft.conntrack(nft.NFT_CT_STATUS, nft.NFT_REG_1),
        nft.bitwise(nft.NFT_REG_1, _HOST.pack(nft.IPS_DST_NAT)),
        nft.compare(nft.NFT_REG_1, nft.NFT_CMP_NEQ, _HOST.pack(0)),
    )
    is_reply = (
        nft.conntrack(nft.NFT_CT_STATE, nft.NFT_REG_1),
        nft.bitwise(nft.NFT_REG_1, _HOST.pack(nft.CT_STATE_ESTABLISHED | nft.CT_STATE_RELATED)),
        nft.compare(nft.NFT_REG_1, nft.NFT_CMP_NEQ, _HOST.pack(0)),
    )
    same = (
        iif,
        nft.meta(nft.NFT_META_OIFNAME, nft.NFT_REG_2),
        nft.lookup("same", nft.NFT_REG_1),
    )
    accept, drop = nft.verdict(nft.NF_ACCEPT), nft.verdict(nft.NF_DROP)
    return [
        table.add_rule(
            "raw", iif, nft.lookup("bridges", nft.NFT_REG_1), daddr, *is_loopback, nft.counter(), drop
        ),
        _th_map_rule(table, "prerouting", "ports_ip", with_address=True, skip_loopback=True),
        _th_map_rule(table, "prerouting", "ports_any", with_address=False, skip_loopback=True),
        _th_map_rule(table, "output", "ports_ip", with_address=True, skip_loopback=False),
        _th_map_rule(table, "output", "ports_any", with_address=False, skip_loopback=False),
        # A container that reaches a published port of any container through the host: the answer must come
        # back through the host, or it would arrive from an address that nobody asked.
        table.add_rule(
            "postrouting",
            *to_bridge,
            *was_dnat,
            saddr,
            nft.lookup("subnets", nft.NFT_REG_1),
            nft.masquerade(),
        ),
        # A process of the host that came in by 127.0.0.1: that source has no way back.
        table.add_rule("postrouting", *to_bridge, saddr, *is_loopback, nft.masquerade()),
        # A container that leaves for the outside.
        table.add_rule(
            "postrouting",
            oif,
            nft.lookup("bridges", nft.NFT_REG_1, invert=True),
            saddr,
            nft.lookup("masq", nft.NFT_REG_1),
            nft.masquerade(),
        ),
        # Bridged frames come through here where br_netfilter is loaded; they are no business of isolation.
        table.add_rule("forward", *same, accept),
        table.add_rule("forward", iif, nft.lookup("internal", nft.NFT_REG_1), nft.counter(), drop),
        table.add_rule("forward", oif, nft.lookup("internal", nft.NFT_REG_1), nft.counter(), drop),
        table.add_rule("forward", *to_bridge, *is_reply, accept),
        table.add_rule("forward", *to_bridge, *was_dnat, accept),
        table.add_rule(
            "forward",
            oif,
            nft.lookup("open", nft.NFT_REG_1),
            iif,
            nft.lookup("bridges", nft.NFT_REG_1, invert=True),
            accept,
        ),
        table.add_rule(
            "forward",
            iif,
            nft.lookup("uplinks", nft.NFT_REG_1),
            oif,
            nft.lookup("uplinks", nft.NFT_REG_1),
            nft.counter(),
            drop,
        ),
        # Other bridges, and neighbours of the host that have a route to a container's own address.
        table.add_rule("forward", *to_bridge, nft.counter(), drop),
    ]


def plan_table(table: nft.Table) -> list[Message]:
    """Return the transaction that creates the table or brings an existing one up to date.

    Elements stay: ports that live containers publish work on while the rules are replaced.
    """
    return [table.add(), *_structure(table), table.flush_rules(), *_rules(table)]


_PORT_KEY = struct.Struct(">B3xHxx")
_PORT_IP_KEY = struct.Struct(">B3x4sHxx")
_PORT_VALUE = struct.Struct(">4sHxx")


def port_element(port: PortRule, *, with_value: bool = True) -> tuple[str, bytes]:
    """Return the name of the map and the encoded element of a published port."""
    number = PROTOCOLS[port.protocol]
    value = _PORT_VALUE.pack(socket.inet_aton(port.address), port.port) if with_value else None
    if port.host_ip in ("", "0.0.0.0"):
        return "ports_any", nft.element(_PORT_KEY.pack(number, port.host_port), value)
    key = _PORT_IP_KEY.pack(number, socket.inet_aton(port.host_ip), port.host_port)
    return "ports_ip", nft.element(key, value)


def _bridge_elements(bridge: BridgeRules) -> dict[str, list[bytes]]:
    name = nft.element(nft.ifname_key(bridge.interface))
    prefixes = [
        e for net in bridge.subnets for e in nft.prefix_elements(net.network_address.packed, net.prefixlen)
    ]
    found = {"bridges": [name], "subnets": prefixes}
    if bridge.icc:
        found["same"] = [nft.element(nft.ifname_key(bridge.interface, bridge.interface))]
    if bridge.internal:
        found["internal"] = [name]
    elif bridge.masquerade:
        found["masq"] = prefixes
    if bridge.unprotected:
        found["open"] = [name]
    return found


class Firewall:
    """The table and its elements.  Synchronous and fast: one transaction is tens of microseconds.

    Not thread-safe: one caller at a time.
    Needs: CAP_NET_ADMIN.
    """

    def __init__(self, name: str) -> None:
        self.table = nft.Table(name)
        self._netfilter = Netfilter()
        self._guests = Guests(self._netfilter, name)

    def close(self) -> None:
        """Close the socket; the table stays, live containers need it."""
        self._netfilter.close()

    def open(self) -> None:
        """Create the table, or adopt one that an earlier run left.

        A table whose sets have another shape (another version of the engine) is made anew; `restore` fills it.
        """
        try:
            self._netfilter.run(plan_table(self.table))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.EINVAL, errno.EBUSY, errno.EOPNOTSUPP):
                raise
            self._netfilter.run([self.table.add(), self.table.delete(), *plan_table(self.table)])

    def restore(self, bridges: Iterable[BridgeRules], ports: Iterable[PortRule]) -> None:
        """Make the sets hold exactly *bridges* and *ports*, in one transaction: nobody sees a gap."""
        elements: dict[str, list[bytes]] = {}
        for bridge in bridges:
            for name, found in _bridge_elements(bridge).items():
                elements.setdefault(name, []).extend(found)
        for port in ports:
            name, encoded = port_element(port)
            elements.setdefault(name, []).append(encoded)
        messages: list[Message] = []
        for name in ("ports_any", "ports_ip", "bridges", "same", "internal", "open", "masq", "subnets"):
            messages.append(self.table.flush_set(name))
            messages += self.table.add_elements(name, elements.get(name, ()), exclusive=False)
        self._netfilter.run(messages)

    def add_bridge(self, bridge: BridgeRules) -> None:
        """Enter a bridge."""
        messages: list[Message] = []
        for name, elements in _bridge_elements(bridge).items():
            messages += self.table.add_elements(name, elements, exclusive=False)
        self._netfilter.run(messages)

    def remove_bridge(self, bridge: BridgeRules) -> None:
        """Take a bridge out; what is absent already is no error."""
        for name, elements in _bridge_elements(bridge).items():
            self._forget(self.table.delete_elements(name, elements))

    def add_ports(self, ports: Sequence[PortRule]) -> None:
        """Publish ports in one transaction; a key that a dead container left is taken over."""
        if not ports:
            return
        messages = self._port_messages(ports)
        failures = self._netfilter.transact(messages)
        if not failures:
            return
        if any(failure.errno != errno.EEXIST for failure in failures):
            raise failures[0].as_error("nf_tables")
        # The allocator owns every key; one that exists here belongs to nobody any more.
        for port in ports:
            name, encoded = port_element(port, with_value=False)
            self._forget(self.table.delete_elements(name, [encoded]))
        self._netfilter.run(messages)

    def forget_flows(self, ports: Iterable[PortRule]) -> None:
        """Drop what the kernel remembers of UDP flows to these ports and from their containers.

        A client that goes on sending would else be led to the container that had the port before.
        """
        udp = [port for port in ports if port.protocol == "udp"]
        if udp:
            conntrack.forget_udp(
                self._netfilter,
                host_ports=frozenset(port.host_port for port in udp),
                addresses=frozenset(socket.inet_aton(port.address) for port in udp),
            )

    def remove_ports(self, ports: Sequence[PortRule]) -> None:
        """Withdraw ports; what is absent already is no error."""
        if not ports:
            return
        by_map: dict[str, list[bytes]] = {}
        for port in ports:
            name, encoded = port_element(port, with_value=False)
            by_map.setdefault(name, []).append(encoded)
        messages = [m for name, found in by_map.items() for m in self.table.delete_elements(name, found)]
        failures = self._netfilter.transact(messages)
        if not failures:
            return
        if any(failure.errno != errno.ENOENT for failure in failures):
            raise failures[0].as_error("nf_tables")
        for name, found in by_map.items():
            for encoded in found:
                self._forget(self.table.delete_elements(name, [encoded]))

    def delete(self) -> None:
        """Remove the table with everything in it."""
        self._forget([self.table.delete()])

    def block_forwarding_between(self, interfaces: Iterable[str]) -> None:
        """Drop what would go from one of the host's own uplinks to another.

        For hosts whose forwarding this engine turned on: it must not make a router of them.
        """
        elements = [nft.element(nft.ifname_key(name)) for name in interfaces]
        self._netfilter.run(self.table.add_elements("uplinks", elements, exclusive=False))

    def exists(self) -> bool:
        """Tell whether the table is there (another program may have flushed the ruleset)."""
        return self.table.name in nft.list_tables(self._netfilter)

    def let_through(self, bridges: Iterable[str]) -> None:
        """Have iptables' FORWARD chain let our bridges through, where it would not (see `guests`)."""
        self._guests.sync(bridges)

    @property
    def port(self) -> int:
        """Return the netlink address that marks our own changes."""
        return self._netfilter.socket.port

    def _port_messages(self, ports: Sequence[PortRule]) -> list[Message]:
        by_map: dict[str, list[bytes]] = {}
        for port in ports:
            name, encoded = port_element(port)
            by_map.setdefault(name, []).append(encoded)
        return [m for name, found in by_map.items() for m in self.table.add_elements(name, found)]

    def _forget(self, messages: list[Message]) -> None:
        for failure in self._netfilter.transact(messages):
            if failure.errno != errno.ENOENT:
                raise failure.as_error("nf_tables")
