"""dockerd's settings as one table: flag, daemon.json key, kind, default, help.

Every setting can be given as a flag or in the file, never in both (dockerd refuses that, since nobody could say
which of them wins).  A setting that is not in the table is refused in both places.

Source: Docker Engine 28 `dockerd --help` and daemon.json reference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from satsuma.base.errors import InvalidParameter
from satsuma.engine import config as defaults

Kind = Literal["string", "bool", "int", "list", "map", "pools", "ulimits", "size"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.  *key* is its name in daemon.json ("" when it can only be a flag)."""

    flag: str
    key: str
    kind: Kind
    default: Any
    help: str
    short: str = ""


SETTINGS: tuple[Setting, ...] = (
    Setting("bip", "bip", "string", "", "IPv4 address for the default bridge"),
    Setting(
        "bridge",
        "bridge",
        "string",
        "",
        f'Bridge of the default network, made if it is not there; "none" for no such network '
        f"(default {defaults.DEFAULT_BRIDGE}, with another exec-root a name of its own)",
        "b",
    ),
    Setting("cgroup-parent", "cgroup-parent", "string", "", "Set parent cgroup for all containers"),
    Setting("config-file", "", "string", "/etc/satsuma/daemon.json", "Daemon configuration file"),
    Setting(
        "data-root", "data-root", "string", defaults.DEFAULT_DATA_ROOT, "Root directory of persistent state"
    ),
    Setting("debug", "debug", "bool", False, "Enable debug mode", "D"),
    Setting(
        "default-address-pool",
        "default-address-pools",
        "pools",
        [],
        "Default address pools for node specific local networks (base=CIDR,size=N)",
    ),
    Setting(
        "default-cgroupns-mode",
        "default-cgroupns-mode",
        "string",
        "private",
        'Default mode for containers cgroup namespace ("host" | "private")',
    ),
    Setting(
        "default-ipc-mode",
        "default-ipc-mode",
        "string",
        "private",
        'Default mode for containers ipc ("shareable" | "private")',
    ),
    Setting(
        "default-shm-size", "default-shm-size", "size", 64 * 1024 * 1024, "Default shm size for containers"
    ),
    Setting("default-ulimit", "default-ulimits", "ulimits", {}, "Default ulimits for containers"),
    Setting("dns", "dns", "list", [], "DNS server to use"),
    Setting("dns-opt", "dns-opts", "list", [], "DNS options to use"),
    Setting("dns-search", "dns-search", "list", [], "DNS search domains to use"),
    Setting("exec-opt", "exec-opts", "list", [], "Runtime execution options (native.cgroupdriver=cgroupfs)"),
    Setting(
        "exec-root",
        "exec-root",
        "string",
        defaults.DEFAULT_EXEC_ROOT,
        "Root directory for execution state files",
    ),
    Setting("group", "group", "string", "docker", "Group for the unix socket", "G"),
    Setting("help", "", "bool", False, "Print usage", "h"),
    Setting("host", "hosts", "list", [], "Daemon socket(s) to connect to (unix://, tcp://, fd://)", "H"),
    Setting(
        "icc", "icc", "bool", True, "Enable inter-container communication for the default bridge network"
    ),
    Setting(
        "init", "init", "bool", False, "Run an init in the container to forward signals and reap processes"
    ),
    Setting("init-path", "init-path", "string", "", "Path to the docker-init binary (a static tini)"),
    Setting("ip", "ip", "string", "0.0.0.0", "Host IP for port publishing from the default bridge network"),
    Setting("label", "labels", "list", [], "Set key=value labels to the daemon"),
    Setting(
        "live-restore",
        "live-restore",
        "bool",
        True,
        "Leave containers running when the daemon stops; false stops them, which is dockerd's default",
    ),
    Setting("log-driver", "log-driver", "string", "json-file", "Default driver for container logs"),
    Setting("log-format", "log-format", "string", "text", 'Set the logging format ("text"|"json")'),
    Setting(
        "log-level",
        "log-level",
        "string",
        "info",
        'Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")',
        "l",
    ),
    Setting("log-opt", "log-opts", "map", {}, "Default log driver options for containers"),
    Setting("mtu", "mtu", "int", 1500, "Set the containers network MTU"),
    Setting("no-new-privileges", "no-new-privileges", "bool", False, "Set no-new-privileges by default"),
    Setting("pidfile", "pidfile", "string", "", "Path to use for daemon PID file", "p"),
    Setting("seccomp-profile", "seccomp-profile", "string", "", "Path to seccomp profile"),
    Setting("shutdown-timeout", "shutdown-timeout", "int", 15, "Set the shutdown timeout in seconds"),
    Setting("validate", "", "bool", False, "Validate daemon configuration and exit"),
    Setting("version", "", "bool", False, "Print version information and quit", "v"),
)

