"""Typed instructions: one frozen value for each of the 18, and the stage they belong to.

`code` is what is shown behind `Step 1/6 :`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from satsuma.wire.dockerfile.nodes import Heredoc

__all__ = [
    "Add",
    "Arg",
    "Cmd",
    "Copy",
    "Entrypoint",
    "Env",
    "Expose",
    "From",
    "Healthcheck",
    "HealthcheckConfig",
    "Instruction",
    "KeyValue",
    "Label",
    "Maintainer",
    "OnBuild",
    "Run",
    "Shell",
    "SourceText",
    "Stage",
    "StopSignal",
    "User",
    "Volume",
    "Workdir",
]


@dataclass(frozen=True, slots=True)
class KeyValue:
    """`key=value`; the value is None for an ARG without default."""

    key: str
    value: str | None

    def __str__(self) -> str:
        return self.key if self.value is None else f"{self.key}={self.value}"


@dataclass(frozen=True, slots=True)
class SourceText:
    """A here-document that is copied as a file."""

    name: str
    text: str
    expand: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What all instructions have."""

    code: str = ""
    first_line: int = 0
    last_line: int = 0

    @property
    def name(self) -> str:
        """The keyword, upper case."""
        return type(self).__name__.upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """`image` and `platform` may hold variables; `stage` is lower case, empty without AS."""

    image: str
    stage: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """`command` is one string in the shell form (`shell` is true), else the argument vector."""

    command: tuple[str, ...]
    shell: bool
    files: tuple[Heredoc, ...] = ()
    mounts: tuple[str, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """`texts` are here-documents among the sources; `source_stage` is `--from`, empty for the context."""

    sources: tuple[str, ...]
    texts: tuple[SourceText, ...]
    target: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    source_stage: str = ""
    parents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Instruction):
    """As COPY, from the context, URLs and archives; None means "not said" (`unpack`, `keep_git_dir`)."""

    sources: tuple[str, ...]
    texts: tuple[SourceText, ...]
    target: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """Variables of the image, in order."""

    pairs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """`literal`: the values came from an option and know no variables."""

    pairs: tuple[KeyValue, ...]
    literal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """Build arguments, a value of None where there is no default."""

    pairs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """The directory of what follows, relative to the one before."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """`user[:group]`, names or numbers, resolved when a container runs."""

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """`[[ip:]host:]port[-port][/proto]`, sorted."""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """Mount points of anonymous volumes."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    """`command` is one string in the shell form (`shell` is true), else the argument vector."""

    command: tuple[str, ...]
    shell: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    """`command` is one string in the shell form (`shell` is true), else the argument vector."""

    command: tuple[str, ...]
    shell: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthcheckConfig:
    """Durations in nanoseconds; zero means "the default", as in the image's config."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Instruction):
    """How the container is found healthy."""

    health: HealthcheckConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    """What shell forms are handed to from here on."""

    shell: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(Instruction):
    """Name or number of a signal."""

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBuild(Instruction):
    """An instruction, as text, for who builds on this image; here-documents included."""

    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    """The author of the image (deprecated, a label does the same)."""

    author: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM and what follows it."""

    base: From
    instructions: tuple[Instruction, ...] = field(default=())
