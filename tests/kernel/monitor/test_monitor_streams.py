"""Attach, logs, exits and sessions over plain processes, through the real launcher, monitor and client."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shutil
import signal

import pytest
from monitor_host import frames, joined

from satsuma.base import errors
from satsuma.monitor import client

pytestmark = pytest.mark.root


async def test_exit_code_and_log(host):
    monitor = await host.launch("sh", "-c", "echo out; echo err >&2; printf end; exit 3")
    status = await monitor.wait()
    assert (status.exit_code, status.oom_killed) == (3, False)
    records = [json.loads(line) for line in host.log().splitlines()]
    assert [(r["stream"], r["log"]) for r in records if r["stream"] == "stdout"] == [
        ("stdout", "out\n"),
        ("stdout", "end"),
    ]
    assert [(r["stream"], r["log"]) for r in records if r["stream"] == "stderr"] == [("stderr", "err\n")]
    assert client.read_exit(f"{host.root}/{1:064x}/exit.json") == status
    assert client.running_ids(host.exec_root) == []


async def test_signal_is_128_plus_number(host):
    monitor = await host.launch("sleep", "1000")
    await monitor.signal(signal.SIGTERM)
    assert (await monitor.wait()).exit_code == 143


async def test_program_that_is_not_there(host):
    with pytest.raises(client.LaunchError) as caught:
        await host.launch("no-such-program")
    assert caught.value.exit_code == 127
    assert str(caught.value) == 'exec: "no-such-program": executable file not found in $PATH'
    assert client.running_ids(host.exec_root) == []


async def test_attached_before_start_sees_everything_framed(host):
    peer = host.peer()
    monitor = await host.launch("sh", "-c", "echo out; echo err >&2", attaches=[peer.spec()])
    peer.sent()
    data = await peer.read_all()
    assert joined(data, 1) == b"out\n"
    assert joined(data, 2) == b"err\n"
    assert (await monitor.wait()).exit_code == 0


async def test_half_close_is_eof_while_output_goes_on(host):
    peer = host.peer()
    monitor = await host.launch(
        "sh", "-c", "cat; echo done", open_stdin=True, stdin_once=True, attaches=[peer.spec(stdin=True)]
    )
    peer.sent()
    await peer.send(b"hello\n")
    peer.half_close()
    assert joined(await peer.read_all(), 1) == b"hello\ndone\n"
    assert (await monitor.wait()).exit_code == 0


async def test_initial_stdin_comes_first(host):
    peer = host.peer()
    await host.launch(
        "cat",
        open_stdin=True,
        stdin_once=True,
        attaches=[peer.spec(stdin=True, initial_stdin=b"first ", framed=False)],
    )
    peer.sent()
    await peer.send(b"second")
    peer.half_close()
    assert await peer.read_all() == b"first second"


async def test_client_that_closes_without_stdin_once_leaves_the_container_running(host):
    peer = host.peer()
    monitor = await host.launch("cat", open_stdin=True, attaches=[peer.spec(stdin=True)])
    peer.sent()
    await peer.send(b"x\n")
    await peer.read_until(b"x\n")
    peer.half_close()
    assert await peer.read_all() == b""
    second = host.peer()
    attachment = await monitor.attach(second.spec(stdin=True, framed=False))
    second.sent()
    await second.send(b"again\n")
    assert await second.read_until(b"again\n") == b"again\n"
    second.close()
    assert await attachment.ended == "closed"
    await monitor.close_stdin()
    assert (await monitor.wait()).exit_code == 0


async def test_big_input_and_output_go_through_a_pipe_unchanged(host):
    peer = host.peer()
    payload = os.urandom(6_000_000)
    await host.launch(
        "cat",
        open_stdin=True,
        stdin_once=True,
        log={"driver": "none"},
        attaches=[peer.spec(stdin=True, framed=False)],
    )
    peer.sent()

    async def send():
        await peer.send(payload)
        peer.half_close()

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        received = group.create_task(peer.read_all())
    assert received.result() == payload


async def test_slow_client_holds_the_process_back_and_loses_nothing(host):
    peer = host.peer()
    size = 8_000_000
    monitor = await host.launch(
        "sh", "-c", f"head -c {size} /dev/zero", log={"driver": "none"}, attaches=[peer.spec(framed=False)]
    )
    peer.sent()
    await asyncio.sleep(0.3)
    assert not monitor.exited
    assert len(await peer.read_all()) == size
    assert (await monitor.wait()).exit_code == 0


async def test_client_that_goes_away_is_dropped(host):
    peer = host.peer()
    monitor = await host.launch(
        "sh", "-c", "head -c 4000000 /dev/zero", log={"driver": "none"}, attaches=[peer.spec()]
    )
    peer.close()
    assert (await monitor.wait()).exit_code == 0


async def test_terminal_resize_and_detach(host):
    peer = host.peer()
    monitor = await host.launch(
        "sh",
        "-c",
        "stty size; read a; stty size; read b",
        tty=True,
        open_stdin=True,
        console_size=(24, 80),
        attaches=[peer.spec(stdin=True)],
    )
    peer.sent()
    assert b"24 80" in await peer.read_until(b"80\r\n")
    await monitor.resize(100, 40)
    await peer.send(b"\n")
    assert b"40 100" in await peer.read_until(b"100\r\n")
    await peer.send(b"\x10\x11")
    await peer.read_all()
    assert not monitor.exited
    second = host.peer()
    await monitor.attach(second.spec(stdin=True, detach_keys=b""))
    second.sent()
    await second.send(b"\n")
    assert (await monitor.wait()).exit_code == 0


async def test_exec_with_both_streams(host):
    monitor = await host.launch("sleep", "1000")
    peer = host.peer()
    pid = await monitor.exec(
        client.ExecSpec(
            exec_id="e1",
            process={"args": ["sh", "-c", "cat; echo err >&2; exit 7"]},
            attach=peer.spec(stdin=True),
        )
    )
    peer.sent()
    assert pid > 0
    await peer.send(b"text")
    peer.half_close()
    data = await peer.read_all()
    assert (joined(data, 1), joined(data, 2)) == (b"text", b"err\n")
    assert await monitor.exec_wait("e1") == 7
    assert (await monitor.status())["exec_codes"] == {"e1": 7}


async def test_exec_that_does_not_start_leaves_the_socket_to_the_caller(host):
    monitor = await host.launch("sleep", "1000")
    peer = host.peer()
    with pytest.raises(client.LaunchError) as caught:
        await monitor.exec(client.ExecSpec(exec_id="e1", process={"args": ["nope"]}, attach=peer.spec()))
    assert caught.value.exit_code == 127
    peer.theirs.send(b"still ours")
    peer.sent()
    assert await peer.read_all() == b"still ours"


async def test_exec_detach_says_so_in_the_stream(host):
    monitor = await host.launch("sleep", "1000")
    peer = host.peer()
    await monitor.exec(
        client.ExecSpec(
            exec_id="e1", process={"args": ["cat"]}, tty=True, attach=peer.spec(stdin=True, framed=False)
        )
    )
    peer.sent()
    await peer.send(b"\x10\x11")
    assert await peer.read_all() == b"exec attach failed: error on attach stdin: read escape sequence\r\n"
    await monitor.signal(9, "e1")
    assert await monitor.exec_wait("e1") == 137


async def test_background_process_does_not_hold_the_session(host):
    monitor = await host.launch("sleep", "1000")
    peer = host.peer()
    await monitor.exec(
        client.ExecSpec(
            exec_id="e1", process={"args": ["sh", "-c", "echo one; sleep 3 & exit 5"]}, attach=peer.spec()
        )
    )
    peer.sent()
    async with asyncio.timeout(1.5):
        assert joined(await peer.read_all(), 1) == b"one\n"
        assert await monitor.exec_wait("e1") == 5


async def test_sessions_end_with_the_container(host):
    monitor = await host.launch("sleep", "1000")
    await monitor.exec(client.ExecSpec(exec_id="e1", process={"args": ["sleep", "1000"]}))
    await monitor.signal(9)
    assert (await monitor.wait()).exit_code == 137
    assert await monitor.exec_wait("e1") == 137


async def test_many_descriptors_are_held(host):
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(600)]
    try:
        monitor = await host.launch("sleep", "1000", extras={"hold_fds": fds})
    finally:
        for fd in fds:
            os.close(fd)
    assert len(os.listdir(f"/proc/{monitor.pid}/fd")) >= 600


async def test_daemon_dies_and_another_reconnects(host):
    monitor = await host.launch("sh", "-c", "echo before; read x; echo after; exit 4", open_stdin=True)
    await monitor.exec(client.ExecSpec(exec_id="e1", process={"args": ["sh", "-c", "exit 9"]}))
    assert await monitor.exec_wait("e1") == 9
    init_pid = monitor.init_pid
    monitor.close()
    await host.launcher.close()
    again = await client.reconnect(host.exec_root, monitor.container_id)
    assert again is not None
    assert again.init_pid == init_pid
    assert again.started_at_ns == monitor.started_at_ns
    assert await again.exec_wait("e1") == 9
    peer = host.peer()
    await again.attach(peer.spec(stdin=True, framed=False))
    peer.sent()
    await peer.send(b"\n")
    assert await peer.read_all() == b"after\n"
    assert (await again.wait()).exit_code == 4
    assert [json.loads(line)["log"] for line in host.log().splitlines()] == ["before\n", "after\n"]


async def test_the_launcher_ends_while_a_spare_is_asked_for(host, monkeypatch):
    monkeypatch.setattr(client, "SPARE_FRESH", -1.0)
    pid = host.launcher.pid
    host.launcher.freshen()
    async with asyncio.timeout(60):
        await host.launcher.close()
        await asyncio.sleep(0.1)
        await host.launcher.close()
    assert host.launcher.pid == pid, "started again by its end"
    with pytest.raises(errors.System, match="ended"):
        await host.launch("true")


async def test_exit_while_no_daemon_is_there(host):
    monitor = await host.launch("sh", "-c", "read x; exit 6", open_stdin=True)
    await monitor.close_stdin()
    monitor.close()
    path = f"{host.root}/{1:064x}/exit.json"
    async with asyncio.timeout(5):
        while client.read_exit(path) is None or client.running_ids(host.exec_root):
            await asyncio.sleep(0.01)
    assert await client.reconnect(host.exec_root, monitor.container_id, path) is None
    assert client.read_exit(path).exit_code == 6


async def test_service_stop_signals_do_not_end_a_monitor(host):
    monitor = await host.launch("sleep", "1000")
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        os.kill(monitor.pid, signum)
    assert (await monitor.status())["init_pid"] == monitor.init_pid


async def test_killed_monitor_counts_as_137(host):
    monitor = await host.launch("sleep", "1000")
    # As if it had been writing at that moment.
    with open(f"{host.exec_root}/containers/{1:064x}/monitor.json.{monitor.pid}.tmp", "wb"):
        os.kill(monitor.pid, signal.SIGKILL)
    status = await monitor.wait()
    assert status.exit_code == 137
    assert client.read_exit(f"{host.root}/{1:064x}/exit.json").exit_code == 137
    assert client.running_ids(host.exec_root) == []
    with pytest.raises(errors.Conflict):
        await monitor.attach(host.peer().spec())


async def test_launcher_is_started_again(host):
    os.kill(host.launcher.pid, signal.SIGKILL)
    await asyncio.sleep(0.05)
    monitor = await host.launch("true")
    assert (await monitor.wait()).exit_code == 0


async def test_launches_run_in_parallel(host):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(host.launch("sh", "-c", f"exit {n}")) for n in range(20)]
    assert [(await task.result().wait()).exit_code for task in tasks] == list(range(20))


async def test_netns_has_lo_up_and_its_own_routing_socket(host):
    namespace, netlink = await host.launcher.make_netns()
    try:
        assert os.readlink(f"/proc/self/fd/{namespace}").startswith("net:[")
        assert os.fstat(namespace).st_ino != os.stat("/proc/self/ns/net").st_ino
    finally:
        os.close(namespace)
        os.close(netlink)


async def test_frames_follow_the_reads(host):
    peer = host.peer()
    await host.launch(
        "sh", "-c", "printf a; sleep 0.2; printf b; sleep 0.2; printf c", attaches=[peer.spec()]
    )
    peer.sent()
    assert frames(await peer.read_all()) == [(1, b"a"), (1, b"b"), (1, b"c")]


async def test_exit_record_that_cannot_be_written_is_still_told(host):
    monitor = await host.launch("sh", "-c", "read x; exit 6", open_stdin=True)
    shutil.rmtree(f"{host.root}/{1:064x}")
    await monitor.close_stdin()
    assert (await monitor.wait()).exit_code == 6
    os.unlink(f"{host.exec_root}/monitor.log")


async def end_without_room_and_daemon(host):
    """Let a container end with 6 when its exit record cannot be written and nobody listens; return its monitor."""
    go = f"{host.root}/go"
    monitor = await host.launch("sh", "-c", f"until [ -e {go} ]; do sleep 0.02; done; exit 6")
    directory = f"{host.root}/{1:064x}"
    os.rename(directory, directory + ".away")
    monitor.close()
    pathlib.Path(go).touch()
    errors_file = pathlib.Path(f"{host.exec_root}/monitor.log")
    async with asyncio.timeout(60):
        while not errors_file.exists():
            await asyncio.sleep(0.01)
    return monitor


async def test_exit_code_waits_for_a_daemon_when_there_is_no_room(host):
    monitor = await end_without_room_and_daemon(host)
    path = f"{host.root}/{1:064x}/exit.json"
    again = await client.reconnect(host.exec_root, monitor.container_id, path)
    assert again is not None
    assert (await again.wait()).exit_code == 6
    assert client.read_exit(path) is None
    os.unlink(f"{host.exec_root}/monitor.log")


async def test_exit_code_waits_for_room_when_there_is_no_daemon(host):
    monitor = await end_without_room_and_daemon(host)
    directory = f"{host.root}/{1:064x}"
    os.rename(directory + ".away", directory)
    async with asyncio.timeout(60):
        # No connection before: a monitor that can tell somebody does not wait for room.
        while client.read_exit(f"{directory}/exit.json") is None:
            await asyncio.sleep(0.01)
    again = await client.reconnect(host.exec_root, monitor.container_id, f"{directory}/exit.json")
    assert again is None or (await again.wait()).exit_code == 6
    assert client.read_exit(f"{directory}/exit.json").exit_code == 6
    os.unlink(f"{host.exec_root}/monitor.log")
