"""T-R01 to T-R03 and the engine's own exposure: what a container can get hold of us by."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from security_lab import (
    INTERPRETER,
    Bundles,
    Container,
    Images,
    Sentinel,
    Swapper,
    python_binds,
    python_flags,
)

import harness

# An ELF file of one program header: PT_INTERP /proc/self/exe.
_ELF = (
    struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, 15, 15, 1)
    + b"/proc/self/exe\0"
)
SELF_EXE: dict[str, bytes | tuple[str, str]] = {
    "script": b"#!/proc/self/exe\nprint('Python')\n",
    "spaced": b"#! /proc/../proc/self/exe -c print('Python')\n",
    "numbered": b"#!/proc/1/exe\n",
    "link": ("symlink", "/proc/self/exe"),
    "chain": ("symlink", "/link"),
    "second": b"#!/script\n",
    "linked": b"#!/link\n",
    "loader": _ELF,
}


# --- T-R01: /proc/self/exe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["/proc/self/exe", *(f"/{name}" for name in SELF_EXE)])
def test_a_program_that_leads_to_our_own_image_does_not_start(
    satsuma: harness.Client, images: Images, sentinel: Sentinel, program: str
) -> None:
    image = images.make(SELF_EXE)
    done = satsuma.run("run", "--rm", image, program, "-c", "print('Python')", check=False)
    assert done.returncode in (125, 126, 127, 255), done
    assert "Python" not in done.stdout and "Python" not in done.stderr
    with Container(satsuma, image=image) as container:
        done = container.exec(program, "-c", "print('Python')")
        assert done.returncode in (125, 126, 127, 255), done
        assert "Python" not in done.stdout and "Python" not in done.stderr


@pytest.mark.parametrize("program", ["/proc/self/exe", *(f"/{name}" for name in SELF_EXE)])
def test_the_same_for_the_oci_runtime(bundles: Bundles, sentinel: Sentinel, program: str) -> None:
    bundle, config = bundles.make(program, "-c", "print('Python')")
    for name, content in SELF_EXE.items():
        if isinstance(content, tuple):
            (bundle / "rootfs" / name).symlink_to(content[1])
        else:
            (bundle / "rootfs" / name).write_bytes(content)
            (bundle / "rootfs" / name).chmod(0o755)
    done = bundles.run(bundle, config)
    assert done.returncode != 0 and "Python" not in done.stdout


def test_programs_that_look_alike_do_start(satsuma: harness.Client, images: Images) -> None:
    image = images.make(
        {
            "script": b"#!/bin/sh\necho $0 $1\n",
            "usr/bin/sh": ("symlink", "/bin/busybox"),
            "usr/bin/env": ("symlink", "/bin/env"),
        },
    )
    assert satsuma("run", "--rm", image, "/script", "x") == "/script x"
    assert satsuma("run", "--rm", image, "/usr/bin/sh", "-c", "echo y") == "y"
    assert satsuma("run", "--rm", image, "/usr/bin/env", "echo", "z") == "z"


def _write_race(shared: Path) -> None:
    (shared / "good").write_text("#!/bin/true\n")
    (shared / "bad").write_text(
        "#!/proc/self/exe\n"
        "import os\n"
        "exe = os.readlink('/proc/self/exe')\n"
        "try:\n os.open('/proc/self/exe', os.O_WRONLY); answer = 'open'\n"
        "except OSError as error: answer = str(error.errno)\n"
        "with open('/shared/won', 'a') as file: file.write(exe + ' ' + answer + '\\n')\n"
    )
    for name in ("good", "bad"):
        (shared / name).chmod(0o755)


def _check_race(shared: Path) -> None:
    won = (shared / "won").read_text().splitlines() if (shared / "won").exists() else []
    print(f"won {len(won)} times")
    for line in won:
        exe, answer = line.split()
        assert answer in ("30", "26") and exe != INTERPRETER, line  # EROFS, ETXTBSY of a sealed memory file


def test_whoever_wins_the_race_gets_a_sealed_image(
    satsuma: harness.Client, sentinel: Sentinel, tmp_path: Path
) -> None:
    """CVE-2019-5736 with the program exchanged between our look at it and execve."""
    shared = tmp_path / "shared"
    shared.mkdir()
    _write_race(shared)
    with Container(satsuma, "-v", f"{shared}:/shared", *python_flags()) as container:
        with Swapper(shared, "good", "bad"):
            for _ in range(60):
                container.exec("/shared/good")
    _check_race(shared)


def test_whoever_wins_the_race_with_the_oci_runtime_gets_a_sealed_image(
    bundles: Bundles, sentinel: Sentinel, tmp_path: Path
) -> None:
    bundle, config = bundles.make("sleep", "1000")
    shared = tmp_path / "shared"
    shared.mkdir()
    _write_race(shared)
    for source, target in (*python_binds(), (str(shared), "/shared")):
        options = ["rbind"] if target == "/shared" else ["rbind", "ro"]
        config["mounts"].append({"destination": target, "type": "bind", "source": source, "options": options})
    with bundles.running(bundle, config) as name, Swapper(shared, "good", "bad"):
        for _ in range(60):
            bundles.oci("exec", name, "/shared/good")
    _check_race(shared)


def test_the_oci_runtime_seals_itself_however_it_is_started(bundles: Bundles, tmp_path: Path) -> None:
    bundle, config = bundles.make("sh", "-c", "true")
    (bundle / "config.json").write_text(json.dumps(config))
    log = tmp_path / "log"
    script = str(harness.BIN / "satsuma-oci")
    for start in ([script], [sys.executable, "-IS", script]):
        command = [*start, "--root", str(bundles.state), "run", "-b", str(bundle), f"{bundles.prefix}-sealed"]
        trace = ["strace", "-f", "-qq", "-s", "200", "-e", "trace=execve", "-o", str(log)]
        subprocess.run([*trace, *command], check=True, timeout=60, stdin=subprocess.DEVNULL)
        last = [line for line in log.read_text().splitlines() if "execve(" in line and "satsuma-oci" in line][
            -1
        ]
        assert '"/run/satsuma-oci.image/python3"' in last or '"/proc/self/fd/' in last, last


def test_the_launcher_and_its_monitors_run_from_a_sealed_image(
    satsuma: harness.Client, daemon: harness.Daemon
) -> None:
    with Container(satsuma) as container:
        monitor = _monitor(container)
        parents = [monitor, int(_status(monitor)["PPid"])]
        for pid in parents:
            if b"satsuma" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                continue  # the monitor's parent is whoever reaps, once the launcher has gone
            with pytest.raises(OSError):
                os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY))
            assert os.readlink(f"/proc/{pid}/exe") != INTERPRETER


# --- T-R02: what can be seen of a process on its way into the container ------------------------------------

SCANNER = """
import os, sys
sentinel = sys.argv[1]
me = str(os.getpid())
seen = set()
def look(pid, name):
    path = f"/proc/{pid}/{name}"
    try:
        target = os.readlink(path)
    except OSError as error:
        return
    if name in ("root", "cwd"):
        for inside in (path + sentinel, path + "/.." + sentinel):
            try:
                os.stat(inside); seen.add(("HOST", name))
            except OSError: pass
    elif name.startswith("fd/"):
        for inside in (path + sentinel, path + "/../../../../../../../.." + sentinel, path + "/1/root" + sentinel):
            try:
                os.stat(inside); seen.add(("HOST", name))
            except OSError: pass
    else:
        if "busybox" not in target: seen.add((name, target))
