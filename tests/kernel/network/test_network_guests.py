"""Rules in iptables' FORWARD chain, in a namespace that plays the host."""

from __future__ import annotations

import os
import subprocess

from network_lab import Namespaces

from satsuma.linux.nfnetlink import Netfilter
from satsuma.network.guests import Guests


def iptables(*arguments: str) -> str:
    return subprocess.run(["iptables", *arguments], capture_output=True, text=True, check=True).stdout


async def test_bridges_get_through_a_forward_policy_of_drop(namespaces: Namespaces) -> None:
    netns_fd, sock = await namespaces.make()
    os.close(sock)

    def play() -> list[str]:
        seen = []
        with Netfilter() as netfilter:
            guests = Guests(netfilter, "satsuma_test")
            guests.sync(["br0"])  # no iptables table at all
            iptables("-P", "FORWARD", "DROP")
            iptables("-A", "FORWARD", "-i", "docker0", "-j", "ACCEPT")
            guests.sync(["br0", "br1"])
            guests.sync(["br0", "br1"])
            seen.append(iptables("-S", "FORWARD"))
            guests.sync(["br1"])
            seen.append(iptables("-S", "FORWARD"))
            iptables("-P", "FORWARD", "ACCEPT")
            guests.sync(["br1"])
            seen.append(iptables("-S", "FORWARD"))
        return seen

    both, one, none = namespaces.run(netns_fd, play)
    os.close(netns_fd)
    lines = [line for line in both.splitlines() if "ACCEPT" in line]
    assert lines[0].startswith("-A FORWARD -i docker0")
    assert len(lines) == 5
    assert all(f"{flag} {bridge}" in both for flag in ("-i", "-o") for bridge in ("br0", "br1"))
    assert "br0" not in one and "br1" in one
    assert "br1" not in none
    assert "docker0" in none
