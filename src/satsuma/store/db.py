"""The database: one SQLite file that is the truth about every object of the engine.

Owns the file, its schema and the discipline of writing it.  Must not know what a document means: rooms store
opaque bytes beside the few columns that lists and look-ups need.

    collection  one table each: containers, networks, volumes, images, tags, layers, build_cache, leases, settings
    id          primary key, exact text
    name        unique where it is not NULL
    created_ns  order of `all()`
    doc         the room's own encoding

One connection writes, under a lock; every thread reads through a connection of its own, which WAL lets run
beside the writer.  Commits are `synchronous=FULL` where a client was told "done" and a power failure must not
undo it, NORMAL where the next start finds out by itself (0.22 ms against 0.02 ms per commit).

Source: sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from typing import NamedTuple

from satsuma.base.errors import Conflict, DataLoss, NotFound, System
from satsuma.base.failpoints import failpoint

COLLECTIONS = (
    "containers",
    "networks",
    "volumes",
    "images",
    "tags",
    "layers",
    "build_cache",
    "leases",
    "settings",
)

_TABLE = """CREATE TABLE {name} (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT UNIQUE,
    created_ns INTEGER NOT NULL,
    doc BLOB NOT NULL
)"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    # 1: the first schema.
    tuple(_TABLE.format(name=name) for name in COLLECTIONS),
)
"""Append only: entry n brings a database of version n to version n + 1 (`PRAGMA user_version`)."""


class Row(NamedTuple):
    """One object; *doc* is the owner's encoding."""

    id: str
    name: str | None
    created_ns: int
    doc: bytes


