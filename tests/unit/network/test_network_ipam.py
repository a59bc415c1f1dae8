"""Addresses and subnets."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.base.errors import Forbidden, InvalidParameter, Unavailable
from satsuma.network import DEFAULT_ADDRESS_POOLS
from satsuma.network.ipam import AddressPool, check_address, check_range, choose_subnet, parse_subnet


@given(st.lists(st.one_of(st.none(), st.integers(0, 15)), max_size=60))
def test_always_the_lowest_free_address(steps: list[int | None]) -> None:
    """A step is an allocation (None) or the release of one of the sixteen addresses."""
    network = IPv4Network("10.0.0.0/28")
    pool = AddressPool(network)
    hosts = list(network.hosts())
    used: set[IPv4Address] = set()
    for step in steps:
        if step is not None:
            address = network[step]
            if address in used:
                used.remove(address)
                pool.release(address)
            continue
        free = [host for host in hosts if host not in used]
        if not free:
            with pytest.raises(Unavailable):
                pool.request()
            continue
        assert pool.request() == free[0]
        used.add(free[0])


def test_a_wanted_address_is_given_once() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/24"), IPv4Network("10.0.0.128/25"))
    assert str(pool.request("10.0.0.5")) == "10.0.0.5"
    with pytest.raises(Forbidden, match="Address already in use"):
        pool.request("10.0.0.5")
    with pytest.raises(Forbidden):
        pool.request("10.0.0.0")
    with pytest.raises(InvalidParameter, match="requested address is out of range"):
        pool.request("10.0.1.5")
    assert str(pool.request()) == "10.0.0.128"


def test_both_addresses_of_a_point_to_point_subnet_are_given() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/31"))
    assert [str(pool.request()), str(pool.request())] == ["10.0.0.0", "10.0.0.1"]


def test_subnets_in_dockers_order() -> None:
    taken: list[IPv4Network] = []
    for _ in range(31):
        taken.append(choose_subnet(DEFAULT_ADDRESS_POOLS, taken))
    assert [str(n) for n in taken[:2]] == ["172.17.0.0/16", "172.18.0.0/16"]
    assert [str(n) for n in taken[14:17]] == ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]
    with pytest.raises(InvalidParameter, match="all predefined address pools have been fully subnetted"):
        choose_subnet(DEFAULT_ADDRESS_POOLS, taken)


def test_routes_of_the_host_are_avoided() -> None:
    host = [IPv4Network("172.16.0.0/12")]
    assert str(choose_subnet(DEFAULT_ADDRESS_POOLS, [], host)) == "192.168.0.0/20"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("10.0.0.0", "invalid CIDR block notation"),
        ("10.0.0.0/33", "invalid CIDR block notation"),
        ("10.0.0.0/²", "invalid CIDR block notation"),
        ("nonsense/8", "invalid CIDR block notation"),
        ("10.0.0.7/24", "it should be 10.0.0.0/24"),
    ],
)
def test_bad_subnets(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_subnet(text)


def test_ranges_and_addresses_are_checked_against_their_subnet() -> None:
    subnet = IPv4Network("10.0.0.0/24")
    assert check_range("10.0.0.128/25", subnet) == []
    assert check_range("10.0.0.0/16", subnet) == [
        "invalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24"
    ]
    assert check_range("10.9.0.0/25", subnet) == [
        "invalid ip-range 10.9.0.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range"
    ]
    assert check_address("10.0.0.9", subnet) is None
    assert check_address("x", subnet) == "invalid address"
    assert check_address("fe80::1", subnet) == "parent subnet is an IPv4 block"
    assert check_address("10.1.0.9", subnet) == "parent subnet 10.0.0.0/24 doesn't contain this address"