SINGLE = {
    "containerd-namespace": "",
    "default-runtime": "runc",
    "experimental": "false",
    "ip-forward": "true",
    "ip-masq": "true",
    "iptables": "true",
    "raw-logs": "false",
    "selinux-enabled": "false",
    "storage-driver": "overlay2",
    "tls": "false",
    "tlsverify": "false",
    "userland-proxy": "false",
}
"""Settings of dockerd that can have one value here, the one that says what this engine does."""

ABSENT = frozenset(
    """add-runtime runtimes allow-direct-routing authorization-plugin authorization-plugins bip6 cdi-spec-dir
    cdi-spec-dirs containerd containerd-plugins-namespace cpu-rt-period cpu-rt-runtime cri-containerd default-gateway
    default-gateway-v6 default-network-opt default-network-opts feature features fixed-cidr fixed-cidr-v6
    host-gateway-ip host-gateway-ips http-proxy https-proxy proxies insecure-registry insecure-registries
    ip-forward-no-drop ip6tables ipv6 max-concurrent-downloads max-concurrent-uploads max-download-attempts
    metrics-addr network-control-plane-mtu no-proxy node-generic-resource node-generic-resources registry-mirror
    registry-mirrors rootless storage-opt storage-opts swarm-default-advertise-addr tlscacert tlscert tlskey
    userland-proxy-path userns-remap builder debug-address""".split()
)
"""Settings of dockerd that mean nothing here yet.  They are refused by name: nobody shall believe they took effect."""

BY_FLAG = {setting.flag: setting for setting in SETTINGS}
BY_SHORT = {setting.short: setting for setting in SETTINGS if setting.short}
BY_KEY = {setting.key: setting for setting in SETTINGS if setting.key}

_KINDS: dict[Kind, str] = {
    "string": "a string",
    "bool": "true or false",
    "int": "a whole number",
    "list": "a list of strings",
    "map": "an object whose values are strings",
    "pools": "a list of objects",
    "ulimits": "an object of objects",
    "size": 'a number of bytes or a string like "64m"',
}

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}


@dataclass(slots=True)
class Given:
    """What was said on one side (flags or file): setting name → value."""

    values: dict[str, Any] = field(default_factory=dict)

    def add(self, setting: Setting, text: str, spelled: str) -> None:
        """Add one flag occurrence; list and map flags accumulate, the others take the last one."""
        value = _parse_flag_value(setting, text, spelled)
        if setting.kind in ("list", "pools"):
            self.values.setdefault(setting.flag, []).extend(value)
        elif setting.kind in ("map", "ulimits"):
            self.values.setdefault(setting.flag, {}).update(value)
        else:
            self.values[setting.flag] = value


def parse_flags(arguments: list[str]) -> Given:
    """Parse dockerd's command line.

    Raises:
        InvalidParameter: in the words of the flag library that dockerd uses.
    """
    given = Given()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--" or not word.startswith("-") or word == "-":
            raise InvalidParameter(f"unknown command: satsumad {word}")
        if word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            setting = BY_FLAG.get(name)
            if setting is None:
                _take_foreign(name, value if has_value else None, rest)
                continue
            _take(given, setting, value if has_value else None, rest, f"--{name}")
        else:
            _parse_shorthands(given, word, rest)
    return given


def _take_foreign(name: str, value: str | None, rest: list[str]) -> None:
    """Go past a flag of dockerd that says what this engine does anyway.

    Raises:
        InvalidParameter: it says something else, or is no flag of dockerd's either.
    """
    if name in ABSENT:
        raise InvalidParameter(f"--{name}: this setting of dockerd is not supported by this engine yet")
    if name not in SINGLE:
        raise InvalidParameter(f"unknown flag: --{name}")
    only = SINGLE[name]
    if value is None:
        value = "true" if only in ("true", "false") else (rest.pop(0) if rest else "")
    _check_single(f"--{name}", value, only)


def _check_single(name: str, value: str, only: str) -> None:
    if value != only:
        raise InvalidParameter(
            f"{name}={value}: not supported by this engine yet, the only value is {only or 'empty'}"
        )


def _parse_shorthands(given: Given, word: str, rest: list[str]) -> None:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        setting = BY_SHORT.get(letter)
        if setting is None:
            raise InvalidParameter(f"unknown shorthand flag: '{letter}' in {word}")
        if setting.kind == "bool" and not letters.startswith("="):
            given.add(setting, "true", f"-{letter}")
            continue
        _take(given, setting, letters.removeprefix("=") or None, rest, f"-{letter}")
        return


def _take(given: Given, setting: Setting, value: str | None, rest: list[str], spelled: str) -> None:
    if value is None and setting.kind == "bool":
        value = "true"
    if value is None:
        if not rest:
            raise InvalidParameter(f"flag needs an argument: {spelled}")
        value = rest.pop(0)
    given.add(setting, value, spelled)


