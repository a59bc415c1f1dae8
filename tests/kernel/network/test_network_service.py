"""Sandboxes on the real kernel: addresses, published ports, isolation, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from dataclasses import replace

import pytest
from network_lab import Namespaces, Rows, new_service, nft_list, settled

from satsuma.base.errors import Conflict, Forbidden, InvalidParameter, NotFound, System
from satsuma.base.ids import new_id
from satsuma.linux import rtnetlink as rt
from satsuma.network import EndpointSpec, IpamConfig, NetworkOptions, NetworkService, NetworkSpec, PortSpec

BRIDGE = [EndpointSpec(network="bridge")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def host_address() -> str:
    """Return an address of the host that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))
        return str(probe.getsockname()[0])


async def test_addresses_go_lowest_free_first(service: NetworkService) -> None:
    ids = [new_id() for _ in range(3)]
    boxes = [await service.allocate(cid, BRIDGE) for cid in ids]
    assert [b.endpoints["bridge"].ip_address for b in boxes] == ["10.213.0.2", "10.213.0.3", "10.213.0.4"]
    await service.release(ids[0])
    again = await service.allocate(new_id(), BRIDGE)
    info = again.endpoints["bridge"]
    assert (info.ip_address, info.prefix_length, info.gateway) == ("10.213.0.2", 24, "10.213.0.1")
    assert info.interface == "eth0"
    assert int(info.mac_address[:2], 16) & 3 == 2


async def test_host_and_containers_reach_each_other(service: NetworkService, namespaces: Namespaces) -> None:
    a = await service.allocate(new_id(), BRIDGE)
    b = await service.allocate(new_id(), BRIDGE)
    assert a.netns_fd is not None and b.netns_fd is not None
    server = namespaces.serve_tcp(a.netns_fd, 80, b"a")
    address = a.endpoints["bridge"].ip_address
    assert namespaces.tcp_get(None, (address, 80)) == b"a 10.213.0.1"
    assert namespaces.tcp_get(b.netns_fd, (address, 80)) == b"a 10.213.0.3"
    server.close()


async def test_a_reused_address_is_reached_at_once(service: NetworkService, namespaces: Namespaces) -> None:
    first, neighbour = new_id(), new_id()
    a = await service.allocate(first, BRIDGE)
    b = await service.allocate(neighbour, BRIDGE)
    assert a.netns_fd is not None and b.netns_fd is not None
    address = (a.endpoints["bridge"].ip_address, 80)
    server = namespaces.serve_tcp(a.netns_fd, 80, b"old")
    assert namespaces.tcp_get(None, address) == b"old 10.213.0.1"
    assert namespaces.tcp_get(b.netns_fd, address) == b"old 10.213.0.3"
    server.close()
    await service.release(first)
    c = await service.allocate(new_id(), BRIDGE)
    assert c.netns_fd is not None
    assert c.endpoints["bridge"].ip_address == address[0]
    server = namespaces.serve_tcp(c.netns_fd, 80, b"new")
    # Neighbour caches of the host and of the other container knew another hardware address.
    assert namespaces.tcp_get(None, address, 0.5) == b"new 10.213.0.1"
    assert namespaces.tcp_get(b.netns_fd, address, 0.5) == b"new 10.213.0.3"
    server.close()


async def test_a_published_port_answers_from_everywhere(
    service: NetworkService, namespaces: Namespaces
) -> None:
    port = free_port()
    box = await service.allocate(new_id(), BRIDGE, [PortSpec(port=80, host_port=str(port))])
    other = await service.allocate(new_id(), BRIDGE)
    assert box.netns_fd is not None and other.netns_fd is not None
    assert box.ports == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(port)}]}
    assert len(box.hold_fds) == 1
    server = namespaces.serve_tcp(box.netns_fd, 80, b"hi")
    assert namespaces.tcp_get(None, ("127.0.0.1", port)) == b"hi 10.213.0.1"
    assert namespaces.tcp_get(None, (host_address(), port)).startswith(b"hi ")
    assert namespaces.tcp_get(None, ("10.213.0.1", port)).startswith(b"hi ")
    assert namespaces.tcp_get(other.netns_fd, ("10.213.0.1", port)) == b"hi 10.213.0.1"
    assert namespaces.tcp_get(other.netns_fd, (host_address(), port)) == b"hi 10.213.0.1"
    # Hairpin: a container reaches itself through its published port.
    assert namespaces.tcp_get(box.netns_fd, ("10.213.0.1", port)) == b"hi 10.213.0.1"
    server.close()


