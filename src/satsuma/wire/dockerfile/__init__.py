"""The Dockerfile language: bytes → nodes → typed instructions, and what an instruction does to an image's config.

Owns syntax and nothing else: three pure steps, each of which can be tested and fuzzed alone.  It must not know files,
images, containers or the network; variables are expanded by whoever executes, at the moment of execution, because
their values change from instruction to instruction.

    lexer          bytes → Dockerfile(directives, nodes)      directives, comments, continuation
    arguments      line → node                                flags, exec form, key=value
    heredocs       word → here-document
    instructions   node → Run, Copy, …; nodes → stages        per-instruction grammar, did-you-mean
    expansion      instruction + variables → instruction      which fields of which instruction know `$x`
    config         instruction + config → config              ENV, CMD, … and `commit --change`

Source: docs.docker.com/reference/dockerfile/.
"""

from satsuma.wire.dockerfile.config import apply, apply_changes
from satsuma.wire.dockerfile.errors import DockerfileError
from satsuma.wire.dockerfile.expansion import expand
from satsuma.wire.dockerfile.heredocs import parse_heredoc_word
from satsuma.wire.dockerfile.instructions import parse_instruction, parse_node, parse_stages
from satsuma.wire.dockerfile.lexer import parse
from satsuma.wire.dockerfile.model import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    HealthcheckConfig,
    Instruction,
    KeyValue,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    SourceText,
    Stage,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from satsuma.wire.dockerfile.mounts import RunMount, parse_mount
from satsuma.wire.dockerfile.nodes import Directive, Dockerfile, Heredoc, Node, ParseWarning

__all__ = [
    "Add",
    "Arg",
    "Cmd",
    "Copy",
    "Directive",
    "Dockerfile",
    "DockerfileError",
    "Entrypoint",
    "Env",
    "Expose",
    "From",
    "Healthcheck",
    "HealthcheckConfig",
    "Heredoc",
    "Instruction",
    "KeyValue",
    "Label",
    "Maintainer",
    "Node",
    "OnBuild",
    "Run",
    "RunMount",
    "Shell",
    "SourceText",
    "Stage",
    "StopSignal",
    "User",
    "Volume",
    "ParseWarning",
    "Workdir",
    "apply",
    "apply_changes",
    "expand",
    "parse",
    "parse_heredoc_word",
    "parse_instruction",
    "parse_mount",
    "parse_node",
    "parse_stages",
]
