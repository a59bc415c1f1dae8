"""What the daemon asks of a monitor, as values, and how they go into a message."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from satsuma.monitor import escape, protocol

Body = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttachSpec:
    """A client to attach.

    Attributes:
        fd: a connected stream socket.
        framed: stdcopy frames; with a terminal too, as an exec may want it.
        detach_keys: honoured with a terminal only, as in Docker; b"" is none.
        initial_stdin: bytes of the client that were read from *fd* already.
    """

    fd: int
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    framed: bool = True
    detach_keys: bytes = escape.DEFAULT
    initial_stdin: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogSpec:
    """Where the output goes: a driver of `satsuma.monitor.logs`, its file, options and attributes."""

    driver: str = "none"
    path: str = ""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attrs: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """A container to start.

    Attributes:
        config: OCI config.json as a dict.
        extras: what the config cannot say: `overlay` (dict), `seccomp_bpf` (bytes), `init_path`, `hold_fds`
            (list of descriptors that the monitor keeps open), and descriptors under names that end in `_fd`.
        console_size: (height, width), as Docker orders it.
        stdin_once: the first attached client whose stdin ends gives the process EOF.
        exit_path: where the exit record is written.
        durable: the exit record shall survive a power failure.
    """

    container_id: str
    config: Body
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tty: bool = False
    console_size: tuple[int, int] | None = None
    open_stdin: bool = False
    stdin_once: bool = False
    log: LogSpec = dataclasses.field(default_factory=LogSpec)
    exit_path: str
    attaches: Sequence[AttachSpec] = ()
    durable: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """A session to start in a running container: *process* is an OCI process object.

    Attributes:
        steps: gets what was done, as rows of `runtime.trace`; None: nobody asks.
    """

    exec_id: str
    process: Body
    tty: bool = False
    console_size: tuple[int, int] | None = None
    attach: AttachSpec | None = None
    steps: list[list[Any]] | None = None


def attach_body(spec: AttachSpec, packer: protocol.Packer) -> Body:
    """Return the `attach` object of a message."""
    body: Body = {
        "fd": packer.fd(spec.fd),
        "stdin": spec.stdin,
        "stdout": spec.stdout,
        "stderr": spec.stderr,
        "framed": spec.framed,
        "detach_keys": packer.blob(spec.detach_keys),
    }
    if spec.initial_stdin:
        body["initial_stdin"] = packer.blob(spec.initial_stdin)
    return body


def launch_body(spec: LaunchSpec) -> tuple[Body, protocol.Packer]:
    """Return the launch request."""
    packer = protocol.Packer()
    extras: Body = {}
    fds: dict[str, int] = {}
    blobs: dict[str, int] = {}
    hold: list[int] = []
    for name, value in spec.extras.items():
        if name == "hold_fds":
            hold = [packer.fd(fd) for fd in value]
        elif name.endswith("_fd"):
            if value is not None:
                fds[name] = packer.fd(value)
        elif isinstance(value, bytes):
            blobs[name] = packer.blob(value)
        else:
            extras[name] = value
    body: Body = {
        "container_id": spec.container_id,
        "config": spec.config,
        "extras": extras,
        "extra_fds": fds,
        "extra_blobs": blobs,
        "hold_fds": hold,
        "tty": spec.tty,
        "console_size": spec.console_size,
        "open_stdin": spec.open_stdin,
        "stdin_once": spec.stdin_once,
        "log": {
            "driver": spec.log.driver,
            "path": spec.log.path,
            "options": dict(spec.log.options),
            "attrs": dict(spec.log.attrs),
        },
        "exit_path": spec.exit_path,
        "durable": spec.durable,
        "attaches": [attach_body(attach, packer) for attach in spec.attaches],
    }
    return body, packer
