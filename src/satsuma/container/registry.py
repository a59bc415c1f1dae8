"""All containers of one engine: rows in the database, and an index in memory for look-ups.

The database row is the truth; the index is rebuilt from it.  Reading never touches the database, so listing a
thousand containers costs no query.  Not thread-safe: used from the event loop only.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from satsuma.base.errors import Conflict, InvalidParameter, NotFound, System
from satsuma.base.ids import is_hex_id
from satsuma.base.names import random_name
from satsuma.container.record import Record, decode, encode

_log = logging.getLogger(__name__)


class Row(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def doc(self) -> bytes: ...


class Rows(Protocol):
    """The collection "containers" of the store; calls are short commits without fsync."""

    def insert(
        self, id: str, doc: bytes, *, name: str | None = None, created_ns: int = 0, durable: bool = True
    ) -> None: ...
    def update(self, id: str, doc: bytes, *, name: str | bool | None = False) -> None: ...
    def delete(self, id: str) -> bool: ...


class Registry:
    """Find, list and save containers."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._by_id: dict[str, Record] = {}
        self._names: dict[str, str] = {}
        self._ids: list[str] = []
        self._stored: set[str] = set()
        self._overdue: set[str] = set()

    def load(self, rows: Sequence[Row], on_error: Callable[[str, Exception], None]) -> None:
        """Fill the index from the database; a row that does not decode is reported and left alone."""
        for row in rows:
            try:
                record = decode(row.doc)
            except Exception as error:
                on_error(row.id, error)
                continue
            self._index(record)
            self._stored.add(record.id)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._by_id.values())

    def get(self, container_id: str) -> Record | None:
        """Return the container of this full id."""
        return self._by_id.get(container_id)

    def find(self, reference: str) -> Record:
        """Return the container that a client named: full id, then name, then unique id prefix.

        Raises:
            NotFound: `No such container: x`.
            InvalidParameter: the prefix is ambiguous.
        """
        if not reference:
            raise InvalidParameter('invalid name or ID supplied: ""')
        if reference in self._by_id:
            return self._by_id[reference]
        holder = self._names.get(reference.removeprefix("/"))
        if holder in self._by_id:
            return self._by_id[holder]
        return self._by_id[self._by_prefix(reference)]

    def _by_prefix(self, prefix: str) -> str:
        start = bisect.bisect_left(self._ids, prefix)
        matches = [found for found in self._ids[start : start + 2] if found.startswith(prefix)]
        if len(matches) == 2:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {prefix}")
        if not matches:
            raise NotFound(f"No such container: {prefix}")
        return matches[0]

    def matches(self, prefix: str) -> list[str]:
        """Return the ids that begin with *prefix*."""
        start = bisect.bisect_left(self._ids, prefix)
        answer = []
        while start < len(self._ids) and self._ids[start].startswith(prefix):
            answer.append(self._ids[start])
            start += 1
        return answer

    def reserve(self, name: str, container_id: str) -> str:
        """Take *name* for a container that is being made; without one, a random name.

        Raises:
            Conflict: the name is in use; Docker's text.
        """
        if name:
            holder = self._names.setdefault(name, container_id)
            if holder != container_id:
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                    "You have to remove (or rename) that container to be able to reuse that name."
                )
            return name
        for retry in range(6):
            name = random_name(retry=retry)
            if self._names.setdefault(name, container_id) == container_id:
                return name
        return self.reserve(container_id[:12], container_id)

    def release(self, name: str, container_id: str) -> None:
        """Give a reserved name back, unless somebody else has it by now."""
        if self._names.get(name) == container_id:
            del self._names[name]

    def save(self, record: Record) -> None:
        """Replace the record of a container, in the database and in memory; a new name must be reserved.

        Raises:
            System: the disk is full or broken; nothing has changed.
        """
        self._write(record)
        self._index(record)
        self._overdue.discard(record.id)
        if self._overdue:
            self.flush()

    def state_fact(self, record: Record) -> None:
        """Replace the record because something has happened, whether or not the disk takes it now.

        What it does not take is written with the next record that it takes.
        """
        self._index(record)
        self._overdue.add(record.id)
        self.flush()

    def flush(self) -> None:
        """Write the records that are newer in memory than in the database, as far as the disk takes them."""
        for container_id in list(self._overdue):
            record = self._by_id.get(container_id)
            try:
                if record is not None:
                    self._write(record)
            except System as error:
                _log.error("container %s: state not stored yet: %s", container_id[:12], error)
                return
            self._overdue.discard(container_id)

    def _write(self, record: Record) -> None:
        row = encode(record)
        if record.id in self._stored:
            self._rows.update(record.id, row, name=record.name)
        else:
            self._rows.insert(record.id, row, name=record.name, created_ns=record.created_ns, durable=False)
            self._stored.add(record.id)

    def note(self, record: Record) -> None:
        """Replace the record in memory only: for what need not survive, such as health."""
        self._index(record)

    def remove(self, container_id: str) -> None:
        """Forget a container: its row, its name, its id.

        Raises:
            System: the disk is full or broken; nothing has changed.
        """
        if container_id in self._stored:
            self._rows.delete(container_id)
            self._stored.discard(container_id)
        self._overdue.discard(container_id)
        record = self._by_id.pop(container_id, None)
        if record is None:
            return
        position = bisect.bisect_left(self._ids, container_id)
        if position < len(self._ids) and self._ids[position] == container_id:
            del self._ids[position]
        self.release(record.name, container_id)

    def _index(self, record: Record) -> None:
        known = self._by_id.get(record.id)
        if known is None:
            if not is_hex_id(record.id):
                raise ValueError(f"container id {record.id!r}")
            bisect.insort(self._ids, record.id)
        elif known.name != record.name:
            self.release(known.name, record.id)
        self._by_id[record.id] = record
        self._names[record.name] = record.id
