"""The image service on the real kernel: commit, save and load, names, removal, pruning, import."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import tarfile
import threading

import pytest
from backports import zstd

from satsuma.base.errors import Conflict, DataLoss, InvalidParameter, NotFound, System, Unavailable
from satsuma.image import ImageService, layer_tar, tar_path, untar
from satsuma.linux import mount
from satsuma.linux.root import Root
from satsuma.spec.image import EMPTY_DIFF_ID, History
from satsuma.store import Store, check


def quiet(message):
    pass


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mtime = 1700000000
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


BASE = {
    "bin": None,
    "bin/sh": b"#!",
    "etc": None,
    "etc/conf": b"1",
    "data": None,
    "data/a": b"a",
    "data/b": b"b",
}


@pytest.fixture
def events():
    return []


@pytest.fixture
def images(tmp_path, events):
    store = Store.open(str(tmp_path / "root"), collect=False)
    yield ImageService(store, lambda action, image, name: events.append((action, image.id, name)))
    store.trash.empty()
    assert check(store) == []
    store.close()


@pytest.fixture
def base(images):
    return images.import_tar(io.BytesIO(tar_of(BASE)), "base", ['CMD ["sh"]', "ENV A=1"])


class Box:
    """A container without processes."""

    def __init__(self, images, image, key="box"):
        self.images, self.image, self.key = images, image, key
        self.active = images.store.snapshots.prepare(key, image.chain_ids)
        images.store.db.collection("containers").insert(key, b"")
        self.root = images.store.snapshots.mounted(key)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.root.close()
        self.images.store.db.collection("containers").delete(self.key)
        self.images.store.snapshots.remove(self.key)

    def commit(self, **more):
        layer = self.images.commit_layer(self.active.upperdir, self.image.chain_ids, **more)
        step = History(created_by="sh -c x", empty_layer=layer is None)
        return self.images.create_from(self.image, [layer] if layer else [], {"Cmd": ["x"]}, [step])


INIT = {b".dockerenv", b"dev", b"dev/console", b"dev/pts", b"dev/shm", b"proc", b"sys"}


def tree(root, *, times=True):
    found = {}
    for path, status in root.walk():
        if not path:
            continue
        entry = [status.st_mode, status.st_uid, status.st_gid, status.st_rdev]
        if not stat.S_ISDIR(status.st_mode):
            entry += [status.st_size, status.st_nlink]
            entry += [status.st_mtime_ns // 10**9] if times else []
        if stat.S_ISREG(status.st_mode):
            entry.append(root.read_file(path))
        elif stat.S_ISLNK(status.st_mode):
            entry.append(root.readlink(path))
        found[path] = entry
    return found


def scribble(root):
    """Everything a container can do to a tree."""
    root.write_file("data/new", b"n" * 100000)
    root.unlink("data/a")
    root.rmtree("etc")
    root.mkdir("etc")
    root.write_file("etc/other", b"o", 0o600)
    root.symlink("/data/b", "link")
    root.symlink("x" * 150, "data/longlink")
    root.write_file("data/" + "n" * 200, b"long")
    root.write_file("caf\udce9", b"bytes")
    root.link("data/new", "data/hard")
    root.mknod("data/fifo", stat.S_IFIFO | 0o644)
    root.mknod("data/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    root.chmod("bin/sh", 0o4755)
    root.lchown("data/b", 1000, 70000)
    root.setxattr("bin/sh", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    fd = root.open("sparse", os.O_WRONLY | os.O_CREAT, 0o644)
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, b"end", (1 << 20) - 3)
    os.close(fd)


@pytest.mark.parametrize("move", [False, True])
def test_commit_is_the_containers_tree(images, base, move):
    with Box(images, base) as box:
        scribble(box.root)
        before = tree(box.root)
        if move:
            box.root.close()
        new = box.commit(move=move)
        with images.store.snapshots.view(new.chain_ids) as view:
            assert tree(view) == {path: entry for path, entry in before.items() if path not in INIT}
        with images.store.snapshots.view(new.chain_ids) as view:
            assert view.getxattr("bin/sh", "security.capability")
            assert not view.exists(".dockerenv")
            assert not view.exists("etc/hosts")
        if move:
            os.mkdir(box.active.upperdir)
    assert images.check(deep=True) == []
    images.remove(new.id)


def test_committed_and_moved_layers_have_the_same_digest(images, base):
    with Box(images, base, "one") as one, Box(images, base, "two") as two:
        for box in (one, two):
            box.root.write_file("x", b"x")
            box.root.unlink("data/a")
            for path in ("x", "data"):
                box.root.utimens(path, 5 * 10**9, 5 * 10**9)
        first = images.commit_layer(one.active.upperdir, base.chain_ids)
        two.root.close()
        second = images.commit_layer(two.active.upperdir, base.chain_ids, move=True)
        assert first.diff_id == second.diff_id
        assert b"".join(layer_tar(images.store, first))
        os.mkdir(two.active.upperdir)
        images.store.layers.unpin([first.chain_id, second.chain_id])
    images.store.sweep(images.catalog.roots())


def test_commit_of_nothing_adds_no_layer(images, base):
    with Box(images, base) as box:
        new = box.commit()
    assert new.chain_ids == base.chain_ids
    assert new.parent == base.id
    assert [step["Size"] for step in images.history(new.id)] == [0, 5]
    assert EMPTY_DIFF_ID not in new.diff_ids


def test_save_and_load_return_the_same_image_and_bytes(images, base, events):
    with Box(images, base) as box:
        scribble(box.root)
        new = box.commit()
    images.tag(new.id, "me/app", "2")
    images.tag(new.id, "me/app", "3")
    archive = b"".join(images.save(["me/app", "base"]))
    assert events[-2:] == [("save", new.id, "me/app:2"), ("save", base.id, "base:latest")]
    for name in ("me/app:2", "me/app:3", "base"):
        images.remove(name)
    assert images.list() == []
    messages = []
    loaded = images.load(io.BytesIO(archive), messages.append)
    assert [image.id for image in loaded] == [new.id, base.id]
    streams = [m["stream"] for m in messages if "stream" in m]
    assert streams == ["Loaded image: me/app:2\n", "Loaded image: me/app:3\n", "Loaded image: base:latest\n"]
    assert b"".join(images.save(["me/app", "base"])) == archive
    assert images.resolve("me/app:3").repo_tags == ("me/app:2", "me/app:3")


def test_archive_has_dockers_members(images, base):
    archive = tarfile.open(fileobj=io.BytesIO(b"".join(images.save(["base"]))))
    names = archive.getnames()
    layer = base.diff_ids[0]
    assert {"blobs/sha256", "index.json", "manifest.json", "oci-layout", "repositories"} < set(names)
    (item,) = json.load(archive.extractfile("manifest.json"))
    assert item["Config"] == f"blobs/sha256/{base.id[7:]}"
    assert item["RepoTags"] == ["base:latest"]
    assert item["Layers"] == [f"blobs/sha256/{layer[7:]}"]
    data = archive.extractfile(item["Layers"][0]).read()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == layer
    assert item["LayerSources"][layer]["size"] == len(data)
    index = json.load(archive.extractfile("index.json"))
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "docker.io/library/base:latest"
    for name in names:
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(archive.extractfile(name).read()).hexdigest() == name[13:]


def test_layers_are_stored_once_when_they_can_be_written_anew(images, base):
    first = b"".join(images.save(["base"]))
    # Written by somebody else: kept as a blob.
    assert [digest for digest, _ in images.store.content.walk()] == [base.diff_ids[0]]
    with Box(images, base) as box:
        scribble(box.root)
        ours = box.commit()
    archive = b"".join(images.save([ours.id]))
    images.remove(ours.id)
    images.remove("base")
    images.load(io.BytesIO(archive), quiet)
    assert images.store.layers.get(ours.chain_ids[-1]).blob == "generated"
    assert [digest for digest, _ in images.store.content.walk()] == [base.diff_ids[0]]
    assert b"".join(images.save([ours.id])) == archive
    assert first


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd.compress])
def test_compressed_archives_load(images, base, pack):
    archive = b"".join(images.save(["base"]))
    images.remove("base")
    (image,) = images.load(io.BytesIO(pack(archive)), quiet)
    assert image.id == base.id


def oci_layout(base_raw, layers, *, annotations=None, index_in_index=False, config_type=None):
    blobs = {}

    def add(data, media_type, **more):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    manifest = add(
        json.dumps(
            {
                "schemaVersion": 2,
                "config": add(base_raw, config_type or "application/vnd.oci.image.config.v1+json"),
                "layers": [add(data, "application/vnd.oci.image.layer.v1.tar+gzip") for data in layers],
            }
        ).encode(),
        "application/vnd.oci.image.manifest.v1+json",
        platform={"os": "linux", "architecture": "amd64"},
    )
    foreign = {
        **manifest,
        "platform": {"os": "linux", "architecture": "s390x"},
        "digest": "sha256:" + "1" * 64,
    }
    top = [manifest]
    if index_in_index:
        top = [
            add(
                json.dumps({"schemaVersion": 2, "manifests": [foreign, manifest]}).encode(),
                "application/vnd.oci.image.index.v1+json",
            )
        ]
    top[0]["annotations"] = annotations or {}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": top}).encode()
    files.update({f"blobs/sha256/{digest[7:]}": data for digest, data in blobs.items()})
    return tar_of(files)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_oci_layouts_load_and_keep_compressed_blobs(images, base, nested, pack):
    packed = pack(b"".join(layer_tar(images.store, images.store.layers.get(base.chain_ids[0]))))
    raw = base.config_raw
    images.remove("base")
    names = {"org.opencontainers.image.ref.name": "registry.example:5000/x:1"}
    messages = []
    archive = oci_layout(raw, [packed], annotations=names, index_in_index=nested)
    (image,) = images.load(io.BytesIO(archive), messages.append)
    assert image.repo_tags == ("registry.example:5000/x:1",)
    layer = images.store.layers.get(image.chain_ids[0])
    assert images.store.content.read(layer.blob, 1 << 20) == packed
    saved = tarfile.open(fileobj=io.BytesIO(b"".join(images.save([image.id]))))
    assert f"blobs/sha256/{image.diff_ids[0][7:]}" in saved.getnames()


def test_nameless_layout_reports_the_id(images, base):
    packed = gzip.compress(b"".join(layer_tar(images.store, images.store.layers.get(base.chain_ids[0]))))
    messages = []
    archive = oci_layout(
        base.config_raw, [packed], annotations={"org.opencontainers.image.ref.name": "latest"}
    )
    images.load(io.BytesIO(archive), messages.append)
    assert messages[-1] == {"stream": f"Loaded image ID: {base.id}\n"}


def test_load_moves_a_name_and_says_so(images, base):
    archive = b"".join(images.save(["base"]))
    other = images.import_tar(io.BytesIO(tar_of({"x": b"x"})), "base")
    messages = []
    images.load(io.BytesIO(archive), messages.append)
    text = f"The image base:latest already exists, renaming the old one with ID {other.id} to empty string\n"
    assert messages[-2]["stream"] == text
    assert images.resolve(other.id).repo_tags == ()


@pytest.mark.parametrize(
    "damage",
    [
        {"Config": "../../etc/passwd"},
        {"Config": "/etc/passwd"},
        {"Config": None},
        {"Config": 7},
        {"Layers": ["/etc/passwd"]},
        {"Layers": ["../x"]},
        {"Layers": []},
        {"Layers": "x"},
        {"Layers": [None]},
        {"RepoTags": ["Upper:case"]},
        {"RepoTags": 5},
        {"Config": "nowhere.json"},
        {"Layers": ["nowhere"]},
    ],
)
def test_hostile_manifests_are_refused(images, base, damage):
    saved = tarfile.open(fileobj=io.BytesIO(b"".join(images.save(["base"]))))
    files = {m.name: saved.extractfile(m).read() for m in saved if m.isfile()}
    images.remove("base")
    items = json.loads(files["manifest.json"])
    items[0].update(damage)
    files["manifest.json"] = json.dumps(items).encode()
    with pytest.raises(InvalidParameter):
        images.load(io.BytesIO(tar_of(files)), quiet)
    assert images.list() == []


def test_changed_blob_or_config_is_refused(images, base):
    saved = tarfile.open(fileobj=io.BytesIO(b"".join(images.save(["base"]))))
    files = {m.name: saved.extractfile(m).read() for m in saved if m.isfile()}
    images.remove("base")
    for name in (f"blobs/sha256/{base.id[7:]}", f"blobs/sha256/{base.diff_ids[0][7:]}"):
        changed = {**files, name: files[name].replace(b"1", b"2")}
        assert changed[name] != files[name]
        with pytest.raises(InvalidParameter, match=r"digest|diffID"):
            images.load(io.BytesIO(tar_of(changed)), quiet)
    assert images.list() == []


def test_old_archives_with_links_between_layers_load(images):
    inner = tar_of({"x": b"x"})
    digest = "sha256:" + hashlib.sha256(inner).hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest] * 2}}
    )
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in {
            "a/layer.tar": inner,
            "c.json": config.encode(),
            "manifest.json": json.dumps(manifest).encode(),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("b/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        archive.addfile(link)
    (image,) = images.load(io.BytesIO(buffer.getvalue()), quiet)
    assert len(image.chain_ids) == 2
    evil = tarfile.TarInfo("b/layer.tar")
    evil.type, evil.linkname = tarfile.SYMTYPE, "../../../../etc/passwd"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(evil)
    with pytest.raises(InvalidParameter, match="invalid link"):
        images.load(io.BytesIO(buffer.getvalue()), quiet)


@pytest.mark.parametrize("data", [b"", b"garbage" * 300, tar_of({"x": b"x"})])
def test_what_is_no_image_archive_is_refused(images, data):
    with pytest.raises(InvalidParameter):
        images.load(io.BytesIO(data), quiet)


# Names


def test_resolve_takes_ids_prefixes_and_names(images, base):
    for text in (
        base.id,
        base.id[7:],
        base.id[7:19],
        base.id[:15],
        "base",
        "base:latest",
        "docker.io/library/base",
    ):
        assert images.resolve(text).id == base.id
    for text in ("nope", "base:2", "0" * 64):
        with pytest.raises(NotFound):
            images.resolve(text)
    with pytest.raises(NotFound, match=r"^No such image: nope:latest$"):
        images.resolve("nope")
    with pytest.raises(NotFound, match="^No such image: sha256:" + "0" * 64 + "$"):
        images.resolve("0" * 64)
    with pytest.raises(InvalidParameter, match="invalid reference format"):
        images.resolve("a b")


def test_name_wins_over_prefix_of_an_id(images, base):
    other = images.import_tar(io.BytesIO(tar_of({"o": b"o"})), base.id[7:11])
    assert images.resolve(base.id[7:11]).id == other.id


def test_tag_moves_and_is_reported(images, base, events):
    other = images.import_tar(io.BytesIO(tar_of({"o": b"o"})), "other")
    images.tag("base", "other")
    assert events[-1] == ("tag", base.id, "other:latest")
    assert images.resolve("other").id == base.id
    assert images.resolve(other.id).repo_tags == ()
    with pytest.raises(InvalidParameter, match="invalid tag format"):
        images.tag("base", "x", "a b")
    with pytest.raises(NotFound):
        images.tag("nobody", "x")


def test_everything_survives_reopening(tmp_path, images, base):
    images.tag("base", "again", "1")
    images.store.close()
    store = Store.open(images.store.data_root, collect=False)
    again = ImageService(store)
    assert again.resolve("again:1") == again.resolve("base")
    assert again.resolve("base").chain_ids == base.chain_ids
    images.store.__dict__.update(store.__dict__)


# Removal


def test_removing_one_of_two_names_untags(images, base, events):
    images.tag("base", "b", "2")
    assert images.remove("b:2") == [{"Untagged": "b:2"}]
    assert events[-1] == ("untag", base.id, base.id)
    records = images.remove("base")
    assert records == [{"Untagged": "base:latest"}, {"Deleted": base.id}, {"Deleted": base.chain_ids[0]}]
    assert events[-1] == ("delete", base.id, base.id)


def test_removing_by_id_needs_force_with_two_repositories(images, base):
    images.tag("base", "b", "2")
    short = base.id[7:19]
    with pytest.raises(
        Conflict,
        match=rf"^conflict: unable to delete {short} \(must be forced\) - image is referenced in multiple repositories$",
    ):
        images.remove(short)
    assert images.remove(short, force=True)[:2] == [{"Untagged": "b:2"}, {"Untagged": "base:latest"}]


def test_containers_keep_images(images, base):
    box = "c" * 64
    short = base.id[7:19]

    def in_use(image_id):
        return [box] if image_id == base.id else []

    with pytest.raises(
        Conflict,
        match=r'^conflict: unable to remove repository reference "base" \(must force\) - container cccccccccccc '
        rf"is using its referenced image {short}$",
    ):
        images.remove("base", in_use=in_use)
    with pytest.raises(
        Conflict,
        match=rf"^conflict: unable to delete {short} \(must be forced\) - image is being used by stopped container c",
    ):
        images.remove(short, in_use=in_use)
    with pytest.raises(
        Conflict,
        match=rf"^conflict: unable to delete {short} \(cannot be forced\) - image is being used by running container c",
    ):
        images.remove(short, force=True, in_use=in_use, running=in_use)
    assert images.remove("base", force=True, in_use=in_use, running=in_use) == [{"Untagged": "base:latest"}]
    assert images.resolve(base.id).repo_tags == ()


def test_layers_of_a_container_outlive_their_image(images, base):
    with Box(images, base) as box:
        records = images.remove("base", force=True, in_use=lambda i: ["box"])
        assert records == [{"Untagged": "base:latest"}, {"Deleted": base.id}]
        assert box.root.read_file("data/a") == b"a"
        images.store.trash.empty()
    assert images.store.sweep(images.catalog.roots())


def test_children_keep_their_parent_and_go_with_it(images, base):
    with Box(images, base) as box:
        box.root.write_file("x", b"x")
        child = box.commit()
    images.tag(child.id, "child")
    short = base.id[7:19]
    with pytest.raises(
        Conflict,
        match=rf"^conflict: unable to delete {short} \(cannot be forced\) - image has dependent child images$",
    ):
        images.remove(short, force=True)
    # By name: the name goes, the image stays as the child's parent.
    assert images.remove("base") == [{"Untagged": "base:latest"}]
    records = images.remove("child")
    assert [next(iter(r)) for r in records] == ["Untagged", "Deleted", "Deleted", "Deleted", "Deleted"]
    assert records[3] == {"Deleted": base.id}
    assert images.list() == []


def test_noprune_keeps_the_parent(images, base):
    with Box(images, base) as box:
        box.root.write_file("x", b"x")
        child = box.commit()
    images.remove("base")
    images.remove(child.id, prune=False)
    assert [image.id for image in images.list()] == [base.id]


def test_prune_takes_dangling_images_or_all_unused(images, base):
    dangling = images.import_tar(io.BytesIO(tar_of({"o": b"12345"})), None)
    used = images.import_tar(io.BytesIO(tar_of({"u": b"u"})), None)

    def in_use(image_id):
        return ["box"] if image_id == used.id else []

    result = images.prune(in_use=in_use)
    assert result == {
        "ImagesDeleted": [{"Deleted": dangling.id}, {"Deleted": dangling.chain_ids[0]}],
        "SpaceReclaimed": 5,
    }
    assert images.prune(in_use=in_use) == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    assert images.prune(dangling_only=False, until_ns=1, in_use=in_use)["ImagesDeleted"] is None
    records = images.prune(dangling_only=False, in_use=in_use)["ImagesDeleted"]
    assert {"Untagged": "base:latest"} in records
    assert [image.id for image in images.list()] == [used.id]


def test_prune_by_label(images):
    images.import_tar(io.BytesIO(tar_of({"a": b"a"})), None, ["LABEL keep=yes"])
    images.import_tar(io.BytesIO(tar_of({"b": b"b"})), None)
    images.prune(filters={"label!": ["keep"]})
    assert [image.labels for image in images.list()] == [{"keep": "yes"}]
    images.prune(filters={"label": ["keep=yes"]})
    assert images.list() == []


# Showing


def test_history_and_inspect_have_dockers_shape(images, base):
    with Box(images, base) as box:
        box.root.write_file("x", b"123")
        child = box.commit()
    images.tag(child.id, "child")
    first, second = images.history("child")
    assert (first["Id"], first["CreatedBy"], first["Size"], first["Tags"]) == (
        child.id,
        "sh -c x",
        3,
        ["child:latest"],
    )
    assert (second["Id"], second["Comment"], second["Tags"]) == (base.id, "Imported from -", ["base:latest"])
    shown = images.inspect("child")
    assert shown["Parent"] == base.id
    assert shown["RootFS"]["Layers"] == list(child.diff_ids)
    assert shown["Config"]["Cmd"] == ["x"]
    assert shown["Size"] == 3 + 5
    assert list(images.inspect("base")["Config"]) == [
        "Cmd",
        "Entrypoint",
        "Env",
        "Labels",
        "OnBuild",
        "User",
        "Volumes",
        "WorkingDir",
    ]


def test_list_filters(images, base):
    other = images.import_tar(io.BytesIO(tar_of({"o": b"o"})), "me/other:2", ["LABEL a=b"])
    images.import_tar(io.BytesIO(tar_of({"d": b"d"})), None)

    def names(**options):
        return [s["RepoTags"] for s in images.summaries(**options)]

    assert len(names()) == 3
    assert names(filters={"dangling": ["true"]}) == [[]]
    assert names(filters={"dangling": ["false"]}) == [["me/other:2"], ["base:latest"]]
    assert names(filters={"reference": ["me/*"]}) == [["me/other:2"]]
    assert names(filters={"reference": ["*:latest"]}) == [["base:latest"]]
    assert names(filters={"label": ["a=b"]}) == [["me/other:2"]]
    assert names(filters={"before": ["me/other:2"]}) == [["base:latest"]]
    assert names(filters={"since": [other.id]}) == [[]]
    with pytest.raises(InvalidParameter, match="invalid filter 'bad'"):
        names(filters={"bad": ["x"]})
    with pytest.raises(NotFound):
        names(filters={"before": ["nope"]})


def test_sizes_count_shared_layers(images, base):
    with Box(images, base) as box:
        box.root.write_file("x", b"123")
        child = box.commit()
    sizes = {s["Id"]: (s["Size"], s["SharedSize"]) for s in images.summaries(all=True, shared_size=True)}
    assert sizes == {base.id: (5, 5), child.id: (8, 5)}
    assert images.layers_size() == 8


# Import, export, cp


def test_import_applies_changes_and_message(images):
    image = images.import_tar(
        io.BytesIO(gzip.compress(tar_of({"a": b"a"}))),
        "imported:1",
        [
            'ENTRYPOINT ["/a"]',
            "EXPOSE 80",
            "USER 1000",
            "WORKDIR /x",
            "VOLUME /v",
            "LABEL k=v",
            "STOPSIGNAL SIGINT",
        ],
        "hello",
    )
    config = image.config.config
    assert config["Entrypoint"] == ["/a"]
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert image.container_defaults().working_dir == "/x"
    assert images.inspect("imported:1")["Comment"] == "hello"
    with pytest.raises(InvalidParameter, match="is not a valid change command"):
        images.import_tar(io.BytesIO(tar_of({"a": b"a"})), None, ["RUN x"])
    with pytest.raises(InvalidParameter):
        images.import_tar(io.BytesIO(b"no tar at all" * 100), None)


def test_export_is_the_merged_tree(images, base, tmp_path):
    with Box(images, base) as box:
        scribble(box.root)
        before = tree(box.root)
        data = b"".join(images.export_root(box.root))
    (tmp_path / "out").mkdir()
    with Root.open_path(str(tmp_path / "out")) as out:
        untar(out, "/", io.BytesIO(data))
        assert tree(out) == before


def test_copy_out_and_in(images, base, tmp_path):
    with Box(images, base) as box:
        box.root.symlink("/data", "alias")
        data = b"".join(tar_path(box.root, "/data", "renamed"))
        assert tarfile.open(fileobj=io.BytesIO(data)).getnames() == ["renamed", "renamed/a", "renamed/b"]
        untar(box.root, "/etc", io.BytesIO(data), chown=(7, 8))
        assert box.root.read_file("etc/renamed/a") == b"a"
        assert box.root.stat("etc/renamed/a").st_uid == 7
        untar(box.root, "/", io.BytesIO(tar_of({"alias/c": b"c"})))
        assert box.root.read_file("data/c") == b"c"
        with pytest.raises(
            InvalidParameter, match='cannot overwrite directory "/data" with non-directory "/data"'
        ):
            untar(box.root, "/", io.BytesIO(tar_of({"data": b"file"})), no_overwrite_dir_non_dir=True)
        with pytest.raises(InvalidParameter, match='cannot overwrite non-directory "/data/a" with directory'):
            untar(box.root, "/data", io.BytesIO(tar_of({"a": None})), no_overwrite_dir_non_dir=True)
        single = b"".join(tar_path(box.root, "data/a", "x"))
        assert tarfile.open(fileobj=io.BytesIO(single)).getnames() == ["x"]
        with pytest.raises(NotADirectoryError):
            untar(box.root, "/data/a", io.BytesIO(data))


# Damage


def test_damaged_row_does_not_stop_the_engine_nor_cost_its_layers(tmp_path):
    path = str(tmp_path / "root")
    store = Store.open(path, collect=False)
    images = ImageService(store)
    bad = images.import_tar(io.BytesIO(tar_of(BASE)), "bad")
    images.import_tar(io.BytesIO(tar_of({"x": b"x"})), "good")
    store.db.collection("images").update(bad.id, b"garbage")
    store.close()
    store = Store.open(path, collect=False)
    images = ImageService(store)
    assert images.resolve("good")
    with pytest.raises(NotFound):
        images.resolve("bad")
    images.remove("good")
    assert store.layers.find(bad.chain_ids[0]) is not None
    assert [f.subject for f in images.check()] == [f"image {bad.id}"]
    store.close()


def test_full_disk_is_a_clean_error_and_rmi_still_works(tmp_path):
    fd = mount.create("tmpfs", [("size", "6m")])
    mount.move_mount_path(fd, str(tmp_path))
    os.close(fd)
    store = Store.open(str(tmp_path / "root"), collect=False)
    images = ImageService(store)
    try:
        images.import_tar(io.BytesIO(tar_of({"a": b"a" * 1_000_000})), "small")
        with pytest.raises(System, match=r"no space left"):
            images.import_tar(io.BytesIO(tar_of({"b": b"b" * 9_000_000})), "big")
        with pytest.raises(System, match=r"no space left"):
            images.import_tar(io.BytesIO(tar_of({"b": b"b" * 2_800_000})), "unpacked")
        store.trash.empty()
        assert check(store) == []
        assert [image.repo_tags for image in images.list()] == [("small:latest",)]
        images.remove("small")
        store.trash.empty()
        assert check(store) == []
        images.import_tar(io.BytesIO(tar_of({"a": b"a" * 1_000_000})), "again")
    finally:
        store.close()
        mount.umount(str(tmp_path))


def test_name_that_looks_like_an_id_is_the_name(images, base):
    images.tag("base", base.id[7:10])
    assert images.remove(base.id[7:10]) == [{"Untagged": f"{base.id[7:10]}:latest"}]


def test_layer_being_saved_is_kept(images, base):
    stream = images.save(["base"])
    next(stream)
    images.remove("base")
    images.store.trash.empty()
    assert b"".join(stream)
    images.store.sweep(images.catalog.roots())


def test_loading_saving_and_removing_at_once(images, base):
    with Box(images, base) as box:
        scribble(box.root)
        child = box.commit()
    images.tag(child.id, "child")
    archive = b"".join(images.save(["child", "base"]))
    images.remove("child")
    images.remove("base")
    surprises = []

    def work(number):
        for turn in range(6):
            try:
                images.load(io.BytesIO(archive), quiet)
                if (number + turn) % 2:
                    assert b"".join(images.save(["child", "base"])) == archive
                images.remove(["child", "base"][turn % 2], force=True)
                images.prune(dangling_only=bool(number % 2))
            except NotFound:
                continue
            except Exception as error:
                surprises.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert surprises == []
    images.load(io.BytesIO(archive), quiet)
    assert b"".join(images.save(["child", "base"])) == archive
    assert images.check(deep=True) == []
    images.prune(dangling_only=False)
    assert images.store.layers.all() == []


# Base images


def test_busybox(images):
    messages = []
    image = images.bootstrap("busybox", messages.append)
    assert image.repo_tags == ("busybox:latest",)
    assert image.config.config["Cmd"] == ["sh"]
    assert "Status: Built busybox:latest" in messages[-1]["status"]
    with images.store.snapshots.view(image.chain_ids) as root:
        assert root.stat("bin/sh").st_ino == root.stat("bin/busybox").st_ino
        assert root.stat("tmp").st_mode & 0o7777 == 0o1777
        assert root.read_file("etc/passwd").startswith(b"root:x:0:0:root:/root:/bin/sh\n")
        assert root.stat("usr/bin/env").st_ino == root.stat("bin/busybox").st_ino
    assert images.bootstrap("busybox:latest", quiet).id == image.id
    assert os.listdir(f"{images.store.data_root}/tmp") == []


def test_base_images_that_cannot_be_made(images, monkeypatch):
    for name in ("alpine", "debian:bookworm-20250101", f"busybox@sha256:{'a' * 64}"):
        with pytest.raises(InvalidParameter, match="cannot bootstrap"):
            images.bootstrap(name, quiet)
    monkeypatch.setattr("satsuma.image.bootstrap.run._PATH", "/nonexistent")
    with pytest.raises(Unavailable, match="debootstrap is not installed on this host"):
        images.bootstrap("debian:bookworm-slim", quiet)
    assert os.listdir(f"{images.store.data_root}/tmp") == []


def test_failing_debootstrap_leaves_nothing(images, tmp_path, monkeypatch):
    fake = tmp_path / "bin"
    fake.mkdir()
    script = fake / "debootstrap"
    script.write_text(
        "#!/bin/sh\nmkdir -p $4/deep; mount -t tmpfs none $4/deep; echo 'E: it broke'; exit 3\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr("satsuma.image.bootstrap.run._PATH", f"{fake}:/usr/sbin:/usr/bin:/sbin:/bin")
    with pytest.raises(System, match="debootstrap failed with status 3: E: it broke"):
        images.bootstrap("debian:bookworm", quiet)
    assert os.listdir(f"{images.store.data_root}/tmp") == []
    with open("/proc/self/mountinfo") as mounts:
        assert images.store.data_root not in mounts.read()


def test_image_of_the_last_moment_is_lost_cleanly_and_a_named_one_stays(tmp_path):
    path = str(tmp_path / "root")
    store = Store.open(path, collect=False)
    images = ImageService(store)
    store.layers._boot = "the boot that ended by a power failure"
    images.import_tar(io.BytesIO(tar_of(BASE)), "named")
    lost = images.import_tar(io.BytesIO(tar_of({"x": b"x"})), None)
    store.close()
    store = Store.open(path, collect=False)
    images = ImageService(store)
    assert images.resolve("named")
    with pytest.raises(NotFound):
        images.resolve(lost.id)
    store.trash.empty()
    assert check(store) == []
    assert images.check() == []
    store.close()


def test_changed_layer_is_data_loss_on_save(images, base):
    with Box(images, base) as box:
        box.root.write_file("x", b"x")
        child = box.commit()
    directory = images.store.snapshots.layer_dir(child.chain_ids[-1])
    with open(f"{directory}/x", "w") as file:
        file.write("y")
    with pytest.raises(DataLoss, match="has changed on disk"):
        b"".join(images.save([child.id]))
    assert [f.subject for f in images.check(deep=True)] == [f"layer {child.chain_ids[-1]}"]


@pytest.mark.parametrize("field", ["architecture", "config", "rootfs", "history", "created", "os"])
@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [None], {"a": 1}])
def test_mutated_configs_are_accepted_or_refused_but_never_crash(images, base, field, value):
    config = json.loads(base.config_raw)
    config[field] = value
    try:
        image = images.create(json.dumps(config).encode())
    except InvalidParameter:
        return
    images.inspect(image.id)
    images.history(image.id)
    images.summaries(all=True)
    b"".join(images.save([image.id]))
