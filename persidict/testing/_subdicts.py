"""Conformance: sub-dictionaries are windows on the dictionary that they were taken from."""

from __future__ import annotations

from typing import Any

import pytest

from persidict.jokers_and_status_flags import ETAG_IS_THE_SAME
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple
from persidict.testing._base import AnyDict, ConformanceBase, NewDict, content_of


class SubdictReadingTests(ConformanceBase):
    """A sub-dictionary shows what lies below its prefix."""

    @pytest.mark.parametrize(
        "prefix", ["g", ("g",), ["g"], SafeStrTuple("g"), NonEmptySafeStrTuple("g")], ids=repr
    )
    def test_a_sub_dictionary_shows_the_items_below_its_prefix(
        self, d: AnyDict, values: tuple[Any, ...], prefix: Any
    ) -> None:
        d["g", "a"] = values[0]
        d["g", "b", "c"] = values[1]
        d["other", "a"] = values[2]
        assert content_of(d.get_subdict(prefix)) == {("a",): values[0], ("b", "c"): values[1]}

    def test_a_prefix_is_made_of_whole_strings(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["ab", "c"] = values[0]
        assert content_of(d.get_subdict("a")) == {}

    def test_the_item_under_the_prefix_itself_is_not_below_it(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["g"] = values[0]
        d["g", "a"] = values[1]
        assert content_of(d.get_subdict("g")) == {("a",): values[1]}

    @pytest.mark.parametrize("prefix", [(), [], SafeStrTuple()], ids=repr)
    def test_the_empty_prefix_shows_everything(
        self, d: AnyDict, values: tuple[Any, ...], prefix: Any
    ) -> None:
        d["a"] = values[0]
        d["g", "a"] = values[1]
        assert content_of(d.get_subdict(prefix)) == {("a",): values[0], ("g", "a"): values[1]}

    def test_a_prefix_without_items_gives_an_empty_dictionary(self, d: AnyDict) -> None:
        sub = d.get_subdict(("no", "such"))
        assert (len(sub), bool(sub), list(sub), sub.random_key()) == (0, False, [], None)

    def test_sub_dictionaries_nest(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["a", "b", "c", "d"] = values[0]
        sub = d.get_subdict("a").get_subdict("b")
        assert content_of(sub) == content_of(d.get_subdict(("a", "b"))) == {("c", "d"): values[0]}

    def test_a_sub_dictionary_has_the_class_and_the_settings_of_its_parent(
        self, new_dict: NewDict
    ) -> None:
        d = new_dict(base_class_for_values=str)
        sub = d.get_subdict("g")
        names = ("append_only", "base_class_for_values", "serialization_format")
        assert type(sub) is type(d)
        assert [getattr(sub, name) for name in names] == [getattr(d, name) for name in names]

    def test_what_is_inserted_on_one_side_is_seen_on_the_other(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        sub = d.get_subdict("g")
        sub["a"] = values[0]
        d["g", "b"] = values[1]
        assert content_of(d) == {("g", "a"): values[0], ("g", "b"): values[1]}
        assert content_of(sub) == {("a",): values[0], ("b",): values[1]}

    def test_an_item_has_one_etag_and_one_timestamp_from_both_sides(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["g", "a"] = values[0]
        sub = d.get_subdict("g")
        assert sub.etag("a") == d.etag(("g", "a"))
        assert sub.timestamp("a") == d.timestamp(("g", "a"))

    def test_key_errors_of_a_sub_dictionary_name_its_own_keys(self, d: AnyDict) -> None:
        with pytest.raises(KeyError) as caught:
            d.get_subdict("g")["a"]
        assert caught.value.args == (NonEmptySafeStrTuple("a"),)

    def test_an_awkward_prefix_scopes_like_any_other(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        prefixes = ["a", "A", "a_btax", "a.pkl", ".hidden", "...", "a~", "="]
        for prefix in prefixes:
            d[prefix, "x"] = values[0]
        shown = {prefix: content_of(d.get_subdict(prefix)) for prefix in prefixes}
        assert shown == {prefix: {("x",): values[0]} for prefix in prefixes}

    def test_subdicts_maps_each_first_part_to_its_sub_dictionary(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["g", "a"] = values[0]
        d["g", "b", "c"] = values[1]
        d["h", "a"] = values[2]
        shown = {first: content_of(sub) for first, sub in d.subdicts().items()}
        assert shown == {
            "g": {("a",): values[0], ("b", "c"): values[1]},
            "h": {("a",): values[2]},
        }

    def test_subdicts_is_a_dict_of_strings_and_dictionaries_of_the_same_class(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["g", "a"] = values[0]
        subdicts = d.subdicts()
        assert type(subdicts) is dict
        assert {(type(first), type(sub)) for first, sub in subdicts.items()} == {(str, type(d))}

    def test_a_one_part_key_counts_as_a_first_part(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["single"] = values[0]
        assert {first: len(sub) for first, sub in d.subdicts().items()} == {"single": 0}

    def test_subdicts_tells_awkward_first_parts_apart(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        firsts = {"a", "A", "a_btax", "a_btax_", "a.pkl", "a.json", "a.txt", ".hidden", "..."}
        for first in firsts:
            d[first, "x"] = values[0]
            d[first] = values[1]
        assert set(d.subdicts()) == firsts

    def test_subdicts_of_an_empty_dictionary_is_empty(self, d: AnyDict) -> None:
        assert d.subdicts() == {}


class SubdictChangingTests(ConformanceBase):
    """Changes through a sub-dictionary are changes of its parent, within the prefix."""

    def test_a_change_on_one_side_is_seen_on_the_other(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        sub = d.get_subdict("g")
        sub["a"] = values[0]
        d["g", "a"] = values[1]
        assert sub["a"] == values[1]
        sub["a"] = values[2]
        assert d["g", "a"] == values[2]

    def test_a_removal_on_one_side_is_seen_on_the_other(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        sub = d.get_subdict("g")
        sub.update({"a": values[0], "b": values[1]})
        del d["g", "a"]
        assert content_of(sub) == {("b",): values[1]}
        del sub["b"]
        assert content_of(d) == {}

    def test_clearing_a_sub_dictionary_leaves_the_rest(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.update({"g": values[0], ("g", "a"): values[1], ("ga", "b"): values[2]})
        d.get_subdict("g").clear()
        assert content_of(d) == {("g",): values[0], ("ga", "b"): values[2]}

    def test_popitem_of_a_sub_dictionary_stays_below_its_prefix(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.update({"a": values[0], ("g", "b"): values[1]})
        assert d.get_subdict("g").popitem() == (NonEmptySafeStrTuple("b"), values[1])
        assert content_of(d) == {("a",): values[0]}

    def test_an_etag_from_one_side_is_a_condition_on_the_other(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["g", "a"] = values[0]
        result = d.get_subdict("g").set_item_if(
            "a",
            value=values[1],
            condition=ETAG_IS_THE_SAME,
            expected_etag=d.etag(("g", "a")),
        )
        assert result.condition_was_satisfied
        assert content_of(d) == {("g", "a"): values[1]}
