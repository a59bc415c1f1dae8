"""Nodes to typed instructions, and instructions to stages.

Source: docs.docker.com/reference/dockerfile/; the words of the errors are Docker's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from satsuma.base.sizes import parse_duration
from satsuma.wire.dockerfile.errors import DockerfileError, did_you_mean
from satsuma.wire.dockerfile.flags import BOOL, LIST, STRING, parse_flags
from satsuma.wire.dockerfile.heredocs import parse_heredoc_word
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
from satsuma.wire.dockerfile.mounts import check_mount
from satsuma.wire.dockerfile.nodes import Dockerfile, Heredoc, Node
from satsuma.wire.goquote import quote
from satsuma.wire.shell_words import ExpansionError

__all__ = ["parse_instruction", "parse_node", "parse_stages"]

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_ONBUILD = re.compile(r"\s*ONBUILD\s*", re.IGNORECASE)


def parse_instruction(line: str) -> Instruction:
    """Parse one instruction (`commit --change`, ONBUILD triggers), here-documents included.

    Raises:
        DockerfileError: no or more than one instruction, or a broken one.
    """
    nodes = parse(line.encode("utf-8", "surrogateescape")).nodes
    if len(nodes) != 1:
        raise DockerfileError("only one instruction is expected")
    return parse_node(nodes[0])


def parse_stages(dockerfile: Dockerfile) -> tuple[tuple[Arg, ...], tuple[Stage, ...]]:
    """Return the ARGs before the first FROM, and the stages.

    Raises:
        DockerfileError: with the line in the text, as Docker puts it.
    """
    args: list[Arg] = []
    stages: list[Stage] = []
    for node in dockerfile.nodes:
        try:
            instruction = parse_node(node)
        except DockerfileError as exc:
            message = f"dockerfile parse error on line {node.first_line}: {exc}"
            raise DockerfileError(message, node.first_line, node.last_line) from None
        if isinstance(instruction, From):
            stages.append(Stage(base=instruction))
        elif stages:
            stage = stages[-1]
            stages[-1] = replace(stage, instructions=(*stage.instructions, instruction))
        elif isinstance(instruction, Arg):
            args.append(instruction)
        else:
            raise DockerfileError("no build stage in current context", node.first_line, node.last_line)
    if not stages:
        raise DockerfileError("no build stage in current context")
    return tuple(args), tuple(stages)


def parse_node(node: Node) -> Instruction:
    """Turn a node into its instruction.

    Raises:
        DockerfileError: with the node's lines.
    """
    parser = _PARSERS.get(node.keyword.lower())
    try:
        if parser is None:
            hint = did_you_mean(node.keyword, (name.upper() for name in _PARSERS), case_sensitive=False)
            raise DockerfileError(f"unknown instruction: {node.keyword}{hint}")
        return replace(
            parser(node),
            code=node.original.strip(),
            first_line=node.first_line,
            last_line=node.last_line,
        )
    except ExpansionError as exc:
        raise DockerfileError(str(exc), node.first_line, node.last_line) from None
    except DockerfileError as exc:
        exc.first_line, exc.last_line = node.first_line, node.last_line
        raise


# --- one parser for each instruction --------------------------------------------------------------------------------


def _no_flags(node: Node) -> None:
    parse_flags(node.flags, {})


def _at_least_one(node: Node, keyword: str) -> None:
    if not node.args and not node.pairs:
        raise DockerfileError(f"{keyword} requires at least one argument")


def _exactly_one(node: Node, keyword: str) -> str:
    if len(node.args) != 1:
        raise DockerfileError(f"{keyword} requires exactly one argument")
    return node.args[0]


def _from(node: Node) -> From:
    stage = ""
    if len(node.args) == 3 and node.args[1].lower() == "as":
        stage = node.args[2].lower()
        if not _STAGE_NAME.fullmatch(stage):
            raise DockerfileError(
                f"invalid name for build stage: {quote(node.args[2])}, "
                "name can't start with a number or contain symbols"
            )
    elif len(node.args) != 1:
        raise DockerfileError("FROM requires either one or three arguments")
    flags = parse_flags(node.flags, {"platform": STRING})
    return From(image=node.args[0], stage=stage, platform=flags.text("platform"))


def _run(node: Node) -> Run:
    known = {"mount": LIST, "network": STRING, "security": STRING, "device": LIST}
    flags = parse_flags(node.flags, known)
    for mount in flags.items("mount"):
        check_mount(mount)
    network = flags.text("network")
    if network not in ("", "default", "none", "host"):
        raise DockerfileError(f"invalid network mode {quote(network)}")
    security = flags.text("security")
    if security not in ("", "sandbox", "insecure"):
        raise DockerfileError(f"security {quote(security)} is not valid")
    return Run(
        command=_command(node),
        shell=not node.json,
        files=node.heredocs,
        mounts=flags.items("mount"),
        network=network,
        security=security,
        devices=flags.items("device"),
        flags=flags.used,
    )


def _command(node: Node) -> tuple[str, ...]:
    if not node.args or node.json:
        return node.args
    return (" ".join(node.args),)


def _sources(node: Node, keyword: str) -> tuple[tuple[str, ...], tuple[SourceText, ...], str]:
    if len(node.args) < 2:
        raise DockerfileError(
            f"{keyword} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    *words, target = node.args
    if _heredoc(target, node):
        raise DockerfileError(f"{keyword} cannot accept a heredoc as a destination")
    bodies = {heredoc.name: heredoc for heredoc in node.heredocs}
    sources: list[str] = []
    texts: list[SourceText] = []
    for word in words:
        opened = _heredoc(word, node)
        if opened is None:
            sources.append(word)
            continue
        body = bodies.get(opened.name)
        text = replace(opened, content=body.content).text if body else ""
        texts.append(SourceText(opened.name, text, opened.expand))
    return tuple(sources), tuple(texts), target


def _heredoc(word: str, node: Node) -> Heredoc | None:
    if node.json:
        return None
    try:
        return parse_heredoc_word(word)
    except ExpansionError:
        return None


def _copy(node: Node) -> Copy:
    known = {"chown": STRING, "from": STRING, "chmod": STRING, "link": BOOL, "exclude": LIST, "parents": BOOL}
    sources, texts, target = _sources(node, "COPY")
    flags = parse_flags(node.flags, known)
    return Copy(
        sources=sources,
        texts=texts,
        target=target,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.on("link"),
        exclude=flags.items("exclude"),
        source_stage=flags.text("from"),
        parents=flags.on("parents"),
    )


def _add(node: Node) -> Add:
    known = {
        "chown": STRING,
        "chmod": STRING,
        "link": BOOL,
        "keep-git-dir": BOOL,
        "checksum": STRING,
        "unpack": BOOL,
        "exclude": LIST,
    }
    sources, texts, target = _sources(node, "ADD")
    flags = parse_flags(node.flags, known)
    return Add(
        sources=sources,
        texts=texts,
        target=target,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.on("link"),
        exclude=flags.items("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.bools.get("keep-git-dir"),
        unpack=flags.bools.get("unpack"),
    )


def _pairs(node: Node, keyword: str) -> tuple[KeyValue, ...]:
    _no_flags(node)
    _at_least_one(node, keyword)
    if any(not key for key, _ in node.pairs):
        raise DockerfileError(f"{keyword} names can not be blank")
    return tuple(KeyValue(key, value) for key, value in node.pairs)


def _env(node: Node) -> Env:
    return Env(pairs=_pairs(node, "ENV"))


def _label(node: Node) -> Label:
    return Label(pairs=_pairs(node, "LABEL"))


def _arg(node: Node) -> Arg:
    _no_flags(node)
    _at_least_one(node, "ARG")
    pairs: list[KeyValue] = []
    for word in node.args:
        key, equals, value = word.partition("=")
        if equals and not key:
            raise DockerfileError("ARG names can not be blank")
        pairs.append(KeyValue(key, value if equals else None))
    return Arg(pairs=tuple(pairs))


def _workdir(node: Node) -> Workdir:
    path = _exactly_one(node, "WORKDIR")
    _no_flags(node)
    return Workdir(path=path)


def _user(node: Node) -> User:
    user = _exactly_one(node, "USER")
    _no_flags(node)
    return User(user=user)


def _expose(node: Node) -> Expose:
    _at_least_one(node, "EXPOSE")
    _no_flags(node)
    return Expose(ports=tuple(sorted(node.args)))


def _volume(node: Node) -> Volume:
    _at_least_one(node, "VOLUME")
    _no_flags(node)
    paths = tuple(path.strip() for path in node.args)
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return Volume(paths=paths)


def _cmd(node: Node) -> Cmd:
    _no_flags(node)
    return Cmd(command=_command(node), shell=not node.json)


def _entrypoint(node: Node) -> Entrypoint:
    _no_flags(node)
    return Entrypoint(command=_command(node), shell=not node.json)


def _health_duration(name: str, text: str) -> int:
    if not text:
        return 0
    try:
        ns = round(parse_duration(text) * 1_000_000_000)
    except ValueError as exc:
        raise DockerfileError(str(exc)) from None
    if ns and ns < 1_000_000:
        raise DockerfileError(f"Interval {quote(name)} cannot be less than 1ms")
    return ns


def _health_retries(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise DockerfileError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    retries = int(text)
    if not -(1 << 31) <= retries < 1 << 31:
        raise DockerfileError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    if retries < 0:
        raise DockerfileError(f"--retries cannot be negative ({retries})")
    return retries


def _healthcheck(node: Node) -> Healthcheck:
    _at_least_one(node, "HEALTHCHECK")
    kind, arguments = node.args[0].upper(), node.args[1:]
    if kind == "NONE":
        if arguments:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(health=HealthcheckConfig(test=("NONE",)))
    known = dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), STRING)
    flags = parse_flags(node.flags, known)
    if kind != "CMD":
        raise DockerfileError(f"Unknown type {quote(kind)} in HEALTHCHECK (try CMD)")
    if not arguments:
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    command = arguments if node.json else (" ".join(arguments),)
    health = HealthcheckConfig(
        test=("CMD" if node.json else "CMD-SHELL", *command),
        interval=_health_duration("interval", flags.text("interval")),
        timeout=_health_duration("timeout", flags.text("timeout")),
        start_period=_health_duration("start-period", flags.text("start-period")),
        start_interval=_health_duration("start-interval", flags.text("start-interval")),
        retries=_health_retries(flags.text("retries")),
    )
    return Healthcheck(health=health)


def _shell(node: Node) -> Shell:
    _no_flags(node)
    _at_least_one(node, "SHELL")
    if not node.json:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    return Shell(shell=node.args)


def _stop_signal(node: Node) -> StopSignal:
    signal = _exactly_one(node, "STOPSIGNAL")
    _no_flags(node)
    return StopSignal(signal=signal)


def _onbuild(node: Node) -> OnBuild:
    _at_least_one(node, "ONBUILD")
    _no_flags(node)
    trigger = node.args[0].strip().upper()
    if trigger == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise DockerfileError(f"{trigger} isn't allowed as an ONBUILD trigger")
    expression = _ONBUILD.sub("", node.original, count=1)
    for heredoc in node.heredocs:
        expression += f"\n{heredoc.content}{heredoc.name}"
    return OnBuild(expression=expression)


def _maintainer(node: Node) -> Maintainer:
    author = _exactly_one(node, "MAINTAINER")
    _no_flags(node)
    return Maintainer(author=author)


_PARSERS: dict[str, Callable[[Node], Instruction]] = {
    "add": _add,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": _label,
    "maintainer": _maintainer,
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": _stop_signal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
