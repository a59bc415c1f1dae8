"""What an instruction does to an image's config, and how the history tells it.

The config is the `config` object of an image in Docker's JSON shape (`Env`, `Cmd`, `ExposedPorts`, …), a plain dict:
`build` and `commit --change` share these rules.  Docker's instruction strings (`CMD ["a" "b"]`, `VOLUME [/a /b]`) are
compared by clients and by the build cache, so they are part of the contract.
"""

from __future__ import annotations

import copy
import re
import signal as _signals
from collections.abc import Iterable
from typing import Any

from satsuma.base.errors import InvalidParameter
from satsuma.base.sizes import format_duration_go
from satsuma.wire.dockerfile.errors import DockerfileError
from satsuma.wire.dockerfile.expansion import expand
from satsuma.wire.dockerfile.instructions import parse_node
from satsuma.wire.dockerfile.lexer import parse
from satsuma.wire.dockerfile.model import (
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    HealthcheckConfig,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from satsuma.wire.goquote import quote_list
from satsuma.wire.patterns import clean

__all__ = ["DEFAULT_SHELL", "apply", "apply_changes", "environment", "shell_command", "shell_of"]

# The "config" object of an image or container, as it stands in JSON.
Config = dict[str, Any]

DEFAULT_SHELL = ("/bin/sh", "-c")

_CHANGES = frozenset(
    "cmd entrypoint healthcheck env expose label onbuild stopsignal user volume workdir".split()
)


def environment(config: Config) -> dict[str, str]:
    """Return the variables of *config* as a mapping; the last of equal names wins."""
    return dict(item.partition("=")[::2] for item in config.get("Env") or ())


def shell_of(config: Config) -> list[str]:
    """Return the shell that shell forms use."""
    return list(config.get("Shell") or DEFAULT_SHELL)


def shell_command(command: tuple[str, ...], shell: bool, config: Config) -> list[str]:
    """Return the argument vector of a CMD, ENTRYPOINT or RUN."""
    return [*shell_of(config), *command] if shell and command else list(command)


def apply(config: Config, instruction: Instruction, *, cmd_set: bool = False) -> str:
    """Change *config* as *instruction* (already expanded) says, and return its line for the history.

    Args:
        cmd_set: a CMD came before in the same stage, so ENTRYPOINT leaves it alone.
    Raises:
        DockerfileError: the instruction makes no sense (port, signal), or does not act on a config.
    """
    handler = _HANDLERS.get(type(instruction))
    if handler is None:
        raise DockerfileError(f"{instruction.name} is not a valid change command")
    if isinstance(instruction, Entrypoint):
        return _entrypoint(config, instruction, cmd_set)
    line: str = handler(config, instruction)
    return line


def apply_changes(config: Config, changes: Iterable[str]) -> Config:
    """Return a copy of *config* with the instructions of `commit --change` or `import --change` done.

    Raises:
        InvalidParameter: with Docker's words, `RUN is not a valid change command`.
    """
    result: Config = copy.deepcopy(config)
    text = "\n".join(changes)
    if not text:
        return result
    parsed = parse(text.encode("utf-8", "surrogateescape"))
    for node in parsed.nodes:
        if node.keyword.lower() not in _CHANGES:
            raise InvalidParameter(f"{node.keyword} is not a valid change command")
    cmd_set = False
    for node in parsed.nodes:
        instruction = expand(parse_node(node), environment(result), parsed.escape)
        apply(result, instruction, cmd_set=cmd_set)
        cmd_set = cmd_set or (isinstance(instruction, Cmd) and bool(instruction.command))
    return result


def _env(config: Config, instruction: Env) -> str:
    env: list[str] = list(config.get("Env") or ())
    for pair in instruction.pairs:
        for i, item in enumerate(env):
            if item.partition("=")[0] == pair.key:
                env[i] = str(pair)
                break
        else:
            env.append(str(pair))
    config["Env"] = env
    return "ENV " + " ".join(map(str, instruction.pairs))


def _label(config: Config, instruction: Label) -> str:
    labels = dict(config.get("Labels") or {})
    labels.update((pair.key, pair.value) for pair in instruction.pairs)
    config["Labels"] = labels
    return "LABEL " + " ".join(map(str, instruction.pairs))


def _workdir(config: Config, instruction: Workdir) -> str:
    if not instruction.path:
        raise DockerfileError("cannot normalize nothing")
    path = instruction.path
    if not path.startswith("/"):
        path = "/" + (config.get("WorkingDir") or "") + "/" + path
    config["WorkingDir"] = clean(path)
    return f"WORKDIR {config['WorkingDir']}"


def _user(config: Config, instruction: User) -> str:
    config["User"] = instruction.user
    return f"USER {instruction.user}"


def _expose(config: Config, instruction: Expose) -> str:
    ports = dict(config.get("ExposedPorts") or {})
    for spec in instruction.ports:
        ports.update((port, {}) for port in _ports(spec))
    config["ExposedPorts"] = ports
    return "EXPOSE " + " ".join(instruction.ports)


def _ports(spec: str) -> list[str]:
    """Return the container's ports of `[[ip:]host:]port[-port][/proto]`."""
    container = spec.rsplit(":", 1)[-1]
    number, _, proto = container.partition("/")
    if not number:
        raise DockerfileError(f"no port specified: {spec}<empty>")
    proto = (proto or "tcp").lower()
    if proto not in ("tcp", "udp", "sctp"):
        raise DockerfileError(f"invalid proto: {proto}")
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", number)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not 0 <= first <= last <= 65535:
        raise DockerfileError(f"invalid containerPort: {number}")
    return [f"{port}/{proto}" for port in range(first, last + 1)]


def _volume(config: Config, instruction: Volume) -> str:
    if not all(instruction.paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in instruction.paths}}
    return f"VOLUME [{' '.join(instruction.paths)}]"


