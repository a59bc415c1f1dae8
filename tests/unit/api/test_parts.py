"""The pure parts of the API: statuses, queries, filters, routes, versions, gates."""

from __future__ import annotations

import inspect
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.api.create_gates import adapt_create, adapt_resources
from satsuma.api.filters import ACCEPTED, parse_filters
from satsuma.api.gates import trim
from satsuma.api.listen import parse_host
from satsuma.api.query import Query, require_host_platform
from satsuma.api.response import encode_json, encode_json_html_safe
from satsuma.api.router import Router, format_version, split_version, version_error
from satsuma.api.routes import ROUTES
from satsuma.api.status import STATUS, reworded, status_of
from satsuma.base import errors
from satsuma.base.errors import Conflict, InvalidParameter, NotFound, System
from satsuma.spec.docker import (
    BindOptions,
    CreateRequest,
    EndpointSettings,
    HealthConfig,
    HostConfig,
    Mount,
    NetworkingConfig,
    UpdateRequest,
    VolumeOptions,
)

# -- statuses ------------------------------------------------------------------------------------------------------


def test_every_error_class_has_a_status():
    classes = [
        cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.EngineError)
    ]
    assert set(classes) == set(STATUS)


def test_status_goes_by_the_mro():
    class NoSuchImage(NotFound):
        def __init__(self, name: str, extra: int) -> None:
            super().__init__(f"No such image: {name}")

    error = NoSuchImage("x", 1)
    assert status_of(error) == 404
    assert status_of(ValueError()) == 500
    assert type(reworded(error, "m")) is NotFound


# -- queries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", False),
        ("0", False),
        ("no", False),
        ("FALSE", False),
        ("None", False),
        (" 0 ", False),
        ("1", True),
        ("True", True),
        ("yes", True),
        ("2", True),
        ("off", True),
    ],
)
def test_dockers_booleans(text, value):
    assert Query(f"x={text.replace(' ', '+')}").flag("x", not value) is value


def test_booleans_default_when_absent_only():
    assert Query("").flag("x", True) is True
    assert Query("x=").flag("x", True) is False


def test_repeated_keys_and_escapes():
    query = Query("t=a&t=b%3A1&x=a+b%2Bc&&y")
    assert query.all("t") == ["a", "b:1"]
    assert query.get("x") == "a b+c"
    assert "y" in query
    assert Query("p=%ff").get("p") == "\udcff"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("a=%zz", 'invalid URL escape "%zz"'),
        ("a=%4", 'invalid URL escape "%4"'),
        ("a=1;b=2", "invalid semicolon separator in query"),
    ],
)
def test_malformed_queries(raw, message):
    with pytest.raises(InvalidParameter, match=message):
        Query(raw)


def test_numbers_times_and_sizes():
    query = Query(
        "limit=-1&bad=x&h=24&neg=-1&big=4294967296&since=1136073600.000000001&zero=0&rfc=2026-01-01T00:00:00Z"
    )
    assert query.number("limit") == -1
    assert query.number("absent") is None
    with pytest.raises(InvalidParameter, match=r'strconv\.Atoi: parsing "x": invalid syntax'):
        query.number("bad")
    assert query.size("h", "height") == 24
    for name, message in (
        ("neg", "value out of range"),
        ("big", "value out of range"),
        ("bad", "invalid syntax"),
    ):
        with pytest.raises(InvalidParameter, match=f'invalid resize height ".*": {message}'):
            query.size(name, "height")
    with pytest.raises(InvalidParameter, match='invalid resize width "": invalid syntax'):
        query.size("absent", "width")
    assert query.time_ns("since") == 1136073600_000000001
    assert query.time_ns("zero") is None
    assert query.time_ns("rfc") == 1767225600 * 10**9
    with pytest.raises(InvalidParameter):
        query.time_ns("bad")


@given(st.text(max_size=40))
def test_any_query_parses_or_is_invalid(raw):
    try:
        Query(raw)
    except InvalidParameter:
        pass


def test_platforms():
    require_host_platform([""], "x")
    with pytest.raises(NotFound, match="does not match the specified platform"):
        require_host_platform(['{"os":"windows","architecture":"amd64"}'], "x")
    for text in ("{", '"x"', "{}", '{"variant":"v8"}'):
        with pytest.raises(InvalidParameter):
            require_host_platform([text], "x")


# -- filters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("{}", {}),
        ("null", {}),
        ('{"label":{"a=b":true,"c":false}}', {"label": ["a=b", "c"]}),
        ('{"label":["a=b","a=b","c"]}', {"label": ["a=b", "c"]}),
        ('{"label":null}', {"label": []}),
        ('{"label":[]}', {"label": []}),
    ],
)
def test_both_spellings(text, expected):
    assert parse_filters(text, "containers") == expected


