"""`anatomy`: the picture of a container, drawn from what the engine measures on the real one.

processes      as the host and as the container numbers them
namespaces     with their inodes and who else is in them      limits with what is used now
security       capabilities, seccomp
network        addresses, published ports
file system    volumes and binds over the read-write layer, the init layer, the image's layers
"""

from __future__ import annotations

from satsuma.base.sizes import format_size, format_size_binary
from satsuma.cli.client import escape
from satsuma.cli.drawing import Painter, Row, Section
from satsuma.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

    Data = Mapping[str, Any]

_ORDER = ("pid", "mnt", "net", "uts", "ipc", "cgroup", "user", "time")
_MEANS = {
    "pid": "processes",
    "mnt": "mounts",
    "net": "network",
    "uts": "host name",
    "ipc": "message queues",
    "cgroup": "cgroup root",
    "user": "user ids",
    "time": "clocks",
}


def anatomy(session: Session, flags: Flags) -> None:
    """Draw what a container is made of."""
    if flags["format"] not in ("", "json"):
        raise CliError(f"unknown format '{flags['format']}': it is a drawing, or \"json\"")
    answer = session.engine.request("GET", f"/satsuma/containers/{escape(flags.args[0])}/anatomy")
    if flags["format"] == "json":
        from satsuma.cli.inspect import indent_json

        session.line(indent_json(answer.read().decode("utf-8", "replace").strip(), "  "))
        return
    session.line("\n".join(draw(answer.json(), Painter.for_output())))


def draw(data: Data, painter: Painter) -> list[str]:
    """Return the lines of the picture."""
    lines = [*_heading(data, painter), ""]
    if data.get("Namespaces"):
        lines += painter.box([_processes(data, painter)])
        lines += painter.beside([_namespaces(data)], [_limits(data, painter)])
        lines += painter.box([_security(data, painter)])
    else:
        asked = _limit_rows(data, painter)
        stopped = Row(("not running: it has no processes, namespaces or cgroup now", "note"))
        lines += painter.box([Section("processes", [stopped]), Section("limits when it runs", asked)])
    lines += painter.box([_network(data)])
    lines += painter.box(list(_filesystem(data, painter)))
    return lines


def _heading(data: Data, painter: Painter) -> list[str]:
    state = data.get("State") or ""
    style = {"running": "good", "paused": "note", "restarting": "note"}.get(state, "dim")
    name = painter.paint(str(data.get("Name") or "").lstrip("/"), "strong")
    first = f"{name}  {str(data.get('Id'))[:12]}  {painter.paint(str(data.get('Status') or state), style)}"
    image = f"image {data.get('Image')} ({str(data.get('ImageID') or '').partition(':')[2][:12]})"
    command = " ".join(str(word) for word in data.get("Command") or [])
    room = painter.width - 8
    return [first, image, f"command {command[: room - 1] + painter.dots if len(command) > room else command}"]


# -- processes ----------------------------------------------------------------------------------------------------


def _processes(data: Data, painter: Painter) -> Section:
    rows = []
    processes = data.get("Processes") or []
    for index, process in enumerate(processes):
        depth = process.get("Depth") or 0
        following = [other.get("Depth") or 0 for other in processes[index + 1 :]]
        more = next((level for level in following if level <= depth), -1) == depth
        stem = ("   " * (depth - 1) + (painter.branch if more else painter.last)) if depth else ""
        user = str(process.get("User") or "0")
        who = "" if user == "0" else f"  uid {user}"
        numbers = f"{process.get('HostPid', ''):>10} {process.get('ContainerPid', ''):>10}"
        rows.append(Row((stem, "dim"), str(process.get("Command")), (who, "dim"), right=[(numbers, "value")]))
    monitor = data.get("MonitorPid")
    if monitor:
        rows.append(Row((f"watched by its monitor, pid {monitor} on the host", "dim")))
    return Section("processes", rows, "  host pid     its pid")


# -- namespaces and limits ----------------------------------------------------------------------------------------


def _namespaces(data: Data) -> Section:
    known = {space.get("Type"): space for space in data.get("Namespaces") or []}
    rows = []
    for kind in (*_ORDER, *(kind for kind in known if kind not in _ORDER)):
        space = known.get(kind)
        if space is None:
            continue
        others = space.get("SharedWith") or []
        if space.get("Host"):
            whose = ("the host's", "note")
        elif others:
            whose = ("with " + ", ".join(str(name).lstrip("/") for name in others), "good")
        else:
            whose = ("its own", "")
        rows.append(
            Row(
                (f"{kind:<7}", "strong"),
                (f"{space.get('Inode')}  ", "value"),
                whose,
                right=[(_MEANS.get(kind, ""), "dim")],
            )
        )
    return Section("namespaces", rows)


