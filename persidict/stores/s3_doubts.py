"""Refusals that a later look may show to be mistaken."""

from __future__ import annotations

import threading
from typing import NamedTuple

from persidict.jokers_and_status_flags import ETagIfExists, ETagValue
from persidict.stores.s3_lineage import find_write


class WriteTookPlace(Exception):
    """A write that was refused as a duplicate had been carried out the first time.

    Something between client and server delivered the request twice and passed on the
    second answer. Raised by the look that follows a refusal, in place of its result.

    Attributes:
        replaced: The version that the write replaced, ITEM_NOT_AVAILABLE if it inserted.
        etag: The version that it made.
    """

    def __init__(self, replaced: ETagIfExists, etag: ETagValue) -> None:
        super().__init__(f"the write took place and made version {etag}")
        self.replaced = replaced
        self.etag = etag


class _Doubt(NamedTuple):
    key: str
    token: str
    expected: ETagIfExists


class Doubts(threading.local):
    """The last refusal of a write within an operation, until the object is looked at again.

    After a refusal the operation looks at what is there anyway; examining that reply for
    the write costs no request. Used as a context manager around an operation of a thread,
    which then has to expect WriteTookPlace; outside of one, nothing is doubted.
    """

    def __init__(self) -> None:
        self._last: _Doubt | None = None
        self._outer: list[_Doubt | None] = []

    def __enter__(self) -> None:
        self._outer.append(self._last)
        self._last = None

    def __exit__(self, *exc_info: object) -> None:
        self._last = self._outer.pop()

    def remember(self, key: str, token: str, expected: ETagIfExists) -> None:
        """Note that a write was refused for its condition."""
        if self._outer:
            self._last = _Doubt(key, token, expected)

    @property
    def pending_key(self) -> str | None:
        """The key of the refusal that has not been examined yet, None if there is none."""
        return None if self._last is None else self._last.key

    def examine(self, key: str, current: ETagValue, lineage: str | None) -> None:
        """Look for the write that was refused last in what is there now.

        Raises:
            WriteTookPlace: It is there.
        """
        doubt = self._last
        if doubt is None or doubt.key != key:
            return
        self._last = None
        made = find_write(doubt.token, doubt.expected, lineage, current).etag
        if made is not None:
            raise WriteTookPlace(doubt.expected, made)
