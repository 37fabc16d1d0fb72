"""A dictionary in one database file, beside diskcache, sqlite3 by hand, and files."""

from __future__ import annotations

import itertools
import os
import pickle
import sqlite3
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from benchmarks.files import directories, large_value, medium_value, small_value
from benchmarks.harness import Bench, Measure, Omission, Result, Row, Suite, after, timed
from benchmarks.peers import PeerUnavailable, load
from persidict.file_dir_dict import FileDirDict
from persidict.sqlite_dict import SQLiteDict

_ITEMS: Final = 20_000
_BULK: Final = 1_000


class ByHand:
    """The floor: one table of pickles, a statement for each operation.

    Args:
        path: The database file.
    """

    def __init__(self, path: str) -> None:
        self._sql = sqlite3.connect(path, isolation_level=None)
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute("PRAGMA synchronous = NORMAL")
        self._sql.execute("CREATE TABLE items(key TEXT PRIMARY KEY, value BLOB)")

    def get(self, key: str) -> Any:
        """Read an item."""
        row = self._sql.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()
        return pickle.loads(row[0])

    def set(self, key: str, value: Any) -> None:
        """Write an item."""
        row = key, pickle.dumps(value, 5)
        self._sql.execute("INSERT OR REPLACE INTO items VALUES (?, ?)", row)

    def delete(self, key: str) -> None:
        """Delete an item."""
        self._sql.execute("DELETE FROM items WHERE key = ?", (key,))

    def set_many(self, items: dict[str, Any]) -> None:
        """Write items in one transaction."""
        self._sql.execute("BEGIN")
        rows = ((key, pickle.dumps(value, 5)) for key, value in items.items())
        self._sql.executemany("INSERT OR REPLACE INTO items VALUES (?, ?)", rows)
        self._sql.execute("COMMIT")

    def items(self) -> list[tuple[str, Any]]:
        """Read all items."""
        rows = self._sql.execute("SELECT key, value FROM items").fetchall()
        return [(key, pickle.loads(value)) for key, value in rows]

    def close(self) -> None:
        """Close the database."""
        self._sql.close()


def run(bench: Bench) -> Iterator[Result]:
    """Measure everything in this module."""
    try:
        diskcache = load("diskcache")
    except PeerUnavailable as reason:
        yield Omission("diskcache", str(reason))
    else:
        yield from beside_diskcache(bench, diskcache)
        yield from many_beside_diskcache(bench, diskcache)
    yield from by_hand(bench)
    yield from beside_files(bench)


def beside_diskcache(bench: Bench, diskcache: Any) -> Iterator[Row]:
    """Work on one item."""
    against = "diskcache.Cache"
    numbers = itertools.count()
    new = (f"key{number}" for number in numbers)
    small, medium, large = small_value(), medium_value(), large_value()
    with directories("subject", "peer") as (place, peer), diskcache.Cache(peer) as cache:
        d: SQLiteDict[Any] = SQLiteDict(path=os.path.join(place, "items.db"), fsync=False)
        for title, key, value, limit in (
            ("insert 200 B", "next(keys)", small, 0.5),
            ("overwrite 200 B", "'a'", small, 0.5),
            ("insert 10 KB", "next(keys)", medium, 0.75),
            ("overwrite 10 KB", "'b'", medium, 0.75),
            ("overwrite 1 MB", "'c'", large, 1.0),
        ):
            setting = f"d[{key}] = v"
            yield bench.compare(
                title,
                timed(setting, d=d, v=value, keys=new),
                timed(setting, d=cache, v=value, keys=new),
                against=against,
                at_most=limit,
            )
        for title, statement, limit in (
            ("get 200 B", "d['a']", 1.0),
            ("get 10 KB", "d['b']", 1.0),
            ("get 1 MB", "d['c']", 1.0),
            ("in, 200 B", "'a' in d", 0.9),
        ):
            yield bench.compare(
                title,
                timed(statement, d=d),
                timed(statement, d=cache),
                against=against,
                at_most=limit,
            )
        yield bench.compare(
            "delete 200 B",
            _deleting(d, small),
            _deleting(cache, small),
            against=against,
            at_most=0.4,
        )


def _deleting(mapping: Any, value: Any) -> Measure:
    def insert() -> None:
        mapping["gone"] = value

    return after(insert, timed("del d['gone']", d=mapping))


