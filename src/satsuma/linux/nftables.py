"""nf_tables messages: tables, chains, sets and maps with elements, rules made of expressions.

Own encoding, so that a firewall change costs microseconds and no program is started.  Names and numbers are
those of linux/netfilter/nf_tables.h; what nft(8) would print is in the docstrings.  Values in packets and
registers are big-endian, integers that the kernel makes itself (marks, states, types) host-endian.

Must not know: which tables the engine uses.
Source: linux/netfilter/nf_tables.h, libnftnl (for the layout), nft(8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from satsuma.linux.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Message,
    attr,
    attr_be32,
    attr_str,
    attrs_dict,
    iter_attrs,
    nested,
)
from satsuma.linux.nfnetlink import NFNL_SUBSYS_NFTABLES, NFPROTO_IPV4, Netfilter, genmsg

_SUBSYS = NFNL_SUBSYS_NFTABLES << 8
NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_DELTABLE = _SUBSYS | 0, _SUBSYS | 1, _SUBSYS | 2
NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN, NFT_MSG_DELCHAIN = _SUBSYS | 3, _SUBSYS | 4, _SUBSYS | 5
NFT_MSG_NEWRULE, NFT_MSG_GETRULE, NFT_MSG_DELRULE = _SUBSYS | 6, _SUBSYS | 7, _SUBSYS | 8
NFT_MSG_NEWSET, NFT_MSG_GETSET, NFT_MSG_DELSET = _SUBSYS | 9, _SUBSYS | 10, _SUBSYS | 11
NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM = _SUBSYS | 12, _SUBSYS | 13, _SUBSYS | 14

NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = 1, 3, 4, 5, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS = 1, 2, 3, 4
NFTA_RULE_USERDATA = 7
NFTA_LIST_ELEM = 1
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN = 1, 2, 3, 4, 5
NFTA_SET_DATA_TYPE, NFTA_SET_DATA_LEN, NFTA_SET_ID, NFTA_SET_USERDATA = 6, 7, 10, 13
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_FLAGS = 1, 2, 3
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2

NFT_SET_INTERVAL, NFT_SET_MAP = 0x4, 0x8
NFT_SET_ELEM_INTERVAL_END = 1
NFT_REG_VERDICT, NFT_REG_1, NFT_REG_2 = 0, 1, 2
NFT_REG32_00 = 8

NF_DROP, NF_ACCEPT = 0, 1
NFT_JUMP, NFT_RETURN = -3, -5
NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING = range(5)
NF_IP_PRI_RAW, NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER, NF_IP_PRI_NAT_SRC = -300, -100, 0, 100

NFT_META_MARK, NFT_META_IIFNAME, NFT_META_OIFNAME, NFT_META_L4PROTO = 3, 6, 7, 16
NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER = 1, 2
NFT_CMP_EQ, NFT_CMP_NEQ = 0, 1
NFT_CT_STATE, NFT_CT_STATUS = 0, 2
CT_STATE_ESTABLISHED, CT_STATE_RELATED = 2, 4
IPS_DST_NAT = 1 << 5
NFT_FIB_RESULT_ADDRTYPE = 3
NFTA_FIB_F_SADDR, NFTA_FIB_F_DADDR = 1, 2
RTN_LOCAL = 2

TYPE_IPV4_ADDR, TYPE_INET_PROTO, TYPE_INET_SERVICE, TYPE_IFNAME = 7, 12, 13, 41
"""nft's numbers of data types (its datatype.h); the kernel only stores them, `nft list` needs them."""

ELEMENTS_PER_MESSAGE = 500
"""An attribute is at most 64 KiB long; an element of ours takes up to 100 bytes."""
_IFNAMSIZ = 16


def concat_type(*types: int) -> int:
    """Return nft's number of a concatenation, six bits each: `ipv4_addr . inet_service`."""
    number = 0
    for kind in types:
        number = number << 6 | kind
    return number


def ifname_key(*names: str) -> bytes:
    """Return interface names as a set key, each padded to IFNAMSIZ."""
    return b"".join(name.encode().ljust(_IFNAMSIZ, b"\0") for name in names)


