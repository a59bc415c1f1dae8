"""T-R11, T-R17, T-R19 to T-R23: cgroups, devices, keyrings, terminals, sysctls, labels, user namespaces."""

from __future__ import annotations

import array
import fcntl
import json
import os
import pty
import re
import subprocess
import termios
from pathlib import Path

import pytest
from security_lab import INTERPRETER, Bundles, Container, Sentinel, python_flags

import harness
from satsuma.linux.cgroup import layout

# --- T-R11: cgroups ------------------------------------------------------------------------------------------


def test_the_cgroups_of_a_container_cannot_be_written(satsuma: harness.Client) -> None:
    """CVE-2022-0492."""
    script = """
    for d in /sys/fs/cgroup /sys/fs/cgroup/*; do
      for f in release_agent notify_on_release cgroup.procs tasks memory.max memory.limit_in_bytes devices.allow; do
        [ -e $d/$f ] && echo 1 > $d/$f 2>/dev/null && echo "WROTE $d/$f"
      done
      # With version 1 the directory above the hierarchies is a tmpfs of the container's own, as with Docker.
      [ -e $d/cgroup.procs ] && mkdir $d/new 2>/dev/null && echo "MADE $d/new"
    done
    for t in cgroup cgroup2; do mkdir -p /mnt/$t; mount -t $t none /mnt/$t 2>/dev/null && echo "MOUNTED $t"; done
    mount -t cgroup -o memory none /mnt/cgroup 2>/dev/null && echo MOUNTED
    mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo REMOUNTED
    cat /proc/self/cgroup
    """
    out = satsuma("run", "--rm", "--cgroupns", "private", "busybox", "sh", "-c", script)
    assert not re.findall("WROTE|MADE|MOUNTED|REMOUNTED", out), out
    assert {line.rpartition(":")[2] for line in out.splitlines()} == {"/"}


def test_every_process_is_in_every_controllers_own_group_from_its_first_instruction(
    satsuma: harness.Client,
) -> None:
    out = satsuma("run", "--rm", "--cgroupns", "host", "busybox", "cat", "/proc/self/cgroup")
    with Container(satsuma, "--cgroupns", "host") as container:
        inside = container.exec("cat", "/proc/self/cgroup").stdout
        for text in (out, inside):
            lines = [line.split(":", 2) for line in text.splitlines()]
            named = [path for _, controllers, path in lines if controllers or layout().mounts.keys() == {""}]
            assert named and all(re.search(r"/[0-9a-f]{64}$", path) for path in named), text
        assert container.id in inside


def test_even_root_with_sys_admin_sees_no_group_but_its_own(satsuma: harness.Client) -> None:
    script = (
        "mkdir /m; mount -t cgroup -o pids none /m || mount -t cgroup2 none /m; ls /m | grep -c satsuma; true"
    )
    flags = ("--cap-add", "SYS_ADMIN", "--cgroupns", "private", "--security-opt", "apparmor=unconfined")
    assert satsuma("run", "--rm", *flags, "busybox", "sh", "-c", script).split()[-1] == "0"


# --- T-R17: devices ------------------------------------------------------------------------------------------

_TRY = """
mknod /tmp/mem c 1 1; mknod /tmp/disk b 254 0; mknod /tmp/fuse c 10 229; mknod /tmp/kmsg c 1 11; mknod /tmp/zero c 1 5
for d in mem disk fuse kmsg; do
  [ -e /tmp/$d ] && echo "made $d"
  (exec 3< /tmp/$d) 2>/dev/null && echo "READ $d"
  (exec 3> /tmp/$d) 2>/dev/null && echo "WROTE $d"
done
head -c 1 /tmp/zero | wc -c
"""


def test_nodes_can_be_made_but_not_opened(satsuma: harness.Client) -> None:
    out = satsuma("run", "--rm", "busybox", "sh", "-c", _TRY).split("\n")
    assert [line for line in out if line] == ["made mem", "made disk", "made fuse", "made kmsg", "1"]
    with Container(satsuma) as container:
        assert "READ" not in container.exec("sh", "-c", _TRY).stdout


