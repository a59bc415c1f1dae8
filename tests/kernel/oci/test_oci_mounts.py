"""Mounts, devices, masks and the root of an OCI configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from oci_lab import Runtime

from satsuma.linux.cgroup import layout


def add(
    box: Runtime,
    destination: str,
    kind: str = "bind",
    source: str = "",
    options: tuple[str, ...] = (),
    **more,
):  # type: ignore[no-untyped-def]
    flags = [*(("rbind",) if kind == "bind" and "bind" not in options else ()), *options]
    box.config["mounts"].append(
        {"destination": destination, "type": kind, "source": source or kind, "options": flags, **more}
    )


def line(box: Runtime, place: str) -> list[str]:
    """Return [mount options, optional fields …, "-", type, source, super options] of a mount inside."""
    box.args("cat", "/proc/self/mountinfo")
    found = [text.split() for text in box.output().splitlines() if text.split()[4] == place]
    assert found, place
    return found[-1][5:]


@pytest.mark.parametrize(
    ("options", "wanted", "unwanted"),
    [
        (("ro", "nosuid", "nodev", "noexec"), {"ro", "nosuid", "nodev", "noexec"}, set()),
        (("noatime", "nodiratime"), {"noatime", "nodiratime"}, {"relatime"}),
        (("strictatime",), set(), {"relatime", "noatime"}),
        (("ro", "rw"), {"rw"}, {"ro"}),
        (("nosymfollow",), {"nosymfollow"}, set()),
        (("nosuid", "suid"), {"rw"}, {"nosuid"}),
    ],
)
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_mount_options(
    box: Runtime, tmp_path: Path, kind: str, options: tuple[str, ...], wanted: set[str], unwanted: set[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    add(box, "/m", kind, str(source), options)
    found = set(line(box, "/m")[0].split(","))
    assert wanted <= found and not unwanted & found


def test_superblock_options(box: Runtime) -> None:
    add(box, "/m", "tmpfs", "x", ("size=1m", "mode=0711", "nr_inodes=50", "sync"))
    found = line(box, "/m")[-1].split(",")
    assert {"size=1024k", "mode=711", "nr_inodes=50", "sync"} <= set(found)


@pytest.mark.parametrize(
    ("option", "field"),
    [("rshared", "shared"), ("rslave", ""), ("rprivate", ""), ("unbindable", "unbindable")],
)
def test_propagation(box: Runtime, tmp_path: Path, option: str, field: str) -> None:
    add(box, "/m", "bind", str(tmp_path), ("bind", option))
    optional = [name.partition(":")[0] for name in line(box, "/m")[1:]]
    optional = optional[: optional.index("-")]
    assert (field in optional) if field else ("shared" not in optional)


@pytest.fixture
def tree(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A directory with a tmpfs mounted below it."""
    top = tmp_path / "tree"
    (top / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "x", str(top / "below")], check=True)
    yield top
    subprocess.run(["umount", str(top / "below")], check=True)


def test_recursive_attributes_reach_what_is_below(box: Runtime, tree: Path) -> None:
    add(box, "/m", "bind", str(tree), ("rbind", "rro", "rnosuid"))
    for place in ("/m", "/m/below"):
        assert {"ro", "nosuid"} <= set(line(box, place)[0].split(","))
    box.config["mounts"][-1]["options"] = ["rbind", "ro"]
    assert "rw" in line(box, "/m/below")[0].split(",")


def test_a_remount_changes_propagation_and_what_is_below_too(box: Runtime, tree: Path) -> None:
    add(box, "/m", "bind", str(tree), ("rbind", "private"))
    add(box, "/m", "", "", ("remount", "bind", "rshared", "rro"))
    box.config["mounts"][-1]["source"] = "/m"  # for those who want one
    for place in ("/m", "/m/below"):
        fields = line(box, place)
        assert "ro" in fields[0].split(",") and any(field.startswith("shared:") for field in fields)


