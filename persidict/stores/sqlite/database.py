"""A database file in this process: one connection for each thread, and what forking asks for.

SQLite keeps one account of the locks of a file for a whole process, and a child must not use
what it inherits. So no operation may be under way in any thread while the process forks, and
the child closes all connections of its parent before it opens its own. Closing one that is in a
transaction takes back, in memory that all processes share, whatever has been written behind what
that transaction saw: so the parent goes on only when its child is done.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import time
import weakref
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from persidict.exceptions import BackendError
from persidict.stores.files.platform import sync_directory
from persidict.stores.sqlite import schema
from persidict.stores.sqlite.connection import Connection, Effort, is_busy
from persidict.stores.sqlite.place import refuse_network
from persidict.stores.sqlite.turn import Turn
from persidict.stores.sqlite.values import ValueFiles

_LOOK_SECONDS: Final = 0.05
"""How often a connection looks whether its file still is the one at its path."""

_UNSYNCED_FILES: Final = 32
"""How many unused files there may be before the log is synced to delete them."""

_BUSY_SECONDS: Final = 0.05
"""How long SQLite itself waits for others: no Ctrl-C comes through meanwhile."""

_PRAGMAS: Final = (
    "PRAGMA cache_size = -8192",
    # a child that gives up an inherited transaction must not reach into shared memory
    "PRAGMA cache_spill = OFF",
    # overwriting what is deleted takes longer than deleting it
    "PRAGMA secure_delete = OFF",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 16777216",
    "PRAGMA synchronous = NORMAL",
)


class Database:
    """The connections of this process to one file.

    Args:
        path: Its real path.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.values = ValueFiles(f"{path}-values")
        self.unlinked: list[str] = []
        self.start_afresh()
        _databases[path] = self

    def start_afresh(self) -> None:
        """Begin without connections; those there were are somebody else's."""
        self.is_swept = False
        self.lock = threading.RLock()
        self._local = threading.local()
        self._connections: set[Connection] = set()
        self._left: list[Connection] = []

    def connection(self, timeout: float, *, for_reading: bool = False) -> Connection:
        """Return this thread's connection.

        Args:
            timeout: How many seconds to wait for others who have the file for themselves.
            for_reading: Whether to make no file, if there is no connection that has.

        Raises:
            BackendError: The file is refused.
            sqlite3.OperationalError: It cannot be opened.
        """
        connection: Connection | None = getattr(self._local, "connection", None)
        if for_reading:
            reader: Connection | None = getattr(self._local, "reader", None)
            if connection is None or (reader is not None and reader.block is not None):
                connection = reader
        if connection is not None:
            now = monotonic()
            if now < connection.look_at or self._is_current(connection, now):
                return connection
            self._leave(connection)
        return self._connect(timeout, for_reading)

    def _is_current(self, connection: Connection, now: float) -> bool:
        """Tell whether the file at the path still is the connection's."""
        if connection.block is not None or connection.sql.in_transaction:
            return True
        connection.look_at = now + _LOOK_SECONDS
        return not connection.is_frozen and connection.identity == _identity(self.path)

    def _connect(self, timeout: float, for_reading: bool) -> Connection:
        with self.lock:
            self._close_left()
            connection = self._open(timeout, for_reading)
            self._connections.add(connection)
        end = _EndOfThread(self, connection)
        if for_reading:
            self._local.connection = None
            self._local.reader, self._local.end_of_reader = connection, end
        else:
            self._local.connection, self._local.end = connection, end
        return connection

    def _leave(self, connection: Connection) -> None:
        """Close a connection, or have it closed by whoever comes next."""
        # a finaliser must not wait for a thread that may be waiting for its own
        for is_mine in map(self.lock.acquire, (False,)):  # noted in one step
            if not is_mine:
                self._left.append(connection)
                return
            try:
                if _quiet:  # in a child, the parent's other threads end before it can give up
                    self._left.append(connection)
                    return
                self._connections.discard(connection)
                connection.close()
            finally:
                self.lock.release()

    def _close_left(self) -> None:
        while self._left:
            connection = self._left.pop()
            self._connections.discard(connection)
            connection.close()

    def _open(self, timeout: float, for_reading: bool) -> Connection:
        """Open the file; make it, and its directory, if need be and it is not only for reading."""
        deadline = monotonic() + timeout
        while True:
            try:
                if for_reading and not _size(self.path):
                    return self._open_nothing()
                return self._try_to_open(timeout, for_reading)
            except sqlite3.OperationalError as error:
                # SQLite does not wait for others who switch the same file to WAL
                if not is_busy(error) or monotonic() > deadline:
                    raise
                time.sleep(0.001)

    def _open_nothing(self) -> Connection:
        """Return what reads as a file without objects; nobody looks at it twice."""
        sql = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        schema.create(sql, self.path)
        sql.execute("PRAGMA query_only = ON")
        return Connection(sql, self.path, Turn(None), None, timeout=0.0, is_frozen=True)

    def _try_to_open(self, timeout: float, for_reading: bool) -> Connection:
        is_new = not for_reading and _identity(self.path) is None
        if is_new:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        refuse_network(self.path)
        if is_new:
            self._make(timeout)
        is_read_only = not is_new and not os.access(self.path, os.W_OK)
        is_frozen = False
        # who may write does away with the log in the end, which who may not leaves behind
        sql = _connect_to(self.path, "ro" if is_read_only else "rw" if for_reading else "rwc")
        try:
            try:
                is_ready = self._set_up(sql)
            except sqlite3.OperationalError:
                if not is_read_only or _size(f"{self.path}-wal"):
                    raise
                # nobody writes: there is no log, and no place to keep account of readers in
                sql.close()
                sql = _connect_to(self.path, "ro&immutable=1")
                is_ready = self._set_up(sql)
                is_frozen = True
            if not is_ready:
                if for_reading:
                    sql.close()
                    return self._open_nothing()
                if is_read_only:
                    raise BackendError(f"{self.path!r} is empty and read-only", backend="sqlite")
                sql.execute("PRAGMA journal_mode = WAL")
                schema.create(sql, self.path)
                sync_directory(os.path.dirname(self.path))
            if for_reading:
                sql.execute("PRAGMA query_only = ON")
            turn = Turn(None if is_read_only or for_reading else f"{self.path}-queue")
            identity = _identity(self.path)
            return Connection(sql, self.path, turn, identity, timeout=timeout, is_frozen=is_frozen)
        except sqlite3.DatabaseError as error:
            sql.close()
            if isinstance(error, sqlite3.OperationalError):
                error.add_note(f"persidict: the database is {self.path!r}")
                raise
            raise BackendError(
                f"{self.path!r} is not a database, or damaged: {error}", backend="sqlite"
            ) from error
        except BaseException:
            sql.close()
            raise

    def _set_up(self, sql: sqlite3.Connection) -> bool:
        for pragma in _PRAGMAS:
            sql.execute(pragma)
        return schema.is_ready(sql, self.path)

    def _make(self, timeout: float) -> None:
        """Put an empty database in place, whole: that takes two syncs, SQLite's way six."""
        image = schema.empty_image()
        turn = Turn(f"{self.path}-queue")
        new = f"{self.path}-new"

        def make() -> None:
            turn.take(timeout)
            if image is None or _identity(self.path) is not None:
                return
            with open(new, "wb") as file:
                file.write(image)
                file.flush()
                os.fsync(file.fileno())
            for left in ("-wal", "-shm", "-journal"):
                # of a file that was removed without them: they would bring it back
                with suppress(FileNotFoundError):
                    os.unlink(self.path + left)
            os.rename(new, self.path)
            sync_directory(os.path.dirname(self.path))

        turn.leave(make)

    # ------------------------------------------------------------------ value files

    def collect(self, connection: Connection, *, at_once: bool = False) -> None:
        """Delete the files that no row names any more, unless a snapshot may still need them.

        The log is synced before a file goes: else a power failure would bring back the row, but
        not the file. Where commits are not synced, that is done for several files at once.
        """
        if connection.block is not None:
            return
        connection.left_files = False
        unused = [name for (name,) in connection.rows(schema.UNUSED)]
        fresh = [name for name in unused if name not in self.unlinked]
        few = len(fresh) < (1 if at_once or connection.is_full else _UNSYNCED_FILES)
        if not fresh or few:
            return
        # also behind a durable commit: others, that are not, may have come since
        connection.sync_log()
        if self.values.delete(fresh):
            self.unlinked += fresh

    def forget_unlinked(self, connection: Connection, effort: Effort) -> None:
        """Delete the notes of files that are gone: beside a write that is made anyway."""
        while self.unlinked:
            connection.write(effort, schema.FORGET_UNUSED, (self.unlinked.pop(),))

    def sweep(self, connection: Connection, effort: Effort) -> None:
        """Delete the files that killed writers left."""

        def look_and_delete() -> None:
            # as long as this transaction lasts, no other one can come to name a file
            known = {name for (name,) in connection.rows(schema.FILES)}
            self.values.sweep(known)

        if connection.block is None and any(True for _ in self.values.names()):
            connection.transact(effort, look_and_delete)

    def held(self) -> list[Connection]:
        """Return all connections; the caller holds the lock."""
        return list(self._connections)

    def close(self) -> None:
        """Close all connections of all threads; those that come back open new ones."""
        with self.lock:
            connections = self.held()
            self.start_afresh()
        for connection in connections:
            connection.close()

    def __del__(self) -> None:
        for connection in self.held():
            connection.close()


