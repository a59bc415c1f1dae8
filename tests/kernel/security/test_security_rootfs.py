"""T-R04 to T-R10, T-R26: mounts, masks and device nodes that an image or a neighbour tries to redirect."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from security_lab import Bundles, Container, Images, Sentinel, Swapper

import harness
from satsuma.linux import mount, syscalls
from satsuma.runtime import default_spec, stage
from satsuma.runtime.plan import Extras, Plan

CORE_PATTERN = "/proc/sys/kernel/core_pattern"


def _in_child(function) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- T-R04: the source of masks ------------------------------------------------------------------------------


def _hostile_dev(directory: Path, null: str) -> Path:
    dev = directory / "dev"
    dev.mkdir()
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir()
    match null:
        case "link":
            (dev / "null").symlink_to(CORE_PATTERN)
        case "file":
            (dev / "null").write_text("")
        case "fifo":
            os.mkfifo(dev / "null")
        case "zero":
            os.mknod(dev / "null", 0o20666, os.makedev(1, 5))
        case "null":
            os.mknod(dev / "null", 0o20666, os.makedev(1, 3))
    return dev


@pytest.mark.parametrize("null", ["link", "file", "fifo", "zero"])
def test_masks_come_only_from_the_null_device(
    satsuma: harness.Client, bundles: Bundles, sentinel: Sentinel, tmp_path: Path, null: str
) -> None:
    """CVE-2025-31133."""
    dev = _hostile_dev(tmp_path, null)
    script = (
        f"cat {CORE_PATTERN} > /dev/null; echo pwned > {CORE_PATTERN}; echo pwned > /proc/keys; echo done"
    )
    done = satsuma.run("run", "--rm", "-v", f"{dev}:/dev", "busybox", "sh", "-c", script, check=False)
    assert done.returncode != 0 and "done" not in done.stdout, done
    assert "not the null device" in done.stderr or "/dev/null" in done.stderr, done.stderr
    bundle, config = bundles.make("sh", "-c", script)
    config["mounts"][1] = {"destination": "/dev", "type": "bind", "source": str(dev), "options": ["rbind"]}
    done = bundles.run(bundle, config)
    assert done.returncode != 0 and "done" not in done.stdout, done


def test_masks_work_with_a_dev_of_the_hosts_that_is_right(satsuma: harness.Client, tmp_path: Path) -> None:
    dev = _hostile_dev(tmp_path, "null")
    out = satsuma("run", "--rm", "-v", f"{dev}:/dev", "busybox", "stat", "-c", "%t:%T", "/proc/keys")
    assert out == "1:3"


def test_masks_while_the_null_device_is_exchanged(
    satsuma: harness.Client, sentinel: Sentinel, tmp_path: Path
) -> None:
    dev = _hostile_dev(tmp_path, "null")
    (dev / "evil").symlink_to(CORE_PATTERN)
    with Swapper(dev, "null", "evil"):
        for _ in range(25):
            done = satsuma.run(
                *("run", "--rm", "-v", f"{dev}:/dev", "busybox", "sh", "-c"),
                f"stat -c %t:%T /proc/keys /proc/timer_list; echo x > {CORE_PATTERN} || true",
                check=False,
            )
            if done.returncode == 0:
                assert done.stdout.split() == ["1:3", "1:3"], done
                assert "Read-only" in done.stderr


# --- T-R05: the terminal -------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostile", ["console", "pts", "ptmx", "all"])
def test_a_terminal_is_one_of_the_containers_own(
    satsuma: harness.Client, sentinel: Sentinel, tmp_path: Path, hostile: str
) -> None:
    """CVE-2025-52565."""
    dev = tmp_path / "dev"
    dev.mkdir()
    for name in ("shm", "mqueue"):
        (dev / name).mkdir()
    os.mknod(dev / "null", 0o20666, os.makedev(1, 3))
    os.mknod(dev / "tty", 0o20666, os.makedev(5, 0))
    if hostile in ("console", "all"):
        (dev / "console").symlink_to(sentinel.victim)
    if hostile in ("pts", "all"):
        (dev / "pts").symlink_to(sentinel.empty)
    else:
        (dev / "pts").mkdir()
    (dev / "ptmx").symlink_to(sentinel.victim if hostile in ("ptmx", "all") else "pts/ptmx")
    script = (
        "stat -c '%t:%T' -L /proc/self/fd/0; stat -f -c %T /dev/pts 2>/dev/null; echo x > /dev/console; true"
    )
    done = satsuma.run("run", "--rm", "-t", "-v", f"{dev}:/dev", "busybox", "sh", "-c", script, check=False)
    if done.returncode == 0:
        assert done.stdout.split()[0] == "88:0", done


def test_a_terminal_with_nothing_hostile(satsuma: harness.Client) -> None:
    script = (
        "tty; stat -c %t:%T /dev/console; stat -c %t:%T -L /proc/self/fd/0; readlink /dev/ptmx; ls /dev/pts"
    )
    out = satsuma("run", "--rm", "-t", "busybox", "sh", "-c", script).replace("\r", "").split()
    assert out == ["/dev/pts/0", "88:0", "88:0", "pts/ptmx", "0", "ptmx"] or out[1:4] == [
        "88:0",
        "88:0",
        "pts/ptmx",
    ]


# --- T-R06: what lies over procfs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/proc/self/attr",
        "/proc/sys",
        "/proc/self",
        "/proc/1",
        "/proc/sys/kernel",
        "/x/self/attr",
        "/proc/../proc/sys",
    ],
)
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_nothing_is_mounted_below_proc(
    satsuma: harness.Client, images: Images, sentinel: Sentinel, tmp_path: Path, target: str, kind: str
) -> None:
    image = images.make({"x": ("symlink", "/proc")})
    flags = ["--tmpfs", target] if kind == "tmpfs" else ["-v", f"{sentinel.empty}:{target}"]
    done = satsuma.run("run", "--rm", *flags, image, "true", check=False)
    assert done.returncode != 0
    assert "inside /proc" in done.stderr or "proc" in done.stderr, done.stderr


@pytest.mark.parametrize("target", ["/proc"])
def test_no_other_directory_is_proc(
    satsuma: harness.Client, bundles: Bundles, images: Images, sentinel: Sentinel, target: str
) -> None:
    done = satsuma.run("run", "--rm", "-v", f"{sentinel.empty}:{target}", "busybox", "true", check=False)
    assert done.returncode != 0 and "/proc" in done.stderr
    image = images.make({}, "VOLUME /proc")
    done = satsuma.run("run", "--rm", image, "true", check=False)
    assert done.returncode != 0 and "/proc" in done.stderr
    bundle, config = bundles.make("true")
    config["mounts"].append({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"})
    assert bundles.run(bundle, config).returncode != 0


def test_the_files_that_lxcfs_covers_may_be_covered(satsuma: harness.Client, tmp_path: Path) -> None:
    fake = tmp_path / "uptime"
    fake.write_text("1.00 1.00\n")
    for name in ("uptime", "meminfo", "loadavg"):
        out = satsuma("run", "--rm", "-v", f"{fake}:/proc/{name}:ro", "busybox", "cat", f"/proc/{name}")
        assert out == "1.00 1.00"


def test_our_writes_below_proc_go_to_a_procfs_that_nobody_can_cover() -> None:
    """CVE-2025-52881, 2019-16884."""

    def check() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        fake = mount.create("tmpfs")
        mount.move_mount_path(fake, "/proc/sys/kernel")
        Path("/proc/sys/kernel/domainname").write_text("fake")
        made = stage.Stage(Plan(None, Extras()), -1, (-1, -1, -1))
        made.write_proc("sys/kernel/domainname", "real")
        assert Path("/proc/sys/kernel/domainname").read_text() == "fake"
        assert made.root.fd == -1 and os.uname()  # nothing else was touched
        with open("/proc/self/mountinfo") as table:
            assert sum(" - proc " in line for line in table) >= 1
        syscalls.umount2("/proc/sys/kernel", syscalls.MNT_DETACH)
        assert Path("/proc/sys/kernel/domainname").read_text().strip() == "real"

    assert _in_child(check) == 0


def test_our_writes_below_proc_follow_no_link_and_cross_no_mount() -> None:
    def check() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        made = stage.Stage(Plan(None, Extras()), -1, (-1, -1, -1))
        procfs = made.private_procfs()
        assert syscalls.fstatfs(procfs)[0] == syscalls.PROC_SUPER_MAGIC
        assert os.fstat(procfs).st_ino == 1
        for path in ("mounts", "self/root/etc/passwd", "../etc/passwd"):
            try:
                made.write_proc(path, "x")
            except OSError:
                continue
            raise AssertionError(path)

    assert _in_child(check) == 0


# --- T-R07: /proc and /sys that are none ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("kind", ["link", "chain", "file"])
def test_proc_and_sys_must_be_ordinary_directories(
    bundles: Bundles, sentinel: Sentinel, name: str, kind: str
) -> None:
    """CVE-2019-19921, 2023-27561."""
    bundle, config = bundles.make("true")
    place = bundle / "rootfs" / name
    place.rmdir()
    if kind == "file":
        place.write_text("")
    else:
        (bundle / "rootfs/elsewhere").mkdir()
        place.symlink_to("/elsewhere" if kind == "link" else str(sentinel.empty))
    done = bundles.run(bundle, config)
    assert done.returncode != 0
    assert "must be mounted on ordinary directory" in done.stderr or "not a directory" in done.stderr, (
        done.stderr
    )


def test_images_with_links_for_proc_and_sys_get_real_ones(
    satsuma: harness.Client, images: Images, sentinel: Sentinel
) -> None:
    """The init layer lies over the image, so a link of the image's is never seen."""
    image = images.make({"proc": ("symlink", str(sentinel.empty)), "sys": ("symlink", "/proc")})
    out = satsuma("run", "--rm", image, "stat", "-f", "-c", "%T", "/proc", "/sys")
    assert out.split() == ["proc", "sysfs"]