def _data(value: bytes) -> bytes:
    return attr(NFTA_DATA_VALUE, value)


# Expressions: each returns the encoded expression; a rule is their sequence.


def expression(name: str, *attrs: bytes) -> bytes:
    """Encode one expression of a rule."""
    return nested(NFTA_LIST_ELEM, attr_str(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, *attrs))


def meta(key: int, register: int) -> bytes:
    """Load packet meta data: `iifname`, `oifname`, `meta l4proto`."""
    return expression("meta", attr_be32(2, key), attr_be32(1, register))


def payload(base: int, offset: int, length: int, register: int) -> bytes:
    """Load bytes of a header: `ip daddr` is (network, 16, 4), `th dport` is (transport, 2, 2)."""
    return expression(
        "payload", attr_be32(1, register), attr_be32(2, base), attr_be32(3, offset), attr_be32(4, length)
    )


def compare(register: int, operation: int, value: bytes) -> bytes:
    """Go on with the rule only if the register compares to *value*."""
    return expression("cmp", attr_be32(1, register), attr_be32(2, operation), nested(3, _data(value)))


def bitwise(register: int, mask: bytes, xor: bytes | None = None) -> bytes:
    """Set register = register & mask ^ xor."""
    zero = bytes(len(mask))
    return expression(
        "bitwise",
        attr_be32(1, register),
        attr_be32(2, register),
        attr_be32(3, len(mask)),
        nested(4, _data(mask)),
        nested(5, _data(xor or zero)),
    )


def lookup(set_name: str, register: int, *, to: int | None = None, invert: bool = False) -> bytes:
    """Go on only if the register is (not) in a set; of a map, load the value into register *to*."""
    parts = [attr_str(1, set_name), attr_be32(2, register)]
    if to is not None:
        parts.append(attr_be32(3, to))
    if invert:
        parts.append(attr_be32(5, 1))
    return expression("lookup", *parts)


def conntrack(key: int, register: int) -> bytes:
    """Load conntrack data: `ct state`, `ct status` (host-endian)."""
    return expression("ct", attr_be32(2, key), attr_be32(1, register))


def fib(result: int, flags: int, register: int) -> bytes:
    """Ask the routing table: `fib daddr type` is (NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR)."""
    return expression("fib", attr_be32(1, register), attr_be32(2, result), attr_be32(3, flags))


def counter() -> bytes:
    """Count packets and bytes."""
    return expression("counter", attr(1, bytes(8)), attr(2, bytes(8)))


def verdict(code: int, chain: str | None = None) -> bytes:
    """End the rule: accept, drop, return, jump *chain*."""
    parts = [attr(NFTA_VERDICT_CODE, struct.pack(">i", code))]
    if chain is not None:
        parts.append(attr_str(NFTA_VERDICT_CHAIN, chain))
    return expression(
        "immediate", attr_be32(1, NFT_REG_VERDICT), nested(2, nested(NFTA_DATA_VERDICT, *parts))
    )


def immediate(register: int, value: bytes) -> bytes:
    """Load a constant into a register."""
    return expression("immediate", attr_be32(1, register), nested(2, _data(value)))


def dnat(address_register: int, port_register: int | None = None, *, family: int = NFPROTO_IPV4) -> bytes:
    """Rewrite the destination: `dnat to addr : port` from registers."""
    parts = [attr_be32(1, 1), attr_be32(2, family), attr_be32(3, address_register)]
    if port_register is not None:
        parts.append(attr_be32(5, port_register))
    return expression("nat", *parts)


def snat(address_register: int, port_register: int | None = None, *, family: int = NFPROTO_IPV4) -> bytes:
    """Rewrite the source: `snat to addr : port` from registers."""
    parts = [attr_be32(1, 0), attr_be32(2, family), attr_be32(3, address_register)]
    if port_register is not None:
        parts.append(attr_be32(5, port_register))
    return expression("nat", *parts)


def masquerade() -> bytes:
    """Rewrite the source to the address of the outgoing interface."""
    return expression("masq")