def test_cgroup_mounts_take_recursive_attributes_and_propagation(box: Runtime) -> None:
    mount = next(entry for entry in box.config["mounts"] if entry["type"] == "cgroup")
    mount["options"] = ["nosuid", "noexec", "nodev", "rro", "rshared", "size=1k"]
    fields = line(box, "/sys/fs/cgroup")
    assert "ro" in fields[0].split(",") and any(field.startswith("shared:") for field in fields)
    box.args("true")
    assert "ignoring data of cgroup mount" in box.run().err or layout().mode == "v2"


def test_bind_without_what_is_below(box: Runtime, tree: Path) -> None:
    add(box, "/m", "bind", str(tree), ("bind",))
    box.sh("grep -c ' /m/below ' /proc/self/mountinfo; true")
    assert box.output().strip() == "0"


def test_a_bound_file_and_a_source_beside_the_bundle(box: Runtime) -> None:
    (box.bundle / "hosts").write_text("content\n")
    add(box, "/etc/deep/file", "bind", "hosts", ("bind", "ro"))
    box.sh("cat /etc/deep/file; touch /etc/deep/file")
    result = box.run()
    assert result.out == "content\n" and "Read-only file system" in result.err


def test_tmpcopyup_takes_what_it_covers(box: Runtime) -> None:
    directory = box.rootfs / "data"
    (directory / "sub").mkdir()
    (directory / "sub/file").write_text("kept")
    os.chmod(directory / "sub/file", 0o604)
    os.chown(directory / "sub/file", 12, 34)
    os.symlink("sub/file", directory / "link")
    os.chmod(directory, 0o750)
    add(box, "/data", "tmpfs", "x", ("tmpcopyup", "ro"))
    box.sh(
        "cat /data/link; stat -c '%a %u:%g' /data/sub/file; stat -c %a /data; touch /data/x 2>/dev/null || echo ro"
    )
    assert box.output().split() == ["kept604", "12:34", "750", "ro"]


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_idmapped_mounts_with_mappings_of_their_own(box: Runtime, tmp_path: Path, option: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    os.chown(source / "file", 1000, 1001)
    add(
        box,
        "/m",
        "bind",
        str(source),
        ("rbind", option),
        uidMappings=[{"containerID": 1000, "hostID": 5, "size": 10}],
        gidMappings=[{"containerID": 1001, "hostID": 6, "size": 10}],
    )
    box.sh("stat -c %u:%g /m/file")
    result = box.run()
    if "does not support idmapped mounts" in result.err:
        pytest.skip("the file system of the test directory does not support idmapped mounts")
    assert result.out == "5:6\n", result


def test_idmapped_mounts_with_the_containers_mapping(box: Runtime, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    os.chown(source / "file", 7, 8)
    box.user_namespace()
    add(box, "/m", "bind", str(source), ("rbind", "idmap"))
    box.sh("stat -c %u:%g /m/file; touch /m/new && stat -c %u:%g /m/new")
    result = box.run()
    if "does not support idmapped mounts" in result.err:
        pytest.skip("the file system of the test directory does not support idmapped mounts")
    assert result.out.split()[0] == "7:8", result
    box.config["linux"]["namespaces"] = [n for n in box.linux["namespaces"] if n["type"] != "user"]
    box.linux["uidMappings"] = box.linux["gidMappings"] = []
    assert "idmap needs mappings, or a user namespace" in box.refused()


def test_idmap_says_why_it_is_impossible(box: Runtime) -> None:
    add(
        box,
        "/m",
        "bind",
        "/proc",
        ("bind", "idmap"),
        uidMappings=[{"containerID": 0, "hostID": 5, "size": 1}],
        gidMappings=[{"containerID": 0, "hostID": 5, "size": 1}],
    )
    assert "does not support idmapped mounts" in box.refused()


def test_sources_that_root_of_the_user_namespace_cannot_reach(box: Runtime, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "volume").mkdir(parents=True)
    (hidden / "volume/file").write_text("reached\n")
    os.chmod(hidden, 0o700)
    box.user_namespace()
    add(box, "/m", "bind", str(hidden / "volume"), ("rbind",))
    box.args("cat", "/m/file")
    assert box.output() == "reached\n"


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        ({"destination": "/", "type": "tmpfs"}, "cannot mount over the root directory"),
        ({"destination": "/m", "type": "nofs"}, "no such device"),
        ({"destination": "/m", "type": "bind", "source": "/nonexistent"}, "stat /nonexistent: no such file"),
        ({"destination": "/m", "type": "tmpfs", "options": ["foo=1"]}, "Unknown parameter"),
        ({"destination": "/proc/sys/kernel", "type": "tmpfs", "source": "x"}, "it is inside /proc"),
        ({"destination": "/m", "type": "proc", "options": ["tmpcopyup"]}, "is for tmpfs only"),
        ({"destination": "/m", "type": "tmpfs", "options": ["idmap"]}, "idmap works for bind mounts only"),
    ],
)
def test_mounts_that_cannot_be_made(box: Runtime, mount: dict[str, object], text: str) -> None:
    box.config["mounts"].append(mount)
    assert text in box.refused()