print("scanning", flush=True)
while not os.path.exists("/stop"):
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or pid in (me, "1"): continue
        look(pid, "exe"); look(pid, "root"); look(pid, "cwd")
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"): look(pid, f"fd/{fd}")
        except OSError: pass
        try:
            environ = open(f"/proc/{pid}/environ", "rb").read()
            if environ: seen.add(("environ", environ.decode()))
        except OSError: pass
        try:
            writable = os.open(f"/proc/{pid}/exe", os.O_WRONLY); seen.add(("WRITABLE", os.readlink(f"/proc/{pid}/exe")))
        except OSError: pass
for item in sorted(seen): print(*item)
"""


@pytest.mark.parametrize("capability", ["", "SYS_PTRACE"])
def test_nothing_of_the_host_is_visible_of_an_exec(
    satsuma: harness.Client, sentinel: Sentinel, capability: str
) -> None:
    flags = ["--cap-add", capability] if capability else []
    with Container(satsuma, *flags, *python_flags()) as container:
        scan = satsuma.popen(
            *("exec", container.id, INTERPRETER, "-ISB", "-c", SCANNER, str(sentinel.victim)),
            stdout=subprocess.PIPE,
        )
        assert scan.stdout is not None and scan.stdout.readline() == b"scanning\n"
        for _ in range(80):
            assert container.exec("/bin/true").returncode == 0
        container.exec("touch", "/stop")
        lines = scan.stdout.read().decode().splitlines()
        assert scan.wait() == 0
    _check_scan(lines, capability)
    # The launcher's image is sealed, its path is no path of the host.
    assert f"exe {INTERPRETER}" not in lines


def _check_scan(
    lines: list[str], capability: str, environment: str = "PATH= MALLOC_ARENA_MAX= HOME= HOSTNAME="
) -> None:
    assert not [line for line in lines if line.startswith(("HOST", "WRITABLE"))]
    if not capability:
        # Of our own process nothing at all: it is not dumpable.
        assert not [line for line in lines if line.startswith("exe") and "python" in line]
    for line in lines:
        if line.startswith("environ"):
            names = {
                item.partition("=")[0] + "=" for item in line.removeprefix("environ ").split("\0") if item
            }
            assert names <= {*environment.split(), "SATSUMA_FAILPOINTS="}, names


@pytest.mark.parametrize("capability", ["", "CAP_SYS_PTRACE"])
def test_nothing_of_the_host_is_visible_of_an_exec_of_the_oci_runtime(
    bundles: Bundles, sentinel: Sentinel, capability: str
) -> None:
    bundle, config = bundles.make(INTERPRETER, "-ISB", "-c", SCANNER, str(sentinel.victim))
    if capability:
        for kind in ("bounding", "effective", "permitted"):
            config["process"]["capabilities"][kind].append(capability)
    for source, target in python_binds():
        config["mounts"].append(
            {"destination": target, "type": "bind", "source": source, "options": ["rbind", "ro"]}
        )
    config["mounts"].append(
        {"destination": "/out", "type": "bind", "source": str(bundle), "options": ["bind"]}
    )
    config["process"]["args"] = ["sh", "-c", 'exec "$@" > /out/scan 2>&1', "sh", *config["process"]["args"]]
    with bundles.running(bundle, config) as name:
        harness.eventually(lambda: (bundle / "scan").exists() and (bundle / "scan").read_text())
        for _ in range(30):
            done = bundles.oci("exec", name, "/bin/true", env={"PATH": os.environ["PATH"], "HOME": "/root"})
            assert done.returncode == 0, done.stderr
        (bundle / "rootfs/stop").touch()
        harness.eventually(lambda: bundles.oci("state", name).stdout.find('"stopped"') > 0)
        lines = (bundle / "scan").read_text().splitlines()
    _check_scan([line for line in lines if not line.startswith("environ")], capability)
    assert f"exe {INTERPRETER}" not in lines


# --- T-R03: directories and descriptors ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 7, 9, 11, 15, 33])
def test_a_working_directory_through_a_descriptor_is_refused(
    satsuma: harness.Client, images: Images, sentinel: Sentinel, number: int
) -> None:
    for path in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}", f"/proc/self/fd/{number}/tmp"):
        done = satsuma.run("run", "--rm", "-w", path, "busybox", "pwd", check=False)
        assert done.returncode != 0 and not done.stdout, (path, done)


def test_a_working_directory_of_exec_and_of_a_link(
    satsuma: harness.Client, images: Images, sentinel: Sentinel
) -> None:
    image = images.make(
        {
            "fd": ("symlink", "/proc/self/fd/7"),
            "out": ("symlink", str(sentinel.directory)),
            "in": ("symlink", "/srv/real"),
        }
    )
    done = satsuma.run("run", "--rm", "-w", "/fd", image, "pwd", check=False)
    assert done.returncode != 0
    # A link that leads out of the root leads to a place inside of it: there the directory is made.
    assert satsuma("run", "--rm", "-w", "/out/new", image, "pwd") == f"{sentinel.directory}/new"
    assert satsuma("run", "--rm", "-w", "/in", image, "pwd") == "/srv/real"
    with Container(satsuma, image=image) as container:
        for path in ("/fd", "/proc/1/cwd", "/proc/self/fd/5", "/proc/1/root/tmp"):
            done = container.exec("-w", path, "pwd")
            assert done.returncode != 0 and not done.stdout.strip().startswith("/work"), (path, done)
        # An exec makes no directory, as with dockerd 28.5.2: status 127 until there is one.
        assert container.exec("-w", "/in", "pwd").returncode == 127
        assert container.exec("mkdir", "-p", "/srv/real").returncode == 0
        assert container.exec("-w", "/in", "pwd").stdout == "/srv/real\n"


LIST_FDS = "ls -l /proc/self/fd; readlink /proc/self/cwd; ls ../../.. | tr '\\n' ' '; for p in /proc/[0-9]*; do ls -l $p/fd; done"


def test_only_the_standard_streams_are_open(satsuma: harness.Client, tmp_path: Path) -> None:
    with Container(satsuma) as container:
        assert sorted(os.listdir(f"/proc/{container.pid}/fd")) == ["0", "1", "2"]
        for flags in ((), ("-i",), ("-t",)):
            out = container.exec(*flags, "sh", "-c", LIST_FDS).stdout
            for number, target in re.findall(r" (\d+) -> (\S+)", out):
                if target.startswith("/proc/"):
                    continue  # the directory that `ls` itself reads
                assert int(number) <= 2 or target.startswith("/"), (number, target)
                assert target.startswith(("pipe:", "/dev/null", "/dev/pts/", "/dev/console", "socket:")), (
                    target
                )


def test_descriptors_of_the_caller_do_not_get_into_a_bundle(bundles: Bundles, sentinel: Sentinel) -> None:
    bundle, config = bundles.make("ls", "-l", "/proc/self/fd")
    leaks = [os.open(sentinel.directory, os.O_RDONLY | os.O_DIRECTORY) for _ in range(40)]
    try:
        done = bundles.run(bundle, config, pass_fds=leaks)
    finally:
        for fd in leaks:
            os.close(fd)
    assert done.returncode == 0, done.stderr
    assert "sentinel" not in done.stdout
    # 3 is the directory that `ls` itself reads.
    assert {int(number) for number in re.findall(r" (\d+) -> ", done.stdout)} <= {0, 1, 2, 3}


# --- the engine's own ----------------------------------------------------------------------------------------


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _monitor(container: Container) -> int:
    return int(_status(container.pid)["PPid"])


def test_sockets_and_directories_of_the_engine_have_tight_modes(
    satsuma: harness.Client, daemon: harness.Daemon
) -> None:
    """T-H01, T-H02: as a member of no group nobody gets anywhere."""
    with Container(satsuma, "-e", "SECRET=x") as container:
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660
        run_dir = daemon.exec_root / "containers" / container.id
        assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((run_dir / "monitor.sock").stat().st_mode) & 0o077 == 0
        assert stat.S_IMODE(daemon.data_root.stat().st_mode) & 0o067 == 0
        reachable = subprocess.run(
            [
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "find",
                str(daemon.data_root),
                str(run_dir),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert len(reachable.stdout.splitlines()) <= 2, reachable.stdout


def test_no_abstract_socket_is_ours(satsuma: harness.Client) -> None:
    """T-H03: an abstract socket is reachable from every container on the host's network (CVE-2020-15257)."""
    out = satsuma("run", "--rm", "--network", "host", "busybox", "cat", "/proc/net/unix")
    ours = [line for line in out.splitlines() if "@" in line and ("satsuma" in line or "monitor" in line)]
    assert not ours


