"""How a request and an image become one configuration."""

from __future__ import annotations

import pytest

from satsuma.base.errors import InvalidParameter
from satsuma.container.config import clean_working_dir, command_line, merge_config, process_env, replace_env
from satsuma.spec.docker import ContainerConfig, HealthConfig

IMAGE = ContainerConfig(
    entrypoint=["/entry"],
    cmd=["serve", "-v"],
    env=["PATH=/bin", "LANG=C"],
    labels={"a": "image", "b": "image"},
    exposed_ports={"80/tcp": {}},
    volumes={"/data": {}},
    working_dir="/srv",
    user="web",
    stop_signal="SIGQUIT",
    healthcheck=HealthConfig(test=["CMD", "check"], interval=5, retries=7),
)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "expected"),
    [
        (None, None, ["/entry", "serve", "-v"]),
        (None, ["other"], ["/entry", "other"]),
        (["/mine"], None, ["/mine"]),
        (["/mine"], ["x"], ["/mine", "x"]),
        ([""], ["x"], ["x"]),
        ([""], None, ["serve", "-v"]),
        ([], ["x"], ["x"]),
        ("/mine", "x", ["/mine", "x"]),
    ],
)
def test_entrypoint_and_command(
    entrypoint: list[str] | str | None, cmd: list[str] | str | None, expected: list[str]
) -> None:
    if entrypoint == [""] and cmd is None:
        # The reset drops the image's command as well, so nothing is left to run.
        with pytest.raises(InvalidParameter, match="no command specified"):
            merge_config(ContainerConfig(entrypoint=entrypoint, cmd=cmd), IMAGE)
        return
    merged = merge_config(ContainerConfig(entrypoint=entrypoint, cmd=cmd), IMAGE)
    assert command_line(merged) == expected


def test_no_command_at_all() -> None:
    with pytest.raises(InvalidParameter, match=r"^no command specified$"):
        merge_config(ContainerConfig(), ContainerConfig())


def test_the_request_wins_and_the_image_fills() -> None:
    merged = merge_config(
        ContainerConfig(
            env=["LANG=de", "X=1"],
            labels={"a": "mine"},
            exposed_ports={"443/tcp": {}},
            healthcheck=HealthConfig(interval=9),
        ),
        IMAGE,
    )
    assert merged.env == ["LANG=de", "X=1", "PATH=/bin"]
    assert merged.labels == {"a": "mine", "b": "image"}
    assert set(merged.exposed_ports or {}) == {"80/tcp", "443/tcp"}
    assert set(merged.volumes or {}) == {"/data"}
    assert (merged.working_dir, merged.user, merged.stop_signal) == ("/srv", "web", "SIGQUIT")
    assert merged.healthcheck == HealthConfig(test=["CMD", "check"], interval=9, retries=7)


def test_environment_defaults_are_overridden_and_removed() -> None:
    assert process_env(hostname="h", tty=True, own=["PATH=/x", "HOSTNAME", "A=1=2", "A=3"]) == [
        "PATH=/x",
        "TERM=xterm",
        "A=3",
    ]
    assert replace_env(["A=1"], ["B"]) == ["A=1"]


def test_working_directory() -> None:
    assert clean_working_dir("/a/../b/") == "/b"
    assert clean_working_dir("") == ""
    with pytest.raises(InvalidParameter, match="needs to be an absolute path"):
        clean_working_dir("a")