def test_a_device_has_the_rights_that_were_given(satsuma: harness.Client) -> None:
    script = "(exec 3< /dev/d) && echo r; (exec 3> /dev/d) && echo w; mknod /tmp/d c 10 229 && echo m; true"
    for rights, want in (("r", "r"), ("w", "w"), ("rw", "rw"), ("rwm", "rwm"), ("m", "m")):
        out = satsuma.run(
            "run", "--rm", "--device", f"/dev/fuse:/dev/d:{rights}", "busybox", "sh", "-c", script
        ).stdout
        # mknod of any device is allowed to everybody.
        assert set(out.split()) == set(want) | {"m"}, rights


def test_rules_of_the_device_controller(satsuma: harness.Client) -> None:
    script = "mknod /tmp/d c 10 229; (exec 3< /tmp/d) && echo r; (exec 3> /tmp/d) && echo w; true"
    out = satsuma("run", "--rm", "--device-cgroup-rule", "c 10:229 r", "busybox", "sh", "-c", script)
    assert out.split() == ["r"]


@pytest.mark.skipif("devices" not in layout().mounts, reason="device lists exist in version 1 only")
def test_the_list_of_devices_is_dockers(satsuma: harness.Client) -> None:
    with Container(satsuma) as container:
        listed = next(Path(layout().mounts["devices"]).glob(f"**/{container.id}/devices.list")).read_text()
    assert listed.split("\n")[:-1] == [
        *("b *:* m", "c *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm"),
        *("c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 10:200 rwm", "c 136:* rwm"),
    ] or sorted(listed.split("\n")) == sorted(
        "b *:* m|c *:* m|c 1:3 rwm|c 1:5 rwm|c 1:7 rwm|c 1:8 rwm|c 1:9 rwm|c 5:0 rwm|c 5:1 rwm|c 5:2 rwm|"
        "c 10:200 rwm|c 136:* rwm|".split("|")
    )


def test_an_empty_list_of_rules_denies_everything(bundles: Bundles) -> None:
    """GHSA-g54h-m393-cpwq: it once meant "allow all"."""
    for resources in ({}, {"devices": []}, {"devices": [{"allow": False, "access": "rwm"}]}):
        bundle, config = bundles.make("sh", "-c", _TRY.replace("/tmp/", "/"))
        config["linux"]["resources"] = resources
        done = bundles.run(bundle, config)
        assert "READ" not in done.stdout and "WROTE" not in done.stdout, (resources, done)


# --- T-R19: keyrings -----------------------------------------------------------------------------------------

_ASK = """
import ctypes
buffer = ctypes.create_string_buffer(200)
libc = ctypes.CDLL(None)
serial = libc.syscall(250, 0, -3, 0)
libc.syscall(250, 6, -3, buffer, 200)
print(serial, buffer.value.decode())
"""


def test_containers_have_session_keyrings_of_their_own(satsuma: harness.Client) -> None:
    ask = (INTERPRETER, "-ISB", "-c", _ASK)
    flags = ("--security-opt", "seccomp=unconfined", *python_flags())
    with Container(satsuma, *flags) as first, Container(satsuma, *flags) as second:
        mine = first.exec(*ask).stdout.strip()
        assert mine.endswith(f"_ses.{first.id}"), mine
        assert first.exec(*ask).stdout.strip() == mine
        assert second.exec(*ask).stdout.strip() != mine
    out = satsuma("run", "--rm", *flags, "busybox", *ask)
    assert re.search(r"_ses\.[0-9a-f]{64}$", out), out


def test_keys_of_the_host_are_masked_and_keyctl_is_refused(satsuma: harness.Client) -> None:
    assert satsuma("run", "--rm", "busybox", "cat", "/proc/keys") == ""
    code = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.syscall(250, 0, -3, 0), ctypes.get_errno())"
    assert satsuma("run", "--rm", *python_flags(), "busybox", INTERPRETER, "-ISB", "-c", code) == "-1 1"


# --- T-R20: terminals ----------------------------------------------------------------------------------------

_INJECT = """
import fcntl, os, sys
for fd in (0, 1, 2):
    for request in (0x5412, 0x541C):
        for byte in b"echo pwned\\n":
            try: fcntl.ioctl(fd, request, bytes([byte]))
            except OSError: pass
os.write(1, b"\\x1b[6n\\x1bZ\\x1b[c\\x05done\\n")
"""


