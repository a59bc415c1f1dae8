"""Snapshots on the real kernel: prepare, view, changes, removal, recovery."""

import os
import stat
import time

import pytest

from satsuma.base.errors import Conflict, DataLoss, InvalidParameter, NotFound, Unavailable
from satsuma.linux import mount
from satsuma.linux.root import Root
from satsuma.store import Layer, Store, check, repair

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path):
    store = Store.open(str(tmp_path / "root"))
    yield store
    store.close()


def add_layer(store, number, parent, files):
    chain_id = f"sha256:{number:064x}"
    directory = store.snapshots.new_dir()
    for name, content in files.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if content is None:
            os.mknod(path, stat.S_IFCHR, 0)
        else:
            with open(path, "w") as file:
                file.write(content)
    store.snapshots.commit_dir(directory, chain_id)
    store.layers.add(Layer(chain_id=chain_id, diff_id=chain_id, parent=parent, size=1, tar_size=1))
    return chain_id


@pytest.fixture
def chain(store):
    one = add_layer(
        store, 1, None, {"etc/passwd": "root", "keep/a": "a", "keep/b": "b", "etc/hosts": "image"}
    )
    two = add_layer(store, 2, one, {"keep/a": None, "keep/c": "c"})
    return [one, two]


def write(root, path, data):
    root.write_file(path, data.encode())


def test_container_sees_layers_and_init_layer(store, chain):
    active = store.snapshots.prepare("box", chain)
    assert active.lowerdirs[1:] == [store.snapshots.layer_dir(c) for c in reversed(chain)]
    with store.snapshots.mounted("box") as root:
        assert root.listdir("keep") == [b"b", b"c"]
        assert root.read_file("etc/hosts") == b""
        assert root.readlink("etc/mtab") == b"/proc/mounts"
        assert root.read_file("etc/passwd") == b"root"
        assert {b"dev", b"proc", b"sys", b".dockerenv"} <= set(root.listdir())
        assert root.listdir("dev") == [b"console", b"pts", b"shm"]
    assert store.snapshots.changes("box") == []
    assert store.snapshots.chain("box") == chain


def test_changes_are_those_docker_shows(store, chain):
    store.snapshots.prepare("box", chain)
    with store.snapshots.mounted("box") as root:
        write(root, "keep/new", "12345")
        root.unlink("keep/b")
        root.mkdir("fresh")
        write(root, "fresh/x", "1")
        root.chmod("etc/passwd", 0o600)
        # Opened for writing and left as it was: copied up, but no change.
        status = root.stat("keep/c")
        os.close(root.open("keep/c", os.O_RDWR))
        root.utimens("keep/c", status.st_atime_ns, status.st_mtime_ns)
    assert store.snapshots.changes("box") == [
        (0, b"/etc"),
        (0, b"/etc/passwd"),
        (1, b"/fresh"),
        (1, b"/fresh/x"),
        (0, b"/keep"),
        (2, b"/keep/b"),
        (1, b"/keep/new"),
    ]
    assert store.snapshots.usage("box") == 5 + 1 + 1 + 4


def test_replaced_directory_shows_what_it_hides(store, chain):
    store.snapshots.prepare("box", chain)
    with store.snapshots.mounted("box") as root:
        root.rmtree("keep")
        root.mkdir("keep", 0o755)
        write(root, "keep/c", "other")
        root.rmtree("etc")
        root.symlink("/keep", "etc")
    changes = store.snapshots.changes("box")
    assert changes == [(0, b"/etc"), (0, b"/keep"), (2, b"/keep/b"), (0, b"/keep/c")]


def test_nothing_appears_in_the_mount_table(store, chain):
    store.snapshots.prepare("box", chain)
    with open("/proc/self/mountinfo") as before:
        count = before.read().count("overlay")
    with store.snapshots.view(chain) as view, store.snapshots.mounted("box"):
        assert view.listdir("keep") == [b"b", b"c"]
        with open("/proc/self/mountinfo") as now:
            assert now.read().count("overlay") == count


def test_view_of_one_layer_hides_whiteouts_and_is_read_only(store):
    only = add_layer(store, 7, None, {"gone": None, "here": "x"})
    with store.snapshots.view([only]) as view:
        assert view.listdir() == [b"here"]
        with pytest.raises(OSError, match="Read-only"):
            view.unlink("here")
    with store.snapshots.view([]) as view:
        assert view.listdir() == []


def test_a_volatile_mount_can_be_followed_by_another(store, chain):
    store.snapshots.prepare("box", chain)
    with Root(mount.overlay(*store.snapshots.mountable("box"), volatile=True)) as root:
        write(root, "new", "kept")
    with pytest.raises(OSError, match="Invalid argument"):
        mount.overlay(*store.snapshots.active("box"))
    for _ in range(2):
        with Root(mount.overlay(*store.snapshots.mountable("box"), volatile=True)) as root:
            assert root.read_file("new") == b"kept"
    with store.snapshots.mounted("box") as root:
        assert root.read_file("new") == b"kept"


def test_very_many_layers(store):
    chain = []
    for number in range(150):
        parent = chain[-1] if chain else None
        chain.append(add_layer(store, 1000 + number, parent, {f"f{number}": str(number)}))
    store.snapshots.prepare("deep", chain)
    with store.snapshots.mounted("deep") as root:
        assert root.read_file("f0") == b"0"
        assert root.read_file("f149") == b"149"
        write(root, "f7", "changed")
    assert store.snapshots.changes("deep") == [(0, b"/f7")]


