"""The server over a real unix socket, with a fake engine."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import stat

import pytest
from api_fake import ID

from satsuma.api import serve
from satsuma.base.errors import InvalidParameter
from satsuma.wire import stdcopy, websocket

JSON = "Content-Type: application/json"
UPGRADE = ("Connection: Upgrade", "Upgrade: tcp")


async def settle(condition, seconds: float = 2.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "did not settle"
        await asyncio.sleep(0.005)


async def test_ping_has_dockers_headers_and_head_has_no_body(site):
    client = await site.connect()
    status, headers, body = await client.ask("GET", "/_ping")
    assert (status, body) == (200, b"OK")
    assert headers.get("api-version") == "1.51"
    assert headers.get("ostype") == "linux"
    assert headers.get("server").startswith("Docker/")
    assert headers.get("docker-experimental") == "false"
    assert headers.get("swarm") == "inactive"
    assert headers.get("cache-control") == "no-cache, no-store, must-revalidate"
    status, headers, body = await client.ask("HEAD", "/_ping")
    assert (status, body, headers.get("content-length")) == (200, b"", "0")


async def test_errors_of_golden_answers(site):
    client = await site.connect()
    cases = [
        ("GET", "/containers/nope/json", 404, "No such container: nope"),
        ("GET", "/images/nope/json", 404, "No such image: nope:latest"),
        ("GET", "/networks/nope", 404, "network nope not found"),
        ("GET", "/containers/json?filters=bad", 400, "invalid filter"),
        ("GET", "/nosuch", 404, "page not found"),
        ("POST", "/containers/json", 404, "page not found"),
        ("GET", "/v1.51/nosuch", 404, "page not found"),
        ("GET", "/containers/x/logs", 400, "Bad parameters: you must choose at least one stream"),
        ("GET", "/v1.99/info", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("POST", "/containers/x/wait?condition=bad", 400, 'invalid condition: "bad"'),
        ("POST", "/containers/x/kill", 409, "cannot kill container: x: container x is not running"),
        ("POST", "/images/a/b:1/push", 501, "POST /images/{name}/push is not supported by this engine yet"),
        ("POST", "/containers/broken/start", 500, "no space left on device"),
        ("POST", "/containers/bug/start", 500, "programming error"),
    ]
    for method, target, status, message in cases:
        got, headers, body = await client.ask(method, target)
        assert (got, json.loads(body)) == (status, {"message": message}), target
        assert body.endswith(b"}\n")
        assert headers.get("content-type") == "application/json"


async def test_too_old_a_version_gets_plain_text(site):
    client = await site.connect()
    status, headers, body = await client.ask("GET", "/v1.23/info")
    assert status == 400
    assert headers.get("content-type") == "text/plain; charset=utf-8"
    assert body == (
        b"client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a "
        b"newer version\n"
    )


async def test_swarm_and_plugins(site):
    client = await site.connect()
    for target in ("/swarm", "/services", "/nodes", "/secrets/x", "/v1.30/configs"):
        status, _, body = await client.ask("GET", target)
        assert status == 503
        assert "This node is not a swarm manager." in json.loads(body)["message"]
    assert (await client.ask("GET", "/plugins"))[2] == b"[]\n"


async def test_start_answers_204_and_304_without_body_or_length(site):
    client = await site.connect()
    for name, status in (("web", 204), ("running", 304)):
        got, headers, body = await client.ask("POST", f"/containers/{name}/start")
        assert (got, body) == (status, b"")
        assert not headers.has("content-length")
        assert not headers.has("transfer-encoding")


async def test_start_refuses_a_body(site):
    client = await site.connect()
    assert (await client.ask("POST", "/containers/web/start", b"{}", JSON))[0] == 204
    status, _, body = await client.ask("POST", "/containers/web/start", b'{"Binds":[]}', JSON)
    assert status == 400
    assert b"starting container with non-empty request body" in body


async def test_create_checks_content_type_and_body(site):
    client = await site.connect()
    for body, field, message in (
        (
            b"{}",
            "Content-Type: text/plain",
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
        (b"", JSON, "invalid JSON: got EOF while reading request body"),
        (b'{"Image":', JSON, "invalid JSON: unexpected EOF"),
    ):
        status, _, answer = await client.ask("POST", "/containers/create", body, field)
        assert (status, json.loads(answer)["message"]) == (400, message)
    status, _, answer = await client.ask(
        "POST", "/containers/create?name=web", b'{"image":"bb","hostconfig":null}', JSON
    )
    assert status == 201
    assert json.loads(answer) == {"Id": ID, "Warnings": []}
    assert site.engine.calls[-1][1] == "web"


async def test_options_is_always_fine(site):
    client = await site.connect()
    assert (await client.ask("OPTIONS", "/anything"))[0] == 200


async def test_unclean_path_is_redirected(site):
    client = await site.connect()
    status, headers, _ = await client.ask("GET", "/v1.51//containers/./json?all=1")
    assert (status, headers.get("location")) == (301, "/v1.51/containers/json?all=1")


async def test_image_names_with_slashes(site):
    client = await site.connect()
    _, _, body = await client.ask("GET", "/v1.44/images/127.0.0.1:5000/x/y/json")
    assert json.loads(body)["Name"] == "127.0.0.1:5000/x/y"
    assert (await client.ask("DELETE", "/images/a/b/c"))[2] == b'[{"Untagged":"a/b/c"}]\n'
    assert (await client.ask("POST", "/images/a%2Fb/tag?repo=r&tag=t"))[0] == 201
    assert site.engine.calls[-1] == ("tag", "a/b", "r", "t")


async def test_pipelined_requests_are_answered_in_order(site):
    client = await site.connect()
    await client.send(
        b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
        b"GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n"
        b"POST /containers/web/start HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    )
    assert [(await client.answer())[0] for _ in range(3)] == [200, 404, 204]


async def test_connection_close_is_honoured(site):
    client = await site.connect()
    status, headers, _ = await client.ask("GET", "/_ping", None, "Connection: close")
    assert (status, headers.get("connection")) == (200, "close")
    assert await client.read_all() == b""


async def test_http_1_0_gets_no_chunks(site):
    client = await site.connect()
    await client.send(b"GET /containers/web/logs?stdout=1 HTTP/1.0\r\n\r\n")
    status, headers, body = await client.answer()
    assert status == 200
    assert not headers.has("transfer-encoding")
    assert body == b"".join(stdcopy.encode(1 + n % 2, b"line %d\n" % n) for n in range(3))


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n", 431),
    ],
)
async def test_malformed_requests_end_the_connection(site, request_bytes, status):
    client = await site.connect()
    await client.send(request_bytes)
    got, headers, body = await client.answer()
    assert got == status
    assert headers.get("connection") == "close"
    assert body.startswith(b"%d " % status)


async def test_bad_chunk_is_400_and_closes(site):
    client = await site.connect()
    await client.send(
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\n"
        + JSON.encode()
        + b"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    status, headers, body = await client.answer()
    assert (status, headers.get("connection")) == (400, "close")
    assert b"invalid chunk size" in body


# -- bodies --------------------------------------------------------------------------------------------------------


async def test_unread_body_keeps_the_connection(site):
    client = await site.connect()
    size = 3_000_000
    await client.send(
        b"PUT /containers/nope/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    )
    assert (await client.answer())[0] == 404
    for _ in range(30):
        await client.send(b"x" * 100_000)
    assert (await client.ask("GET", "/_ping"))[2] == b"OK"


async def test_partly_read_body_keeps_the_connection(site):
    client = await site.connect()
    status, _, body = await client.ask("PUT", "/containers/partial/archive?path=/", b"x" * 3_000_000)
    assert (status, json.loads(body)["message"]) == (400, "container rootfs is marked read-only")
    assert (await client.ask("GET", "/_ping"))[2] == b"OK"


async def test_chunked_upload_reaches_a_thread(site):
    client = await site.connect()
    await client.send(
        b"PUT /containers/web/archive?path=/x%20y HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(40):
        await client.send(b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000))
    await client.send(b"0\r\nTrailer: y\r\n\r\n")
    assert (await client.answer())[0] == 200
    assert site.engine.calls[-1] == ("put", "web", "/x y", 4_000_000)
    assert (await client.ask("GET", "/_ping"))[2] == b"OK"


async def test_shutdown_frees_a_thread_that_waits_for_a_body(site):
    client = await site.connect()
    await client.send(b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    await asyncio.sleep(0.05)
    await asyncio.wait_for(site.server.close(grace=0.1), 2)
    assert not [call for call in site.engine.calls if call[0] == "load"]


async def test_build_from_a_url_gets_no_context(site):
    client = await site.connect()
    _, _, body = await client.ask("POST", "/build?remote=http%3A%2F%2Fx%2Fy")
    assert body.startswith(b'{"stream":"no context\\n"}\r\n')


async def test_cut_upload_fails_in_the_thread(site):
    client = await site.connect()
    await client.send(b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    await asyncio.sleep(0.05)
    client.writer.close()
    await asyncio.sleep(0.05)
    assert not [call for call in site.engine.calls if call[0] == "load"]


async def test_100_continue_is_sent_when_the_body_is_wanted(site):
    client = await site.connect()
    await client.send(
        b"PUT /containers/web/archive?path=/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    interim = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 2)
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"abc")
    assert (await client.answer())[0] == 200
    assert (await client.ask("GET", "/_ping"))[2] == b"OK"


async def test_refusal_without_100_continue_closes(site):
    client = await site.connect()
    await client.send(
        b"PUT /containers/web/archive HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    status, headers, _ = await client.answer()
    assert (status, headers.get("connection")) == (400, "close")


async def test_build_streams_json_lines_with_crlf(site):
    client = await site.connect()
    status, headers, body = await client.ask(
        "POST", "/build?t=a&t=b:1&buildargs=%7B%22A%22:null%7D&rm=0", b"tar"
    )
    assert (status, headers.get("transfer-encoding")) == (200, "chunked")
    assert body == b'{"stream":"context 3\\n"}\r\n{"aux":{"ID":"sha256:' + ID.encode() + b'"}}\r\n'
    options = site.engine.calls[-1][1]
    assert (options.tags, options.build_args, options.rm) == (("a", "b:1"), {"A": None}, False)
    _, _, body = await client.ask("POST", "/v1.29/build", b"tar")
    assert b"aux" not in body


async def test_load_reports_errors_in_band_with_200(site):
    client = await site.connect()
    status, _, body = await client.ask("POST", "/images/load", b"bad")
    assert status == 200
    assert body == b'{"errorDetail":{"message":"invalid archive"},"error":"invalid archive"}\r\n'
    _, _, body = await client.ask("POST", "/images/load", b"good")
    assert body == b'{"stream":"Loaded image: \\u003ca\\u0026b\\u003e\\n"}\r\n'


async def test_pull_error_before_and_after_the_first_line(site):
    client = await site.connect()
    status, headers, body = await client.ask("POST", "/images/create?fromImage=nope&tag=latest")
    assert (status, json.loads(body)["message"]) == (404, "pull access denied for nope")
    assert not headers.has("transfer-encoding")
    auth = base64.urlsafe_b64encode(b'{"username":"u"}').decode()
    status, _, body = await client.ask(
        "POST", "/images/create?fromImage=x:&tag=t", None, f"X-Registry-Auth: {auth}"
    )
    assert status == 200
    assert body.endswith(b'{"errorDetail":{"message":"network is gone"},"error":"network is gone"}\r\n')
    assert site.engine.calls[-1] == ("pull", "x", {"tag": "t", "platform": "", "auth": {"username": "u"}})


# -- streams -------------------------------------------------------------------------------------------------------


async def test_logs_are_stdcopy_frames_and_raw_with_a_terminal(site):
    client = await site.connect()
    _, headers, body = await client.ask("GET", "/v1.42/containers/web/logs?stdout=1&tail=5&since=1.5")
    assert headers.get("content-type") == "application/vnd.docker.multiplexed-stream"
    assert stdcopy.Decoder().feed(body) == [(1 + n % 2, b"line %d\n" % n) for n in range(3)]
    assert site.engine.calls[0][1]["tail"] == 5
    assert site.engine.calls[0][1]["since_ns"] == 1_500_000_000
    _, headers, body = await client.ask("GET", "/v1.41/containers/web/logs?stdout=True")
    assert headers.get("content-type") == "application/vnd.docker.raw-stream"
    _, headers, body = await client.ask("GET", "/containers/tty/logs?stdout=1&tail=all")
    assert (headers.get("content-type"), body) == (
        "application/vnd.docker.raw-stream",
        b"line 0\nline 1\nline 2\n",
    )


async def test_log_errors_are_in_band(site):
    client = await site.connect()
    _, _, body = await client.ask("GET", "/containers/failing/logs?stdout=1")
    assert stdcopy.Decoder().feed(body)[-1] == (3, b"Error grabbing logs: disk is gone\n")


async def test_slow_reader_gets_the_whole_log(site):
    client = await site.connect()
    await client.send(b"GET /containers/endless/logs?stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.2)
    decoder = stdcopy.Decoder()
    frames = 0
    from satsuma.wire.http_client import ResponseParser

    parser = ResponseParser("GET")
    while frames < 100_000:
        parser.feed(await asyncio.wait_for(client.reader.read(65536), 5))
        while piece := parser.read_body():
            frames += len(decoder.feed(piece))
    assert not any(call == ("logs closed",) for call in site.engine.calls)


async def test_client_that_leaves_cancels_the_stream(site):
    client = await site.connect()
    await client.send(b"GET /containers/follow/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.reader.readuntil(b"line 2\n")
    client.writer.close()
    await settle(lambda: ("logs closed",) in site.engine.calls)


async def test_client_that_leaves_does_not_stop_a_start(site):
    client = await site.connect()
    await client.send(b"POST /containers/slow/start HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.02)
    client.writer.close()
    await asyncio.sleep(0.02)
    site.engine.gate.set()
    await settle(lambda: ("started",) in site.engine.calls)


async def test_events_send_their_head_at_once_and_each_message_when_it_comes(site):
    client = await site.connect()
    await client.send(
        b"GET /v1.45/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    status, _, _ = await client.answer(whole=False)
    assert status == 200
    site.engine.event_queue.put_nowait({"Type": "image", "Action": "create"})
    site.engine.event_queue.put_nowait({"Type": "container", "Action": "start"})
    assert b'{"Type":"container","Action":"start"}\n' in await asyncio.wait_for(client.reader.read(1000), 2)
    assert site.engine.calls[0] == ("events", None, None, {"type": ["container"]})
    client.writer.close()
    await settle(lambda: ("events closed",) in site.engine.calls)


async def test_wait_flushes_its_head_before_the_container_ends(site):
    client = await site.connect()
    await client.send(b"POST /containers/web/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 2)
    other = await site.connect()
    assert (await other.ask("POST", "/containers/web/start"))[0] == 204
    site.engine.waiters[0].future.set_result({"StatusCode": 3})
    assert b'{"StatusCode":3}\n' in await asyncio.wait_for(client.reader.read(1000), 2)
    await settle(lambda: site.engine.waiters[0].closed)


async def test_wait_notices_that_the_client_left(site):
    client = await site.connect()
    await client.send(b"POST /containers/web/wait HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 2)
    client.writer.close()
    await settle(lambda: site.engine.waiters[0].closed)


async def test_export_that_fails_half_way_is_cut(site):
    client = await site.connect()
    await client.send(b"GET /containers/failing/export HTTP/1.1\r\nHost: x\r\n\r\n")
    data = await client.read_all()
    assert data.count(b"x" * 100_000) == 3
    assert not data.endswith(b"0\r\n\r\n")
    status, _, body = await (await site.connect()).ask("GET", "/containers/nope/export")
    assert (status, json.loads(body)["message"]) == (404, "No such container: nope")


async def test_archive_has_the_stat_header(site):
    client = await site.connect()
    for method in ("HEAD", "GET"):
        status, headers, body = await client.ask(method, "/containers/web/archive?path=/etc")
        assert status == 200
        stat_ = json.loads(base64.b64decode(headers.get("x-docker-container-path-stat")))
        assert stat_["mode"] == 2147484141
        assert len(body) == (300_000 if method == "GET" else 0)
    assert (await client.ask("GET", "/containers/web/archive"))[0] == 400


# -- hijack --------------------------------------------------------------------------------------------------------


async def hijack(
    client, target: str, extra: bytes = b"", fields: tuple[str, ...] = UPGRADE, body: bytes = b""
) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: x", *fields, JSON, f"Content-Length: {len(body)}"]
    await client.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body + extra)
    return await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)


@pytest.mark.parametrize("delay", [0.0, 0.1])
async def test_attach_upgrades_and_keeps_early_bytes_and_half_close(site, delay):
    site.engine.attach_delay = delay
    client = await site.connect()
    lines = [
        "POST /v1.51/containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1",
        "Host: x",
        *UPGRADE,
        "",
        "early",
    ]
    await client.send("\r\n".join(lines).encode())
    await client.send(b" bird")
    client.writer.write_eof()
    head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
    assert head == (
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    frames = stdcopy.Decoder().feed(await client.read_all())
    assert b"".join(data for stream, data in frames if stream == 1) == b"EARLY BIRD"
    assert frames[-1] == (2, b"EOF seen")


async def test_attach_without_upgrade_is_200_raw(site):
    client = await site.connect()
    head = await hijack(client, "/containers/web/attach?stream=1", b"abc", fields=())
    assert head == b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    client.writer.write_eof()
    assert stdcopy.Decoder().feed(await client.read_all()) == [(1, b"ABC"), (2, b"EOF seen")]


async def test_content_type_of_a_hijack_by_version_and_terminal(site):
    for target, kind in (
        ("/v1.41/containers/web/attach", b"raw-stream"),
        ("/v1.42/containers/web/attach", b"multiplexed-stream"),
        ("/v1.51/containers/tty/attach", b"raw-stream"),
    ):
        client = await site.connect()
        head = await hijack(client, target)
        assert b"Content-Type: application/vnd.docker." + kind + b"\r\n" in head
        client.writer.write_eof()
        await client.read_all()


async def test_exec_start_hijacks_after_its_body(site):
    client = await site.connect()
    head = await hijack(client, "/exec/1/start", b"in", body=b'{"Tty":true,"ConsoleSize":[24,80]}')
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    client.writer.write_eof()
    assert await client.read_all() == b"INEOF seen"
    assert site.engine.calls[-1][1].console_size == [24, 80]


async def test_detached_exec_answers_an_empty_200(site):
    client = await site.connect()
    status, headers, body = await client.ask("POST", "/exec/1/start", b'{"Detach":true}', JSON)
    assert (status, headers.get("content-length"), body) == (200, "0", b"")


async def test_errors_before_a_hijack_are_ordinary_answers(site):
    client = await site.connect()
    for target in ("/containers/nope/attach", "/exec/nope/start"):
        status, _, body = await client.ask("POST", target, b"{}", JSON, *UPGRADE)
        assert status == 404
        assert "nope" in json.loads(body)["message"]
    assert (await client.ask("GET", "/_ping"))[2] == b"OK"


async def test_exec_that_cannot_start_says_so_in_the_stream(site):
    client = await site.connect()
    head = await hijack(client, "/exec/unstartable/start", body=b"{}")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert stdcopy.Decoder().feed(await client.read_all()) == [(1, b"OCI runtime exec failed: nope\r\n")]


async def test_hijack_over_a_connection_that_was_used_before(site):
    client = await site.connect()
    await client.ask("GET", "/_ping")
    await hijack(client, "/containers/tty/attach", b"x")
    client.writer.write_eof()
    assert await client.read_all() == b"XEOF seen"


async def test_attach_over_websocket(site):
    client = await site.connect()
    key = base64.b64encode(b"0123456789abcdef").decode()
    lines = [
        "GET /containers/web/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1",
        "Host: x",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    await client.send("\r\n".join(lines).encode() + b"\r\n\r\n")
    head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
    assert websocket.accept_key(key).encode() in head
    mask = b"abcd"
    await client.send(websocket.encode(websocket.PING, b"hey", mask=mask))
    await client.send(websocket.encode(websocket.BINARY, b"hello", mask=mask))
    decoder = websocket.Decoder(masked=False)
    frames = []
    while len(frames) < 2:
        frames += decoder.feed(await asyncio.wait_for(client.reader.read(1000), 5))
    assert sorted(frames) == [(websocket.BINARY, b"HELLO"), (websocket.PONG, b"hey")]
    await client.send(websocket.encode(websocket.CLOSE, b"", mask=mask))
    frames = decoder.feed(await client.read_all())
    assert frames == [(websocket.BINARY, b"EOF seen"), (websocket.CLOSE, b"\x03\xe8")]


async def test_websocket_without_its_handshake_is_400(site):
    client = await site.connect()
    assert (await client.ask("GET", "/containers/web/attach/ws"))[0] == 400


# -- the server ----------------------------------------------------------------------------------------------------


async def test_socket_mode_and_removal(site):
    mode = os.stat(site.path)
    assert stat.S_IMODE(mode.st_mode) == 0o660
    await site.server.close(grace=0.1)
    assert not os.path.exists(site.path)


async def test_close_ends_streams_and_lets_requests_finish(site):
    stream, start, idle = await site.connect(), await site.connect(), await site.connect()
    await stream.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    await stream.answer(whole=False)
    await start.send(b"POST /containers/slow/start HTTP/1.1\r\nHost: x\r\n\r\n")
    await idle.ask("GET", "/_ping")
    closing = asyncio.ensure_future(site.server.close(grace=5))
    await asyncio.sleep(0.05)
    assert await idle.read_all() == b""
    assert not closing.done()
    site.engine.gate.set()
    status, headers, _ = await start.answer()
    assert (status, headers.get("connection")) == (204, "close")
    await start.close()
    await asyncio.wait_for(closing, 2)


async def test_tcp_and_bad_hosts(site):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = await serve(site.engine, [f"tcp://127.0.0.1:{port}"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /containers/web/archive?path=/ HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip, deflate\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert b"Content-Encoding: gzip" in await reader.read()
    writer.close()
    await server.close(grace=0.1)
    for host in ("http://x", "unix://relative", "tcp://x:99999", "fd://x"):
        with pytest.raises(InvalidParameter):
            await serve(site.engine, [host])
