"""Whole builds: output, history and layers, cache, stages, RUN, failure and cancellation."""

from __future__ import annotations

import asyncio
import io
import re
from typing import Any

import pytest
from build_lab import Lab, file, tar

from satsuma.base.errors import EngineError, InvalidParameter
from satsuma.build import Builder, BuildOptions, StepOutput, Ulimit
from satsuma.wire.dockerfile import DockerfileError


def without_ids(text: str) -> str:
    return re.sub(r"[0-9a-f]{12}", "ID", text)


async def test_output_is_dockers(lab: Lab) -> None:
    built = await lab.ok(
        "ARG V=latest\nFROM busybox:$V\nRUN echo out; echo err >&2\nENV NAME World\nCOPY x /x\n", {"x": "x"}
    )
    assert without_ids(built.text) == (
        "Step 1/5 : ARG V=latest\n"
        "Step 2/5 : FROM busybox:$V\n"
        " ---> ID\n"
        "Step 3/5 : RUN echo out; echo err >&2\n"
        " ---> Running in ID\n"
        "out\n"
        "\x1b[91merr\n\x1b[0m"
        " ---> Removed intermediate container ID\n"
        " ---> ID\n"
        "Step 4/5 : ENV NAME World\n"
        " ---> Running in ID\n"
        " ---> Removed intermediate container ID\n"
        " ---> ID\n"
        "Step 5/5 : COPY x /x\n"
        " ---> ID\n"
        "Successfully built ID\n"
        "Successfully tagged t:latest\n"
    )
    assert [item["aux"] for item in built.objects if "aux" in item] == [{"ID": lab.image.id}]
    assert built.text.splitlines()[-2] == f"Successfully built {lab.image.id[7:19]}"


async def test_history_has_one_entry_for_each_instruction(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox\nMAINTAINER Ada\nARG A=1\nENV NAME World\nLABEL a=b c='d e'\nWORKDIR /app\nWORKDIR /app\n"
        "COPY x y /app/\nRUN true\nRUN echo $A > /r\nEXPOSE 8080/tcp 53/udp\nVOLUME /v /w\nUSER 1:1\n"
        'STOPSIGNAL SIGINT\nSHELL ["/bin/ash", "-c"]\nENTRYPOINT ["/e"]\nCMD run it\nONBUILD RUN x\nHEALTHCHECK NONE\n',
        {"x": "x", "y": "y"},
    )
    sums = r"[0-9a-f]{64}"
    expected: list[tuple[str, bool]] = [
        ("/bin/sh -c #(nop)  MAINTAINER Ada", True),
        ("/bin/sh -c #(nop)  ARG A=1", True),
        ("/bin/sh -c #(nop)  ENV NAME=World", True),
        ("/bin/sh -c #(nop)  LABEL a=b c=d e", True),
        ("/bin/sh -c #(nop) WORKDIR /app", False),
        ("/bin/sh -c #(nop) WORKDIR /app", True),
        (rf"/bin/sh -c #(nop) COPY multi:{sums} in /app/ ", False),
        ("|1 A=1 /bin/sh -c true", True),
        ("|1 A=1 /bin/sh -c echo $A > /r", False),
        ("/bin/sh -c #(nop)  EXPOSE 53/udp 8080/tcp", True),
        ("/bin/sh -c #(nop)  VOLUME [/v /w]", True),
        ("/bin/sh -c #(nop)  USER 1:1", True),
        ("/bin/sh -c #(nop)  STOPSIGNAL SIGINT", True),
        ("/bin/ash -c #(nop)  SHELL [/bin/ash -c]", True),
        ('/bin/ash -c #(nop)  ENTRYPOINT ["/e"]', True),
        ('/bin/ash -c #(nop)  CMD ["/bin/ash" "-c" "run it"]', True),
        ("/bin/ash -c #(nop)  ONBUILD RUN x", True),
        ("/bin/ash -c #(nop)  HEALTHCHECK &{[NONE] 0s 0s 0s 0s 0}", True),
    ]
    history = lab.history()
    assert len(history) == len(expected)
    for (line, empty), (pattern, wanted) in zip(history, expected, strict=True):
        assert empty is wanted, line
        regex = re.escape(pattern).replace(re.escape(sums), sums)
        assert re.fullmatch(regex, line), line
    assert len(lab.image.diff_ids) == 1 + sum(not empty for _, empty in expected)
    config: dict[str, Any] = lab.image.config.config or {}
    assert config["Env"][-1] == "NAME=World"
    assert any(item.startswith("PATH=/usr/local/sbin") for item in config["Env"])
    assert (config["WorkingDir"], config["User"], config["StopSignal"]) == ("/app", "1:1", "SIGINT")
    assert config["ExposedPorts"] == {"53/udp": {}, "8080/tcp": {}}
    assert lab.image.config.author == "Ada"


