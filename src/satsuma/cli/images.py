"""Images: ls, history, rm, tag, bootstrap.

Source: docker documentation of these commands; measured on docker 28.2.
"""

from __future__ import annotations

import sys

from satsuma.base.sizes import format_size
from satsuma.cli.client import as_filters, escape
from satsuma.cli.errors import ApiError, CliError
from satsuma.cli.formatting import Listing, age, ellipsis, local_time, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

NONE = "<none>"

LISTING = Listing(
    "*formatter.imageContext",
    "Repository Tag ID CreatedSince Size",
    {
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "Containers": "CONTAINERS",
        "VirtualSize": "SIZE",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
    },
    "repository: {{ .Repository }}\ntag: {{.Tag}}\nimage_id: {{.ID}}\n"
    "created_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n",
)
_WITH_DIGEST = Listing(
    LISTING.go_type, "Repository Tag Digest ID CreatedSince Size", LISTING.headers, LISTING.raw
)


def ls(session: Session, flags: Flags) -> None:
    """List images."""
    if flags["tree"]:
        raise CliError("--tree needs image manifests, which this engine does not list")
    name = flags.args[0] if flags.args else ""
    pairs = [*flags["filter"], ("reference", name)] if name else flags["filter"]
    query = {"all": flags["all"], "filters": as_filters(pairs)}
    found = session.engine.get("/images/json", query) or []
    source = flags["format"] or ("" if flags["quiet"] else str(session.config.get("imagesFormat") or ""))
    digests = flags["digests"]
    if source.startswith("table ") and digests and "{{.Digest}}" not in source:
        source += "\t{{.Digest}}"
    wanted = digests or "{{.Digest}}" in source
    rows = [
        row(item, names, truncate=not flags["no-trunc"])
        for item in found
        for names in _names(item, digests=digests, wanted=wanted)
    ]
    (_WITH_DIGEST if digests else LISTING).write(source, rows, quiet="ID" if flags["quiet"] else "")


def _names(item: Mapping[str, Any], *, digests: bool, wanted: bool) -> Iterator[tuple[str, str, str]]:
    """Yield (repository, tag, digest) for each line that an image takes."""
    tags = [tag for tag in item.get("RepoTags") or [] if tag != f"{NONE}:{NONE}"]
    known = [digest for digest in item.get("RepoDigests") or [] if digest != f"{NONE}@{NONE}"]
    if not tags and not known:
        yield NONE, NONE, NONE
        return
    by_repository: dict[str, list[str]] = {}
    for text in known:
        repository, _, digest = text.partition("@")
        by_repository.setdefault(repository, []).append(digest)
    tagged: dict[str, list[str]] = {}
    for text in tags:
        repository, _, tag = text.rpartition(":")
        tagged.setdefault(repository, []).append(tag)
    for repository, names in tagged.items():
        found = by_repository.pop(repository, []) if wanted else []
        by_repository.pop(repository, None)
        for tag in names:
            for digest in found or [NONE]:
                yield repository, tag, digest
    for repository, found in by_repository.items():
        for digest in found if digests else [""]:
            yield repository, NONE, digest


def row(item: Mapping[str, Any], names: tuple[str, str, str], *, truncate: bool) -> dict[str, Any]:
    """Return the fields of one line that templates know."""
    identifier = str(item.get("Id") or "")
    repository, tag, digest = names
    size = item.get("Size") or 0
    shared = item.get("SharedSize", -1)
    return {
        "ID": short_id(identifier) if truncate else identifier,
        "Repository": repository,
        "Tag": tag,
        "Digest": digest,
        "CreatedSince": lambda: age(item.get("Created") or 0),
        "CreatedAt": lambda: local_time(item.get("Created") or 0),
        "Size": lambda: format_size(size, precision=3),
        "VirtualSize": lambda: format_size(size),
        "Containers": _count(item.get("Containers", -1)),
        "SharedSize": "N/A" if shared == -1 else format_size(shared),
        "UniqueSize": "N/A" if shared == -1 else format_size(size - shared),
    }


def _count(number: int) -> str:
    return "N/A" if number == -1 else str(number)


