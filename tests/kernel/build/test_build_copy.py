"""COPY and ADD on real overlay mounts: where things land, whose they are, and what cannot be reached."""

from __future__ import annotations

import http.server
import os
import stat
import tarfile
import threading
from collections.abc import Iterator

import pytest
from build_lab import Lab, file, link, tar

# Dockerfile lines after FROM, context, and the resulting tree of /d.
PLACES = [
    ("COPY a /d/a", ["a"]),
    ("COPY a /d/", ["a"]),
    ("COPY a /d/new/b", ["new", "new/b"]),
    ("COPY a /d/new/", ["new", "new/a"]),
    ("WORKDIR /d\nCOPY a .", ["a"]),
    ("WORKDIR /d\nCOPY a b", ["b"]),
    ("WORKDIR /d\nCOPY a sub/", ["sub", "sub/a"]),
    ("WORKDIR /d\nCOPY a ./", ["a"]),
    ("COPY a b /d/", ["a", "b"]),
    ("COPY dir /d", ["in", "sub", "sub/deep"]),
    ("COPY dir /d/", ["in", "sub", "sub/deep"]),
    ("COPY dir/ /d/new", ["new", "new/in", "new/sub", "new/sub/deep"]),
    ("COPY dir a /d/", ["a", "in", "sub", "sub/deep"]),
    ("COPY dir/sub/deep /d/", ["deep"]),
    ("COPY ./a /d/", ["a"]),
    ("COPY /a /d/", ["a"]),
    ("COPY dir/../a /d/", ["a"]),
    ("COPY ? /d/", ["a", "b"]),
    ("COPY d*/in /d/", ["in"]),
    ("COPY *r /d/", ["in", "sub", "sub/deep", "t.tar"]),
    ("COPY [ab] /d/", ["a", "b"]),
    ('COPY ["a", "/d/x y"]', ["x y"]),
    ("COPY 'a' \"/d/q\"", ["q"]),
    ("COPY --exclude=sub dir /d/", ["in"]),
    ("COPY --exclude=**/deep dir /d/", ["in", "sub"]),
    ("COPY --exclude=* --exclude=!sub/deep dir /d/", ["sub", "sub/deep"]),
    ("COPY --parents dir/sub/deep a /d/", ["a", "dir", "dir/sub", "dir/sub/deep"]),
    ("COPY --parents ./dir/./sub /d/", ["sub", "sub/deep"]),
    ("COPY <<one <<two /d/\n1\none\n2\ntwo", ["one", "two"]),
    ("COPY <<E /d/x\n1\nE", ["x"]),
    ("ADD a /d/", ["a"]),
    ("ADD t.tar /d/", ["in-tar"]),
    ("ADD t.txt /d/", ["in-tar"]),
    ("ADD t.tgz /d/new", ["new", "new/in-tgz"]),
    ("ADD --unpack=false t.tar /d/", ["t.tar"]),
    ("COPY t.tar /d/", ["t.tar"]),
    ("COPY --link a /d/", ["a"]),
]

CONTEXT = {
    "a": "A",
    "b": "B",
    "dir/": None,
    "dir/in": "in",
    "dir/sub/": None,
    "dir/sub/deep": "deep",
    "t.tar": file(tar({"in-tar": "x"}).getvalue()),
    "t.txt": file(tar({"in-tar": "x"}).getvalue()),
    "t.tgz": file(tar({"in-tgz": "x"}, mode="w:gz").getvalue()),
}


@pytest.mark.parametrize(("lines", "tree"), PLACES)
async def test_where_things_land(lab: Lab, lines: str, tree: list[str]) -> None:
    await lab.ok(f"FROM scratch\n{lines}\n", dict(CONTEXT))
    assert lab.tree("/d") == tree


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("COPY nope /", "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist"),
        ("ADD nope /", "ADD failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist"),
        ("COPY ../x /", "COPY failed: forbidden path outside the build context: ../x ()"),
        ("COPY dir/../../x /", "COPY failed: forbidden path outside the build context: dir/../../x ()"),
        ("COPY nope* /", "COPY failed: no source files were specified"),
        ("COPY [x /", "COPY failed: syntax error in pattern"),
        (
            "COPY a b /d",
            "When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        ("COPY http://x/y /", "COPY failed: source can't be a URL for COPY"),
        ("COPY --from=1 a /", "invalid from flag value 1: index out of bounds"),
        ("COPY --from=0 a /", "invalid from flag value 0: refers to current build stage"),
        ("COPY --from=nope a /", "No such image: nope:latest"),
        ("COPY --from=busybox /nope /", "COPY failed: stat nope: file does not exist"),
        (
            "COPY --chown=nobody-here a /",
            "unable to convert uid/gid chown string to host mapping: can't find uid for user nobody-here: "
            "no such user: nobody-here",
        ),
        ("COPY --chown=1:2:3 a /", "unable to convert uid/gid chown string to host mapping: invalid chown string format: 1:2:3"),
        ("COPY --chmod=rw a /", "invalid chmod parameter: 'rw'. it should be octal string and between 0 and 07777"),
    ],
)  # fmt: skip
async def test_errors(lab: Lab, lines: str, message: str) -> None:
    built = await lab.build(f"FROM busybox\n{lines}\n", dict(CONTEXT))
    assert built.error == message
    assert built.objects[-1]["errorDetail"] == {"message": message}