@pytest.mark.parametrize(
    "text",
    [
        "bad",
        "[]",
        "1",
        '{"label":"x"}',
        '{"label":{"a":1}}',
        '{"label":[1]}',
        '{"label":["a"],"name":{"b":true}}',
    ],
)
def test_what_is_neither_spelling(text):
    with pytest.raises(InvalidParameter, match=r"^invalid filter$"):
        parse_filters(text)


def test_unknown_filters_are_refused_by_list():
    for of in ACCEPTED:
        with pytest.raises(InvalidParameter, match="invalid filter 'bogus'"):
            parse_filters('{"bogus":["x"]}', of)
    assert parse_filters('{"bogus":["x"]}') == {"bogus": ["x"]}


# -- routes --------------------------------------------------------------------------------------------------------

ROUTER = Router(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "pattern", "name"),
    [
        ("GET", "/containers/json", "/containers/json", ""),
        ("GET", "/containers/json/json", "/containers/{name}/json", "json"),
        ("GET", "/containers/a/b/json", "/containers/{name}/json", "a/b"),
        ("GET", "/containers/x/attach/ws", "/containers/{name}/attach/ws", "x"),
        ("DELETE", "/containers/x", "/containers/{name}", "x"),
        ("POST", "/images/127.0.0.1:5000/x/y/push", "/images/{name}/push", "127.0.0.1:5000/x/y"),
        ("GET", "/images/get", "/images/get", ""),
        ("GET", "/images/a/get/get", "/images/{name}/get", "a/get"),
        ("DELETE", "/images/a/b:c", "/images/{name}", "a/b:c"),
        ("GET", "/networks/", "/networks/", ""),
        ("GET", "/networks/n", "/networks/{name}", "n"),
        ("GET", "/satsuma/containers/x/anatomy", "/satsuma/containers/{name}/anatomy", "x"),
        ("GET", "/satsuma/system/check", "/satsuma/system/check", ""),
        ("PUT", "/volumes/v", "/volumes/{name}", "v"),
    ],
)
def test_routes(method, path, pattern, name):
    found = ROUTER.match(method, path)
    assert found is not None
    assert (found[0].pattern, found[1]) == (pattern, name)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", ""),
        ("GET", "/containers"),
        ("GET", "/containers/x"),
        ("POST", "/containers/json"),
        ("HEAD", "/info"),
        ("GET", "/containers//json"),
        ("PATCH", "/info"),
        ("GET", "/debug/vars"),
    ],
)
def test_no_route(method, path):
    assert ROUTER.match(method, path) is None


def test_routes_are_unique():
    keys = [(route.method, route.pattern) for route in ROUTES]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.41/info", (1, 41), "/info"),
        ("/info", None, "/info"),
        ("/version", None, "/version"),
        ("/volumes", None, "/volumes"),
        ("/v1.51.0/info", (1, 51), "/info"),
        ("/v1/info", (1, 0), "/info"),
        ("/v1.24", (1, 24), "/"),
        ("/vx/info", None, "/vx/info"),
        ("/v/info", None, "/v/info"),
    ],
)
def test_version_prefix(path, version, rest):
    found, _, after = split_version(path)
    assert (found, after) == (version, rest)


def test_version_bounds():
    assert version_error((1, 24), "1.24") is None
    assert version_error((1, 51), "1.51") is None
    assert "too old" in version_error((1, 9), "1.9")
    assert "too new" in version_error((1, 100), "1.100")
    assert format_version((1, 51)) == "1.51"


# -- answers -------------------------------------------------------------------------------------------------------


def test_json_is_gos():
    assert encode_json({"a": "<&>\u00e9"}) == '{"a":"<&>é"}'.encode()
    assert encode_json_html_safe({"a": "<&>"}) == b'{"a":"\\u003c\\u0026\\u003e"}'
    assert json.loads(encode_json({"a\udcff": ["b\udcff"]})) == {"a\ufffd": ["b\ufffd"]}


def test_hosts():
    assert str(parse_host("unix:///run/x.sock")) == "unix:///run/x.sock"
    assert str(parse_host("/run/x.sock")) == "unix:///run/x.sock"
    assert str(parse_host("tcp://0.0.0.0:2375")) == "tcp://0.0.0.0:2375"
    assert str(parse_host("tcp://[::1]:1/")) == "tcp://[::1]:1"
    assert str(parse_host("tcp://")) == "tcp://localhost:2375"
    assert str(parse_host("fd://*")) == "fd://"
    for text in (
        "",
        "x",
        "unix://",
        "unix://rel",
        "http://x",
        "tcp://x:y",
        "tcp://[::1",
        "tcp://a/b",
        "fd://x",
    ):
        with pytest.raises(InvalidParameter):
            parse_host(text)