class Table:
    """Builds messages for the objects of one table."""

    __slots__ = ("family", "name")

    def __init__(self, name: str, family: int = NFPROTO_IPV4) -> None:
        self.name = name
        self.family = family

    def _message(self, kind: int, *attrs: bytes, flags: int = 0) -> Message:
        return Message(kind, genmsg(self.family) + b"".join(attrs), flags)

    def add(self) -> Message:
        """Create the table unless it exists."""
        return self._message(NFT_MSG_NEWTABLE, attr_str(NFTA_TABLE_NAME, self.name), flags=NLM_F_CREATE)

    def delete(self) -> Message:
        """Delete the table with all it holds; ENOENT when absent."""
        return self._message(NFT_MSG_DELTABLE, attr_str(NFTA_TABLE_NAME, self.name))

    def add_chain(
        self, name: str, *, kind: str | None = None, hook: int = 0, priority: int = 0, policy: int = NF_ACCEPT
    ) -> Message:
        """Create a chain unless it exists; with *kind* ("nat", "filter") a base chain at a hook."""
        parts = [attr_str(NFTA_CHAIN_TABLE, self.name), attr_str(NFTA_CHAIN_NAME, name)]
        if kind is not None:
            place = attr_be32(NFTA_HOOK_HOOKNUM, hook)
            place += attr(NFTA_HOOK_PRIORITY, struct.pack(">i", priority))
            parts += [
                nested(NFTA_CHAIN_HOOK, place),
                attr_be32(NFTA_CHAIN_POLICY, policy),
                attr_str(NFTA_CHAIN_TYPE, kind),
            ]
        return self._message(NFT_MSG_NEWCHAIN, *parts, flags=NLM_F_CREATE)

    def add_rule(
        self, chain: str, *expressions: bytes, comment: str | None = None, first: bool = False
    ) -> Message:
        """Append a rule (or put it first)."""
        parts = [
            attr_str(NFTA_RULE_TABLE, self.name),
            attr_str(NFTA_RULE_CHAIN, chain),
            nested(NFTA_RULE_EXPRESSIONS, *expressions),
        ]
        if comment is not None:
            # nft's udata: type 0 is the comment, one byte each of type and length, the text with its zero.
            text = comment.encode() + b"\0"
            parts.append(attr(NFTA_RULE_USERDATA, bytes((0, len(text))) + text))
        return self._message(NFT_MSG_NEWRULE, *parts, flags=NLM_F_CREATE | (0 if first else NLM_F_APPEND))

    def delete_rule(self, chain: str, handle: int) -> Message:
        """Delete one rule by its handle."""
        return self._message(
            NFT_MSG_DELRULE,
            attr_str(NFTA_RULE_TABLE, self.name),
            attr_str(NFTA_RULE_CHAIN, chain),
            attr(NFTA_RULE_HANDLE, handle.to_bytes(8, "big")),
        )

    def flush_rules(self, chain: str | None = None) -> Message:
        """Delete all rules of a chain, or of all chains; sets and their elements stay."""
        parts = [attr_str(NFTA_RULE_TABLE, self.name)]
        if chain is not None:
            parts.append(attr_str(NFTA_RULE_CHAIN, chain))
        return self._message(NFT_MSG_DELRULE, *parts)

    def add_set(
        self,
        name: str,
        key_types: Sequence[int],
        key_length: int,
        *,
        data_types: Sequence[int] = (),
        data_length: int = 0,
        interval: bool = False,
        number: int = 1,
    ) -> Message:
        """Create a set, or with *data_types* a map, unless it exists.

        Args:
            number: an id that is unique in the transaction.
        """
        flags = (NFT_SET_INTERVAL if interval else 0) | (NFT_SET_MAP if data_types else 0)
        parts = [
            attr_str(NFTA_SET_TABLE, self.name),
            attr_str(NFTA_SET_NAME, name),
            attr_be32(NFTA_SET_FLAGS, flags),
            attr_be32(NFTA_SET_KEY_TYPE, concat_type(*key_types)),
            attr_be32(NFTA_SET_KEY_LEN, key_length),
        ]
        if data_types:
            parts.append(attr_be32(NFTA_SET_DATA_TYPE, concat_type(*data_types)))
            parts.append(attr_be32(NFTA_SET_DATA_LEN, data_length))
        parts.append(attr_be32(NFTA_SET_ID, number))
        if tuple(key_types) == (TYPE_IFNAME,):
            # libnftnl's NFTNL_UDATA_SET_KEYBYTEORDER = host-endian: without it nft(8) prints the names reversed.
            parts.append(attr(NFTA_SET_USERDATA, bytes((0, 4)) + struct.pack("=I", 1)))
        return self._message(NFT_MSG_NEWSET, *parts, flags=NLM_F_CREATE)

    def add_elements(
        self, set_name: str, elements: Iterable[bytes], *, exclusive: bool = True
    ) -> list[Message]:
        """Add encoded elements (see `element`), as many to a message as fit.

        Args:
            exclusive: an existing key is EEXIST; otherwise it stays as it is.
        """
        flags = NLM_F_CREATE | (NLM_F_EXCL if exclusive else 0)
        return [self._elements(NFT_MSG_NEWSETELEM, set_name, c, flags) for c in _chunks(elements)]

    def delete_elements(self, set_name: str, elements: Iterable[bytes]) -> list[Message]:
        """Delete encoded elements; ENOENT when one is absent."""
        return [self._elements(NFT_MSG_DELSETELEM, set_name, c, 0) for c in _chunks(elements)]

    def flush_set(self, set_name: str) -> Message:
        """Delete all elements of a set."""
        return self._message(
            NFT_MSG_DELSETELEM,
            attr_str(NFTA_SET_ELEM_LIST_TABLE, self.name),
            attr_str(NFTA_SET_ELEM_LIST_SET, set_name),
        )

    def _elements(self, kind: int, set_name: str, elements: list[bytes], flags: int) -> Message:
        return self._message(
            kind,
            attr_str(NFTA_SET_ELEM_LIST_TABLE, self.name),
            attr_str(NFTA_SET_ELEM_LIST_SET, set_name),
            nested(NFTA_SET_ELEM_LIST_ELEMENTS, *elements),
            flags=flags,
        )


