"""satsuma-oci under the managers of others: podman, dockerd and containerd run, enter and delete containers with it.

Each manager is the installed one, with directories of its own; nothing of it is left afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from satsuma.runtime import criu

RUNTIME = str(Path(sys.executable).with_name("satsuma-oci"))
APPLETS = "sh ls cat id ps sleep echo true false hostname stty tty env grep readlink pwd kill touch".split()
# podman gives root 1048576 files and processes; raising the hard limits needs CAP_SYS_RESOURCE.
ULIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")


def manager_available(*programs: str) -> pytest.MarkDecorator:
    """Skip, with the reason, where a manager is not installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def rootfs_tar() -> bytes:
    """Return the layer of a busybox image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "data"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        archive.add("/bin/busybox", "bin/busybox")
        for name in APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        for name, text in (
            ("etc/passwd", "root:x:0:0::/:/bin/sh\nbob:x:7:8::/tmp:/bin/sh\n"),
            ("etc/group", ""),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def docker_archive() -> bytes:
    """Return the image as `docker save` writes it, which `ctr images import` reads."""
    layer = rootfs_tar()
    diff_id = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": ["docker.io/library/box:latest"], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, data in (
            (name, config),
            ("layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


class Manager:
    """One command line with its global flags."""

    def __init__(self, directory: Path, *argv: str) -> None:
        self.directory = directory
        self.argv = argv

    def __call__(
        self, *args: str, stdin: bytes = b"", code: int | None = 0, env: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Run one command; what it leaves running must not hold our pipes."""
        out, err = self.directory / "out", self.directory / "err"
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            done = subprocess.run(
                [*self.argv, *args],
                input=stdin,
                stdout=stdout,
                stderr=stderr,
                timeout=60,
                check=False,
                env={**os.environ, **(env or {})},
            )
        result = (done.returncode, out.read_text(), err.read_text())
        assert code is None or done.returncode == code, result
        return result

    def out(self, *args: str, stdin: bytes = b"") -> str:
        """Run a command that must succeed; return what it prints."""
        return self(*args, stdin=stdin)[1].strip()