async def test_owner_mode_and_time(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox\nCOPY x /d/x\nCOPY --chown=12:34 x /c/x\nCOPY --chmod=0640 x /m/x\n"
        "COPY --chown=5 dir /own/\nCOPY --chmod=u=rwX,go= dir /mode/\n",
        {
            "x": file("x", 0o751, 1000, 1000),
            "dir/": file("", 0o711, 7, 7),
            "dir/f": file("f", 0o604, 7, 7),
        },
    )
    assert lab.status("/d/x") == ("-rwxr-x--x", 0, 0)
    assert lab.status("/c/x") == ("-rwxr-x--x", 12, 34)
    assert lab.status("/c") == ("drwxr-xr-x", 12, 34)
    assert lab.status("/m/x") == ("-rw-r-----", 0, 0)
    assert lab.status("/own/f") == ("-rw----r--", 5, 5)
    assert lab.status("/own") == ("drwxr-xr-x", 5, 5)
    assert lab.status("/mode/f") == ("-rw-------", 0, 0)
    assert lab.look(lambda root: root.stat("/d/x").st_mtime) == 1_600_000_000


async def test_chown_by_name_of_the_image(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox\nCOPY passwd group /etc/\nCOPY --chown=app:staff x /one\nCOPY --chown=app x /two\n"
        "COPY --link --chown=app x /three\n",
        {"x": "x", "passwd": "root:x:0:0::/:\napp:x:101:55::/:\n", "group": "app:x:102:\nstaff:x:103:\n"},
    )
    assert lab.status("/one")[1:] == (101, 103)
    # Without a group the group of the same name counts, not the user's own.
    assert lab.status("/two")[1:] == (101, 102)
    assert lab.status("/three")[1:] == (101, 102)


async def test_existing_directories_keep_their_mode_but_those_below_take_the_sources(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox\nRUN mkdir -p /d/sub && chmod 700 /d && chmod 700 /d/sub && chown 9:9 /d\nCOPY dir /d\n",
        {"dir/": file("", 0o755), "dir/sub/": file("", 0o750), "dir/sub/f": "f"},
    )
    assert lab.status("/d") == ("drwx------", 9, 9)
    assert lab.status("/d/sub") == ("drwxr-x---", 0, 0)


async def test_what_is_in_the_way_is_replaced(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox\n"
        "RUN mkdir -p /d/was-dir /else && touch /d/was-dir/x /else/safe && echo old > /d/file && ln -s /else /d/was-link\n"
        "COPY dir /d\n",
        {
            "dir/was-dir": "file now",
            "dir/file/": None,
            "dir/file/x": "x",
            "dir/was-link/": None,
            "dir/was-link/y": "y",
        },
    )
    assert lab.read("/d/was-dir") == "file now"
    assert lab.tree("/d/file") == ["x"]
    assert lab.status("/d/was-link")[0] == "drwxr-xr-x"
    assert lab.tree("/else") == ["safe"]


async def test_links_of_the_image_lead_inside_it(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox\nRUN mkdir /real && ln -s /real /abs && ln -s ../../../../real /up && ln -s /real/t /dangling\n"
        "COPY a /abs/one\nCOPY a /up/two\nCOPY a /abs\nCOPY a /dangling\nCOPY dir /abs/\n",
        {"a": "A", "dir/x": "x"},
    )
    assert lab.tree("/real") == ["a", "one", "t", "two", "x"]
    assert lab.status("/abs")[0].startswith("l")
    assert lab.read("/real/t") == "A"


@pytest.mark.parametrize(
    "target", ["/etc/hostname", "../../../../../../etc/hostname", "/proc/self/root/etc/hostname"]
)
async def test_links_of_the_context_cannot_leave_it(lab: Lab, target: str) -> None:
    built = await lab.build(f"FROM busybox\nCOPY {'bad'} /x\n", {"bad": link(target)})
    assert "file does not exist" in built.error