def test_the_monitor_is_not_in_sight_of_its_container(satsuma: harness.Client) -> None:
    with Container(satsuma) as container:
        out = container.exec(
            "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /proc | grep -c '^[0-9]'"
        ).stdout
        assert "satsuma" not in out
        assert int(out.split()[-1]) <= 6
        status = _status(_monitor(container))
        assert status["NSpid"].split() == [str(_monitor(container))]


def test_a_container_in_the_pid_namespace_of_the_host_cannot_look_into_the_engine(
    satsuma: harness.Client, daemon: harness.Daemon
) -> None:
    with Container(satsuma, "--pid", "host") as container:
        monitor = _monitor(container)
        assert daemon.process is not None
        for pid in (monitor, daemon.process.pid):
            script = f"cat /proc/{pid}/environ; ls /proc/{pid}/root/ /proc/{pid}/cwd/; readlink /proc/{pid}/exe /proc/{pid}/fd/*; true"
            assert container.exec("sh", "-c", script).stdout == ""
        # Not even from outside of the container is a monitor's memory open to other processes of its user.
        assert _status(monitor)["CoreDumping"] == "0"


def test_a_monitor_holds_no_descriptor_of_another_container(
    satsuma: harness.Client, daemon: harness.Daemon
) -> None:
    with Container(satsuma) as first, Container(satsuma) as second:
        for container, other in ((first, second), (second, first)):
            for fd in os.listdir(f"/proc/{_monitor(container)}/fd"):
                target = os.readlink(f"/proc/{_monitor(container)}/fd/{fd}")
                assert other.id not in target and not target.endswith((".db", ".db-wal")), target


