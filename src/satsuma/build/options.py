"""What a client may ask of a build, as values; defaults are Docker's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from satsuma.base.errors import InvalidParameter, Unsupported
from satsuma.wire import reference

__all__ = ["BuildOptions", "Ulimit", "validate"]


@dataclass(frozen=True, slots=True)
class Ulimit:
    """One resource limit of RUN steps; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """The parameters of `POST /build`, decoded.

    Attributes:
        dockerfile: path in the context; empty for `Dockerfile`.
        remote: URL of a Dockerfile, a tarball or a git repository instead of a context.
        build_args: a value of None means that the argument was named without a value.
        cache_from: images whose history may serve as cache.
        rm: remove the container of a RUN that succeeded; of one that failed, only with force_rm: whoever wants
            to know why it failed can look into it.
        memory, memory_swap, shm_size: bytes, 0 for the default.
        network_mode: as for a container; empty and `default` mean the default network.
    """

    tags: tuple[str, ...] = ()
    dockerfile: str = ""
    remote: str = ""
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    platform: str = ""
    no_cache: bool = False
    cache_from: tuple[str, ...] = ()
    pull: bool = False
    quiet: bool = False
    rm: bool = True
    force_rm: bool = False
    squash: bool = False
    network_mode: str = ""
    extra_hosts: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    isolation: str = ""
    cgroup_parent: str = ""
    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()


def validate(options: BuildOptions, *, architecture: str) -> list[tuple[str, str]]:
    """Refuse what cannot be done, and return the tags as (repository, tag) pairs, without repeats.

    Raises:
        InvalidParameter, Unsupported: with Docker's words where it has some.
    """
    if options.squash:
        raise InvalidParameter("squash is only supported with experimental mode")
    if options.security_opt:
        raise InvalidParameter(
            "The daemon on this platform does not support setting security options on build"
        )
    if options.isolation not in ("", "default"):
        raise InvalidParameter(f"Unsupported isolation: {options.isolation!r}")
    if options.platform:
        _check_platform(options.platform, architecture)
    for name in options.cache_from:
        reference.parse(name)
    tags: dict[tuple[str, str], None] = {}
    for text in options.tags:
        named = reference.parse(text)
        if named.digest:
            raise InvalidParameter("build tag cannot contain a digest")
        tags[(named.familiar_name(), named.tag or "latest")] = None
    return list(tags)


def _check_platform(platform: str, architecture: str) -> None:
    system, _, rest = platform.lower().partition("/")
    wanted = rest.partition("/")[0]
    if not rest and system != "linux":
        # A lone word may name the architecture; containerd's platform parser does the same.
        system, wanted = "linux", system
    known = {"amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "mips64le", "loong64"}
    aliases = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
    wanted = aliases.get(wanted, wanted)
    if system != "linux":
        raise InvalidParameter(f'"{system}": unknown operating system or architecture: invalid argument')
    if wanted and wanted not in known:
        raise InvalidParameter(f'"{platform}": unknown operating system or architecture: invalid argument')
    if wanted and wanted != architecture:
        raise Unsupported(f"building for {platform} on {architecture} is not supported")
