"""Conformance: timestamps, and the order of items by them."""

from __future__ import annotations

from typing import Any

import pytest

from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.testing._base import AnyDict, ConformanceBase


class TimeTests(ConformanceBase):
    """Items know when they were written, and can be listed in that order."""

    @pytest.fixture
    def filled(self, d: AnyDict, values: tuple[Any, ...]) -> AnyDict:
        """Return a dictionary with five items, of which the last key is the oldest."""
        for number in reversed(range(5)):
            d["group", str(number)] = values[number % len(values)]
        return d

    def test_timestamp_is_a_float(self, filled: AnyDict) -> None:
        assert type(filled.timestamp(("group", "0"))) is float

    def test_timestamps_of_later_items_are_not_earlier(self, filled: AnyDict) -> None:
        times = [filled.timestamp(("group", str(number))) for number in reversed(range(5))]
        assert times == sorted(times)

    def test_timestamp_of_an_absent_key_raises_key_error(self, d: AnyDict) -> None:
        with pytest.raises(KeyError) as caught:
            d.timestamp(["users", "nobody"])
        assert caught.value.args == (NonEmptySafeStrTuple("users", "nobody"),)
        assert isinstance(caught.value.__cause__, Exception)

    def test_keys_come_with_their_timestamps(self, filled: AnyDict) -> None:
        assert dict(filled.keys_and_timestamps()) == {key: filled.timestamp(key) for key in filled}

    def test_items_come_with_their_timestamps(self, filled: AnyDict) -> None:
        listed = {key: (value, time) for key, value, time in filled.items_and_timestamps()}
        assert listed == {key: (filled[key], filled.timestamp(key)) for key in filled}

    def test_values_come_with_their_timestamps(self, filled: AnyDict) -> None:
        listed = [(repr(value), time) for value, time in filled.values_and_timestamps()]
        expected = [(repr(filled[key]), filled.timestamp(key)) for key in filled]
        assert sorted(listed) == sorted(expected)

    def test_oldest_keys_are_all_keys_by_ascending_timestamp(self, filled: AnyDict) -> None:
        keys = filled.oldest_keys()
        times = [filled.timestamp(key) for key in keys]
        assert sorted(keys) == sorted(filled)
        assert times == sorted(times)

    def test_newest_keys_are_all_keys_by_descending_timestamp(self, filled: AnyDict) -> None:
        keys = filled.newest_keys()
        times = [filled.timestamp(key) for key in keys]
        assert sorted(keys) == sorted(filled)
        assert times == sorted(times, reverse=True)

    @pytest.mark.parametrize(
        ("max_n", "count"), [(None, 5), (3, 3), (1, 1), (5, 5), (9, 5), (0, 0), (-1, 0)]
    )
    def test_max_n_bounds_how_many_are_returned(
        self, filled: AnyDict, max_n: int | None, count: int
    ) -> None:
        lists: list[list[Any]] = [
            filled.oldest_keys(max_n=max_n),
            filled.newest_keys(max_n=max_n),
            filled.oldest_values(max_n=max_n),
            filled.newest_values(max_n=max_n),
        ]
        assert [len(found) for found in lists] == [count] * 4

    def test_max_n_keeps_those_at_the_wanted_end(self, filled: AnyDict) -> None:
        times = sorted(filled.timestamp(key) for key in filled)
        oldest = [filled.timestamp(key) for key in filled.oldest_keys(max_n=2)]
        newest = [filled.timestamp(key) for key in filled.newest_keys(max_n=2)]
        assert (oldest, newest) == (times[:2], times[:-3:-1])

    def test_oldest_and_newest_values_are_ordered_like_the_keys(self, filled: AnyDict) -> None:
        time_of = {repr(filled[key]): filled.timestamp(key) for key in filled}
        oldest = [time_of[repr(value)] for value in filled.oldest_values()]
        newest = [time_of[repr(value)] for value in filled.newest_values()]
        assert oldest == sorted(time_of.values())
        assert newest == sorted(time_of.values(), reverse=True)

    def test_an_empty_dictionary_has_no_oldest_and_no_newest(self, d: AnyDict) -> None:
        found = [d.oldest_keys(), d.newest_keys(), d.oldest_values(), d.newest_values()]
        assert found == [[], [], [], []]