async def test_links_in_a_directory_are_copied_as_links(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox\nCOPY dir /d\nCOPY dir/good /f\nCOPY ldir /l\n",
        {"dir/good": link("file"), "dir/file": "text", "dir/bad": link("/etc/shadow"), "ldir": link("dir")},
    )
    assert lab.look(lambda root: root.readlink("/d/good")) == b"file"
    assert lab.look(lambda root: root.readlink("/d/bad")) == b"/etc/shadow"
    assert (lab.read("/f"), lab.status("/f")[0][0]) == ("text", "-")
    assert lab.tree("/l") == ["bad", "file", "good"]


async def test_names_in_a_context_cannot_climb_out(lab: Lab) -> None:
    evil = tar({"Dockerfile": "FROM busybox\nCOPY . /d\n", "../../escaped": "x", "/abs": "y"})
    built = await lab.build_tar(evil)
    assert not built.error
    assert {"escaped", "abs"} <= set(lab.tree("/d"))
    assert not os.path.exists(f"{lab.store.data_root}/escaped")


async def test_between_stages_owners_stay(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox AS One\nRUN mkdir /o && echo x > /o/f && chown 5:6 /o/f /o && chmod 600 /o/f && ln -s f /o/l\n"
        "FROM busybox\nCOPY --from=one /o /p\nCOPY --from=0 /o/f /q/\nCOPY --from=ONE --chown=1:1 /o/f /r\n"
        "COPY --from=one /o/l /s\nCOPY --from=busybox /bin/busybox /t/\nCOPY --from=one /o/* /w/\n",
    )
    assert lab.status("/p/f") == ("-rw-------", 5, 6)
    assert lab.status("/q/f") == ("-rw-------", 5, 6)
    assert lab.status("/r") == ("-rw-------", 1, 1)
    assert lab.status("/p/l")[0][0] == "l"
    assert lab.status("/s") == ("-rw-------", 5, 6)
    assert lab.tree("/t") == ["busybox"]
    assert lab.tree("/w") == ["f", "l"]


async def test_copies_of_images_hit_the_cache(lab: Lab) -> None:
    text = "FROM busybox AS one\nRUN echo x > /f\nFROM scratch\nCOPY --from=one /f /g\nCOPY --from=busybox /bin /b\n"
    await lab.ok(text)
    assert (await lab.ok(text)).cached == 3
    other = await lab.ok(text.replace("echo x", "echo y"))
    assert other.cached == 0


async def test_hard_links_stay_hard_links(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox AS one\nRUN mkdir -p /o/sub && echo x > /o/a && ln /o/a /o/sub/b\nFROM scratch\nCOPY --from=one /o /p\n"
    )
    inodes = lab.look(lambda root: (root.stat("/p/a").st_ino, root.stat("/p/sub/b").st_ino))
    assert inodes[0] == inodes[1]


async def test_special_files_and_capabilities(lab: Lab) -> None:
    fifo = tarfile.TarInfo()
    fifo.type, fifo.mode = tarfile.FIFOTYPE, 0o640
    await lab.ok(
        "FROM busybox AS one\nCOPY . /o\nFROM scratch\nCOPY --from=one /o /p\n", {"fifo": fifo, "empty": ""}
    )
    mode = lab.look(lambda root: root.lstat("/p/fifo").st_mode)
    assert (stat.S_ISFIFO(mode), stat.S_IMODE(mode)) == (True, 0o640)


async def test_setuid_survives_the_chown(lab: Lab) -> None:
    await lab.ok("FROM busybox\nCOPY --chown=1:1 x /x\n", {"x": file("x", 0o4755)})
    assert lab.status("/x") == ("-rwsr-xr-x", 1, 1)


async def test_no_mode_depends_on_the_umask(lab: Lab) -> None:
    await lab.ok(
        "FROM busybox\nCOPY a /new/dir/a\nCOPY implied /i\nADD t.tar /t/u\nWORKDIR /w/x\nCOPY <<E /h/e\nE\nCOPY --link a /l/a\n",
        {"a": file("A", 0o666), "implied/by/name": "x", "t.tar": file(tar({"deep/er/file": "x"}).getvalue())},
    )
    for path in (
        "/",
        "/new",
        "/new/dir",
        "/i",
        "/i/by",
        "/t",
        "/t/u",
        "/t/u/deep",
        "/t/u/deep/er",
        "/w",
        "/w/x",
        "/h",
        "/l",
    ):
        assert (path, lab.status(path)[0]) == (path, "drwxr-xr-x")
    assert lab.status("/new/dir/a")[0] == "-rw-rw-rw-"
    assert lab.status("/h/e")[0] == "-rw-r--r--"


async def test_big_file_arrives_whole(lab: Lab) -> None:
    data = os.urandom(3_000_001)
    await lab.ok("FROM scratch\nCOPY big /\n", {"big": file(data)})
    assert lab.look(lambda root: root.read_file("/big", 1 << 23)) == data