def test_prepare_refuses_double_unknown_and_odd_keys(store, chain):
    store.snapshots.prepare("box", chain)
    with pytest.raises(Conflict):
        store.snapshots.prepare("box", chain)
    with pytest.raises(DataLoss):
        store.snapshots.prepare("other", [f"sha256:{99:064x}"])
    for key in ("", "..", ".x", "a/b", "x" * 256):
        with pytest.raises(InvalidParameter):
            store.snapshots.prepare(key, chain)
    with pytest.raises(NotFound):
        store.snapshots.active("nobody")


def test_prepare_is_fast(store, chain):
    store.snapshots.prepare("warm", chain)
    times = []
    for number in range(50):
        start = time.perf_counter()
        store.snapshots.prepare(f"k{number}", chain)
        times.append(time.perf_counter() - start)
    assert sorted(times)[25] < 0.001


def test_removed_container_is_gone_at_once_and_collected(store, chain):
    store.snapshots.prepare("box", chain)
    assert store.snapshots.remove("box")
    assert not store.snapshots.remove("box")
    store.snapshots.prepare("box", chain)
    store.trash.empty()
    assert store.trash.entries() == []


def test_collector_does_not_cross_mounts(store, chain, tmp_path):
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "gold").write_text("gold")
    active = store.snapshots.prepare("box", chain)
    target = os.path.join(active.upperdir, "mnt")
    os.mkdir(target)
    store.trash.stop()
    tree = mount.open_tree_clone(str(treasure))
    mount.move_mount_path(tree, target)
    os.close(tree)
    try:
        store.snapshots.remove("box")
        assert store.trash.empty() == 1
        assert (treasure / "gold").read_text() == "gold"
    finally:
        mount.umount(f"{store.trash.directory}/{store.trash.entries()[0][0]}/upper/mnt")
    assert store.trash.empty() == 0


def test_sweep_keeps_what_containers_leases_and_pins_need(store, chain):
    three = add_layer(store, 3, chain[1], {"x": "x"})
    other = add_layer(store, 4, None, {"y": "y"})
    store.layers.unpin([*chain, three, other])
    store.snapshots.prepare("box", chain)
    store.layers.lease("cache", [other])
    assert [layer.chain_id for layer in store.sweep(set())] == [three]
    store.layers.release("cache")
    assert [layer.chain_id for layer in store.sweep(set())] == [other]
    store.snapshots.remove("box")
    assert [layer.chain_id for layer in store.sweep({chain[0]})] == [chain[1]]
    assert [layer.chain_id for layer in store.sweep(set())] == [chain[0]]
    assert not os.path.exists(store.snapshots.layer_dir(chain[0]))


def test_two_engines_cannot_share_a_data_root(store):
    with pytest.raises(Unavailable):
        Store.open(store.data_root)


def test_reopening_clears_garbage_and_keeps_the_rest(tmp_path):
    path = str(tmp_path / "root")
    store = Store.open(path, collect=False)
    one = add_layer(store, 1, None, {"a": "a"})
    store.snapshots.prepare("kept", [one])
    store.db.collection("containers").insert("kept", b"")
    store.snapshots.prepare("orphan", [one])
    os.mkdir(f"{path}/layers/{5:064x}")
    store.snapshots.new_dir()
    store.content.ingest().write(b"half")
    assert {f.severity for f in check(store)} == {"garbage"}
    store.close()
    store = Store.open(path, collect=False)
    store.trash.empty()
    assert check(store) == []
    assert store.snapshots.keys() == ["kept"]
    assert store.layers.find(one) is not None
    store.close()


def test_deleted_directory_comes_back_with_its_row(tmp_path):
    # What a power failure can do: the row's deletion was lost, the rename into the trash was not.
    path = str(tmp_path / "root")
    store = Store.open(path, collect=False)
    one = add_layer(store, 1, None, {"a": "a"})
    store.snapshots.prepare("box", [one])
    store.db.collection("containers").insert("box", b"")
    store.snapshots.remove("box")
    store.close()
    store = Store.open(path, collect=False)
    with store.snapshots.mounted("box") as root:
        assert root.read_file("a") == b"a"
    assert check(store) == []
    store.close()


def test_unsettled_layers_of_another_boot_are_dropped(tmp_path):
    path = str(tmp_path / "root")
    store = Store.open(path, collect=False)
    one = add_layer(store, 1, None, {"a": "a"})
    store.layers.settle([one])
    two = add_layer(store, 2, one, {"b": "b"})
    three = add_layer(store, 3, two, {"c": "c"})
    store.layers._boot = "another boot"
    four = add_layer(store, 4, two, {"d": "d"})
    store.close()
    store = Store.open(path, collect=False)
    assert store.layers.find(one) and store.layers.find(two) and store.layers.find(three)
    assert store.layers.find(four) is None
    assert not os.path.exists(os.path.dirname(store.snapshots.layer_dir(four)))
    store.close()


def test_check_reports_loss_and_repair_removes_garbage_only(store, chain):
    os.rename(store.snapshots.layer_dir(chain[1]), store.data_root + "/elsewhere")
    store.db.collection("containers").insert("ghost", b"")
    blob = store.content.add(b"nobody needs me")
    findings = check(store)
    assert {f.subject for f in findings if f.severity == "loss"} == {f"layer {chain[1]}", "container ghost"}
    left = repair(store, findings)
    assert all(f.severity == "loss" for f in left)
    assert not store.content.has(blob)
    assert {f.severity for f in check(store)} == {"loss"}


def test_root_of_a_layer_is_a_root(store, chain):
    with Root.open_path(store.snapshots.layer_dir(chain[0])) as root:
        assert root.read_file("keep/a") == b"a"
