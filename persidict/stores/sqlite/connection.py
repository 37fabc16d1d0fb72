"""One thread's connection: reads at any time, writes in turn."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from persidict.exceptions import BackendError, MutationPolicyError
from persidict.stores.sqlite.turn import Turn

ResultType = TypeVar("ResultType")

_LOOK_AT_LOG: Final = 64
"""After how many writes a connection looks how long the log has become."""

_LONGEST_LOG: Final = 64 << 20
_BETWEEN_RESTARTS_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 0.001


class Effort(NamedTuple):
    """What a handle wants of its writes.

    Attributes:
        fsync: Whether they are on stable storage when they return.
        timeout: How many seconds they wait for other writers.
    """

    fsync: bool
    timeout: float


class OpenBlock(Protocol):
    """What has to be known here of a transaction of the user's; see `Block`."""

    read_only: bool
    must_sync: bool

    def add_file(self, name: str) -> None:
        """Take note of a file that goes again if the block is undone."""


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether SQLite gave up because somebody else has a lock."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Connection:
    """A connection, its lock, and its place in the queue.

    The lock is held while SQLite works: only a process that is about to fork waits for it.

    Args:
        sql: The connection, without transactions of its own.
        path: The database.
        turn: The place in the queue.
        identity: Device and inode of the file.
        timeout: How many seconds readers wait where even they must: while somebody repairs
            the log after a crash, or has the file for himself.
        is_frozen: Whether the file is read as one that nobody writes to.

    Attributes:
        block: The innermost transaction of the user's that is open.
        look_at: When to look at `identity` again.
        is_full: Whether commits are durable now.
        left_files: Whether a write of this connection left files that no row names any more.
    """

    __slots__ = (
        *("__weakref__", "_busy_since", "_changes", "_execute", "_restarted", "_timeout"),
        *("_writes", "block", "is_closed", "is_full"),
        *("identity", "is_frozen", "left_files", "lock", "look_at", "path", "sql", "turn"),
    )

    def __init__(
        self,
        sql: sqlite3.Connection,
        path: str,
        turn: Turn,
        identity: tuple[int, int] | None,
        *,
        timeout: float,
        is_frozen: bool,
    ) -> None:
        self.sql = sql
        self._timeout = timeout
        self._busy_since: float | None = None
        self.path = path
        self.turn = turn
        self.identity = identity
        self.is_frozen = is_frozen
        self.lock = threading.RLock()
        self.block: OpenBlock | None = None
        self.is_closed = False
        self.look_at = 0.0
        self.left_files = False
        self._execute = sql.execute
        self._changes = sql.total_changes
        self.is_full = False
        self._writes = 0
        self._restarted = 0.0

    # ------------------------------------------------------------------ reading

    def row(self, statement: str, *values: Any) -> Any:
        """Return the first row, None if there is none."""
        while True:
            with self.lock:
                try:
                    return self._execute(statement, values).fetchone()
                except sqlite3.OperationalError as error:
                    self._refuse_all_but_busy(error)
            self._wait_for_lock(None)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows: no snapshot stays open behind it."""
        while True:
            with self.lock:
                try:
                    return self._execute(statement, values).fetchall()
                except sqlite3.OperationalError as error:
                    self._refuse_all_but_busy(error)
            self._wait_for_lock(None)

    # ------------------------------------------------------------------ writing

    def write(self, effort: Effort, statement: str, values: Sequence[Any]) -> int:
        """Execute one statement as a transaction of its own, or as part of one that is open.

        Returns:
            How many rows it changed.

        Raises:
            BackendError: Other writers did not make room in time.
            MutationPolicyError: A read-only transaction is open.
            sqlite3.Error: What went wrong; nothing was changed.
        """
        if self.block is not None or self.sql.in_transaction:
            self.check_block(effort)
            with self.lock:
                return self._execute(statement, values).rowcount
        try:
            # not under the lock, or a fork would wait for other writers
            self.turn.take(effort.timeout)
            while True:
                with self.lock:
                    try:
                        if self.is_full is not effort.fsync:
                            self._set_synchronous(effort.fsync)
                        count = self._execute(statement, values).rowcount
                        self._after_commit(count)
                        return count
                    except sqlite3.OperationalError as error:
                        self._refuse_all_but_busy(error)
                self._wait_for_lock(effort.timeout)
        finally:
            self._busy_since = None
            self.turn.release()

    def transact(self, effort: Effort, work: Callable[[], ResultType]) -> ResultType:
        """Do several writes at once: each of them whole, all of them unless something fails.

        What was done before an exception that is not SQLite's stays.
        """
        if self.block is not None or self.sql.in_transaction:
            self.check_block(effort)
            with self.lock:
                return work()
        try:
            self.begin(effort)
            with self.lock:
                try:
                    result = work()
                except sqlite3.Error:
                    self.sql.rollback()
                    raise
                self.sql.commit()
                self._after_commit(None)
            return result
        finally:
            # an interrupted one: its items are whole, and a signal handler may have written
            if self.sql.in_transaction:
                with self.lock:
                    self.sql.commit()
            self.turn.release()

    def enter(self, block: OpenBlock | None, statement: str) -> None:
        """Begin a transaction of the user's, or none's, so that no signal handler comes between."""
        execute = self._execute
        # without a call in between
        self.block = block
        try:
            execute(statement)
        except sqlite3.Error:
            self.block = None
            raise

    def begin(self, effort: Effort, block: OpenBlock | None = None) -> None:
        """Take the turn and begin to write; the caller releases it, whatever happens."""
        self.turn.take(effort.timeout)
        while True:
            with self.lock:
                try:
                    if self.is_full is not effort.fsync:
                        self._set_synchronous(effort.fsync)
                    self.enter(block, "BEGIN IMMEDIATE")
                    self._busy_since = None
                    return
                except sqlite3.OperationalError as error:
                    self._refuse_all_but_busy(error)
            self._wait_for_lock(effort.timeout)

    def committed(self, *, sync: bool) -> None:
        """Finish what a block did; with `sync`, durably whatever was asked for at its begin."""
        if sync and not self.is_full:
            self.sync_log()
        self._after_commit(None)

    def check_block(self, effort: Effort) -> None:
        """Refuse to write into a transaction that takes no writes."""
        block = self.block
        if block is None:
            return
        if block.read_only:
            raise MutationPolicyError("read-only", "the transaction is read-only")
        if not self.sql.in_transaction:
            raise BackendError(
                f"SQLite has undone the transaction on {self.path!r} after an error",
                backend="sqlite",
            )
        if effort.fsync:
            block.must_sync = True

    def _refuse_all_but_busy(self, error: sqlite3.OperationalError) -> None:
        """Raise an error that waiting does not help against."""
        if not is_busy(error):
            raise error

    def _wait_for_lock(self, timeout: float | None) -> None:
        """Wait for those who lock the database without having queued, a moment at a time."""
        patience = self._timeout if timeout is None else timeout
        now = monotonic()
        if self._busy_since is None:
            self._busy_since = now
        elif now - self._busy_since > patience:
            self._busy_since = None
            raise BackendError(
                f"timed out after {patience} s: somebody who does not queue locks {self.path!r}",
                backend="sqlite",
            )
        time.sleep(_RETRY_SECONDS)

    def _set_synchronous(self, full: bool) -> None:
        self._execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
        self.is_full = full

    def _after_commit(self, count: int | None) -> None:
        """Take note of files that a trigger put down, and keep the log short."""
        changes = self.sql.total_changes
        if count is None or changes - self._changes != count:
            self.left_files = True
        self._changes = changes
        self._writes += 1
        if not self._writes % _LOOK_AT_LOG:
            self._shorten_log()

    def _shorten_log(self) -> None:
        """Begin the log anew where readers that overlap have kept SQLite from doing so."""
        try:
            length = os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return
        now = monotonic()
        if length > _LONGEST_LOG and now - self._restarted > _BETWEEN_RESTARTS_SECONDS:
            self._restarted = now
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def sync_log(self) -> None:
        """Make all commits durable."""
        with open(f"{self.path}-wal", "rb") as log:
            os.fsync(log.fileno())

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Close; an open transaction is undone. What is closed already stays so."""
        if self.is_closed:
            return
        self.is_closed = True
        self.block = None
        # the last one to close writes the log into the database
        self.turn.leave(self._close)

    def _close(self) -> None:
        with self.lock:
            self.sql.close()

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open; the caller holds the lock."""
        return not self.is_closed and self.sql.in_transaction

    def give_up(self) -> None:
        """Close what a child has inherited; nothing that the parent holds is let go."""
        self.block = None
        self.is_closed = True
        self.sql.close()
        self.turn.give_up()