async def test_steps_are_parents_of_each_other(lab: Lab) -> None:
    await lab.ok("FROM busybox\nENV a=1\nENV b=2\n")
    ids = [entry["Id"] for entry in lab.images.history("t")]
    assert ids[0] == lab.image.id
    assert ids[1] == lab.image.parent
    assert ids[2] == lab.images.resolve("busybox").id


# --- cache ----------------------------------------------------------------------------------------------------------

CACHED = "FROM busybox\nARG A\nWORKDIR /d\nCOPY x /d/\nRUN echo $A > /r\nENV n=1\n"


async def test_the_same_build_again_is_all_cache(lab: Lab) -> None:
    await lab.ok(CACHED, {"x": file("x", mtime=1)})
    first = lab.image.id
    again = await lab.ok(CACHED, {"x": file("x", mtime=2)})
    assert (again.cached, lab.image.id) == (5, first)
    assert "Running in" not in again.text


@pytest.mark.parametrize(
    ("files", "options", "hits"),
    [
        ({"x": file("other")}, {}, 2),
        ({"x": file("x", 0o600)}, {}, 2),
        ({"x": file("x")}, {"build_args": {"A": "1"}}, 3),
        ({"x": file("x")}, {"no_cache": True}, 0),
        ({"x": file("x"), "unused": file("y")}, {}, 5),
        ({"x": file("x")}, {"labels": {"l": "1"}}, 5),
    ],
)
async def test_what_breaks_the_cache(lab: Lab, files: Any, options: Any, hits: int) -> None:
    await lab.ok(CACHED, {"x": file("x")})
    assert (await lab.ok(CACHED, files, **options)).cached == hits


async def test_proxies_do_not_break_the_cache(lab: Lab) -> None:
    await lab.ok("FROM busybox\nRUN true\n")
    again = await lab.ok("FROM busybox\nRUN true\n", build_args={"HTTP_PROXY": "http://p"})
    # The first one had no argument at all, so its history has no count of them; as in Docker.
    assert again.cached == 0
    other = await lab.ok("FROM busybox\nRUN true\n", build_args={"HTTP_PROXY": "http://q"})
    assert other.cached == 1
    assert "HTTP_PROXY=http://p" in lab.runner.steps[-1].env


async def test_cache_from_an_image_of_another_machine(lab: Lab) -> None:
    await lab.ok(CACHED, {"x": "x"})
    layers = lab.image.chain_ids
    archive = b"".join(lab.images.save(["t"]))
    base = b"".join(lab.images.save(["busybox"]))
    for name in ("t", "busybox"):
        lab.images.remove(name, force=True)
    assert lab.images.list() == []
    for data in (base, archive):
        lab.images.load(io.BytesIO(data), lambda _message: None)
    built = await lab.ok(CACHED, {"x": "x"}, cache_from=("t", "missing"))
    assert built.cached == 5
    assert lab.image.chain_ids == layers


async def test_prune_of_the_cache(lab: Lab) -> None:
    await lab.ok("FROM busybox\nENV a=1\n")
    forgotten, _ = await lab.builder.prune()
    assert len(forgotten) == 1
    assert (await lab.ok("FROM busybox\nENV a=1\n")).cached == 0


# --- stages and arguments -------------------------------------------------------------------------------------------


async def test_target_builds_up_to_a_stage(lab: Lab) -> None:
    text = "FROM busybox AS one\nENV s=1\nFROM one AS two\nENV s=2\nFROM two\nENV s=3\n"
    built = await lab.ok(text, target="TWO")
    assert "Step 4/4 : ENV s=2" in built.text
    assert "s=2" in (lab.image.config.config or {})["Env"]
    with pytest.raises(InvalidParameter, match='target stage "nope" could not be found'):
        await lab.build(text, target="nope")


