"""The root of a hierarchy is nobody's group: a configuration that names it once killed every process of a machine."""

from __future__ import annotations

import pytest

from satsuma.linux import cgroup
from satsuma.linux.cgroup import Cgroup, Layout
from satsuma.runtime import state
from satsuma.runtime.errors import RuntimeFailure


@pytest.fixture(autouse=True)
def disarmed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    done: list[object] = []
    monkeypatch.setattr(cgroup.os, "kill", lambda *args: done.append(args))
    monkeypatch.setattr(cgroup, "write_file", lambda *args: done.append(args))
    monkeypatch.setattr(cgroup.os, "rmdir", lambda *args, **kwargs: done.append(args))
    return done


@pytest.mark.parametrize("path", ["/", "", "/..", "/a/../..", "//.//"])
@pytest.mark.parametrize("operation", ["create", "kill_all", "freeze", "remove"])
def test_root_is_refused(path: str, operation: str, disarmed: list[object], tmp_path) -> None:
    group = Cgroup(path, Layout({"": str(tmp_path), "pids": str(tmp_path)}, {}))
    (tmp_path / "cgroup.procs").write_text("2\n3\n")
    with pytest.raises(PermissionError):
        getattr(group, operation)()
    assert not disarmed


@pytest.mark.parametrize("path", ["/", "..", "/..", "./.", "a/..", "/../../../.."])
def test_configuration_that_names_the_root_is_refused(path: str) -> None:
    with pytest.raises(RuntimeFailure, match="root of the hierarchy"):
        state.cgroup_for(path, "x")
