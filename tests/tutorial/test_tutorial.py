"""The tutorial, step by step and in its order, through `satsuma` and through the stock `docker` command line.

Each test is one thing that the reader of the tutorial does, and asserts what the reader would see.  The steps of
one command line share an engine and the container `web`, as the reader's steps do.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import socket
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

HELLO = Path(__file__).parents[2] / "examples" / "hello"
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


def free_port() -> int:
    """Return a TCP port of the host that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module", params=harness.clients())
def cli(request: pytest.FixtureRequest) -> Iterator[harness.Client]:
    """One command line on an engine of its own."""
    with harness.private_daemon() as daemon:
        harness.bootstrap_busybox(daemon)
        client = harness.Client(request.param, daemon)
        client("build", "-t", "myapp", str(HELLO))
        client.port = free_port()  # type: ignore[attr-defined]
        client("run", "-d", "--name", "web", "-p", f"{client.port}:8080", "myapp")  # type: ignore[attr-defined]
        yield client


def get(port: int, path: str = "/getInfo") -> str:
    """Request a page of this machine, as the tutorial's reader does with a browser."""

    def ask() -> str:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        return ""

    return str(harness.eventually(ask, message=f"nothing answers on port {port}")).strip()


def pid_of(cli: harness.Client, container: str) -> int:
    """Return what the tutorial asks for: the host's pid of the container's first process."""
    return int(cli("inspect", "--format", "{{ .State.Pid }}", container))


def namespaces(pid: int | str) -> dict[str, str]:
    """Return the links of /proc/PID/ns."""
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}


def test_build_makes_one_history_entry_per_instruction(cli: harness.Client) -> None:
    again = cli("build", "-t", "myapp", str(HELLO))
    instructions = [
        line.split()[0].upper()
        for line in (HELLO / "Dockerfile").read_text().splitlines()
        if line.strip() and not line.startswith((" ", "#", "\t")) and line[:1].isupper()
    ]
    assert [
        line.split(" : ")[1].split()[0] for line in again.splitlines() if line.startswith("Step ")
    ] == instructions
    assert again.count("Using cache") == len(instructions) - 1
    assert re.search(r"^Successfully built [0-9a-f]{12}$", again, re.M)
    assert again.rstrip().endswith("Successfully tagged myapp:latest")
    history = cli("history", "--no-trunc", "--format", "{{.CreatedBy}}", "myapp").splitlines()
    for instruction in ("CMD", "ENV", "EXPOSE", "WORKDIR"):
        assert any(instruction in entry for entry in history), history


