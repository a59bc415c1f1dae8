"""A virtual machine with Debian's kernel and all layouts of control groups, which this machine's kernel cannot show.

    python tests/vm/machine.py run -- .venv/bin/python -m pytest tests/kernel/linux     a command in the guest
    python tests/vm/machine.py fetch                                                    only get the kernel

The guest's root is this machine's root, read-only over 9p, under an overlay in the guest's memory: the same
Python, the same tree, nothing to install or to pack.  A small initramfs (static busybox, a few modules) mounts it,
mounts the control groups or starts systemd, which does, and runs one command, whose output and status come back
over a second 9p share.
Emulation is done in software unless SATSUMA_VM_ACCEL says something else (`kvm`).

Needs: qemu-system-x86_64, mkfs.ext4, /bin/busybox (static), and once `apt-get download` for the kernel (or
SATSUMA_VM_KERNEL, a directory with the unpacked package).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("SATSUMA_VM_CACHE") or PROJECT / "build" / "vm")
QEMU = "qemu-system-x86_64"
MKFS = "mkfs.ext4"
KERNEL_PACKAGE = "linux-image-amd64"
# Loaded by the initramfs, dependencies first: what the root needs, then what containers need (no kmod here, so
# nothing can be loaded on demand).
ROOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_blk")
GUEST_MODULES = (
    "crc32c_generic ext4 loop veth bridge br_netfilter nf_tables nft_chain_nat nft_nat nft_masq nft_ct nft_redir nft_fib_inet "
    "nft_reject_inet bfq zram dummy fuse tun ib_uverbs crc32_generic rdma_rxe"
).split()


class Unavailable(Exception):
    """There can be no virtual machine here; the text says why."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package."""

    image: Path
    modules: Path


def find_kernel(*, download: bool = True) -> Kernel:
    """Return a kernel: the one that SATSUMA_VM_KERNEL names, one fetched before, or the archive's.

    Raises:
        Unavailable: there is none and none could be had.
    """
    directory = Path(os.environ.get("SATSUMA_VM_KERNEL") or CACHE / "kernel")
    if not list(directory.glob("boot/vmlinuz-*")) and download and "SATSUMA_VM_KERNEL" not in os.environ:
        _fetch_kernel(directory)
    images = sorted(directory.glob("boot/vmlinuz-*"))
    if not images:
        raise Unavailable(f"no kernel below {directory}")
    version = images[-1].name.removeprefix("vmlinuz-")
    modules = directory / "lib/modules" / version
    if not modules.is_dir():
        modules = directory / "usr/lib/modules" / version
    return Kernel(images[-1], modules)


def _fetch_kernel(directory: Path) -> None:
    depends = subprocess.run(
        ["apt-cache", "depends", "--important", KERNEL_PACKAGE], capture_output=True, text=True, check=False
    ).stdout
    names = [line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line]
    if not names:
        raise Unavailable(f"the package {KERNEL_PACKAGE} is not in apt's lists")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        fetched = subprocess.run(
            ["apt-get", "download", names[0]], cwd=scratch, capture_output=True, text=True
        )
        packages = list(Path(scratch).glob("*.deb"))
        if fetched.returncode or not packages:
            raise Unavailable(f"apt-get download {names[0]}: {fetched.stderr.strip()[-200:]}")
        unpacked = Path(scratch, "kernel")
        subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(unpacked)], check=True)
        unpacked.rename(directory)


def check_tools() -> None:
    """Raise Unavailable when a program is missing."""
    for program in (QEMU, "busybox", MKFS):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed")


def module_order(modules: Path, wanted: Iterable[str]) -> list[Path]:
    """Return the files to load, dependencies first; built-in modules are left out."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in modules.rglob("*.ko*")}
    order: dict[Path, None] = {}

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        for line in path.read_bytes().split(b"\0"):
            if line.startswith(b"depends="):
                for dependency in line[8:].decode().split(","):
                    add(dependency)
        order[path] = None

    for name in wanted:
        add(name)
    return list(order)


# --- the initramfs ----------------------------------------------------------------------------------------

INIT = """#!/bin/busybox sh
busybox mkdir -p /proc /sys /dev /host /upper /new
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
for module in $(busybox cat /modules.list); do
  busybox insmod /modules/$module || echo "satsuma-vm: cannot load $module"
