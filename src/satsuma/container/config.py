"""What a container runs: the request laid over the image's configuration, by Docker's rules.

Source: moby daemon/commit.go `merge`, daemon/create.go `mergeAndVerifyConfig`, container/env.go of 28.5.2.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from msgspec import structs

from satsuma.base.errors import InvalidParameter
from satsuma.spec.docker import ContainerConfig, HealthConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def as_list(value: list[str] | str | None) -> list[str] | None:
    """Return Go's strslice: a lone string is a list of one, null stays null."""
    return [value] if isinstance(value, str) else value


def merge_config(request: ContainerConfig, image: ContainerConfig | None) -> ContainerConfig:
    """Fill what the request leaves open from the image.

    Setting an entrypoint drops the image's command; `[""]` resets the entrypoint.

    Raises:
        InvalidParameter: `no command specified`.
    """
    merged = lay_over(request, image) if image is not None else request
    entrypoint, command = as_list(merged.entrypoint), as_list(merged.cmd)
    if entrypoint == [""]:
        entrypoint = None
    if not entrypoint and not command:
        raise InvalidParameter("no command specified")
    return structs.replace(merged, entrypoint=entrypoint, cmd=command)


def lay_over(request: ContainerConfig, image: ContainerConfig) -> ContainerConfig:
    """Return *request* with every unset field from *image*; used by create and by commit."""
    entrypoint, command = as_list(request.entrypoint), as_list(request.cmd)
    if not entrypoint:
        if not command:
            command = as_list(image.cmd)
        if entrypoint is None:
            entrypoint = as_list(image.entrypoint)
    return structs.replace(
        request,
        user=request.user or image.user,
        exposed_ports=(image.exposed_ports or {}) | (request.exposed_ports or {}) or None,
        env=merge_env(request.env, image.env),
        labels=(image.labels or {}) | (request.labels or {}),
        entrypoint=entrypoint,
        cmd=command,
        healthcheck=_merge_health(request.healthcheck, image.healthcheck),
        working_dir=request.working_dir or image.working_dir,
        volumes=(image.volumes or {}) | (request.volumes or {}) or None,
        stop_signal=request.stop_signal or image.stop_signal,
        on_build=request.on_build,
        shell=request.shell or image.shell,
    )


def merge_env(first: list[str] | None, defaults: list[str] | None) -> list[str] | None:
    """Append to *first* those *defaults* whose names it does not mention."""
    if not first:
        return defaults
    names = {item.partition("=")[0] for item in first}
    return first + [item for item in defaults or [] if item.partition("=")[0] not in names]


def _merge_health(request: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    if request is None or image is None:
        return request or image
    return HealthConfig(
        test=request.test or image.test,
        interval=request.interval or image.interval,
        timeout=request.timeout or image.timeout,
        start_period=request.start_period or image.start_period,
        start_interval=request.start_interval or image.start_interval,
        retries=request.retries or image.retries,
    )


def command_line(config: ContainerConfig) -> list[str]:
    """Return argv: entrypoint, then command."""
    return (as_list(config.entrypoint) or []) + (as_list(config.cmd) or [])


def process_env(
    *, hostname: str, tty: bool, linked: Iterable[str] = (), own: Iterable[str] = ()
) -> list[str]:
    """Return the environment of a process: the engine's defaults, overridden and extended by *own*.

    HOME is not here: the runtime takes it from the container's own passwd file.
    """
    defaults = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}"]
    if tty:
        defaults.append("TERM=xterm")
    return replace_env([*defaults, *linked], own)


def replace_env(base: Iterable[str], changes: Iterable[str]) -> list[str]:
    """Replace or append variables by name; a change without `=` removes the variable."""
    answer = {item.partition("=")[0]: item for item in base}
    for item in changes:
        name, assigned, _ = item.partition("=")
        if assigned:
            answer[name] = item
        else:
            answer.pop(name, None)
    return list(answer.values())


def clean_working_dir(path: str) -> str:
    """Return the working directory without `.` and `..`.

    Raises:
        InvalidParameter: the path is relative.
    """
    if not path:
        return ""
    if not path.startswith("/"):
        raise InvalidParameter(f"the working directory '{path}' is invalid, it needs to be an absolute path")
    return posixpath.normpath(path)
