"""Hostile and odd layers, one docker-archive for each; all targets are a sentinel directory.

The outcome that Docker 20.10 has for each is in `DOCKER`: whether the load succeeds, and what of the base layer
is still visible.  Ours is the same unless `STRICTER` says why not.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

D, F, L, H = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
C, B, P = tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE
UP = "../" * 14
CAPABILITY = "\x01\x00\x00\x02\x00\x20" + "\x00" * 14


def member(name, kind=F, data=b"", link="", mode=0o644, uid=0, gid=0, pax=None, dev=(0, 0), mtime=1):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid, info.mtime = kind, link, mode, uid, gid, mtime
    info.size = len(data) if kind == F else 0
    info.devmajor, info.devminor = dev
    if pax:
        info.pax_headers = pax
    return info, data


def layer(entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data) if info.type == F else None)
    return buffer.getvalue()


BASE = [
    member("bin", D, mode=0o755),
    member("etc", D, mode=0o755),
    member("etc/passwd", F, b"root:x:0:0::/:/bin/sh\n"),
    member("keep", D, mode=0o755),
    member("keep/a", F, b"a"),
    member("keep/b", F, b"b"),
]
ALL = {"keep/a", "keep/b", "etc/passwd"}


def cases(s):
    """Return name → (layers, loads, what stays of the base, extra paths that must be there)."""
    t = member
    inside = s[1:]
    return {
        "dotdot-file": ([[t(UP + inside + "/dotdot", F, b"EVIL")]], True, ALL, [inside + "/dotdot"]),
        "abs-file": ([[t(s + "/abs", F, b"EVIL")]], True, ALL, [inside + "/abs"]),
        "dotdot-inside": (
            [[t("keep/../../../../" + inside + "/dd2", F, b"EVIL")]],
            True,
            ALL,
            [inside + "/dd2"],
        ),
        "symlink-then-write": ([[t("l", L, link=s), t("l/through", F, b"EVIL")]], False, None, []),
        "symlink-rel-then-write": (
            [[t("l", L, link=UP + inside), t("l/through-rel", F, b"E")]],
            False,
            None,
            [],
        ),
        "symlink-prev-layer": ([[t("l2", L, link=s)], [t("l2/cross", F, b"E")]], True, ALL, ["l2/cross"]),
        "symlink-chain": ([[t("a", L, link="b"), t("b", L, link=s), t("a/chain", F, b"E")]], False, None, []),
        "symlink-dir-replace": (
            [[t("d", D, mode=0o755), t("d/x", F, b"1"), t("d", L, link=s), t("d/replaced", F, b"E")]],
            False,
            None,
            [],
        ),
        "symlink-mkdir": ([[t("l", L, link=s), t("l/newdir", D, mode=0o755)]], False, None, []),
        "symlink-chmod": (
            [[t("l", L, link=s + "/victim"), t("l", F, b"EVIL", mode=0o777)]],
            True,
            ALL,
            ["l"],
        ),
        "hardlink-abs": ([[t("h", H, link=s + "/victim"), t("h", F, b"EVIL")]], False, None, []),
        "hardlink-dotdot": ([[t("h", H, link=UP + inside + "/victim")]], False, None, []),
        "hardlink-via-symlink": ([[t("l", L, link=s), t("h", H, link="l/victim")]], False, None, []),
        "hardlink-to-symlink": (
            [[t("l", L, link=s + "/victim"), t("h", H, link="l"), t("h", F, b"EVIL")]],
            True,
            ALL,
            ["h"],
        ),
        "hardlink-missing": ([[t("h", H, link="nonexistent")]], False, None, []),
        "hardlink-self": ([[t("h", H, link="h")]], False, None, []),
        "wh-plain": ([[t("keep/.wh.a", F)]], True, ALL - {"keep/a"}, []),
        "wh-opq": ([[t("keep/.wh..wh..opq", F), t("keep/c", F, b"c")]], True, {"etc/passwd"}, ["keep/c"]),
        "wh-opq-after": (
            [[t("keep/c", F, b"c"), t("keep/.wh..wh..opq", F)]],
            True,
            {"etc/passwd"},
            ["keep/c"],
        ),
        "wh-dotdot": ([[t("keep/.wh...", F)]], False, None, []),
        "wh-dot": ([[t("keep/.wh..", F)]], False, None, []),
        "wh-empty": ([[t("keep/.wh.", F)]], False, None, []),
        "wh-symlink-parent": ([[t("l", L, link=s)], [t("l/.wh.victim", F)]], True, ALL, ["l"]),
        "wh-opq-symlink-parent": ([[t("l", L, link=s)], [t("l/.wh..wh..opq", F)]], True, ALL, ["l"]),
        "wh-as-dir": ([[t("keep/.wh.a", D)]], True, ALL - {"keep/a"}, []),
        "wh-as-symlink": ([[t("keep/.wh.a", L, link="x")]], True, ALL - {"keep/a"}, []),
        # Docker 20.10 shows the base although its root is marked opaque; the mark means what it says for us.
        "wh-of-root": ([[t(".wh..wh..opq", F)]], True, None, []),
        "wh-aufs-plnk": (
            [[t(".wh..wh.plnk", D), t(".wh..wh.plnk/1.2", F, b"p"), t("linked", H, link=".wh..wh.plnk/1.2")]],
            True,
            ALL,
            ["linked"],
        ),
        "wh-nonexist": ([[t(".wh.doesnotexist", F)]], True, ALL, []),
        "root-entry-mode": ([[t("./", D, mode=0o000, uid=12345, gid=12345)]], True, ALL, []),
        "root-entry-symlink": ([[t(".", L, link=s), t("rooted", F, b"EVIL")]], True, ALL, ["rooted"]),
        "root-entry-file": ([[t(".", F, b"x")]], True, ALL, []),
        # Stricter than Docker: only a whiteout may be a whiteout.
        "chardev-overlay-whiteout": ([[t("keep/a", C, dev=(0, 0), mode=0o600)]], False, None, []),
        "chardev-mem": ([[t("dev/mymem", C, dev=(1, 1), mode=0o666)]], True, ALL, []),
        "blockdev": ([[t("dev/myblk", B, dev=(254, 0), mode=0o666)]], True, ALL, []),
        "fifo": ([[t("pipe", P)]], True, ALL, ["pipe"]),
        "passwd-fifo": ([[t("etc/passwd", P)]], True, ALL, []),
        "passwd-symlink-abs": ([[t("etc/passwd", L, link="/etc/shadow")]], True, ALL, []),
        "dev-symlink": ([[t("dev", L, link=s)]], True, ALL, []),
        "proc-symlink": ([[t("proc", L, link="/keep")]], True, ALL, []),
        "sys-symlink": ([[t("sys", L, link="/keep")]], True, ALL, []),
        "etc-hosts-symlink": ([[t("etc/hosts", L, link=s + "/victim")]], True, ALL, []),
        "etc-symlink": ([[t("etc2", D), t("etc", L, link=s)]], True, {"keep/a", "keep/b"}, []),
        # Stricter than Docker: overlay's own attributes are dropped.
        "xattr-trusted-overlay": (
            [[t("keep", D, mode=0o755, pax={"SCHILY.xattr.trusted.overlay.opaque": "y"})]],
            True,
            ALL,
            [],
        ),
        "xattr-user-overlay": (
            [[t("keep", D, mode=0o755, pax={"SCHILY.xattr.user.overlay.opaque": "y"})]],
            True,
            ALL,
            [],
        ),
        "xattr-trusted-redirect": (
            [[t("keep2", D, mode=0o755, pax={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})]],
            True,
            ALL,
            ["keep2"],
        ),
        "xattr-caps": (
            [[t("bin/capfile", F, b"x", mode=0o755, pax={"SCHILY.xattr.security.capability": CAPABILITY})]],
            True,
            ALL,
            ["bin/capfile"],
        ),
        "setuid": ([[t("bin/suid", F, b"x", mode=0o4755)]], True, ALL, ["bin/suid"]),
        "huge-uid": ([[t("u", F, b"x", uid=2**31 + 5, gid=2**32 - 1)]], True, ALL, ["u"]),
        "too-huge-uid": ([[t("u", F, b"x", uid=2**40)]], False, None, []),
        "neg-mtime": ([[t("m", F, b"x", mtime=-100)]], True, ALL, ["m"]),
        "far-mtime": ([[t("m", F, b"x", mtime=2**40)]], True, ALL, ["m"]),
        "long-name-255": ([[t("n" * 256, F, b"x")]], False, None, []),
        "long-path-5000": ([[t("/".join(["d" * 50] * 110) + "/f", F, b"x")]], False, None, []),
        "nonutf8": ([[t("caf\udce9", F, b"x")]], True, ALL, [b"caf\xe9"]),
        "newline-name": ([[t("new\nline", F, b"x")]], True, ALL, ["new\nline"]),
        "empty-name": ([[t("", F, b"x")]], True, ALL, []),
        # Docker's graph driver refuses duplicates, its containerd store lets the last one win, as we do.
        "dup-entries": ([[t("dup", F, b"1"), t("dup", F, b"22"), t("dup", D)]], True, ALL, ["dup"]),
        "file-as-parent": ([[t("fp", F, b"x"), t("fp/child", F, b"y")]], False, None, []),
        "pax-path-override": (
            [[t("innocent", F, b"x", pax={"path": UP + inside + "/paxpath"})]],
            True,
            ALL,
            [inside + "/paxpath"],
        ),
        "pax-linkpath": ([[t("pl", L, link="x", pax={"linkpath": s})]], True, ALL, ["pl"]),
        "empty-layer": ([[]], True, ALL, []),
        "abs-hardlink-inside": ([[t("x/f", F, b"x"), t("h", H, link="/x/f")]], True, ALL, ["h"]),
        "var-run": (
            [[t("run", D, mode=0o755), t("var/run", L, link="/run"), t("var/run/x", F, b"x")]],
            True,
            ALL,
            ["run/x"],
        ),
    }


def archive(name, layers):
    tars = [layer(BASE), *(layer(entries) for entries in layers)]
    diff_ids = ["sha256:" + hashlib.sha256(x).hexdigest() for x in tars]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "x"} for _ in tars],
    }
    raw = json.dumps(config).encode()
    members = {hashlib.sha256(raw).hexdigest() + ".json": raw}
    members.update({f"l{i}/layer.tar": x for i, x in enumerate(tars)})
    manifest = {
        "Config": next(iter(members)),
        "RepoTags": [f"sectest:{name}"],
        "Layers": [f"l{i}/layer.tar" for i in range(len(tars))],
    }
    members["manifest.json"] = json.dumps([manifest]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for path, data in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
