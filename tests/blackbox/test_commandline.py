"""What the command line adds of its own, and what it shows of a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness


@pytest.fixture
def box(client: harness.Client) -> Iterator[str]:
    name = f"look-{client.program}"
    client(
        "run",
        "-d",
        "--name",
        name,
        "-m",
        "64m",
        "--label",
        "who=me",
        "-v",
        "/data",
        "busybox",
        "sleep",
        "1000",
    )
    yield name
    client("rm", "-f", "-v", name)


# -- own commands -------------------------------------------------------------------------------------------------


def test_setns_joins_the_network_of_a_container(satsuma: harness.Client) -> None:
    satsuma("run", "-d", "--name", "joined", "busybox", "sleep", "1000")
    try:
        pid = satsuma("inspect", "-f", "{{.State.Pid}}", "joined")
        inside = satsuma("setns", f"/proc/{pid}/ns/net", "readlink", "/proc/self/ns/net")
        assert inside == os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
        address = satsuma("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "joined")
        assert address in satsuma("setns", f"/proc/{pid}/ns/net", "cat", "/proc/net/fib_trie")
        both = satsuma("setns", f"/proc/{pid}/ns/uts,/proc/{pid}/ns/net", "hostname")
        assert both == satsuma("exec", "joined", "hostname")
        # A pid namespace is entered by children only: the command is pid 1's neighbour, not the host's.
        assert (
            satsuma(
                "setns", f"/proc/{pid}/ns/pid,/proc/{pid}/ns/mnt", "/bin/sh", "-c", "echo $$ > /x; cat /x"
            )
            != ""
        )
        done = satsuma.run("setns", f"/proc/{pid}/ns/net", "sh", "-c", "exit 7", check=False)
        assert done.returncode == 7
    finally:
        satsuma("rm", "-f", "joined")


@pytest.mark.parametrize(
    ("files", "command", "status", "message"),
    [
        (
            "/proc/999999999/ns/net",
            "true",
            1,
            "setns: open /proc/999999999/ns/net: no such file or directory",
        ),
        ("/etc/passwd", "true", 1, "setns: /etc/passwd: not a namespace file"),
        ("/proc/self/ns/net", "no-such-program", 127, "setns: no-such-program: command not found"),
        ("/proc/self/ns/net", "/etc/passwd", 126, "setns: /etc/passwd: permission denied"),
    ],
)
def test_setns_says_what_is_wrong(
    satsuma: harness.Client, files: str, command: str, status: int, message: str
) -> None:
    done = satsuma.run("setns", files, command, check=False)
    assert done.returncode == status and message in done.stderr


def test_the_picture_of_a_real_container(satsuma: harness.Client) -> None:
    satsuma(
        "run",
        "-d",
        "--name",
        "drawn",
        "-p",
        "127.0.0.1::80",
        "-m",
        "64m",
        "-v",
        "/data",
        "busybox",
        "sh",
        "-c",
        "sleep 999 & sleep 1000",
    )
    satsuma("run", "-d", "--name", "guest", "--net", "container:drawn", "busybox", "sleep", "1000")
    try:
        harness.eventually(lambda: "sleep 999" in satsuma("anatomy", "drawn"))
        picture = satsuma("anatomy", "drawn")
        inode = os.stat(f"/proc/{satsuma('inspect', '-f', '{{.State.Pid}}', 'drawn')}/ns/net").st_ino
        for part in (
            str(inode),
            "with guest",
            "of 64MiB",
            "80/tcp",
            "/data",
            "read-write layer",
            "init layer",
            "seccomp filter",
        ):
            assert part in picture, picture
        satsuma("run", "-d", "--name", "guest2", "--net", "host", "busybox", "sleep", "1000")
        assert "host  the host's own interfaces" in satsuma("anatomy", "guest2")
        data = json.loads(satsuma("anatomy", "--format", "json", "drawn"))
        assert data["Name"].lstrip("/") == "drawn" and data["Processes"][0]["ContainerPid"] == 1
        satsuma("stop", "-t", "0", "drawn")
        assert "not running" in satsuma("anatomy", "drawn")
    finally:
        satsuma("rm", "-f", "-v", "guest", "guest2", "drawn")


def test_check_finds_garbage_and_mends_it(satsuma: harness.Client) -> None:
    assert satsuma.run("system", "check", check=False).returncode in (0, 1)
    satsuma.run("system", "check", "--repair", check=False)
    assert "and nothing else is" in satsuma("system", "check")
    (satsuma.daemon.data_root / "layers/ff00/diff").mkdir(parents=True)
    done = satsuma.run("system", "check", check=False)
    assert done.returncode == 1 and "directory without a record" in done.stdout
    assert "mended" in satsuma("system", "check", "--repair")
    assert "and nothing else is" in satsuma("system", "check")


def test_bootstrap_tells_its_progress_and_the_id(satsuma: harness.Client) -> None:
    identifier = satsuma("image", "bootstrap", "-q", "busybox")
    assert identifier == satsuma("image", "inspect", "-f", "{{.Id}}", "busybox")
    done = satsuma.run("image", "bootstrap", "no-such-base", check=False)
    assert done.returncode == 1 and "no-such-base" in done.stderr


def test_unknown_words_get_a_suggestion(satsuma: harness.Client) -> None:
    done = satsuma.run("rnu", "busybox", check=False)
    assert done.returncode == 1
    assert "satsuma: unknown command: satsuma rnu\nDid you mean 'satsuma run'?" in done.stderr
    done = satsuma.run("run", "--volme", "/a", "busybox", check=False)
    assert done.returncode == 125 and "unknown flag: --volme\nDid you mean --volume" in done.stderr


def test_alone_it_shows_first_steps(satsuma: harness.Client) -> None:
    text = satsuma()
    assert "First Steps:" in text and "Common Commands:" in text and "anatomy" in text


@pytest.mark.skipif(not os.path.exists("/usr/bin/unshare"), reason="needs unshare to keep to itself")
def test_the_first_command_starts_the_engine(tmp_path: Path) -> None:
    """With an empty /run and /var of its own: the default socket is nobody's, so the engine is started."""
    satsuma = harness.BIN / "satsuma"
    script = f"""
        set -e
        for place in /run /var/lib /var/log; do mount -t tmpfs none $place; done
        ip link set lo up
        {satsuma} ps 2>{tmp_path}/first >{tmp_path}/ps
        {satsuma} ps 2>{tmp_path}/second >/dev/null
        pid=$(cat /run/satsuma/satsumad.pid)
        readlink /proc/$pid/fd/0 /proc/$pid/fd/1 >{tmp_path}/fds
        ps -o sid= -p $pid | tr -d ' ' >{tmp_path}/session; echo $pid >>{tmp_path}/session
        kill $pid
        while kill -0 $pid 2>/dev/null && [ "$(ps -o stat= -p $pid | cut -c1)" != Z ]; do sleep 0.05; done
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    subprocess.run(["unshare", "-m", "-n", "bash", "-c", script], check=True, env=environment, timeout=60)
    assert (
        tmp_path / "first"
    ).read_text() == "satsuma: no engine is running, starting satsumad (log: /var/log/satsumad.log)\n"
    assert (tmp_path / "ps").read_text().startswith("CONTAINER ID")
    assert (tmp_path / "second").read_text() == ""
    assert (tmp_path / "fds").read_text().split() == ["/dev/null", "/var/log/satsumad.log"]
    session, pid = (tmp_path / "session").read_text().split()
    assert session == pid, "the engine must not hang on our terminal"


def test_an_engine_that_was_named_is_not_started(tmp_path: Path) -> None:
    done = subprocess.run(
        [harness.BIN / "satsuma", "ps"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/nobody"},
    )
    assert done.returncode == 1 and "Cannot connect to the Satsuma daemon" in done.stderr
    assert "starting" not in done.stderr


def test_contexts_name_engines(satsuma: harness.Client, tmp_path: Path) -> None:
    environment = {key: value for key, value in satsuma.environment.items() if key != "DOCKER_HOST"}
    environment["DOCKER_CONFIG"] = str(tmp_path)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [satsuma.argv0, *arguments], capture_output=True, text=True, env=environment, check=True
        )
        return done.stdout.strip()

    run("context", "create", "here", "--docker", f"host={satsuma.daemon.host}", "--description", "a test")
    assert run("-c", "here", "version", "-f", "{{.Client.Context}} {{.Server.Os}}") == "here linux"
    run("context", "use", "here")
    assert run("context", "show") == "here"
    assert run("ps", "-q") is not None
    assert "a test" in run("context", "ls")
    assert run("context", "inspect", "-f", "{{.Endpoints.docker.Host}}", "here") == satsuma.daemon.host
    if harness.DOCKER:  # the files are docker's: it can use what we wrote
        done = subprocess.run(
            [harness.DOCKER, "context", "show"], capture_output=True, text=True, env=environment, check=True
        )
        assert done.stdout.strip() == "here"
    run("context", "export", "here", str(tmp_path / "out"))
    run("context", "import", "there", str(tmp_path / "out"))
    run("context", "rm", "-f", "here", "there")
    assert run("context", "show") == "default"


# -- what both show -----------------------------------------------------------------------------------------------


def test_logs(client: harness.Client) -> None:
    name = f"logs-{client.program}"
    client(
        "run",
        "-d",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2",
    )
    try:
        client("wait", name)
        done = client.run("logs", name)
        assert done.stdout == "".join(f"line {n}\n" for n in range(1, 6)) and done.stderr == "bad\n"
        assert client.run("logs", "--tail", "2", name).stdout.strip() in ("line 5", "line 4\nline 5")
        stamped = client("logs", "-t", "-n", "1", name) or client.run("logs", "-t", "-n", "1", name).stderr
        assert stamped[:4].isdigit() and "T" in stamped.split(" ")[0]
        assert client("logs", "--since", "1h", "--until", "1s", name).count("line") in (0, 5)
        future = client.run("logs", "--since", str(int(time.time()) + 1000), name)
        assert future.stdout == ""
    finally:
        client("rm", "-f", name)


def test_following_logs_ends_with_the_container(client: harness.Client) -> None:
    name = f"follow-{client.program}"
    client("run", "-d", "--name", name, "busybox", "sh", "-c", "echo a; sleep 0.3; echo b")
    try:
        assert client("logs", "-f", name) == "a\nb"
    finally:
        client("rm", "-f", name)


def test_stats(client: harness.Client, box: str) -> None:
    text = client("stats", "--no-stream", "--format", "{{.Name}}|{{.MemUsage}}|{{.PIDs}}", box)
    name, memory, pids = text.split("|")
    assert name == box and memory.endswith("/ 64MiB") and pids == "1"
    assert client("stats", "--no-stream", "--no-trunc", box).startswith("CONTAINER ID")
    done = client.run("stats", "--no-stream", "nobody", check=False)
    assert done.returncode == 1 and "No such container: nobody" in done.stderr


def test_live_stats_draw_and_stop(client: harness.Client, box: str) -> None:
    running = client.popen("stats", box, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    try:
        seen = b""
        end = time.monotonic() + 20
        while box.encode() not in seen and time.monotonic() < end:
            seen += os.read(running.stdout.fileno(), 65536)
        assert box.encode() in seen
    finally:
        running.kill()
        running.wait(10)
        running.stdout.close()
        assert running.stderr is not None
        running.stderr.close()


def test_events(client: harness.Client) -> None:
    name = f"events-{client.program}"
    since = str(int(time.time()) - 1)
    client("run", "--rm", "--name", name, "busybox", "true")
    until = str(time.time() + 0.5)
    actions = client(
        "events",
        "--since",
        since,
        "--until",
        until,
        "--filter",
        f"container={name}",
        "--format",
        "{{.Type}} {{.Action}}",
    ).split("\n")
    assert [action for action in actions if action.startswith("container")][:2] == [
        "container create",
        "container attach",
    ]
    assert {"container start", "container die", "container destroy"} <= set(actions)
    one = client(
        "events",
        "--since",
        since,
        "--until",
        until,
        "--filter",
        f"container={name}",
        "--filter",
        "event=die",
        "--format",
        "json",
    )
    assert json.loads(one)["Actor"]["Attributes"]["exitCode"] == "0"


def test_top_port_diff(client: harness.Client, box: str) -> None:
    assert "sleep 1000" in client("top", box)
    assert client("top", box, "-o", "pid,args").split("\n")[0].split() == ["PID", "COMMAND"]
    client("exec", box, "sh", "-c", "echo x > /new; rm /etc/group; echo y >> /etc/passwd")
    changes = client("diff", box).split("\n")
    assert {"A /new", "D /etc/group", "C /etc/passwd", "C /etc"} <= set(changes)
    assert client("port", box) == ""


def test_waiting_for_several(client: harness.Client) -> None:
    names = [f"wait{n}-{client.program}" for n in (3, 5)]
    for status, name in zip((3, 5), names, strict=True):
        client("run", "-d", "--name", name, "busybox", "sh", "-c", f"exit {status}")
    try:
        assert client("wait", *names) == "3\n5"
    finally:
        client("rm", *names)


def test_stopping_many_takes_as_long_as_stopping_one(satsuma: harness.Client) -> None:
    names = [f"slow{n}" for n in range(4)]
    for name in names:
        satsuma("run", "-d", "--name", name, "busybox", "sleep", "1000")  # pid 1 does not care for SIGTERM
    try:
        started = time.monotonic()
        assert satsuma("stop", "-t", "2", *names).split("\n") == names
        assert time.monotonic() - started < 6
    finally:
        satsuma("rm", "-f", *names)


def test_save_load_import_export(client: harness.Client, box: str, tmp_path: Path) -> None:
    tag = f"copied-{client.program}"
    client("exec", box, "sh", "-c", "echo kept > /kept")
    client("commit", "-m", "a note", "-c", "ENV A=b", box, tag)
    assert client("run", "--rm", tag, "sh", "-c", "cat /kept; echo $A") == "kept\nb"
    client("save", "-o", str(tmp_path / "image.tar"), tag)
    client("rmi", tag)
    assert f"Loaded image: {tag}:latest" in client("load", "-i", str(tmp_path / "image.tar"))
    assert client("history", "-q", tag).count("\n") >= 1
    client("rmi", tag)
    client("export", "-o", str(tmp_path / "root.tar"), box)
    with tarfile.open(tmp_path / "root.tar") as archive:
        assert "kept" in {member.name.lstrip("./") for member in archive}
    client("import", "-c", 'CMD ["cat","/kept"]', str(tmp_path / "root.tar"), tag)
    assert client("run", "--rm", tag) == "kept"
    client("rmi", tag)
    done = client.run("load", check=False)
    assert done.returncode == 1


def test_update_and_rename(client: harness.Client, box: str) -> None:
    assert client("update", "-m", "96m", "--memory-swap", "192m", "--restart", "no", box) == box
    assert client("inspect", "-f", "{{.HostConfig.Memory}}", box) == str(96 << 20)
    client("rename", box, f"{box}-new")
    client("rename", f"{box}-new", box)
    done = client.run("update", box, check=False)
    assert "you must provide one or more flags" in done.stderr


def test_volumes_and_networks(client: harness.Client) -> None:
    volume, network = f"v-{client.program}", f"n-{client.program}"
    assert client("volume", "create", "--label", "a=b", volume) == volume
    assert client("volume", "ls", "-q", "--filter", "label=a=b") == volume
    assert client("volume", "inspect", "-f", "{{.Labels.a}}", volume) == "b"
    client("network", "create", "--subnet", "10.213.0.0/24", "--gateway", "10.213.0.1", network)
    try:
        client(
            "run",
            "-d",
            "--name",
            f"in-{network}",
            "--network",
            network,
            "--ip",
            "10.213.0.77",
            "-v",
            f"{volume}:/v",
            "busybox",
            "sleep",
            "1000",
        )
        assert "10.213.0.77" in client("network", "inspect", network)
        assert client("ps", "--filter", f"network={network}", "--format", "{{.Networks}}") == network
        client("network", "disconnect", network, f"in-{network}")
        client("network", "connect", "--ip", "10.213.0.78", network, f"in-{network}")
        assert "10.213.0.78" in client("network", "inspect", network)
        done = client.run("network", "rm", network, check=False)
        assert done.returncode == 1
    finally:
        client.run("rm", "-f", f"in-{network}", check=False)
        client("network", "rm", network)
        client("volume", "rm", volume)


def test_prunes_ask_first(client: harness.Client) -> None:
    name = f"idle-{client.program}"
    client("run", "--name", name, "busybox", "true")
    client.run("container", "prune", "--filter", f"label=nobody-{name}", input="n\n")
    assert client("ps", "-aq", "--filter", f"name={name}") != ""
    text = client("container", "prune", "--filter", "label!=keep", input="y\n")
    assert "Total reclaimed space:" in text
    assert client("ps", "-aq", "--filter", f"name={name}") == ""


def test_disk_usage(client: harness.Client, box: str) -> None:
    text = client("system", "df")
    assert [line.split("  ")[0] for line in text.split("\n")] == [
        "TYPE",
        "Images",
        "Containers",
        "Local Volumes",
        "Build Cache",
    ]
    verbose = client("system", "df", "-v")
    assert "Images space usage:" in verbose and box in verbose


# -- builds -------------------------------------------------------------------------------------------------------


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /c\nCMD find /c -type f | sort\n")
    (tmp_path / "kept").write_text("1")
    (tmp_path / "secret").write_text("2")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.log").write_text("3")
    (tmp_path / "sub/b.log").write_text("4")
    (tmp_path / ".dockerignore").write_text("secret\n**/*.log\n!sub/b.log\nDockerfile\n")
    return tmp_path


def test_ignored_files_stay_at_home(client: harness.Client, context: Path) -> None:
    tag = f"ignored-{client.program}"
    text = client("build", "-t", tag, ".", cwd=str(context))
    assert "Successfully tagged" in text and text.startswith("Sending build context to")
    assert client("run", "--rm", tag).split("\n") == ["/c/.dockerignore", "/c/kept", "/c/sub/b.log"]
    client("rmi", tag)


def test_dockerfiles_from_elsewhere(
    client: harness.Client, context: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "my.Dockerfile"
    outside.write_text("FROM busybox\nCMD echo outside\n")
    tag = f"elsewhere-{client.program}"
    client("build", "-q", "-t", tag, "-f", str(outside), str(context))
    assert client("run", "--rm", tag) == "outside"
    client(
        "build", "-q", "-t", tag, "-f", "-", str(context), input="FROM busybox\nCOPY kept /k\nCMD cat /k\n"
    )
    assert client("run", "--rm", tag) == "1"
    client("build", "-q", "-t", tag, "-f", str(outside), str(context))
    everything = "FROM busybox\nCOPY . /c\nCMD ls -A /c\n"
    client("build", "-q", "-t", tag, "-f", "-", str(context), input=everything)
    assert "dockerfile" not in client("run", "--rm", tag)
    client("build", "-q", "-t", tag, "-", input="FROM busybox\nCMD echo stdin\n")
    assert client("run", "--rm", tag) == "stdin"
    client("rmi", "-f", tag)


def test_contexts_as_tars(client: harness.Client, context: Path) -> None:
    tag = f"tarred-{client.program}"
    for mode in ("c", "cz"):
        raw = subprocess.run(
            ["tar", "-C", str(context), f"-{mode}", "."], capture_output=True, check=True
        ).stdout
        subprocess.run(
            [client.argv0, "build", "-q", "-t", tag, "-"],
            input=raw,
            check=True,
            env=client.environment,
            stdout=subprocess.DEVNULL,
        )
        assert "/c/kept" in client("run", "--rm", tag)
    client("rmi", "-f", tag)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], 'unable to prepare context: path "nowhere" not found'),
        (["-f", "nope", "."], "unable to prepare context: unable to evaluate symlinks in Dockerfile path"),
        (["kept"], "unable to prepare context: "),
        (["-t", "BAD NAME", "."], "invalid reference format"),
    ],
)
def test_builds_that_do_not_begin(
    client: harness.Client, context: Path, arguments: list[str], message: str
) -> None:
    done = client.run("build", *arguments, cwd=str(context), check=False)
    assert done.returncode != 0 and message in done.stderr
