"""Images in the shapes of the Docker API: list, inspect, history, and the filters of lists.

Owns field names and orders of API 1.51; older versions are trimmed at the edge.

Source: moby daemon/images/{images,image_inspect,image_history}.go; observed on Docker 28.5.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from satsuma.base.clock import ZERO_TIME, format_rfc3339nano
from satsuma.base.errors import InvalidParameter
from satsuma.image.catalog import Catalog
from satsuma.image.model import Image
from satsuma.spec.image import time_ns
from satsuma.wire.patterns import match

Filters = Mapping[str, Sequence[str]]
_NS = 1_000_000_000


def history(catalog: Catalog, image: Image) -> list[dict[str, Any]]:
    """Return the history, newest first; steps without an image of their own have the id `<missing>`."""
    entries = []
    layers = iter(image.chain_ids)
    for step in image.config.history or ():
        size = 0
        if not step.empty_layer:
            chain_id = next(layers, None)
            if chain_id is None:
                raise InvalidParameter("too many non-empty layers in History section")
            size = catalog.store.layers.get(chain_id).size
        entries.append(
            {
                "Comment": step.comment,
                "Created": time_ns(step.created) // _NS,
                "CreatedBy": step.created_by,
                "Id": "<missing>",
                "Size": size,
                "Tags": None,
            }
        )
    entries.reverse()
    current: Image | None = image
    for entry in entries:
        if current is None:
            break
        entry["Id"] = current.id
        entry["Tags"] = list(current.repo_tags) or None
        current = catalog.find(current.parent) if current.parent else None
    return entries


def inspect(catalog: Catalog, image: Image) -> dict[str, Any]:
    """Return `GET /images/{name}/json`."""
    config = image.config
    comment = config.comment or (config.history[-1].comment if config.history else "")
    answer: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": comment,
        "Created": config.created or ZERO_TIME,
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": _config(config.config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": {"Data": _directories(catalog, image), "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)}
        if image.diff_ids
        else {"Type": "layers"},
        "Metadata": {"LastTagTime": format_rfc3339nano(image.tagged_ns) if image.tagged_ns else ZERO_TIME},
    }
    if config.variant:
        answer["Variant"] = config.variant
    if config.os_version:
        answer["OsVersion"] = config.os_version
    if config.container:
        answer["Container"] = config.container
    if config.container_config:
        answer["ContainerConfig"] = config.container_config
    return answer


_ALWAYS = {
    "Cmd": None,
    "Entrypoint": None,
    "Env": None,
    "Labels": None,
    "OnBuild": None,
    "User": "",
    "Volumes": None,
    "WorkingDir": "",
}
_IF_SET = ("ArgsEscaped", "ExposedPorts", "Healthcheck", "Shell", "StopSignal", "StopTimeout")


def _config(config: dict[str, Any] | None) -> dict[str, Any]:
    """Docker 28 shows the part of the config that images have, nulls included."""
    config = config or {}
    shown = {key: config.get(key, default) or default for key, default in _ALWAYS.items()}
    shown.update({key: config[key] for key in _IF_SET if config.get(key)})
    return dict(sorted(shown.items()))


def _directories(catalog: Catalog, image: Image) -> dict[str, str]:
    directories = [catalog.store.snapshots.layer_dir(chain_id) for chain_id in reversed(image.chain_ids)]
    if not directories:
        return {}
    base = directories[0].removesuffix("/diff")
    data = {"MergedDir": f"{base}/merged", "UpperDir": directories[0], "WorkDir": f"{base}/work"}
    if len(directories) > 1:
        data["LowerDir"] = ":".join(directories[1:])
    return data


def summaries(
    catalog: Catalog,
    *,
    all: bool = False,
    filters: Filters | None = None,
    containers: Callable[[str], int] | None = None,
    shared_size: bool = False,
) -> list[dict[str, Any]]:
    """Return `GET /images/json`, newest first.

    Args:
        all: also images that only serve as parents of others.
        filters: `before dangling label label! reference since until`, values as the client gave them.
        containers: number of containers of an image; -1 is shown without it.
        shared_size: work out how much each image shares with others.
    Raises:
        InvalidParameter: an unknown filter or a bad value.
    """
    selection = _Selection(catalog, filters or {})
    found = []
    for image_id in catalog.ids():
        image = catalog.find(image_id)
        if image is None or not selection.wants(image):
            continue
        summary = selection.summary(image, all=all)
        if summary is not None:
            summary["Containers"] = containers(image_id) if containers is not None else -1
            found.append((image, summary))
    if shared_size:
        _add_shared(catalog, found)
    found.sort(key=lambda item: -item[0].created_ns)
    return [summary for _, summary in found]


def _add_shared(catalog: Catalog, found: list[tuple[Image, dict[str, Any]]]) -> None:
    users: dict[str, int] = {}
    for image_id in catalog.ids():
        image = catalog.find(image_id)
        for chain_id in image.chain_ids if image is not None else ():
            users[chain_id] = users.get(chain_id, 0) + 1
    for image, summary in found:
        summary["SharedSize"] = sum(
            catalog.store.layers.get(chain_id).size for chain_id in image.chain_ids if users[chain_id] > 1
        )


class _Selection:
    _KNOWN = frozenset(("before", "dangling", "label", "label!", "reference", "since", "until"))

    def __init__(self, catalog: Catalog, filters: Filters) -> None:
        for name in filters:
            if name not in self._KNOWN:
                raise InvalidParameter(f"invalid filter '{name}'")
        self._catalog = catalog
        self._dangling = _bool_filter(filters, "dangling")
        self._labels = label_matcher(filters)
        self._references = list(filters.get("reference", ()))
        times = [catalog.resolve(name).created_ns for name in filters.get("before", ())]
        times += [_until(value) for value in filters.get("until", ())]
        self._before = min(times) if times else None
        times = [catalog.resolve(name).created_ns for name in filters.get("since", ())]
        self._since = max(times) if times else None

    def wants(self, image: Image) -> bool:
        if self._before is not None and image.created_ns >= self._before:
            return False
        if self._since is not None and image.created_ns <= self._since:
            return False
        return self._labels(image.labels)

    def summary(self, image: Image, *, all: bool) -> dict[str, Any] | None:
        refs = self._catalog.references(image.id)
        if self._references:
            refs = [ref for ref in refs if any(_matches(pattern, ref) for pattern in self._references)]
            if not refs:
                return None
        tags = [ref.familiar() for ref in refs if ref.tag]
        digests = [ref.familiar() for ref in refs if ref.digest]
        if not refs:
            if self._dangling is False or (not all and self._catalog.children(image.id)):
                return None
        elif self._dangling and tags:
            return None
        return {
            "Containers": -1,
            "Created": image.created_ns // _NS,
            "Id": image.id,
            "Labels": image.labels or None,
            "ParentId": image.parent,
            "RepoDigests": digests,
            "RepoTags": tags,
            "SharedSize": -1,
            "Size": image.size,
        }


def _matches(pattern: str, ref: Any) -> bool:
    """Source: distribution/reference FamiliarMatch: the familiar name with or without its tag."""
    try:
        return match(pattern, ref.familiar()) or match(pattern, ref.familiar_name())
    except ValueError as error:
        raise InvalidParameter(f"invalid reference filter {pattern!r}: {error}") from error


def _bool_filter(filters: Filters, name: str) -> bool | None:
    values = {value.lower() for value in filters.get(name, ())}
    if not values:
        return None
    if values <= {"1", "true"}:
        return True
    if values <= {"0", "false"}:
        return False
    raise InvalidParameter(f"invalid filter '{name}={list(filters[name])}'")


def _until(value: str) -> int:
    from satsuma.base.clock import parse_time

    try:
        return parse_time(value)
    except ValueError as error:
        raise InvalidParameter(str(error)) from error


def label_matcher(filters: Filters) -> Callable[[Mapping[str, str]], bool]:
    """Return the test that the filters `label` (all must hold) and `label!` (none may) make."""

    def holds(labels: Mapping[str, str], wanted: str) -> bool:
        key, equals, value = wanted.partition("=")
        return key in labels and (not equals or labels[key] == value)

    def matches(labels: Mapping[str, str]) -> bool:
        return all(holds(labels, w) for w in filters.get("label", ())) and not any(
            holds(labels, w) for w in filters.get("label!", ())
        )

    return matches