def test_mount_label_is_dropped_with_a_warning_without_selinux(box: Runtime) -> None:
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("SELinux is enabled here")
    box.linux["mountLabel"] = "system_u:object_r:container_file_t:s0"
    box.args("true")
    result = box.run()
    assert result.code == 0 and "ignoring mountLabel" in result.err


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("shared", "shared"),
        ("rshared", "shared"),
        ("unbindable", "unbindable"),
        ("private", ""),
        ("slave", ""),
    ],
)
def test_root_propagation(box: Runtime, value: str, field: str) -> None:
    box.linux["rootfsPropagation"] = value
    optional = [name.partition(":")[0] for name in line(box, "/")[1:]]
    optional = optional[: optional.index("-")]
    assert (field in optional) if field else not {"shared", "unbindable"} & set(optional)


def test_devices(box: Runtime) -> None:
    box.linux["devices"] = [
        {
            "path": "/dev/deep/null",
            "type": "c",
            "major": 1,
            "minor": 3,
            "fileMode": 0o640,
            "uid": 1,
            "gid": 2,
        },
        {"path": "/dev/fifo", "type": "p", "major": 1, "minor": 2},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666},
        {"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5},
    ]
    box.linux["resources"]["devices"].append(
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}
    )
    box.sh(
        "cd /dev; stat -c '%n %a %u:%g %t:%T %F' deep/null fifo null unbuffered; echo x > null && echo written"
    )
    assert box.output().splitlines() == [
        "deep/null 640 1:2 1:3 character special file",
        "fifo 666 0:0 0:0 fifo",
        "null 666 0:0 1:3 character special file",
        "unbuffered 666 0:0 1:5 character special file",
        "written",
    ]


def test_devices_in_a_user_namespace_are_bound(box: Runtime) -> None:
    box.user_namespace()
    box.linux["devices"] = [{"path": "/dev/full", "type": "c", "major": 1, "minor": 7}]
    box.sh("stat -c '%t:%T' /dev/null /dev/full; echo x > /dev/null && echo written")
    assert box.output().split() == ["1:3", "1:7", "written"]


def test_devices_that_cannot_be_made(box: Runtime) -> None:
    box.linux["devices"] = [{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}]
    assert "exists and is not the expected device" in box.refused()
    box.linux["devices"] = [{"path": "/dev/x", "type": "q"}]
    assert "invalid device type" in box.refused()


def test_masked_and_readonly_paths(box: Runtime) -> None:
    shutil.copytree(box.rootfs / "etc", box.rootfs / "secret")
    box.linux["maskedPaths"] = ["/secret", "/etc/group", "/nonexistent", "/etc/group/below"]
    box.linux["readonlyPaths"] = ["/data", "/nonexistent"]
    box.sh(
        "ls /secret | wc -l; wc -c < /etc/group; touch /data/x 2>/dev/null || echo ro; touch /tmp/x && echo rw"
    )
    assert box.output().split() == ["0", "0", "ro", "rw"]


def test_readonly_root_with_writable_mounts(box: Runtime) -> None:
    box.config["root"]["readonly"] = True
    add(box, "/tmp", "tmpfs", "x")
    box.sh("touch /x 2>/dev/null || echo ro; touch /tmp/x && echo rw; touch /dev/x && echo rw")
    assert box.output().split() == ["ro", "rw", "rw"]
