"""Listings that can be counted before they are read, so that ``list(d)`` lists only once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final, Self, TypeVar

EntryType = TypeVar("EntryType")

_latest: Final = threading.local()


class _Source:
    """Where the entries of a listing come from, and whose they are.

    Args:
        owner: Whose entries they are.
        entries: The entries.
    """

    __slots__ = ("entries", "is_begun", "owner")

    def __init__(self, owner: object, entries: Iterator[Any]) -> None:
        self.owner = owner
        self.entries: Iterable[Any] = entries
        self.is_begun = False

    def read(self) -> Iterator[Iterable[Any]]:
        """Yield all entries at once, and take note that they are being read."""
        self.is_begun = True
        yield self.entries


class Listing(chain[EntryType]):
    """An iterator over the entries of a dictionary that can tell how many will come.

    ``list(d)`` takes an iterator, then asks for the length of `d`, and only then reads. The
    length comes from this iterator, which keeps what it listed for reading.

    It is a `chain` of one link, so that no call in Python is between it and the entries.

    Args:
        owner: Whose entries they are.
        entries: The entries, not yet begun to be read.
    """

    _source: _Source

    def __new__(cls, owner: object, entries: Iterator[EntryType]) -> Self:
        """Take note of the listing as this thread's latest one; see the class."""
        source = _Source(owner, entries)
        self: Self = cls.from_iterable(source.read())  # type: ignore[assignment]
        self._source = source
        _latest.listing = weakref.ref(self)
        return self

    def count(self) -> int:
        """List everything, keep it for reading, and return how much it is."""
        source = self._source
        source.is_begun = True  # also if that fails: what is left then is not all there is
        source.entries = entries = list(source.entries)
        return len(entries)

    @staticmethod
    def about_to_be_read(owner: object) -> Listing[Any] | None:
        """Return this thread's latest listing if it is the owner's and nothing was read yet."""
        reference = getattr(_latest, "listing", None)
        listing: Listing[Any] | None = None if reference is None else reference()
        if listing is None or listing._source.owner is not owner or listing._source.is_begun:
            return None
        return listing
