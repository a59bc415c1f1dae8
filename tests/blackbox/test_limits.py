"""cgroup limits that bind: each is exceeded once, and the kernel's answer is looked at."""

from __future__ import annotations

import re
import time

import harness


def test_memory(client: harness.Client) -> None:
    client.run(
        "run",
        "--name",
        "greedy",
        "--memory",
        "12m",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=40M",
        check=False,
    )
    try:
        assert (
            client("inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "greedy") == "true 137"
        )
    finally:
        client("rm", "greedy")


def test_pids(client: harness.Client) -> None:
    script = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; wait"
    done = client.run("run", "--rm", "--pids-limit", "10", "busybox", "sh", "-c", script, check=False)
    assert re.search("can't fork|Resource temporarily unavailable", done.stderr), done.stderr


def test_cpus(client: harness.Client) -> None:
    container = client("run", "-d", "--cpus", "0.2", "busybox", "sh", "-c", "while :; do :; done")
    try:
        # The kernel's own count of throttled periods, not a clock: a slow machine throttles too.
        def throttled() -> bool:
            status, sample = client.daemon.api("GET", f"/containers/{container}/stats?stream=0&one-shot=1")
            return status == 200 and sample["cpu_stats"]["throttling_data"]["throttled_periods"] > 0

        harness.eventually(throttled)
        assert client("inspect", "--format", "{{.HostConfig.NanoCpus}}", container) == "200000000"
    finally:
        client("rm", "-f", container)


def test_cpuset_and_shares_are_in_the_cgroup(client: harness.Client) -> None:
    script = "grep Cpus_allowed_list /proc/self/status | cut -f2"
    assert client("run", "--rm", "--cpuset-cpus", "0", "busybox", "sh", "-c", script) == "0"


def test_update_changes_a_running_container(client: harness.Client) -> None:
    container = client("run", "-d", "--memory", "32m", "busybox", "sleep", "100")
    try:
        client("update", "--memory", "64m", "--memory-swap", "128m", container)
        assert client("inspect", "--format", "{{.HostConfig.Memory}}", container) == str(64 << 20)
        status, sample = client.daemon.api("GET", f"/containers/{container}/stats?stream=0&one-shot=1")
        assert status == 200 and sample["memory_stats"]["limit"] == 64 << 20
    finally:
        client("rm", "-f", container)


def test_pause_stops_the_processes(client: harness.Client) -> None:
    container = client(
        "run", "-d", "busybox", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
    )
    try:
        harness.eventually(lambda: client("logs", container).count("\n") > 2)
        client("pause", container)
        assert (
            client("inspect", "--format", "{{.State.Status}} {{.State.Paused}}", container) == "paused true"
        )
        before = client("logs", container)
        time.sleep(0.4)
        assert client("logs", container) == before
        refused = client.run("exec", container, "true", check=False)
        assert refused.returncode == 1 and "is paused" in refused.stderr
        client("unpause", container)
        harness.eventually(lambda: client("logs", container) != before)
    finally:
        client("rm", "-f", container)
