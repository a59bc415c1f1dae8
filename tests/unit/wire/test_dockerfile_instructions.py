"""From nodes to typed instructions and stages, expansion of their fields, and their effect on a config."""

from __future__ import annotations

from typing import Any

import pytest

from satsuma.base.errors import InvalidParameter
from satsuma.wire import dockerfile as df
from satsuma.wire.dockerfile import DockerfileError, parse, parse_instruction, parse_stages


def stages(text: str) -> tuple[df.Stage, ...]:
    return parse_stages(parse(text.encode()))[1]


ERRORS = [
    ("FROM", "FROM requires either one or three arguments"),
    ("FROM a b", "FROM requires either one or three arguments"),
    ("FROM a of b", "FROM requires either one or three arguments"),
    (
        "FROM a AS 1b",
        'invalid name for build stage: "1b", name can\'t start with a number or contain symbols',
    ),
    ("FROM --nope=x a", "unknown flag: --nope"),
    ("FROM --platfrom=x a", "unknown flag: --platfrom (did you mean platform?)"),
    ("RUM echo", "unknown instruction: RUM (did you mean RUN?)"),
    ("copyy a b", "unknown instruction: copyy (did you mean copy?)"),
    ("BOGUS x", "unknown instruction: BOGUS"),
    (
        "COPY a",
        "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
    ),
    (
        "ADD",
        "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
    ),
    ("COPY a <<EOF\nEOF", "COPY cannot accept a heredoc as a destination"),
    ("COPY --from a b", "missing a value on flag: --from"),
    ("COPY --chown=1 --chown=2 a b", "duplicate flag specified: --chown"),
    ("COPY --link=maybe a b", "expecting boolean value for flag --link, not: maybe"),
    ("COPY --link= a b", "missing a value on flag: --link"),
    ("ENV", "ENV requires at least one argument"),
    ("ENV =x", "ENV names can not be blank"),
    ("LABEL", "LABEL requires at least one argument"),
    ("ARG", "ARG requires at least one argument"),
    ("ARG =x", "ARG names can not be blank"),
    ("WORKDIR", "WORKDIR requires exactly one argument"),
    ("USER", "USER requires exactly one argument"),
    ("EXPOSE", "EXPOSE requires at least one argument"),
    ("VOLUME", "VOLUME requires at least one argument"),
    ('VOLUME [" "]', "VOLUME specified can not be an empty string"),
    ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
    ("MAINTAINER", "MAINTAINER requires exactly one argument"),
    ("SHELL", "SHELL requires at least one argument"),
    ("SHELL []", "SHELL requires at least one argument"),
    ("SHELL /bin/sh -c", "SHELL requires the arguments to be in JSON form"),
    ("ONBUILD", "ONBUILD requires at least one argument"),
    ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
    ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
    ("ONBUILD maintainer x", "MAINTAINER isn't allowed as an ONBUILD trigger"),
    ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
    ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
    ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
    ("HEALTHCHECK PING", 'Unknown type "PING" in HEALTHCHECK (try CMD)'),
    ("HEALTHCHECK --interval=0.5ms CMD x", 'Interval "interval" cannot be less than 1ms'),
    ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
    ("HEALTHCHECK --retries=x CMD x", 'strconv.ParseInt: parsing "x": invalid syntax'),
    ("RUN --network=bridge x", 'invalid network mode "bridge"'),
    ("RUN --security=x y", 'security "x" is not valid'),
    (
        "RUN --mount=from=$x,target=/y z",
        "'from' doesn't support variable expansion, define alias stage instead",
    ),
    ("CMD --x y", "unknown flag: --x"),
]


