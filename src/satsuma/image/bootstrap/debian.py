"""`debian:<suite>` and `debian:<suite>-slim`: debootstrap's minbase, finished like the official images.

debootstrap runs in a mount namespace of its own: what its scripts mount is never in the host's table and is gone
with them.  The finished tree becomes the image's layer by a rename; nothing is packed and unpacked again.

Source: debuerreotype (apt and dpkg settings, slim excludes, minimising); debootstrap(8).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable

from satsuma.base.clock import format_rfc3339nano, now_ns
from satsuma.base.errors import InvalidParameter, System, Unavailable
from satsuma.image.bootstrap.run import Reporter, program, run
from satsuma.image.bootstrap.sources import (
    DEFAULT_KEYRING,
    Mirrors,
    choose,
    format_deb822,
    read_host_sources,
)
from satsuma.image.catalog import Catalog
from satsuma.image.layering import commit_layer, create_from
from satsuma.image.model import Image
from satsuma.linux.root import Root
from satsuma.spec.image import History
from satsuma.wire.reference import Reference

_RELEASES = {"latest": "stable", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}
_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SETTINGS = {
    "etc/apt/apt.conf.d/docker-autoremove-suggests": 'Apt::AutoRemove::SuggestsImportant "false";\n',
    "etc/apt/apt.conf.d/docker-clean": (
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb '
        '/var/cache/apt/*.bin || true"; };\n'
        'APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb '
        '/var/cache/apt/*.bin || true"; };\n'
        'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
    ),
    "etc/apt/apt.conf.d/docker-gzip-indexes": 'Acquire::GzipIndexes "true";\n',
    "etc/apt/apt.conf.d/docker-no-languages": 'Acquire::Languages "none";\n',
    "etc/dpkg/dpkg.cfg.d/docker-apt-speedup": "force-unsafe-io\n",
}
_SLIM_EXCLUDES = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/linda/*",
    "/usr/share/lintian/overrides/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)
_SLIM_INCLUDES = ("/usr/share/doc/*/copyright",)
_POLICY = "#!/bin/sh\n\n# Services are not started in a container by installing a package.\nexit 101\n"
# Emptied, because they are of the machine that made the image or can be had again.
_EMPTIED = ("dev", "proc", "sys", "run", "tmp", "var/tmp", "var/lib/apt/lists", "var/cache/apt")
_REMOVED = (
    "etc/hostname",
    "etc/resolv.conf",
    "etc/apt/sources.list",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id",
    "debootstrap",
)
_FETCHED = re.compile(r"I: (Retrieving|Validating|Extracting|Unpacking|Configuring) (\S+)")


def make(catalog: Catalog, ref: Reference, directory: str, report: Reporter) -> Image:
    """Make the image; about as long as debootstrap itself takes."""
    suite, slim = parse_tag(ref.tag)
    debootstrap = program("debootstrap", "debootstrap", f"making {ref.familiar()}")
    unshare = program("unshare", "util-linux", f"making {ref.familiar()}")
    mirrors = choose(read_host_sources(), suite)
    keyring = mirrors.main.keyring or DEFAULT_KEYRING
    if not os.path.exists(keyring):
        raise Unavailable(f"{keyring} is missing (Debian package: debian-archive-keyring)")
    rootfs = f"{directory}/rootfs"
    os.mkdir(rootfs, 0o755)
    with Root.open_path(rootfs) as root:
        _write_settings(root, slim)
        _debootstrap([unshare, debootstrap], suite, rootfs, mirrors, keyring, report)
        report.step("Finishing the file system")
        _finish(root, mirrors, slim)
    return _register(
        catalog, ref, rootfs, f"# debootstrap --variant=minbase {suite} {mirrors.main.uri}", report
    )


def parse_tag(tag: str) -> tuple[str, bool]:
    """Return (suite for debootstrap, slim or not) of a tag such as `bookworm-slim`.

    Raises:
        InvalidParameter: a tag that is no suite, such as one with a date.
    """
    name, dash, variant = tag.partition("-")
    suite = _RELEASES.get(name, name)
    if (dash and variant != "slim") or not re.fullmatch(r"[a-z]+", suite):
        raise InvalidParameter(f"cannot bootstrap debian:{tag}: the tag must be <suite> or <suite>-slim")
    return suite, bool(dash)


def _debootstrap(
    programs: list[str], suite: str, rootfs: str, mirrors: Mirrors, keyring: str, report: Reporter
) -> None:
    unshare, debootstrap = programs
    count = 0

    def line(text: str) -> None:
        nonlocal count
        match = _FETCHED.match(text)
        if match is None:
            return
        count += match[1] == "Retrieving"
        report.step(
            f"{match[1]} {match[2].rstrip('.')}" + (f" ({count})" if match[1] == "Retrieving" else "")
        )

    report.step(f"Fetching {suite} from {mirrors.main.uri}")
    run(
        [
            *(unshare, "--mount", "--propagation", "private"),
            *(debootstrap, "--variant=minbase", "--force-check-gpg", f"--keyring={keyring}"),
            *(suite, rootfs, mirrors.main.uri),
        ],
        cwd=os.path.dirname(rootfs),
        line=line,
        name="debootstrap",
    )


def _write_settings(root: Root, slim: bool) -> None:
    # Order: before debootstrap, so that dpkg neither syncs each file nor unpacks what slim leaves out.
    for name, text in _SETTINGS.items():
        root.mkdirs(os.path.dirname(name))
        root.write_file(name, text.encode())
    if slim:
        lines = ["# The slim variant leaves out documentation and translations."]
        lines += [f"path-exclude {pattern}" for pattern in _SLIM_EXCLUDES]
        lines += [f"path-include {pattern}" for pattern in _SLIM_INCLUDES]
        root.write_file("etc/dpkg/dpkg.cfg.d/docker", ("\n".join(lines) + "\n").encode())


def _finish(root: Root, mirrors: Mirrors, slim: bool) -> None:
    for name in _EMPTIED:
        _empty(root, name)
    for name in _REMOVED:
        _remove(root, name)
    root.mkdirs("var/cache/apt/archives/partial")
    root.mkdirs("var/lib/apt/lists/partial")
    for path, status in list(root.walk("var/log")):
        if stat.S_ISREG(status.st_mode):
            root.unlink(path)
    for path, _ in list(root.walk("var/lib/dpkg")):
        if path.endswith(b"-old"):
            root.unlink(path)
    root.write_file("etc/machine-id", b"", 0o444)
    root.mkdirs("etc/apt/sources.list.d")
    inside = DEFAULT_KEYRING if root.exists(DEFAULT_KEYRING) else DEFAULT_KEYRING.replace(".gpg", ".pgp")
    root.write_file("etc/apt/sources.list.d/debian.sources", format_deb822(mirrors, inside).encode())
    root.write_file("usr/sbin/policy-rc.d", _POLICY.encode(), 0o755)
    if slim:
        _strip(root)


def _strip(root: Root) -> None:
    """Remove what the first stage unpacked before dpkg's excludes counted."""
    for pattern in _SLIM_EXCLUDES:
        directory = pattern[1:-2].encode()
        for path in _files(root, directory):
            if not (
                path.startswith(b"usr/share/doc/") and path.endswith(b"/copyright") and path.count(b"/") == 4
            ):
                root.unlink(path)
        for path in sorted(_directories(root, directory), reverse=True):
            if path != directory and not root.listdir(path):
                root.rmdir(path)


