"""Container networking: bridges, addresses, published ports, isolation, name resolution.

Owns networks (their rows, their bridges), the engine's nf_tables table, the pool of prepared network namespaces
and what each live container has of all this.  Must not know containers: it is told an id, a name and a wish,
and answers with descriptors and plain values.  Nothing here starts a program.

    model      values that cross the wall            service    NetworkService, the public face
    plan       wish → record, Docker's JSON shapes   registry   networks: rows and bridges
    ipam       subnets and addresses                 sandbox    one container's interfaces
    ports      host ports, the sockets that hold them  pool     namespaces kept ready, and their end
    firewall   the nf_tables table                   host       bridges, sysctls, ARP
    resolver   the embedded DNS server               dnswire  DNS messages
    guests     other people's firewall rules         watch    notices when ours are removed
    stock      prepared sandboxes and their end      recovery after a daemon was killed
    netns      work inside a container's namespace   filters  list and prune filters
"""

from satsuma.network.model import (
    DEFAULT_ADDRESS_POOLS,
    DEFAULT_BRIDGE,
    EndpointInfo,
    EndpointSpec,
    IpamConfig,
    NetworkOptions,
    NetworkRecord,
    NetworkSpec,
    PortSpec,
    Sandbox,
)
from satsuma.network.plan import parse_mac
from satsuma.network.service import NetworkService

__all__ = [
    "DEFAULT_ADDRESS_POOLS",
    "DEFAULT_BRIDGE",
    "EndpointInfo",
    "EndpointSpec",
    "IpamConfig",
    "NetworkOptions",
    "NetworkRecord",
    "NetworkService",
    "NetworkSpec",
    "PortSpec",
    "Sandbox",
    "parse_mac",
]
