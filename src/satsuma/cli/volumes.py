"""Volumes: ls, create, rm, update.

Source: docker documentation of these commands; measured on docker 28.2.
"""

from __future__ import annotations

from satsuma.base.sizes import format_size
from satsuma.cli.client import as_filters, escape
from satsuma.cli.errors import CliError
from satsuma.cli.formatting import Listing, join_labels
from satsuma.cli.lifecycle import each
from satsuma.cli.lookup import natural_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

LISTING = Listing(
    "*formatter.volumeContext",
    "Driver Name",
    {
        "Name": "VOLUME NAME",
        "Group": "GROUP",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "Availability": "AVAILABILITY",
        "Mountpoint": "MOUNTPOINT",
        "Labels": "LABELS",
        "Links": "LINKS",
        "Size": "SIZE",
        "Status": "STATUS",
    },
    "name: {{.Name}}\ndriver: {{.Driver}}\n",
)


def ls(session: Session, flags: Flags) -> None:
    """List volumes."""
    if flags["cluster"]:
        raise CliError("--cluster needs a swarm, which this engine has not")
    found = (session.engine.get("/volumes", {"filters": as_filters(flags["filter"])}) or {}).get(
        "Volumes"
    ) or []
    found.sort(key=lambda item: natural_key(item.get("Name") or ""))
    source = flags["format"] or ("" if flags["quiet"] else str(session.config.get("volumesFormat") or ""))
    LISTING.write(source, [row(item) for item in found], quiet="Name" if flags["quiet"] else "")


def row(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of one volume that templates know."""
    labels = item.get("Labels") or {}
    usage = item.get("UsageData")
    return {
        "Name": item.get("Name") or "",
        "Driver": item.get("Driver") or "",
        "Scope": item.get("Scope") or "",
        "Mountpoint": item.get("Mountpoint") or "",
        "Labels": join_labels(labels),
        "Label": lambda name: labels.get(name, ""),
        "Links": "N/A" if usage is None else str(usage["RefCount"]),
        "Size": "N/A" if usage is None else format_size(usage["Size"]),
        "Group": "N/A",
        "Availability": "N/A",
        "Status": "N/A",
    }


_CLUSTER = (
    "group", "scope", "sharing", "availability", "type", "secret", "limit-bytes", "required-bytes",
    "topology-preferred", "topology-required",
)  # fmt: skip


def create(session: Session, flags: Flags) -> None:
    """Create a volume."""
    if flags.args and flags["name"]:
        raise CliError(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )
    body: dict[str, Any] = {
        "Driver": flags["driver"],
        "DriverOpts": flags["opt"],
        "Labels": {key: value for key, _, value in (label.partition("=") for label in flags["label"])},
        "Name": flags.args[0] if flags.args else flags["name"],
    }
    if any(name in flags.changed for name in _CLUSTER):
        # The engine judges it: without a swarm it has no cluster volumes.
        access = {"Scope": flags["scope"], "Sharing": flags["sharing"]}
        access["BlockVolume" if flags["type"] == "block" else "MountVolume"] = {}
        body["ClusterVolumeSpec"] = {
            "Group": flags["group"],
            "AccessMode": access,
            "Availability": flags["availability"],
            "CapacityRange": {"RequiredBytes": flags["required-bytes"], "LimitBytes": flags["limit-bytes"]},
            "Secrets": [{"Key": key, "Secret": value} for key, value in sorted(flags["secret"].items())],
            "AccessibilityRequirements": {
                "Requisite": [_topology(text) for text in flags["topology-required"]],
                "Preferred": [_topology(text) for text in flags["topology-preferred"]],
            },
        }
    session.line(session.engine.post("/volumes/create", None, body)["Name"])


def _topology(text: str) -> dict[str, dict[str, str]]:
    pairs = (segment.partition("=") for segment in text.split(","))
    return {"Segments": {key: value for key, _, value in pairs}}


def rm(session: Session, flags: Flags) -> None:
    """Remove volumes."""
    query = {"force": flags["force"]}
    each(session, flags.args, lambda name: session.engine.delete(f"/volumes/{escape(name)}", query))


def update(session: Session, flags: Flags) -> None:
    """Change a cluster volume, which only a swarm has: the engine answers."""
    info = session.engine.get(f"/volumes/{escape(flags.args[0])}")
    if not info.get("ClusterVolume"):
        raise CliError("Can only update cluster volumes")
    spec = info["ClusterVolume"]["Spec"]
    if "availability" in flags.changed:
        spec["Availability"] = flags["availability"]
    version = info["ClusterVolume"]["Version"]["Index"]
    session.engine.request(
        "PUT", f"/volumes/{escape(info['ClusterVolume']['ID'])}", {"version": version}, {"Spec": spec}
    ).read()
