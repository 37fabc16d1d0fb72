"""The store: objects as rows of a table, large ones in files beside it."""

from __future__ import annotations

import itertools
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import copy
from functools import partial
from io import BytesIO
from typing import Any, BinaryIO, Final, Literal, cast

from persidict.exceptions import BackendError, ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagValue
from persidict.stores.object_store import (
    ANY_VERSION,
    NOT_MODIFIED,
    AnyVersion,
    Buffer,
    CommonPrefix,
    NotModified,
    ObjectInfo,
    ObjectStore,
    check_version,
)
from persidict.stores.optional import read_whole
from persidict.stores.site import Site, identity_of, real_path
from persidict.stores.sqlite import schema
from persidict.stores.sqlite.block import Block
from persidict.stores.sqlite.connection import Connection, Effort
from persidict.stores.sqlite.database import database_at
from persidict.stores.sqlite.listing import INFO, LAST, grouped, pages
from persidict.traits import Traits

DEFAULT_LARGE_VALUE_SIZE: Final = 384 * 1024
"""From about here on, a file of its own is faster than a row."""

_WHOLE: Final = "name, data, etag, size, modified, file"
_BATCH_ITEMS: Final = 1024
_BATCH_BYTES: Final = 4 << 20
_FIRST_READ: Final = 8
_MOST_READ: Final = 256
_DELETE_BATCH: Final = 500
_CLEAR_BATCH: Final = 2000
_MAX_RACES: Final = 100


class _Versions:
    """ETags that no other process, boot or copy of the file ever uses."""

    def __init__(self) -> None:
        self.start_afresh()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.start_afresh)

    def start_afresh(self) -> None:
        """Take another name, which no forked sibling has, and count from the beginning."""
        name = secrets.token_hex(8)
        self.next = map(f"{name}{{:x}}".format, itertools.count(1)).__next__


_versions = _Versions()


def _new_etag() -> ETagValue:
    return cast("ETagValue", _versions.next())