def element(key: bytes, value: bytes | None = None, *, interval_end: bool = False) -> bytes:
    """Encode an element of a set (or, with *value*, of a map)."""
    parts = [nested(NFTA_SET_ELEM_KEY, _data(key))]
    if value is not None:
        parts.append(nested(NFTA_SET_ELEM_DATA, _data(value)))
    if interval_end:
        parts.append(attr_be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END))
    return nested(NFTA_LIST_ELEM, *parts)


def prefix_elements(address: bytes, prefix_length: int) -> list[bytes]:
    """Encode a prefix as the two ends of an interval, for a set with NFT_SET_INTERVAL."""
    start = int.from_bytes(address, "big")
    end = start + (1 << (32 - prefix_length))
    found = [element(address)]
    if end < 1 << 32:  # an interval that reaches the last address has no end element
        found.append(element(end.to_bytes(4, "big"), interval_end=True))
    return found


def _chunks(elements: Iterable[bytes]) -> Iterator[list[bytes]]:
    everything = list(elements)
    for start in range(0, len(everything), ELEMENTS_PER_MESSAGE):
        yield everything[start : start + ELEMENTS_PER_MESSAGE]


# Reading back.  Used at start and by `system check`, never on a hot path.


def list_tables(netfilter: Netfilter, family: int = NFPROTO_IPV4) -> list[str]:
    """Return the names of all tables of a family."""
    answers = netfilter.socket.dump(Message(NFT_MSG_GETTABLE, genmsg(family), NLM_F_DUMP))
    return [
        _text(attrs_dict(body[4:]).get(NFTA_TABLE_NAME)) for kind, body in answers if kind == NFT_MSG_NEWTABLE
    ]


