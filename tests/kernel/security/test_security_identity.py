"""T-R12 to T-R15, T-R18: users, groups and capabilities."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from security_lab import Bundles, Container, Images, Sentinel, python_flags

import harness
from satsuma.linux import caps, syscalls

DEFAULT = 0xA80425FB
STATUS = ("grep", "-E", "^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid)", "/proc/self/status")


def _status(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _sets(status: dict[str, str]) -> dict[str, int]:
    return {name: int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}


def _held() -> int:
    return syscalls.capget()[1]


# --- T-R12: capabilities -------------------------------------------------------------------------------------


def _mask(*names: str) -> int:
    return sum(1 << caps.NUMBERS[f"CAP_{name}"] for name in names)


@pytest.mark.parametrize(
    ("flags", "bounding"),
    [
        ((), DEFAULT),
        (("--cap-add", "NET_ADMIN"), DEFAULT | _mask("NET_ADMIN")),
        (("--cap-add", "cap_sys_ptrace"), DEFAULT | _mask("SYS_PTRACE")),
        (("--cap-drop", "CHOWN", "--cap-drop", "cap_kill"), DEFAULT & ~_mask("CHOWN", "KILL")),
        (("--cap-drop", "ALL"), 0),
        (("--cap-drop", "all", "--cap-add", "CHOWN"), _mask("CHOWN")),
        (("--cap-add", "ALL"), _held()),
        (("--cap-add", "ALL", "--cap-drop", "SYS_ADMIN"), _held() & ~_mask("SYS_ADMIN")),
        (("--privileged",), _held()),
    ],
)
def test_capabilities_of_root_and_of_others(
    satsuma: harness.Client, flags: tuple[str, ...], bounding: int
) -> None:
    status = _status(satsuma("run", "--rm", *flags, "busybox", *STATUS))
    assert _sets(status) == {"Inh": 0, "Prm": bounding, "Eff": bounding, "Bnd": bounding, "Amb": 0}
    assert status["NoNewPrivs"] == "0"
    assert status["Seccomp"] == ("0" if "--privileged" in flags else "2")
    status = _status(satsuma("run", "--rm", "-u", "1000", *flags, "busybox", *STATUS))
    assert _sets(status) == {"Inh": 0, "Prm": 0, "Eff": 0, "Bnd": bounding, "Amb": 0}


@pytest.mark.parametrize("flags", [(), ("--privileged",)])
def test_capabilities_of_execs(satsuma: harness.Client, flags: tuple[str, ...]) -> None:
    bounding = _held() if flags else DEFAULT
    with Container(satsuma, *flags) as container:
        assert _sets(_status(container.exec(*STATUS).stdout)) == {
            **{"Inh": 0, "Prm": bounding, "Eff": bounding},
            **{"Bnd": bounding, "Amb": 0},
        }
        assert _sets(_status(container.exec("-u", "7", *STATUS).stdout))["Eff"] == 0
        status = _status(container.exec("--privileged", *STATUS).stdout)
        assert _sets(status)["Eff"] == _held()
        # As with Docker the filter of the container stays.
        assert status["Seccomp"] == ("0" if flags else "2")


def test_file_capabilities_give_nothing_from_an_inheritable_set(
    satsuma: harness.Client, bundles: Bundles, tmp_path: Path
) -> None:
    """CVE-2022-24769: with a filled inheritable set a file with cap_net_admin+ei would raise it."""
    # struct vfs_cap_data, revision 2: effective bit, permitted, inheritable (low, high words).
    net_admin = 1 << 12
    attribute = (0x02000001).to_bytes(4, "little") + bytes(4) + net_admin.to_bytes(4, "little") + bytes(8)
    bundle, config = bundles.make("/tools/grep", "-E", "^Cap", "/proc/self/status")
    tool = bundle / "rootfs/tools/grep"
    tool.parent.mkdir()
    tool.write_bytes(Path("/bin/busybox").read_bytes())
    tool.chmod(0o755)
    os.setxattr(tool, "security.capability", attribute)
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind].append("CAP_NET_ADMIN")
    done = bundles.run(bundle, config)
    assert done.returncode == 0, done.stderr
    assert _sets(_status(done.stdout))["Eff"] == 0


def test_unknown_capabilities_are_refused(satsuma: harness.Client) -> None:
    for name in ("NOPE", "CAP_", "CAP_CAP_CHOWN", "CHOWN,KILL"):
        done = satsuma.run("run", "--rm", "--cap-add", name, "busybox", "true", check=False)
        assert done.returncode == 125 and "capability" in done.stderr.lower(), (name, done.stderr)


# --- T-R18: no_new_privs and setuid --------------------------------------------------------------------------


def test_setuid_programs_with_and_without_no_new_privileges(satsuma: harness.Client, images: Images) -> None:
    # Not busybox, which gives the privilege back by itself.
    image = images.make({"tools/grep": Path("/usr/bin/grep").read_bytes()}, modes={"tools/grep": 0o4755})
    words = ("/tools/grep", "-E", "^(Uid|NoNewPrivs|CapEff)", "/proc/self/status")
    run = ("run", "--rm", "-u", "1000", *python_flags())
    status = _status(satsuma(*run, image, *words))
    assert status["Uid"].split() == ["1000", "0", "0", "0"] and int(status["CapEff"], 16) == DEFAULT
    flags = ("--security-opt", "no-new-privileges")
    status = _status(satsuma(*run, *flags, image, *words))
    assert status["Uid"].split() == ["1000"] * 4 and int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    with Container(satsuma, *flags, *python_flags(), image=image) as container:
        status = _status(container.exec("-u", "1000", *words).stdout)
        assert status["Uid"].split() == ["1000"] * 4 and status["NoNewPrivs"] == "1"


# --- T-R13: groups -------------------------------------------------------------------------------------------

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n"
GROUP = b"root:x:0:\nbob:x:1000:\naudio:x:29:bob\nvideo:x:44:bob,root\n"


@pytest.mark.parametrize(
    ("flags", "groups"),
    [
        (("-u", "bob"), {1000, 29, 44}),
        (("-u", "bob:audio"), {29}),
        (("-u", "1000"), {1000, 29, 44}),
        (("-u", "1000:1000"), {1000}),
        (("-u", "1234:77"), {77}),
        (("-u", "bob:audio", "--group-add", "video", "--group-add", "5"), {29, 44, 5}),
        ((), {0, 44}),
    ],
)
def test_the_primary_group_is_among_the_groups_once(
    satsuma: harness.Client, images: Images, flags: tuple[str, ...], groups: set[int]
) -> None:
    """CVE-2022-36109: without it a mode of 0604 denies the group nothing."""
    image = images.make(
        {"etc/passwd": PASSWD, "etc/group": GROUP, "secret": b"secret"}, modes={"secret": 0o604}
    )
    status = _status(satsuma("run", "--rm", *flags, image, *STATUS))
    found = [int(word) for word in status["Groups"].split()]
    assert set(found) == groups and len(found) == len(set(found))
    assert int(status["Gid"].split()[0]) in found


def test_negative_group_permissions_deny(satsuma: harness.Client, images: Images) -> None:
    image = images.make({"etc/passwd": PASSWD, "etc/group": GROUP})
    script = "umask 0; echo s > /f; chown 0:1000 /f; chmod 0604 /f"
    with Container(satsuma, image=image) as container:
        assert container.exec("sh", "-c", script).returncode == 0
        assert container.exec("-u", "bob", "cat", "/f").returncode != 0
        assert container.exec("-u", "7:7", "cat", "/f").stdout == "s\n"


# --- T-R14: user specifications ------------------------------------------------------------------------------

TRAPS = b"".join(
    name.encode() + b":x:0:0::/:\n"
    for name in ("4294967296", "1_0", "١٢", "²", "-1", "0x0", "+1", "99999999999999999999", "1", "007")
)
NUMERIC = {"0": 0, "00": 0, "1": 1, "007": 7, "2147483647": 2147483647, "1000:1": 1000}
REFUSED = "-1 4294967295 4294967296 2147483648 99999999999999999999 +1 1:-1 1:4294967296 0:2147483648 1:nobodyhere".split()


@pytest.mark.parametrize("user", NUMERIC)
def test_numbers_are_numbers(satsuma: harness.Client, images: Images, user: str) -> None:
    image = images.make({"etc/passwd": TRAPS})
    out = _status(satsuma("run", "--rm", "-u", user, image, *STATUS))
    assert int(out["Uid"].split()[0]) == NUMERIC[user]


@pytest.mark.parametrize("user", REFUSED)
def test_numbers_out_of_range_are_nobody(satsuma: harness.Client, images: Images, user: str) -> None:
    """CVE-2016-3697, 2024-40635, 2026-30892: a number is never looked up as a name, and never wraps."""
    image = images.make({"etc/passwd": TRAPS})
    done = satsuma.run("run", "--rm", "-u", user, image, *STATUS, check=False)
    assert done.returncode not in (0,) and "Uid" not in done.stdout, done
    with Container(satsuma, image=image) as container:
        assert container.exec("-u", user, *STATUS).returncode != 0
    image = images.make({"etc/passwd": TRAPS}, f"USER {user}")
    assert satsuma.run("run", "--rm", image, *STATUS, check=False).returncode != 0


@pytest.mark.parametrize("user", ["1 ", " 1", "1\n", "1\t", "nosuch", "root:nosuch", "1:1:1"])
def test_odd_specifications_start_nothing_as_root(satsuma: harness.Client, images: Images, user: str) -> None:
    done = satsuma.run("run", "--rm", "-u", user, "busybox", *STATUS, check=False)
    if done.returncode == 0:
        assert int(_status(done.stdout)["Uid"].split()[0]) != 0, done


@pytest.mark.parametrize("user", ["1_0", "١٢", "²", "0x0"])
def test_what_only_python_takes_for_a_number_is_a_name(
    satsuma: harness.Client, images: Images, user: str
) -> None:
    done = satsuma.run("run", "--rm", "-u", user, "busybox", "id", check=False)
    assert done.returncode != 0 and "unable to find user" in done.stderr, done
    image = images.make({"etc/passwd": user.encode() + b":x:55:55::/:\n"})
    out = _status(satsuma("run", "--rm", "-u", user, image, *STATUS))
    assert int(out["Uid"].split()[0]) == 55


def test_bundles_take_their_user_as_numbers_only(bundles: Bundles, sentinel: Sentinel) -> None:
    for uid in (-1, 4294967296, "0", 1.5, None, True):
        bundle, config = bundles.make("id", "-u")
        config["process"]["user"] = {"uid": uid, "gid": 0}
        done = bundles.run(bundle, config)
        assert done.returncode != 0 or (uid is None and done.stdout == "0\n"), (uid, done)
    bundle, config = bundles.make("id", "-u")
    config["process"]["user"] = {"uid": 12, "gid": 3}
    assert bundles.run(bundle, config).stdout == "12\n"


def test_a_build_resolves_its_users_in_the_same_way(
    satsuma: harness.Client, images: Images, tmp_path: Path
) -> None:
    image = images.make({"etc/passwd": TRAPS})
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nUSER 4294967296\nRUN grep Uid /proc/self/status\n")
    done = satsuma.run("build", "-q", str(tmp_path), check=False)
    assert done.returncode != 0
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nCOPY --chown=4294967296 Dockerfile /x\n")
    assert satsuma.run("build", "-q", str(tmp_path), check=False).returncode != 0