async def test_from_scratch(lab: Lab) -> None:
    built = await lab.build("FROM scratch\n")
    assert built.error == "No image was generated. Is your Dockerfile empty?"
    await lab.ok("FROM scratch\nENV a=1\n")
    assert lab.image.diff_ids == ()


async def test_stage_names_are_unique(lab: Lab) -> None:
    built = await lab.build("FROM busybox AS a\nFROM busybox AS A\n")
    assert built.error == "a stage name already used"


async def test_automatic_platform_arguments(lab: Lab) -> None:
    built = await lab.ok("FROM --platform=$BUILDPLATFORM busybox\nARG TARGETOS\nRUN echo os=$TARGETOS\n")
    assert "os=linux\n" in built.text
    built = await lab.build("FROM --platform=windows/amd64 busybox\n")
    assert built.error.startswith("failed to parse platform windows/amd64")


async def test_unused_build_args_are_a_warning(lab: Lab) -> None:
    built = await lab.ok("FROM busybox\n", build_args={"B": "1", "A": "2", "no_proxy": "x"})
    assert "[Warning] One or more build-args [A B] were not consumed\n" in built.text


async def test_base_name_from_an_argument(lab: Lab) -> None:
    await lab.ok("ARG I\nFROM ${I:-busybox}\nENV a=1\n")
    built = await lab.build("ARG I\nFROM $I\n")
    assert built.error == "base name ($I) should not be blank"
    built = await lab.build("FROM nope:1\n")
    assert built.error == "No such image: nope:1"
    built = await lab.build("FROM UPPER\n")
    assert "invalid reference format" in built.error


async def test_a_fresh_base_image_needs_a_registry_client(lab: Lab) -> None:
    built = await lab.build("FROM busybox\n", pull=True)
    assert built.error == "cannot pull busybox: this engine has no registry client yet"


async def test_missing_images_are_pulled(lab: Lab) -> None:
    class Puller:
        async def pull(self, reference: str, output: StepOutput) -> None:
            output(1, f"pulling {reference}\n".encode())
            lab.images.tag("busybox", reference)

    lab.builder = Builder(lab.store, lab.images, lab.runner, puller=Puller())
    built = await lab.ok("FROM other:1\nCOPY --from=third:1 /bin /b\n")
    assert built.text.count("pulling") == 2
    fresh = await lab.ok("FROM other:1\nFROM other:1\nENV a=1\n", pull=True)
    assert fresh.text.count("pulling other:1") == 1


async def test_onbuild_triggers(lab: Lab) -> None:
    await lab.ok("FROM busybox\nONBUILD COPY x /x\nONBUILD RUN cat /x\n", {"x": "first"})
    lab.images.tag("t", "base")
    built = await lab.ok("FROM base\nENV last=1\n", {"x": "triggered\n"})
    assert "# Executing 2 build triggers\n" in built.text
    assert "triggered\n" in built.text
    assert not (lab.image.config.config or {}).get("OnBuild")
    bad = await lab.build("FROM busybox\nONBUILD RUN --nope x\n")
    assert "unknown flag: --nope" in bad.error


async def test_labels_of_options_come_last(lab: Lab) -> None:
    built = await lab.ok("FROM busybox\nLABEL a=1\n", labels={"b": "$HOME", "a": "2"})
    assert "Step 4/4 : LABEL b=$HOME\n" in built.text
    assert lab.image.labels == {"a": "2", "b": "$HOME"}


async def test_healthcheck_that_replaces_one_says_so(lab: Lab) -> None:
    built = await lab.ok("FROM busybox\nHEALTHCHECK CMD a b\nHEALTHCHECK NONE\n")
    assert "Note: overriding previous HEALTHCHECK: [CMD-SHELL a b]\n" in built.text


# --- RUN ------------------------------------------------------------------------------------------------------------


