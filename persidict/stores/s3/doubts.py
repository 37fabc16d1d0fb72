"""Refusals that a later look may show to be mistaken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from persidict.exceptions import ConcurrencyConflictError, PreconditionFailed, WriteTookPlace
from persidict.jokers_and_status_flags import ETagIfExists, ETagValue
from persidict.stores.s3.errors import OUTCOME_UNKNOWN
from persidict.stores.s3.lineage import find_write

_REFUSALS: Final = (PreconditionFailed, ConcurrencyConflictError)


class _Doubt(NamedTuple):
    key: str
    token: str
    expected: ETagIfExists
    look: Callable[[], object]


class Doubts(threading.local):
    """The last refusal of a write within an operation, until the object is looked at again.

    After a refusal most operations look at what is there anyway; examining that reply for
    the write costs no request. Used as a context manager around an operation of a thread,
    which then has to expect WriteTookPlace; outside of one, nothing is doubted.
    """

    def __init__(self) -> None:
        self._last: _Doubt | None = None
        self._outer: list[_Doubt | None] = []

    def __enter__(self) -> None:
        self._outer.append(self._last)
        self._last = None

    def __exit__(self, error_type: object, error: object, traceback: object) -> None:
        try:
            if self._last is not None and isinstance(error, Exception):
                self._settle(self._last.look, error)
        finally:
            self._last = self._outer.pop()

    def _settle(self, look: Callable[[], object], error: Exception) -> None:
        """Look once more, because an operation ends with a refusal or with a look that failed."""
        try:
            look()
        except WriteTookPlace:
            raise
        except Exception as failure:
            if isinstance(error, _REFUSALS):
                failure.add_note(OUTCOME_UNKNOWN)
                raise
            error.add_note(OUTCOME_UNKNOWN)

    def remember(
        self, key: str, token: str, expected: ETagIfExists, look: Callable[[], object]
    ) -> None:
        """Note that a write was refused for its condition.

        Args:
            key: The object.
            token: The write's token.
            expected: The version that it was to replace.
            look: Looks at the object as insistently as it takes, and has it examined.
        """
        if self._outer:
            self._last = _Doubt(key, token, expected, look)

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