def _limits(data: Data, painter: Painter) -> Section:
    return Section("limits", _limit_rows(data, painter), "cgroup")


def _limit_rows(data: Data, painter: Painter) -> list[Row]:
    limits, usage = data.get("Limits") or {}, data.get("Usage") or {}
    rows = [_memory_row(limits, usage, painter), _cpu_row(limits), _pids_row(limits, usage, painter)]
    swap = limits.get("MemorySwap") or 0
    if swap > 0 and limits.get("Memory"):
        rows.append(
            Row(("swap   ", "strong"), f"{format_size_binary(swap - limits['Memory'])} beyond memory")
        )
    if limits.get("CpusetCpus"):
        rows.append(Row(("cpus   ", "strong"), f"only {limits['CpusetCpus']}"))
    if usage.get("CpuTotal"):
        rows.append(Row(("spent  ", "strong"), f"{usage['CpuTotal'] / 1e9:.2f} s of processor time"))
    paths = sorted({str(path) for path in (data.get("Cgroup") or {}).values()})
    if paths:
        rows.append(Row(("path   ", "strong"), (painter.tail(paths[0], 32), "dim")))
    return rows


def _memory_row(limits: Data, usage: Data, painter: Painter) -> Row:
    used, limit = usage.get("Memory") or 0, limits.get("Memory") or 0
    if not limit:
        now = f"{format_size_binary(used)} used, " if usage else ""
        return Row(("memory ", "strong"), f"{now}no limit")
    if not usage:
        return Row(("memory ", "strong"), format_size_binary(limit))
    style = "bad" if used > 0.9 * limit else "good"
    return Row(
        ("memory ", "strong"),
        (painter.bar(used, limit), style),
        f" {format_size_binary(used)} of {format_size_binary(limit)}",
    )


def _cpu_row(limits: Data) -> Row:
    if limits.get("NanoCpus"):
        text = f"{limits['NanoCpus'] / 1e9:g} processors"
    elif limits.get("CpuQuota"):
        text = f"{limits['CpuQuota'] / (limits.get('CpuPeriod') or 100_000):g} processors"
    else:
        text = "no limit"
    if limits.get("CpuShares"):
        text += f", {limits['CpuShares']} shares"
    return Row(("cpu    ", "strong"), text)


def _pids_row(limits: Data, usage: Data, painter: Painter) -> Row:
    used, limit = usage.get("Pids") or 0, limits.get("PidsLimit") or 0
    if limit <= 0:
        return Row(("pids   ", "strong"), f"{used} now, no limit" if usage else "no limit")
    if not usage:
        return Row(("pids   ", "strong"), f"at most {limit}")
    return Row(("pids   ", "strong"), (painter.bar(used, limit), "good"), f" {used} of {limit}")


# -- security -----------------------------------------------------------------------------------------------------

_ALL_CAPABILITIES = 38
"""From here on it is all of them, whichever the kernel has."""


def _security(data: Data, painter: Painter) -> Section:
    security = data.get("Security") or {}
    names = [str(name).removeprefix("CAP_").lower() for name in security.get("Effective") or []]
    user = f"uid {security.get('Uid')} gid {security.get('Gid')}"
    if security.get("User"):
        user = f"{security['User']} ({user})"
    seccomp = security.get("Seccomp") or "off"
    facts: list[tuple[str, str]] = [
        (f"user {user}", ""),
        (f"seccomp {seccomp}", "good" if seccomp == "filter" else "bad"),
    ]
    if security.get("NoNewPrivileges"):
        facts.append(("no new privileges", "good"))
    if security.get("ReadonlyRootfs"):
        facts.append(("read-only root", "good"))
    if security.get("Privileged"):
        facts.append(("PRIVILEGED", "bad"))
    pieces: list[tuple[str, str]] = []
    for index, fact in enumerate(facts):
        pieces += [("   ", "")] * bool(index) + [fact]
    rows = [Row(*pieces)]
    if len(names) >= _ALL_CAPABILITIES:
        rows.append(Row(("every capability", "bad")))
    else:
        label = "may: " if names else "no capability in effect"
        lines = painter.wrap(names, painter.width - 4 - len(label)) or [""]
        rows.append(Row((label, "strong"), lines[0]))
        rows += [Row(" " * len(label), line) for line in lines[1:]]
    return Section("security", rows, f"{len(names)} capabilities" if names else "")


# -- network ------------------------------------------------------------------------------------------------------


_NO_ADDRESS = {"host": "the host's own interfaces", "none": "loopback only"}