async def test_run_gets_what_the_image_and_the_options_say(lab: Lab) -> None:
    await lab.ok(
        'FROM busybox\nENV E=1\nARG A=2\nWORKDIR /w\nENTRYPOINT ["/bin/false"]\nUSER 0\nRUN pwd\nRUN ["echo", "$E"]\n',
        network_mode="host",
        memory=1 << 26,
        cpu_shares=7,
        shm_size=1 << 20,
        extra_hosts=("a:1.2.3.4",),
        ulimits=(Ulimit("nofile", 10, 20),),
    )
    step, exec_form = lab.runner.steps
    assert step.args == ("/bin/sh", "-c", "pwd")
    assert exec_form.args == ("echo", "$E")
    assert step.env[-2:] == ("E=1", "A=2")
    assert (step.cwd, step.user, step.network_mode) == ("/w", "0", "host")
    assert step.resources == {"Memory": 1 << 26, "CpuShares": 7}
    assert (step.shm_size, step.extra_hosts, step.ulimits[0].hard) == (1 << 20, ("a:1.2.3.4",), 20)
    assert step.config["Entrypoint"] is None
    assert (lab.image.config.config or {})["Entrypoint"] == ["/bin/false"]


async def test_default_network_is_the_bridge(lab: Lab) -> None:
    await lab.ok("FROM busybox\nRUN true\nRUN --network=none true\n", network_mode="default")
    assert [step.network_mode for step in lab.runner.steps] == ["bridge", "none"]


async def test_run_heredocs(lab: Lab) -> None:
    built = await lab.ok(
        "FROM busybox\nRUN <<EOF\necho one\necho two\nEOF\nRUN cat <<A <<B\n1\nA\n2\nB\nRUN <<-X\n\techo tabs\nX\n"
    )
    assert "one\ntwo\n" in built.text
    assert "2\n" in built.text
    assert "tabs\n" in built.text


async def test_run_script_with_an_interpreter_line(lab: Lab) -> None:
    await lab.build("FROM busybox\nRUN <<S\n#!/bin/sh\necho hi\nS\n")
    (step,) = lab.runner.steps
    assert step.args == ("/dev/pipes/S",)
    assert [(m.type, m.target, m.readonly) for m in step.mounts] == [("bind", "/dev/pipes/S", True)]


async def test_run_mounts(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox AS one\nCOPY x /data/x\nFROM busybox\nWORKDIR /w\n"
        "RUN --mount=target=/ctx --mount=from=one,source=data,target=data,rw --mount=type=cache,target=/c,mode=700 "
        "--mount=type=tmpfs,target=/t,size=1m --mount=from=busybox,source=/bin/busybox,target=/bb true\n",
        {"x": "x"},
    )
    (step,) = lab.runner.steps
    assert [(m.type, m.target, m.readonly, m.size) for m in step.mounts] == [
        ("bind", "/ctx", True, 0),
        ("bind", "/w/data", False, 0),
        ("bind", "/c", False, 0),
        ("tmpfs", "/t", False, 1 << 20),
        ("bind", "/bb", True, 0),
    ]
    assert step.mounts[2].source.startswith(f"{lab.store.data_root}/build/cache/")


async def test_mounted_content_is_part_of_the_key(lab: Lab) -> None:
    text = "FROM busybox\nRUN --mount=target=/ctx true\n"
    await lab.ok(text, {"x": "1"})
    assert (await lab.ok(text, {"x": "1"})).cached == 1
    assert (await lab.ok(text, {"x": "2"})).cached == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("RUN --mount=type=secret,id=s true", "the --mount option requires BuildKit."),
        ("RUN --mount=type=ssh true", "the --mount option requires BuildKit."),
        ("RUN --security=insecure true", "the --security option requires BuildKit."),
        ("RUN --mount=type=tmpfs,target=/ true", 'invalid mount target "/"'),
        ("RUN --mount=source=nope,target=/x true", 'failed to mount "nope": not found'),
        ("RUN", "no command specified"),
        ("EXPOSE 80/foo", "invalid proto: foo"),
        ("USER ${x:?must be set}", "x: must be set"),
        ("WORKDIR /bin/busybox/x", "Cannot mkdir: /bin/busybox/x is not a directory"),
    ],
)
async def test_steps_that_cannot_be(lab: Lab, line: str, message: str) -> None:
    built = await lab.build(f"FROM busybox\n{line}\n")
    assert message in built.error