def _parse_flag_value(setting: Setting, text: str, spelled: str) -> Any:
    complaint = f'invalid argument "{text}" for "{spelled}" flag: '
    match setting.kind:
        case "bool":
            if text not in _TRUE | _FALSE:
                raise InvalidParameter(f'{complaint}strconv.ParseBool: parsing "{text}": invalid syntax')
            return text in _TRUE
        case "int":
            if not text.removeprefix("-").isdecimal() or not text.isascii():
                raise InvalidParameter(f'{complaint}strconv.ParseInt: parsing "{text}": invalid syntax')
            return int(text)
        case "list":
            return [text]
        case "map":
            key, separator, value = text.partition("=")
            if not separator or not key:
                raise InvalidParameter(f"{complaint}expected key=value")
            return {key: value}
        case "pools":
            return [_parse_pool(text, complaint)]
        case "ulimits":
            name, separator, limits = text.partition("=")
            if not separator:
                raise InvalidParameter(f"{complaint}invalid ulimit argument: {text}")
            soft, _, hard = limits.partition(":")
            if not soft.removeprefix("-").isdecimal() or not (hard or soft).removeprefix("-").isdecimal():
                raise InvalidParameter(f"{complaint}invalid ulimit argument: {text}")
            return {name: {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}}
        case _:
            return text


def _parse_pool(text: str, complaint: str) -> dict[str, Any]:
    pairs = dict(part.partition("=")[::2] for part in text.split(","))
    if set(pairs) != {"base", "size"} or not pairs["size"].isdecimal():
        raise InvalidParameter(f"{complaint}expected base=CIDR,size=N")
    return {"base": pairs["base"], "size": int(pairs["size"])}


def parse_file(document: Any, path: str) -> Given:
    """Check a decoded daemon.json against the table.

    Raises:
        InvalidParameter: an unknown key or a value of the wrong kind.
    """
    if not isinstance(document, dict):
        raise InvalidParameter(
            f"unable to configure the daemon with file {path}: the file must hold a JSON object"
        )
    unknown = sorted(set(document) - set(BY_KEY) - set(SINGLE))
    if absent := [key for key in unknown if key in ABSENT]:
        raise InvalidParameter(
            f"unable to configure the daemon with file {path}: "
            f"{', '.join(absent)}: these settings of dockerd are not supported by this engine yet"
        )
    if unknown:
        raise InvalidParameter(
            f"unable to configure the daemon with file {path}: "
            f"the following directives don't match any configuration option: {', '.join(unknown)}"
        )
    given = Given()
    for key, value in document.items():
        if key in SINGLE:
            _check_single(
                f"unable to configure the daemon with file {path}: {key}", _show(value), SINGLE[key]
            )
            continue
        setting = BY_KEY[key]
        if not _fits(setting.kind, value):
            raise InvalidParameter(
                f"unable to configure the daemon with file {path}: "
                f"{key} must be {_KINDS[setting.kind]}, not {json.dumps(value)[:80]}"
            )
        given.values[setting.flag] = value
    return given


def _fits(kind: Kind, value: Any) -> bool:
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "size":
            return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
        case "list":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case "map":
            return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
        case "ulimits":
            return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())
        case "pools":
            return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def merge(flags: Given, file: Given, path: str) -> dict[str, Any]:
    """Join flags, file and defaults.

    Raises:
        InvalidParameter: a setting stands in both, in dockerd's words.
    """
    both = sorted(set(flags.values) & set(file.values))
    if both:
        pairs = ", ".join(
            f"{name}: (from flag: {_show(flags.values[name])}, from file: {_show(file.values[name])})"
            for name in both
        )
        raise InvalidParameter(
            f"unable to configure the daemon with file {path}: "
            f"the following directives are specified both as a flag and in the configuration file: {pairs}"
        )
    merged = {setting.flag: setting.default for setting in SETTINGS}
    return {**merged, **file.values, **flags.values}


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "[" + " ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


def usage() -> str:
    """Return the text of `satsumad --help`."""
    lines = [
        "",
        "Usage:  satsumad [OPTIONS]",
        "",
        "A container engine for Linux: dockerd's API, in Python.",
        "",
        "Options:",
    ]
    for setting in SETTINGS:
        short = f"-{setting.short}, " if setting.short else "    "
        kind = {"bool": "", "map": " map", "ulimits": " ulimit", "pools": " pool", "size": " bytes"}.get(
            setting.kind, f" {setting.kind}"
        )
        head = f"  {short}--{setting.flag}{kind}"
        lines.append(f"{head:<40}{setting.help}{_default_text(setting)}")
    return "\n".join(lines) + "\n"


def _default_text(setting: Setting) -> str:
    default = setting.default
    if default in ("", False, [], {}):
        return ""
    if setting.kind == "string":
        return f' (default "{default}")'
    return f" (default {_show(default)})"
