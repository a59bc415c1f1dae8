"""`cp` by docker's rules about slashes, links and targets, in both directions, by both command lines."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness


@pytest.fixture
def box(client: harness.Client) -> Iterator[str]:
    name = f"copy-{client.program}"
    client("run", "-d", "--name", name, "busybox", "sleep", "1000")
    client(
        "exec",
        name,
        "sh",
        "-c",
        "mkdir -p /src/sub /dst && echo one > /src/f && echo two > /src/sub/g && ln -s f /src/link && ln -s /dst /to-dst",
    )
    yield name
    client("rm", "-f", name)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/f").write_text("one\n")
    (tmp_path / "dir/sub/g").write_text("two\n")
    os.chmod(tmp_path / "dir/f", 0o640)
    (tmp_path / "dir/link").symlink_to("f")
    (tmp_path / "existing").mkdir()
    (tmp_path / "file").write_text("old\n")
    return tmp_path


def listing(client: harness.Client, box: str, path: str) -> list[str]:
    return client("exec", box, "sh", "-c", f"cd {path} && find . | sort").split("\n")


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("dir/f", "/dst", {"/dst/f": "one"}),
        ("dir/f", "/dst/", {"/dst/f": "one"}),
        ("dir/f", "/dst/new", {"/dst/new": "one"}),
        ("dir", "/dst", {"/dst/dir/f": "one", "/dst/dir/sub/g": "two"}),
        ("dir/", "/dst", {"/dst/dir/f": "one"}),
        ("dir/.", "/dst", {"/dst/f": "one", "/dst/sub/g": "two"}),
        ("dir", "/dst/new", {"/dst/new/f": "one", "/dst/new/sub/g": "two"}),
        ("dir/.", "/dst/new", {"/dst/new/f": "one"}),
        ("dir/f", "/src/f", {"/src/f": "one"}),
        ("dir/f", "/to-dst", {"/dst/f": "one"}),
    ],
)
def test_into_a_container(
    client: harness.Client, box: str, here: Path, source: str, target: str, expected: dict[str, str]
) -> None:
    client("cp", source, f"{box}:{target}", cwd=str(here))
    for path, content in expected.items():
        assert client("exec", box, "cat", path) == content, listing(client, box, "/dst")


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("/src/f", "existing", {"existing/f": "one\n"}),
        ("/src/f", "new", {"new": "one\n"}),
        ("/src/f", "file", {"file": "one\n"}),
        ("/src", "existing", {"existing/src/f": "one\n", "existing/src/sub/g": "two\n"}),
        ("/src/.", "existing", {"existing/f": "one\n", "existing/sub/g": "two\n"}),
        ("/src", "new", {"new/f": "one\n", "new/sub/g": "two\n"}),
        ("/src/.", "new", {"new/f": "one\n"}),
        ("/src", ".", {"src/f": "one\n"}),
    ],
)
def test_out_of_a_container(
    client: harness.Client, box: str, here: Path, source: str, target: str, expected: dict[str, str]
) -> None:
    client("cp", f"{box}:{source}", target, cwd=str(here))
    for path, content in expected.items():
        assert (here / path).read_text() == content


def test_links_stay_links_unless_followed(client: harness.Client, box: str, here: Path) -> None:
    client("cp", f"{box}:/src/link", "existing", cwd=str(here))
    assert os.readlink(here / "existing/link") == "f"
    client("cp", "-L", f"{box}:/src/link", "followed", cwd=str(here))
    assert (here / "followed").read_text() == "one\n" and not (here / "followed").is_symlink()
    client("cp", "dir/link", f"{box}:/dst", cwd=str(here))
    assert client("exec", box, "readlink", "/dst/link") == "f"
    client("cp", "-L", "dir/link", f"{box}:/dst/followed", cwd=str(here))
    assert client("exec", box, "cat", "/dst/followed") == "one"


def test_modes_and_times_are_kept(client: harness.Client, box: str, here: Path) -> None:
    os.utime(here / "dir/f", (1_700_000_000, 1_700_000_000))
    client("cp", "dir/f", f"{box}:/dst", cwd=str(here))
    assert client("exec", box, "stat", "-c", "%a %Y", "/dst/f") == "640 1700000000"
    client("cp", f"{box}:/dst/f", "back", cwd=str(here))
    info = (here / "back").stat()
    assert info.st_mode & 0o777 == 0o640 and int(info.st_mtime) == 1_700_000_000


def test_tars_on_standard_streams(client: harness.Client, box: str, here: Path) -> None:
    raw = subprocess.run(
        [client.argv0, "cp", f"{box}:/src", "-"], capture_output=True, check=True, env=client.environment
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        assert {member.name.rstrip("/") for member in archive} >= {"src", "src/f", "src/sub/g"}
    subprocess.run([client.argv0, "cp", "-", f"{box}:/dst"], input=raw, check=True, env=client.environment)
    assert client("exec", box, "cat", "/dst/src/sub/g") == "two"


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("dir", "BOX:/src/f", "cannot copy directory"),
        ("dir/f", "BOX:/nowhere/", "no such directory"),
        ("nope", "BOX:/dst", "no such file or directory"),
        ("BOX:/nope", "new", "/nope"),
        ("BOX:/src", "file", "cannot copy directory"),
        ("BOX:/src/f", "nowhere/new", "nowhere"),
        ("BOX:/src/f", "BOX:/dst", "copying between containers is not supported"),
        ("dir", "new", "must specify at least one container source"),
        ("none:/x", "new", "No such container: none"),
    ],
)
def test_what_cannot_be_copied(
    client: harness.Client, box: str, here: Path, source: str, target: str, message: str
) -> None:
    done = client.run(
        "cp", source.replace("BOX", box), target.replace("BOX", box), cwd=str(here), check=False
    )
    assert done.returncode == 1 and message in done.stderr
    assert not (here / "new").exists()


def test_an_archive_does_not_lead_out_of_its_target(satsuma: harness.Client, here: Path) -> None:
    """A container's links are followed inside of the target, never on this host."""
    satsuma("run", "-d", "--name", "hostile", "busybox", "sleep", "1000")
    try:
        satsuma("exec", "hostile", "sh", "-c", "mkdir /evil && ln -s /etc /evil/out")
        satsuma("cp", "hostile:/evil/.", "existing", cwd=str(here))
        # The link is there as a link; copying below it again must not write to our /etc.
        satsuma(
            "exec",
            "hostile",
            "sh",
            "-c",
            "rm /evil/out && mkdir /evil/out && echo x > /evil/out/satsuma-escaped",
        )
        done = satsuma.run("cp", "hostile:/evil/.", "existing", cwd=str(here), check=False)
        assert not Path("/etc/satsuma-escaped").exists()
        assert done.returncode == 0 or "cannot overwrite" in done.stderr
    finally:
        satsuma("rm", "-f", "hostile")


def test_big_files_arrive_whole(client: harness.Client, box: str, here: Path) -> None:
    data = os.urandom(3_000_001)
    (here / "big").write_bytes(data)
    client("cp", "big", f"{box}:/dst", cwd=str(here))
    client("cp", f"{box}:/dst/big", "again", cwd=str(here))
    assert (here / "again").read_bytes() == data
