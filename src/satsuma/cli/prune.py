"""Removing what nobody uses: containers, images, networks, volumes, build cache, and all of them.

Source: docker documentation of these commands; measured on docker 28.2.
"""

from __future__ import annotations

from satsuma.base.sizes import format_size
from satsuma.cli.client import as_filters
from satsuma.cli.errors import CliError, ExitStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

    Pairs = list[tuple[str, str]]


def _confirm(session: Session, flags: Flags, warning: str) -> None:
    if not flags["force"] and not session.confirm(
        f"WARNING! This will remove {warning}.\nAre you sure you want to continue?"
    ):
        raise ExitStatus(0)


def _pairs(session: Session, flags: Flags) -> Pairs:
    """Return the filters of the flags and those that the configuration adds to every prune."""
    pairs: Pairs = list(flags["filter"])
    for text in session.config.get("pruneFilters") or []:
        key, _, value = str(text).partition("=")
        if not (key == "label" and ("label!", value) in pairs) and not (
            key == "label!" and ("label", value) in pairs
        ):
            pairs.append((key, value))
    return pairs


def _post(session: Session, path: str, pairs: Pairs, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    return session.engine.post(path, {**(extra or {}), "filters": as_filters(pairs)}) or {}


def _lines(title: str, names: list[str] | None) -> str:
    return f"{title}:\n" + "".join(f"{name}\n" for name in names) if names else ""


def _report(session: Session, output: str, reclaimed: int) -> None:
    if output:
        session.line(output)
    session.line(f"Total reclaimed space: {format_size(reclaimed)}")


def containers(session: Session, flags: Flags) -> None:
    """Remove stopped containers."""
    _confirm(session, flags, "all stopped containers")
    _report(session, *_containers(session, _pairs(session, flags)))


def _containers(session: Session, pairs: Pairs) -> tuple[str, int]:
    found = _post(session, "/containers/prune", pairs)
    names = found.get("ContainersDeleted")
    return _lines("Deleted Containers", names), found.get("SpaceReclaimed", 0) if names else 0


def images(session: Session, flags: Flags) -> None:
    """Remove images that are dangling, or that no container uses."""
    warning = (
        "all images without at least one container associated to them"
        if flags["all"]
        else "all dangling images"
    )
    _confirm(session, flags, warning)
    _report(session, *_images(session, _pairs(session, flags), every=flags["all"]))


def _images(session: Session, pairs: Pairs, *, every: bool) -> tuple[str, int]:
    found = _post(session, "/images/prune", [*pairs, ("dangling", "false" if every else "true")])
    deleted = found.get("ImagesDeleted") or []
    names = [
        f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item['Deleted']}"
        for item in deleted
    ]
    return _lines("Deleted Images", names), found.get("SpaceReclaimed", 0)


def networks(session: Session, flags: Flags) -> None:
    """Remove networks that no container uses."""
    _confirm(session, flags, "all custom networks not used by at least one container")
    output = _networks(session, _pairs(session, flags))
    if output:
        session.line(output)


def _networks(session: Session, pairs: Pairs) -> str:
    return _lines("Deleted Networks", _post(session, "/networks/prune", pairs).get("NetworksDeleted"))


def volumes(session: Session, flags: Flags) -> None:
    """Remove volumes that no container uses."""
    pairs = _pairs(session, flags)
    if flags["all"]:
        if any(key == "all" for key, _ in pairs):
            raise CliError("conflicting options: cannot specify both --all and --filter all=1")
        pairs.append(("all", "true"))
    warning = "all local volumes" if flags["all"] else "anonymous local volumes"
    _confirm(session, flags, f"{warning} not used by at least one container")
    _report(session, *_volumes(session, pairs))


def _volumes(session: Session, pairs: Pairs) -> tuple[str, int]:
    found = _post(session, "/volumes/prune", pairs)
    names = found.get("VolumesDeleted")
    return _lines("Deleted Volumes", names), found.get("SpaceReclaimed", 0) if names else 0


def builder(session: Session, flags: Flags) -> None:
    """Remove build cache."""
    warning = "all build cache" if flags["all"] else "all dangling build cache"
    if not flags["force"] and not session.confirm(
        f"WARNING! This will remove {warning}. Are you sure you want to continue?"
    ):
        raise ExitStatus(0)
    keep = flags["keep-storage"]
    output, reclaimed = _cache(session, _pairs(session, flags), every=flags["all"], keep=keep)
    if output:
        session.line(output)
    session.line(f"Total reclaimed space: {format_size(reclaimed)}")


def _cache(session: Session, pairs: Pairs, *, every: bool, keep: int = 0) -> tuple[str, int]:
    found = _post(session, "/build/prune", pairs, {"all": every, "keep-storage": keep or None})
    return _lines("Deleted build cache objects", found.get("CachesDeleted")), found.get("SpaceReclaimed", 0)


def system(session: Session, flags: Flags) -> None:
    """Remove everything that nobody uses."""
    pairs = _pairs(session, flags)
    if flags["volumes"] and any(key == "until" for key, _ in pairs):
        raise CliError('ERROR: The "until" filter is not supported with "--volumes"')
    if not flags["force"] and not session.confirm(_warning(flags, pairs)):
        raise ExitStatus(0)
    total = 0
    parts = [_containers(session, pairs), (_networks(session, pairs), 0)]
    if flags["volumes"]:
        parts.append(_volumes(session, pairs))
    parts.append(_images(session, pairs, every=flags["all"]))
    parts.append(_cache(session, pairs, every=flags["all"]))
    for output, reclaimed in parts:
        total += reclaimed
        if output:
            session.line(output)
    session.line(f"Total reclaimed space: {format_size(total)}")


def _warning(flags: Flags, pairs: Pairs) -> str:
    items = ["all stopped containers", "all networks not used by at least one container"]
    if flags["volumes"]:
        items.append("all anonymous volumes not used by at least one container")
    items.append(
        "all images without at least one container associated to them"
        if flags["all"]
        else "all dangling images"
    )
    items.append("all build cache" if flags["all"] else "unused build cache")
    text = "WARNING! This will remove:" + "".join(f"\n  - {item}" for item in items) + "\n"
    filters = [f"{key}={value}" for key, value in pairs if key in ("label", "label!", "until")]
    if filters:
        text += "\n  Items to be pruned will be filtered with:" + "".join(
            f"\n  - {text}" for text in sorted(filters)
        )
        text += "\n"
    return text + "\nAre you sure you want to continue?"