# --- exec into a hostile container ---------------------------------------------------------------------------


def test_hostile_account_files_neither_hang_nor_lead_out(
    satsuma: harness.Client, images: Images, sentinel: Sentinel, daemon: harness.Daemon
) -> None:
    """T-R15."""
    for content in (
        ("fifo", ""),
        ("char", "1:5"),
        ("symlink", "/dev/zero"),
        ("symlink", str(sentinel.victim)),
        ("symlink", "passwd"),
        b"x" * (11 << 20),
        b"a:x:0:0::/:\n" * 200_000,
    ):
        image = images.make({"etc/passwd": content, "etc/group": content})
        # Nothing of busybox that would read the file itself.
        whoami = ("grep", "-o", "Uid:.[0-9]*", "/proc/self/status")
        done = satsuma.run("run", "--rm", image, *whoami, check=False, timeout=30)
        assert (done.returncode, done.stdout) == (0, "Uid:\t0\n"), (content[:20], done)
        done = satsuma.run("run", "--rm", "-u", "nobody", image, "id", check=False, timeout=30)
        assert done.returncode in (125, 126) and "unable to find user nobody" in done.stderr, done
        with Container(satsuma, image=image) as container:
            assert container.exec("-u", "7:8", *whoami, timeout=30).stdout == "Uid:\t7\n"
            assert container.exec("-u", "nobody", "id", timeout=30).returncode != 0


