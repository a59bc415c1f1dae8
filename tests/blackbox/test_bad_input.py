"""Bad input: a clear error in Docker's words, the right exit code, nothing left behind, nothing lost."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import harness


def state(client: harness.Client) -> tuple[list[str], list[str], list[str]]:
    """Return what an engine holds: images, containers, volumes."""
    return (
        sorted(client("images", "-aq", "--no-trunc").split()),
        sorted(client("ps", "-aq").split()),
        sorted(client("volume", "ls", "-q").split()),
    )


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("", "the Dockerfile (Dockerfile) cannot be empty|file with no instructions|cannot be empty"),
        ("RUN true\n", "no build stage in current context"),
        ("FROM busybox\nNONSENSE x\n", "unknown instruction: NONSENSE"),
        ("FROM busybox\nRUN [1, 2\nCOPY\n", "COPY requires at least two arguments"),
        ("FROM no-such-base\n", "no-such-base"),
        ("FROM busybox\nCOPY missing /\n", "missing"),
        ("FROM busybox\nCOPY ../outside /\n", "outside"),
        ("FROM busybox\nRUN exit 3\n", "returned a non-zero code: 3"),
        ("FROM busybox\nEXPOSE x\n", "x"),
        ("FROM busybox\nADD link /in\n", "link"),
        ("FROM busybox\nCOPY --chown=nobody-here . /d\n", "nobody-here"),
    ],
)
def test_builds_that_cannot_work(client: harness.Client, tmp_path: Path, dockerfile: str, words: str) -> None:
    (tmp_path / "Dockerfile").write_text(dockerfile)
    (tmp_path / "link").symlink_to("../../../../../../etc/shadow")
    before = state(client)
    done = client.run("build", "--no-cache", "--force-rm", "-t", "broken", str(tmp_path), check=False)
    # The classic builder hands the exit code of the failed command on.
    assert done.returncode == (3 if "exit 3" in dockerfile else 1), done.stdout + done.stderr
    assert any(word in done.stderr + done.stdout for word in words.split("|")), done.stderr
    assert "shadow:" not in done.stdout + done.stderr
    assert client.run("inspect", "broken", check=False).returncode == 1
    after = state(client)
    assert after[1:] == before[1:]


def test_a_hostile_context_stays_inside(satsuma: harness.Client, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in (
            (f"../../../../../../..{victim}", b"escaped"),
            ("Dockerfile", b"FROM busybox\nCOPY . /c\n"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        through = tarfile.TarInfo("out/victim")
        through.size = 7
        tar.addfile(through, io.BytesIO(b"escaped"))
    connection = harness.UnixConnection(str(satsuma.daemon.socket))
    connection.request("POST", "/build?t=hostile", data.getvalue(), {"Content-Type": "application/x-tar"})
    connection.getresponse().read()
    connection.close()
    assert not victim.exists()
    satsuma.run("rmi", "hostile", check=False)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["inspect", "nothing"], 1, "o such object: nothing"),
        (["start", "nothing"], 1, "No such container: nothing"),
        (["rmi", "nothing"], 1, "No such image: nothing"),
        (["logs", "nothing"], 1, "No such container: nothing"),
        (["exec", "nothing", "true"], 1, "No such container: nothing"),
        (["volume", "rm", "nothing"], 1, "no such volume"),
        (["network", "rm", "nothing"], 1, "nothing not found"),
        (["rename", "nothing", "x"], 1, "No such container: nothing"),
        (["tag", "busybox", "UPPER:case"], 1, "invalid reference format"),
        (["ps", "--filter", "nonsense=1"], 1, "invalid filter"),
        (["load", "-i", "/etc/passwd"], 1, ""),
        (["load", "-i", "/no/such/file"], 1, "no such file"),
        (["cp", "nothing:/x", "."], 1, "No such container: nothing"),
        (["nonsense"], 1, "nonsense"),
        (["ps", "--nonsense"], 125, "unknown flag: --nonsense"),
        (["volume", "create", "a/b"], 1, "a/b"),
        (["network", "create", "bridge"], 1, "operation is not permitted on predefined bridge network"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_commands_on_what_is_not_there(
    client: harness.Client, arguments: list[str], status: int, words: str
) -> None:
    before = state(client)
    done = client.run(*arguments, check=False)
    assert done.returncode == status or (status == 125 and done.returncode in (1, 125)), done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert state(client) == before


def test_images_in_use_are_kept(client: harness.Client) -> None:
    container = client("create", "busybox")
    try:
        done = client.run("rmi", "busybox", check=False)
        assert done.returncode == 1 and "conflict" in done.stderr and "busybox" in done.stderr
    finally:
        client("rm", container)
    assert client("run", "--rm", "busybox", "echo", "there") == "there"


def test_a_running_container_is_not_removed(client: harness.Client) -> None:
    container = client("run", "-d", "busybox", "sleep", "100")
    try:
        done = client.run("rm", container, check=False)
        assert (
            done.returncode == 1
            and "container is running: stop the container before removing or force remove" in done.stderr
        )
    finally:
        client("rm", "-f", container)


def test_an_unreadable_file_in_the_context_is_named(client: harness.Client, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /c\n")
    (tmp_path / "dangling").symlink_to("nowhere")
    client("build", "-t", "dangling", str(tmp_path))
    assert client("run", "--rm", "dangling", "readlink", "/c/dangling") == "nowhere"
    client("rmi", "dangling")
    done = client.run("build", str(tmp_path / "not-there"), check=False)
    assert done.returncode == 1 and "not-there" in done.stderr


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    daemon = harness.Daemon()
    daemon.data_root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "full", str(daemon.data_root)], check=True)
    try:
        daemon.start()
        client = harness.Client("satsuma", daemon)
        client("image", "bootstrap", "busybox")
        kept = client("run", "-d", "busybox", "sleep", "1000")
        before = state(client)
        big = tmp_path / "Dockerfile"
        big.write_text("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=64\n")
        built = client.run("build", str(tmp_path), check=False)
        assert built.returncode == 1
        ran = client.run(
            "run", "--rm", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=64", check=False
        )
        assert ran.returncode == 1 and "No space left on device" in ran.stderr
        with tarfile.open(tmp_path / "big.tar", "w") as tar:
            info = tarfile.TarInfo("big")
            info.size = 40 << 20
            tar.addfile(info, io.BytesIO(bytes(40 << 20)))
        imported = client.run("import", str(tmp_path / "big.tar"), "big", check=False)
        assert imported.returncode == 1 and "no space left on device" in imported.stderr.lower()
        assert "Traceback" not in built.stderr + imported.stderr
        assert state(client)[1:] == before[1:]
        assert set(before[0]) <= set(state(client)[0])
        assert client("exec", kept, "echo", "alive") == "alive"
        assert client("run", "--rm", "busybox", "echo", "again") == "again"
        daemon.kill()
        daemon.start()
        assert client("exec", kept, "echo", "alive") == "alive"
        daemon.remove_containers()
        daemon.terminate()
        assert not [line for line in daemon.leftovers() if not line.startswith("mount full")]
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()
        subprocess.run(["umount", "-l", str(daemon.data_root)], check=True)
        shutil.rmtree(daemon.root)
