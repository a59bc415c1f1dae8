"""DNS messages, as far as an embedded server needs them: read a question, write an answer, nothing else.

Pure: bytes in, values out.  A message that is forwarded travels as the bytes it came in.
Source: RFC 1035 section 4, RFC 6891 section 6.1 (OPT), RFC 7766 (TCP).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

TYPE_A, TYPE_PTR, TYPE_MX, TYPE_AAAA, TYPE_OPT = 1, 12, 15, 28, 41
CLASS_IN, CLASS_ANY = 1, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

QR, TC, RD, RA = 0x8000, 0x0200, 0x0100, 0x0080
_OPCODE_MASK = 0x7800
_RCODE_MASK = 0x000F

MIN_SIZE = 512
"""What every client takes in one datagram."""
MAX_SIZE = 65535

_HEADER = struct.Struct(">HHHHHH")
_FIXED = struct.Struct(">HHIH")


class DnsFormatError(ValueError):
    """The bytes are no DNS query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query's header and first question.

    `name` is as the client spelled it, with a dot at the end; labels are decoded as Latin-1, so that every byte
    comes back as it was.
    """

    id: int
    flags: int
    name: str
    qtype: int
    qclass: int
    question: bytes
    udp_size: int

    @property
    def opcode(self) -> int:
        """Return the kind of query, 0 for a standard one."""
        return (self.flags & _OPCODE_MASK) >> 11


def parse_query(data: bytes) -> Query:
    """Parse a query.

    Raises:
        DnsFormatError: too short, a response, no question, or a bad name.
    """
    if len(data) < 12:
        raise DnsFormatError("shorter than a header")
    number, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & QR or questions < 1:
        raise DnsFormatError("no question")
    name, offset = _read_name(data, 12)
    if offset + 4 > len(data):
        raise DnsFormatError("question is cut off")
    qtype, qclass = struct.unpack_from(">HH", data, offset)
    end = offset + 4
    size = MIN_SIZE
    if questions == 1 and not answers and not authorities and additionals:
        size = _edns_size(data, end)
    return Query(
        id=number, flags=flags, name=name, qtype=qtype, qclass=qclass, question=data[12:end], udp_size=size
    )


def _read_name(data: bytes, offset: int) -> tuple[str, int]:
    """Read an uncompressed name: in a query's first question there is nothing to point back to."""
    labels: list[str] = []
    total = 0
    while True:
        if offset >= len(data):
            raise DnsFormatError("name is cut off")
        size = data[offset]
        offset += 1
        if size == 0:
            return ".".join(labels) + ".", offset
        if size > 63:
            raise DnsFormatError("compressed or unknown label")
        total += size + 1
        if total > 254 or offset + size > len(data):
            raise DnsFormatError("name is too long or cut off")
        labels.append(data[offset : offset + size].decode("latin-1"))
        offset += size


def _edns_size(data: bytes, offset: int) -> int:
    """Return the client's datagram size from an OPT record that is the first additional one."""
    if offset + 11 > len(data) or data[offset] != 0:
        return MIN_SIZE
    kind, size = struct.unpack_from(">HH", data, offset + 1)
    return max(MIN_SIZE, size) if kind == TYPE_OPT else MIN_SIZE


def encode_name(name: str) -> bytes:
    """Encode a name without compression.

    Raises:
        DnsFormatError: an empty or too long label.
    """
    encoded = b""
    for label in name.rstrip(".").split("."):
        part = label.encode("latin-1", "replace")
        if not 0 < len(part) < 64:
            raise DnsFormatError(f"bad label in {name!r}")
        encoded += bytes((len(part),)) + part
    return encoded + b"\0"


def _respond(query: Query, rcode: int, records: Sequence[bytes], flags: int = 0) -> bytes:
    head = QR | RA | flags | (query.flags & (RD | _OPCODE_MASK)) | rcode
    return _HEADER.pack(query.id, head, 1, len(records), 0, 0) + query.question + b"".join(records)


def encode_addresses(query: Query, addresses: Sequence[IPv4Address], ttl: int, limit: int) -> bytes:
    """Answer with A records, as many as fit into *limit*; TC is set when some do not."""
    records = [_record(TYPE_A, ttl, address.packed) for address in addresses]
    room = max(0, (limit - 12 - len(query.question)) // 16)
    if len(records) > room:
        return _respond(query, NOERROR, records[:room], TC)
    return _respond(query, NOERROR, records)


def encode_pointer(query: Query, name: str, ttl: int) -> bytes:
    """Answer with one PTR record."""
    return _respond(query, NOERROR, [_record(TYPE_PTR, ttl, encode_name(name))])


def encode_status(query: Query, rcode: int) -> bytes:
    """Answer without records: an error, or NOERROR for "known, but nothing of this type"."""
    return _respond(query, rcode, [])


def _record(kind: int, ttl: int, data: bytes) -> bytes:
    # 0xC00C points back to the question's name, which always is at offset 12.
    return b"\xc0\x0c" + _FIXED.pack(kind, CLASS_IN, ttl, len(data)) + data


def rcode_of(response: bytes) -> int:
    """Return a response's status."""
    return (response[3] & _RCODE_MASK) if len(response) >= 12 else SERVFAIL


def answers_query(response: bytes, query: bytes) -> bool:
    """Tell whether *response* is an answer to *query*: same id, a response, same question."""
    if len(response) < 12 or response[:2] != query[:2] or not response[2] & 0x80:
        return False
    try:
        asked = parse_query(query)
    except DnsFormatError:
        return False
    question = response[12 : 12 + len(asked.question)]
    # Some servers answer an error without repeating the question.
    return question.lower() == asked.question.lower() or (
        rcode_of(response) != NOERROR and len(response) == 12
    )


def address_of_pointer(name: str) -> IPv4Address | None:
    """Return the address that a reverse name asks for, `2.0.17.172.in-addr.arpa.` → 172.17.0.2."""
    labels = name.rstrip(".").lower().split(".")
    if len(labels) != 6 or labels[4:] != ["in-addr", "arpa"]:
        return None
    try:
        return IPv4Address(".".join(reversed(labels[:4])))
    except ValueError:
        return None
