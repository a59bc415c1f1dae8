"""One operation on a store, to be killed at a failpoint: `store_crash_child.py DATA_ROOT OPERATION ARCHIVE`."""

import io
import sys

from satsuma.image import ImageService
from satsuma.spec.image import History
from satsuma.store import Store


def run(data_root, operation, archive):
    store = Store.open(data_root, collect=False)
    images = ImageService(store)
    with open(archive, "rb") as file:
        data = file.read()
    if operation == "load":
        images.load(io.BytesIO(data), lambda message: None)
    elif operation in ("commit", "move"):
        base = images.resolve("base")
        active = store.snapshots.prepare("box", base.chain_ids)
        with store.snapshots.mounted("box") as root:
            root.write_file("new", b"new")
        layer = images.commit_layer(active.upperdir, base.chain_ids, move=operation == "move")
        image = images.create_from(base, [layer], {"Cmd": ["x"]}, [History(created_by="x")])
        images.tag_image(image.id, images.tag(image.id, "committed"))
    elif operation == "tag":
        images.tag("base", "tagged")
    elif operation == "remove":
        images.remove("base")
        store.trash.empty()
    elif operation == "container":
        base = images.resolve("base")
        store.snapshots.prepare("box", base.chain_ids)
        store.db.collection("containers").insert("box", b"")
        store.db.collection("containers").delete("box")
        store.snapshots.remove("box")
        store.trash.empty()
    store.close()


if __name__ == "__main__":
    run(*sys.argv[1:])