done
busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host || echo "satsuma-vm: no root"
busybox mount -t tmpfs -o mode=755 upper /upper
busybox mkdir -p /upper/u /upper/w
busybox mount -t overlay -o lowerdir=/host,upperdir=/upper/u,workdir=/upper/w root /new
for place in proc sys dev; do busybox mount --move /$place /new/$place; done
busybox mkdir -p /new/run /new/tmp /new/out /new/dev/pts /new/dev/shm /new/project
# Kept, in case it lies below one of the directories that get a file system of their own.
busybox mount --bind /new@PROJECT@ /new/project
busybox mount -t tmpfs run /new/run
busybox mount -t tmpfs -o mode=1777 tmp /new/tmp
busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /new/dev/pts
busybox mount -t tmpfs -o mode=1777 shm /new/dev/shm
busybox mount -t mqueue mqueue /new/dev/mqueue 2>/dev/null
busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none out /new/out
exec busybox switch_root /new /bin/sh /out/guest
"""

# The first program in the full root.
GUEST = """
{layout}
ip link set lo up 2>/dev/null
hostname satsuma-vm
export HOME=/root PATH={path} PYTHONDONTWRITEBYTECODE=1 SATSUMA_VM=1 LC_ALL=C.UTF-8 TMPDIR=/tmp
# Not the memory's file system: that has no attributes of users and no mapped ids.
mount -t ext4 /dev/vdc /tmp && chmod 1777 /tmp
[ -d {project} ] || {{ mkdir -p {project} && mount --bind /project {project}; }}
cd {project}
[ -b /dev/vda ] && mkswap /dev/vda >/dev/null && swapon /dev/vda
echo "satsuma-vm: $(uname -r), up $(cut -d. -f1 /proc/uptime) s" >/dev/console
cat >/run/command <<'END_OF_COMMAND'
{command}
END_OF_COMMAND
{start}
"""
PLAIN = """
/bin/sh /run/command >/out/output 2>&1 </dev/null
echo $? >/out/status
sync
poweroff -f 2>/dev/null || /bin/busybox poweroff -f
"""
# systemd is process 1, with a bus and nothing else: of this machine's own units none is wanted.
SYSTEMD = """
rm -f /.dockerenv  # systemd would believe that it is in a container
mkdir -p /run/systemd/system
for unit in dbus.socket dbus.service; do
  sed -e '/^\\[Unit\\]/a DefaultDependencies=no' -e '/^\\(After\\|Before\\|Requires\\)=sysinit/d' \\
    /lib/systemd/system/$unit >/run/systemd/system/$unit
done
printf '[Unit]\\nDefaultDependencies=no\\nRequires=dbus.socket satsuma-vm.service\\nAfter=dbus.socket\\n' \\
  >/run/systemd/system/satsuma-vm.target