def test_images_lists_the_application_and_its_base(cli: harness.Client) -> None:
    table = cli("images")
    assert table.splitlines()[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    names = {tuple(line.split()[:2]) for line in table.splitlines()[1:]}
    assert {("myapp", "latest"), ("busybox", "latest")} <= names


def test_the_published_port_answers_with_name_and_hostname(cli: harness.Client) -> None:
    hostname = cli("inspect", "--format", "{{.Config.Hostname}}", "web")
    assert hostname == cli("inspect", "--format", "{{.Id}}", "web")[:12]
    assert get(cli.port) == f"Hello World! Hostname: {hostname}"  # type: ignore[attr-defined]


def test_env_replaces_the_name_of_the_image(cli: harness.Client) -> None:
    port = free_port()
    container = cli("run", "-d", "-e", "NAME=Satsuma", "-p", f"{port}:8080", "myapp")
    try:
        assert get(port).startswith("Hello Satsuma! Hostname: ")
    finally:
        cli("rm", "-f", container)


def test_ps_shows_the_container_and_its_port(cli: harness.Client) -> None:
    lines = cli("ps").splitlines()
    assert lines[0].split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    row = next(line for line in lines if line.endswith("web"))
    assert f"0.0.0.0:{cli.port}->8080/tcp" in row  # type: ignore[attr-defined]
    assert re.search(r"\bUp ", row)
    assert "myapp" in row


def test_the_first_process_is_a_process_of_the_host_in_namespaces_of_its_own(cli: harness.Client) -> None:
    pid = pid_of(cli, "web")
    assert Path(f"/proc/{pid}/cmdline").exists()
    inside = namespaces(pid)
    outside = namespaces("self")
    for name in NAMESPACES:
        assert inside[name] != outside[name], name
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^NSpid:\t\d+\t1$", status, re.M), "it is process 1 of its own pid namespace"


def test_ps_inside_starts_at_one_and_shows_nothing_of_the_host(cli: harness.Client) -> None:
    listing = cli("exec", "web", "ps")
    pids = [int(line.split()[0]) for line in listing.splitlines() if line.split()[0].isdigit()]
    assert pids[0] == 1
    assert len(pids) < 20


def test_ifconfig_inside_shows_the_address_that_inspect_shows(cli: harness.Client) -> None:
    address = cli("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web")
    mac = cli("inspect", "--format", "{{.NetworkSettings.MacAddress}}", "web")
    listing = cli("exec", "web", "ifconfig", "eth0")
    assert address and f"inet addr:{address}" in listing
    assert mac.lower() in listing.lower()
    assert "127.0.0.1" in cli("exec", "web", "ifconfig", "lo")


def test_exec_it_joins_the_namespaces_and_has_a_real_pid_on_the_host(cli: harness.Client) -> None:
    master, slave = pty.openpty()
    process = cli.popen(
        "exec", "-it", "web", "sh", stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    try:
        os.write(master, b"exec sleep 4243\n")
        expected = namespaces(pid_of(cli, "web"))
        pid = harness.eventually(
            lambda: find_process(["sleep", "4243"]), message="no such process on the host"
        )
        assert namespaces(pid) == expected
        table = subprocess.run(
            ["ps", "-p", str(pid), "-o", "args="], capture_output=True, text=True, check=True
        )
        assert table.stdout.strip() == "sleep 4243"
        os.write(master, b"\x03")
        assert drain(process, master) == 130
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


def test_exec_gives_the_terminal_its_size_and_the_exit_code(cli: harness.Client) -> None:
    assert cli.run("exec", "web", "sh", "-c", "exit 7", check=False).returncode == 7
    assert (
        cli("exec", "-w", "/tmp", "-e", "A=b c", "-u", "0:0", "web", "sh", "-c", "pwd; echo $A; id -u")
        == "/tmp\nb c\n0"
    )
    assert cli("exec", "-i", "web", "cat", input="through stdin\n") == "through stdin"


def test_setns_does_what_the_c_program_of_the_tutorial_does(cli: harness.Client) -> None:
    if cli.program != "satsuma":
        pytest.skip("docker has no setns command")
    pid = pid_of(cli, "web")
    address = cli("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web")
    assert cli("setns", f"/proc/{pid}/ns/net", "readlink", "/proc/self/ns/net") == namespaces(pid)["net"]
    assert address in cli("setns", f"/proc/{pid}/ns/net", "ip", "-4", "addr", "show", "eth0")
    assert cli("setns", f"/proc/{pid}/ns/uts", "hostname") == cli(
        "inspect", "--format", "{{.Config.Hostname}}", "web"
    )
    bad = cli.run("setns", "/proc/self/status", "true", check=False)
    assert bad.returncode != 0 and "/proc/self/status" in bad.stderr


def interfaces(cli: harness.Client, container: str) -> str:
    """Return what `ifconfig` says there, without what was sent and received meanwhile."""
    return re.sub(r"(packets|bytes):[0-9]+( \([^)]*\))?", r"\1", cli("exec", container, "ifconfig"))


def test_net_container_shares_the_network_namespace_and_nothing_else(cli: harness.Client) -> None:
    web = cli("inspect", "--format", "{{.Id}}", "web")
    second = cli("run", "-d", f"--net=container:{web}", "busybox", "sleep", "1000")
    try:
        ours, theirs = namespaces(pid_of(cli, second)), namespaces(pid_of(cli, "web"))
        assert ours["net"] == theirs["net"]
        for name in ("mnt", "pid", "uts", "ipc"):
            assert ours[name] != theirs[name], name
        assert interfaces(cli, second) == interfaces(cli, "web") != ""
        assert "Hello World!" in cli("exec", second, "wget", "-qO-", "http://127.0.0.1:8080/getInfo")
    finally:
        cli("rm", "-f", second)


def test_net_host_is_the_namespace_of_the_host(cli: harness.Client) -> None:
    container = cli("run", "-d", "--net", "host", "busybox", "sleep", "1000")
    try:
        assert namespaces(pid_of(cli, container))["net"] == namespaces("self")["net"]
        assert cli("exec", container, "hostname") == socket.gethostname()
    finally:
        cli("rm", "-f", container)


def test_net_none_has_only_the_loopback(cli: harness.Client) -> None:
    listing = cli("run", "--rm", "--net", "none", "busybox", "ifconfig", "-a")
    assert re.findall(r"^(\S+)\s+Link", listing, re.M) == ["lo"]


def test_commit_keeps_what_the_user_wrote_and_leaves_the_init_layer_out(cli: harness.Client) -> None:
    source = cli(
        "run", "-d", "-v", "/volume", "busybox", "sh", "-c", "echo mine >/mine; echo v >/volume/v; sleep 1000"
    )
    try:
        harness.eventually(lambda: cli.run("exec", source, "cat", "/volume/v", check=False).returncode == 0)
        own_hosts = cli("exec", source, "cat", "/etc/hosts")
        address = cli("inspect", "--format", "{{.NetworkSettings.IPAddress}}", source)
        assert address in own_hosts
        image = cli(
            "commit", "-a", "Someone", "-m", "by hand", "--change", "ENV KEPT=yes", source, "committed:1"
        )
        assert image.startswith("sha256:")
        assert cli("run", "--rm", "committed:1", "cat", "/mine") == "mine"
        assert cli("run", "--rm", "committed:1", "sh", "-c", "echo $KEPT; ls -A /volume") == "yes"
        assert cli("inspect", "--format", "{{.Author}} {{.Comment}}", "committed:1") == "Someone by hand"
        names = layer_names(cli, "committed:1")
        assert "mine" in names and "volume" in names
        assert not [
            name for name in names if name.startswith(("etc", "volume/", "dev", "proc", "sys", ".dockerenv"))
        ]
        assert address not in cli("run", "--rm", "--net", "none", "committed:1", "cat", "/etc/hosts")
    finally:
        cli("rm", "-f", "-v", source)
    cli("rmi", "committed:1")


def test_v_makes_an_anonymous_volume_that_is_there_at_once_and_invisible_in_the_mount_table(
    cli: harness.Client,
) -> None:
    container = cli("run", "-d", "-v", "/test", "busybox", "sh", "-c", "touch /test/from-inside; sleep 1000")
    try:
        source = cli(
            "inspect",
            "--format",
            '{{range .Mounts}}{{if eq .Destination "/test"}}{{.Source}}{{end}}{{end}}',
            container,
        )
        name = cli("inspect", "--format", "{{range .Mounts}}{{.Name}}{{end}}", container)
        assert re.fullmatch(r"[0-9a-f]{64}", name)
        assert source == str(cli.daemon.data_root / "volumes" / name / "_data")
        harness.eventually(lambda: (Path(source) / "from-inside").exists())
        (Path(source) / "from-outside").touch()
        assert set(cli("exec", container, "ls", "/test").split()) == {"from-inside", "from-outside"}
        assert name in cli("volume", "ls", "-q").split()
        assert str(cli.daemon.root) not in Path("/proc/self/mounts").read_text()
        upper = Path(cli("inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", container))
        assert (upper / "test").is_dir() and not list((upper / "test").iterdir())
        assert cli("diff", container).splitlines() == ["A /test"]
    finally:
        cli("rm", "-f", "-v", container)
    assert name not in cli("volume", "ls", "-q").split()


def test_v_host_directory_is_the_same_directory(cli: harness.Client, tmp_path: Path) -> None:
    (tmp_path / "host-file").write_text("from the host\n")
    container = cli(
        "run", "-d", "-v", f"{tmp_path}:/test", "busybox", "sh", "-c", "echo in >/test/in; sleep 1000"
    )
    try:
        assert cli("exec", container, "cat", "/test/host-file") == "from the host"
        harness.eventually(lambda: (tmp_path / "in").exists() and (tmp_path / "in").read_text() == "in\n")
        assert "/test" not in Path("/proc/self/mounts").read_text()
        image = cli("commit", container)
        assert "test/in" not in layer_names(cli, image)
        cli("rmi", image)
    finally:
        cli("rm", "-f", container)
    read_only = cli.run(
        "run", "--rm", "-v", f"{tmp_path}:/test:ro", "busybox", "touch", "/test/x", check=False
    )
    assert read_only.returncode == 1 and "Read-only file system" in read_only.stderr


def test_v_fills_a_new_volume_from_the_image_and_a_named_one_outlives_its_container(
    cli: harness.Client,
) -> None:
    cli("run", "--rm", "-v", "kept:/etc", "busybox", "sh", "-c", "echo more >/etc/more")
    try:
        listing = cli("run", "--rm", "-v", "kept:/data:ro", "busybox", "ls", "/data").split()
        assert {"passwd", "more"} <= set(listing)
        first = cli("run", "-d", "-v", "kept:/data", "busybox", "sleep", "1000")
        second = cli("run", "--rm", "--volumes-from", first, "busybox", "cat", "/data/more")
        assert second == "more"
        refused = cli.run("volume", "rm", "kept", check=False)
        assert refused.returncode == 1 and "volume is in use" in refused.stderr
        cli("rm", "-f", first)
    finally:
        cli("volume", "rm", "kept")


def test_two_containers_of_an_image_share_its_layers_and_not_their_changes(cli: harness.Client) -> None:
    one = cli("run", "-d", "busybox", "sh", "-c", "echo one >/etc/motd; sleep 1000")
    two = cli("run", "-d", "busybox", "sleep", "1000")
    try:
        harness.eventually(lambda: "A /etc/motd" in cli("diff", one))
        lower = "{{.GraphDriver.Data.LowerDir}}"
        assert (
            cli("inspect", "--format", lower, one).split(":")[1:]
            == cli("inspect", "--format", lower, two).split(":")[1:]
        )
        assert cli.run("exec", two, "cat", "/etc/motd", check=False).returncode == 1
        assert cli("diff", two) == ""
    finally:
        cli("rm", "-f", one, two)


def test_memory_limit_is_in_the_cgroup_and_binds(cli: harness.Client) -> None:
    killed = cli.run(
        "run",
        "--name",
        "greedy",
        "-m",
        "16m",
        "busybox",
        "sh",
        "-c",
        "dd if=/dev/zero of=/dev/null bs=64M",
        check=False,
    )
    try:
        assert killed.returncode == 137
        assert cli("inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "greedy") == "true 137"
        limit = cli("inspect", "--format", "{{.HostConfig.Memory}}", "greedy")
        assert limit == str(16 * 1024 * 1024)
    finally:
        cli("rm", "-f", "greedy")


def test_save_and_load_bring_an_image_back_with_its_id(cli: harness.Client, tmp_path: Path) -> None:
    archive = tmp_path / "myapp.tar"
    cli("tag", "myapp", "myapp:copy")
    before = cli("inspect", "--format", "{{.Id}}", "myapp:copy")
    cli("save", "-o", str(archive), "myapp:copy")
    cli("rmi", "myapp:copy")
    assert "Loaded image: myapp:copy" in cli("load", "-i", str(archive))
    assert cli("inspect", "--format", "{{.Id}}", "myapp:copy") == before
    cli("rmi", "myapp:copy")


def test_export_and_import_make_one_flat_layer(cli: harness.Client, tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    cli("export", "-o", str(archive), "web")
    with tarfile.open(archive) as tar:
        assert "bin/busybox" in tar.getnames()
    cli("import", str(archive), "flat:1")
    assert cli("history", "-q", "flat:1").count("\n") == 0
    assert cli("run", "--rm", "flat:1", "echo", "flat") == "flat"
    cli("rmi", "flat:1")


def test_logs_top_and_stats_of_the_running_application(cli: harness.Client) -> None:
    assert cli("top", "web").splitlines()[0].split()[:2] == ["UID", "PID"]
    row = cli("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web").split()
    assert row[0] == "web" and int(row[1]) >= 1
    loud = cli("run", "-d", "busybox", "sh", "-c", "echo to stdout; echo to stderr >&2")
    cli("wait", loud)
    done = cli.run("logs", loud)
    assert done.stdout == "to stdout\n" and done.stderr == "to stderr\n"
    cli("rm", loud)


def test_the_daemon_may_die_while_the_application_answers(cli: harness.Client) -> None:
    ending = cli(
        "run", "-d", "busybox", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.3; done; exit 9"
    )
    before = pid_of(cli, "web")
    cli.daemon.kill()
    assert get(cli.port).startswith("Hello World!")  # type: ignore[attr-defined]
    time.sleep(1)
    cli.daemon.start()
    assert pid_of(cli, "web") == before
    assert get(cli.port).startswith("Hello World!")  # type: ignore[attr-defined]
    assert cli("wait", ending) == "9"
    assert cli("logs", ending).split() == list("12345678")
    cli("rm", ending)


def test_anatomy_draws_what_the_container_is_made_of(cli: harness.Client) -> None:
    if cli.program != "satsuma":
        pytest.skip("docker has no anatomy command")
    drawing = cli("anatomy", "web")
    pid = pid_of(cli, "web")
    for inode in namespaces(pid).values():
        assert inode.partition("[")[2].rstrip("]") in drawing
    assert str(pid) in drawing
    assert cli("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web") in drawing


def test_stop_ends_it_and_rm_leaves_nothing(cli: harness.Client) -> None:
    pid = pid_of(cli, "web")
    assert cli("stop", "-t", "5", "web") == "web"
    assert not Path(f"/proc/{pid}").exists()
    assert re.search(r"Exited \(\d+\)", cli("ps", "-a", "--filter", "name=web"))
    assert cli("rm", "web") == "web"
    assert cli.run("inspect", "web", check=False).returncode == 1
    cli("rmi", "myapp")


def find_process(argv: list[str]) -> int:
    """Return the host's pid of the process with exactly this command line, 0 when there is none."""
    wanted = b"".join(word.encode() + b"\0" for word in argv)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{entry}/cmdline").read_bytes() == wanted:
                    return int(entry)
    return 0


def drain(process: subprocess.Popen[bytes], master: int) -> int:
    """Read the terminal until the process has ended; return its exit status."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):
                os.read(master, 65536)
        if process.poll() is not None:
            return process.returncode
    raise AssertionError("the client did not end")


def layer_names(cli: harness.Client, image: str) -> list[str]:
    """Return the names in the top layer of an image, from its `save` archive."""
    import json

    done = subprocess.run([cli.argv0, "save", image], env=cli.environment, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        layer = archive.extractfile(manifest[0]["Layers"][-1])
        assert layer is not None
        with tarfile.open(fileobj=io.BytesIO(layer.read())) as top:
            return [name.removeprefix("./").rstrip("/") for name in top.getnames()]