_HISTORY = Listing(
    "*image.historyContext",
    "ID CreatedSince CreatedBy Size Comment",
    {
        "ID": "IMAGE",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    },
)
_HISTORY_EXACT = Listing(_HISTORY.go_type, "ID CreatedAt CreatedBy Size Comment", _HISTORY.headers)
_EPOCH = 946684800
"""2000-01-01: what is older has no date, as in reproducible images."""


def history(session: Session, flags: Flags) -> None:
    """Show the instructions an image was built with."""
    from satsuma.cli.inspect import _platform

    name = flags.args[0]
    query = {"platform": _platform(flags["platform"])}
    items = session.engine.get(f"/images/{escape(name, '/:@')}/history", query) or []
    human, truncate = flags["human"], not flags["no-trunc"]
    rows = [_history_row(item, human=human, truncate=truncate) for item in items]
    listing = _HISTORY if human else _HISTORY_EXACT
    listing.write(flags["format"], rows, quiet="ID" if flags["quiet"] else "")


def _history_row(item: Mapping[str, Any], *, human: bool, truncate: bool) -> dict[str, Any]:
    created = item.get("Created") or 0
    command = str(item.get("CreatedBy") or "").replace("\t", " ")
    identifier = str(item.get("Id") or "")
    exact = _rfc3339(created)
    since = "N/A" if created <= _EPOCH else age(created)
    size = item.get("Size") or 0
    return {
        "ID": short_id(identifier) if truncate else identifier,
        "CreatedSince": since if human else exact,
        "CreatedAt": exact,
        "CreatedBy": ellipsis(command, 45) if truncate else command,
        "Size": format_size(size, precision=3) if human else str(size),
        "Comment": item.get("Comment") or "",
    }


def _rfc3339(seconds: int) -> str:
    import time

    moment = time.localtime(seconds)
    zone = time.strftime("%z", moment)
    zone = "Z" if zone in ("+0000", "") else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + zone


def rm(session: Session, flags: Flags) -> None:
    """Remove images."""
    platforms = [_platform_of(text) for text in flags["platform"]]
    query = {"force": flags["force"], "noprune": flags["no-prune"], "platforms": platforms}
    errors = []
    fatal = False
    for name in flags.args:
        try:
            removed = session.engine.delete(f"/images/{escape(name, '/:@')}", query) or []
        except ApiError as error:
            fatal |= error.http_status != 404
            errors.append(str(error))
            continue
        for item in removed:
            if item.get("Deleted"):
                session.line(f"Deleted: {item['Deleted']}")
            else:
                session.line(f"Untagged: {item['Untagged']}")
    if errors:
        if fatal or not flags["force"]:
            sys.stdout.flush()
            raise CliError("\n".join(errors))
        session.warn("\n".join(errors))


def _platform_of(text: str) -> str | None:
    from satsuma.cli.inspect import _platform

    return _platform(text)


def tag(session: Session, flags: Flags) -> None:
    """Give an image another name."""
    from satsuma.base.errors import EngineError
    from satsuma.wire.reference import parse

    source, target = flags.args
    try:
        reference = parse(target)
    except EngineError as error:
        raise CliError(
            f"Error parsing reference: {_quoted(target)} is not a valid repository/tag: {error}"
        ) from None
    if reference.digest:
        raise CliError("refusing to create a tag with a digest reference")
    query = {"repo": reference.familiar_name(), "tag": reference.with_default_tag().tag}
    session.engine.post(f"/images/{escape(source, '/:@')}/tag", query)


def _quoted(text: str) -> str:
    from satsuma.wire.goquote import quote

    return quote(text)


def bootstrap(session: Session, flags: Flags) -> None:
    """Make a base image from the host's package mirror."""
    from satsuma.cli.progress import show_stream

    query = {"name": flags.args[0], "mirror": flags["mirror"] or None}
    answer = session.engine.request("POST", "/satsuma/images/bootstrap", query)
    found: list[str] = []

    def take(aux: Mapping[str, Any]) -> None:
        if aux.get("ID"):
            found.append(str(aux["ID"]))

    out = sys.stderr if flags["quiet"] else sys.stdout
    if flags["quiet"]:
        import io

        out = io.StringIO()
    show_stream(answer.documents(), out, take)
    if flags["quiet"] and found:
        session.line(found[-1])