def _files(root: Root, directory: bytes) -> list[bytes]:
    return [path for path, status in _walk(root, directory) if not stat.S_ISDIR(status.st_mode)]


def _directories(root: Root, directory: bytes) -> list[bytes]:
    return [path for path, status in _walk(root, directory) if stat.S_ISDIR(status.st_mode)]


def _walk(root: Root, directory: bytes) -> Iterable[tuple[bytes, os.stat_result]]:
    try:
        return list(root.walk(directory))
    except FileNotFoundError:
        return []


def _empty(root: Root, name: str) -> None:
    try:
        entries = root.listdir(name)
    except FileNotFoundError:
        return
    for entry in entries:
        root.rmtree(name.encode() + b"/" + entry)


def _remove(root: Root, name: str) -> None:
    try:
        root.rmtree(name)
    except (FileNotFoundError, NotADirectoryError):
        return


def _register(catalog: Catalog, ref: Reference, rootfs: str, created_by: str, report: Reporter) -> Image:
    report.step("Registering the layer")
    layer = commit_layer(catalog.store, rootfs, None, move=True)
    if layer is None:
        raise System("debootstrap left an empty tree")
    created = now_ns()
    stamp = format_rfc3339nano(created)
    history = [
        History(created=stamp, created_by=created_by, comment="debootstrap on this host"),
        History(created=stamp, created_by='CMD ["bash"]', empty_layer=True),
    ]
    config = {"Env": [_ENV], "Cmd": ["bash"]}
    image = create_from(catalog, None, [layer], config, history, created_ns=created)
    catalog.tag(image.id, ref)
    return catalog.get(image.id)