async def test_heredoc_copies_expand_variables(lab: Lab) -> None:
    await lab.ok("FROM busybox\nENV X=1\nCOPY <<a <<'b' /d/\nx is $X, \"quoted\"\na\nx is $X\nb\n")
    assert lab.read("/d/a") == 'x is 1, "quoted"\n'
    assert lab.read("/d/b") == "x is $X\n"


async def test_into_the_top_directory(lab: Lab) -> None:
    await lab.ok("FROM scratch\nCOPY dir /\nCOPY a /\nADD t.tar /\nADD t.tgz .\nCOPY b .\n", dict(CONTEXT))
    assert lab.tree("/") == ["a", "b", "in", "in-tar", "in-tgz", "sub", "sub/deep"]


async def test_names_that_are_not_utf8(lab: Lab) -> None:
    await lab.ok("FROM scratch\nCOPY dir /d\n", {"dir/caf\udce9": "x"})
    assert lab.look(lambda root: root.listdir("/d")) == [b"caf\xe9"]


async def test_link_layers_do_not_follow_links_of_the_image(lab: Lab) -> None:
    await lab.ok("FROM busybox\nRUN mkdir /real && ln -s /real /sym\nCOPY --link a /sym/\n", {"a": "A"})
    assert lab.tree("/sym") == ["a"]
    assert lab.tree("/real") == []


# --- .dockerignore --------------------------------------------------------------------------------------------------


async def test_dockerignore_is_applied_by_the_engine_too(lab: Lab) -> None:
    await lab.ok(
        "FROM scratch\nCOPY . /d\n",
        {
            ".dockerignore": "*.log\n!keep.log\nnode_modules\nsub/*\n!sub/yes\nDockerfile\n.dockerignore\n",
            "a.log": "",
            "keep.log": "",
            "node_modules/x/y": "",
            "sub/no": "",
            "sub/yes": "",
            "src/b.log": "",
        },
    )
    assert lab.tree("/d") == ["keep.log", "src", "src/b.log", "sub", "sub/yes"]


async def test_an_ignored_file_cannot_be_copied(lab: Lab) -> None:
    built = await lab.build("FROM scratch\nCOPY secret /\n", {".dockerignore": "secret\n", "secret": "x"})
    assert built.error.startswith("COPY failed: file not found in build context or excluded by .dockerignore")


# --- downloads ------------------------------------------------------------------------------------------------------


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404, "Not Found")
            return
        body = tar({"Dockerfile": "FROM busybox\nCOPY x /x\n", "x": "remote"}).getvalue()
        kind = "application/x-tar"
        if self.path.startswith("/Dockerfile"):
            body, kind = b"FROM busybox\nLABEL from=url\n", "text/plain"
        elif self.path != "/context.tar":
            body, kind = b"downloaded", "application/octet-stream"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Sun, 13 Sep 2020 12:26:40 GMT")
        if self.path == "/":
            self.send_header("Content-Disposition", 'attachment; filename="named.bin"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_add_url(lab: Lab, web: str) -> None:
    digest = "sha256:55c76f92f2ae4d9cd9ecbe4d7ac1ad0a49ecbb7ddca25fb60bbb1a8a7a6a0e0c"
    wrong = await lab.build(f"FROM busybox\nADD --checksum={digest} {web}/f.bin /d/\n")
    assert "ADD failed: digest mismatch sha256:" in wrong.error
    right = wrong.error.split("mismatch ")[1].split(":")[1]
    await lab.ok(
        f"FROM busybox\nADD --checksum=sha256:{right} {web}/f.bin /d/\nADD {web}/ /d/\nADD {web}/f.bin /e\n"
        f"ADD {web}/context.tar /t/\n"
    )
    assert lab.tree("/d") == ["f.bin", "named.bin"]
    assert (lab.read("/e"), lab.status("/e")) == ("downloaded", ("-rw-------", 0, 0))
    assert lab.look(lambda root: root.stat("/e").st_mtime) == 1_600_000_000
    assert lab.tree("/t") == ["context.tar"]


async def test_add_url_that_fails(lab: Lab, web: str) -> None:
    built = await lab.build(f"FROM busybox\nADD {web}/missing /d/\n")
    assert f"ADD failed: failed to GET {web}/missing with status 404 Not Found" in built.error


async def test_remote_contexts(lab: Lab, web: str) -> None:
    built = await lab.build_tar(None, remote=f"{web}/context.tar")
    assert not built.error
    assert lab.read("/x") == "remote"
    built = await lab.build_tar(None, remote=f"{web}/Dockerfile.txt")
    assert not built.error
    assert lab.image.labels == {"from": "url"}