@pytest.mark.parametrize("command", [("exec", "-i", "-t"), ("exec", "-i")])
def test_nothing_gets_into_the_terminal_of_the_client(
    satsuma: harness.Client, command: tuple[str, ...]
) -> None:
    with Container(satsuma, *python_flags()) as container:
        master, slave = pty.openpty()
        client = subprocess.Popen(
            [satsuma.argv0, *command, container.id, INTERPRETER, "-ISB", "-c", _INJECT],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=satsuma.environment,
            start_new_session=True,
        )
        output = b""
        while b"done" not in output:
            output += os.read(master, 4096)
        assert client.wait(30) == 0
        pending = array.array("i", [0])
        fcntl.ioctl(slave, termios.FIONREAD, pending)
        assert pending[0] == 0
        os.close(slave)
        os.close(master)


def test_a_terminal_is_a_session_of_the_containers(satsuma: harness.Client) -> None:
    with Container(satsuma) as container:
        done = container.exec(
            "-t", "sh", "-c", "cut -d' ' -f5,6,7 /proc/self/stat; readlink /proc/self/fd/0; tty"
        )
        session, tty = done.stdout.split()[1:3]
        assert session != "0" and tty != "0"
        done = container.exec("cut", "-d ", "-f6,7", "/proc/self/stat")
        assert done.stdout.split()[1] == "0"  # none without -t


# --- T-R21: sysctls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        "kernel.domainname=x",
        "kernel.core_pattern=x",
        "kernel.hostname=x",
        "net/../kernel/core_pattern=x",
        "net.ipv4/../../kernel/core_pattern=x",
        "net..core_pattern=x",
        "kernel.shm_rmid_forced.x=1",
        "fs.file-max=1",
        "vm.swappiness=1",
        "kernel.shm_rmid_forced=1+kernel.core_pattern=x\n",
        "kernel.sem\nkernel.core_pattern=x",
    ],
)
def test_only_sysctls_of_namespaces_are_set(
    satsuma: harness.Client, sentinel: Sentinel, setting: str
) -> None:
    """CVE-2022-0811."""
    done = satsuma.run("run", "--rm", "--sysctl", setting, "busybox", "true", check=False)
    if done.returncode == 0:
        assert setting.startswith("kernel.shm_rmid_forced=1+")
    sentinel.assert_intact()


@pytest.mark.parametrize("flags", [("--network", "host"), ("--ipc", "host")])
def test_sysctls_of_the_hosts_namespaces_are_refused(
    satsuma: harness.Client, sentinel: Sentinel, flags: tuple[str, ...]
) -> None:
    setting = "net.ipv4.ip_forward=1" if "--network" in flags else "kernel.shm_rmid_forced=0"
    done = satsuma.run("run", "--rm", *flags, "--sysctl", setting, "busybox", "true", check=False)
    assert done.returncode != 0


def test_sysctls_of_bundles_are_checked_too(bundles: Bundles, sentinel: Sentinel) -> None:
    for name in ("kernel.core_pattern", "net/../kernel/core_pattern", "kernel/core_pattern", "vm.swappiness"):
        bundle, config = bundles.make("true")
        config["linux"]["sysctl"] = {name: "x"}
        assert bundles.run(bundle, config).returncode != 0, name
    bundle, config = bundles.make("true")
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
    assert bundles.run(bundle, config).returncode != 0


def test_a_sysctl_of_the_containers_own(satsuma: harness.Client) -> None:
    flags = ("--sysctl", "net.ipv4.conf.all.log_martians=1", "--sysctl", "kernel.msgmax=4096")
    out = satsuma(
        "run",
        "--rm",
        *flags,
        "busybox",
        "cat",
        "/proc/sys/net/ipv4/conf/all/log_martians",
        "/proc/sys/kernel/msgmax",
    )
    assert out.split() == ["1", "4096"]


# --- T-R22: what cannot be applied starts nothing ------------------------------------------------------------