def test_a_huge_account_file_costs_no_memory_that_stays(
    satsuma: harness.Client, images: Images, daemon: harness.Daemon
) -> None:
    def resident() -> int:
        assert daemon.process is not None
        return int(_status(daemon.process.pid)["VmRSS"].split()[0])

    image = images.make({"etc/passwd": b"a:x:0:0::/:\n" * 700_000})  # 8 MiB
    before = resident()
    satsuma.run("run", "--rm", "-u", "nobody", image, "id", check=False, timeout=30)
    assert resident() - before < 32 << 10


def test_exec_with_programs_that_are_traps(
    satsuma: harness.Client, images: Images, sentinel: Sentinel
) -> None:
    with Container(satsuma) as container:
        container.exec(
            "sh",
            "-c",
            "mkfifo /fifo; chmod 755 /fifo; mkdir /d; ln -s /fifo /l; mknod /n c 1 5; chmod 755 /n",
        )
        for program in ("/fifo", "/d", "/l", "/n", "/proc/1/root/bin/sh", "/dev/stdin", ""):
            done = container.exec(program, timeout=20)
            assert done.returncode != 0, (program, done)
        assert container.exec("echo", "alive").stdout == "alive\n"


def test_exec_where_the_container_has_replaced_its_proc(satsuma: harness.Client, sentinel: Sentinel) -> None:
    """With CAP_SYS_ADMIN a container lays what it likes over /proc, /dev and /bin."""
    flags = ("--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined")
    script = (
        "mount -t tmpfs none /proc && mkdir -p /proc/self/fd /proc/self/attr /proc/1 /proc/sys/kernel && "
        f"for n in 0 1 2 3 4 5 6 7 8 9 10; do ln -s {sentinel.victim} /proc/self/fd/$n; done && "
        "mkfifo /proc/self/exe /proc/self/attr/exec && mount -t tmpfs none /dev && mkfifo /dev/null /dev/ptmx && echo ok"
    )
    with Container(satsuma, *flags) as container:
        assert container.exec("sh", "-c", script).stdout == "ok\n"
        assert container.exec("echo", "alive", timeout=20).stdout == "alive\n"
        assert container.exec("-w", "/a/b/c", "pwd", timeout=20).returncode == 127
        assert container.exec("mkdir", "-p", "/a/b/c", timeout=20).returncode == 0
        assert container.exec("-w", "/a/b/c", "pwd", timeout=20).stdout == "/a/b/c\n"
        done = container.exec("-t", "echo", "x", timeout=20)
        assert done.returncode != 0 and "terminal" in done.stderr + done.stdout
        assert container.exec("-u", "5", "true", timeout=20).returncode == 0
        assert satsuma.run("top", container.id).returncode == 0