class SQLiteStore(ObjectStore):
    """Named bytes in one SQLite database file.

    Reads see the latest commit and wait for nobody. Writes take turns, each a transaction of
    its own unless the thread has one open; see `transaction`. The file and its directory are
    made by the first operation.

    Args:
        path: The database file.
        fsync: Whether a write is on stable storage when it returns.
        large_value_size: From how many bytes on an object is kept in a file of its own.
        timeout: How many seconds a write waits for others.
        for_reading: Whether to make no file; see `for_reading`.

    Raises:
        BackendError: The file exists and is refused: it is no database, or of another
            application, or lies on a network file system.
    """

    traits = Traits(reads_are_cheap=True, back_off_seconds=0.0)

    def __init__(
        self,
        path: str,
        *,
        fsync: bool = True,
        large_value_size: int = DEFAULT_LARGE_VALUE_SIZE,
        timeout: float = 60.0,
        for_reading: bool = False,
    ) -> None:
        self._for_reading = for_reading
        self._database = database_at(path)
        self._effort = Effort(fsync, timeout)
        self._large = large_value_size
        self._prefix = ""
        self._block: Block | None = None
        if os.path.exists(path):
            self._connection()

    def _connection(self) -> Connection:
        if self._block is not None:
            return self._block.owner()
        return self._database.connection(self._effort.timeout, for_reading=self._for_reading)

    def _twin(self) -> SQLiteStore:
        twin = SQLiteStore.__new__(SQLiteStore)
        twin.__dict__.update(self.__dict__)
        return twin

    def scoped(self, prefix: str) -> SQLiteStore:
        scope = self._twin()
        scope._prefix = self._prefix + prefix
        return scope

    def for_reading(self) -> SQLiteStore:
        reader = self._twin()
        reader._for_reading = True
        return reader

    @property
    def site(self) -> Site:
        """Where the rows lie; costs some system calls."""
        path = real_path(self._database.path)
        file = identity_of(path)
        return Site(
            "sqlite", f"{path}:{self._prefix}", None if file is None else (*file, self._prefix)
        )

    def location(self, name: str) -> str:
        return f"{self._database.path}: {self._prefix}{name}"

    # ------------------------------------------------------------------ reading

    def head(self, name: str) -> ObjectInfo:
        row = self._connection().row(schema.HEAD, self._prefix + name)
        if row is None:
            raise ObjectNotFound(name)
        return ObjectInfo(name, *row)

    def contains(self, name: str) -> bool:
        return self._connection().row(schema.HAS, self._prefix + name) is not None

    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        return read_whole(self.get_or_open(name, if_none_match=if_none_match))

    def get_or_open(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[bytes | BinaryIO, ObjectInfo] | NotModified:
        """Read an object, or open its file if it has one of its own; else as `get`."""
        whole = self._prefix + name
        missing = None
        while True:
            if if_none_match is None:
                row = self._connection().row(schema.GET, whole)
            else:
                row = self._connection().row(schema.GET_IF, if_none_match, whole)
            if row is None:
                raise ObjectNotFound(name)
            data, etag, size, modified, file = row
            if if_none_match == etag:
                return NOT_MODIFIED
            if file is None:
                return data, ObjectInfo(name, etag, size, modified)
            try:
                return self._database.values.open(file), ObjectInfo(name, etag, size, modified)
            except FileNotFoundError as error:
                if missing == file:
                    raise self._lost(name, file) from error
                # the row has changed since
                missing = file

    def read_or_open(self, name: str) -> bytes | BinaryIO:
        """Read an object whose version nobody asks for; see `ReadsWithoutVersion`."""
        row = self._connection().row(schema.READ, self._prefix + name)
        if row is None:
            raise ObjectNotFound(name)
        data, file = row
        if file is None:
            return cast("bytes", data)
        with suppress(FileNotFoundError):
            return self._database.values.open(file)
        # the row has changed since, or its bytes are missing
        found = self.get_or_open(name)
        assert not isinstance(found, NotModified)
        return found[0]

    def _lost(self, name: str, file: str) -> BackendError:
        path = self._database.values.path(file)
        return BackendError(
            f"the bytes of {self.location(name)!r} are missing: they were in {path!r}",
            backend="sqlite",
        )

    def open(self, name: str) -> BinaryIO:
        found = self.get_or_open(name)
        assert not isinstance(found, NotModified)
        return BytesIO(found[0]) if isinstance(found[0], bytes) else found[0]

    def get_many(
        self, entries: Iterable[str | ObjectInfo]
    ) -> Iterator[tuple[str, Buffer, ObjectInfo]]:
        """Read many objects by one query for as many as come to a few MB; see the port."""
        remaining = iter(entries)
        prefix = self._prefix
        batch = _FIRST_READ
        while names := [
            entry if isinstance(entry, str) else entry.name
            for entry in itertools.islice(remaining, batch)
        ]:
            marks = ",".join("?" * batch)
            asked = [prefix + name for name in names] + [None] * (batch - len(names))
            rows = self._connection().rows(
                f"SELECT {_WHOLE} FROM objects WHERE name IN ({marks})", asked
            )
            found = {row[0]: row for row in rows}
            for name in names:
                row = found.get(prefix + name)
                if row is None:
                    continue
                _, data, etag, size, modified, file = row
                if file is None:
                    yield name, data, ObjectInfo(name, etag, size, modified)
                else:
                    yield from self._from_file(name)
            batch = _next_batch(batch, rows)

    def rows(self) -> Iterator[tuple[str, Buffer, ObjectInfo]]:
        """Read all objects, in the order of names: one walk where names and bytes take two."""
        cut = len(self._prefix)
        for rows in pages(
            _WHOLE, self._connection, self._prefix, "", None, _FIRST_READ, _next_batch
        ):
            for whole, data, etag, size, modified, file in rows:
                name = whole[cut:]
                if file is None:
                    yield name, data, ObjectInfo(name, etag, size, modified)
                else:
                    yield from self._from_file(name)

    def _from_file(self, name: str) -> Iterator[tuple[str, Buffer, ObjectInfo]]:
        """Read a large object; nothing, if it has gone since."""
        try:
            found = self.get(name)
        except ObjectNotFound:
            return
        assert not isinstance(found, NotModified)
        yield name, *found

    # ------------------------------------------------------------------ writing

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        if_match: ETagValue | None = None,
        if_none_match: AnyVersion | None = None,
    ) -> ETagValue:
        etag = _new_etag()
        connection = self._connection()
        size = len(data)
        if size < self._large:
            row = (self._prefix + name, etag, time.time(), size, None, data)
            self._write(connection, row, if_match, if_none_match)
        else:
            self._put_large(connection, name, etag, data, if_match, if_none_match)
        if connection.left_files:
            self._database.collect(connection)
        return etag

    def _write(
        self,
        connection: Connection,
        row: tuple[Any, ...],
        if_match: ETagValue | None,
        if_none_match: AnyVersion | None,
    ) -> None:
        """Write a row in one step, or find the condition unmet."""
        if if_match is not None:
            statement, values = schema.SWAP, (*row[1:], row[0], if_match)
        else:
            statement, values = schema.PUT if if_none_match is None else schema.INSERT, row
        while not connection.write(self._effort, statement, values):
            _check(connection, row[0], if_match, if_none_match)

    def _put_large(
        self,
        connection: Connection,
        name: str,
        etag: ETagValue,
        data: Buffer,
        if_match: ETagValue | None,
        if_none_match: AnyVersion | None,
    ) -> None:
        whole = self._prefix + name
        if if_match is not None or if_none_match is not None:
            # a look spares a doomed write its file
            _check(connection, whole, if_match, if_none_match)
        if not self._database.is_swept and connection.block is None:
            self._database.is_swept = True
            self._database.sweep(connection, self._effort)
        file = self._database.values.new(etag)
        try:
            file.write(data)
            if connection.block is not None:
                connection.block.add_file(file.name)
            row = (whole, etag, time.time(), len(data), file.name, None)
            self._write(connection, row, if_match, if_none_match)
        except BaseException:
            # the interruption may have come when the row was written
            found = connection.row(schema.ETAG, whole)
            if found is None or found[0] != etag:
                file.discard()
            raise
        finally:
            file.close()
        self._database.forget_unlinked(connection, self._effort)

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        whole = self._prefix + name
        connection = self._connection()
        if if_match is None or if_match == ANY_VERSION:
            if not connection.write(self._effort, schema.DELETE, (whole,)) and if_match:
                raise ObjectNotFound(name)
        elif not connection.write(self._effort, schema.DELETE_IF, (whole, if_match)):
            found = connection.row(schema.ETAG, whole)
            if found is None:
                raise ObjectNotFound(name)
            raise PreconditionFailed(actual_etag=found[0])
        if connection.left_files:
            self._database.collect(connection)

    def put_many(
        self, items: Iterable[tuple[str, Buffer]], *, if_none_match: AnyVersion | None = None
    ) -> Iterator[tuple[str, ETagValue | Exception]]:
        """Write many objects, hundreds or a few MB in one transaction; see the port."""
        remaining = iter(items)
        while True:
            batch: list[tuple[str, Buffer]] = []
            total = 0
            for name, data in remaining:
                batch.append((name, data))
                total += len(data)
                if len(batch) == _BATCH_ITEMS or total >= _BATCH_BYTES:
                    break
            if not batch:
                return
            yield from self._put_batch(batch, if_none_match)

    def _put_batch(
        self, batch: list[tuple[str, Buffer]], if_none_match: AnyVersion | None
    ) -> list[tuple[str, ETagValue | Exception]]:
        if any(len(data) >= self._large for _, data in batch):
            return list(super().put_many(batch, if_none_match=if_none_match))
        prefix, now = self._prefix, time.time()
        rows = [(prefix + name, _new_etag(), now, len(data), None, data) for name, data in batch]
        connection = self._connection()

        def write() -> list[tuple[str, ETagValue | Exception]]:
            statement = schema.PUT if if_none_match is None else schema.INSERT
            count = connection.sql.executemany(statement, rows).rowcount
            etags = actual = [row[1] for row in rows]
            if count != len(rows):
                actual = [connection.row(schema.ETAG, row[0])[0] for row in rows]
            return [
                (name, own if own == now else PreconditionFailed(actual_etag=now))
                for (name, _), own, now in zip(batch, etags, actual, strict=True)
            ]

        try:
            answers = connection.transact(self._effort, write)
        except (sqlite3.Error, BackendError) as error:
            if isinstance(error, (sqlite3.OperationalError, BackendError)) or connection.block:
                return [(name, _twin(error)) for name, _ in batch]
            # one of them it is that SQLite does not take
            return list(super().put_many(batch, if_none_match=if_none_match))
        if connection.left_files:
            self._database.collect(connection)
        return answers

    def delete_many(self, names: Iterable[str]) -> Iterator[tuple[str, Exception]]:
        """Delete many objects, hundreds in one transaction; see the port."""
        remaining = iter(names)
        while batch := list(itertools.islice(remaining, _DELETE_BATCH)):
            connection = self._connection()
            rows = [(self._prefix + name,) for name in batch]
            delete = partial(connection.sql.executemany, schema.DELETE, rows)
            try:
                connection.transact(self._effort, delete)
            except (sqlite3.Error, BackendError) as error:
                yield from ((name, _twin(error)) for name in batch)
            if connection.left_files:
                self._database.collect(connection)

    # ------------------------------------------------------------------ listing

    def names(
        self, prefix: str = "", *, start_after: str | None = None, page_size: int | None = None
    ) -> Iterator[str]:
        cut = len(self._prefix)
        for rows in pages("name", self._connection, self._prefix, prefix, start_after, page_size):
            for (name,) in rows:
                yield name[cut:] if cut else name

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        delimiter: Literal["/"] | None = None,
        page_size: int | None = None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        where = self._connection, self._prefix, prefix, start_after, page_size
        if delimiter:
            yield from grouped(*where)
            return
        cut = len(self._prefix)
        for rows in pages(INFO, *where):
            for name, etag, size, modified in rows:
                yield ObjectInfo(name[cut:], etag, size, modified)

    # ------------------------------------------------------------------ what SQL can do besides

    def count(self, suffix: str) -> int:
        """Count the names with a suffix."""
        (count,) = self._connection().row(
            "SELECT count(*) FROM objects WHERE name >= ? AND name < ? AND substr(name, ?) = ?",
            self._prefix,
            self._prefix + LAST,
            -len(suffix),
            suffix,
        )
        return int(count)

    def clear(self, suffix: str) -> None:
        """Delete all names with a suffix, some thousand in one transaction."""
        begin = self._prefix
        end = self._prefix + LAST
        while begin != end:
            connection = self._connection()
            stop = connection.row(
                "SELECT name FROM objects WHERE name >= ? AND name < ?"
                f" ORDER BY name LIMIT 1 OFFSET {_CLEAR_BATCH}",
                begin,
                end,
            )
            stop = end if stop is None else stop[0]
            connection.write(
                self._effort,
                "DELETE FROM objects WHERE name >= ? AND name < ? AND substr(name, ?) = ?",
                (begin, stop, -len(suffix), suffix),
            )
            begin = stop
            if connection.left_files:
                self._database.collect(connection)

    def transaction(self, *, read_only: bool) -> tuple[SQLiteStore, Block]:
        """Prepare a transaction of this thread; nested ones are parts of the outermost.

        Returns:
            This store as seen from inside, usable as long as the transaction is open; and what
            begins it, commits it, or undoes it when it is closed.
        """
        inside = self._twin()
        inside._block = Block(
            self._database, self._effort, read_only=read_only, for_reading=self._for_reading
        )
        return inside, inside._block

    def compact(self) -> None:
        """Give back what the file does not need, and delete what killed writers left."""
        connection = self._connection()
        if connection.block is not None:
            raise BackendError("a database cannot be compacted in a transaction", backend="sqlite")
        self._database.sweep(connection, self._effort)
        self._database.collect(connection, at_once=True)
        self._database.forget_unlinked(connection, self._effort)
        connection.write(self._effort, "VACUUM", ())
        connection.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def size_on_disk(self) -> int:
        """Return how many bytes the file takes, with its log and the values beside it."""
        path = self._database.path
        (in_files,) = self._connection().row(schema.SIZE_OF_FILES)
        return int(in_files) + sum(
            os.stat(part).st_size for part in (path, f"{path}-wal") if os.path.exists(part)
        )

    def problems(self) -> Iterator[str]:
        """Say what is damaged: pages, indexes, and values in files."""
        for (message,) in self._connection().rows("PRAGMA integrity_check"):
            if message != "ok":
                yield f"{self._database.path}: {message}"
        for name, file, size in self._connection().rows(
            "SELECT name, file, size FROM objects WHERE file IS NOT NULL"
        ):
            try:
                with self._database.values.open(file) as stream:
                    found = os.fstat(stream.fileno()).st_size
            except FileNotFoundError:
                if self._connection().row("SELECT 1 FROM objects WHERE file = ?", file):
                    yield str(self._lost(name, file))
            else:
                if found != size:
                    path = self._database.values.path(file)
                    yield f"{path!r} has {found} bytes instead of {size}"


def _check(
    connection: Connection,
    whole: str,
    if_match: ETagValue | None,
    if_none_match: AnyVersion | None,
) -> None:
    """Raise PreconditionFailed unless a row, or its absence, is as a write requires."""
    found = connection.row(schema.ETAG, whole)
    check_version(ITEM_NOT_AVAILABLE if found is None else found[0], if_match, if_none_match)


def _next_batch(batch: int, rows: list[Any]) -> int:
    """Return how many rows to read next, so that they come to a few MB."""
    in_rows = [len(row[1]) for row in rows if row[1] is not None]
    average = sum(in_rows) // max(1, len(in_rows)) + 1
    most = max(1, min(_MOST_READ, _BATCH_BYTES // average))
    # by doubling, so that there are few different statements
    return min(2 * batch, 1 << most.bit_length() - 1)


def _twin(error: Exception) -> Exception:
    """Return the failure of one of several items, to which notes on that item can be added."""
    twin = copy(error)
    # of its own, whatever copyreg has been told of exceptions (tblib's way shares it)
    twin.__dict__ = {**error.__dict__, "__notes__": [*getattr(error, "__notes__", ())]}
    return twin