# -- gates of answers ----------------------------------------------------------------------------------------------


def test_image_gates():
    image = {"Id": "x", "Size": 5, "Created": "", "Config": {"Cmd": ["sh"]}, "Descriptor": {}}
    old = trim("image", (1, 41), image)
    assert (old["VirtualSize"], old["Created"]) == (5, "0001-01-01T00:00:00Z")
    assert old["Config"]["AttachStdin"] is False
    assert "Descriptor" not in old
    new = trim("image", (1, 51), image)
    assert "VirtualSize" not in new
    assert new["Config"] == {
        "Cmd": ["sh"],
        "Entrypoint": None,
        "Env": None,
        "Labels": None,
        "OnBuild": None,
        "User": "",
        "Volumes": None,
        "WorkingDir": "",
    }
    assert new["Descriptor"] == {}
    assert image["Config"] == {"Cmd": ["sh"]}, "what the engine gave is not changed"


def test_image_list_gates():
    images = [{"Id": "x", "RepoTags": [], "RepoDigests": [], "Size": 5, "Containers": 2}]
    assert trim("images", (1, 51), images) == images
    assert trim("images", (1, 50), images)[0]["Containers"] == -1
    old = trim("images", (1, 42), images)[0]
    assert (old["RepoTags"], old["RepoDigests"], old["VirtualSize"]) == (
        ["<none>:<none>"],
        ["<none>@<none>"],
        5,
    )


def test_container_gates():
    container = {
        "Id": "a" * 64,
        "Config": {"Hostname": "h"},
        "NetworkSettings": {"Networks": {"mine": {"Aliases": ["web", "h"]}, "bridge": {"Aliases": None}}},
    }
    assert trim("container", (1, 45), container) == container
    networks = trim("container", (1, 44), container)["NetworkSettings"]["Networks"]
    assert networks["mine"]["Aliases"] == ["web", "h", "a" * 12]
    assert networks["bridge"]["Aliases"] is None
    listed = [{"HostConfig": {"NetworkMode": "x", "Annotations": {}}, "ImageManifestDescriptor": {}}]
    assert trim("containers", (1, 45), listed) == [{"HostConfig": {"NetworkMode": "x"}}]


def test_info_gates():
    info = {
        "Containerd": {},
        "FirewallBackend": {},
        "DiscoveredDevices": [],
        "RegistryConfig": {"Mirrors": []},
        "Runtimes": {"r": {"path": "x", "status": {}}},
        "RuncCommit": {"ID": "abc"},
        "SecurityOptions": ["name=seccomp,profile=builtin"],
    }
    assert trim("info", (1, 51), info) == info
    old = trim("info", (1, 24), info)
    assert old["Runtimes"] == {"r": {"path": "x"}}
    assert old["RuncCommit"] == {"ID": "abc", "Expected": "abc"}
    assert old["SecurityOptions"] == ["seccomp"]
    assert old["BridgeNfIptables"] is False
    assert not {"Containerd", "FirewallBackend", "DiscoveredDevices"} & set(old)
    assert "AllowNondistributableArtifactsCIDRs" in old["RegistryConfig"]


def test_df_gates():
    usage = {"Images": [{"Size": 1}], "BuildCache": [{"Size": 3, "Parents": ["x"]}]}
    assert trim("df", (1, 51), usage) == usage
    assert trim("df", (1, 41), usage) == {
        "Images": [{"Size": 1, "VirtualSize": 1}],
        "BuildCache": [{"Size": 3}],
        "BuilderSize": 3,
    }


# -- gates of creation ---------------------------------------------------------------------------------------------


def body(endpoints=None, mac="", **host) -> CreateRequest:
    return CreateRequest(
        image="bb",
        mac_address=mac,
        healthcheck=HealthConfig(start_interval=5),
        host_config=HostConfig(**host),
        networking_config=NetworkingConfig(endpoints_config=endpoints),
    )


def test_default_network_is_the_bridge():
    made, _ = adapt_create(body({"default": EndpointSettings(aliases=["a"])}), (1, 51))
    assert made.host_config.network_mode == "bridge"
    assert list(made.networking_config.endpoints_config) == ["bridge"]
    assert adapt_create(body(network_mode="mine"), (1, 51))[0].host_config.network_mode == "mine"


def test_old_versions_lose_what_they_did_not_have():
    made, _ = adapt_create(body(annotations={"a": "b"}, console_size=[1, 2], auto_remove=True), (1, 24))
    assert made.host_config.annotations is None
    assert made.host_config.console_size == [0, 0]
    assert made.host_config.auto_remove is False
    assert made.host_config.ipc_mode == "shareable"
    assert made.healthcheck.start_interval == 0
    new, _ = adapt_create(
        body(annotations={"a": "b"}, console_size=[1, 2], auto_remove=True, kernel_memory=5, pids_limit=-1),
        (1, 51),
    )
    assert new.host_config.annotations == {"a": "b"}
    assert new.host_config.auto_remove is True
    assert new.host_config.kernel_memory == 0
    assert new.host_config.pids_limit is None
    assert adapt_resources(UpdateRequest(pids_limit=-5), (1, 51), unlimited=0).pids_limit == 0