cat >/run/systemd/system/satsuma-vm.service <<END
[Unit]
DefaultDependencies=no
Requires=dbus.socket
After=dbus.socket
[Service]
Type=oneshot
TimeoutStartSec=infinity
Delegate=yes
WorkingDirectory={project}
Environment=HOME=/root PATH=$PATH PYTHONDONTWRITEBYTECODE=1 SATSUMA_VM=systemd LC_ALL=C.UTF-8 TMPDIR=/tmp
ExecStart=/bin/sh -c '/bin/sh /run/command >/out/output 2>&1; echo \\$? >/out/status; sync; /bin/busybox poweroff -f'
END
exec /lib/systemd/systemd --unit=satsuma-vm.target --log-target=console --log-level=notice
"""
LAYOUTS = {
    "v2": "mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup",
    "v1": (
        "mount -t tmpfs cgroup /sys/fs/cgroup; for c in cpu cpuacct cpuset memory devices freezer blkio pids hugetlb rdma "
        "net_cls perf_event; do mkdir /sys/fs/cgroup/$c && mount -t cgroup -o $c cgroup /sys/fs/cgroup/$c; done"
    ),
}
# What the kernel's command line says for a layout, and for systemd that makes it.
PARAMETERS = {
    ("v2", False): "cgroup_no_v1=all",
    ("v1", False): "",
    ("v2", True): "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1",
    ("hybrid", True): "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0",
    ("v1", True): "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1",
}


def _cpio_entry(name: str, mode: int, data: bytes, number: int, *, device: tuple[int, int] = (0, 0)) -> bytes:
    """Return one member in the format "newc" (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    head += b"\0" * (-len(head) % 4)
    return head + data + b"\0" * (-len(data) % 4)


def make_initramfs(kernel: Kernel) -> bytes:
    """Return an uncompressed initramfs."""
    modules = module_order(kernel.modules, (*ROOT_MODULES, *GUEST_MODULES))
    members: list[tuple[str, int, bytes, tuple[int, int]]] = [
        ("bin", 0o40755, b"", (0, 0)),
        ("dev", 0o40755, b"", (0, 0)),
        ("modules", 0o40755, b"", (0, 0)),
        ("dev/console", 0o20600, b"", (5, 1)),
        ("bin/busybox", 0o100755, Path(shutil.which("busybox") or "/bin/busybox").read_bytes(), (0, 0)),
        ("init", 0o100755, INIT.replace("@PROJECT@", str(PROJECT)).encode(), (0, 0)),
        ("modules.list", 0o100644, "\n".join(path.name for path in modules).encode(), (0, 0)),
        *((f"modules/{path.name}", 0o100644, path.read_bytes(), (0, 0)) for path in modules),
        ("TRAILER!!!", 0, b"", (0, 0)),
    ]
    return b"".join(
        _cpio_entry(name, mode, data, number, device=device)
        for number, (name, mode, data, device) in enumerate(members, 1)
    )


# --- running ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a command; *status* is None when the guest never got to its end."""

    status: int | None
    output: str
    console: str
    seconds: float
    files: dict[str, bytes]


def _arguments(kernel: Kernel, directory: Path, memory: int, append: str) -> list[str]:
    share = "security_model=none,multidevs=remap"
    accel = os.environ.get("SATSUMA_VM_ACCEL", "tcg")
    return [
        *(QEMU, "-M", "q35", "-accel", f"{accel},thread=multi" if accel == "tcg" else accel),
        *("-cpu", "max" if accel == "tcg" else "host", "-smp", "2", "-m", str(memory)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-serial", f"file:{directory}/console"),
        *("-kernel", str(kernel.image), "-initrd", str(directory / "initramfs")),
        "-append",
        f"console=ttyS0 panic=-1 quiet loglevel=4 fstab=no psi=1 swapaccount=1 mitigations=off nokaslr {append}".strip(),
        *("-virtfs", f"local,path=/,mount_tag=host,readonly=on,{share}"),
        *("-virtfs", f"local,path={directory}/out,mount_tag=out,{share}"),
        *("-drive", f"file={directory}/swap,if=virtio,format=raw", "-drive", f"file={directory}/disk,if=virtio,format=raw"),
        *("-drive", f"file={directory}/scratch,if=virtio,format=raw,cache=unsafe"),
    ]  # fmt: skip


def run(
    command: str, *, layout: str = "v2", systemd: bool = False, timeout: float = 600, memory: int = 1536
) -> Result:
    """Boot, run a shell command in the guest, power off.

    Args:
        command: run by /bin/sh in the project's directory; what it writes to /out comes back in `Result.files`.
        layout: of the control groups: "v2", "v1" or (only with systemd) "hybrid".
        systemd: is process 1; otherwise a script is.
        memory: MiB.
    Raises:
        Unavailable: there can be no machine here.
    """
    check_tools()
    kernel = find_kernel()
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with tempfile.TemporaryDirectory(prefix="satsuma-vm-") as scratch:
        directory = Path(scratch)
        out = directory / "out"
        out.mkdir()
        (directory / "initramfs").write_bytes(make_initramfs(kernel))
        for name, size in (("swap", 128 << 20), ("disk", 512 << 20), ("scratch", 8 << 30)):
            with open(directory / name, "wb") as file:
                file.truncate(size)
        make = [MKFS, "-q", "-O", "^has_journal", "-E", "lazy_itable_init=1", str(directory / "scratch")]
        subprocess.run(make, check=True)
        start = (SYSTEMD if systemd else PLAIN).format(project=PROJECT)
        mounts = "" if systemd else LAYOUTS[layout]
        script = GUEST.format(project=PROJECT, path=path, command=command, layout=mounts, start=start)
        (out / "guest").write_text(script)
        print(f"satsuma-vm: to follow it: tail -f {out}/output", file=sys.stderr, flush=True)
        began = time.monotonic()
        machine = subprocess.Popen(
            _arguments(kernel, directory, memory, PARAMETERS[layout, systemd]),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _, errors = machine.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            machine.kill()
            _, errors = machine.communicate()
        finally:  # interrupted, by hand or by the time limit of a test
            if machine.poll() is None:
                machine.kill()
                machine.wait()
        console = _read(directory / "console") + errors.decode(errors="replace")
        status = _read(out / "status").strip()
        return Result(
            status=int(status) if status.isdigit() else None,
            output=_read(out / "output"),
            console=console,
            seconds=time.monotonic() - began,
            files={entry.name: entry.read_bytes() for entry in out.iterdir() if entry.is_file()},
        )


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("fetch", help="get the kernel")
    runner = commands.add_parser("run", help="run a command in the guest")
    runner.add_argument("--timeout", type=float, default=600)
    runner.add_argument("--memory", type=int, default=1536, help="MiB")
    runner.add_argument("--layout", choices=("v2", "v1", "hybrid"), default="v2")
    runner.add_argument("--systemd", action="store_true", help="systemd is process 1")
    runner.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    try:
        if options.what == "fetch":
            print(find_kernel().image)
            return 0
        result = run(
            " ".join(options.command),
            layout=options.layout,
            systemd=options.systemd,
            timeout=options.timeout,
            memory=options.memory,
        )
    except Unavailable as error:
        print(f"no virtual machine: {error}", file=sys.stderr)
        return 125
    print(result.output, end="")
    if result.status is None:
        print(f"--- console\n{result.console}", file=sys.stderr)
        return 125
    print(f"satsuma-vm: {result.seconds:.0f} s", file=sys.stderr)
    return result.status


if __name__ == "__main__":
    sys.exit(main())
