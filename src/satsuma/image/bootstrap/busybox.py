"""`busybox`: one static program and its links, laid out like the official image.

Source: docker-library/busybox (layout, /etc files); Debian package busybox-static.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
from collections.abc import Iterator

from satsuma.base.clock import parse_rfc3339
from satsuma.base.errors import System, Unavailable
from satsuma.image.bootstrap.run import Reporter, environment, program, run
from satsuma.image.catalog import Catalog
from satsuma.image.importing import import_tar
from satsuma.image.model import Image
from satsuma.wire import tar
from satsuma.wire.reference import Reference

_CANDIDATES = ("/bin/busybox", "/usr/bin/busybox")
_PT_INTERP = 3
_MAX_PROGRAM = 64 << 20

# As the official image has them.
_PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = b"""root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
kmem:x:9:
wheel:x:10:root
cdrom:x:11:
dialout:x:18:
floppy:x:19:
video:x:28:
audio:x:29:
tape:x:32:
www-data:x:33:
operator:x:37:
utmp:x:43:
plugdev:x:46:
staff:x:50:
lock:x:54:
netdev:x:82:
users:x:100:
nobody:x:65534:
"""
_SHADOW = b"".join(
    line.split(b":", 1)[0] + b":*:::::::\n"
    if not line.startswith(b"root:")
    else b"root:*:10933:0:99999:7:::\n"
    for line in _PASSWD.splitlines()
)
_NSSWITCH = b"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files dns\n"
_DIRECTORIES = (
    ("bin", 0o755, 0),
    ("dev", 0o755, 0),
    ("etc", 0o755, 0),
    ("etc/network", 0o755, 0),
    ("etc/network/if-down.d", 0o755, 0),
    ("etc/network/if-post-down.d", 0o755, 0),
    ("etc/network/if-pre-up.d", 0o755, 0),
    ("etc/network/if-up.d", 0o755, 0),
    ("home", 0o755, 65534),
    ("root", 0o700, 0),
    ("tmp", 0o1777, 0),
    ("usr", 0o755, 0),
    ("usr/bin", 0o755, 0),
    ("usr/sbin", 0o755, 1),
    ("var", 0o755, 0),
    ("var/spool", 0o755, 0),
    ("var/spool/mail", 0o755, 8),
    ("var/www", 0o755, 33),
)
_FILES = (
    ("etc/group", 0o644, _GROUP),
    ("etc/nsswitch.conf", 0o644, _NSSWITCH),
    ("etc/passwd", 0o644, _PASSWD),
    ("etc/shadow", 0o640, _SHADOW),
)


def make(catalog: Catalog, ref: Reference, directory: str, report: Reporter) -> Image:
    """Make the image from the host's static busybox, or from Debian's package."""
    path = _find(directory, report)
    with open(path, "rb") as file:
        data = file.read(_MAX_PROGRAM)
    applets = _applets(path)
    # One time for everything: the same busybox makes the same image.
    mtime_ns = int(os.stat(path).st_mtime) * 10**9
    report.step(f"Making an image of {len(applets)} programs")
    archive = b"".join(_archive(data, applets, mtime_ns))
    return import_tar(
        catalog,
        io.BytesIO(archive),
        ref,
        ['CMD ["sh"]', "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "busybox-static of this host",
        created_by="BusyBox static, satsuma image bootstrap busybox",
        created_ns=max(mtime_ns, parse_rfc3339("1970-01-01T00:00:00Z")),
    )


def _find(directory: str, report: Reporter) -> str:
    for path in _CANDIDATES:
        if os.path.exists(path) and is_static(path):
            report.step(f"Using {path}")
            return path
    apt = program("apt-get", "apt", "fetching busybox-static")
    unpack = program("dpkg-deb", "dpkg", "unpacking busybox-static")
    report.step("Downloading the package busybox-static")
    # apt drops privileges for downloads and wants a directory it may write to; as root it only warns.
    run([apt, "-o", "APT::Sandbox::User=root", "download", "busybox-static"], cwd=directory)
    packages = [name for name in os.listdir(directory) if name.endswith(".deb")]
    if not packages:
        raise Unavailable("apt-get found no package busybox-static: run apt-get update")
    run([unpack, "--extract", packages[0], "tree"], cwd=directory)
    for candidate in ("usr/bin/busybox", "bin/busybox"):
        path = f"{directory}/tree/{candidate}"
        if os.path.isfile(path) and is_static(path):
            return path
    raise System("the package busybox-static has no static busybox")


def is_static(path: str) -> bool:
    """Tell whether an ELF program needs no dynamic linker: it has no PT_INTERP."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":
            return False
        order = "<" if head[5] == 1 else ">"
        (offset,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
        file.seek(offset)
        table = file.read(size * count)
    types = {struct.unpack_from(order + "I", table, i * size)[0] for i in range(len(table) // size)}
    return _PT_INTERP not in types


def _applets(path: str) -> list[bytes]:
    result = subprocess.run(
        [path, "--list"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=30,
    )
    names = sorted({name for name in result.stdout.split() if name and b"/" not in name})
    if result.returncode != 0 or b"sh" not in names:
        raise System(f"{path} --list gives no list of programs")
    return names


def _archive(data: bytes, applets: list[bytes], mtime_ns: int) -> Iterator[bytes]:
    for name, mode, owner in _DIRECTORIES:
        yield tar.encode(
            tar.Entry(f"{name}/".encode(), tar.DIRECTORY, mode=mode, uid=owner, gid=owner, mtime_ns=mtime_ns)
        )
    yield tar.encode(tar.Entry(b"bin/busybox", mode=0o755, size=len(data), mtime_ns=mtime_ns))
    yield data + tar.padding(len(data))
    for applet in applets:
        if applet != b"busybox":
            yield tar.encode(
                tar.Entry(b"bin/" + applet, tar.LINK, mode=0o755, linkname=b"bin/busybox", mtime_ns=mtime_ns)
            )
    # Scripts begin with it.
    yield tar.encode(
        tar.Entry(b"usr/bin/env", tar.SYMLINK, mode=0o777, linkname=b"../../bin/env", mtime_ns=mtime_ns)
    )
    for name, mode, content in _FILES:
        yield tar.encode(tar.Entry(name.encode(), mode=mode, size=len(content), mtime_ns=mtime_ns))
        yield content + tar.padding(len(content))
    yield tar.END