def mounts() -> list[str]:
    return [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def groups() -> set[str]:
    """Return the cgroups of the first two levels."""
    top = Path("/sys/fs/cgroup")
    return {str(path) for pattern in ("*/", "*/*/", "*/*/*/") for path in top.glob(pattern)}


def firewall() -> str:
    if shutil.which("iptables-save") is None:
        return ""
    text = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
    return "\n".join(line for line in text.splitlines() if not line.startswith(("#", ":")))


@contextlib.contextmanager
def directory_of_its_own() -> Iterator[Path]:
    """A directory; afterwards nothing may be mounted below it, and no new cgroup of the manager may be there."""
    directory = Path(tempfile.mkdtemp(prefix="satsuma-manager-"))
    try:
        yield directory
    finally:
        left = [point for point in mounts() if point.startswith(str(directory))]
        for point in reversed(left):
            subprocess.run(["umount", "--lazy", point], check=False)
        shutil.rmtree(directory, ignore_errors=True)


def wait_for(check: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def serve(argv: list[str], log: Path) -> subprocess.Popen[bytes]:
    with open(log, "wb") as file:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- podman -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def podman() -> Iterator[Manager]:
    before = groups()
    with directory_of_its_own() as directory:
        made = Manager(
            directory,
            "podman",
            *("--root", f"{directory}/root", "--runroot", f"{directory}/run", "--tmpdir", f"{directory}/tmp"),
            *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"),
            *("--runtime", RUNTIME),
        )
        made("import", "-", "box", stdin=rootfs_tar())
        yield made
        made("rm", "--all", "--force", "--time", "0")
    for parent in sorted(groups() - before, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(parent)  # podman keeps the parent of its groups
    assert not [path for path in groups() - before if "libpod" in path]


needs_podman = manager_available("podman", "conmon")


@needs_podman
def test_podman_runs_enters_and_deletes(podman: Manager) -> None:
    podman("run", "-d", "--name", "web", *ULIMITS, "--network", "none", "box", "sleep", "1000")
    state = json.loads(podman.out("inspect", "web"))[0]
    assert (state["State"]["Status"], state["OCIRuntime"]) == ("running", RUNTIME)
    assert podman.out("exec", "web", "cat", "/proc/1/cmdline").replace("\0", " ") == "sleep 1000 "
    assert podman.out("exec", "--user", "bob", "web", "id", "-u") == "7"
    assert podman("exec", "web", "sh", "-c", "exit 3", code=None)[0] == 3
    assert podman.out("exec", "-t", "web", "tty").startswith("/dev/pts/")
    podman("pause", "web")
    assert podman.out("inspect", "--format", "{{.State.Status}}", "web") == "paused"
    podman("unpause", "web")
    podman("stop", "--time", "0", "web")
    assert podman.out("inspect", "--format", "{{.State.ExitCode}}", "web") == "137"
    podman("rm", "web")
    assert podman.out("ps", "--all", "--quiet") == ""


@needs_podman
def test_podman_sees_the_programs_status_and_output(podman: Manager) -> None:
    code, out, _ = podman(
        "run", "--rm", *ULIMITS, "--network", "none", "box", "sh", "-c", "echo out; exit 5", code=5
    )
    assert (code, out) == (5, "out\n")


@needs_podman
@pytest.mark.parametrize(("program", "code"), [("nope", 127), ("/etc/passwd", 126)])
def test_podman_understands_what_did_not_start(podman: Manager, program: str, code: int) -> None:
    podman("run", "--rm", *ULIMITS, "--network", "none", "box", program, code=code)
    assert podman.out("ps", "--all", "--quiet") == ""


@needs_podman
def test_podman_limits_and_user_namespace(podman: Manager) -> None:
    out = podman.out(
        *(
            "run",
            "--rm",
            *ULIMITS,
            "--network",
            "none",
            "--memory",
            "64m",
            "--pids-limit",
            "50",
            "--read-only",
        ),
        *("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "--tmpfs", "/tmp", "box"),
        *("sh", "-c", "cat /proc/self/uid_map; touch /x; touch /tmp/x && echo made; id -u"),
    )
    assert out.split()[:3] == ["0", "100000", "65536"]
    assert out.split()[-2:] == ["made", "0"]


@needs_podman
@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="no Python to send a datagram with")
def test_podman_hears_that_a_container_is_ready(podman: Manager, tmp_path: Path) -> None:
    program = (
        "import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
        "s.connect(os.environ['NOTIFY_SOCKET']); s.send(b'READY=1'); time.sleep(1000)"
    )
    binds = [f"--volume={os.path.realpath(path)}:{path}:ro" for path in ("/usr", "/lib", "/lib64")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20)
        heard: list[bytes] = []

        def listen() -> None:
            while not any(message.startswith(b"READY=1") for message in heard):
                data, fds, _, _ = socket.recv_fds(listening, 4096, 4)
                heard.append(data)
                for fd in fds:
                    os.close(fd)  # what the sender waits for

        listener = threading.Thread(target=listen)
        listener.start()
        podman(
            *(
                "run",
                "-d",
                "--name",
                "ready",
                "--sdnotify",
                "container",
                *ULIMITS,
                "--network",
                "none",
                *binds,
            ),
            *("box", "/usr/bin/python3", "-c", program),
            env={"NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        listener.join(20)
    podman("rm", "--force", "--time", "0", "ready")
    assert any(message.startswith(b"READY=1") for message in heard), heard


@needs_podman
def test_podman_checkpoints_and_restores(podman: Manager) -> None:
    if why := criu.unusable("criu"):
        pytest.skip(why)
    script = "i=0; while :; do i=$((i+1)); echo $i >> /tmp/n; sleep 0.1; done"
    podman("run", "-d", "--name", "moved", *ULIMITS, "--network", "none", "box", "sh", "-c", script)
    try:
        wait_for(lambda: podman.out("exec", "moved", "cat", "/tmp/n"), "the program counts")
        podman("container", "checkpoint", "moved")
        assert podman.out("inspect", "--format", "{{.State.Checkpointed}}", "moved") == "true"
        podman("container", "restore", "moved")
        before = int(podman.out("exec", "moved", "cat", "/tmp/n").split()[-1])
        wait_for(
            lambda: int(podman.out("exec", "moved", "cat", "/tmp/n").split()[-1]) > before > 1,
            "the program goes on counting",
        )
        numbers = podman.out("exec", "moved", "cat", "/tmp/n").split()
        assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    finally:
        podman("rm", "--force", "--time", "0", "moved")


@needs_podman
def test_podman_pods_share_namespaces(podman: Manager) -> None:
    podman("run", "-d", "--name", "one", *ULIMITS, "--network", "none", "box", "sleep", "1000")
    try:
        shared = ("--network", "container:one", "--pid", "container:one", "--ipc", "container:one")
        script = "for n in net pid ipc mnt; do readlink /proc/self/ns/$n; done; cat /proc/1/cmdline"
        out = podman.out("run", "--rm", *ULIMITS, *shared, "box", "sh", "-c", script)
        own = podman.out(
            "exec", "one", "sh", "-c", "for n in net pid ipc mnt; do readlink /proc/1/ns/$n; done"
        )
        assert out.split()[:3] == own.split()[:3]
        assert out.split()[3] != own.split()[3]
        assert "sleep" in out
    finally:
        podman("rm", "--force", "--time", "0", "one")


@needs_podman
def test_podman_joins_a_user_namespace(podman: Manager) -> None:
    maps = ("--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")
    podman("run", "-d", "--name", "one", *ULIMITS, *maps, "--network", "none", "box", "sleep", "1000")
    try:
        script = "readlink /proc/self/ns/user; cat /proc/self/uid_map; id -u"
        out = podman.out(
            *("run", "--rm", *ULIMITS, "--userns", "container:one", "--network", "container:one", "box"),
            *("sh", "-c", script),
        )
        assert out.split()[0] == podman.out("exec", "one", "readlink", "/proc/1/ns/user")
        assert out.split()[1:] == ["0", "200000", "65536", "0"]
    finally:
        # podman's own unmount of the container's /dev/shm is sometimes late; its second rm then finds it gone.
        if podman("rm", "--force", "--time", "0", "one", code=None)[0]:
            podman("rm", "--force", "--time", "0", "one")


# --- dockerd ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Manager]:
    rules, before = firewall(), groups()
    with directory_of_its_own() as directory:
        (directory / "daemon.json").write_text("{}")
        argv = [
            "dockerd",
            *("--config-file", f"{directory}/daemon.json", "--host", f"unix://{directory}/sock"),
            *(
                "--data-root",
                f"{directory}/data",
                "--exec-root",
                f"{directory}/run",
                "--pidfile",
                f"{directory}/pid",
            ),
            *("--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip6tables=false"),
            *("--add-runtime", f"satsuma={RUNTIME}", "--log-level", "error"),
        ]
        process = serve(argv, directory / "log")
        made = Manager(directory, "docker", "--host", f"unix://{directory}/sock")
        try:
            wait_for(
                lambda: process.poll() is None and made("version", code=None)[0] == 0,
                f"dockerd does not answer: {(directory / 'log').read_text()}",
            )
            made("import", "-", "box", stdin=rootfs_tar())
            yield made
            names = made.out("ps", "--all", "--quiet").split()
            if names:
                made("rm", "--force", *names)
        finally:
            stop(process)
    for parent in sorted(groups() - before, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(parent)  # dockerd keeps the parent of its groups
    assert firewall() == rules


needs_dockerd = manager_available("dockerd", "docker")
OURS = ("--runtime", "satsuma", "--network", "none")


@needs_dockerd
def test_dockerd_runs_enters_and_deletes(dockerd: Manager) -> None:
    dockerd("run", "-d", "--name", "web", *OURS, "--memory", "64m", "box", "sleep", "1000")
    assert (
        dockerd.out("inspect", "--format", "{{.HostConfig.Runtime}} {{.State.Status}}", "web")
        == "satsuma running"
    )
    assert dockerd.out("exec", "web", "cat", "/proc/1/cmdline").replace("\0", " ") == "sleep 1000 "
    assert (
        dockerd.out("exec", "--user", "bob", "--workdir", "/tmp", "web", "sh", "-c", "id -u; pwd")
        == "7\n/tmp"
    )
    assert dockerd("exec", "web", "sh", "-c", "exit 3", code=None)[0] == 3
    assert "sleep 1000" in dockerd.out("top", "web")
    dockerd("update", "--memory", "32m", "--memory-swap", "64m", "web")
    dockerd("pause", "web")
    assert dockerd.out("inspect", "--format", "{{.State.Status}}", "web") == "paused"
    dockerd("unpause", "web")
    assert "32MiB" in dockerd.out("stats", "--no-stream", "--format", "{{.MemUsage}}", "web")
    dockerd("stop", "--time", "0", "web")
    assert dockerd.out("inspect", "--format", "{{.State.ExitCode}}", "web") == "137"
    dockerd("start", "web")
    dockerd("rm", "--force", "web")
    assert dockerd.out("ps", "--all", "--quiet") == ""


@needs_dockerd
def test_dockerd_confines_as_with_its_own_runtime(dockerd: Manager) -> None:
    """The same container by both runtimes: what it sees of itself must be the same."""
    script = (
        "grep -E 'Cap|Seccomp:|NoNew|Groups' /proc/self/status; id; hostname; env; "
        "cat /proc/self/mountinfo | while read a b c d e f g; do echo $e $f; done; ls /dev; ls -l /proc/self/fd"
    )
    flags = ("--hostname", "same", "--rm", "--network", "none", "--tmpfs", "/tmp", "--cap-add", "NET_ADMIN")
    seen = {}
    for runtime in ("runc", "satsuma"):
        out = dockerd.out("run", "--runtime", runtime, *flags, "box", "sh", "-c", script)
        seen[runtime] = sorted({line for line in out.splitlines() if "->" not in line})
    assert seen["satsuma"] == seen["runc"]


@needs_dockerd
@pytest.mark.parametrize(("program", "code"), [("nope", 127), ("/etc/passwd", 126)])
def test_dockerd_understands_what_did_not_start(dockerd: Manager, program: str, code: int) -> None:
    _, _, err = dockerd("run", "--rm", *OURS, "box", program, code=code)
    assert f'exec: "{program}"' in err
    assert dockerd.out("ps", "--all", "--quiet") == ""


@needs_dockerd
def test_dockerd_gives_a_terminal(dockerd: Manager) -> None:
    argv = [*dockerd.argv, "run", "--rm", "-t", *OURS, "box", "sh", "-c", "tty; ls -l /dev/console; exit 4"]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert done.returncode == 4
    assert done.stdout.startswith(b"/dev/pts/0\r\n") and b"/dev/console" in done.stdout


# --- containerd ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ctr() -> Iterator[Manager]:
    before = groups()
    with directory_of_its_own() as directory:
        config = directory / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
            f'[grpc]\naddress = "{directory}/sock"\n[ttrpc]\naddress = "{directory}/sock.ttrpc"\n'
        )
        process = serve(["containerd", "--config", str(config)], directory / "log")
        made = Manager(directory, "ctr", "--address", f"{directory}/sock")
        try:
            wait_for(
                lambda: process.poll() is None and made("version", code=None)[0] == 0,
                f"containerd does not answer: {(directory / 'log').read_text()}",
            )
            archive = directory / "box.tar"
            archive.write_bytes(docker_archive())
            made("images", "import", str(archive))
            yield made
        finally:
            stop(process)
    for parent in sorted(groups() - before, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(parent)  # /default


needs_containerd = manager_available("containerd", "ctr", "containerd-shim-runc-v2")
CTR_RUN = ("run", "--snapshotter", "native", "--runc-binary", RUNTIME)
IMAGE = "docker.io/library/box:latest"


@needs_containerd
def test_containerd_runs_enters_and_deletes(ctr: Manager) -> None:
    name = f"satsuma-test-{os.getpid()}"
    ctr(*CTR_RUN, "--detach", IMAGE, name, "sleep", "1000")
    assert "RUNNING" in ctr.out("task", "ls")
    assert (
        ctr.out("task", "exec", "--exec-id", "one", name, "cat", "/proc/1/cmdline").replace("\0", " ")
        == "sleep 1000 "
    )
    assert ctr("task", "exec", "--exec-id", "two", name, "sh", "-c", "exit 4", code=None)[0] == 4
    ctr("task", "pause", name)
    assert "PAUSED" in ctr.out("task", "ls")
    ctr("task", "resume", name)
    assert len(ctr.out("task", "ps", name).splitlines()) == 2
    assert (
        "memory.usage_in_bytes" in ctr.out("task", "metrics", name)
        or not Path("/sys/fs/cgroup/memory").exists()
    )
    ctr("task", "kill", "--signal", "9", name)
    wait_for(lambda: "STOPPED" in ctr.out("task", "ls"), "the container does not stop")
    ctr("task", "delete", name, code=None)  # exits with the task's status
    ctr("container", "rm", name)
    assert name not in ctr.out("container", "ls")
    assert not any(name in path for path in groups())


@needs_containerd
def test_containerd_shows_why_a_container_did_not_start(ctr: Manager) -> None:
    name = f"satsuma-test-{os.getpid()}-nope"
    _, _, err = ctr(*CTR_RUN, "--rm", IMAGE, name, "nope", code=1)
    assert 'exec: "nope": executable file not found in $PATH' in err
    assert not any(name in path for path in groups())


@needs_containerd
def test_containerd_sees_the_programs_status_and_output(ctr: Manager) -> None:
    name = f"satsuma-test-{os.getpid()}-status"
    code, out, _ = ctr(*CTR_RUN, "--rm", IMAGE, name, "sh", "-c", "echo out; exit 6", code=None)
    assert (code, out) == (6, "out\n")