def test_a_profile_that_cannot_be_applied_starts_nothing(
    satsuma: harness.Client, bundles: Bundles, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.json"
    for text in ("{", '{"defaultAction": "SCMP_ACT_NOPE"}', '{"defaultAction": 7}', "[]"):
        broken.write_text(text)
        done = satsuma.run(
            "run", "--rm", "--security-opt", f"seccomp={broken}", "busybox", "echo", "ran", check=False
        )
        assert done.returncode != 0 and "ran" not in done.stdout, text
    for option in (
        "seccomp=/does/not/exist",
        "no-new-privileges=maybe",
        "nonsense",
        "nonsense=1",
        "label=x:y:z:w",
    ):
        done = satsuma.run("run", "--rm", "--security-opt", option, "busybox", "echo", "ran", check=False)
        assert done.returncode != 0 and "ran" not in done.stdout, option
    for change in (
        {"seccomp": {"defaultAction": "SCMP_ACT_NOPE"}},
        {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "X"}]}},
        {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"]}},
    ):
        bundle, config = bundles.make("echo", "ran")
        config["linux"].update(change)
        done = bundles.run(bundle, config)
        assert done.returncode != 0 and "ran" not in done.stdout, change


def test_a_profile_that_can_be_applied_binds(
    satsuma: harness.Client, bundles: Bundles, tmp_path: Path
) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 39}],
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    options = ["--security-opt", f"seccomp={path}", "--security-opt", "apparmor=unconfined"]
    done = satsuma.run("run", "--rm", *options, "busybox", "sh", "-c", "echo ran; mkdir /x", check=False)
    assert done.stdout == "ran\n" and "not empty" in done.stderr.lower()
    bundle, config = bundles.make("sh", "-c", "echo ran; mkdir /x")
    config["linux"]["seccomp"] = profile
    config["process"]["apparmorProfile"] = "unconfined"
    done = bundles.run(bundle, config)
    assert done.stdout == "ran\n" and "not empty" in done.stderr.lower()


@pytest.mark.skipif(os.path.isdir("/sys/kernel/security/apparmor"), reason="this kernel has AppArmor")
def test_labels_that_this_kernel_does_not_know_start_nothing(
    satsuma: harness.Client, bundles: Bundles
) -> None:
    for process in (
        {"apparmorProfile": "some-profile"},
        {"selinuxLabel": "system_u:system_r:container_t:s0"},
    ):
        bundle, config = bundles.make("echo", "ran")
        config["process"].update(process)
        done = bundles.run(bundle, config)
        assert done.returncode != 0 and "ran" not in done.stdout, (process, done)
    done = satsuma.run(
        "run", "--rm", "--security-opt", "apparmor=some-profile", "busybox", "echo", "ran", check=False
    )
    assert done.returncode != 0 and "ran" not in done.stdout, done


# --- T-R23: user namespaces ----------------------------------------------------------------------------------


def test_root_of_a_user_namespace_is_nobody_on_the_host(
    bundles: Bundles, sentinel: Sentinel, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("host's")
    (volume / "file").chmod(0o644)
    script = """
    id -u
    echo x > /volume/file && echo WROTE
    echo x > /volume/new && echo MADE
    chmod 777 /volume/file && echo CHMOD
    mount -o remount,rw /readonly && echo REMOUNTED
    echo 1 > /proc/sys/kernel/sysrq && echo SYSCTL
    mknod /n c 1 1 && echo NODE
    echo deny > /proc/self/setgroups && echo SETGROUPS
    grep CapEff /proc/self/status
    """
    bundle, config = bundles.make("sh", "-c", script)
    for path in [bundle / "rootfs", *(bundle / "rootfs").rglob("*")]:
        os.chown(path, 100000, 100000, follow_symlinks=False)
    for parent in (bundle, bundle.parent, *bundle.parents):
        if str(parent).startswith("/tmp/pytest"):
            parent.chmod(parent.stat().st_mode | 0o011)
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    del config["linux"]["seccomp"]
    config["linux"]["resources"] = {}
    config["mounts"] = [m for m in config["mounts"] if m["type"] not in ("cgroup", "mqueue")]
    for destination, options in (("/volume", ["bind"]), ("/readonly", ["bind", "ro"])):
        config["mounts"].append(
            {"destination": destination, "type": "bind", "source": str(volume), "options": options}
        )
    done = bundles.run(bundle, config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "0"
    words = re.findall("WROTE|MADE|CHMOD|REMOUNTED|SYSCTL|NODE|SETGROUPS", done.stdout)
    assert not words, done.stdout
    assert (volume / "file").read_text() == "host's"
