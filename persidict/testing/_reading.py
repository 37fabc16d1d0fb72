"""Conformance: putting items in, and everything that looks at them without changing any."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any

import pytest

from persidict.jokers_and_status_flags import DELETE_CURRENT, ITEM_NOT_AVAILABLE, KEEP_CURRENT
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple
from persidict.testing._base import AnyDict, ConformanceBase, content_of

ABSENT = NonEmptySafeStrTuple("users", "nobody")


class ReadingTests(ConformanceBase):
    """A dictionary that takes insertions gives back what went in."""

    def test_a_new_dictionary_is_a_persidict_and_a_mutable_mapping(self, d: AnyDict) -> None:
        assert isinstance(d, PersiDict)
        assert isinstance(d, MutableMapping)

    def test_a_new_dictionary_is_empty(self, d: AnyDict) -> None:
        assert (len(d), bool(d), list(d)) == (0, False, [])

    def test_every_value_is_read_back_equal_and_of_the_same_type(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        for number, value in enumerate(values):
            d["item", str(number)] = value
        read = [d["item", str(number)] for number in range(len(values))]
        assert [(type(value), value) for value in read] == [(type(v), v) for v in values]

    def test_len_counts_the_items(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        for number in range(5):
            d["group", str(number)] = values[0]
        assert len(d) == 5

    def test_a_dictionary_with_an_item_is_true(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["deep", "down", "here"] = values[0]
        assert bool(d)

    def test_a_dictionary_contains_its_keys_and_no_others(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a", "b"] = values[0]
        found = [("a", "b") in d, ("a",) in d, ("a", "b", "c") in d, ("b",) in d]
        assert found == [True, False, False, False]

    def test_reading_an_absent_key_raises_key_error_with_the_checked_key(self, d: AnyDict) -> None:
        with pytest.raises(KeyError) as caught:
            d["users", "nobody"]
        assert type(caught.value.args[0]) is NonEmptySafeStrTuple
        assert caught.value.args == (ABSENT,)

    def test_a_key_error_reads_like_that_of_a_dict(self, d: AnyDict) -> None:
        for key in ("nobody", ("users", "nobody")):
            with pytest.raises(KeyError) as caught:
                d[key]
            assert str(caught.value) == repr(key)

    def test_key_errors_are_chained_from_the_storage_s_own_error(self, d: AnyDict) -> None:
        with pytest.raises(KeyError) as caught:
            d["users", "nobody"]
        assert isinstance(caught.value.__cause__, Exception)

    def test_get_returns_the_value_or_the_default(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        assert (d.get("a"), d.get("b"), d.get("b", 7)) == (values[0], None, 7)

    def test_iteration_yields_every_key_once(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        keys = [("a",), ("a", "b"), ("a", "b", "c"), ("b",), ("c", "d")]
        for key in keys:
            d[key] = values[0]
        assert sorted(key.strings for key in d) == keys

    def test_every_key_that_comes_out_is_a_non_empty_safe_str_tuple(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a", "b"] = values[0]
        came_out = [
            *d,
            *d.keys(),
            *(key for key, _ in d.items()),
            *(key for key, _ in d.keys_and_timestamps()),
            *(key for key, _, _ in d.items_and_timestamps()),
            *d.oldest_keys(),
            *d.newest_keys(),
            d.random_key(),
        ]
        assert {type(key) for key in came_out} == {NonEmptySafeStrTuple}

    def test_dict_of_a_dictionary_holds_its_items(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        d["b", "c"] = values[1]
        plain = dict(d)
        assert plain == {
            NonEmptySafeStrTuple("a"): values[0],
            NonEmptySafeStrTuple("b", "c"): values[1],
        }

    def test_setdefault_inserts_what_is_absent(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        assert d.setdefault("a", values[0]) == values[0]
        assert content_of(d) == {("a",): values[0]}

    def test_setdefault_returns_what_is_present(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["a"] = values[0]
        assert d.setdefault("a", values[1]) == values[0]
        assert content_of(d) == {("a",): values[0]}

    @pytest.mark.parametrize("joker", [KEEP_CURRENT, DELETE_CURRENT], ids=repr)
    @pytest.mark.parametrize("present", [False, True], ids=["absent", "present"])
    def test_setdefault_refuses_a_joker(
        self, d: AnyDict, values: tuple[Any, ...], joker: object, present: bool
    ) -> None:
        if present:
            d["a"] = values[0]
        with pytest.raises(TypeError):
            d.setdefault("a", joker)
        assert content_of(d) == ({("a",): values[0]} if present else {})

    def test_assigning_keep_current_to_an_absent_key_does_nothing(self, d: AnyDict) -> None:
        d["a"] = KEEP_CURRENT
        assert "a" not in d

    def test_assigning_keep_current_to_a_present_key_does_nothing(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        before = d.etag("a")
        d["a"] = KEEP_CURRENT
        assert (d["a"], d.etag("a")) == (values[0], before)

    def test_update_takes_a_mapping(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update({"a": values[0], ("b", "c"): values[1]})
        assert content_of(d) == {("a",): values[0], ("b", "c"): values[1]}

    def test_update_takes_pairs(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update(iter([("a", values[0]), (["b", "c"], values[1])]))
        assert content_of(d) == {("a",): values[0], ("b", "c"): values[1]}

    def test_update_takes_keyword_arguments(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update([("a", values[0])], b=values[1], self=values[2])
        assert content_of(d) == {("a",): values[0], ("b",): values[1], ("self",): values[2]}

    def test_update_passes_over_keep_current(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update({"a": values[0]})
        d.update({"a": KEEP_CURRENT, "b": KEEP_CURRENT, "c": values[1]})
        assert content_of(d) == {("a",): values[0], ("c",): values[1]}

    def test_the_update_operator_works_in_place(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        before = d
        d |= {"a": values[0]}
        assert d is before
        assert content_of(d) == {("a",): values[0]}

    @pytest.mark.parametrize("other", [[("a", "text")], 5, None, "ab"], ids=repr)
    def test_the_update_operator_refuses_what_is_no_mapping(self, d: AnyDict, other: Any) -> None:
        with pytest.raises(TypeError):
            d |= other
        assert len(d) == 0

    def test_random_key_of_an_empty_dictionary_is_none(self, d: AnyDict) -> None:
        assert d.random_key() is None

    def test_random_key_finds_every_key(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        keys = [("a",), ("a", "b"), ("c",)]
        for key in keys:
            d[key] = values[0]
        drawn = {key.strings for key in (d.random_key() for _ in range(60)) if key is not None}
        assert drawn == set(keys)

    def test_str_shows_the_content_as_a_dict(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["a", "b"] = values[0]
        shown = str(d)
        assert (shown[0], shown[-1]) == ("{", "}")
        assert f"('a', 'b'): {values[0]!r}" in shown

    def test_etag_is_a_string_that_stays_while_the_item_does(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        first = d.etag("a")
        d["b"] = values[1]
        assert isinstance(first, str)
        assert d.etag("a") == first

    def test_etag_of_an_absent_key_raises_key_error(self, d: AnyDict) -> None:
        with pytest.raises(KeyError) as caught:
            d.etag(["users", "nobody"])
        assert caught.value.args == (ABSENT,)
        assert isinstance(caught.value.__cause__, Exception)

    def test_absence_has_its_own_etag_and_value(self, d: AnyDict) -> None:
        result = d.get_with_etag("a")
        assert result.actual_etag is ITEM_NOT_AVAILABLE
        assert result.new_value is ITEM_NOT_AVAILABLE


class EqualityTests(ConformanceBase):
    """A dictionary equals its other handles, and any mapping with equal content."""

    def test_a_dictionary_equals_itself(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["a"] = values[0]
        assert d == d.get_subdict(())

    def test_a_dictionary_equals_a_dict_with_equal_content(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        d["b", "c"] = values[1]
        assert d == {("a",): values[0], ("b", "c"): values[1]}

    def test_a_dictionary_equals_a_dict_whose_keys_are_plain_strings(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        assert d == {"a": values[0]}

    def test_dictionaries_in_two_places_with_equal_content_are_equal(
        self, d: AnyDict, new_dict: Any, values: tuple[Any, ...]
    ) -> None:
        other = new_dict()
        d["a"] = other["a"] = values[0]
        assert d == other

    @pytest.mark.parametrize("change", ["value", "missing", "extra", "other key"])
    def test_a_dictionary_differs_from_a_mapping_with_other_content(
        self, d: AnyDict, values: tuple[Any, ...], change: str
    ) -> None:
        d["a"] = values[0]
        d["b"] = values[1]
        others: dict[str, Mapping[Any, Any]] = {
            "value": {("a",): values[0], ("b",): values[2]},
            "missing": {("a",): values[0]},
            "extra": {("a",): values[0], ("b",): values[1], ("c",): values[1]},
            "other key": {("a",): values[0], ("c",): values[1]},
        }
        assert d != others[change]

    @pytest.mark.parametrize("other", [None, 5, "a", [("a",)], {1: 2}], ids=repr)
    def test_a_dictionary_differs_from_anything_else_without_an_error(
        self, d: AnyDict, values: tuple[Any, ...], other: object
    ) -> None:
        d["a"] = values[0]
        assert not (d == other)


class ViewTests(ConformanceBase):
    """`keys`, `values` and `items` are real, live views."""

    def test_the_views_are_collections_views(self, d: AnyDict) -> None:
        assert isinstance(d.keys(), KeysView)
        assert isinstance(d.values(), ValuesView)
        assert isinstance(d.items(), ItemsView)

    def test_views_show_what_was_added_after_they_were_made(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        keys, all_values, items = d.keys(), d.values(), d.items()
        d["a"] = values[0]
        assert list(keys) == [("a",)]
        assert list(all_values) == [values[0]]
        assert list(items) == [(NonEmptySafeStrTuple("a"), values[0])]

    def test_views_have_a_length(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update({"a": values[0], "b": values[0]})
        assert [len(d.keys()), len(d.values()), len(d.items())] == [2, 2, 2]

    def test_a_key_is_in_the_keys_whatever_form_it_has(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        view = d.keys()
        forms = ("a", ("a",), ["a"], SafeStrTuple("a"), NonEmptySafeStrTuple("a"))
        assert [form in view for form in forms] == [True] * 5
        assert "b" not in view

    def test_values_and_items_know_what_they_contain(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        assert values[0] in d.values()
        assert values[1] not in d.values()
        assert (NonEmptySafeStrTuple("a"), values[0]) in d.items()
        assert (NonEmptySafeStrTuple("a"), values[1]) not in d.items()
        assert (NonEmptySafeStrTuple("b"), values[0]) not in d.items()

    @pytest.mark.parametrize("no_item", [5, "a", ("a",), ("a", 1, 2)], ids=repr)
    def test_what_is_no_pair_is_in_no_items(
        self, d: AnyDict, values: tuple[Any, ...], no_item: object
    ) -> None:
        d["a"] = values[0]
        assert no_item not in d.items()

    def test_keys_are_ordered_like_sets_of_them(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        a, b = NonEmptySafeStrTuple("a"), NonEmptySafeStrTuple("b")
        d["a"] = values[0]
        for other in ({a}, {a, b}, {b}, set()):
            keys, expected = d.keys(), {a}
            found = [keys < other, keys <= other, keys > other, keys >= other]
            assert found == [
                expected < other,
                expected <= other,
                expected > other,
                expected >= other,
            ]

    def test_the_only_key_is_among_those_that_are_asked_for(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        assert d.keys() & {"a", "b"} == {"a"}

    def test_keys_take_part_in_set_operations(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        a, b, c = (NonEmptySafeStrTuple(part) for part in "abc")
        d.update({"a": values[0], "b": values[0]})
        keys = d.keys()
        assert keys & {b, c} == {b}
        assert keys | {c} == {a, b, c}
        assert keys - {b} == {a}
        assert keys ^ {b, c} == {a, c}
        assert keys == {a, b}
        assert keys <= {a, b, c}
        assert keys.isdisjoint({c})