class Chain:
    """A chain that the kernel has: `hook` and `priority` None for one that is only jumped to."""

    __slots__ = ("hook", "name", "policy", "priority", "table")

    def __init__(
        self, table: str, name: str, hook: int | None, priority: int | None, policy: int | None
    ) -> None:
        self.table = table
        self.name = name
        self.hook = hook
        self.priority = priority
        self.policy = policy


def list_chains(netfilter: Netfilter, family: int = NFPROTO_IPV4) -> list[Chain]:
    """Return all chains of a family, in any table."""
    found: list[Chain] = []
    for kind, body in netfilter.socket.dump(Message(NFT_MSG_GETCHAIN, genmsg(family), NLM_F_DUMP)):
        if kind != NFT_MSG_NEWCHAIN:
            continue
        attrs = attrs_dict(body[4:])
        hook = attrs_dict(attrs[NFTA_CHAIN_HOOK]) if NFTA_CHAIN_HOOK in attrs else {}
        priority = hook.get(NFTA_HOOK_PRIORITY)
        found.append(
            Chain(
                _text(attrs.get(NFTA_CHAIN_TABLE)),
                _text(attrs.get(NFTA_CHAIN_NAME)),
                _be32(hook.get(NFTA_HOOK_HOOKNUM)),
                struct.unpack(">i", priority)[0] if priority else None,
                _be32(attrs.get(NFTA_CHAIN_POLICY)),
            )
        )
    return found


def list_elements(netfilter: Netfilter, table: Table, set_name: str) -> list[tuple[bytes, bytes, int]]:
    """Return `(key, value, flags)` of all elements of a set; value is empty when it is no map."""
    request = Message(
        NFT_MSG_GETSETELEM,
        genmsg(table.family)
        + attr_str(NFTA_SET_ELEM_LIST_TABLE, table.name)
        + attr_str(NFTA_SET_ELEM_LIST_SET, set_name),
        NLM_F_DUMP,
    )
    found: list[tuple[bytes, bytes, int]] = []
    for _kind, body in netfilter.socket.dump(request):
        listed = attrs_dict(body[4:]).get(NFTA_SET_ELEM_LIST_ELEMENTS, b"")
        for _number, encoded in iter_attrs(listed):
            attrs = attrs_dict(encoded)
            key = attrs_dict(attrs.get(NFTA_SET_ELEM_KEY, b"")).get(NFTA_DATA_VALUE, b"")
            value = attrs_dict(attrs.get(NFTA_SET_ELEM_DATA, b"")).get(NFTA_DATA_VALUE, b"")
            found.append((key, value, _be32(attrs.get(NFTA_SET_ELEM_FLAGS)) or 0))
    return found


def list_rules(netfilter: Netfilter, table: Table, chain: str) -> list[tuple[int, str]]:
    """Return `(handle, comment)` of a chain's rules in their order."""
    request = Message(
        NFT_MSG_GETRULE,
        genmsg(table.family) + attr_str(NFTA_RULE_TABLE, table.name) + attr_str(NFTA_RULE_CHAIN, chain),
        NLM_F_DUMP,
    )
    found: list[tuple[int, str]] = []
    for kind, body in netfilter.socket.dump(request):
        attrs = attrs_dict(body[4:])
        # Old kernels do not filter the dump by table and chain.
        wanted = (table.name, chain) == (_text(attrs.get(NFTA_RULE_TABLE)), _text(attrs.get(NFTA_RULE_CHAIN)))
        if kind == NFT_MSG_NEWRULE and wanted:
            handle = int.from_bytes(attrs.get(NFTA_RULE_HANDLE, b""), "big")
            found.append((handle, _comment(attrs.get(NFTA_RULE_USERDATA, b""))))
    return found


def _comment(userdata: bytes) -> str:
    while len(userdata) >= 2:
        kind, size = userdata[0], userdata[1]
        if kind == 0:
            return _text(userdata[2 : 2 + size])
        userdata = userdata[2 + size :]
    return ""


def _text(data: bytes | None) -> str:
    return (data or b"").split(b"\0", 1)[0].decode(errors="replace")


def _be32(data: bytes | None) -> int | None:
    return int.from_bytes(data, "big") if data else None
