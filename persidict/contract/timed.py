"""Operations that tell when items were last written."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic

from persidict.checks import check_int_or_none
from persidict.construction import names_its_arguments
from persidict.contract.primitives import DictPrimitives
from persidict.jokers_and_status_flags import ValueType
from persidict.safe_str_tuple import NonEmptySafeStrTuple


class TimedOperations(DictPrimitives, Generic[ValueType]):
    """Listing items with the times of their last writing, written once on the primitives."""

    def keys_and_timestamps(self) -> Iterator[tuple[NonEmptySafeStrTuple, float]]:
        """Iterate over keys and the times of their last writing, in POSIX seconds."""
        return self._dated_keys()

    def values_and_timestamps(self) -> Iterator[tuple[ValueType, float]]:
        """Iterate over values and the times of their last writing, in POSIX seconds."""
        for _, value, last_modified in self._items():
            yield value, last_modified

    def items_and_timestamps(self) -> Iterator[tuple[NonEmptySafeStrTuple, ValueType, float]]:
        """Iterate over (key, value, time of last writing in POSIX seconds)."""
        return self._items()

    @names_its_arguments
    def oldest_keys(self, *, max_n: int | None = None) -> list[NonEmptySafeStrTuple]:
        """Return keys, the longest unwritten first.

        Args:
            max_n: How many at most; None: all; zero or less: none.
        """
        return self._keys_by_age(max_n, newest_first=False)

    @names_its_arguments
    def newest_keys(self, *, max_n: int | None = None) -> list[NonEmptySafeStrTuple]:
        """Return keys, the last written first.

        Args:
            max_n: How many at most; None: all; zero or less: none.
        """
        return self._keys_by_age(max_n, newest_first=True)

    @names_its_arguments
    def oldest_values(self, *, max_n: int | None = None) -> list[ValueType]:
        """Return the values of `oldest_keys`; items that vanish meanwhile are left out."""
        return self._values_of(self.oldest_keys(max_n=max_n))

    @names_its_arguments
    def newest_values(self, *, max_n: int | None = None) -> list[ValueType]:
        """Return the values of `newest_keys`; items that vanish meanwhile are left out."""
        return self._values_of(self.newest_keys(max_n=max_n))

    def _keys_by_age(self, max_n: int | None, *, newest_first: bool) -> list[NonEmptySafeStrTuple]:
        check_int_or_none("max_n", max_n)
        if max_n is not None and max_n <= 0:
            return []

        def age(dated: tuple[NonEmptySafeStrTuple, float]) -> float:
            return dated[1]

        if max_n is None:
            dated_keys = sorted(self._dated_keys(), key=age, reverse=newest_first)
        else:
            pick = heapq.nlargest if newest_first else heapq.nsmallest
            dated_keys = pick(max_n, self._dated_keys(), key=age)
        return [key for key, _ in dated_keys]

    def _values_of(self, keys: list[NonEmptySafeStrTuple]) -> list[ValueType]:
        return [value for _, value in self._load_many(keys)]
