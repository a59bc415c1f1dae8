"""The monitor dies at each of its failpoints: what the daemon then learns is true, and nothing is left."""

from __future__ import annotations

import asyncio
import os

import monitor_host
import pytest

from satsuma.monitor import client


@pytest.fixture
async def failing(monkeypatch):
    """Return a function that opens a host whose monitors fail at a point."""

    async def run(point, use):
        monkeypatch.setenv("SATSUMA_FAILPOINTS", point)
        async with monitor_host.open_host(monitor_host.FAKE_COMMAND) as host:
            await use(host)

    return run


@pytest.mark.parametrize("point", ["monitor.listening", "monitor.started"])
async def test_death_while_starting_is_a_failed_start(failing, point):
    async def use(host):
        spec = host.spec("sleep", "0.2")
        with pytest.raises(client.LaunchError) as caught:
            await host.launcher.launch(spec)
        assert caught.value.exit_code == 128
        assert client.running_ids(host.exec_root) == []

    await failing(f"{point}=exit", use)


async def test_error_while_starting_is_reported(failing):
    async def use(host):
        spec = host.spec("true")
        with pytest.raises(client.LaunchError, match="No space left"):
            await host.launcher.launch(spec)
        assert client.running_ids(host.exec_root) == []
        os.unlink(f"{host.exec_root}/monitor.log")

    await failing("monitor.listening=error(ENOSPC)", use)


@pytest.mark.parametrize(
    ("point", "code"), [("monitor.init_exited", 137), ("monitor.exit_written", 3), ("monitor.removed", 3)]
)
async def test_death_while_ending(failing, point, code):
    async def use(host):
        monitor = await host.launch("sh", "-c", "exit 3")
        assert (await monitor.wait()).exit_code == code
        assert client.read_exit(f"{host.root}/{1:064x}/exit.json").exit_code == code
        assert client.running_ids(host.exec_root) == []

    await failing(f"{point}=exit", use)


async def test_death_while_a_session_starts(failing):
    async def use(host):
        monitor = await host.launch("sleep", "0.2")
        with pytest.raises(Exception, match="is not running"):
            await monitor.exec(client.ExecSpec(exec_id="e", process={"args": ["true"]}))
        assert (await monitor.wait()).exit_code == 137

    await failing("monitor.exec.started=exit", use)


@pytest.mark.parametrize("point", ["monitor.log.rotated", "monitor.log.renamed"])
async def test_log_can_be_read_after_a_death_while_rotating(failing, point):
    async def use(host):
        from satsuma.monitor.logread import LogReader

        options = {"max-size": "1k", "max-file": "4"}
        monitor = await host.launch(
            "sh",
            "-c",
            "for i in $(seq 100); do echo line $i; done",
            log={"driver": "json-file", "options": options},
        )
        assert (await monitor.wait()).exit_code == 137
        with LogReader("json-file", f"{host.root}/{1:064x}/log") as reader:
            lines = [entry.line for entry in reader.read()]
        assert lines
        assert lines == [b"line %d\n" % n for n in range(1, len(lines) + 1)]

    await failing(f"{point}=exit", use)


async def test_daemon_without_a_launcher_says_so(tmp_path):
    async with asyncio.timeout(10):
        with pytest.raises(Exception, match="the launcher did not start"):
            await client.Launcher.start(str(tmp_path), command=("/bin/false",))


async def test_monitor_that_does_not_listen_yet_is_waited_for(failing):
    async def use(host):
        spec = host.spec("sleep", "1000")
        async with asyncio.TaskGroup() as group:
            launch = group.create_task(host.launcher.launch(spec))
            while not client.running_ids(host.exec_root):
                await asyncio.sleep(0.01)
            monitor = await client.reconnect(host.exec_root, spec.container_id, spec.exit_path)
        assert monitor is not None
        assert monitor.init_pid == launch.result().init_pid

    await failing("monitor.locked=sleep(0.3)", use)


async def test_second_monitor_of_a_container_is_refused(failing):
    async def use(host):
        first = await host.launcher.launch(host.spec("sleep", "1000", container_id="a" * 64))
        with pytest.raises(client.LaunchError, match="has a monitor already"):
            await host.launcher.launch(host.spec("sleep", "1000", container_id="a" * 64))
        assert (await first.status())["init_pid"] == first.init_pid
        again = await client.reconnect(host.exec_root, "a" * 64)
        assert again.init_pid == first.init_pid

    await failing("", use)
