"""Address management: which subnets networks get, which addresses endpoints get.

Pure bookkeeping in memory; the database of networks and the records of live containers are the truth from which
it is built again.  Addresses go lowest free first, subnets in the order of the pools, as Docker's do.

Source: moby v28.5.2 libnetwork/ipams/defaultipam.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from satsuma.base.errors import Forbidden, InvalidParameter, Unavailable


class AddressPool:
    """The addresses of one subnet; network and broadcast address are never given out (but in a /31 or /32)."""

    def __init__(self, subnet: IPv4Network, ip_range: IPv4Network | None = None) -> None:
        self.subnet = subnet
        self.ip_range = ip_range or subnet
        self._used: set[int] = set()
        self._first = int(self.ip_range.network_address)
        self._last = int(self.ip_range.broadcast_address)
        self._hint = self._first
        if subnet.prefixlen < 31:
            self._used.add(int(subnet.network_address))
            self._used.add(int(subnet.broadcast_address))

    def request(self, wanted: str | None = None) -> IPv4Address:
        """Take an address: *wanted*, or the lowest free one of the range.

        Raises:
            InvalidParameter: *wanted* is outside the subnet.
            Forbidden: *wanted* is taken.
            Unavailable: nothing is free.
        """
        if wanted:
            address = IPv4Address(wanted)
            if address not in self.subnet:
                raise InvalidParameter("requested address is out of range")
            if int(address) in self._used:
                raise Forbidden("Address already in use")
            self._used.add(int(address))
            return address
        candidate = self._hint
        while candidate in self._used:
            candidate += 1
        if candidate > self._last:
            raise Unavailable("no available addresses on this pool")
        self._used.add(candidate)
        self._hint = candidate + 1
        return IPv4Address(candidate)

    def release(self, address: str | IPv4Address) -> None:
        """Give an address back; one that is free already is no error."""
        number = int(IPv4Address(address))
        self._used.discard(number)
        if self._first <= number < self._hint:
            self._hint = number

    def is_used(self, address: str | IPv4Address) -> bool:
        """Tell whether an address is taken (or reserved)."""
        return int(IPv4Address(address)) in self._used


def choose_subnet(
    pools: Sequence[tuple[str, int]], taken: Iterable[IPv4Network], host: Iterable[IPv4Network] = ()
) -> IPv4Network:
    """Return the first subnet of *pools* that overlaps neither another network nor a route of the host.

    Raises:
        InvalidParameter: none is left, in Docker's words.
    """
    blocked = [*taken, *host]
    for base, size in pools:
        for subnet in IPv4Network(base).subnets(new_prefix=size):
            if not any(subnet.overlaps(other) for other in blocked):
                return subnet
    raise InvalidParameter("all predefined address pools have been fully subnetted")


def parse_subnet(text: str) -> IPv4Network:
    """Parse a subnet in CIDR notation without host bits.

    Raises:
        ValueError: Docker's words for what is wrong.
    """
    address, slash, length = text.partition("/")
    if not slash or not length.isascii() or not length.isdigit():
        raise ValueError(f"invalid subnet {text}: invalid CIDR block notation")
    try:
        network = IPv4Network((address, int(length)), strict=False)
    except ValueError:
        raise ValueError(f"invalid subnet {text}: invalid CIDR block notation") from None
    if str(network.network_address) != address:
        raise ValueError(f"invalid subnet {text}: it should be {network}")
    return network


def check_range(text: str, subnet: IPv4Network) -> list[str]:
    """Return Docker's complaints about an ip-range."""
    try:
        found = IPv4Network(text, strict=False)
    except ValueError:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if "/" not in text:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    errors = []
    if found.prefixlen < subnet.prefixlen:
        errors.append(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}")
    if str(found) != text:
        errors.append(f"invalid ip-range {text}: it should be {found}")
    if not found.overlaps(subnet):
        errors.append(f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")
    return errors


def check_address(text: str, subnet: IPv4Network) -> str | None:
    """Return Docker's complaint about an address that shall lie in *subnet*, or None."""
    try:
        address = IPv4Address(text)
    except ValueError:
        return "parent subnet is an IPv4 block" if ":" in text else "invalid address"
    return None if address in subnet else f"parent subnet {subnet} doesn't contain this address"
