"""Write /etc/hosts, /etc/hostname and /etc/resolv.conf of a container that starts.

Source: moby daemon/container_operations.go `buildSandboxOptions`, daemon/libnetwork/sandbox_dns_unix.go.
"""

from __future__ import annotations

from satsuma.container import Record
from satsuma.container.etcfiles import hosts_text, resolv_conf_text, split_extra_host
from satsuma.engine.core import Core, write_text
from satsuma.network import Sandbox

FILES = {"/etc/hosts": "hosts", "/etc/hostname": "hostname", "/etc/resolv.conf": "resolv.conf"}


def etc_files(core: Core, record: Record) -> dict[str, str]:
    """Return the host paths of the three files by destination; with a shared network, those of its owner."""
    mode = record.host.network_mode
    owner = mode.partition(":")[2] if mode.startswith("container:") else record.id
    directory = core.directory(owner)
    return {destination: f"{directory}/{name}" for destination, name in FILES.items()}


def write_etc_files(core: Core, record: Record, sandbox: Sandbox, links: list[tuple[str, str]]) -> None:
    """Write the three files; few bytes each, so this runs on the loop."""
    directory = core.directory(record.id)
    config, host = record.config, record.host
    shares_host = host.network_mode == "host"
    name = f"{config.hostname}.{config.domainname}" if config.domainname else config.hostname
    write_text(f"{directory}/hostname", name + "\n")
    extra = [split_extra_host(item, host_gateway(core)) for item in host.extra_hosts or []]
    if shares_host:
        text = _read("/etc/hosts")
        text += "".join(f"{address}\t{alias}\n" for alias, address in extra)
    else:
        text = hosts_text(
            addresses=[info.ip_address for info in sandbox.endpoints.values()],
            hostname=config.hostname,
            domainname=config.domainname,
            extra=[*extra, *links],
        )
    write_text(f"{directory}/hosts", text)
    daemon = core.config
    text = resolv_conf_text(
        _read("/etc/resolv.conf"),
        nameservers=host.dns or daemon.dns,
        search=host.dns_search or daemon.dns_search,
        options=host.dns_options or daemon.dns_opts,
        keep_loopback=shares_host,
        embedded=sandbox.uses_embedded_dns,
    )
    write_text(f"{directory}/resolv.conf", text)


def update_hosts(core: Core, record: Record, addresses: list[str]) -> None:
    """Write a running container's hosts file again after it joined or left a network."""
    directory = core.directory(record.id)
    extra = [split_extra_host(item, host_gateway(core)) for item in record.host.extra_hosts or []]
    text = hosts_text(
        addresses=addresses, hostname=record.config.hostname, domainname=record.config.domainname, extra=extra
    )
    write_text(f"{directory}/hosts", text)


def host_gateway(core: Core) -> str:
    """Return the address under which containers reach the host: the default bridge's gateway."""
    try:
        return core.networks.get("bridge").gateway
    except Exception:
        return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""