# --- T-R08: /dev that leads away -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["dir", "pts"])
def test_device_nodes_are_made_inside(
    satsuma: harness.Client, bundles: Bundles, images: Images, sentinel: Sentinel, target: str
) -> None:
    """CVE-2026-41579, 2026-47766: the link is followed inside of the root, where the mount then lies."""
    bundle, config = bundles.make("ls", "/dev")
    place = bundle / "rootfs/dev"
    place.rmdir()
    place.symlink_to(sentinel.empty)
    config["mounts"] = [m for m in config["mounts"] if m["destination"] == "/proc"]
    if target == "pts":
        config["mounts"].append({"destination": "/dev/pts", "type": "devpts", "source": "devpts"})
    config["linux"]["maskedPaths"] = []
    done = bundles.run(bundle, config)
    assert os.listdir(sentinel.empty) == []
    if done.returncode == 0:
        assert "null" in done.stdout
        inside = bundle / "rootfs" / str(sentinel.empty).lstrip("/")
        assert (inside / "null").is_char_device()
    image = images.make({"dev": ("symlink", str(sentinel.empty))})
    assert "null" in satsuma("run", "--rm", image, "ls", "/dev/")


@pytest.mark.parametrize("path", ["/dev/../../../x", "/../..{dir}/x", "/link/x"])
def test_paths_of_devices_stay_inside(bundles: Bundles, sentinel: Sentinel, path: str) -> None:
    bundle, config = bundles.make("true")
    (bundle / "rootfs/link").symlink_to(sentinel.empty)
    config["linux"]["devices"] = [
        {"path": path.format(dir=sentinel.empty), "type": "c", "major": 1, "minor": 7, "fileMode": 0o666}
    ]
    bundles.run(bundle, config)
    assert os.listdir(sentinel.empty) == []


