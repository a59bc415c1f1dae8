"""The life of a container that exists: start, kill, delete, pause, resume.

Kept apart from `satsuma.runtime.maker`, because these commands need a fraction of its imports.

Source: runtime-spec runtime.md#operations; what runc answers in each state (observed with 1.1.5).
"""

from __future__ import annotations

import os
import select
import time

from satsuma.linux import pidfd
from satsuma.runtime.errors import RuntimeFailure, StepError, error_text
from satsuma.runtime.state import CREATED, CREATING, PAUSED, STOPPED, Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KILL_TIMEOUT = 10.0


def hook_base(container: Container) -> dict[str, Any]:
    """Return the state for hooks but for status and pid."""
    base = {
        "ociVersion": container.config.get("ociVersion", "1.0.0"),
        "id": container.id,
        "bundle": container.data["bundle"],
        "root": container.data["rootfs"],
    }
    if container.config.get("annotations"):
        base["annotations"] = container.config["annotations"]
    return base


def host_hooks(container: Container, kind: str, status: str, pid: int) -> None:
    """Run the hooks of one kind in the runtime's own namespaces.

    Raises:
        RuntimeFailure: one of them failed.
    """
    entries = container.hooks(kind)
    if not entries:
        return
    from satsuma.runtime import hooks

    document = hooks.state_json(hook_base(container), status, pid)
    try:
        hooks.run_all(kind, entries, document, cwd=container.data["bundle"])
    except StepError as error:
        raise RuntimeFailure(str(error)) from error


def start_container(container: Container) -> None:
    """Let a created container run its program; returns after execve."""
    status = container.status()
    if status == STOPPED:
        raise RuntimeFailure("cannot start a container that has stopped")
    if status == CREATING:
        raise RuntimeFailure("cannot start a container that is not created yet")
    if status != CREATED:
        raise RuntimeFailure("cannot start an already running container")
    text = _open_gate(container)
    os.unlink(container.fifo)
    if text:
        raise RuntimeFailure(text)
    try:
        host_hooks(container, "poststart", "running", container.pid)
    except RuntimeFailure:
        _kill_init(container)
        raise


def _open_gate(container: Container) -> str:
    """Read from the FIFO: b"0", then nothing (execve has closed it) or an error of the stage."""
    fd = os.open(container.fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    collected = b""
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        while True:
            if poller.poll(100):
                chunk = os.read(fd, 65536)
                collected += chunk
                if not chunk and collected:
                    break
            if not chunk_possible(container, collected):
                raise RuntimeFailure("container process is already dead")
    finally:
        os.close(fd)
    return "" if collected[1:2] != b"E" else collected[3:].decode("utf-8", "replace")


def chunk_possible(container: Container, collected: bytes) -> bool:
    """Tell whether init may still say something."""
    return bool(collected) or container.is_alive()


def _kill_init(container: Container) -> None:
    """SIGKILL init and wait until it is gone."""
    try:
        fd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        return
    try:
        if not container.is_alive():
            return
        pidfd.send_signal(fd, 9)
        _thaw(container)
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if not poller.poll(_KILL_TIMEOUT * 1000):
            raise RuntimeFailure("container init still running")
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def _thaw(container: Container) -> None:
    group = container.cgroup()
    if group.is_frozen():
        group.thaw()


def kill_container(container: Container, signum: int, *, everyone: bool) -> None:
    """Send a signal to init, or to all processes of the container."""
    shares_pids = container.shares_pids
    status = container.status()
    if not everyone and (status == CREATING or (status == STOPPED and not shares_pids)):
        raise RuntimeFailure("container not running")
    if everyone or (shares_pids and signum == 9):
        container.cgroup().kill_all(signum)
        return
    try:
        fd = os.pidfd_open(container.pid)
    except ProcessLookupError as error:
        raise RuntimeFailure("container not running") from error
    try:
        pidfd.send_signal(fd, signum)
    except ProcessLookupError as error:
        raise RuntimeFailure("container not running") from error
    except OSError as error:
        raise RuntimeFailure(f"unable to signal init: {error_text(error)}") from error
    finally:
        os.close(fd)
    if signum == 9 and status == PAUSED:
        _thaw(container)


def delete_container(container: Container, *, force: bool, warn: Any) -> None:
    """Destroy a stopped or created container; *force* kills a running one."""
    status = container.status()
    if status == CREATED or (force and status not in (CREATING, STOPPED)):
        _kill_init(container)
    elif status != STOPPED and not force:
        raise RuntimeFailure(f"cannot delete container {container.id} that is not stopped: {status}")
    group = container.cgroup()
    if group.exists():
        if group.is_populated():
            group.kill_all()
        try:
            group.remove(timeout=10.0)
        except OSError as error:
            raise RuntimeFailure(f"unable to remove cgroup: {error_text(error)}") from error
    if made := container.data.get("intel_rdt_made"):
        from satsuma.runtime import resctrl

        resctrl.remove(made)
    container.remove_directory()
    if entries := container.hooks("poststop"):
        _run_poststop(container, entries, warn)


def _run_poststop(container: Container, entries: list[dict[str, Any]], warn: Any) -> None:
    from satsuma.runtime import hooks

    document = hooks.state_json(hook_base(container), STOPPED, 0)
    for number, entry in enumerate(entries):
        try:
            hooks.run_all("poststop", [entry], document, cwd=container.data["bundle"], first=number)
        except StepError as error:
            warn(str(error))


def pause_container(container: Container) -> None:
    """Freeze all processes."""
    status = container.status()
    if status not in ("running", CREATED):
        raise RuntimeFailure("container not running")
    container.cgroup().freeze()


def resume_container(container: Container) -> None:
    """Thaw all processes."""
    if container.status() != PAUSED:
        raise RuntimeFailure("container not paused")
    container.cgroup().thaw()


def wait_gone(container: Container, timeout: float) -> bool:
    """Wait until init has ended (also as a zombie)."""
    deadline = time.monotonic() + timeout
    while container.is_alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
