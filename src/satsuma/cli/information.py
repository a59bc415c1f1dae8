"""`version` and `info`.

Source: docker documentation of these commands; measured on docker 28.2.
"""

from __future__ import annotations

import os
import sys

from satsuma.base.sizes import format_size_binary
from satsuma.cli.client import API_VERSION
from satsuma.cli.errors import ApiError, CliError
from satsuma.cli.tables import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


# -- version ------------------------------------------------------------------------------------------------------

_VERSION_JSON = {"APIVersion": "ApiVersion", "MinAPIVersion": "MinAPIVersion"}


def _client(session: Session) -> dict[str, str]:
    from satsuma import __version__
    from satsuma.cli.endpoint import context_name

    python = ".".join(str(part) for part in sys.version_info[:3])
    machine = os.uname().machine
    return {
        "Version": __version__,
        "APIVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "PythonVersion": python,
        "Os": "linux",
        "Arch": _MACHINES.get(machine, machine),
        "BuildTime": "",
        "Context": context_name(session),
    }


def version(session: Session, flags: Flags) -> None:
    """Show the versions of both sides."""
    template = _parse(flags["format"], "version")
    client = _client(session)
    server: dict[str, Any] | None = None
    failure: CliError | None = None
    try:
        server = session.engine.get("/version")
        for part in server.get("Components") or []:
            if part.get("Name") == "Engine" and (part.get("Details") or {}).get("BuildTime"):
                part["Details"]["BuildTime"] = _ansic(part["Details"]["BuildTime"])
        client["APIVersion"] = session.engine.version
    except CliError as error:
        failure = error
    if template is None:
        _print_version(client, server)
    else:
        _execute(template, _version_record(client, server))
    if failure is not None:
        sys.stdout.flush()
        raise failure


def _ansic(text: str) -> str:
    """Return an RFC 3339 time as C's asctime(3) does; any other text as it is."""
    import time

    from satsuma.base.clock import parse_rfc3339

    try:
        return time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(parse_rfc3339(text) // 1_000_000_000))
    except ValueError:
        return text


def _parse(source: str, name: str = "") -> Any:
    from satsuma.wire.gotemplate import TemplateError, parse

    if not source:
        return None
    try:
        return parse("{{json .}}" if source == "json" else source, name=name)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}", 64) from None


def _execute(template: Any, data: Any) -> None:
    from satsuma.wire.gotemplate import TemplateError

    try:
        sys.stdout.write(template.execute(data, missing_is_error=True) + "\n")
    except TemplateError as error:
        sys.stdout.write("\n")
        raise CliError(str(error)) from None


def _version_record(client: dict[str, str], server: dict[str, Any] | None) -> Any:
    from satsuma.wire.gotemplate import GoMap, GoNil, Record

    names = {**_VERSION_JSON, **{name: "" for name, value in client.items() if not value}}
    client_record = Record("system.clientVersion", client, names)
    if server is None:
        return Record("system.versionInfo", {"Client": client_record, "Server": GoNil("pointer")})
    components = [
        {
            "Name": part.get("Name", ""),
            "Version": part.get("Version", ""),
            "Details": GoMap(part.get("Details") or {}),
        }
        for part in server.get("Components") or []
    ]
    fields = {
        "Platform": server.get("Platform") or {"Name": ""},
        "Components": components,
        "Version": server.get("Version") or "",
        "APIVersion": server.get("ApiVersion") or "",
        "MinAPIVersion": server.get("MinAPIVersion") or "",
        "GitCommit": server.get("GitCommit") or "",
        "GoVersion": server.get("GoVersion") or "",
        "Os": server.get("Os") or "",
        "Arch": server.get("Arch") or "",
        "KernelVersion": server.get("KernelVersion") or "",
        "Experimental": bool(server.get("Experimental")),
        "BuildTime": server.get("BuildTime") or "",
    }
    optional = ("GitCommit", "GoVersion", "KernelVersion", "Experimental", "BuildTime", "MinAPIVersion")
    names = {**_VERSION_JSON, **{name: "" for name in optional if not fields[name]}}
    return Record(
        "system.versionInfo", {"Client": client_record, "Server": Record("*types.Version", fields, names)}
    )


