"""Listings by the index of names: page by page, so that no snapshot stays open meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from persidict.stores.object_store import CommonPrefix, ObjectInfo
from persidict.stores.sqlite.connection import Connection

_PAGE: Final = 1000
_FIRST_PAGE: Final = 64
"""So many names are read at first, then more and more: who lists a range stops before long."""

_GROUP_PAGE: Final = 100

LAST: Final = "\U0010ffff"
"""No name goes on with this character: what begins with a prefix lies before both together."""

_BEHIND_GROUP: Final = f"/{LAST}"

INFO: Final = "name, etag, size, modified"


def pages(
    columns: str,
    connection: Callable[[], Connection],
    scope: str,
    prefix: str,
    start_after: str | None,
    page_size: int | None,
    larger: Callable[[int, list[Any]], int] = lambda size, _: max(size, min(4 * size, _PAGE)),
) -> Iterator[list[Any]]:
    """Read rows in the order of names.

    Args:
        columns: What to read, the name first.
        connection: Returns the connection of the thread that reads on.
        scope: What all names of the store begin with.
        prefix: What the names begin with behind that.
        start_after: Only names that are greater, behind that.
        page_size: How many rows the caller wants first; then there are more.
        larger: Tells how many, by how many they were and which.

    Yields:
        Rows, many at once.
    """
    begin, last, end = ">=", scope + prefix, scope + prefix + LAST
    if start_after is not None and start_after >= prefix:
        begin, last = ">", scope + start_after
    size = page_size or _FIRST_PAGE
    while True:
        rows = connection().rows(
            f"SELECT {columns} FROM objects WHERE name {begin} ? AND name < ?"
            " ORDER BY name LIMIT ?",
            (last, end, size),
        )
        if rows:
            yield rows
        if len(rows) < size:
            return
        begin, last = ">", rows[-1][0]
        size = larger(size, rows)


def grouped(
    connection: Callable[[], Connection],
    scope: str,
    prefix: str,
    start_after: str | None,
    page_size: int | None,
) -> Iterator[ObjectInfo | CommonPrefix]:
    """List with names rolled up at the next slash; a group costs one query, however large."""
    cut = len(scope)
    last = start_after
    while True:
        group = None
        for rows in pages(INFO, connection, scope, prefix, last, page_size or _GROUP_PAGE):
            for name, etag, size, modified in rows:
                end = name.find("/", cut + len(prefix))
                if end >= 0:
                    group = name[cut : end + 1]
                    break
                yield ObjectInfo(name[cut:], etag, size, modified)
            if group is not None:
                break
        if group is None:
            return
        if start_after is None or group > start_after:
            yield CommonPrefix(group)
        last = group[:-1] + _BEHIND_GROUP
