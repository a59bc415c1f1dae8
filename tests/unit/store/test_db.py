"""The database: uniqueness, transactions, durability and threads."""

import sqlite3
import threading

import pytest

from satsuma.base.errors import Conflict, DataLoss, NotFound, System
from satsuma.store.db import MIGRATIONS, Database, Row


@pytest.fixture
def database(tmp_path):
    database = Database.open(str(tmp_path / "state.db"))
    yield database
    database.close()


def test_rows_come_back_as_they_were_stored(database):
    things = database.collection("networks")
    things.insert("b" * 64, b"\x00doc", name="web", created_ns=2)
    things.insert("a" * 64, b"", created_ns=1)
    assert things.get("b" * 64) == Row("b" * 64, "web", 2, b"\x00doc")
    assert things.by_name("web").id == "b" * 64
    assert [row.created_ns for row in things.all()] == [1, 2]
    assert [row.id for row in things.by_prefix("bb")] == ["b" * 64]
    assert things.by_prefix("c") == []
    assert things.get("zz") is None


def test_duplicate_id_and_name_conflict(database):
    things = database.collection("containers")
    things.insert("1", b"", name="web")
    with pytest.raises(Conflict, match="name 'web'"):
        things.insert("2", b"", name="web")
    with pytest.raises(Conflict, match="id 1"):
        things.insert("1", b"", name="other")
    things.insert("3", b"", name="db")
    with pytest.raises(Conflict):
        things.update("3", b"", name="web")


def test_update_keeps_or_changes_the_name(database):
    things = database.collection("containers")
    things.insert("1", b"a", name="web")
    things.update("1", b"b")
    assert things.get("1") == Row("1", "web", 0, b"b")
    things.update("1", b"c", name="www")
    assert things.by_name("www").doc == b"c"
    things.update("1", b"d", name=None)
    assert things.get("1").name is None
    with pytest.raises(NotFound):
        things.update("9", b"")


def test_names_of_dead_rows_are_free_again(database):
    things = database.collection("volumes")
    things.insert("1", b"", name="data")
    assert things.delete("1")
    assert not things.delete("1")
    things.insert("2", b"", name="data")


def test_transaction_is_all_or_nothing(database):
    images, tags = database.collection("images"), database.collection("tags")
    with pytest.raises(Conflict), database.transaction(durable=True):
        images.insert("i", b"")
        assert images.get("i") is not None
        tags.insert("t", b"")
        tags.insert("t", b"")
    assert images.get("i") is None
    assert tags.all() == []
    with database.transaction():
        images.insert("i", b"")
    assert images.get("i") is not None


def test_other_threads_see_only_what_was_committed(database):
    images = database.collection("images")
    seen = []
    with database.transaction():
        images.insert("i", b"")
        thread = threading.Thread(target=lambda: seen.append(images.get("i")))
        thread.start()
        thread.join()
    assert seen == [None]


def test_many_threads_write_and_read(database):
    rows = database.collection("containers")
    errors = []

    def work(number):
        try:
            for i in range(30):
                rows.insert(f"{number}-{i}", b"x", durable=False)
                assert rows.get(f"{number}-{i}") is not None
                if i % 3 == 0:
                    rows.delete(f"{number}-{i}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(rows.all()) == 6 * 20


def test_reopening_keeps_rows_and_version(tmp_path):
    path = str(tmp_path / "state.db")
    database = Database.open(path)
    database.collection("settings").put("a", b"1")
    database.collection("settings").put("a", b"2")
    database.close()
    database = Database.open(path)
    assert database.collection("settings").get("a").doc == b"2"
    assert database.check() == []
    database.close()


def test_newer_schema_is_refused(tmp_path):
    path = str(tmp_path / "state.db")
    Database.open(path).close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    raw.close()
    with pytest.raises(System, match="version"):
        Database.open(path)


def test_garbage_file_is_data_loss(tmp_path):
    path = tmp_path / "state.db"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(DataLoss):
        Database.open(str(path))
