"""Items that cannot be read, set aside until all others have been."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from persidict.exceptions import ProtectionError, UnreadableItemsError, without_frames
from persidict.safe_str_tuple import NonEmptySafeStrTuple

EntryType = TypeVar("EntryType")

_AT_ONCE: Final = (MemoryError, ImportError, TypeError, ProtectionError)
"""TypeError: the handle wants values of another class than there are."""

_KEPT: Final = 100
_NAMED: Final = 10


class UnreadableItems:
    """What went wrong with some of many items; keeps a bounded number of errors."""

    def __init__(self) -> None:
        self._errors: list[Exception] = []
        self._named: list[str] = []
        self._count = 0

    def add(self, key: NonEmptySafeStrTuple, error: Exception) -> None:
        """Set an item aside.

        Raises:
            Exception: What went wrong concerns other items as well, or somebody's intrusion.
        """
        if isinstance(error, _AT_ONCE):
            raise error
        self._count += 1
        if len(self._errors) < _KEPT:
            error.add_note(f"persidict: item {key!r}")
            self._errors.append(without_frames(error))
            self._named.append(repr(key))

    def absorb(self, error: UnreadableItemsError) -> None:
        """Set aside what has been set aside elsewhere."""
        self._count += error.count
        for one in error.exceptions[: _KEPT - len(self._errors)]:
            self._errors.append(one)
            self._named.append(getattr(one, "__notes__", [""])[-1].removeprefix("persidict: item "))

    def set_aside(self, entries: Iterable[EntryType]) -> Iterator[EntryType]:
        """Yield what comes; set aside what at the end could not be read."""
        try:
            yield from entries
        except UnreadableItemsError as error:
            self.absorb(error)

    def raise_if_any(self) -> None:
        """Raise what has been set aside.

        Raises:
            UnreadableItemsError: Anything has been.
        """
        if not self._errors:
            return
        named = ", ".join(self._named[:_NAMED])
        more = f" and {self._count - _NAMED} more" if self._count > _NAMED else ""
        what = "1 item" if self._count == 1 else f"{self._count} items"
        message = f"{what} could not be read, all others were: {named}{more}"
        raise UnreadableItemsError(message, self._errors, self._count)