def test_an_exec_that_is_killed_while_it_starts_leaves_the_engine_well(satsuma: harness.Client) -> None:
    """Whoever may kill in the container may kill our process, from its birth on."""
    killer = "while true; do for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = 1 ] || [ $p = $$ ] || kill -9 $p; done; done 2>/dev/null"
    with Container(satsuma, command=("sh", "-c", killer)) as container:
        codes = {container.exec("sleep", "0.01", timeout=30).returncode for _ in range(60)}
        assert codes <= {0, 126, 127, 128, 137, 255, 1}, codes
    with Container(satsuma) as container:
        assert container.exec("echo", "well").stdout == "well\n"


def test_helpers_of_execs_are_reaped(satsuma: harness.Client) -> None:
    with Container(satsuma) as container:
        for _ in range(5):
            container.exec("true")
        monitor = _monitor(container)

        def children() -> list[str]:
            return Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()

        harness.eventually(lambda: children() == [str(container.pid)])


def test_the_control_socket_takes_no_foreigner(satsuma: harness.Client, daemon: harness.Daemon) -> None:
    """Its directory is closed to others; inside a container there is no way to it at all."""
    with Container(satsuma) as container:
        path = daemon.exec_root / "containers" / container.id / "monitor.sock"
        assert container.exec("ls", str(path)).returncode != 0
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                sock.connect(str(path))
            except PermissionError:
                os._exit(0)
            except OSError:
                os._exit(2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 2)


def test_inspect_of_a_hostile_label_is_data(satsuma: harness.Client, images: Images) -> None:
    """T-J03: labels and annotations of an image are never control input."""
    labels = {
        "containerd.io/restart.loguri": "binary:///bin/false",
        "com.docker.compose.project": "x",
        "io.satsuma": "y",
    }
    image = images.make({}, *(f"LABEL {name}={value}" for name, value in labels.items()))
    with Container(satsuma, image=image) as container:
        assert json.loads(satsuma("inspect", "--format", "{{json .Config.Labels}}", container.id)) == labels
        assert satsuma("inspect", "--format", "{{.HostConfig.LogConfig.Type}}", container.id) == "json-file"
