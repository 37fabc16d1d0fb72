"""Conformance: many items at once, and ranges of keys in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persidict.exceptions import MutationPolicyError
from persidict.jokers_and_status_flags import DELETE_CURRENT, KEEP_CURRENT
from persidict.testing._base import AnyDict, ConformanceBase, NewDict, as_tuple, content_of
from persidict.testing.model import Key, keys_in_range

_ORDERED_PARTS = st.text(alphabet="aB0-.(~=_", min_size=1, max_size=3).filter(
    lambda part: part not in (".", "..")
)
_ORDERED_KEYS = st.lists(_ORDERED_PARTS, min_size=1, max_size=3).map(tuple)
_BOUNDS = st.one_of(st.none(), st.lists(_ORDERED_PARTS, max_size=2).map(tuple))


class BulkReadingTests(ConformanceBase):
    """Many items are put in and read at once."""

    def test_many_items_are_stored_from_a_mapping(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.set_many({"a": values[0], ("b", "c"): values[1]})
        assert content_of(d) == {("a",): values[0], ("b", "c"): values[1]}

    def test_many_items_are_stored_from_pairs(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.set_many((str(number), values[number % 2]) for number in range(100))
        assert content_of(d) == {(str(number),): values[number % 2] for number in range(100)}

    def test_storing_many_passes_over_keep_current(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.set_many({"a": values[0], "b": KEEP_CURRENT})
        assert content_of(d) == {("a",): values[0]}

    def test_many_items_are_read_with_absent_ones_left_out(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.update({"a": values[0], ("b", "c"): values[1], "d": values[2]})
        found = d.get_many(key for key in ("a", "absent", ["b", "c"], ("absent", "too")))
        assert type(found) is dict
        assert {as_tuple(key): value for key, value in found.items()} == {
            ("a",): values[0],
            ("b", "c"): values[1],
        }

    def test_reading_no_keys_finds_nothing(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["a"] = values[0]
        assert d.get_many([]) == {}

    @pytest.mark.parametrize(("key", "error"), [("a/b", ValueError), (5, TypeError)])
    def test_what_is_no_key_is_refused_among_many(
        self, d: AnyDict, values: tuple[Any, ...], key: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            d.get_many(["a", key])
        with pytest.raises(error):
            d.set_many([("a", values[0]), (key, values[0])])

    def test_a_source_that_breaks_loses_nothing_that_it_had_yielded(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        stored = {f"k{number}": values[number % len(values)] for number in range(50)}

        def breaking_off() -> Iterator[tuple[str, Any]]:
            yield from stored.items()
            raise ConnectionError("the source broke")

        with pytest.raises(ConnectionError):
            d.set_many(breaking_off())
        assert content_of(d) == {(key,): value for key, value in stored.items()}

    @pytest.mark.parametrize("bad", [("a/b", 1), ("a",), 5], ids=repr)
    def test_a_bad_item_among_many_is_an_error_and_all_others_are_stored(
        self, d: AnyDict, values: tuple[Any, ...], bad: Any
    ) -> None:
        with pytest.raises((TypeError, ValueError)):
            d.set_many([("a", values[0]), bad, ("b", values[1])])
        assert content_of(d) == {("a",): values[0], ("b",): values[1]}

    def test_a_dictionary_is_no_value_among_many(
        self, d: AnyDict, new_dict: NewDict, values: tuple[Any, ...]
    ) -> None:
        other = new_dict()
        with pytest.raises(TypeError):
            d.set_many([("a", values[0]), ("b", other)])
        assert "b" not in d


class RangeTests(ConformanceBase):
    """Keys, values and items of a range come in the order of the tuples of strings."""

    @settings(
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,  # every example makes a dictionary of its own
            HealthCheck.differing_executors,  # the suite is made to be inherited
        ],
    )
    @given(
        keys=st.sets(_ORDERED_KEYS, max_size=8),
        prefix=st.lists(_ORDERED_PARTS, max_size=1).map(tuple),
        start=_BOUNDS,
        stop=_BOUNDS,
    )
    def test_a_range_shows_what_lies_between_its_bounds_in_order(
        self,
        new_dict: NewDict,
        values: tuple[Any, ...],
        keys: set[Key],
        prefix: Key,
        start: Key | None,
        stop: Key | None,
    ) -> None:
        d = new_dict()
        stored = {key: values[number % len(values)] for number, key in enumerate(keys)}
        d.set_many(stored)
        if prefix == () and start is None and stop is None:
            start = ()
        expected = keys_in_range(keys, prefix, start, stop)
        found = [as_tuple(key) for key in d.keys(prefix, start, stop)]
        assert found == expected
        assert list(d.values(prefix, start, stop)) == [stored[key] for key in expected]

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"prefix": "g"}, ["g", "g/a", "g/a/x", "g/b"]),
            ({"start": "g"}, ["g", "g/a", "g/a/x", "g/b", "g-", "h"]),
            ({"start": ("g", "a"), "stop": ("g", "b")}, ["g/a", "g/a/x"]),
            ({"stop": "g"}, ["a"]),
            ({"stop": ("g", "a", "x")}, ["a", "g", "g/a"]),
            ({"prefix": "g", "start": ("g", "a", "x")}, ["g/a/x", "g/b"]),
            ({"start": "z"}, []),
            ({"start": "h", "stop": "g"}, []),
        ],
    )
    def test_items_of_a_range_are_its_keys_and_values(
        self, d: AnyDict, values: tuple[Any, ...], arguments: dict[str, Any], expected: list[str]
    ) -> None:
        stored = dict.fromkeys(("h", "g-", "g/b", "g/a/x", "g", "g/a", "a"), values[0])
        d.set_many((name.split("/"), value) for name, value in stored.items())
        items = [("/".join(key), value) for key, value in d.items(**arguments)]
        assert items == [(name, values[0]) for name in expected]

    def test_a_range_is_read_backwards(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        stored = {
            ("a",): values[0],
            ("b", "c"): values[1],
            ("b", "d"): values[2],
            ("e",): values[0],
        }
        d.set_many(stored)
        backwards = [("b", "d"), ("b", "c"), ("a",)]
        assert [as_tuple(key) for key in reversed(d.keys(stop="e"))] == backwards
        assert list(reversed(d.values(stop="e"))) == [stored[key] for key in backwards]
        found = [(as_tuple(key), value) for key, value in reversed(d.items(stop="e"))]
        assert found == [(key, stored[key]) for key in backwards]

    def test_all_keys_have_no_order_to_reverse(self, d: AnyDict) -> None:
        for view in (d.keys(), d.values(), d.items()):
            with pytest.raises(TypeError, match="start="):
                reversed(view)

    def test_a_range_has_a_length(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.set_many((name, values[0]) for name in "abcde")
        assert len(d.keys(start="b", stop="d")) == len(d.items(start="b", stop="d")) == 2
        assert len(d.keys(start="x")) == 0

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("*", ["a", "a-1"]),
            ("**", ["a", "a/b", "a/b/c", "a/x/c", "a-1", "b/b/c"]),
            ("a", ["a"]),
            ("a/b", ["a/b"]),
            ("absent/b", []),
            ("a/*", ["a/b"]),
            ("a/*/c", ["a/b/c", "a/x/c"]),
            ("a/**", ["a", "a/b", "a/b/c", "a/x/c"]),
            ("**/c", ["a/b/c", "a/x/c", "b/b/c"]),
            ("a*", ["a", "a-1"]),
            ("a?1", ["a-1"]),
            ("[!a]/*/[a-c]", ["b/b/c"]),
            ("a/b*/?", ["a/b/c"]),
            (("*", "b", "c"), ["a/b/c", "b/b/c"]),
        ],
    )
    def test_a_pattern_finds_the_keys_that_match_in_their_order(
        self, d: AnyDict, values: tuple[Any, ...], pattern: Any, expected: list[str]
    ) -> None:
        names = ("b/b/c", "a/x/c", "a/b/c", "a/b", "a-1", "a")
        d.set_many((name.split("/"), values[0]) for name in names)
        assert ["/".join(as_tuple(key)) for key in d.glob(pattern)] == expected

    @pytest.mark.parametrize("pattern", ["", "a//b", "../a", "a b/*", "a**/c", ()])
    def test_a_pattern_that_no_key_can_match_is_refused(self, d: AnyDict, pattern: Any) -> None:
        with pytest.raises(ValueError, match="pattern"):
            d.glob(pattern)

    @pytest.mark.parametrize("pattern", [3, None, ["a", 3]])
    def test_what_is_no_pattern_is_refused(self, d: AnyDict, pattern: Any) -> None:
        with pytest.raises(TypeError, match="pattern"):
            d.glob(pattern)


class RangeChangingTests(ConformanceBase):
    """The items of a range are removed by their view."""

    def test_a_range_is_removed_by_its_keys(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.set_many((name, values[0]) for name in "abcde")
        d.discard_many(d.keys(start="b", stop="d"))
        assert sorted(as_tuple(key) for key in d) == [("a",), ("d",), ("e",)]


class BulkChangingTests(ConformanceBase):
    """Many items are replaced and removed at once."""

    def test_storing_many_replaces_values(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update({"a": values[0], "b": values[0]})
        d.set_many({"a": values[1], "b": values[2]})
        assert content_of(d) == {("a",): values[1], ("b",): values[2]}

    def test_of_two_values_for_one_key_the_later_one_stays(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.set_many([("a", values[0]), ("b", values[0]), ("a", values[1])])
        assert content_of(d) == {("a",): values[1], ("b",): values[0]}

    def test_a_value_after_a_deletion_of_the_same_key_stays(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        d.set_many([("a", DELETE_CURRENT), ("a", values[1]), ("b", values[0])])
        assert content_of(d) == {("a",): values[1], ("b",): values[0]}

    def test_a_deletion_after_a_value_of_the_same_key_removes_it(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.set_many([("a", values[1]), ("b", values[0]), ("a", DELETE_CURRENT)])
        assert content_of(d) == {("b",): values[0]}

    def test_many_items_are_removed_and_absent_ones_are_no_error(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.update({"a": values[0], ("b", "c"): values[1], "d": values[2]})
        d.discard_many(key for key in ("a", "absent", ["b", "c"], ("absent", "too")))
        assert content_of(d) == {("d",): values[2]}

    def test_keys_that_break_off_are_removed_as_far_as_they_came(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.update({"a": values[0], "b": values[1], "c": values[2]})

        def breaking_off() -> Iterator[str]:
            yield from ("a", "b")
            raise ConnectionError("the source broke")

        with pytest.raises(ConnectionError):
            d.discard_many(breaking_off())
        assert content_of(d) == {("c",): values[2]}


class BulkAppendOnlyTests(ConformanceBase):
    """The append-only policy holds for each of many items."""

    def test_new_items_are_stored_and_those_that_exist_are_refused(
        self, append_only_d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        append_only_d.update({"old": values[0], "elder": values[0]})
        with pytest.raises(MutationPolicyError) as caught:
            append_only_d.set_many(
                {"a": values[1], "old": values[1], "b": values[1], "elder": values[1]}
            )
        assert caught.value.policy == "append-only"
        assert content_of(append_only_d) == {
            ("old",): values[0],
            ("elder",): values[0],
            ("a",): values[1],
            ("b",): values[1],
        }

    def test_the_error_names_the_items_that_were_refused(
        self, append_only_d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        append_only_d.update({"old": values[0], "elder": values[0]})
        with pytest.raises(MutationPolicyError) as caught:
            append_only_d.set_many({"old": values[1], "new": values[1], "elder": values[1]})
        message = str(caught.value)
        assert ("'old'" in message, "'elder'" in message, "'new'" in message) == (True, True, False)

    @pytest.mark.parametrize("keys", [[], ["absent"], ["old"]], ids=repr)
    def test_removing_many_is_refused(
        self, append_only_d: AnyDict, values: tuple[Any, ...], keys: list[str]
    ) -> None:
        append_only_d["old"] = values[0]
        with pytest.raises(MutationPolicyError):
            append_only_d.discard_many(keys)
        assert content_of(append_only_d) == {("old",): values[0]}
