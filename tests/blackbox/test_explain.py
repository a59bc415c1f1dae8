"""`run --explain` and `exec --explain`: the steps of a start, from the engine to execve, on standard error."""

from __future__ import annotations

import harness


def test_explained_run(satsuma: harness.Client) -> None:
    done = satsuma.run("run", "--rm", "--explain", "-p", "127.0.0.1::80", "busybox", "echo", "hello")
    assert done.stdout == "hello\n"
    text = done.stderr
    places = [
        text.index(word)
        for word in (
            "the engine: satsumad",
            "network",
            "config.json",
            "in namespaces of its own",
            "fsmount",
            "pivot_root  ",
            "seccomp",
            "execve",
        )
    ]
    assert places == sorted(places)
    assert "overlay of" in text
    assert text.rstrip().endswith("steps")
    assert satsuma("ps", "-aq") == ""


def test_explained_failure(satsuma: harness.Client) -> None:
    done = satsuma.run("run", "--rm", "--explain", "busybox", "/nope", check=False)
    assert done.returncode == 127
    assert "failed here" in done.stderr
    assert done.stderr.index("failed here") < done.stderr.index("no such file or directory")


def test_explained_in_the_background(satsuma: harness.Client) -> None:
    done = satsuma.run("run", "-d", "--explain", "busybox", "sleep", "100")
    container = done.stdout.strip()
    try:
        assert "execve" in done.stderr
    finally:
        satsuma("rm", "-f", container)


def test_explained_exec(satsuma: harness.Client) -> None:
    container = satsuma("run", "-d", "busybox", "sleep", "100").strip()
    try:
        for _ in range(2):  # the second has a helper that was born ahead
            done = satsuma.run("exec", "--explain", container, "sh", "-c", "echo hello; exit 3", check=False)
            assert (done.returncode, done.stdout) == (3, "hello\n")
            words = (
                "the engine: satsumad",
                "  process\n",
                "CLONE_NEWPID",
                "setresuid",
                "capset clone",
                "capset  ",
                "execve  ",
                "beside the container's first process",
            )
            places = [done.stderr.find(word) for word in words]
            assert places == sorted(places) and places[0] >= 0, (places, done.stderr)
        done = satsuma.run("exec", "--explain", container, "/nope", check=False)
        assert done.returncode == 127
        assert "failed here" in done.stderr and "no such file or directory" in done.stdout + done.stderr
        done = satsuma.run("exec", "-d", "--explain", container, "true")
        assert "execve" in done.stderr and done.stdout == ""
        # Nobody asks, nobody pays, nobody is told.
        assert satsuma.run("exec", container, "true").stderr == ""
    finally:
        satsuma("rm", "-f", container)