def _network(data: Data) -> Section:
    network = data.get("Network") or {}
    rows = []
    for name, point in (network.get("Endpoints") or {}).items():
        address = point.get("IPAddress") or ""
        where = (
            f"{address}/{point.get('IPPrefixLen')}" if address else _NO_ADDRESS.get(name, "no address now")
        )
        gateway = f"  via {point['Gateway']}" if point.get("Gateway") else ""
        rows.append(
            Row(
                (f"{name}  ", "strong"),
                (where, "value"),
                gateway,
                right=[(str(point.get("MacAddress") or ""), "dim")],
            )
        )
    for inner, bindings in (network.get("Ports") or {}).items():
        for binding in bindings or []:
            host = binding.get("HostIp") or "0.0.0.0"
            outer = (
                f"[{host}]:{binding.get('HostPort')}" if ":" in host else f"{host}:{binding.get('HostPort')}"
            )
            rows.append(
                Row(("port  ", "strong"), (outer, "value"), " on the host is ", (inner, "value"), " in here")
            )
        if not bindings:
            rows.append(Row(("port  ", "strong"), (inner, "value"), (" exposed, not published", "dim")))
    mode = str(network.get("Mode") or "")
    if not rows:
        shared = f"shared with {mode.partition(':')[2][:12]}" if mode.startswith("container:") else mode
        rows.append(Row((shared or "none", "note")))
    hostname = network.get("Hostname")
    return Section("network", rows, f"host name {hostname}" if hostname else mode)


# -- file system --------------------------------------------------------------------------------------------------


def _filesystem(data: Data, painter: Painter) -> Iterator[Section]:
    """Yield the stack from the top: what is mounted over it, then the layers down to the ground."""
    layers = data.get("Layers") or {}
    mounts = [_mount_row(mount, painter) for mount in data.get("Mounts") or []]
    files = data.get("EtcFiles") or {}
    if files:
        names = "  ".join(sorted(files))
        mounts.append(Row((names, ""), right=[("this container's own files", "dim")]))
    yield Section("volumes and bind mounts", mounts or [Row(("none", "dim"))], "never in a commit")
    upper = layers.get("Upper") or {}
    if upper:
        rows = [Row((painter.tail(str(upper.get("Directory") or ""), painter.width - 4), "dim"))]
        yield Section("read-write layer", rows, f"{format_size(upper.get('Size') or 0)}  rw")
    if layers.get("Init"):
        text = "/etc/hosts  /etc/hostname  /etc/resolv.conf  /dev  /proc  /sys: places for mounts"
        yield Section("init layer", [Row((text, "dim"))], "never committed  ro")
    stack = layers.get("ReadOnly") or []
    for number, layer in enumerate(stack):
        yield _layer(layer, len(stack) - number, painter)


def _mount_row(mount: Data, painter: Painter) -> Row:
    kind = str(mount.get("Type") or "")
    mode = "rw" if mount.get("RW") else "ro"
    source = str(mount.get("Source") or "")
    if kind == "volume":
        name = str(mount.get("Name") or "")
        what = f"volume {name[:12] if len(name) == 64 else name}"
    elif kind == "tmpfs":
        what = f"tmpfs {mount.get('Mode') or ''}".rstrip()
    else:
        what = f"{kind} of {source}"
    target = str(mount.get("Destination") or "")
    return Row((f"{target}  ", "strong"), (what, "value"), right=[(mode, "good" if mode == "rw" else "dim")])


def _layer(layer: Data, number: int, painter: Painter) -> Section:
    digest = str(layer.get("DiffID") or layer.get("ChainID") or "").partition(":")[2][:12]
    rows = []
    for title, names in (
        ("images", _with_names_first(layer.get("Images") or [])),
        ("containers", layer.get("Containers") or []),
    ):
        if names:
            rows += _sharers(title, names, painter)
    if not rows:
        rows = [Row(("not shared", "dim"))]
    return Section(f"layer {number}  {digest}", rows, f"{format_size(layer.get('Size') or 0)}  ro")


def _with_names_first(images: Sequence[str]) -> list[str]:
    """Name the images that have names; a build leaves one without for each of its steps, which count only."""
    named = [name for name in images if ":" in name]
    unnamed = len(images) - len(named)
    if named and unnamed:
        return [*named, f"{unnamed} without a name"]
    return list(images)


def _sharers(title: str, names: Sequence[str], painter: Painter) -> list[Row]:
    label = f"{title}: "
    lines = painter.wrap([str(name).lstrip("/") for name in names], painter.width - 4 - len(label), ", ")
    head, *rest = lines[:4]
    rows = [Row((label, "dim"), head), *(Row(" " * len(label), line) for line in rest)]
    if len(lines) > 4:
        rows.append(Row((f"{' ' * len(label)}and more", "dim")))
    return rows
