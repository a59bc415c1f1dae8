"""The classic stream: order, colours, quiet builds, back-pressure."""

from __future__ import annotations

import asyncio

from satsuma.build.output import Output, StreamObject, error_object


async def collect(output: Output) -> list[StreamObject]:
    output.close()
    return [item async for item in output.objects()]


async def test_objects_come_in_order() -> None:
    output = Output()
    output.text("Step 1/1 : FROM x")
    output.text("\n")
    output.aux("sha256:1")
    assert await collect(output) == [
        {"stream": "Step 1/1 : FROM x"},
        {"stream": "\n"},
        {"aux": {"ID": "sha256:1"}},
    ]


async def test_stderr_is_red() -> None:
    output = Output()
    output(1, b"out\n")
    output(2, b"err\n")
    assert await collect(output) == [{"stream": "out\n"}, {"stream": "\x1b[91merr\n\x1b[0m"}]


async def test_characters_cut_in_two_come_out_whole() -> None:
    output = Output()
    for byte in "ä€".encode():
        output(1, bytes([byte]))
    output(1, b"\xc3")
    output.end_step()
    assert "".join(item["stream"] for item in await collect(output)) == "ä€\ufffd"


async def test_a_quiet_build_shows_only_its_result() -> None:
    output = Output(quiet=True)
    output.text("Step 1/1 : FROM x\n")
    output(1, b"noise")
    output.result("sha256:1\n")
    assert await collect(output) == [{"stream": "sha256:1\n"}]


async def test_a_quiet_build_that_fails_shows_everything() -> None:
    output = Output(quiet=True)
    output.text("Step 1/1 : FROM x\n")
    output.fail("no", 3)
    assert await collect(output) == [{"stream": "Step 1/1 : FROM x\n"}, error_object("no", 3)]


def test_error_objects() -> None:
    assert error_object("m") == {"errorDetail": {"message": "m"}, "error": "m"}
    assert error_object("m", 2) == {"errorDetail": {"code": 2, "message": "m"}, "error": "m"}


async def test_a_slow_client_makes_the_step_wait() -> None:
    output = Output()
    while True:
        output(1, b"x" * 65536)
        try:
            async with asyncio.timeout(0):
                await output.drain()
        except TimeoutError:
            break
    reader = output.objects()
    waiting = asyncio.ensure_future(output.drain())
    for _ in range(12):
        await anext(reader)
    await waiting
    await reader.aclose()
