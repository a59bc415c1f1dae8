"""`system df`: what takes space, and what of it nobody needs.

Source: docker documentation "docker system df"; measured on docker 28.2.
"""

from __future__ import annotations

import sys

from satsuma.base.sizes import format_size
from satsuma.cli import containers, images, volumes
from satsuma.cli.formatting import Listing, age, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

    Items = Sequence[Mapping[str, Any]]

LISTING = Listing(
    "*formatter.diskUsageImagesContext",
    "Type TotalCount Active Size Reclaimable",
    {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"},
    "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n",
)
_CACHE = Listing(
    "*formatter.buildCacheContext",
    "ID CacheType Size CreatedSince LastUsedSince UsageCount Shared",
    {
        "ID": "CACHE ID",
        "Parent": "PARENT",
        "CacheType": "CACHE TYPE",
        "Size": "SIZE",
        "CreatedSince": "CREATED",
        "LastUsedSince": "LAST USED",
        "UsageCount": "USAGE",
        "InUse": "IN USE",
        "Shared": "SHARED",
        "Description": "DESCRIPTION",
    },
)
_IMAGES = Listing(
    images.LISTING.go_type,
    "Repository Tag ID CreatedSince Size SharedSize UniqueSize Containers",
    images.LISTING.headers,
)
_CONTAINERS = Listing(
    containers.LISTING.go_type,
    "ID Image Command LocalVolumes Size RunningFor Status Names",
    containers.LISTING.headers,
)
_VOLUMES = Listing(volumes.LISTING.go_type, "Name Links Size", volumes.LISTING.headers)


def df(session: Session, flags: Flags) -> None:
    """Show disk usage."""
    usage = session.engine.get("/system/df")
    if flags["verbose"]:
        _verbose(usage, flags["format"])
    else:
        LISTING.write(flags["format"], summary(usage))


def summary(usage: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one row for each kind of object."""
    found, ran, kept, cached = (
        usage.get(name) or [] for name in ("Images", "Containers", "Volumes", "BuildCache")
    )
    return [
        _image_row(found, usage.get("LayersSize") or 0),
        _container_row(ran),
        _volume_row(kept),
        _cache_row(cached),
    ]


def _row(
    kind: str, total: int, active: int, size: int, reclaimable: int, *, share: bool = True
) -> dict[str, str]:
    text = format_size(reclaimable)
    if share and size > 0:
        text += f" ({reclaimable * 100 // size}%)"
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": format_size(size),
        "Reclaimable": text,
    }


def _image_row(items: Items, layers: int) -> dict[str, str]:
    used = [item for item in items if item.get("Containers", 0) > 0]
    known = [item for item in used if item.get("Size", -1) != -1 and item.get("SharedSize", -1) != -1]
    needed = sum(item["Size"] - item["SharedSize"] for item in known)
    return _row("Images", len(items), len(used), layers, layers - needed)


def _container_row(items: Items) -> dict[str, str]:
    def active(item: Mapping[str, Any]) -> bool:
        return item.get("State") in ("running", "paused", "restarting")

    size = sum(item.get("SizeRw") or 0 for item in items)
    idle = sum(item.get("SizeRw") or 0 for item in items if not active(item))
    return _row("Containers", len(items), sum(active(item) for item in items), size, idle)


def _volume_row(items: Items) -> dict[str, str]:
    usages = [item["UsageData"] for item in items if item.get("UsageData")]
    known = [usage for usage in usages if usage["Size"] != -1]
    size = sum(usage["Size"] for usage in known)
    idle = sum(usage["Size"] for usage in known if usage["RefCount"] == 0)
    return _row("Local Volumes", len(items), sum(usage["RefCount"] > 0 for usage in usages), size, idle)


def _cache_row(items: Items) -> dict[str, str]:
    size = sum(item["Size"] for item in items if not item.get("Shared"))
    needed = sum(item["Size"] for item in items if item.get("InUse") and not item.get("Shared"))
    active = sum(bool(item.get("InUse")) for item in items)
    return _row("Build Cache", len(items), active, size, size - needed, share=False)


def _verbose(usage: Mapping[str, Any], source: str) -> None:
    truncate = source in ("", "table")
    rows = {
        "Images": [_image_details(item, truncate=truncate) for item in usage.get("Images") or []],
        "Containers": [
            containers.row({**item, "SizeRootFs": 0}, truncate=truncate)
            for item in usage.get("Containers") or []
        ],
        "Volumes": [volumes.row(item) for item in usage.get("Volumes") or []],
        "BuildCache": [
            _cache_details(item, truncate=truncate)
            for item in sorted(usage.get("BuildCache") or [], key=_cache_key)
        ],
    }
    if not truncate:
        _templated(rows, source)
        return
    cache_size = sum(item["Size"] for item in usage.get("BuildCache") or [] if not item.get("Shared"))
    sys.stdout.write("Images space usage:\n\n")
    _IMAGES.write("", rows["Images"])
    sys.stdout.write("\nContainers space usage:\n\n")
    _CONTAINERS.write("", rows["Containers"])
    sys.stdout.write("\nLocal Volumes space usage:\n\n")
    _VOLUMES.write("", rows["Volumes"])
    sys.stdout.write(f"\nBuild cache usage: {format_size(cache_size)}\n\n")
    _CACHE.write("", rows["BuildCache"])


def _templated(rows: Mapping[str, Items], source: str) -> None:
    from satsuma.cli.errors import CliError
    from satsuma.cli.formatting import clean
    from satsuma.wire.gotemplate import Record, Struct, TemplateError, parse

    kinds = {"Images": _IMAGES, "Containers": _CONTAINERS, "Volumes": _VOLUMES, "BuildCache": _CACHE}
    data = {name: [Struct(kinds[name].go_type, row) for row in found] for name, found in rows.items()}
    text = "{{json .}}" if source == "json" else clean(source)
    try:
        sys.stdout.write(parse(text).execute(Record("*formatter.diskUsageContext", data)))
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}") from None
    if source == "json":
        sys.stdout.write("\n")


def _image_details(item: Mapping[str, Any], *, truncate: bool) -> dict[str, Any]:
    name = next((tag for tag in item.get("RepoTags") or [] if tag != "<none>:<none>"), "")
    repository, _, tag = name.rpartition(":")
    names = (repository or images.NONE, tag or images.NONE, "")
    return images.row(item, names, truncate=truncate)


def _cache_key(item: Mapping[str, Any]) -> tuple[bool, str, str]:
    used = item.get("LastUsedAt") or ""
    return bool(used), used, item.get("ID") or ""


def _cache_details(item: Mapping[str, Any], *, truncate: bool) -> dict[str, Any]:
    from satsuma.base.clock import parse_rfc3339

    def since(text: str) -> str:
        return age(parse_rfc3339(text) / 1e9) if text else ""

    identifier = item.get("ID") or ""
    shown = short_id(identifier) if truncate else identifier
    parents = ", ".join(item.get("Parents") or [])
    return {
        "ID": f"{shown}*" if item.get("InUse") else shown,
        "Parent": short_id(parents) if truncate else parents,
        "CacheType": item.get("Type") or "",
        "Description": item.get("Description") or "",
        "Size": format_size(item.get("Size") or 0, precision=3),
        "CreatedAt": item.get("CreatedAt") or "",
        "CreatedSince": since(item.get("CreatedAt") or ""),
        "LastUsedAt": item.get("LastUsedAt") or "",
        "LastUsedSince": since(item.get("LastUsedAt") or ""),
        "UsageCount": str(item.get("UsageCount") or 0),
        "InUse": "true" if item.get("InUse") else "false",
        "Shared": "true" if item.get("Shared") else "false",
    }
