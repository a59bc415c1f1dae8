"""Our encoding, read back by nft(8): the table is what the module's docstring says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest
from network_lab import nft_list

from satsuma.network.firewall import BridgeRules, Firewall, PortRule

LEFT = BridgeRules(interface="stleft", subnets=(IPv4Network("10.1.0.0/16"),))
RIGHT = BridgeRules(interface="stright", subnets=(IPv4Network("10.2.0.0/24"),), icc=False, internal=True)
WEB = PortRule(protocol="tcp", host_ip="0.0.0.0", host_port=8080, address="10.1.0.2", port=80)
DNS = PortRule(protocol="udp", host_ip="127.0.0.1", host_port=53, address="10.1.0.3", port=5353)

CHAINS = {
    "raw": ["iifname @bridges ip daddr 127.0.0.0/8 counter drop"],
    "prerouting": [
        "ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . ip daddr . th dport map @ports_ip",
        "ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @ports_any",
    ],
    "output": [
        "fib daddr type local dnat ip to meta l4proto . ip daddr . th dport map @ports_ip",
        "fib daddr type local dnat ip to meta l4proto . th dport map @ports_any",
    ],
    "postrouting": [
        "oifname @bridges ct status dnat ip saddr @subnets masquerade",
        "oifname @bridges ip saddr 127.0.0.0/8 masquerade",
        "oifname != @bridges ip saddr @masq masquerade",
    ],
    "forward": [
        "iifname . oifname @same accept",
        "iifname @internal counter drop",
        "oifname @internal counter drop",
        "oifname @bridges ct state established,related accept",
        "oifname @bridges ct status dnat accept",
        "oifname @open iifname != @bridges accept",
        "iifname @uplinks oifname @uplinks counter drop",
        "oifname @bridges counter drop",
    ],
}


@pytest.fixture
def firewall() -> Iterator[Firewall]:
    made = Firewall(f"satsuma_test{os.getpid()}")
    made.open()
    yield made
    made.delete()
    assert not made.exists()
    made.close()


def read(firewall: Firewall) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the rules by chain and the elements by set, counters without their numbers."""
    text = re.sub(r"counter packets \d+ bytes \d+", "counter", nft_list(firewall.table.name))
    chains = {
        name: [
            line.strip()
            for line in body.splitlines()
            if line.strip() and not line.strip().startswith("type ")
        ]
        for name, body in re.findall(r"chain (\w+) {\n(.*?)\n\t}", text, re.DOTALL)
    }
    sets = {
        name: " ".join("".join(re.findall(r"elements = {(.*?)}", body, re.DOTALL)).split())
        for name, body in re.findall(r"(?:set|map) (\w+) {\n(.*?)\n\t}", text, re.DOTALL)
    }
    return chains, sets


def test_rules_read_as_intended(firewall: Firewall) -> None:
    chains, sets = read(firewall)
    assert chains == CHAINS
    assert set(sets.values()) == {""}
    firewall.open()
    assert read(firewall)[0] == CHAINS, "opening twice doubles nothing"


def test_elements_read_as_intended(firewall: Firewall) -> None:
    firewall.add_bridge(LEFT)
    firewall.add_bridge(RIGHT)
    firewall.add_ports([WEB, DNS])
    firewall.block_forwarding_between(["eth0", "eth1"])
    wanted = {
        "ports_any": "tcp . 8080 : 10.1.0.2 . 80",
        "ports_ip": "udp . 127.0.0.1 . 53 : 10.1.0.3 . 5353",
        "same": '"stleft" . "stleft"',
        "internal": '"stright"',
        "masq": "10.1.0.0/16",
        "subnets": "10.1.0.0/16, 10.2.0.0/24",
        "open": "",
    }
    sets = read(firewall)[1]
    assert {name: sets[name] for name in wanted} == wanted
    assert sorted(sets["bridges"].split(", ")) == ['"stleft"', '"stright"']
    assert sorted(sets["uplinks"].split(", ")) == ['"eth0"', '"eth1"']


def test_taking_out_is_exact_and_repeatable(firewall: Firewall) -> None:
    firewall.add_bridge(LEFT)
    firewall.add_bridge(RIGHT)
    firewall.add_ports([WEB, DNS])
    for _ in range(2):
        firewall.remove_ports([WEB])
        firewall.remove_bridge(RIGHT)
    sets = read(firewall)[1]
    assert (sets["ports_any"], sets["bridges"], sets["subnets"]) == ("", '"stleft"', "10.1.0.0/16")
    firewall.remove_ports([WEB, DNS])
    assert read(firewall)[1]["ports_ip"] == "", "one that is absent does not keep the other"


def test_a_key_of_a_dead_container_is_taken_over(firewall: Firewall) -> None:
    firewall.add_ports([WEB])
    moved = PortRule(protocol="tcp", host_ip="0.0.0.0", host_port=8080, address="10.1.0.9", port=81)
    firewall.add_ports([moved, DNS])
    assert read(firewall)[1]["ports_any"] == "tcp . 8080 : 10.1.0.9 . 81"


def test_restore_leaves_exactly_what_it_is_given(firewall: Firewall) -> None:
    firewall.add_bridge(RIGHT)
    firewall.add_ports([DNS])
    firewall.restore([LEFT], [WEB])
    sets = read(firewall)[1]
    assert (sets["bridges"], sets["internal"], sets["ports_ip"]) == ('"stleft"', "", "")
    assert sets["ports_any"] == "tcp . 8080 : 10.1.0.2 . 80"


def test_thousands_of_ports_in_one_transaction(firewall: Firewall) -> None:
    ports = [
        PortRule(protocol="tcp", host_ip="0.0.0.0", host_port=1000 + n, address="10.1.0.2", port=1000 + n)
        for n in range(3000)
    ]
    firewall.add_ports(ports)
    assert read(firewall)[1]["ports_any"].count("tcp .") == 3000
    firewall.remove_ports(ports)
    assert read(firewall)[1]["ports_any"] == ""
