"""Transactions of the user's on one thread's connection."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import Any

from persidict.exceptions import BackendError, MutationPolicyError
from persidict.stores.sqlite.connection import Connection, Effort
from persidict.stores.sqlite.database import Database
from persidict.stores.sqlite.values import Hold


class Block:
    """A transaction, or a part of one that can be undone alone.

    All that the thread does on the database belongs to it, through whatever handle, from
    `begin` until `commit` or `close`.

    Args:
        database: The database.
        effort: Whether the commit is durable, and how long to wait for other writers.
        read_only: Whether to see one moment, and to write nothing.
        for_reading: Whether to make no file either.

    Attributes:
        must_sync: Whether a write inside asked to be durable.
    """

    __slots__ = (
        *("_connection", "_database", "_depth", "_effort", "_for_reading", "_hold", "_is_kept"),
        *("_is_undone", "_new_files", "_parent", "is_open", "must_sync", "read_only"),
    )

    def __init__(
        self, database: Database, effort: Effort, *, read_only: bool, for_reading: bool
    ) -> None:
        self._for_reading = for_reading
        self.is_open = False
        self.read_only = read_only
        self.must_sync = False
        self._is_kept = False
        self._is_undone = False
        self._database = database
        self._effort = effort
        self._hold: Hold | None = None
        self._new_files: list[str] = []
        self._connection = database.connection(effort.timeout, for_reading=for_reading)
        parent: Any = self._connection.block  # always a Block
        self._parent: Block | None = parent
        self._depth: int = 0 if self._parent is None else self._parent._depth + 1

    def begin(self) -> None:
        """Begin, or leave nothing behind.

        Raises:
            BackendError: Other writers did not make room in time.
            MutationPolicyError: It is to write, in one that is read-only.
        """
        connection = self._connection
        if self._parent is None and connection.sql.in_transaction:
            raise BackendError(
                "a signal handler cannot begin a transaction inside of a bulk operation",
                backend="sqlite",
            )
        try:
            self.is_open = True
            self._begin(self._effort)
        except BaseException:
            self._end()
            self.is_open = False
            raise

    def _begin(self, effort: Effort) -> None:
        connection = self._connection
        if self._parent is not None:
            if self._parent.read_only and not self.read_only:
                raise MutationPolicyError("read-only", "the transaction around it is read-only")
            with connection.lock:
                connection.sql.execute(f"SAVEPOINT block_{self._depth}")
            connection.block = self
        elif self.read_only:
            self._hold = self._database.values.keep(may_make=not self._for_reading)
            with connection.lock:
                connection.enter(self, "BEGIN")
            # the snapshot is taken with the first look
            connection.row("SELECT 1 FROM objects LIMIT 1")
        else:
            connection.begin(effort, self)

    def owner(self) -> Connection:
        """Return the connection, if the block is open and this is its thread.

        Raises:
            RuntimeError: It has ended, or belongs to another thread or process.
        """
        if not self.is_open:
            raise RuntimeError("the transaction has ended: this handle was part of it")
        if self._database.connection(0.0, for_reading=self._for_reading) is not self._connection:
            raise RuntimeError("the transaction belongs to another thread or process")
        return self._connection

    def add_file(self, name: str) -> None:
        """Take note of a file that goes again if the block is undone."""
        self._new_files.append(name)

    def commit(self) -> None:
        """Keep what was done: for everybody, or as part of the transaction around it."""
        connection = self.owner()
        try:
            self._undo_inner()
            with connection.lock:
                if self._parent is not None:
                    self._parent.must_sync |= self.must_sync
                    # before, so that an interruption right behind it finds them noted
                    self._parent._new_files += self._new_files
                    connection.sql.execute(f"RELEASE block_{self._depth}")
                    self._is_kept = True
                elif not self.read_only:
                    connection.check_block(Effort(fsync=False, timeout=0.0))
                    self._commit_all()
        finally:
            self.close()
        if connection.left_files:
            self._database.collect(connection)

    def _commit_all(self) -> None:
        connection = self._connection
        commit = connection.sql.commit
        # before, so that an interruption right behind the commit deletes no file of its rows, and
        # without a call in between: what a signal handler writes is part of this, or of nothing
        self._is_kept = True
        connection.block = None
        try:
            commit()
        except sqlite3.Error:
            connection.block = self
            self._is_kept = False
            raise
        connection.committed(sync=self.must_sync)

    def close(self) -> None:
        """Undo what was done, unless it was kept; does nothing in a forked child."""
        if not self.is_open:
            return
        if not self._connection.is_closed:
            self._undo_inner()
            self._end()
        # last, so that an interrupted call can be repeated
        self.is_open = False

    def _undo_inner(self) -> None:
        """Undo parts that were not ended: a generator was left alone, or an end interrupted."""
        inner = []
        block: Any = self._connection.block  # always a Block
        while block is not None and block is not self:
            inner.append(block)
            block = block._parent
        if block is self:
            for part in inner:
                part.close()

    def _end(self) -> None:
        connection = self._connection
        try:
            with connection.lock:
                if self._parent is not None:
                    self._undo_part(connection.sql)
                elif connection.block is self:
                    rollback = connection.sql.rollback
                    # without a call in between, see `_commit_all`
                    connection.block = None
                    rollback()
        finally:
            if self._parent is None:
                connection.turn.release()
            if self._hold is not None:
                self._hold.close()
        if not self._is_kept:
            for name in self._new_files:
                with suppress(FileNotFoundError):
                    os.unlink(self._database.values.path(name))
        # last, so that the block around it finds one whose end was interrupted
        if self._parent is not None and connection.block is self:
            connection.block = self._parent

    def _undo_part(self, sql: sqlite3.Connection) -> None:
        """Undo what is part of another block; may be called again after an interruption."""
        if self._is_kept or not sql.in_transaction:
            return
        try:
            if not self._is_undone:
                sql.execute(f"ROLLBACK TO block_{self._depth}")
                self._is_undone = True
            sql.execute(f"RELEASE block_{self._depth}")
        except sqlite3.OperationalError:
            # it was not even begun, or an interruption came when it had been released
            self._is_kept = not self._is_undone
