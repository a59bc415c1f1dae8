"""Living with other people's firewall rules.

Every table at a hook sees every packet, and one drop is final: an accept of ours is none in theirs.  What is done:

* Where the iptables table `filter` (as nf_tables has it) has a FORWARD chain with the policy DROP, as after
  dockerd turned forwarding on, two rules per bridge are *appended* to it: from the bridge, accept; to the
  bridge, accept.  At the end of the chain they decide only what nobody else did, so Docker's isolation of its
  own networks stays as it is, and isolation of ours is the business of our own table.  The rules carry a
  comment by which they are found and removed.
* DOCKER-USER and all other chains are left alone.  So are tables that an administrator made with nft: a policy
  of DROP there is meant.
* The old iptables (legacy) tables cannot be seen through nf_tables; a warning says so where they are in use.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from satsuma.linux import nftables as nft
from satsuma.linux.netlink import Message
from satsuma.linux.nfnetlink import Netfilter

_TABLE = "filter"
_CHAIN = "FORWARD"
_LEGACY = "/proc/net/ip_tables_names"


class Guests:
    """Our few rules in the iptables table.  One caller at a time.

    Args:
        owner: the engine's mark, part of the comments.
    """

    def __init__(self, netfilter: Netfilter, owner: str) -> None:
        self._netfilter = netfilter
        self._owner = owner
        self._table = nft.Table(_TABLE)

    def sync(self, bridges: Iterable[str]) -> None:
        """Make the FORWARD chain let *bridges* through, and no bridge of ours that is gone.

        Idempotent.  Without the policy DROP all our rules are taken out: nothing of ours is left where it is not
        needed.
        """
        policy = self._policy()
        if policy is None:
            return
        wanted = {f"{self._owner} {name}": name for name in bridges} if policy == nft.NF_DROP else {}
        present: dict[str, list[int]] = {}
        for handle, comment in nft.list_rules(self._netfilter, self._table, _CHAIN):
            if comment.startswith(self._owner + " "):
                present.setdefault(comment, []).append(handle)
        messages: list[Message] = []
        for comment, handles in present.items():
            if comment not in wanted or len(handles) != 2:
                messages += [self._table.delete_rule(_CHAIN, handle) for handle in handles]
        for comment, name in wanted.items():
            if len(present.get(comment, ())) != 2:
                messages += self._rules(name, comment)
        if messages:
            self._netfilter.run(messages)

    def _rules(self, bridge: str, comment: str) -> list[Message]:
        # counter and this order of expressions are what iptables-nft itself writes, so that `iptables -S` can
        # read the chain.
        accept = (nft.counter(), nft.verdict(nft.NF_ACCEPT))
        name = nft.ifname_key(bridge)
        return [
            self._table.add_rule(
                _CHAIN,
                nft.meta(key, nft.NFT_REG_1),
                nft.compare(nft.NFT_REG_1, nft.NFT_CMP_EQ, name),
                *accept,
                comment=comment,
            )
            for key in (nft.NFT_META_IIFNAME, nft.NFT_META_OIFNAME)
        ]

    def _policy(self) -> int | None:
        """Return the policy of the FORWARD chain, None when there is no such chain."""
        try:
            chains = nft.list_chains(self._netfilter)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        for chain in chains:
            if (chain.table, chain.name, chain.hook) == (_TABLE, _CHAIN, nft.NF_INET_FORWARD):
                return chain.policy
        return None


def legacy_tables(path: str = _LEGACY) -> list[str]:
    """Return the names of the old iptables tables in use, which this engine cannot look into."""
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []
