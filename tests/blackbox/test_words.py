"""Refusals in the words of dockerd 28.5, which users search for and programs match on; observed on the real one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import harness

CREATE_FAILED = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: "
)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["-u", "nope"], 125, "unable to find user nope: no matching entries in passwd file"),
        (["-u", "0:nope"], 125, "unable to find group nope: no matching entries in group file"),
        (["-u", "9999999999"], 125, "uids and gids must be in range 0-2147483647"),
        (["-w", "/etc/passwd"], 125, "Cannot mkdir: /etc/passwd is not a directory"),
        (["--net", "nope"], 125, "failed to set up container networking: network nope not found"),
        (
            ["--net", "container:nope"],
            125,
            "joining network namespace of container: No such container: nope",
        ),
        (["--pid", "container:nope"], 125, "No such container: nope"),
        (["--ipc", "container:nope"], 125, "No such container: nope"),
        (["--link", "nope"], 125, "could not get container for nope: No such container: nope"),
        (["--tmpfs", "/t:foo=bar"], 125, 'invalid tmpfs option "foo"'),
        (["--storage-opt", "foo=1"], 125, "Unknown option foo"),
        (
            ["--net", "host", "--sysctl", "net.ipv4.ip_forward=0"],
            125,
            CREATE_FAILED + 'sysctl "net.ipv4.ip_forward" not allowed in host network namespace',
        ),
        (
            ["--log-driver", "local", "--log-opt", "labels=x"],
            125,
            "unknown log opt 'labels' for log driver local",
        ),
        (
            ["--log-opt", "max-size=x"],
            125,
            "failed to create task for container: failed to initialize logging driver: invalid size: 'x'",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_runs_that_cannot_be(
    client: harness.Client, daemon: harness.Daemon, arguments: list[str], status: int, words: str
) -> None:
    done = client.run("run", "--rm", *arguments, "busybox", "true", check=False)
    assert (done.returncode, f"Error response from daemon: {words}\n" in done.stderr) == (status, True), (
        done.stderr
    )
    daemon.remove_containers()


def test_a_container_that_was_stopped_lends_no_namespace(client: harness.Client) -> None:
    owner = client("run", "-d", "--name", "owner", "busybox", "true")
    client("wait", "owner")
    try:
        for flag, words in (
            ("--net", "cannot join network namespace of a non running container: container owner is exited"),
            ("--pid", f"failed to join PID namespace: container {owner} is not running"),
            ("--ipc", f"failed to join IPC namespace: container {owner} is not running"),
        ):
            done = client.run("run", "--rm", flag, "container:owner", "busybox", "true", check=False)
            assert done.returncode == 125
            assert words in done.stderr
    finally:
        client("rm", "-f", "owner")


def test_names_and_signals(client: harness.Client) -> None:
    client("run", "-d", "--name", "one1", "busybox", "sleep", "1000")
    client("create", "--name", "two2", "busybox")
    try:
        for arguments, words in (
            (
                ["rename", "one1", "x y"],
                "Error when allocating new name: Invalid container name (/x y), only",
            ),
            (
                ["rename", "one1", "two2"],
                'Error when allocating new name: Conflict. The container name "/two2" is already in use',
            ),
            (
                ["kill", "-s", "99", "one1"],
                "cannot kill container: one1: the linux daemon does not support signal 99",
            ),
            (["kill", "-s", "FOO", "nope"], "cannot kill container: nope: invalid signal: FOO"),
            (["network", "connect", "nope", "nope"], "No such container: nope"),
            (["network", "disconnect", "nope", "nope"], "No such container: nope"),
            (["save", "nope"], "No such image: nope\n"),
            (["stop", "-s", "FOO", "one1"], "cannot stop container: one1: invalid signal: FOO"),
            (["top", "one1", "-o", "foo"], "daemon: ps: error: unknown user-defined format specifier"),
            (
                ["update", "-m", "50m", "one1"],
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap",
            ),
            (["network", "create", "--subnet", "x", "n"], "invalid subnet x: invalid CIDR block notation"),
            (
                ["network", "create", "--subnet", "x", "--subnet", "10.1.0.0/16", "n"],
                "invalid CIDR address: x\n",
            ),
            (["events", "--since", "x"], 'failed to parse value as time or duration: "x"'),
            (["rm", "--link", "nope"], "No such container: nope"),
        ):
            done = client.run(*arguments, check=False)
            assert done.returncode == 1
            assert words in done.stderr
        done = client.run("create", "--log-driver", "nope", "busybox", check=False)
        assert done.returncode == 1
        assert 'error looking up logging plugin nope: plugin "nope" not found' in done.stderr
        done = client.run("exec", "-w", "/nope", "one1", "pwd", check=False)
        assert done.returncode == 127
        assert (
            'chdir to cwd ("/nope") set in config.json failed: no such file or directory'
            in done.stdout + done.stderr
        )
    finally:
        client("rm", "-f", "one1", "two2")


def test_what_cannot_be_fetched(client: harness.Client, tmp_path: Path) -> None:
    url = "http://127.0.0.1:1/x"
    done = client.run("build", "-", input=f"FROM busybox\nADD {url} /\n", check=False)
    assert done.returncode == 1
    assert f'ADD failed: Get "{url}": ' in done.stderr and "connection refused" in done.stderr
    done = client.run("import", url, check=False)
    assert done.returncode == 1
    assert f'Get "{url}": ' in done.stderr and "connection refused" in done.stderr
    done = client.run("save", "-o", "/nope/x", "busybox", check=False)
    assert "failed to save image: invalid output path: stat /nope: no such file or directory" in done.stderr


def test_a_read_only_root_has_no_writable_files_of_the_engine(client: harness.Client) -> None:
    done = client.run(
        "run",
        "--rm",
        "--read-only",
        "busybox",
        "sh",
        "-c",
        "echo x >> /etc/hosts; echo x >> /etc/resolv.conf",
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("Read-only file system") == 2


def test_a_full_host_name_has_its_short_form_in_hosts(client: harness.Client) -> None:
    text = client("run", "--rm", "--hostname", "web.example.org", "busybox", "tail", "-n1", "/etc/hosts")
    assert text.split()[1:] == ["web.example.org", "web"]


def test_a_volume_over_etc_gets_what_the_container_has_there(client: harness.Client) -> None:
    names = client("run", "--rm", "-v", "/etc", "busybox", "ls", "/etc").split()
    assert {"mtab", "hosts", "hostname", "resolv.conf", "passwd"} <= set(names)


def test_events_of_an_image_are_its_containers_too(client: harness.Client, daemon: harness.Daemon) -> None:
    client("run", "--rm", "--name", "evented", "busybox", "true")
    answer = client(
        "events",
        "--since",
        "1m",
        "--until",
        str(time.time()),
        "-f",
        "image=busybox",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    )
    assert "start evented" in answer.splitlines()


def test_platforms(client: harness.Client, tmp_path: Path) -> None:
    archive = tmp_path / "root.tar"
    container = client("create", "busybox")
    client("export", "-o", str(archive), container)
    client("rm", container)
    client("import", "--platform", "linux/arm64", str(archive), "foreign")
    assert client("inspect", "-f", "{{.Os}}/{{.Architecture}}", "foreign") == "linux/arm64"
    client("rmi", "foreign")
    done = client.run("run", "--rm", "--platform", "foo", "busybox", "true", check=False)
    assert done.returncode == 125
    assert '"foo": unknown operating system or architecture: invalid argument' in done.stderr
    assert (
        client("load", "--platform", "linux/amd64", "-i", str(save(client, tmp_path)))
        == "Loaded image: busybox:latest"
    )


def save(client: harness.Client, directory: Path) -> Path:
    target = directory / "busybox.tar"
    client("save", "-o", str(target), "busybox")
    return target


def test_maps_are_sorted_as_go_sorts_them(satsuma: harness.Client) -> None:
    satsuma("create", "--name", "sorted", "-l", "b=1", "-l", "a=2", "-p", "81", "-p", "80", "busybox")
    try:
        assert satsuma("inspect", "-f", "{{json .Config.Labels}}", "sorted") == '{"a":"2","b":"1"}'
        assert (
            satsuma("inspect", "-f", "{{json .Config.ExposedPorts}}", "sorted") == '{"80/tcp":{},"81/tcp":{}}'
        )
    finally:
        satsuma("rm", "sorted")
