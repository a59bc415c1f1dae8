"""Host ports: which one, and whose."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from satsuma.base.errors import InvalidParameter, Unsupported
from satsuma.network import PortSpec
from satsuma.network.firewall import PortRule
from satsuma.network.ports import Binding, PortAllocator, PortTaken, ephemeral_range, parse_host_port

SPAN = (43110, 43114)


@pytest.fixture
def allocator() -> Iterator[PortAllocator]:
    made = PortAllocator(span=SPAN)
    yield made


def numbers(bindings: list[Binding]) -> list[int]:
    return [binding.rule.host_port for binding in bindings]


def test_unspecified_ports_go_round_the_range(allocator: PortAllocator) -> None:
    first = allocator.allocate([PortSpec(port=80)], "10.0.0.2")
    second = allocator.allocate([PortSpec(port=80)], "10.0.0.3")
    assert numbers(first + second) == [43110, 43111]
    allocator.release(first)
    third = allocator.allocate([PortSpec(port=80)], "10.0.0.4")
    assert numbers(third) == [43112], "a freed port rests until the range has been gone round"
    allocator.release(second + third)


def test_a_range_is_exhausted(allocator: PortAllocator) -> None:
    spec = PortSpec(port=80, host_port="43120-43121")
    held = allocator.allocate([spec], "10.0.0.2") + allocator.allocate([spec], "10.0.0.3")
    assert numbers(held) == [43120, 43121]
    with pytest.raises(PortTaken, match="all ports are allocated"):
        allocator.allocate([spec], "10.0.0.4")
    allocator.release(held)


def test_a_port_of_ours_is_taken(allocator: PortAllocator) -> None:
    spec = PortSpec(port=80, host_port="43130")
    held = allocator.allocate([spec], "10.0.0.2")
    for host_ip in ("", "0.0.0.0", "127.0.0.1"):
        with pytest.raises(PortTaken, match=r"Bind for 0\.0\.0\.0:43130 failed: port is already allocated"):
            allocator.allocate([PortSpec(port=81, host_port="43130", host_ip=host_ip)], "10.0.0.3")
    udp = allocator.allocate([PortSpec(port=80, host_port="43130", protocol="udp")], "10.0.0.3")
    allocator.release(held + udp)
    allocator.release(allocator.allocate([spec], "10.0.0.2"))


def test_two_addresses_share_a_port_and_get_the_same_one(allocator: PortAllocator) -> None:
    specs = [PortSpec(port=80, host_ip="127.0.0.1"), PortSpec(port=80, host_ip="127.0.0.2")]
    held = allocator.allocate(specs, "10.0.0.2")
    assert len(set(numbers(held))) == 1
    allocator.release(held)


def test_somebody_elses_port(allocator: PortAllocator) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        spec = PortSpec(port=80, host_port=str(port))
        wanted = f"failed to bind host port for 0.0.0.0:{port}:10.0.0.2:80/tcp: address already in use"
        with pytest.raises(PortTaken) as caught:
            allocator.allocate([spec], "10.0.0.2")
        assert str(caught.value) == wanted
    allocator.release(allocator.allocate([spec], "10.0.0.2"))


def test_an_ephemeral_port_that_somebody_holds_is_skipped(allocator: PortAllocator) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("0.0.0.0", SPAN[0]))
        stranger.listen()
        held = allocator.allocate([PortSpec(port=80)], "10.0.0.2")
        assert numbers(held) == [SPAN[0] + 1]
        allocator.release(held)


def test_all_or_nothing(allocator: PortAllocator) -> None:
    held = allocator.allocate([PortSpec(port=80, host_port="43141")], "10.0.0.2")
    with pytest.raises(PortTaken):
        allocator.allocate(
            [PortSpec(port=1, host_port="43140"), PortSpec(port=2, host_port="43141")], "10.0.0.3"
        )
    again = allocator.allocate([PortSpec(port=1, host_port="43140")], "10.0.0.3")
    allocator.release(held + again)


def test_exact_ports_come_before_ranges_that_contain_them(allocator: PortAllocator) -> None:
    specs = [PortSpec(port=1, host_port="43150-43151"), PortSpec(port=2, host_port="43150")]
    held = allocator.allocate(specs, "10.0.0.2")
    assert {b.rule.port: b.rule.host_port for b in held} == {2: 43150, 1: 43151}
    allocator.release(held)


def test_ports_of_recovered_containers_are_taken(allocator: PortAllocator) -> None:
    allocator.adopt(
        [PortRule(protocol="tcp", host_ip="0.0.0.0", host_port=43160, address="10.0.0.2", port=80)]
    )
    with pytest.raises(PortTaken, match="already allocated"):
        allocator.allocate([PortSpec(port=80, host_port="43160")], "10.0.0.3")


@pytest.mark.parametrize("text", ["x", "1-", "-1", "70000", "9-8", "0-5", "1-2-3", "²"])
def test_bad_host_ports(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_host_port(text)


def test_what_cannot_be_published(allocator: PortAllocator) -> None:
    with pytest.raises(InvalidParameter, match="invalid proto: icmp"):
        allocator.allocate([PortSpec(port=80, protocol="icmp")], "10.0.0.2")
    with pytest.raises(Unsupported, match="IPv6"):
        allocator.allocate([PortSpec(port=80, host_ip="::1")], "10.0.0.2")
    with pytest.raises(InvalidParameter, match="invalid host IP address: 1.2.3"):
        allocator.allocate([PortSpec(port=80, host_ip="1.2.3")], "10.0.0.2")


def test_an_unreadable_range_falls_back(tmp_path: object) -> None:
    assert ephemeral_range(f"{tmp_path}/absent") == (49153, 65535)


def test_a_neighbour_with_many_ports_is_passed_over() -> None:
    with contextlib.ExitStack() as stack:
        span = (47200, 47260)
        for number in range(span[0], span[0] + 40):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", number))
            sock.listen(1)
        ports = PortAllocator(span=span)
        found = ports.allocate([PortSpec(port=80)], "10.0.0.2")
        ports.listen(found)
        assert found[0].rule.host_port == span[0] + 40
        ports.release(found)
