"""The tutorial's own application: Spring Boot, built by Maven, on a base image made without a registry."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

import harness

EXAMPLE = Path(__file__).parents[2] / "examples" / "springboot"


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its jar built by Maven."""
    if not shutil.which("mvn") or not shutil.which("javac"):
        pytest.skip("no JDK and Maven on this machine")
    copy = tmp_path_factory.mktemp("springboot") / "springboot"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("target"))
    built = subprocess.run(
        ["mvn", "-q", "-B", "package"], cwd=copy, capture_output=True, text=True, check=False
    )
    if built.returncode and "Could not transfer artifact" in built.stdout + built.stderr:
        pytest.skip("no Maven repository can be reached from this machine")
    assert built.returncode == 0, built.stdout + built.stderr
    return copy


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_application_of_the_tutorial(daemon: harness.Daemon, jar: Path) -> None:
    client = harness.Client("satsuma", daemon)
    client("image", "bootstrap", "debian:bookworm-slim", timeout=900)
    client("build", "-t", "jre:17", "-f", str(jar / "Dockerfile.base"), str(jar), timeout=900)
    client("build", "-t", "getinfo", str(jar))
    for environment, expected in ((["-e", "NAME=Tutorial"], "Hello Tutorial!"), ([], "Hello World!")):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        container = client("run", "-d", "-p", f"{port}:8080", *environment, "getinfo")
        try:

            def answer(port: int = port) -> str:
                with_curl = subprocess.run(
                    ["curl", "-sf", f"http://127.0.0.1:{port}/getInfo"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                return with_curl.stdout

            text = harness.eventually(
                answer, limit=120, message=f"no answer: {client.run('logs', container).stdout}"
            )
            assert text.strip() == f"{expected} Hostname: {container[:12]}"
        finally:
            client("rm", "-f", container)
    assert "java" in client("inspect", "--format", "{{json .Config.Cmd}}", "getinfo")


@pytest.mark.slow
def test_without_a_name_it_greets_the_world(daemon: harness.Daemon, jar: Path) -> None:
    client = harness.Client("satsuma", daemon)
    if client.run("inspect", "getinfo", check=False).returncode:
        pytest.skip("the application was not built")
    container = client("run", "-d", "getinfo", "sh", "-c", "unset NAME; exec java -jar /app/target/*.jar")
    try:

        def answer() -> str:
            done = client.run(
                "exec",
                container,
                "sh",
                "-c",
                "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET /getInfo HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
                check=False,
            )
            if done.returncode:
                done = client.run(
                    "exec",
                    container,
                    "bash",
                    "-c",
                    "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET /getInfo HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
                    check=False,
                )
            return done.stdout

        assert "Hello world! Hostname: " in harness.eventually(answer, limit=120)
    finally:
        client("rm", "-f", container)