async def test_udp_is_published(service: NetworkService, namespaces: Namespaces) -> None:
    port = free_port()
    box = await service.allocate(new_id(), BRIDGE, [PortSpec(port=53, protocol="udp", host_port=str(port))])
    assert box.netns_fd is not None

    def bind() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", 53))
        return server

    with (
        namespaces.run(box.netns_fd, bind) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.settimeout(1)
        client.settimeout(1)
        client.connect(("127.0.0.1", port))
        client.send(b"ping")
        data, peer = server.recvfrom(100)
        assert (data, peer[0]) == (b"ping", "10.213.0.1")
        server.sendto(b"pong", peer)
        assert client.recv(100) == b"pong"


async def test_a_port_on_loopback_answers_there_only(service: NetworkService, namespaces: Namespaces) -> None:
    port = free_port()
    spec = PortSpec(port=80, host_ip="127.0.0.1", host_port=str(port))
    box = await service.allocate(new_id(), BRIDGE, [spec])
    other = await service.allocate(new_id(), BRIDGE)
    assert box.netns_fd is not None and other.netns_fd is not None
    server = namespaces.serve_tcp(box.netns_fd, 80, b"hi")
    assert namespaces.tcp_get(None, ("127.0.0.1", port)) == b"hi 10.213.0.1"
    for origin in (None, other.netns_fd):
        with pytest.raises(OSError):
            namespaces.tcp_get(origin, (host_address(), port), 0.3)
    server.close()


async def test_a_port_is_gone_with_its_container(service: NetworkService, namespaces: Namespaces) -> None:
    port, cid = free_port(), new_id()
    box = await service.allocate(cid, BRIDGE, [PortSpec(port=80, host_port=str(port))])
    assert box.netns_fd is not None
    namespaces.serve_tcp(box.netns_fd, 80, b"hi")
    await service.release(cid)
    with pytest.raises(ConnectionRefusedError):
        namespaces.tcp_get(None, ("127.0.0.1", port))
    again = await service.allocate(cid, BRIDGE, [PortSpec(port=80, host_port=str(port))])
    assert again.ports["80/tcp"][0]["HostPort"] == str(port)


async def test_port_conflicts_have_dockers_words(service: NetworkService) -> None:
    port = free_port()
    await service.allocate(new_id(), BRIDGE, [PortSpec(port=80, host_port=str(port))])
    with pytest.raises(System) as caught:
        await service.allocate(new_id(), BRIDGE, [PortSpec(port=80, host_port=str(port))], name="web")
    text = str(caught.value)
    assert text.startswith(
        "failed to set up container networking: driver failed programming external connectivity on endpoint web ("
    )
    assert text.endswith(f"): Bind for 0.0.0.0:{port} failed: port is already allocated")
    with socket.socket() as stranger:
        stranger.bind(("0.0.0.0", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        with pytest.raises(System) as caught:
            await service.allocate(new_id(), BRIDGE, [PortSpec(port=80, host_port=str(taken))])
    wanted = f"failed to bind host port for 0.0.0.0:{taken}:10.213.0.3:80/tcp: address already in use"
    assert str(caught.value).endswith(wanted)
    # Nothing is left of the two attempts.
    assert (await service.allocate(new_id(), BRIDGE)).endpoints["bridge"].ip_address == "10.213.0.3"


async def test_ephemeral_ports_come_from_the_kernels_range(service: NetworkService) -> None:
    specs = [PortSpec(port=80), PortSpec(port=443), PortSpec(port=80, protocol="udp")]
    box = await service.allocate(new_id(), BRIDGE, specs)
    found = {key: int(entries[0]["HostPort"]) for key, entries in box.ports.items()}
    assert set(found) == {"80/tcp", "443/tcp", "80/udp"}
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low, high = (int(part) for part in file.read().split())
    assert all(low <= port <= high for port in found.values())
    assert found["443/tcp"] == found["80/tcp"] + 1


async def test_a_thousand_ports(service: NetworkService) -> None:
    first = 20000
    specs = [PortSpec(port=1000 + n, host_port=str(first + n)) for n in range(1000)]
    cid = new_id()
    box = await service.allocate(cid, BRIDGE, specs)
    assert len(box.ports) == 1000
    assert nft_list(service.table).count(". 2") >= 1000
    await service.release(cid)
    assert "tcp ." not in nft_list(service.table)


async def test_networks_are_isolated_from_each_other(service: NetworkService, namespaces: Namespaces) -> None:
    await service.create(NetworkSpec(name="left"))
    await service.create(NetworkSpec(name="right"))
    port = free_port()
    a = await service.allocate(
        new_id(), [EndpointSpec(network="left")], [PortSpec(port=80, host_port=str(port))]
    )
    b = await service.allocate(new_id(), [EndpointSpec(network="right")])
    assert a.netns_fd is not None and b.netns_fd is not None
    server = namespaces.serve_tcp(a.netns_fd, 80, b"left")
    inside = a.endpoints["left"].ip_address
    with pytest.raises(TimeoutError):
        namespaces.tcp_get(b.netns_fd, (inside, 80), 0.3)
    # Through the published port it is reached, as with Docker's proxy.
    assert namespaces.tcp_get(b.netns_fd, (host_address(), port)).startswith(b"left ")
    # A container on both sees both.
    await service.connect(
        "left", next(iter(service.registry.find("right").attachments)), EndpointSpec(network="left")
    )
    assert namespaces.tcp_get(b.netns_fd, (inside, 80)).startswith(b"left ")
    server.close()


async def test_icc_off_separates_containers_of_one_bridge(
    service: NetworkService, namespaces: Namespaces
) -> None:
    option = {"com.docker.network.bridge.enable_icc": "false"}
    await service.create(NetworkSpec(name="quiet", options=option))
    a = await service.allocate(new_id(), [EndpointSpec(network="quiet")])
    b = await service.allocate(new_id(), [EndpointSpec(network="quiet")])
    assert a.netns_fd is not None and b.netns_fd is not None
    server = namespaces.serve_tcp(a.netns_fd, 80, b"a")
    address = (a.endpoints["quiet"].ip_address, 80)
    assert namespaces.tcp_get(None, address).startswith(b"a ")
    with pytest.raises(OSError):
        namespaces.tcp_get(b.netns_fd, address, 0.3)
    server.close()


async def test_an_internal_network_has_no_way_out(service: NetworkService, namespaces: Namespaces) -> None:
    await service.create(NetworkSpec(name="inner", internal=True))
    box = await service.allocate(new_id(), [EndpointSpec(network="inner")], [PortSpec(port=80)])
    assert box.netns_fd is not None
    assert box.ports == {}
    assert box.endpoints["inner"].gateway == ""
    with pytest.raises(OSError) as caught:
        namespaces.tcp_get(box.netns_fd, ("198.51.100.1", 80), 0.3)
    assert caught.value.errno == 101  # ENETUNREACH


async def test_a_container_leaves_with_the_hosts_address(
    service: NetworkService, namespaces: Namespaces
) -> None:
    """Masquerading, seen by a neighbour of the host that knows no way to the bridge."""
    box = await service.allocate(new_id(), BRIDGE)
    assert box.netns_fd is not None
    outside_fd, outside, near = await neighbour(namespaces)
    server = namespaces.serve_tcp(outside_fd, 80, b"outside")
    inner = namespaces.serve_tcp(box.netns_fd, 80, b"inner")
    try:
        assert namespaces.tcp_get(box.netns_fd, ("10.214.0.2", 80)) == b"outside 10.214.0.1"
        # The neighbour cannot walk in, not even with a route to the container's address.
        far = outside.link("up0")
        assert far is not None
        outside.run(rt.add_route(far.index, gateway=socket.inet_aton("10.214.0.1")))
        with pytest.raises(OSError):
            namespaces.tcp_get(outside_fd, (box.endpoints["bridge"].ip_address, 80), 0.3)
    finally:
        inner.close()
        server.close()
        outside.close()
        os.close(outside_fd)
        with rt.Route() as host:
            host.run(rt.del_link(near))


async def test_static_addresses_aliases_and_mac(service: NetworkService) -> None:
    config = IpamConfig(subnet="10.215.0.0/24", ip_range="10.215.0.128/25", gateway="10.215.0.1")
    await service.create(NetworkSpec(name="fixed", ipam_config=(config,), labels={"a": "b"}))
    wish = EndpointSpec(
        network="fixed", ipv4_address="10.215.0.7", aliases=("db",), mac_address="02:42:ac:11:00:99"
    )
    cid = new_id()
    box = await service.allocate(cid, [wish], hostname="h", name="web")
    settings = box.endpoints["fixed"].settings()
    assert settings["IPAddress"] == "10.215.0.7"
    assert settings["MacAddress"] == "02:42:ac:11:00:99"
    assert settings["DNSNames"] == ["web", "db", cid[:12], "h"]
    assert box.uses_embedded_dns
    with pytest.raises(Forbidden, match="Address already in use"):
        await service.allocate(new_id(), [wish])
    free = await service.allocate(new_id(), [EndpointSpec(network="fixed")])
    assert free.endpoints["fixed"].ip_address == "10.215.0.128"
    shape = service.inspect("fixed")
    assert shape["Containers"][cid] == {
        "Name": "web",
        "EndpointID": box.endpoints["fixed"].endpoint_id,
        "MacAddress": "02:42:ac:11:00:99",
        "IPv4Address": "10.215.0.7/24",
        "IPv6Address": "",
    }
    with pytest.raises(Forbidden, match=r'network fixed has active endpoints \(name:"web" id:'):
        await service.remove("fixed")
    with pytest.raises(InvalidParameter, match="no configured subnet or ip-range contain the IP address"):
        await service.allocate(new_id(), [EndpointSpec(network="fixed", ipv4_address="10.1.1.1")])
    with pytest.raises(InvalidParameter, match="user defined networks only"):
        await service.allocate(new_id(), [EndpointSpec(network="bridge", ipv4_address="10.213.0.9")])


async def test_mac_on_the_default_bridge(service: NetworkService, namespaces: Namespaces) -> None:
    box = await service.allocate(new_id(), [EndpointSpec(network="bridge", mac_address="02:42:ac:11:00:77")])
    assert box.netns_fd is not None
    assert box.endpoints["bridge"].mac_address == "02:42:ac:11:00:77"
    server = namespaces.serve_tcp(box.netns_fd, 80, b"x")
    assert namespaces.tcp_get(None, (box.endpoints["bridge"].ip_address, 80)) == b"x 10.213.0.1"
    server.close()


async def test_connect_and_disconnect_move_the_gateway(
    service: NetworkService, namespaces: Namespaces
) -> None:
    await service.create(NetworkSpec(name="aaa"))
    port, cid = free_port(), new_id()
    box = await service.allocate(cid, BRIDGE, [PortSpec(port=80, host_port=str(port))])
    assert box.netns_fd is not None
    server = namespaces.serve_tcp(box.netns_fd, 80, b"hi")
    box = await service.connect("aaa", cid, EndpointSpec(network="aaa", aliases=("x",)))
    assert box.endpoints["aaa"].interface == "eth1"
    assert namespaces.tcp_get(None, ("127.0.0.1", port)).startswith(b"hi ")
    box = await service.disconnect("bridge", cid)
    assert list(box.endpoints) == ["aaa"]
    assert namespaces.tcp_get(None, ("127.0.0.1", port)).startswith(b"hi ")
    box = await service.disconnect("aaa", cid)
    assert box.endpoints == {} and box.ports == {}
    with pytest.raises(OSError):
        namespaces.tcp_get(None, ("127.0.0.1", port), 0.3)
    box = await service.connect("bridge", cid, EndpointSpec(network="bridge"))
    assert namespaces.tcp_get(None, ("127.0.0.1", port)).startswith(b"hi ")
    with pytest.raises(Forbidden, match="is not connected to network aaa"):
        await service.disconnect("aaa", cid)
    server.close()


async def test_no_ipv6_on_a_containers_interface(service: NetworkService, namespaces: Namespaces) -> None:
    """A neighbour's router advertisements must not count (CVE-2020-13401)."""
    box = await service.allocate(new_id(), BRIDGE)
    assert box.netns_fd is not None

    def read(name: str) -> str:
        with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6") as file:
            return file.read().strip()

    assert namespaces.run(box.netns_fd, lambda: (read("eth0"), read("lo"))) == ("1", "0")
    assert read(service.options.bridge) == "1"


async def test_host_and_none(service: NetworkService, namespaces: Namespaces) -> None:
    host = await service.allocate(new_id(), [EndpointSpec(network="host")], [PortSpec(port=80)])
    assert host.netns_fd is None
    assert host.ports == {}
    assert host.endpoints["host"].settings()["IPAddress"] == ""
    none = await service.allocate(new_id(), [EndpointSpec(network="none")])
    assert none.netns_fd is not None
    names = namespaces.run(none.netns_fd, lambda: [name for _index, name in socket.if_nameindex()])
    assert "eth0" not in names and "lo" in names


async def test_recover_after_the_daemon_was_killed(
    service: NetworkService, namespaces: Namespaces, options: NetworkOptions, rows: Rows
) -> None:
    await service.create(NetworkSpec(name="own"))
    port, cid, dead = free_port(), new_id(), new_id()
    box = await service.allocate(
        cid, [*BRIDGE, EndpointSpec(network="own")], [PortSpec(port=80, host_port=str(port))], name="web"
    )
    assert box.netns_fd is not None
    gone = await service.allocate(dead, BRIDGE, [PortSpec(port=81)])
    server = namespaces.serve_tcp(box.netns_fd, 80, b"hi")
    record = box.record
    held = [os.dup(fd) for fd in box.hold_fds]
    kept = os.dup(box.netns_fd)
    # A second daemon over the same state; the first one never got to say good-bye, and does nothing more.
    await service.stock.fill()
    await service._watch.stop()
    heir = new_service(rows, options)
    await heir.open()
    assert namespaces.tcp_get(None, ("127.0.0.1", port)).startswith(b"hi ")
    found = await heir.recover(
        {cid: record, dead: gone.record}, lambda container_id: os.dup(kept) if container_id == cid else None
    )
    assert list(found) == [cid]
    assert found[cid].record == record
    assert namespaces.tcp_get(None, ("127.0.0.1", port)).startswith(b"hi ")
    assert nft_list(heir.table).count("tcp . ") == 1
    with pytest.raises(System, match="port is already allocated"):
        await heir.allocate(new_id(), BRIDGE, [PortSpec(port=80, host_port=str(port))])
    fresh = await heir.allocate(new_id(), BRIDGE)
    assert fresh.endpoints["bridge"].ip_address == "10.213.0.3"
    assert set(heir.inspect("own")["Containers"]) == {cid}
    server.close()
    os.close(kept)
    for fd in held:
        os.close(fd)
    for container_id in list(heir._live):
        await heir.release(container_id)
    assert await heir.close()
    service._live.clear()
    assert await settled(heir) == set()


async def test_errors_of_networks(service: NetworkService) -> None:
    with pytest.raises(NotFound, match="network nope not found"):
        service.inspect("nope")
    with pytest.raises(Forbidden, match="bridge is a pre-defined network and cannot be removed"):
        await service.remove("bridge")
    with pytest.raises(NotFound, match="network nope not found"):
        await service.allocate(new_id(), [EndpointSpec(network="nope")])


async def test_many_at_once(service: NetworkService) -> None:
    ids = [new_id() for _ in range(12)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(service.allocate(cid, BRIDGE, [PortSpec(port=80)])) for cid in ids]
    addresses = {task.result().endpoints["bridge"].ip_address for task in tasks}
    ports = {task.result().ports["80/tcp"][0]["HostPort"] for task in tasks}
    assert len(addresses) == len(ports) == 12
    async with asyncio.TaskGroup() as group:
        for cid in ids:
            group.create_task(service.release(cid))


async def test_a_flushed_table_comes_back(service: NetworkService, namespaces: Namespaces) -> None:
    """What `nft flush ruleset` or a reload of a firewall service does to our table."""
    port = free_port()
    box = await service.allocate(new_id(), BRIDGE, [PortSpec(port=80, host_port=str(port))])
    assert box.netns_fd is not None
    server = namespaces.serve_tcp(box.netns_fd, 80, b"hi")
    before = nft_list(service.table)
    for command in ("delete table ip", "flush table ip"):
        subprocess.run(["nft", *command.split(), service.table], check=True)
        for _ in range(50):
            await asyncio.sleep(0.1)
            try:
                if nft_list(service.table) == before:
                    break
            except subprocess.CalledProcessError:
                continue
        assert namespaces.tcp_get(None, ("127.0.0.1", port)) == b"hi 10.213.0.1"
    server.close()


async def test_a_udp_client_follows_the_port_to_the_next_container(
    service: NetworkService, namespaces: Namespaces
) -> None:
    """The kernel remembers where the client's packets went at first."""
    port, first = free_port(), new_id()
    spec = PortSpec(port=53, protocol="udp", host_port=str(port))

    def bind() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", 53))
        server.settimeout(1)
        return server

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.send(b"nobody")  # a flow that is led nowhere
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)
        a = await service.allocate(first, BRIDGE, [spec])
        assert a.netns_fd is not None
        with namespaces.run(a.netns_fd, bind) as server:
            client.send(b"one")
            assert server.recv(10) == b"one"
        await service.allocate(new_id(), BRIDGE)  # keeps the next one from the same address
        await service.release(first)
        await service.allocate(new_id(), BRIDGE)
        b = await service.allocate(new_id(), BRIDGE, [spec])
        assert b.netns_fd is not None
        assert b.endpoints["bridge"].ip_address != a.endpoints.get("bridge")
        with namespaces.run(b.netns_fd, bind) as server:
            client.send(b"two")
            assert server.recv(10) == b"two"


async def test_a_deleted_bridge_comes_back_with_the_next_container(
    service: NetworkService, namespaces: Namespaces
) -> None:
    await service.create(NetworkSpec(name="own"))
    network = service.registry.find("own")
    assert network.config is not None
    with rt.Route() as route:
        for name in (service.options.bridge, network.config.interface):
            link = route.link(name)
            assert link is not None
            route.run(rt.del_link(link.index))
    for wanted in ("bridge", "own"):
        box = await service.allocate(new_id(), [EndpointSpec(network=wanted)])
        assert box.netns_fd is not None
        server = namespaces.serve_tcp(box.netns_fd, 80, b"hi")
        assert namespaces.tcp_get(None, (box.endpoints[wanted].ip_address, 80)).startswith(b"hi ")
        server.close()


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
async def test_sublinks(service: NetworkService, namespaces: Namespaces, driver: str) -> None:
    config = IpamConfig(subnet="10.217.0.0/24")
    await service.create(NetworkSpec(name="lan", driver=driver, ipam_config=(config,)))
    try:
        a = await service.allocate(new_id(), [EndpointSpec(network="lan")])
    except System as error:
        assert "Unknown device type" in str(error)
        pytest.skip(f"this kernel has no {driver}")
    b = await service.allocate(new_id(), [EndpointSpec(network="lan")])
    assert a.netns_fd is not None and b.netns_fd is not None
    server = namespaces.serve_tcp(a.netns_fd, 80, b"hi")
    found = namespaces.tcp_get(b.netns_fd, (a.endpoints["lan"].ip_address, 80))
    assert found == f"hi {b.endpoints['lan'].ip_address}".encode()
    server.close()
    for container_id in list(service.registry.find("lan").attachments):
        await service.release(container_id)
    await service.remove("lan")


async def test_refused_macvlan_networks(service: NetworkService) -> None:
    with pytest.raises(InvalidParameter, match="requested macvlan mode 'odd' is not valid"):
        await service.create(NetworkSpec(name="x", driver="macvlan", options={"macvlan_mode": "odd"}))
    with pytest.raises(System, match="parent interface nope0 does not exist"):
        await service.create(NetworkSpec(name="x", driver="macvlan", options={"parent": "nope0"}))
    assert [n["Name"] for n in service.list_networks({"type": ["custom"]})] == []


async def neighbour(namespaces: Namespaces) -> tuple[int, rt.Route, int]:
    """Return a namespace that plays a machine beside the host: its fd, its socket, the host's link to it."""
    fd, sock = await namespaces.make()
    outside = rt.Route(sock)
    with rt.Route() as host:
        name = f"stx{os.getpid() % 100000}"
        host.run(rt.add_veth(name, peer_name="up0", peer_netns_fd=fd))
        near, far = host.link(name), outside.link("up0")
        assert near is not None and far is not None
        host.run(
            rt.set_link(near.index, up=True), rt.add_addr(near.index, socket.inet_aton("10.214.0.1"), 24)
        )
        outside.run(
            rt.set_link(far.index, up=True), rt.add_addr(far.index, socket.inet_aton("10.214.0.2"), 24)
        )
        return fd, outside, int(near.index)


def route_loopback_to(namespaces: Namespaces, netns_fd: int, interface: str, gateway: str) -> None:
    """Make a namespace send packets to 127.0.0.1 out of an interface, as an attacker would."""

    def inside() -> None:
        for name in ("all", interface):
            with open(f"/proc/sys/net/ipv4/conf/{name}/route_localnet", "w") as file:
                file.write("1")
        with rt.Route() as route:
            lo, out = route.link("lo"), route.link(interface)
            assert lo is not None and out is not None
            route.run(rt.del_addr(lo.index, socket.inet_aton("127.0.0.1"), 8))
            destination = socket.inet_aton("127.0.0.1")
            route.run(
                rt.add_route(
                    out.index, gateway=socket.inet_aton(gateway), destination=destination, prefix_length=32
                )
            )

    namespaces.run(netns_fd, inside)


async def test_loopback_of_the_host_is_out_of_reach(service: NetworkService, namespaces: Namespaces) -> None:
    """CVE-2020-8558 and moby issue 45610: packets to 127.0.0.1 that come from outside."""
    port = free_port()
    spec = PortSpec(port=80, host_ip="127.0.0.1", host_port=str(port))
    box = await service.allocate(new_id(), BRIDGE, [spec])
    attacker = await service.allocate(new_id(), BRIDGE)
    assert box.netns_fd is not None and attacker.netns_fd is not None
    server = namespaces.serve_tcp(box.netns_fd, 80, b"secret")
    with socket.socket() as own:  # a service of the host itself
        own.bind(("127.0.0.1", 0))
        own.listen()
        outside_fd, outside, near = await neighbour(namespaces)
        try:
            route_loopback_to(namespaces, outside_fd, "up0", "10.214.0.1")
            route_loopback_to(namespaces, attacker.netns_fd, "eth0", "10.213.0.1")
            for netns_fd in (outside_fd, attacker.netns_fd):
                for target in (port, own.getsockname()[1]):
                    with pytest.raises(OSError):
                        namespaces.tcp_get(netns_fd, ("127.0.0.1", target), 0.3)
            assert namespaces.tcp_get(None, ("127.0.0.1", port)).startswith(b"secret")
        finally:
            outside.close()
            os.close(outside_fd)
            with rt.Route() as host:
                host.run(rt.del_link(near))
            server.close()


async def test_clients_outside_keep_their_address(service: NetworkService, namespaces: Namespaces) -> None:
    port = free_port()
    box = await service.allocate(new_id(), BRIDGE, [PortSpec(port=80, host_port=str(port))])
    assert box.netns_fd is not None
    server = namespaces.serve_tcp(box.netns_fd, 80, b"hi")
    outside_fd, outside, near = await neighbour(namespaces)
    try:
        assert namespaces.tcp_get(outside_fd, ("10.214.0.1", port)) == b"hi 10.214.0.2"
    finally:
        outside.close()
        os.close(outside_fd)
        with rt.Route() as host:
            host.run(rt.del_link(near))
        server.close()


async def test_nothing_leaks_over_many_containers(service: NetworkService) -> None:
    await service.create(NetworkSpec(name="own"))

    async def one(network: str) -> None:
        cid = new_id()
        await service.allocate(cid, [EndpointSpec(network=network)], [PortSpec(port=80)])
        await service.release(cid)

    async def count() -> int:
        await service.stock.fill()
        return len(os.listdir("/proc/self/fd"))

    for _ in range(2):  # the second time opens the socket that announces a reused address
        await one("bridge")
        await one("own")
    before = await count()
    for _ in range(15):
        await one("bridge")
        await one("own")
    for _ in range(40):  # the sweep of dead links has a socket open now and then
        if await count() == before:
            return
        await asyncio.sleep(0.05)
    assert await count() == before


async def test_a_bridge_of_another_engine_is_not_taken(
    service: NetworkService, options: NetworkOptions
) -> None:
    rival = NetworkService(Rows(), options=replace(options, exec_root=options.exec_root + "/other"))
    try:
        with pytest.raises(Conflict, match="belongs to another engine"):
            await rival.open()
    finally:
        await rival.close()
    assert (await service.allocate(new_id(), BRIDGE)).endpoints["bridge"].ip_address == "10.213.0.2"


async def test_a_bridge_that_a_person_made_is_used_and_left_alone(tmp_path: os.PathLike[str]) -> None:
    name = f"stp{os.getpid() % 100000}"
    with rt.Route() as host:
        host.run(rt.add_bridge(name))
        link = host.link(name)
        assert link is not None
        host.run(rt.add_addr(link.index, socket.inet_aton("10.219.0.7"), 24))
        made = NetworkService(
            Rows(), options=NetworkOptions(exec_root=str(tmp_path), bridge=name, pool_size=0)
        )
        try:
            await made.open()
            await made.recover({}, lambda container_id: None)
            box = await made.allocate(new_id(), BRIDGE)
            info = box.endpoints["bridge"]
            assert (info.ip_address, info.gateway) == ("10.219.0.1", "10.219.0.7")
            for container_id in list(made._live):
                await made.release(container_id)
        finally:
            assert await made.close()
            assert host.link(name) is not None
            host.run(rt.del_link(link.index))
    assert await settled(made) == set()


async def test_a_cancelled_start_leaves_nothing(options: NetworkOptions) -> None:
    made = NetworkService(Rows(), options=replace(options, pool_size=0, user_pool_size=0))
    await made.open()
    await made.recover({}, lambda container_id: None)
    await made.create(NetworkSpec(name="own"))
    for network in ("bridge", "own") * 2:
        container_id = new_id()
        await made.allocate(container_id, [EndpointSpec(network=network)])
        await made.release(container_id)
    before = len(os.listdir("/proc/self/fd"))
    for step in range(24):
        wanted = [EndpointSpec(network="bridge" if step % 2 else "own")]
        start = asyncio.create_task(made.allocate(f"{step:064x}", wanted, [PortSpec(port=80)]))
        await asyncio.sleep(step * 0.0002)
        start.cancel()
        await asyncio.wait([start])
        await made.release(f"{step:064x}")
    for _ in range(100):
        after = len(os.listdir("/proc/self/fd"))
        if after <= before:
            break
        await asyncio.sleep(0.05)
    attached = [network.record.name for network in made.registry if network.attachments]
    assert await made.close()
    assert await settled(made) == set()
    assert (after <= before, attached) == (True, [])