class Database:
    """The SQLite file; safe to use from any thread.

    `close` must be called when no other thread uses it any more.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._depth = 0
        self._durable = False
        self._writer = self._connect()
        self._collections = {name: Collection(self, name) for name in COLLECTIONS}

    @classmethod
    def open(cls, path: str) -> Database:
        """Open or create the database and bring its schema up to date.

        Raises:
            DataLoss: the file is no database, or damaged.
            System: it was written by a newer version.
        """
        database = cls(path)
        try:
            database._prepare()
        except sqlite3.DatabaseError as error:
            database.close()
            raise DataLoss(f"database {path} is damaged: {error}") from error
        except BaseException:
            database.close()
            raise
        return database

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        self._connections.append(connection)
        return connection

    def _prepare(self) -> None:
        os.chmod(self._path, 0o600)
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._writer.execute("PRAGMA synchronous=NORMAL")
        # The WAL is copied back in the writer's own commit; larger steps mean fewer of these pauses.
        self._writer.execute("PRAGMA wal_autocheckpoint=4000")
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise System(f"database {self._path} has version {version}, this program knows {len(MIGRATIONS)}")
        for number in range(version, len(MIGRATIONS)):
            with self.transaction(durable=True):
                for statement in MIGRATIONS[number]:
                    self._writer.execute(statement)
                self._writer.execute(f"PRAGMA user_version={number + 1}")

    def close(self) -> None:
        """Close every connection; the WAL is folded back into the file."""
        with self._lock:
            connections, self._connections = self._connections[::-1], []
            for connection in connections:
                connection.close()

    def collection(self, name: str) -> Collection:
        """Return the collection *name*, one of `COLLECTIONS`."""
        return self._collections[name]

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Make all writes inside happen together or not at all; may be nested, the outermost one commits.

        Args:
            durable: the commit survives a power failure.  True anywhere inside counts for the whole.
        """
        with self._lock:
            self._durable = self._durable or durable
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            # IMMEDIATE: taking the write lock at once cannot fail half way with SQLITE_BUSY.
            self._writer.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
            except BaseException:
                self._rollback()
                raise
            self._commit()

    def _rollback(self) -> None:
        self._depth, self._durable = 0, False
        self._writer.execute("ROLLBACK")

    def _commit(self) -> None:
        durable, self._durable = self._durable, False
        self._depth = 0
        try:
            failpoint("store.db.commit")
            # The level counts at COMMIT, but SQLite refuses to change it inside a transaction: the writer
            # stays at NORMAL, and a durable commit is followed by a sync of the WAL.
            self._writer.execute("COMMIT")
        except BaseException as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise System(f"database: {error}") from error
            raise
        if durable:
            self.sync()

    def sync(self) -> None:
        """Make every commit so far survive a power failure."""
        # What synchronous=FULL does after each commit: fsync of the WAL.  A checkpoint in between has synced
        # both files by itself.
        try:
            fd = os.open(self._path + "-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def read(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[str, str | None, int, bytes]]:
        """Run one SELECT; inside a transaction of this thread it sees the transaction's writes."""
        if self._depth and self._owns_lock():
            return self._writer.execute(sql, parameters).fetchall()
        connection = getattr(self._local, "connection", None)
        if connection is None:
            # No lock: a reader never waits for a writer, and list.append is atomic.
            connection = self._local.connection = self._connect()
        rows: list[tuple[str, str | None, int, bytes]] = connection.execute(sql, parameters).fetchall()
        return rows

    def _owns_lock(self) -> bool:
        owned: bool = self._lock._is_owned()  # type: ignore[attr-defined]
        return owned

    def write(self, sql: str, parameters: tuple[object, ...], *, durable: bool) -> int:
        """Run one changing statement, in a transaction; return the number of rows it touched.

        Raises:
            sqlite3.IntegrityError: a key or a name exists already.
            System: the disk is full or broken.
        """
        with self.transaction(durable=durable):
            try:
                return self._writer.execute(sql, parameters).rowcount
            except sqlite3.OperationalError as error:
                raise System(f"database: {error}") from error

    def check(self) -> list[str]:
        """Return SQLite's own complaints about the file; empty when it is sound."""
        with self._lock:
            rows = self._writer.execute("PRAGMA integrity_check").fetchall()
        return [str(row[0]) for row in rows if row[0] != "ok"]


class Collection:
    """One table of objects; all methods may be called from any thread."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self.name = name
        self._insert = f"INSERT INTO {name} (id, name, created_ns, doc) VALUES (?, ?, ?, ?)"
        self._select = f"SELECT id, name, created_ns, doc FROM {name}"
        self._delete = f"DELETE FROM {name} WHERE id = ?"
        self._update = f"UPDATE {name} SET doc = ? WHERE id = ?"
        self._rename = f"UPDATE {name} SET doc = ?, name = ? WHERE id = ?"

    def insert(
        self, id: str, doc: bytes, *, name: str | None = None, created_ns: int = 0, durable: bool = True
    ) -> None:
        """Add an object.

        Raises:
            Conflict: the id or the name exists.
        """
        try:
            self._database.write(self._insert, (id, name, created_ns, doc), durable=durable)
        except sqlite3.IntegrityError as error:
            what = f"name {name!r}" if self.get(id) is None else f"id {id}"
            raise Conflict(f"{self.name}: {what} exists already") from error

    def update(self, id: str, doc: bytes, *, name: str | bool | None = False, durable: bool = False) -> None:
        """Replace the document, and the name if one is given (None takes it away).

        Raises:
            NotFound: no such id.
            Conflict: the name belongs to another object.
        """
        try:
            if isinstance(name, bool):
                count = self._database.write(self._update, (doc, id), durable=durable)
            else:
                count = self._database.write(self._rename, (doc, name, id), durable=durable)
        except sqlite3.IntegrityError as error:
            raise Conflict(f"{self.name}: name {name!r} exists already") from error
        if not count:
            raise NotFound(f"{self.name}: no such id: {id}")

    def put(self, id: str, doc: bytes, *, created_ns: int = 0, durable: bool = True) -> None:
        """Add an object without a name, or replace its document."""
        sql = f"{self._insert} ON CONFLICT (id) DO UPDATE SET doc = excluded.doc"
        self._database.write(sql, (id, None, created_ns, doc), durable=durable)

    def get(self, id: str) -> Row | None:
        """Return the object with exactly this id."""
        return self._one(" WHERE id = ?", id)

    def by_name(self, name: str) -> Row | None:
        """Return the object with exactly this name."""
        return self._one(" WHERE name = ?", name)

    def _one(self, where: str, value: str) -> Row | None:
        rows = self._database.read(self._select + where, (value,))
        return Row(*rows[0]) if rows else None

    def by_prefix(self, prefix: str) -> list[Row]:
        """Return the objects whose id starts with *prefix*, by id."""
        # The successor of the prefix bounds the range, so that the index is used; LIKE would ignore case.
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"
        sql = f"{self._select} WHERE id >= ? AND id < ? ORDER BY id"
        return [Row(*row) for row in self._database.read(sql, (prefix, end))]

    def all(self) -> list[Row]:
        """Return every object, oldest first."""
        return [Row(*row) for row in self._database.read(f"{self._select} ORDER BY created_ns, id")]

    def ids(self) -> set[str]:
        """Return the ids of all objects, without reading the documents."""
        sql = f"SELECT id, NULL, 0, x'' FROM {self.name}"
        return {row[0] for row in self._database.read(sql)}

    def delete(self, id: str, *, durable: bool = False) -> bool:
        """Remove an object; False when there was none.

        A commit that is not durable may be undone by a power failure; the collector syncs the database before
        it deletes what belonged to the row, so that the row then comes back with its directory.
        """
        return self._database.write(self._delete, (id,), durable=durable) > 0
