"""`--link` on the default bridge: variables about the other container, and its name in /etc/hosts.

Source: moby daemon/links/links.go, daemon/container_operations_unix.go `setupLinkedContainers`.
"""

from __future__ import annotations

from satsuma.base.errors import InvalidParameter, NotFound, System
from satsuma.container import Record
from satsuma.container.ports import port_key
from satsuma.engine.core import Core


def split_link(link: str) -> tuple[str, str]:
    """Return (container, alias) of `container[:alias]`; inspect's form `/name:/parent/alias` works too.

    Raises:
        InvalidParameter: `bad format for links: x`.
    """
    parts = link.split(":")
    if not link or len(parts) > 2 or not parts[0]:
        raise InvalidParameter(f"bad format for links: {link}")
    name = parts[0].removeprefix("/")
    alias = parts[1].rpartition("/")[2] if len(parts) == 2 else name
    return name, alias


def link_target(core: Core, link: str) -> tuple[Record, str]:
    """Return the container that a link means, and its alias.

    Raises:
        InvalidParameter: not of a link's form.
        NotFound: no such container.
    """
    reference, alias = split_link(link)
    try:
        return core.registry.find(reference), alias
    except NotFound as error:
        raise NotFound(f"could not get container for {reference}: {error}") from error


def linked(core: Core, record: Record) -> list[tuple[Record, str]]:
    """Return the containers that *record* links to, with their aliases.

    Raises:
        System: one of them does not run.
    """
    answer = []
    for link in record.host.links or []:
        child, alias = link_target(core, link)
        if not child.state.is_live:
            raise System(
                f"Cannot link to a non running container: {child.display_name} AS "
                f"{record.display_name}/{alias}"
            )
        answer.append((child, alias))
    return answer


def link_hosts(links: list[tuple[Record, str]]) -> list[tuple[str, str]]:
    """Return (names, address) lines of /etc/hosts."""
    return [
        (f"{alias} {child.config.hostname} {child.name}", str(child.network.endpoints["bridge"]["IPAddress"]))
        for child, alias in links
        if child.network.endpoints.get("bridge", {}).get("IPAddress")
    ]


def link_env(record: Record, links: list[tuple[Record, str]]) -> list[str]:
    """Return the variables of all links: `ALIAS_PORT=tcp://…`, `ALIAS_NAME=…`, `ALIAS_ENV_X=…`."""
    answer: list[str] = []
    for child, alias in links:
        prefix = alias.replace("-", "_").upper()
        address = child.network.endpoints.get("bridge", {}).get("IPAddress", "")
        ports = sorted(child.config.exposed_ports or {}, key=port_key)
        for index, port in enumerate(ports):
            number, protocol = port_key(port)
            url = f"{protocol}://{address}:{number}"
            if index == 0:
                answer.append(f"{prefix}_PORT={url}")
            base = f"{prefix}_PORT_{number}_{protocol.upper()}"
            answer += [
                f"{base}={url}",
                f"{base}_ADDR={address}",
                f"{base}_PORT={number}",
                f"{base}_PROTO={protocol}",
            ]
        answer.append(f"{prefix}_NAME={record.display_name}/{alias}")
        for item in child.config.env or []:
            name, assigned, _ = item.partition("=")
            if assigned and name not in ("HOME", "PATH"):
                answer.append(f"{prefix}_ENV_{item}")
    return answer
