"""`run` and its flags: what the process inside sees, and what the exit code says."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

import harness

DEFAULT_CAPABILITIES = "00000000a80425fb"


def sh(client: harness.Client, script: str, *flags: str, check: bool = True) -> str:
    """Run a shell script in a container that is removed afterwards; return its output."""
    done = client.run("run", "--rm", *flags, "busybox", "sh", "-c", script, check=check)
    return done.stdout.rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["busybox", "true"], 0, ""),
        (["busybox", "false"], 1, ""),
        (["busybox", "sh", "-c", "exit 42"], 42, ""),
        (["busybox", "sh", "-c", "kill -TERM $$; sleep 1; exit 3"], 3, ""),
        (["busybox", "nope"], 127, 'exec: "nope": executable file not found in $PATH'),
        (["busybox", "/nope"], 127, "no such file or directory"),
        (["busybox", "/etc"], 126, 'exec: "/etc": '),
        (["busybox", "/etc/passwd"], 126, "permission denied"),
        (["-w", "relative", "busybox", "true"], 125, "is invalid, it needs to be an absolute path"),
        (["--nope", "busybox"], 125, "unknown flag: --nope"),
        (["-u", "nobody-here", "busybox", "true"], 125, "unable to find user nobody-here"),
        (["--cap-add", "FLY", "busybox", "true"], 125, "apability"),
        (["no-such-image-here", "true"], 125, "no-such-image-here"),
        (["--restart", "sometimes", "busybox", "true"], 125, "restart"),
        (["-m", "1k", "busybox", "true"], 125, "Minimum memory limit allowed is 6MB"),
        (["-p", "99999:80", "busybox", "true"], 125, "99999"),
        (["--name", "bad name", "busybox", "true"], 125, "Invalid container name (bad name)"),
        (["-v", "/a:/b:zz", "busybox", "true"], 125, "invalid"),
        (
            ["--mount", "type=bind,src=/no/such/dir,dst=/x", "busybox", "true"],
            125,
            "bind source path does not exist",
        ),
        (["--net", "nowhere", "busybox", "true"], 125, "network nowhere not found"),
        (["--log-driver", "asdf", "busybox", "true"], 125, "asdf"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_exit_codes(client: harness.Client, arguments: list[str], status: int, words: str) -> None:
    before = set(client("ps", "-aq").split())
    done = client.run("run", "--rm", *arguments, check=False)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert set(client("ps", "-aq").split()) <= before


def test_environment_is_dockers(client: harness.Client) -> None:
    lines = set(sh(client, "env").splitlines())
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in lines
    assert any(re.fullmatch(r"HOSTNAME=[0-9a-f]{12}", line) for line in lines)
    assert "HOME=/root" in lines
    assert not any(line.startswith(("TERM=", "LANG=", "LC_")) for line in lines)


def test_environment_flags(client: harness.Client, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nA=from file\nB=2\n")
    assert (
        sh(client, 'echo "$A|$B|$C"', "--env-file", str(file), "-e", "B=3", "-e", "C=x=y")
        == "from file|3|x=y"
    )


def test_the_sandbox_is_dockers(client: harness.Client) -> None:
    status = sh(client, "cat /proc/self/status")
    field = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert field["CapEff"] == field["CapPrm"] == field["CapBnd"] == DEFAULT_CAPABILITIES
    assert field["CapInh"] == field["CapAmb"] == "0000000000000000"
    assert field["Seccomp"] == "2"
    assert field["NoNewPrivs"] == "0"
    assert sh(client, "umask") == "0022"
    assert sh(client, "ls -1 /proc/self/fd | wc -l") == "4"  # 0, 1, 2 and the directory itself
    assert sh(client, "cat /proc/kcore", check=False) == ""
    assert (
        "Read-only"
        in client.run(
            "run", "--rm", "busybox", "sh", "-c", "echo 1 >/proc/sys/vm/swappiness", check=False
        ).stderr
    )
    assert (
        client.run("run", "--rm", "busybox", "mount", "-t", "tmpfs", "none", "/tmp", check=False).returncode
        != 0
    )
    assert client.run("run", "--rm", "busybox", "unshare", "-m", "true", check=False).returncode != 0


def test_devices(client: harness.Client) -> None:
    names = set(sh(client, "ls /dev").split())
    assert {
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "pts",
        "shm",
        "mqueue",
        "ptmx",
        "fd",
        "stdin",
        "stdout",
        "stderr",
    } <= names
    assert names <= {
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "pts",
        "shm",
        "mqueue",
        "ptmx",
        "fd",
        "stdin",
        "stdout",
        "stderr",
        "core",
        "console",
    }
    assert sh(client, "df -k /dev/shm | tail -1 | awk '{print $2}'") == "65536"
    assert sh(client, "df -k /dev/shm | tail -1 | awk '{print $2}'", "--shm-size", "8m") == "8192"
    refused = client.run(
        "run", "--rm", "busybox", "sh", "-c", "mknod /tmp/d b 254 0 && cat /tmp/d", check=False
    )
    assert refused.returncode != 0 and "Operation not permitted" in refused.stderr


def test_capabilities(client: harness.Client) -> None:
    assert int(sh(client, "grep CapEff /proc/self/status | cut -f2", "--cap-drop", "ALL"), 16) == 0
    with_admin = int(
        sh(
            client, "grep CapEff /proc/self/status | cut -f2", "--cap-add", "SYS_ADMIN", "--cap-drop", "chown"
        ),
        16,
    )
    assert with_admin == (int(DEFAULT_CAPABILITIES, 16) | 1 << 21) & ~1
    assert sh(client, "mount -t tmpfs none /tmp && echo mounted", "--cap-add", "SYS_ADMIN") == "mounted"


def test_privileged(client: harness.Client) -> None:
    assert (
        sh(client, "mount -t tmpfs none /tmp && grep Seccomp: /proc/self/status", "--privileged").split()[-1]
        == "0"
    )
    assert "loop-control" in sh(client, "ls /dev", "--privileged") or "vda" in sh(
        client, "ls /dev", "--privileged"
    )


def test_user(client: harness.Client) -> None:
    assert sh(client, "id -u; id -g", "-u", "1000:1001") == "1000\n1001"
    assert (
        sh(client, "id -u; grep CapEff /proc/self/status | cut -f2", "-u", "65534")
        == "65534\n0000000000000000"
    )
    assert sh(client, "id -G", "-u", "1000:1000", "--group-add", "77") == "1000 77"


def test_workdir_is_made(client: harness.Client) -> None:
    assert sh(client, "pwd", "-w", "/not/there/yet") == "/not/there/yet"


def test_entrypoint_and_command_combine(client: harness.Client) -> None:
    client(
        "build", "-t", "combine", "-", input='FROM busybox\nENTRYPOINT ["echo", "entry"]\nCMD ["default"]\n'
    )
    try:
        assert client("run", "--rm", "combine") == "entry default"
        assert client("run", "--rm", "combine", "given", "two") == "entry given two"
        assert client("run", "--rm", "--entrypoint", "basename", "combine", "/a/b") == "b"
        assert client("run", "--rm", "--entrypoint", "", "combine", "echo", "none") == "none"
    finally:
        client("rmi", "combine")


def test_shell_form_goes_through_a_shell(client: harness.Client) -> None:
    client("build", "-t", "shellform", "-", input="FROM busybox\nENV A=1\nCMD echo $A $0\n")
    try:
        assert client("run", "--rm", "shellform") == "1 /bin/sh"
        assert (
            client("inspect", "--format", "{{json .Config.Cmd}}", "shellform")
            == '["/bin/sh","-c","echo $A $0"]'
        )
    finally:
        client("rmi", "shellform")


def test_pid_one_is_the_users_program(client: harness.Client) -> None:
    assert sh(client, "cat /proc/1/comm; echo $$") == "sh\n1"
    assert client("run", "--rm", "--init", "busybox", "cat", "/proc/1/comm").rstrip() in (
        "docker-init",
        "tini",
    )


def test_read_only_and_tmpfs(client: harness.Client) -> None:
    done = client.run(
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/scratch:size=1m,mode=700",
        "busybox",
        "sh",
        "-c",
        "touch /scratch/ok && df -k /scratch | tail -1; touch /x",
        check=False,
    )
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert " 1024 " in done.stdout


def test_mounts_of_each_kind(client: harness.Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound\n")
    assert sh(client, "cat /f", "-v", f"{tmp_path}/file:/f") == "bound"
    assert (
        sh(client, "cat /d/file; touch /d/new", "--mount", f"type=bind,source={tmp_path},target=/d")
        == "bound"
    )
    assert (tmp_path / "new").exists()
    refused = client.run(
        "run",
        "--rm",
        "--mount",
        f"type=bind,src={tmp_path},dst=/d,readonly",
        "busybox",
        "touch",
        "/d/x",
        check=False,
    )
    assert "Read-only file system" in refused.stderr
    assert " 512 " in sh(client, "df -k /t | tail -1", "--mount", "type=tmpfs,dst=/t,tmpfs-size=512k")
    sh(client, "echo kept >/v/f", "--mount", "type=volume,src=mountvol,dst=/v")
    assert sh(client, "cat /v/f", "-v", "mountvol:/v") == "kept"
    client("volume", "rm", "mountvol")


def test_hostname_and_hosts(client: harness.Client) -> None:
    text = sh(
        client,
        "hostname; cat /etc/hostname; cat /etc/hosts",
        "--hostname",
        "named",
        "--add-host",
        "other:10.1.2.3",
    )
    assert text.startswith("named\nnamed\n")
    assert re.search(r"^10\.1\.2\.3\s+other$", text, re.M)
    assert re.search(r"^[0-9.]+\s+named$", text, re.M)
    assert re.search(r"^127\.0\.0\.1\s+localhost$", text, re.M)


def test_dns_flags_write_resolv_conf(client: harness.Client) -> None:
    text = sh(
        client,
        "cat /etc/resolv.conf",
        "--dns",
        "10.9.8.7",
        "--dns-search",
        "example.test",
        "--dns-option",
        "ndots:2",
    )
    assert "nameserver 10.9.8.7" in text and "search example.test" in text and "options ndots:2" in text


def test_rm_removes_container_and_anonymous_volume(client: harness.Client) -> None:
    before = set(client("volume", "ls", "-q").split())
    client("run", "--rm", "-v", "/anon", "--name", "gone", "busybox", "true")
    assert client.run("inspect", "gone", check=False).returncode == 1
    assert harness.eventually(lambda: set(client("volume", "ls", "-q").split()) == before)


def test_name_in_use(client: harness.Client) -> None:
    first = client("run", "-d", "--name", "taken", "busybox", "sleep", "100")
    try:
        done = client.run("run", "--name", "taken", "busybox", check=False)
        assert done.returncode == 125
        assert f'The container name "/taken" is already in use by container "{first}"' in done.stderr
    finally:
        client("rm", "-f", "taken")


def test_port_in_use(client: harness.Client) -> None:
    first = client("run", "-d", "-p", "127.0.0.1::80", "busybox", "sleep", "100")
    try:
        port = client("port", first, "80/tcp").rpartition(":")[2]
        done = client.run(
            "run", "--name", "second", "-p", f"127.0.0.1:{port}:80", "busybox", "true", check=False
        )
        assert done.returncode == 125
        assert f"127.0.0.1:{port} failed: port is already allocated" in done.stderr
        assert client("inspect", "--format", "{{.State.Status}}", "second") == "created"
    finally:
        client("rm", "-f", first, "second")


def test_publish_all(client: harness.Client) -> None:
    container = client("run", "-d", "-P", "--expose", "9000", "busybox", "sleep", "100")
    try:
        assert re.search(r"^9000/tcp -> 0\.0\.0\.0:\d+$", client("port", container), re.M)
    finally:
        client("rm", "-f", container)


def test_labels_and_id_prefix(client: harness.Client) -> None:
    container = client("run", "-d", "--label", "a=b", "-l", "c", "busybox", "sleep", "100")
    try:
        assert client("ps", "-q", "--filter", "label=a=b") == container[:12]
        assert client("inspect", "--format", "{{.Id}}", container[:7]) == container
        assert client("inspect", "--format", "{{json .Config.Labels}}", container) == '{"a":"b","c":""}'
    finally:
        client("rm", "-f", container)


def test_stdin_reaches_the_process_and_its_end(client: harness.Client) -> None:
    assert client("run", "--rm", "-i", "busybox", "wc", "-c", input="x" * 300_000).split()[0] == "300000"
    assert client("run", "--rm", "busybox", "cat", input="nobody reads this") == ""


def test_streams_stay_apart_and_complete(client: harness.Client) -> None:
    done = client.run("run", "--rm", "busybox", "sh", "-c", "seq 1 20000; echo end >&2")
    assert done.stdout.split() == [str(n) for n in range(1, 20001)]
    assert done.stderr == "end\n"


def test_restart_policy_on_failure(client: harness.Client) -> None:
    container = client("run", "-d", "--restart", "on-failure:2", "busybox", "false")
    try:
        harness.eventually(
            lambda: (
                client("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", container) == "2 exited"
            )
        )
    finally:
        client("rm", "-f", container)


def test_restart_always_until_stopped(client: harness.Client) -> None:
    container = client("run", "-d", "--restart", "always", "busybox", "sh", "-c", "sleep 0.2")
    try:
        harness.eventually(lambda: int(client("inspect", "--format", "{{.RestartCount}}", container)) >= 2)
        client("stop", "-t", "1", container)
        count = client("inspect", "--format", "{{.RestartCount}}", container)
        time.sleep(1)
        assert (
            client("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", container)
            == f"{count} exited"
        )
    finally:
        client("rm", "-f", container)


def test_detached_prints_the_id_and_cidfile_holds_it(client: harness.Client, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    container = client("run", "-d", "--cidfile", str(file), "busybox", "sleep", "100")
    try:
        assert re.fullmatch(r"[0-9a-f]{64}", container) and file.read_text() == container
    finally:
        client("rm", "-f", container)


def test_sysctl_and_ulimit(client: harness.Client) -> None:
    assert sh(client, "cat /proc/sys/net/ipv4/ip_forward", "--sysctl", "net.ipv4.ip_forward=1") == "1"
    assert sh(client, "ulimit -n", "--ulimit", "nofile=123:456") == "123"
    assert sh(client, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "0"


def test_no_new_privileges_and_unconfined_seccomp(client: harness.Client) -> None:
    assert (
        sh(client, "grep NoNewPrivs /proc/self/status | cut -f2", "--security-opt", "no-new-privileges")
        == "1"
    )
    assert (
        sh(client, "grep Seccomp: /proc/self/status | cut -f2", "--security-opt", "seccomp=unconfined") == "0"
    )


def test_pid_and_ipc_modes(client: harness.Client) -> None:
    assert sh(client, "readlink /proc/self/ns/pid", "--pid", "host") == os.readlink("/proc/self/ns/pid")
    assert sh(client, "readlink /proc/self/ns/ipc", "--ipc", "host") == os.readlink("/proc/self/ns/ipc")
    assert sh(client, "readlink /proc/self/ns/uts", "--uts", "host") == os.readlink("/proc/self/ns/uts")
    base = client("run", "-d", "--ipc", "shareable", "busybox", "sleep", "100")
    try:
        inode = client("exec", base, "readlink", "/proc/self/ns/pid")
        assert sh(client, "readlink /proc/self/ns/pid", "--pid", f"container:{base}") == inode
    finally:
        client("rm", "-f", base)


def test_stop_catches_a_container_at_any_moment_of_its_restarts(client: harness.Client) -> None:
    """It runs, has just ended, waits for its next start or is being started: `stop` ends it for good."""
    for attempt in range(12):
        container = client("run", "-d", "--restart", "always", "busybox", "sh", "-c", "sleep 0.05")
        try:
            time.sleep(0.02 * attempt)
            client("stop", "-t", "1", container)
            count = client("inspect", "--format", "{{.RestartCount}}", container)
            time.sleep(0.4)
            state = client("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", container)
            assert state == f"{count} exited", attempt
        finally:
            client("rm", "-f", container)