def _print_version(client: dict[str, str], server: dict[str, Any] | None) -> None:
    api = client["APIVersion"]
    downgraded = f" (downgraded from {API_VERSION})" if api != API_VERSION else ""
    lines = [
        "Client: Satsuma",
        f" Version:\t{client['Version']}",
        f" API version:\t{api}{downgraded}",
        f" Python version:\t{client['PythonVersion']}",
        f" OS/Arch:\t{client['Os']}/{client['Arch']}",
        f" Context:\t{client['Context']}",
    ]
    if server is not None:
        platform = (server.get("Platform") or {}).get("Name") or ""
        lines += ["", f"Server: {platform}".rstrip()]
        for part in server.get("Components") or []:
            lines += _component(part)
    session_text = align("\n".join(lines), minimum=20, padding=1)
    sys.stdout.write(session_text + "\n")


_ENGINE = (
    ("Go version", "GoVersion"),
    ("Python version", "PythonVersion"),
    ("Git commit", "GitCommit"),
    ("Built", "BuildTime"),
)


def _component(part: Mapping[str, Any]) -> list[str]:
    details = part.get("Details") or {}
    lines = [f" {part.get('Name')}:", f"  Version:\t{part.get('Version')}"]
    if part.get("Name") != "Engine":
        return lines + [f"  {key}:\t{details[key]}" for key in sorted(details)]
    lines.append(
        f"  API version:\t{details.get('ApiVersion')} (minimum version {details.get('MinAPIVersion')})"
    )
    lines += [f"  {title}:\t{details[key]}" for title, key in _ENGINE if details.get(key)]
    lines.append(f"  OS/Arch:\t{details.get('Os')}/{details.get('Arch')}")
    lines.append(f"  Experimental:\t{details.get('Experimental')}")
    return lines


# -- info ---------------------------------------------------------------------------------------------------------


def info(session: Session, flags: Flags) -> None:
    """Show what the engine is and holds."""
    template = _parse(flags["format"])
    client = _client(session)
    shown: dict[str, Any] = {
        "Debug": bool(session.options["debug"]),
        **client,
        "Plugins": [],
        "Warnings": None,
    }
    server: dict[str, Any] = {}
    failure: CliError | None = None
    try:
        server = session.engine.get("/info")
    except CliError as error:
        failure = error
    if template is None:
        _print_info(session, shown, server)
    else:
        from satsuma.wire.gotemplate import Record

        names = {**_VERSION_JSON, **{name: "" for name, value in client.items() if not value}}
        client_record = Record("*system.clientInfo", shown, names)
        _execute(template, Record("system.dockerInfo", {**server, "ClientInfo": client_record}))
    if failure is not None:
        sys.stdout.flush()
        if isinstance(failure, ApiError):
            session.warn(f"ERROR: {failure}")
            raise CliError("errors pretty printing info")
        raise failure


def _print_info(session: Session, client: Mapping[str, Any], server: dict[str, Any]) -> None:
    out = sys.stdout.write
    out("Client: Satsuma\n")
    out(f" Version:    {client['Version']}\n Context:    {client['Context']}\n")
    out(f" Debug Mode: {_word(client['Debug'])}\n\nServer:\n")
    if server:
        for line in _server_lines(server):
            out(f" {line}\n")
        out("\n")
        sys.stdout.flush()
        for warning in server.get("Warnings") or []:
            session.warn(warning)


