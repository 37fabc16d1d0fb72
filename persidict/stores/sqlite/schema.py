"""What a database file of this package looks like inside.

Anybody may read it with ``sqlite3``. The header tells what it is: ``application_id`` is
APPLICATION_ID and ``user_version`` SCHEMA_VERSION. ``objects`` has one row for each object:

- ``name``: as on S3: the parts of the key joined by slashes, a dot and the format. All
  dictionaries of a file (formats, prefixes) lie in the same table. What is named otherwise
  and ends like an item is counted by ``len``, and told by ``verify()``.
- ``etag``: the version, never used twice, not even after deletion or in a copy of the file.
- ``modified``: when it was written, in POSIX seconds.
- ``size``: the number of bytes.
- ``data``: the bytes, as the format makes them; NULL if they are in a file of their own.
- ``file``: that file's name in the directory ``<database>-values``, or NULL.

``unused_files`` names files that no row refers to any more and that are about to be deleted.
Triggers fill it in the transaction that changes the row, whoever makes the change.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from typing import Final

from persidict.exceptions import BackendError

APPLICATION_ID: Final = int.from_bytes(b"psdt", "big")
"""What tells these databases from those of other applications; see PRAGMA application_id."""

SCHEMA_VERSION: Final = 1

_FORMAT_VERSIONS: Final = slice(18, 20)
_WAL: Final = b"\2\2"
"""What the header of a database says whose log is written ahead (sqlite.org/fileformat2.html)."""

_DEFINITIONS: Final = (
    """CREATE TABLE objects(
        name TEXT NOT NULL PRIMARY KEY,
        etag TEXT NOT NULL,
        modified REAL NOT NULL,
        size INTEGER NOT NULL,
        file TEXT,
        data BLOB
    )""",
    "CREATE INDEX objects_in_files ON objects(file, size) WHERE file IS NOT NULL",
    "CREATE TABLE unused_files(file TEXT NOT NULL)",
    """CREATE TRIGGER object_replaced AFTER UPDATE OF file ON objects
        WHEN OLD.file IS NOT NULL AND OLD.file IS NOT NEW.file
        BEGIN INSERT INTO unused_files VALUES (OLD.file); END""",
    """CREATE TRIGGER object_deleted AFTER DELETE ON objects WHEN OLD.file IS NOT NULL
        BEGIN INSERT INTO unused_files VALUES (OLD.file); END""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

HEAD: Final = "SELECT etag, size, modified FROM objects WHERE name = ?"
HAS: Final = "SELECT 1 FROM objects WHERE name = ?"
ETAG: Final = "SELECT etag FROM objects WHERE name = ?"
GET: Final = "SELECT data, etag, size, modified, file FROM objects WHERE name = ?"
READ: Final = "SELECT data, file FROM objects WHERE name = ?"
GET_IF: Final = (
    "SELECT CASE WHEN etag = ? THEN NULL ELSE data END, etag, size, modified, file"
    " FROM objects WHERE name = ?"
)
_INTO: Final = "INTO objects(name, etag, modified, size, file, data) VALUES (?, ?, ?, ?, ?, ?)"
PUT: Final = (
    f"INSERT {_INTO} ON CONFLICT(name) DO UPDATE SET etag = excluded.etag,"
    " modified = excluded.modified, size = excluded.size, file = excluded.file,"
    " data = excluded.data"
)
INSERT: Final = f"INSERT OR IGNORE {_INTO}"
SWAP: Final = (
    "UPDATE objects SET etag = ?, modified = ?, size = ?, file = ?, data = ?"
    " WHERE name = ? AND etag = ?"
)
DELETE: Final = "DELETE FROM objects WHERE name = ?"
DELETE_IF: Final = "DELETE FROM objects WHERE name = ? AND etag = ?"
FILES: Final = "SELECT file FROM objects WHERE file IS NOT NULL UNION SELECT file FROM unused_files"
UNUSED: Final = "SELECT file FROM unused_files"
FORGET_UNUSED: Final = "DELETE FROM unused_files WHERE file = ?"
SIZE_OF_FILES: Final = "SELECT coalesce(sum(size), 0) FROM objects WHERE file IS NOT NULL"


def is_ready(sql: sqlite3.Connection, path: str) -> bool:
    """Tell whether the tables exist; refuse what is not this package's.

    Raises:
        BackendError: The file belongs to another application, or to a later version.
        sqlite3.DatabaseError: It is no database.
    """
    application = sql.execute("PRAGMA application_id").fetchone()[0]
    version = sql.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise BackendError(
                f"{path!r} was written by a later version of persidict: its schema is version"
                f" {version}, this one knows {SCHEMA_VERSION}",
                backend="sqlite",
            )
        return True
    if application or version or sql.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise BackendError(
            f"{path!r} is a database of another application (its application_id is"
            f" {application:#x}); it was not touched",
            backend="sqlite",
        )
    return False


@cache
def empty_image() -> bytes | None:
    """Return the bytes of a database without objects; None where SQLite cannot tell them."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        if not hasattr(sql, "serialize"):
            return None
        for definition in _DEFINITIONS:
            sql.execute(definition)
        image = bytearray(sql.serialize())
    image[_FORMAT_VERSIONS] = _WAL
    return bytes(image)


def create(sql: sqlite3.Connection, path: str) -> None:
    """Make the tables in an empty database, or find that somebody else just did."""
    sql.execute("BEGIN IMMEDIATE")
    try:
        if not is_ready(sql, path):
            for definition in _DEFINITIONS:
                sql.execute(definition)
        sql.execute("COMMIT")
    finally:
        if sql.in_transaction:
            sql.rollback()