def _connect_to(path: str, mode: str) -> sqlite3.Connection:
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(
        f"file:{quoted}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


class _EndOfThread:
    """Closes a thread's connection when the thread ends."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = weakref.ref(database)
        self._connection = connection

    def __del__(self) -> None:
        database = self._database()
        if database is not None:
            database._leave(self._connection)


# ---------------------------------------------------------------------- the process

_databases: Final[weakref.WeakValueDictionary[str, Database]] = weakref.WeakValueDictionary()
_registry_lock = threading.RLock()


def database_at(path: str) -> Database:
    """Return this process's connections to a file, whichever of its names is given.

    Args:
        path: An absolute path; the file need not exist.
    """
    real = os.path.realpath(path)
    with _registry_lock:
        return _databases.get(real) or Database(real)


_quiet: list[tuple[Database, list[Connection]]] = []
"""While the process forks: the connections whose locks are held for that."""

_gate: list[int] = []
"""Then, too: both ends of a pipe that the child closes when it is done; else empty."""


def _before_fork() -> None:
    """Wait until no operation is under way in any thread, and let none begin."""
    _registry_lock.acquire()
    for database in list(_databases.values()):
        database.lock.acquire()
        held = database.held()
        for connection in held:
            connection.lock.acquire()
        _quiet.append((database, held))
    if any(connection.is_in_transaction for _, held in _quiet for connection in held):
        _gate.extend(os.pipe())


def _after_fork_in_parent() -> None:
    try:
        if _gate:
            _wait_for_child()
    finally:
        _go_on()


def _wait_for_child() -> None:
    """Wait until the child has closed the pipe, or has ended; without one, do not wait."""
    there, mine = _gate
    try:
        os.close(mine)
        os.read(there, 1)
    finally:
        _gate.clear()
        os.close(there)


def _go_on() -> None:
    while _quiet:
        database, held = _quiet.pop()
        for connection in held:
            connection.lock.release()
        database.lock.release()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    """Give up what is the parent's; its transactions go on there."""
    global _registry_lock
    try:
        _give_up()
    finally:
        _registry_lock = threading.RLock()
        _open_gate()


def _give_up() -> None:
    while _quiet:
        database, held = _quiet.pop()
        for connection in held:
            connection.give_up()
        database.start_afresh()


def _open_gate() -> None:
    while _gate:
        os.close(_gate.pop())


def _at_exit() -> None:
    for database in list(_databases.values()):
        with suppress(sqlite3.Error):
            database.close()


def _register() -> Any:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )
    atexit.register(_at_exit)


_register()