def _cmd(config: Config, instruction: Cmd) -> str:
    command = shell_command(instruction.command, instruction.shell, config)
    config["Cmd"] = command
    return f"CMD {quote_list(command)}"


def _entrypoint(config: Config, instruction: Entrypoint, cmd_set: bool) -> str:
    command = shell_command(instruction.command, instruction.shell, config)
    config["Entrypoint"] = command or None
    if not cmd_set:
        # A CMD of the base image was meant for the base image's entry point.
        config["Cmd"] = None
    return f"ENTRYPOINT {quote_list(command)}"


def _healthcheck(config: Config, instruction: Healthcheck) -> str:
    health = instruction.health
    entry: Config = {"Test": list(health.test)}
    for key, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
        ("Retries", health.retries),
    ):
        if value:
            entry[key] = value
    config["Healthcheck"] = entry
    return f"HEALTHCHECK {_health_text(health)}"


def _health_text(health: HealthcheckConfig) -> str:
    # Go's %v of a pointer to the struct, as dockerd 28.5 writes it.
    times = (health.interval, health.timeout, health.start_period, health.start_interval)
    shown = " ".join(format_duration_go(ns / 1e9) for ns in times)
    return f"&{{[{' '.join(health.test)}] {shown} {health.retries}}}"


def _shell(config: Config, instruction: Shell) -> str:
    config["Shell"] = list(instruction.shell)
    return f"SHELL [{' '.join(instruction.shell)}]"


def _stop_signal(config: Config, instruction: StopSignal) -> str:
    _check_signal(instruction.signal)
    config["StopSignal"] = instruction.signal
    return f"STOPSIGNAL {instruction.signal}"


def _check_signal(text: str) -> None:
    if text.isdecimal() and text.isascii():
        if int(text) > 0:
            return
    else:
        name = text.upper().removeprefix("SIG")
        if re.fullmatch(r"RTMIN(\+([1-9]|1[0-5]))?|RTMAX(-([1-9]|1[0-4]))?", name):
            return
        known = {item.name.removeprefix("SIG") for item in _signals.Signals} | {
            "CLD",
            "IOT",
            "POLL",
            "STKFLT",
        }
        if name in known:
            return
    raise DockerfileError(f"invalid signal: {text}")


def _onbuild(config: Config, instruction: OnBuild) -> str:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), instruction.expression]
    return f"ONBUILD {instruction.expression}"


def _maintainer(_config: Config, instruction: Maintainer) -> str:
    # The author is a field of the image beside its config; the builder sets it.
    return f"MAINTAINER {instruction.author}"


_HANDLERS: dict[type[Instruction], Any] = {
    Env: _env,
    Label: _label,
    Workdir: _workdir,
    User: _user,
    Expose: _expose,
    Volume: _volume,
    Cmd: _cmd,
    Entrypoint: _entrypoint,
    Healthcheck: _healthcheck,
    Shell: _shell,
    StopSignal: _stop_signal,
    OnBuild: _onbuild,
    Maintainer: _maintainer,
}
