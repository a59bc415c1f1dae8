"""docker-py's basic calls against the engine."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest

import harness

docker = pytest.importorskip("docker")


@pytest.fixture(scope="module")
def py(daemon: harness.Daemon) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=daemon.host)
    yield client
    client.close()


def test_run_returns_the_output_and_raises_with_stderr(py: docker.DockerClient) -> None:
    assert py.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    with pytest.raises(docker.errors.ContainerError, match="No such file or directory"):
        py.containers.run("busybox", "cat /missing", remove=True)
    with pytest.raises(docker.errors.ImageNotFound):
        py.images.get("not-here:1")


def test_life_of_a_container(py: docker.DockerClient) -> None:
    container = py.containers.run(
        "busybox", ["sh", "-c", "echo out; echo err >&2; sleep 100"], detach=True, labels={"py": "1"}
    )
    try:
        assert container in py.containers.list(filters={"label": "py=1"})
        harness.eventually(lambda: container.logs(stderr=False) == b"out\n")
        assert container.logs(stdout=False) == b"err\n"
        assert container.top()["Titles"]
        code, output = container.exec_run(["sh", "-c", "echo o; echo e >&2; exit 3"], demux=True)
        assert (code, output) == (3, (b"o\n", b"e\n"))
        container.pause()
        container.reload()
        assert container.status == "paused"
        container.unpause()
        container.rename("renamed-by-py")
        container.update(mem_limit="64m", memswap_limit="128m")
        assert container.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
        assert container.diff() is None or isinstance(container.diff(), list)
        container.kill()
        assert container.wait()["StatusCode"] == 137
    finally:
        container.remove(force=True)


def test_archives(py: docker.DockerClient) -> None:
    container = py.containers.create("busybox", "true")
    try:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            info = tarfile.TarInfo("folder/file")
            info.size = 5
            tar.addfile(info, io.BytesIO(b"bytes"))
        assert container.put_archive("/tmp", data.getvalue())
        stream, stat = container.get_archive("/tmp/folder")
        assert stat["name"] == "folder" and stat["mode"] & 1 << 31
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            assert tar.extractfile("folder/file").read() == b"bytes"
    finally:
        container.remove()


def test_build_commit_save_load(py: docker.DockerClient) -> None:
    image, log = py.images.build(
        rm=True, fileobj=io.BytesIO(b"FROM busybox\nRUN echo built >/built\nLABEL a=b\n"), tag="py:1"
    )
    assert any("Successfully built" in line.get("stream", "") for line in log)
    assert image.labels == {"a": "b"}
    container = py.containers.run("py:1", "sh -c 'echo more >/more'", detach=True)
    container.wait()
    committed = container.commit(repository="py", tag="2", message="m", author="a")
    container.remove()
    assert py.containers.run("py:2", "cat /built /more", remove=True) == b"built\nmore\n"
    saved = b"".join(committed.save(named=True))
    py.images.remove("py:2")
    assert [loaded.id for loaded in py.images.load(saved)] == [committed.id]
    py.images.remove("py:2")
    py.images.remove("py:1")


def test_volumes_networks_events(py: docker.DockerClient) -> None:
    volume = py.volumes.create("pyvol", labels={"x": "y"})
    assert volume in py.volumes.list(filters={"label": "x=y"})
    events = py.events(decode=True, filters={"type": "container"})
    container = py.containers.run(
        "busybox", "true", detach=True, volumes={"pyvol": {"bind": "/v", "mode": "rw"}}
    )
    seen = []
    for event in events:
        seen.append(event["Action"])
        if event["Action"] == "die":
            break
    events.close()
    assert seen[:1] == ["create"] and "start" in seen
    container.remove()
    volume.remove()
    assert {network.name for network in py.networks.list()} >= {"bridge", "host", "none"}


def test_info_version_df_ping(py: docker.DockerClient) -> None:
    assert py.ping()
    assert py.version()["ApiVersion"] == "1.51"
    assert py.info()["OSType"] == "linux"
    assert {"Images", "Containers", "Volumes"} <= set(py.df())
