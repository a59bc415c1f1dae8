"""Validation and Docker's shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from satsuma.base.errors import Conflict, EngineError, Forbidden, InvalidParameter, NotFound, Unsupported
from satsuma.network import EndpointSpec, IpamConfig, NetworkRecord, NetworkSpec, plan
from satsuma.network.filters import select, select_prunable

RECORD = NetworkRecord(
    id="ab" * 32,
    name="net",
    created_ns=1_000_000_000,
    driver="bridge",
    subnet="10.1.0.0/16",
    gateway="10.1.0.1",
)


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        (NetworkSpec(name=" "), InvalidParameter, "invalid name: name is empty"),
        (NetworkSpec(name="host"), Forbidden, "operation is not permitted on predefined host network "),
        (NetworkSpec(name="a", driver="nope"), NotFound, 'plugin "nope" not found'),
        (NetworkSpec(name="a", driver="host"), Forbidden, 'only one instance of "host" network is allowed'),
        (NetworkSpec(name="a", driver="overlay"), Forbidden, "This node is not a swarm manager."),
        (NetworkSpec(name="a", enable_ipv4=False), InvalidParameter, "IPv4 or IPv6 must be enabled"),
        (
            NetworkSpec(name="a", ipam_config=(IpamConfig(subnet="10.0.0.1/24", gateway="10.9.0.1"),)),
            InvalidParameter,
            "invalid network config:\ninvalid subnet 10.0.0.1/24: it should be 10.0.0.0/24",
        ),
        (
            NetworkSpec(name="a", ipam_config=(IpamConfig(subnet="10.0.0.0/24", gateway="10.9.0.1"),)),
            InvalidParameter,
            "invalid network config:\ninvalid gateway 10.9.0.1: parent subnet 10.0.0.0/24 doesn't contain this address",
        ),
        (
            NetworkSpec(
                name="a", ipam_config=(IpamConfig(subnet="10.0.0.0/24"), IpamConfig(subnet="10.1.0.0/24"))
            ),
            Forbidden,
            "bridge driver doesn't support multiple subnets",
        ),
    ],
)
def test_refused_networks(spec: NetworkSpec, error: type[EngineError], text: str) -> None:
    with pytest.raises(error) as caught:
        plan.check_spec(spec)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {plan.BRIDGE_ICC: "maybe"},
            InvalidParameter,
            "failed to parse com.docker.network.bridge.enable_icc value: maybe",
        ),
        (
            {plan.DRIVER_MTU: "big"},
            InvalidParameter,
            "failed to parse com.docker.network.driver.mtu value: big",
        ),
        ({plan.DRIVER_MTU: "-1"}, InvalidParameter, "invalid MTU number: -1"),
        ({plan.BRIDGE_NAME: "a/b"}, InvalidParameter, "invalid bridge name: a/b"),
        ({plan.BRIDGE_NAME: "much-too-long-name"}, InvalidParameter, "invalid bridge name"),
        ({plan.BRIDGE_GATEWAY_MODE: "routed"}, Unsupported, "network option"),
        ({plan.BRIDGE_GATEWAY_MODE: "odd"}, InvalidParameter, "failed to parse"),
        (
            {plan.HOST_IPV4: "1.2.3.4"},
            Unsupported,
            "network option com.docker.network.host_ipv4 is not supported",
        ),
    ],
)
def test_refused_bridge_options(options: dict[str, str], error: type[EngineError], text: str) -> None:
    with pytest.raises(error) as caught:
        plan.bridge_config(replace(RECORD, options=options))
    assert str(caught.value).startswith(text)


def test_bridge_options() -> None:
    config = plan.bridge_config(replace(RECORD, options={plan.BRIDGE_ICC: "false", plan.DRIVER_MTU: "1400"}))
    assert (config.interface, config.mtu, config.icc, config.masquerade) == (
        "br-abababababab",
        1400,
        False,
        True,
    )


def test_find_by_id_name_and_prefix() -> None:
    other = replace(RECORD, id="ac" * 32, name="abab")
    records = [RECORD, other]
    assert plan.find(RECORD.id, records) is RECORD
    assert plan.find("abab", records) is other, "a name counts before an id prefix"
    assert plan.find("ababab", records) is RECORD
    with pytest.raises(
        InvalidParameter, match=r"network a is ambiguous \(2 matches found based on ID prefix\)"
    ):
        plan.find("a", records)
    for nothing in ("x", ""):
        with pytest.raises(NotFound, match=f"network {nothing} not found"):
            plan.find(nothing, records)
    with pytest.raises(Conflict, match="network with name net already exists"):
        plan.check_free_name("net", records)


def test_endpoint_complaints_come_together() -> None:
    bridge = replace(RECORD, name="bridge")
    with pytest.raises(InvalidParameter) as caught:
        plan.check_endpoint(bridge, EndpointSpec(network="bridge", ipv4_address="10.1.0.5", aliases=("a",)))
    assert str(caught.value) == (
        "invalid endpoint settings:\n"
        "* user specified IP address is supported on user defined networks only\n"
        "* network-scoped alias is supported only for containers in user defined networks\n"
        "* user specified IP address is supported only when connecting to networks with user configured subnets"
    )


@pytest.mark.parametrize("text", ["02:42:ac:11:00:02", "02-42-AC-11-00-02", "0242.ac11.0002"])
def test_mac_spellings(text: str) -> None:
    assert plan.parse_mac(text).hex(":") == "02:42:ac:11:00:02"


@pytest.mark.parametrize("text", ["", "02:42", "zz:42:ac:11:00:02", "02:42:ac:11:00:02:03"])
def test_bad_mac(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid MAC address"):
        plan.parse_mac(text)


def test_inspect_has_dockers_keys() -> None:
    shape = plan.inspect_shape(RECORD, {})
    assert list(shape) == [
        "Name", "Id", "Created", "Scope", "Driver", "EnableIPv4", "EnableIPv6", "IPAM", "Internal", "Attachable",
        "Ingress", "ConfigFrom", "ConfigOnly", "Containers", "Options", "Labels",
    ]  # fmt: skip
    assert shape["IPAM"] == {
        "Driver": "default",
        "Options": None,
        "Config": [{"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1"}],
    }
    host = plan.inspect_shape(NetworkRecord(id="1", name="host", created_ns=0, driver="host"), {})
    assert host["IPAM"]["Config"] is None
    given = replace(RECORD, ipam_config=(IpamConfig(subnet="10.1.0.0/16", aux_addresses={"r": "10.1.0.9"}),))
    assert plan.inspect_shape(given, {})["IPAM"]["Config"] == [
        {"Subnet": "10.1.0.0/16", "AuxiliaryAddresses": {"r": "10.1.0.9"}}
    ]


def test_filters() -> None:
    bridge = replace(RECORD, id="cd" * 32, name="bridge")
    labelled = replace(RECORD, id="ef" * 32, name="web_default", labels={"project": "web"})
    records = [RECORD, bridge, labelled]

    def names(**filters: list[str]) -> list[str]:
        return [r.name for r in select(records, filters, lambda r: r is RECORD)]

    assert names() == ["net", "bridge", "web_default"]
    assert names(name=["net"]) == ["net"]
    assert names(name=["web_default", "bridge"]) == ["bridge", "web_default"]
    assert names(id=["cdcd"]) == ["bridge"]
    assert names(label=["project"]) == names(label=["project=web"]) == ["web_default"]
    assert names(label=["project=other"]) == []
    assert names(type=["custom"]) == ["net", "web_default"]
    assert names(dangling=["true"]) == ["web_default"]
    assert names(scope=["swarm"]) == []
    with pytest.raises(InvalidParameter, match="invalid filter: 'type'='x'"):
        names(type=["x"])
    with pytest.raises(InvalidParameter, match="invalid filter 'nope'"):
        names(nope=["x"])


def test_prune_filters() -> None:
    old = replace(RECORD, labels={"keep": ""})
    new = replace(RECORD, id="ef" * 32, name="new", created_ns=100_000_000_000)
    now = 101_000_000_000

    def names(**filters: list[str]) -> list[str]:
        return [r.name for r in select_prunable([old, new], filters, lambda r: False, now)]

    assert names() == ["net", "new"]
    assert names(until=["10s"]) == ["net"]
    assert select_prunable([old], {"label!": ["keep"]}, lambda r: False, now) == []
    assert select_prunable([old], {"label": ["keep"]}, lambda r: False, now) == [old]
    assert select_prunable([old], {}, lambda r: True, now) == []
