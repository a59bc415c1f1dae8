"""The three files of /etc that the engine writes for each container: hosts, hostname, resolv.conf.

Texts in, texts out; the engine writes them.  Source: moby daemon/libnetwork/{etchosts,internal/resolvconf}.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_HOSTS_HEAD = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
"""What Docker writes when the host has no resolver that a container could reach."""
EMBEDDED_DNS = "127.0.0.11"


def hosts_text(
    *, addresses: Iterable[str], hostname: str, domainname: str, extra: Iterable[tuple[str, str]]
) -> str:
    """Return /etc/hosts.

    Args:
        addresses: the container's own, one line each.
        extra: (name, address) of `--add-host` and `--link`; they come before the container's own line.
    """
    lines = [f"{address}\t{name}\n" for name, address in extra]
    full = f"{hostname}.{domainname}" if domainname else hostname
    first, dot, _ = full.partition(".")
    names = f"{full} {first}" if dot else full
    lines += [f"{address}\t{names}\n" for address in addresses if address]
    return _HOSTS_HEAD + "".join(lines)


def resolv_conf_text(
    host_text: str,
    *,
    nameservers: Iterable[str] = (),
    search: Iterable[str] = (),
    options: Iterable[str] = (),
    keep_loopback: bool = False,
    embedded: bool = False,
) -> str:
    """Return /etc/resolv.conf from the host's, with what the container or the daemon overrides.

    Args:
        keep_loopback: the container shares the host's network, so that a resolver on 127.0.0.53 is reachable.
        embedded: the network has a name server of ours; it is the only one that the container sees.
    """
    found = parse_resolv_conf(host_text)
    servers = list(nameservers) or [
        server for server in found["nameserver"] if keep_loopback or not _is_loopback(server)
    ]
    if not servers and not keep_loopback:
        servers = list(FALLBACK_NAMESERVERS)
    domains = [item for item in search if item != "."] if list(search) else found["search"]
    wanted = list(options) or found["options"]
    lines = []
    if embedded:
        lines.append(f"nameserver {EMBEDDED_DNS}\n")
        if not any(option.startswith("ndots:") for option in wanted):
            wanted = [*wanted, "ndots:0"]
    else:
        lines += [f"nameserver {server}\n" for server in servers]
    if domains:
        lines.append("search " + " ".join(domains) + "\n")
    if wanted:
        lines.append("options " + " ".join(wanted) + "\n")
    return "".join(lines)


def parse_resolv_conf(text: str) -> dict[str, list[str]]:
    """Return the nameservers, search domains and options of a resolv.conf."""
    answer: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            answer["nameserver"].append(words[1])
        elif words[0] in ("search", "domain"):
            answer["search"] = words[1:]
        elif words[0] == "options":
            answer["options"].extend(words[1:])
    return answer


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def split_extra_host(item: str, gateway: str) -> tuple[str, str]:
    """Return (name, address) of one `--add-host`; `host-gateway` is the address *gateway*."""
    name, _, address = item.partition("=") if "=" in item else item.partition(":")
    if address == "host-gateway":
        address = gateway
    return name, address.removeprefix("[").removesuffix("]")
