"""`container ls` alias `ps`.

Source: docker documentation "docker container ls"; measured on docker 28.2.
"""

from __future__ import annotations

from satsuma.base.sizes import format_size
from satsuma.cli.client import as_filters
from satsuma.cli.errors import CliError
from satsuma.cli.formatting import Listing, age, ellipsis, join_labels, local_time, short_id
from satsuma.wire.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

LISTING = Listing(
    "*formatter.ContainerContext",
    "ID Image Command RunningFor Status Ports Names",
    {
        "ID": "CONTAINER ID",
        "Names": "NAMES",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Ports": "PORTS",
        "State": "STATE",
        "Status": "STATUS",
        "Size": "SIZE",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Networks": "NETWORKS",
        "Platform": "PLATFORM",
    },
    "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n"
    "state: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\n"
    "labels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n",
)


def ls(session: Session, flags: Flags) -> None:
    """List containers."""
    source = flags["format"] or str(session.config.get("psFormat") or "")
    if flags["quiet"] and source:
        if flags["format"]:
            session.warn("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        source = ""
    size = flags["size"] or (bool(source) and _shows_size(source) and "size" not in flags.changed)
    query = {
        "all": flags["all"] or None,
        "limit": 1 if flags["latest"] else flags["last"] if flags["last"] > 0 else None,
        "size": size or None,
        "filters": as_filters(flags["filter"]),
    }
    found = session.engine.get("/containers/json", query) or []
    rows = [row(item, truncate=not flags["no-trunc"]) for item in found]
    LISTING.write(
        source, rows, extra_columns=["Size"] if flags["size"] else [], quiet="ID" if flags["quiet"] else ""
    )


def _shows_size(source: str) -> bool:
    """Tell whether a template asks for the size, which the engine has to count for it.

    Raises:
        CliError: the template does not parse, or asks for a field that there is not.
    """
    from satsuma.wire.gotemplate import Struct, TemplateError, parse

    try:
        template = parse(source)
    except TemplateError as error:
        raise CliError(f"failed to parse template: {error}") from None
    asked: list[bool] = []
    fields = row({}, truncate=True)
    fields["Size"] = lambda: asked.append(True) or ""  # type: ignore[func-returns-value]
    try:
        template.execute(Struct(LISTING.go_type, fields))
    except TemplateError as error:
        raise CliError(f"failed to execute template: {error}") from None
    return bool(asked)


def row(item: Mapping[str, Any], *, truncate: bool) -> dict[str, Any]:
    """Return the fields of one container that templates know."""
    labels = item.get("Labels") or {}
    mounts = item.get("Mounts") or []
    networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
    command = item.get("Command") or ""
    identifier = item.get("Id") or ""
    return {
        "ID": short_id(identifier) if truncate else identifier,
        "Names": lambda: _names(item.get("Names") or [], truncate=truncate),
        "Image": lambda: _image(item, truncate=truncate),
        "Command": lambda: quote(ellipsis(command, 20) if truncate else command),
        "CreatedAt": lambda: local_time(item.get("Created") or 0),
        "RunningFor": lambda: age(item.get("Created") or 0),
        "Platform": lambda: _platform(item),
        "Ports": lambda: format_ports(item.get("Ports") or []),
        "State": item.get("State") or "",
        "Status": item.get("Status") or "",
        "Size": lambda: _size(item),
        "Labels": lambda: join_labels(labels),
        "Label": lambda name: labels.get(name, ""),
        "Mounts": lambda: ",".join(_mount(mount, truncate=truncate) for mount in mounts),
        "LocalVolumes": lambda: str(sum(mount.get("Driver") == "local" for mount in mounts)),
        "Networks": lambda: ",".join(networks),
    }


def _names(names: list[str], *, truncate: bool) -> str:
    plain = [name.removeprefix("/") for name in names]
    if not truncate:
        return ",".join(plain)
    # The name of a legacy link has a slash inside.
    return next((name for name in plain if "/" not in name), "")


def _image(item: Mapping[str, Any], *, truncate: bool) -> str:
    image = item.get("Image") or ""
    if not image:
        return "<no image>"
    if not truncate:
        return str(image)
    identifier = short_id(item.get("ImageID") or "")
    if identifier and identifier == short_id(image):
        return identifier
    name, _, digest = image.partition("@")
    return str(name) if digest else str(image)


def _platform(item: Mapping[str, Any]) -> str | None:
    platform = (item.get("ImageManifestDescriptor") or {}).get("platform")
    if not platform:
        return None
    parts = [platform.get("os"), platform.get("architecture"), platform.get("variant")]
    return "/".join(part for part in parts if part)


def _size(item: Mapping[str, Any]) -> str:
    own = format_size(item.get("SizeRw") or 0, precision=3)
    whole = item.get("SizeRootFs") or 0
    return f"{own} (virtual {format_size(whole, precision=3)})" if whole else own


def _mount(mount: Mapping[str, Any], *, truncate: bool) -> str:
    name = mount.get("Name") or mount.get("Source") or ""
    return ellipsis(name, 15) if truncate else str(name)


def format_ports(ports: list[dict[str, Any]]) -> str:
    """Return the ports of a container in short: `0.0.0.0:80->8080/tcp, 9000-9002/tcp`.

    Neighbouring ports that are mapped to the same number, or not at all, are shown as a range.
    """
    ordered = sorted(
        ports,
        key=lambda p: (p.get("PrivatePort", 0), p.get("IP", ""), p.get("PublicPort", 0), p.get("Type", "")),
    )
    groups: dict[str, list[int]] = {}
    result: list[str] = []
    mapped: list[str] = []
    for port in ordered:
        private, kind, address = port["PrivatePort"], port.get("Type", "tcp"), port.get("IP", "")
        key = kind
        if address:
            if port.get("PublicPort") != private:
                where = f"[{address}]" if ":" in address else address
                mapped.append(f"{where}:{port.get('PublicPort')}->{private}/{kind}")
                continue
            key = f"{address}/{kind}"
        group = groups.get(key)
        if group is None:
            groups[key] = [private, private]
        elif private == group[1] + 1:
            group[1] = private
        else:
            result.append(_group(key, group))
            groups[key] = [private, private]
    result += [_group(key, group) for key, group in groups.items()]
    return ", ".join(result + mapped)


def _group(key: str, group: list[int]) -> str:
    address, _, kind = key.rpartition("/")
    first, last = group
    text = str(first) if first == last else f"{first}-{last}"
    if address:
        where = f"[{address}]" if ":" in address else address
        return f"{where}:{text}->{text}/{kind}"
    return f"{text}/{kind}"
