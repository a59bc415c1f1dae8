"""What older API versions see differently in answers, as one table.

A gate belongs to one kind of answer and applies to requests of versions below its own.  Gates return new values:
what the engine handed out may be shared.  What older versions may *ask* differently is in `create_gates` and in
the handlers.

Source: moby v28.5.2 api/server/router; golden answers of 28.5.2 at 1.51 and 1.41.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from satsuma.api.request import Version
from satsuma.base.clock import ZERO_TIME

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gate:
    """One difference: requests below version *below* see *apply* of the answer *kind*."""

    kind: str
    below: Version
    apply: Callable[[Any], Any]


ALL = (999,)
"""As `below`: every version."""

_LEGACY_CONFIG_150: Json = {
    "Cmd": None,
    "Entrypoint": None,
    "Env": None,
    "Labels": None,
    "OnBuild": None,
    "User": "",
    "Volumes": None,
    "WorkingDir": "",
}
_LEGACY_CONFIG_149: Json = {
    "AttachStderr": False,
    "AttachStdin": False,
    "AttachStdout": False,
    "Domainname": "",
    "Hostname": "",
    "Image": "",
    "OpenStdin": False,
    "StdinOnce": False,
    "Tty": False,
    **_LEGACY_CONFIG_150,
}


def trim(kind: str, version: Version, value: Any) -> Any:
    """Return an answer as a client of *version* expects it."""
    for gate in _GATES.get(kind, ()):
        if version < gate.below:
            value = gate.apply(value)
    return value


def _without(value: Json, *keys: str) -> Json:
    return {key: item for key, item in value.items() if key not in keys}


def _each(change: Callable[[Json], Json]) -> Callable[[list[Json]], list[Json]]:
    return lambda items: [change(item) for item in items]


def _no_annotations(container: Json) -> Json:
    host = container.get("HostConfig")
    if not host or "Annotations" not in host:
        return container
    return {**container, "HostConfig": _without(host, "Annotations")}


def _no_manifest_descriptor(container: Json) -> Json:
    return _without(container, "ImageManifestDescriptor")


def _aliases_with_id(container: Json) -> Json:
    """Add short id and host name to the aliases in user-defined networks; from 1.45 on they are in DNSNames."""
    settings = container["NetworkSettings"]
    names = [container["Id"][:12], container["Config"].get("Hostname", "")]
    networks = {
        name: {**endpoint, "Aliases": list(dict.fromkeys([*(endpoint.get("Aliases") or []), *names]))}
        if name not in ("bridge", "host", "none", "default")
        else endpoint
        for name, endpoint in (settings.get("Networks") or {}).items()
    }
    return {**container, "NetworkSettings": {**settings, "Networks": networks}}


def _none_tags(image: Json) -> Json:
    if image.get("RepoTags") or image.get("RepoDigests"):
        return image
    return {**image, "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}


def _virtual_size(image: Json) -> Json:
    return {**image, "VirtualSize": image["Size"]}


def _no_descriptor(image: Json) -> Json:
    return _without(image, "Descriptor")


def _no_container_count(image: Json) -> Json:
    return {**image, "Containers": -1}


def _created_zero(image: Json) -> Json:
    return image if image.get("Created") else {**image, "Created": ZERO_TIME}


def _with_config(fields: Json) -> Callable[[Json], Json]:
    return lambda image: {**image, "Config": {**fields, **(image.get("Config") or {})}}


def _container_config(image: Json) -> Json:
    # Docker dropped this key in 1.45; docker-compose v1 reads it whatever the version and ends with a KeyError.
    # An additional field breaks nobody, so every version has it.
    return {**image, "ContainerConfig": {**_LEGACY_CONFIG_149, **(image.get("Config") or {})}}


def _runtimes_without_status(info: Json) -> Json:
    runtimes = {name: _without(runtime, "status") for name, runtime in (info.get("Runtimes") or {}).items()}
    return {**info, "Runtimes": runtimes}


def _nondistributable(info: Json) -> Json:
    config = info.get("RegistryConfig")
    if config is None:
        return info
    extra = {"AllowNondistributableArtifactsCIDRs": None, "AllowNondistributableArtifactsHostnames": None}
    return {**info, "RegistryConfig": {**config, **extra}}


def _expected_commits(info: Json) -> Json:
    changed = dict(_without(info, "FirewallBackend"))
    for key in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        commit = changed.get(key) or {"ID": ""}
        changed[key] = {**commit, "Expected": commit.get("ID", "")}
    return changed


def _bridge_netfilter(info: Json) -> Json:
    return {**_without(info, "DiscoveredDevices"), "BridgeNfIptables": False, "BridgeNfIp6tables": False}


def _security_names(info: Json) -> Json:
    names = []
    for option in info.get("SecurityOptions") or []:
        pairs = dict(part.partition("=")[::2] for part in option.split(","))
        names.append(pairs.get("name", option))
    return {**info, "SecurityOptions": names}


def _builder_size(usage: Json) -> Json:
    records = usage.get("BuildCache") or []
    size = sum(record.get("Size", 0) for record in records)
    return {**usage, "BuilderSize": size, "BuildCache": [_without(record, "Parents") for record in records]}


def _usage_virtual_size(usage: Json) -> Json:
    return {**usage, "Images": [_virtual_size(image) for image in usage.get("Images") or []]}


GATES = (
    Gate("containers", (1, 46), _each(_no_annotations)),
    Gate("containers", (1, 48), _each(_no_manifest_descriptor)),
    Gate("container", (1, 45), _aliases_with_id),
    Gate("container", (1, 48), _no_manifest_descriptor),
    Gate("images", (1, 43), _each(_none_tags)),
    Gate("images", (1, 44), _each(_virtual_size)),
    Gate("images", (1, 48), _each(_no_descriptor)),
    Gate("images", (1, 51), _each(_no_container_count)),
    Gate("image", (1, 44), _virtual_size),
    Gate("image", (1, 44), _created_zero),
    Gate("image", (1, 48), _no_descriptor),
    Gate("image", (1, 50), _with_config(_LEGACY_CONFIG_149)),
    Gate("image", ALL, _with_config(_LEGACY_CONFIG_150)),
    Gate("image", ALL, _container_config),
    Gate("info", (1, 25), _security_names),
    Gate("info", (1, 44), _runtimes_without_status),
    Gate("info", (1, 46), lambda info: _without(info, "Containerd")),
    Gate("info", (1, 47), _nondistributable),
    Gate("info", (1, 49), _expected_commits),
    Gate("info", (1, 50), _bridge_netfilter),
    Gate("df", (1, 42), _builder_size),
    Gate("df", (1, 44), _usage_virtual_size),
)

_GATES: dict[str, list[Gate]] = {}
for _gate in GATES:
    _GATES.setdefault(_gate.kind, []).append(_gate)