@pytest.mark.parametrize(
    ("mount", "version", "message"),
    [
        (
            Mount(type="bind", volume_options=VolumeOptions()),
            (1, 42),
            'VolumeOptions must not be specified on mount type "bind"',
        ),
        (
            Mount(type="volume", bind_options=BindOptions()),
            (1, 51),
            'BindOptions must not be specified on mount type "volume"',
        ),
        (
            Mount(type="bind", bind_options=BindOptions(read_only_force_recursive=True)),
            (1, 43),
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
        (
            Mount(type="volume", volume_options=VolumeOptions(subpath="x")),
            (1, 44),
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (Mount(type="image"), (1, 47), 'Mount type "Image" needs API v1.48 or newer'),
    ],
)
def test_mounts_that_a_version_refuses(mount, version, message):
    with pytest.raises(InvalidParameter) as error:
        adapt_create(body(mounts=[mount]), version)
    assert str(error.value) == message


def test_mounts_that_old_versions_mend():
    mount = Mount(
        type="bind",
        read_only=True,
        volume_options=VolumeOptions(),
        bind_options=BindOptions(create_mountpoint=True),
    )
    (made,) = adapt_create(body(mounts=[mount]), (1, 41))[0].host_config.mounts
    assert made.volume_options is None
    assert made.bind_options == BindOptions(read_only_non_recursive=True)


def test_two_networks_need_1_44():
    endpoints = {"a": EndpointSettings(gw_priority=3), "b": None}
    with pytest.raises(
        InvalidParameter, match="Container cannot be created with multiple network endpoints: a, b"
    ):
        adapt_create(body(endpoints), (1, 43))
    made, _ = adapt_create(body(endpoints), (1, 44))
    assert made.networking_config.endpoints_config["a"].gw_priority == 0
    assert adapt_create(body(endpoints), (1, 48))[0].networking_config.endpoints_config["a"].gw_priority == 3


def test_mac_address_moves_to_its_endpoint():
    mac = "02:42:ac:11:00:02"
    made, warnings = adapt_create(body(mac=mac), (1, 51))
    assert made.mac_address == ""
    assert made.networking_config.endpoints_config["bridge"].mac_address == mac
    assert warnings == [
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
    ]
    made, warnings = adapt_create(body({"x": EndpointSettings()}, mac), (1, 43))
    assert made.networking_config.endpoints_config["x"].mac_address == mac
    assert warnings == []
    with pytest.raises(InvalidParameter, match="must match the identity of a network"):
        adapt_create(body({"x": EndpointSettings()}, mac), (1, 51))
    with pytest.raises(InvalidParameter, match="must match the endpoint-specific MAC address"):
        adapt_create(body({"bridge": EndpointSettings(mac_address="02:00:00:00:00:01")}, mac), (1, 51))
    with pytest.raises(InvalidParameter, match="mac-address and the network mode"):
        adapt_create(body(mac=mac, network_mode="host"), (1, 43))


def test_sysctls_of_an_interface_move_to_the_endpoint():
    sysctls = {"net.ipv6.conf.eth0.forwarding": "1", "net.core.somaxconn": "5"}
    made, warnings = adapt_create(body(sysctls=sysctls), (1, 47))
    assert made.host_config.sysctls == {"net.core.somaxconn": "5"}
    option = {"com.docker.network.endpoint.sysctls": "net.ipv6.conf.IFNAME.forwarding=1"}
    assert made.networking_config.endpoints_config["bridge"].driver_opts == option
    assert warnings[0].startswith('Migrated sysctl "net.ipv6.conf.eth0.forwarding" to DriverOpts{')
    with pytest.raises(System, match="must be supplied using driver option"):
        adapt_create(body(sysctls=sysctls), (1, 48))
    assert adapt_create(body(sysctls=sysctls, network_mode="host"), (1, 51))[0].host_config.sysctls == sysctls


def test_volume_driver_warning():
    mount = Mount(type="volume", target="/x")
    _, warnings = adapt_create(body(volume_driver="d", mounts=[mount]), (1, 48))
    assert warnings[0].startswith("WARNING: the container-wide volume-driver configuration is ignored")
    assert adapt_create(body(volume_driver="d", mounts=[mount]), (1, 47))[1] == []


def test_conflict_is_reworded_in_its_class():
    assert str(reworded(Conflict("a"), "b")) == "b"