async def test_failing_command(lab: Lab) -> None:
    built = await lab.build("FROM busybox\nRUN echo before; exit 3\nRUN never\n")
    message = "The command '/bin/sh -c echo before; exit 3' returned a non-zero code: 3"
    assert built.objects[-1] == {"errorDetail": {"code": 3, "message": message}, "error": message}
    assert "before\n" in built.text
    assert "Removed intermediate" not in built.text
    assert len(lab.runner.steps) == 1
    assert lab.runner.kept == [(lab.runner.steps[0].id, 3)]
    forced = await lab.build("FROM busybox\nRUN exit 1\n", force_rm=True)
    assert "Removed intermediate container" in forced.text
    assert len(lab.runner.kept) == 1


async def test_keeping_intermediate_containers(lab: Lab) -> None:
    assert "Removed" not in (await lab.ok("FROM busybox\nENV a=1\nRUN true\n", rm=False)).text
    assert lab.runner.kept == [(lab.runner.steps[0].id, 0)]


# --- before anything is built ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "options", "error", "message"),
    [
        ({}, {}, EngineError, "Cannot locate specified Dockerfile: Dockerfile"),
        ({"Dockerfile": ""}, {}, InvalidParameter, "the Dockerfile (Dockerfile) cannot be empty"),
        (
            {"Dockerfile": "# x\n"},
            {},
            DockerfileError,
            "failed to parse Dockerfile: file with no instructions",
        ),
        (
            {"Dockerfile": "FROM x\nFOO y\n"},
            {},
            DockerfileError,
            "dockerfile parse error on line 2: unknown instruction: FOO",
        ),
        (
            {"Dockerfile": "FROM x"},
            {"dockerfile": "other"},
            EngineError,
            "Cannot locate specified Dockerfile: other",
        ),
        (
            {"Dockerfile": "FROM x"},
            {"dockerfile": "../Dockerfile"},
            InvalidParameter,
            "forbidden path outside the build context: ../Dockerfile ()",
        ),
        (
            {"Dockerfile": "FROM x", ".dockerignore": "!\n"},
            {},
            InvalidParameter,
            "error reading .dockerignore",
        ),
        ({"Dockerfile": "FROM x"}, {"remote": "ftp://x"}, EngineError, "could not be recognized as URL"),
        ({"Dockerfile": "FROM x"}, {"remote": "client-session"}, InvalidParameter, "no longer supported"),
    ],
)
async def test_errors_before_the_first_step_are_plain(
    lab: Lab, files: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        await lab.build_tar(tar(files), **options)


async def test_garbage_is_no_context(lab: Lab) -> None:
    with pytest.raises(InvalidParameter):
        await lab.build_tar(io.BytesIO(b"not a tar" * 1000))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
async def test_compressed_contexts(lab: Lab, mode: str) -> None:
    built = await lab.build_tar(tar({"dockerfile": "FROM busybox\nCOPY x /\n", "x": "x"}, mode=mode))
    assert not built.error


async def test_another_dockerfile(lab: Lab) -> None:
    context = tar({"Dockerfile": "FROM nope\n", "sub/My.Dockerfile": "FROM busybox\nLABEL which=mine\n"})
    built = await lab.build_tar(context, dockerfile="sub/My.Dockerfile")
    assert not built.error
    assert lab.image.labels == {"which": "mine"}


async def test_quiet(lab: Lab) -> None:
    built = await lab.ok("FROM busybox\nENV a=1\n", quiet=True)
    assert built.objects == [{"stream": f"{lab.image.id}\n"}]


# --- cancellation ---------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_ends_the_build(lab: Lab) -> None:
    lab.runner.hang = True
    stream = lab.builder.build(BuildOptions(), tar({"Dockerfile": "FROM busybox\nRUN sleep\n"}))
    async for item in stream:
        if "Running in" in item.get("stream", ""):
            break
    await lab.runner.started.wait()
    await stream.aclose()
    assert lab.left_behind() == []


async def test_a_cancelled_task_ends_the_build(lab: Lab) -> None:
    lab.runner.hang = True
    task = asyncio.ensure_future(lab.build("FROM busybox\nRUN sleep\n"))
    await lab.runner.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lab.left_behind() == []


async def test_two_builds_at_once(lab: Lab) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(lab.build(f"FROM busybox\nRUN echo {i} > /x\nENV n={i}\n")) for i in range(3)
        ]
    assert all(not task.result().error for task in tasks)