@pytest.mark.parametrize(("line", "message"), ERRORS)
def test_errors_have_dockers_words(line: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_instruction(line)
    assert str(caught.value) == message


def test_in_a_file_the_error_names_the_line() -> None:
    with pytest.raises(DockerfileError) as caught:
        stages("FROM x\n\nRUM \\\n  y\n")
    assert (
        str(caught.value) == "dockerfile parse error on line 3: unknown instruction: RUM (did you mean RUN?)"
    )
    assert (caught.value.first_line, caught.value.last_line) == (3, 4)


@pytest.mark.parametrize("text", ["RUN x\nFROM y", "ARG a\nRUN x", "ARG a"])
def test_nothing_but_arg_comes_before_from(text: str) -> None:
    with pytest.raises(DockerfileError, match=r"^no build stage in current context$"):
        stages(text)


def test_stages_and_global_args() -> None:
    args, found = parse_stages(
        parse(
            b"ARG V=1\nFROM a:$V AS Build\nRUN x\nARG y\nFROM --platform=linux/amd64 scratch\nCOPY --from=build /x /\n"
        )
    )
    assert [str(pair) for arg in args for pair in arg.pairs] == ["V=1"]
    assert [(s.base.image, s.base.stage, s.base.platform, len(s.instructions)) for s in found] == [
        ("a:$V", "build", "", 2),
        ("scratch", "", "linux/amd64", 1),
    ]


def test_code_is_the_line_as_shown() -> None:
    (stage,) = stages("from x\n  run a \\\n   b\n")
    assert stage.base.code == "from x"
    assert stage.instructions[0].code == "run a    b"


def test_copy_with_everything() -> None:
    copy = parse_instruction(
        "COPY --from=s --chown=u:g --chmod=755 --link --exclude=*.o --exclude=x --parents a b /c/"
    )
    assert copy == df.Copy(
        code="COPY --from=s --chown=u:g --chmod=755 --link --exclude=*.o --exclude=x --parents a b /c/",
        first_line=1,
        last_line=1,
        sources=("a", "b"),
        texts=(),
        target="/c/",
        chown="u:g",
        chmod="755",
        link=True,
        exclude=("*.o", "x"),
        source_stage="s",
        parents=True,
    )


def test_onbuild_keeps_the_trigger_with_its_heredoc() -> None:
    trigger = parse_instruction("onbuild RUN <<EOF\necho $x\nEOF\n")
    assert isinstance(trigger, df.OnBuild)
    assert trigger.expression == "RUN <<EOF\necho $x\nEOF"
    again = parse_instruction(trigger.expression)
    assert isinstance(again, df.Run)
    assert again.files[0].content == "echo $x\n"


def test_healthcheck() -> None:
    check = parse_instruction(
        "HEALTHCHECK --interval=1m30s --timeout=5s --start-period=1h --retries=4 CMD curl x"
    )
    assert isinstance(check, df.Healthcheck)
    assert check.health == df.HealthcheckConfig(
        test=("CMD-SHELL", "curl x"),
        interval=90_000_000_000,
        timeout=5_000_000_000,
        start_period=3_600_000_000_000,
        retries=4,
    )


# --- expansion ------------------------------------------------------------------------------------------------------

ENV = {"a": "A", "two": "1 2", "p": "80 443"}

EXPANDED: list[tuple[str, dict[str, Any]]] = [
    ("WORKDIR /x/$a", {"path": "/x/A"}),
    ("USER ${a:-x}", {"user": "A"}),
    ("STOPSIGNAL $a", {"signal": "A"}),
    ("VOLUME /$a /b", {"paths": ("/A", "/b")}),
    ('VOLUME ["/$a"]', {"paths": ("/A",)}),
    ("EXPOSE $p 90", {"ports": ("80", "443", "90")}),
    ("COPY --chown=$a --chmod=$a $a /$a/", {"sources": ("A",), "target": "/A/", "chown": "A", "chmod": "A"}),
    ("COPY '$a' /", {"sources": ("$a",)}),
    ("COPY --from=$a x /", {"source_stage": "$a"}),
    ("COPY --exclude=$a x /", {"exclude": ("$a",)}),
    ("ADD --checksum=$a $a /", {"checksum": "A", "sources": ("A",)}),
    ("RUN echo $a", {"command": ("echo $a",)}),
    ("CMD echo $a", {"command": ("echo $a",)}),
    ('ENTRYPOINT ["$a"]', {"command": ("$a",)}),
    ("ENV x=$a y=\"$two\" z='$a' $a=1", {"pairs": "x=A y=1 2 z=$a A=1"}),
    ("ENV x $two", {"pairs": "x=1 2"}),
    ("LABEL x=$a", {"pairs": "x=A"}),
    ("ARG x=$a y", {"pairs": "x=A y"}),
]


@pytest.mark.parametrize(("line", "fields"), EXPANDED)
def test_which_fields_know_variables(line: str, fields: dict[str, Any]) -> None:
    expanded = df.expand(parse_instruction(line), ENV)
    for name, value in fields.items():
        found = getattr(expanded, name)
        assert (" ".join(map(str, found)) if name == "pairs" else found) == value


def test_heredoc_text_expands_unless_its_delimiter_was_quoted() -> None:
    copy = parse_instruction("COPY <<x <<'y' /\nit's \"$a\" \\$a\nx\n$a\ny\n")
    expanded = df.expand(copy, ENV)
    assert isinstance(expanded, df.Copy)
    assert [text.text for text in expanded.texts] == ['it\'s "A" $a\n', "$a\n"]


def test_labels_from_options_are_literal() -> None:
    label = df.Label(code="", pairs=(df.KeyValue("x", "$a"),), literal=True)
    assert df.expand(label, ENV) is label


def test_failed_expansion_keeps_the_lines() -> None:
    (stage,) = stages("FROM x\nUSER ${nope:?must be set}\n")
    with pytest.raises(DockerfileError, match="nope: must be set") as caught:
        df.expand(stage.instructions[0], ENV)
    assert caught.value.first_line == 2


# --- effect on a config ---------------------------------------------------------------------------------------------

APPLIED: list[tuple[str, dict[str, Any], str]] = [
    ("ENV A=1 B='two words'", {"Env": ["PATH=/bin", "A=1", "B=two words"]}, "ENV A=1 B=two words"),
    ("ENV PATH=/x", {"Env": ["PATH=/x"]}, "ENV PATH=/x"),
    ("LABEL a=b c=d", {"Labels": {"a": "b", "c": "d"}}, "LABEL a=b c=d"),
    ("WORKDIR /x", {"WorkingDir": "/x"}, "WORKDIR /x"),
    ("WORKDIR x/../y", {"WorkingDir": "/w/y"}, "WORKDIR /w/y"),
    ("USER 1:2", {"User": "1:2"}, "USER 1:2"),
    ("EXPOSE 80 53/UDP", {"ExposedPorts": {"53/udp": {}, "80/tcp": {}}}, "EXPOSE 53/UDP 80"),
    ("EXPOSE 8000-8002", {"ExposedPorts": {f"{p}/tcp": {} for p in (8000, 8001, 8002)}}, "EXPOSE 8000-8002"),
    ("EXPOSE 127.0.0.1:80:8080", {"ExposedPorts": {"8080/tcp": {}}}, "EXPOSE 127.0.0.1:80:8080"),
    ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}, "VOLUME [/a /b]"),
    ("CMD echo hi", {"Cmd": ["/bin/sh", "-c", "echo hi"]}, 'CMD ["/bin/sh" "-c" "echo hi"]'),
    ('CMD ["a", "b\\"c"]', {"Cmd": ["a", 'b"c']}, 'CMD ["a" "b\\"c"]'),
    ("CMD []", {"Cmd": []}, "CMD []"),
    ('ENTRYPOINT ["x"]', {"Entrypoint": ["x"], "Cmd": None}, 'ENTRYPOINT ["x"]'),
    ("ENTRYPOINT []", {"Entrypoint": None, "Cmd": None}, "ENTRYPOINT []"),
    ('SHELL ["/bin/bash", "-c"]', {"Shell": ["/bin/bash", "-c"]}, "SHELL [/bin/bash -c]"),
    ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}, "STOPSIGNAL SIGINT"),
    ("STOPSIGNAL 9", {"StopSignal": "9"}, "STOPSIGNAL 9"),
    ("STOPSIGNAL rtmin+3", {"StopSignal": "rtmin+3"}, "STOPSIGNAL rtmin+3"),
    ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}, "ONBUILD RUN x"),
    (
        "HEALTHCHECK NONE",
        {"Healthcheck": {"Test": ["NONE"]}},
        "HEALTHCHECK &{[NONE] 0s 0s 0s 0s 0}",
    ),
    (
        "HEALTHCHECK --interval=30s --retries=3 CMD x",
        {"Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 30_000_000_000, "Retries": 3}},
        "HEALTHCHECK &{[CMD-SHELL x] 30s 0s 0s 0s 3}",
    ),
    ("MAINTAINER Ada", {}, "MAINTAINER Ada"),
]


