"""Parsers of mountinfo, stat, cgroup and inotify texts, on saved samples."""

from __future__ import annotations

import struct

from satsuma.linux import cgroup, cgroup_stats, inotify, mountinfo, pidfd

HYBRID = rb"""24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
35 24 0:31 /a\040b /mnt/with\040space\134 rw,nosuid master:2 propagate_from:3 - tmpfs none rw
"""
SELF = b"4:memory:/user/x\n3:cpu,cpuacct:/\n1:name=systemd:/\n0::/user/x\n"


def test_mountinfo_fields() -> None:
    last = mountinfo.parse(HYBRID)[-1]
    assert (last.mount_id, last.parent_id, last.major_minor) == (35, 24, "0:31")
    assert (last.root, last.mount_point) == (b"/a b", b"/mnt/with space\\")
    assert last.mount_options == ["rw", "nosuid"]
    assert last.propagation == ["master:2", "propagate_from:3"]
    assert (last.fs_type, last.source, last.super_options) == ("tmpfs", b"none", ["rw"])


def test_hybrid_layout() -> None:
    where = cgroup.parse_layout(HYBRID, SELF)
    assert where.mode == "hybrid"
    assert where.mounts["cpuacct"] == where.mounts["cpu"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert where.mounts["name=systemd"] == "/sys/fs/cgroup/systemd"
    assert where.own["memory"] == "/user/x"
    group = cgroup.Cgroup("/a/../../b//c", where)
    assert group.path == "/b/c"
    assert group.dirs["memory"] == "/sys/fs/cgroup/memory/b/c"
    assert len(group.unique_dirs()) == 4
    assert len(group.join_files()) == 3


def test_v1_and_v2_layouts() -> None:
    v1 = cgroup.parse_layout(b"\n".join(line for line in HYBRID.split(b"\n") if b"cgroup2" not in line), SELF)
    assert v1.mode == "v1"
    v2 = cgroup.parse_layout(b"30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", b"0::/x\n")
    assert v2.mode == "v2"
    group = cgroup.Cgroup("/c", v2)
    assert group.file("memory", "memory.max") == "/sys/fs/cgroup/c/memory.max"
    assert group.join_files() == []


def test_stat_with_a_hostile_name() -> None:
    line = b"42 (a) R 1 (x) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1000 1"
    assert pidfd.parse_stat(line) == ("S", 7, 987654)


def test_inotify_events() -> None:
    data = (
        struct.pack("iIII", 3, inotify.IN_MODIFY, 0, 0)
        + struct.pack("iIII", 4, 8, 0, 16)
        + b"name".ljust(16, b"\0")
    )
    assert inotify.parse(data) == [(3, inotify.IN_MODIFY, b""), (4, 8, b"name")]


def test_blkio_and_cpu_texts() -> None:
    text = "8:0 Read 4096\n8:0 Write 0\n8:0 Total 4096\nTotal 4096\n"
    assert cgroup_stats.parse_blkio(text)[0] == {"major": 8, "minor": 0, "op": "read", "value": 4096}
    assert len(cgroup_stats.parse_blkio(text)) == 3
    assert cgroup_stats.system_cpu_usage("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n") == 36 * 10_000_000


def _fake_v2(tmp_path, **files: str) -> cgroup.Cgroup:
    directory = tmp_path / "c"
    directory.mkdir()
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return cgroup.Cgroup("/c", cgroup.Layout({"": str(tmp_path)}, {"": "/"}))


def test_v2_stats(tmp_path) -> None:
    group = _fake_v2(
        tmp_path,
        memory__current="4096\n",
        memory__max="max\n",
        memory__stat="anon 10\nfile 20\n",
        memory__events="low 0\noom 1\noom_kill 2\n",
        cpu__stat="usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nnr_throttled 1\nthrottled_usec 9\n",
        io__stat="8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        pids__current="3\n",
        pids__max="max\n",
    )
    stats = cgroup_stats.read_stats(group)
    assert stats["memory_stats"]["usage"] == 4096
    assert stats["memory_stats"]["limit"] == cgroup_stats.total_memory()
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] == 5000
    assert stats["cpu_stats"]["throttling_data"]["throttled_time"] == 9000
    assert stats["blkio_stats"]["io_service_bytes_recursive"][1]["value"] == 2
    assert stats["pids_stats"]["current"] == 3
    assert group.oom_kills() == 2


def test_v2_controllers_are_enabled_from_the_top_down(tmp_path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    group = cgroup.Cgroup("/c", cgroup.Layout({"": str(tmp_path)}, {"": "/"}))
    group.create()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory"