def test_a_device_in_a_place_of_its_own(satsuma: harness.Client) -> None:
    out = satsuma(
        "run",
        "--rm",
        "--device",
        "/dev/full:/dev/a/b/full:r",
        "busybox",
        "stat",
        "-c",
        "%t:%T",
        "/dev/a/b/full",
    )
    assert out == "1:7"


# --- T-R09: destinations of mounts ---------------------------------------------------------------------------


def _links(sentinel: Sentinel) -> dict[str, tuple[str, str] | bytes]:
    return {
        "abs": ("symlink", str(sentinel.directory)),
        "rel": ("symlink", "../../../../../.." + str(sentinel.directory)),
        "one": ("symlink", "/two"),
        "two": ("symlink", "/abs"),
        "dangling": ("symlink", f"{sentinel.directory}/new"),
        "real/inner": b"",
        "inner": ("symlink", "/real"),
    }


@pytest.mark.parametrize("place", ["abs/dir", "rel/dir", "one/dir", "dangling", "abs/a/b/c", "one/victim/x"])
@pytest.mark.parametrize("kind", ["bind", "file", "volume", "tmpfs", "image-volume"])
def test_mounts_land_inside(
    satsuma: harness.Client, images: Images, sentinel: Sentinel, tmp_path: Path, place: str, kind: str
) -> None:
    """CVE-2021-30465, 2024-45310 and their ancestors."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "mark").write_text("mark")
    changes = [f"VOLUME /{place}"] if kind == "image-volume" else []
    image = images.make(_links(sentinel), *changes)
    flags = {
        "bind": ["-v", f"{source}:/{place}"],
        "file": ["-v", f"{source}/mark:/{place}"],
        "volume": ["-v", f"/{place}"],
        "tmpfs": ["--tmpfs", f"/{place}"],
        "image-volume": [],
    }[kind]
    done = satsuma.run("run", "--rm", *flags, image, "cat", "/proc/self/mountinfo", check=False)
    if done.returncode == 0:
        points = {line.split()[4] for line in done.stdout.splitlines()}
        assert any(point.startswith(str(sentinel.directory)) or point == f"/{place}" for point in points), (
            points
        )


def test_legitimate_links_are_followed(satsuma: harness.Client, images: Images, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "mark").write_text("mark")
    image = images.make({"var/run": ("symlink", "/run"), "run/x": b"", "srv/": b"", "s": ("symlink", "srv")})
    out = satsuma("run", "--rm", "-v", f"{source}:/var/run/app", image, "cat", "/run/app/mark")
    assert out == "mark"
    assert satsuma("run", "--rm", "-v", f"{source}:/s/deep/er", image, "cat", "/srv/deep/er/mark") == "mark"


@pytest.mark.parametrize("name", ["resolv.conf", "hosts", "hostname"])
def test_the_files_of_the_engine_land_inside(
    satsuma: harness.Client, images: Images, sentinel: Sentinel, name: str
) -> None:
    for entries in (
        {f"etc/{name}": ("symlink", str(sentinel.victim))},
        {"etc": ("symlink", str(sentinel.directory))},
        {f"etc/{name}": ("fifo", "")},
    ):
        image = images.make(entries)
        done = satsuma.run("run", "--rm", image, "cat", f"/etc/{name}", check=False, timeout=30)
        assert "victim" not in done.stdout


def test_destinations_while_a_neighbour_exchanges_them(
    satsuma: harness.Client, sentinel: Sentinel, tmp_path: Path
) -> None:
    """CVE-2021-30465: a directory of a shared volume becomes a link between two looks at it."""
    shared = tmp_path / "shared"
    (shared / "a/b").mkdir(parents=True)
    (shared / "evil").symlink_to(sentinel.directory)
    source = tmp_path / "source"
    source.mkdir()
    with Swapper(shared, "a", "evil"):
        for number in range(40):
            flags = ["-v", f"{source}:/shared/a/b"] if number % 2 else ["--tmpfs", "/shared/a/dir"]
            satsuma.run("run", "--rm", "-v", f"{shared}:/shared", *flags, "busybox", "true", check=False)
    sentinel.assert_intact()


def test_destinations_of_bundles_while_a_neighbour_exchanges_them(
    bundles: Bundles, sentinel: Sentinel, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    (shared / "a/b").mkdir(parents=True)
    (shared / "evil").symlink_to(sentinel.directory)
    bundle, config = bundles.make("true")
    config["mounts"] += [
        {"destination": "/shared", "type": "bind", "source": str(shared), "options": ["rbind"]},
        {"destination": "/shared/a/new", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/shared/a/b", "type": "bind", "source": str(tmp_path), "options": ["bind"]},
    ]
    with Swapper(shared, "a", "evil"):
        for _ in range(25):
            bundles.run(bundle, config)


# --- T-R10: subpaths -----------------------------------------------------------------------------------------


def test_a_subpath_of_a_volume_stays_in_the_volume(
    satsuma: harness.Client, sentinel: Sentinel, daemon: harness.Daemon
) -> None:
    """CVE-2017-1002101, 2021-25741."""
    satsuma("volume", "create", "sub")
    try:
        data = Path(satsuma("volume", "inspect", "--format", "{{.Mountpoint}}", "sub"))
        (data / "real").mkdir()
        (data / "real/mark").write_text("mark")
        (data / "evil").symlink_to(sentinel.directory)
        (data / "inner").symlink_to("real")

        def run(subpath: str) -> subprocess.CompletedProcess[str]:
            mount_flag = f"type=volume,src=sub,dst=/m,volume-subpath={subpath}"
            return satsuma.run("run", "--rm", "--mount", mount_flag, "busybox", "ls", "/m", check=False)

        assert run("real").stdout == "mark\n"
        assert run("inner").stdout == "mark\n"
        for subpath in ("evil", "evil/dir", "../../..", "real/../../.."):
            assert "victim" not in run(subpath).stdout, subpath
        with Swapper(data, "real", "evil"):
            for _ in range(25):
                assert "victim" not in run("real").stdout
    finally:
        satsuma("volume", "rm", "sub")


# --- T-R26: masks --------------------------------------------------------------------------------------------


def test_every_masked_and_every_read_only_path(satsuma: harness.Client) -> None:
    masked = default_spec.masked_paths()
    script = (
        "for p in " + " ".join(masked) + "; do "
        'if [ -d $p ]; then echo "$p dir $(ls -A $p | wc -l)"; touch $p/x 2>/dev/null && echo "$p WRITABLE"; '
        'elif [ -e $p ]; then echo "$p file $(head -c1 $p | wc -c) $(stat -c %t:%T $p)"; fi; '
        "umount $p 2>/dev/null && echo $p UNMOUNTED; mount -o remount,rw $p 2>/dev/null && echo $p REMOUNTED; "
        "mount --bind / $p 2>/dev/null && echo $p BOUND; done; "
        "for p in " + " ".join(default_spec.READONLY_PATHS) + "; do "
        "if [ -d $p ]; then touch $p/x 2>/dev/null && echo $p WRITABLE; else echo h > $p && echo $p WRITABLE; fi; done; "
        "echo 1 > /proc/sys/kernel/shmmni && echo /proc/sys WRITABLE; echo x > /sys/kernel/uevent_helper && echo /sys WRITABLE; true"
    )
    out = satsuma("run", "--rm", "busybox", "sh", "-c", script)
    for line in out.splitlines():
        words = line.split()
        assert words[1] in ("dir", "file"), line
        assert words[2] == "0" and (words[1] == "dir" or words[3] == "1:3"), line
    present = {line.split()[0] for line in out.splitlines()}
    assert {path for path in masked if os.path.lexists(path)} <= present


def test_privileged_and_unconfined_paths_are_neither_masked_nor_read_only(satsuma: harness.Client) -> None:
    script = "grep -c -E ' (/proc/.*|/sys/firmware) ' /proc/self/mountinfo; echo 4096 > /proc/sys/kernel/shmmni && echo ok"
    assert satsuma("run", "--rm", "--privileged", "busybox", "sh", "-c", script).split() == ["0", "ok"]
    flags = ("--security-opt", "systempaths=unconfined")
    assert satsuma("run", "--rm", *flags, "busybox", "sh", "-c", script).split()[0] == "0"


def test_the_engines_own_start_leaves_no_mount_of_the_host(satsuma: harness.Client) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    with Container(satsuma, "--tmpfs", "/t", "-v", "/v"):
        assert Path("/proc/self/mountinfo").read_text() == before
    assert Path("/proc/self/mountinfo").read_text() == before


def test_nothing_of_the_host_can_be_reached_from_the_root(satsuma: harness.Client) -> None:
    """The old root is gone with pivot_root: no mount of it, and no way up."""
    out = satsuma(
        "run", "--rm", "busybox", "sh", "-c", "cat /proc/self/mountinfo; cd /; ls ../../../.. | tr '\\n' ' '"
    )
    assert str(Path(harness.__file__).parent) not in out
    roots = [line for line in out.splitlines() if " / / " in line]
    assert len(roots) == 1