@pytest.mark.parametrize(("line", "changes", "text"), APPLIED)
def test_apply(line: str, changes: dict[str, Any], text: str) -> None:
    before: dict[str, Any] = {"Env": ["PATH=/bin"], "WorkingDir": "/w", "Cmd": ["old"]}
    config = dict(before)
    assert df.apply(config, df.expand(parse_instruction(line), {})) == text
    assert config == before | changes


INVALID = [
    ("EXPOSE 80/foo", "invalid proto: foo"),
    ("EXPOSE 99999", "invalid containerPort: 99999"),
    ("EXPOSE 90-80", "invalid containerPort: 90-80"),
    ("EXPOSE x", "invalid containerPort: x"),
    ("EXPOSE /tcp", "no port specified: /tcp<empty>"),
    ("STOPSIGNAL SIGNOPE", "invalid signal: SIGNOPE"),
    ("STOPSIGNAL 0", "invalid signal: 0"),
    ("RUN x", "RUN is not a valid change command"),
]


@pytest.mark.parametrize(("line", "message"), INVALID)
def test_what_makes_no_sense_is_refused(line: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        df.apply({}, parse_instruction(line))
    assert str(caught.value) == message


def test_entrypoint_keeps_a_cmd_of_the_same_stage() -> None:
    config: dict[str, Any] = {"Cmd": ["x"]}
    df.apply(config, parse_instruction('ENTRYPOINT ["e"]'), cmd_set=True)
    assert config == {"Cmd": ["x"], "Entrypoint": ["e"]}


def test_cmd_uses_the_shell_of_the_config() -> None:
    config: dict[str, Any] = {"Shell": ["/bin/bash", "-c"]}
    df.apply(config, parse_instruction("CMD x"))
    assert config["Cmd"] == ["/bin/bash", "-c", "x"]


def test_changes_of_a_commit() -> None:
    before = {"Env": ["A=1"], "Cmd": ["x"]}
    after = df.apply_changes(before, ["ENV B=$A", "expose 80", 'ENTRYPOINT ["e"]', 'CMD ["c"]', "LABEL x=y"])
    assert after == {
        "Env": ["A=1", "B=1"],
        "ExposedPorts": {"80/tcp": {}},
        "Entrypoint": ["e"],
        "Cmd": ["c"],
        "Labels": {"x": "y"},
    }
    assert before == {"Env": ["A=1"], "Cmd": ["x"]}


@pytest.mark.parametrize("change", ["RUN x", "COPY a b", "from x", "ARG a", "MAINTAINER x", 'SHELL ["a"]'])
def test_a_commit_takes_no_instruction_that_needs_a_build(change: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{change.split()[0]} is not a valid change command$"):
        df.apply_changes({}, [change])


# --- RUN --mount ----------------------------------------------------------------------------------------------------

MOUNTS: list[tuple[str, dict[str, Any]]] = [
    ("target=/x", {"type": "bind", "readonly": True}),
    ("type=bind,src=a,dst=/x,from=s,rw", {"source": "a", "source_stage": "s", "readonly": False}),
    (
        "type=cache,id=c,target=/x,sharing=locked,mode=0700,uid=1,gid=2",
        {"id": "c", "mode": 0o700, "readonly": False},
    ),
    ("type=tmpfs,target=/x,size=10m", {"size": 10 << 20, "readonly": False}),
    ("type=cache,target=/x,ro", {"readonly": True}),
    ("type=secret,id=s,env=S,required", {"env": "S", "required": True}),
    ('"target=/a,b"', {"target": "/a,b"}),
    ("TYPE=Bind,Target=/x,readonly=false", {"readonly": False}),
    ("target=$t", {"target": "/T"}),
]


@pytest.mark.parametrize(("text", "fields"), MOUNTS)
def test_mounts(text: str, fields: dict[str, Any]) -> None:
    mount = df.parse_mount(text, lambda word: word.replace("$t", "/T"))
    assert {name: getattr(mount, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=blind,target=/x", 'unsupported mount type "blind" (did you mean bind?)'),
        ("tarket=/x", "unexpected key 'tarket' in 'tarket=/x' (did you mean target?)"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("type=bind,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("type=bind,mode=1", 'mode not allowed for "bind" type mounts'),
        ("type=bind,required", "unexpected key 'required' for mount type 'bind'"),
        ("type=bind,sharing=shared", "invalid cache sharing set for bind mount"),
        ("type=cache,sharing=alone", 'unsupported sharing value "alone"'),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("type=cache,ro=perhaps", "invalid value for ro: perhaps"),
        ("type=tmpfs,size=much", "invalid value for size: much"),
    ],
)
def test_mount_errors(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        df.parse_mount(text, lambda word: word)
    assert str(caught.value) == message