def many_beside_diskcache(bench: Bench, diskcache: Any) -> Iterator[Row]:
    """Work on many items."""
    against = "diskcache.Index"
    count, bulk = bench.size(_ITEMS, 200), bench.size(_BULK, 50)
    value = small_value()
    items = {f"key{number:05}": value for number in range(count)}
    some = dict(itertools.islice(items.items(), bulk))
    with directories("subject", "peer") as (place, peer):
        d: SQLiteDict[Any] = SQLiteDict(path=os.path.join(place, "items.db"), fsync=False)
        index = diskcache.Index(peer)
        for title, statement, limit in (
            (f"list(d) of {count}", "list(d)", 2.0),
            (f"list(d.items()) of {count}", "list(d.items())", 0.5),
        ):
            if not d:
                d.update(items)
                index.update(items)
            yield bench.compare(
                title,
                timed(statement, d=d),
                timed(statement, d=index),
                against=against,
                at_most=limit,
                items=count,
            )
        yield bench.compare(
            f"update of {bulk}",
            timed("d.update(i)", d=d, i=some),
            timed("d.update(i)", d=index, i=some),
            against=against,
            at_most=0.25,
            items=bulk,
        )
        fresh = SQLiteDict[Any](path=os.path.join(place, "other.db"), fsync=False)
        other = diskcache.Index(os.path.join(peer, "other"))
        yield bench.compare(
            f"clear of {bulk}",
            after(partial(fresh.update, some), timed("d.clear()", d=fresh)),
            after(partial(other.update, some), timed("d.clear()", d=other)),
            against=against,
            at_most=0.7,
            items=bulk,
        )


def by_hand(bench: Bench) -> Iterator[Row]:
    """Compare with the least that the same work takes."""
    against = "sqlite3 + pickle"
    value = small_value()
    count = bench.size(_ITEMS, 200)
    items = {f"key{number:05}": value for number in range(count)}
    new = (f"new{number}" for number in itertools.count())
    with directories("subject", "floor") as (place, floor):
        d: SQLiteDict[Any] = SQLiteDict(path=os.path.join(place, "items.db"), fsync=False)
        raw = ByHand(os.path.join(floor, "items.db"))
        d.update(items)
        raw.set_many(items)
        d["a"] = value
        raw.set("a", value)
        contenders: tuple[tuple[str, str, str, float, int], ...] = (
            ("get 200 B", "d['a']", "raw.get('a')", 1.8, 1),
            ("insert 200 B", "d[next(k)] = v", "raw.set(next(k), v)", 1.95, 1),
            ("overwrite 200 B", "d['a'] = v", "raw.set('a', v)", 1.95, 1),
            (f"list(d.items()) of {count}", "list(d.items())", "raw.items()", 2.2, count),
        )
        for title, subject, hand, limit, size in contenders:
            yield bench.compare(
                title,
                timed(subject, d=d, v=value, k=new),
                timed(hand, raw=raw, v=value, k=new),
                against=against,
                at_most=limit,
                items=size,
            )
        yield bench.compare(
            "delete 200 B",
            _deleting(d, value),
            after(partial(raw.set, "gone", value), timed("raw.delete('gone')", raw=raw)),
            against=against,
            at_most=1.95,
        )
        raw.close()


def beside_files(bench: Bench) -> Iterator[Row]:
    """Compare durable writes with those of a FileDirDict."""
    value = small_value()
    bulk = bench.size(_BULK, 50)
    some = {f"key{number:05}": value for number in range(bulk)}
    new = (f"new{number}" for number in itertools.count())
    with directories("subject", "files") as (place, files):
        d: SQLiteDict[Any] = SQLiteDict(path=os.path.join(place, "items.db"))
        f: FileDirDict[Any] = FileDirDict(base_dir=files)
        rows: tuple[tuple[str, str, float, int], ...] = (
            ("durable insert 200 B", "d[next(k)] = v", 0.5, 1),
            ("durable overwrite 200 B", "d['a'] = v", 0.5, 1),
            (f"durable set_many of {bulk}", "d.set_many(i)", 0.03, bulk),
        )
        for title, statement, limit, size in rows:
            yield bench.compare(
                title,
                timed(statement, d=d, v=value, k=new, i=some),
                timed(statement, d=f, v=value, k=new, i=some),
                against="FileDirDict",
                at_most=limit,
                items=size,
            )
        yield bench.compare(
            f"len(d) of {bulk}",
            timed("len(d)", d=d),
            timed("len(d)", d=f),
            against="FileDirDict",
        )


SUITE: Final = Suite(
    "One database file",
    "`SQLiteDict(fsync=False)` where nothing else is said: SQLite's synchronous=NORMAL, as"
    " diskcache and the statements by hand have it. What is written beside the latter may take"
    " 1.5 of their time, and 30 % more for the queue.",
    run,
)
