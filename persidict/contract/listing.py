"""Listings that can be counted before they are read, so that ``list(d)`` lists only once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

EntryType = TypeVar("EntryType")

_latest: Final = threading.local()


class Listing(Iterator[EntryType], Generic[EntryType]):
    """An iterator over the entries of a dictionary that can tell how many will come.

    ``list(d)`` takes an iterator, then asks for the length of `d`, and only then reads. The
    length comes from this iterator, which keeps what it listed for reading.

    Args:
        owner: Whose entries they are.
        entries: The entries, not yet begun to be read.
    """

    def __init__(self, owner: object, entries: Iterator[EntryType]) -> None:
        self._owner = owner
        self._entries = entries
        self._is_begun = False
        _latest.listing = weakref.ref(self)

    def __next__(self) -> EntryType:
        self._is_begun = True
        return next(self._entries)

    def count(self) -> int:
        """List everything, keep it for reading, and return how much it is."""
        self._is_begun = True  # also if that fails: what is left then is not all there is
        entries = list(self._entries)
        self._entries = iter(entries)
        return len(entries)

    @staticmethod
    def about_to_be_read(owner: object) -> Listing[Any] | None:
        """Return this thread's latest listing if it is the owner's and nothing was read yet."""
        reference = getattr(_latest, "listing", None)
        listing: Listing[Any] | None = None if reference is None else reference()
        if listing is None or listing._owner is not owner or listing._is_begun:
            return None
        return listing