def _word(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _server_lines(info: dict[str, Any]) -> list[str]:
    lines = [
        f"Containers: {info.get('Containers', 0)}",
        f" Running: {info.get('ContainersRunning', 0)}",
        f" Paused: {info.get('ContainersPaused', 0)}",
        f" Stopped: {info.get('ContainersStopped', 0)}",
        f"Images: {info.get('Images', 0)}",
    ]
    lines += _present(info, (("Server Version", "ServerVersion"), ("Storage Driver", "Driver")))
    lines += [f" {name}: {value}" for name, value in info.get("DriverStatus") or []]
    lines += _present(
        info,
        (
            ("Logging Driver", "LoggingDriver"),
            ("Cgroup Driver", "CgroupDriver"),
            ("Cgroup Version", "CgroupVersion"),
        ),
    )
    plugins = info.get("Plugins") or {}
    lines.append("Plugins:")
    lines += [f" {kind}: {' '.join(plugins.get(kind) or [])}" for kind in ("Volume", "Network")]
    if plugins.get("Authorization"):
        lines.append(f" Authorization: {' '.join(plugins['Authorization'])}")
    lines.append(f" Log: {' '.join(plugins.get('Log') or [])}")
    if info.get("CDISpecDirs"):
        lines += ["CDI spec directories:", *(f" {path}" for path in info["CDISpecDirs"])]
    lines.append(f"Swarm: {(info.get('Swarm') or {}).get('LocalNodeState', '')}")
    if info.get("Runtimes"):
        lines += [
            f"Runtimes: {' '.join(info['Runtimes'])}",
            f"Default Runtime: {info.get('DefaultRuntime', '')}",
        ]
    lines += _linux_lines(info)
    lines += _host_lines(info)
    lines += _registry_lines(info)
    return lines


def _present(info: Mapping[str, Any], names: tuple[tuple[str, str], ...]) -> list[str]:
    return [f"{title}: {info[key]}" for title, key in names if info.get(key)]


def _linux_lines(info: Mapping[str, Any]) -> list[str]:
    lines = [f"Init Binary: {info.get('InitBinary', '')}"]
    for title, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        lines.append(f"{title} version: {(info.get(key) or {}).get('ID', '')}")
    options = info.get("SecurityOptions") or []
    if options:
        lines.append("Security Options:")
    for option in options:
        pairs = dict(field.partition("=")[::2] for field in option.split(","))
        lines.append(f" {pairs.get('name', option)}")
        if "profile" in pairs:
            lines.append(f"  Profile: {pairs['profile']}")
    return lines


def _host_lines(info: Mapping[str, Any]) -> list[str]:
    names = (
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    )
    lines = _present(info, names)
    lines += [
        f"CPUs: {info.get('NCPU', 0)}",
        f"Total Memory: {format_size_binary(info.get('MemTotal') or 0)}",
    ]
    lines += _present(info, (("Name", "Name"), ("ID", "ID")))
    lines += [
        f"Docker Root Dir: {info.get('DockerRootDir', '')}",
        f"Debug Mode: {_word(bool(info.get('Debug')))}",
    ]
    if info.get("Debug"):
        for title, key in (
            ("File Descriptors", "NFd"),
            ("Goroutines", "NGoroutines"),
            ("System Time", "SystemTime"),
            ("EventsListeners", "NEventsListener"),
        ):
            lines.append(f" {title}: {info.get(key, 0)}")
    lines += _present(
        info, (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy"))
    )
    if info.get("Labels"):
        lines += ["Labels:", *(f" {label}" for label in info["Labels"])]
    lines.append(f"Experimental: {_word(bool(info.get('ExperimentalBuild')))}")
    return lines


def _registry_lines(info: Mapping[str, Any]) -> list[str]:
    lines = []
    registry = info.get("RegistryConfig") or {}
    insecure = [
        conf["Name"] for conf in (registry.get("IndexConfigs") or {}).values() if not conf.get("Secure")
    ]
    insecure += registry.get("InsecureRegistryCIDRs") or []
    if registry.get("InsecureRegistryCIDRs") or registry.get("IndexConfigs"):
        lines += ["Insecure Registries:", *(f" {name}" for name in insecure)]
    if registry.get("Mirrors"):
        lines += ["Registry Mirrors:", *(f" {mirror}" for mirror in registry["Mirrors"])]
    lines.append(f"Live Restore Enabled: {_word(bool(info.get('LiveRestoreEnabled')))}")
    if info.get("ProductLicense"):
        lines.append(f"Product License: {info['ProductLicense']}")
    if info.get("DefaultAddressPools"):
        lines.append("Default Address Pools:")
        lines += [f"  Base: {pool['Base']}, Size: {pool['Size']}" for pool in info["DefaultAddressPools"]]
    if info.get("FirewallBackend"):
        backend = info["FirewallBackend"]
        lines.append(f"Firewall Backend: {backend.get('Driver', '')}")
        lines += [f" {name}: {value}" for name, value in backend.get("Info") or []]
    return lines
