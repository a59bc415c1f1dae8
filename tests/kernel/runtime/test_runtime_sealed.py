"""Between clone and execve nothing of the container is opened by us, and nothing of the host by the container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runtime_lab import Lab

from satsuma.runtime import stage
from satsuma.runtime.errors import StartFailed


def test_an_import_after_the_root_has_changed_fails_the_start(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = lab.overlay()
    evil = Path(overlay["upperdir"]) / "usr/lib/python3.11"
    evil.mkdir(parents=True)
    (evil / "colorsys.py").write_text("import os; os.mkdir('/pwned')")

    def hostname(self: object, name: str) -> None:
        import colorsys  # noqa: F401

    monkeypatch.setitem(stage.OPERATIONS, "hostname", hostname)
    with pytest.raises(StartFailed, match="import of colorsys inside a container"):
        lab.run(lab.spec("true"), overlay=overlay)
    assert not (Path(overlay["upperdir"]) / "pwned").exists()


def test_users_files_of_strange_kinds_do_not_hang_or_fill_memory(lab: Lab) -> None:
    for kind in ("fifo", "directory", "zero", "host", "sparse"):
        overlay = lab.overlay()
        path = Path(overlay["upperdir"]) / "etc/passwd"
        path.parent.mkdir()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "zero":
            path.symlink_to("/dev/zero")
        elif kind == "host":
            path.symlink_to("/proc/1/root/etc/passwd")
        else:
            with open(path, "wb") as file:
                file.truncate(4 << 30)
        status, out = lab.run(
            lab.spec("grep", "Uid", "/proc/self/status", user={"username": "1234"}), overlay=overlay
        )
        assert (status, out.split()[1]) == (0, "1234"), kind


def test_environment_of_the_runtime_does_not_leak(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    assert "SECRET" not in lab.run(lab.spec("env"))[1]


def test_our_own_keyring_stays_on_the_host(lab: Lab) -> None:
    status, _ = lab.run(lab.spec("true"), keyring="_ses.test")
    assert status == 0


def test_standard_streams_belong_to_the_user(lab: Lab) -> None:
    spec = lab.spec("sh", "-c", "echo again > /dev/stdout", user={"username": "bob"})
    assert lab.run(spec) == (0, "again\n")
