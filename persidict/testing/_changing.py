"""Conformance: changing and removing items, and what must not change them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from persidict.jokers_and_status_flags import (
    DELETE_CURRENT,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
)
from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.testing._base import AnyDict, ConformanceBase, NewDict, content_of

ABSENT = NonEmptySafeStrTuple("users", "nobody")


class ChangingTests(ConformanceBase):
    """A mutable dictionary changes and removes items as `dict` does."""

    def test_assignment_replaces_the_value(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["a"] = values[0]
        d["a"] = values[1]
        assert content_of(d) == {("a",): values[1]}

    def test_update_replaces_values(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["a"] = values[0]
        d.update({"a": values[1]})
        assert content_of(d) == {("a",): values[1]}

    def test_del_removes_the_item(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update({"a": values[0], ("a", "b"): values[1]})
        del d["a"]
        assert content_of(d) == {("a", "b"): values[1]}

    def test_what_was_removed_can_be_stored_again(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a", "b"] = values[0]
        del d["a", "b"]
        d["a", "b"] = values[1]
        assert content_of(d) == {("a", "b"): values[1]}

    @pytest.mark.parametrize("operation", ["del", "pop"])
    def test_removing_an_absent_key_raises_key_error(self, d: AnyDict, operation: str) -> None:
        with pytest.raises(KeyError) as caught:
            if operation == "del":
                del d["users", "nobody"]
            else:
                d.pop(("users", "nobody"))
        assert type(caught.value.args[0]) is NonEmptySafeStrTuple
        assert caught.value.args == (ABSENT,)
        assert isinstance(caught.value.__cause__, Exception)

    @pytest.mark.parametrize("name", ["discard", "delete_if_exists"])
    def test_discard_tells_whether_there_was_something_to_remove(
        self, d: AnyDict, values: tuple[Any, ...], name: str
    ) -> None:
        d["a"] = values[0]
        discard = getattr(d, name)
        assert [discard("a"), discard("a")] == [True, False]
        assert len(d) == 0

    def test_pop_returns_the_value_and_removes_the_item(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.update({"a": values[0], "b": values[1]})
        assert d.pop("a") == values[0]
        assert content_of(d) == {("b",): values[1]}

    def test_pop_with_a_default_returns_it_for_an_absent_key(self, d: AnyDict) -> None:
        assert d.pop("a", None) is None
        assert d.pop("a", "default") == "default"

    def test_popitem_hands_out_every_item_once(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        expected = {("a",): values[0], ("a", "b"): values[1], ("c",): values[2]}
        d.update(expected)
        popped = [d.popitem() for _ in expected]
        assert {key.strings: value for key, value in popped} == expected
        assert len(d) == 0

    def test_popitem_of_an_empty_dictionary_raises_key_error(self, d: AnyDict) -> None:
        with pytest.raises(KeyError):
            d.popitem()

    def test_clear_removes_everything(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update({"a": values[0], ("a", "b"): values[1], ("c", "d", "e"): values[2]})
        d.clear()
        assert content_of(d) == {}

    def test_assigning_delete_current_discards_the_item(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d.update({"a": values[0], "b": values[1]})
        d["a"] = DELETE_CURRENT
        assert content_of(d) == {("b",): values[1]}

    def test_assigning_delete_current_to_an_absent_key_does_nothing(self, d: AnyDict) -> None:
        d["a"] = DELETE_CURRENT
        assert len(d) == 0

    def test_update_discards_where_it_is_told_to(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update({"a": values[0], "b": values[1]})
        d.update({"a": DELETE_CURRENT, "b": values[2], "c": DELETE_CURRENT})
        assert content_of(d) == {("b",): values[2]}

    def test_a_replaced_value_has_another_etag(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        seen = []
        for value in values:
            d["a"] = value
            seen.append(d.etag("a"))
        assert len(set(seen)) == len(values)

    def test_writing_an_equal_value_gives_a_new_etag(
        self, d: AnyDict, values: tuple[Any, ...], etags_never_repeat: bool
    ) -> None:
        if not etags_never_repeat:
            pytest.skip("the ETags of this storage name the content")
        seen = []
        for _ in range(20):
            d["a"] = values[0]
            seen.append(d.etag("a"))
        assert len(set(seen)) == 20

    def test_an_item_that_was_removed_comes_back_under_a_new_etag(
        self, d: AnyDict, values: tuple[Any, ...], etags_never_repeat: bool
    ) -> None:
        if not etags_never_repeat:
            pytest.skip("the ETags of this storage name the content")
        seen = []
        for _ in range(20):
            d["a"] = values[0]
            seen.append(d.etag("a"))
            del d["a"]
        assert len(set(seen)) == 20

    def test_an_item_that_vanishes_while_iterating_is_skipped(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        keys = [("group", str(number)) for number in range(5)]
        d.update(dict.fromkeys(keys, values[0]))
        listing = iter(d.items())
        first, _ = next(listing)
        for key in keys:
            d.get_subdict(()).discard(key)
        rest = {key.strings for key, _ in listing}
        assert rest <= set(keys) - {first.strings}

    def test_a_refused_value_leaves_the_old_one(
        self, d: AnyDict, new_dict: NewDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        with pytest.raises(TypeError):
            d["a"] = new_dict()
        assert content_of(d) == {("a",): values[0]}


class IsolationTests(ConformanceBase):
    """What is stored lives apart from what the program holds.

    Formats that hold text have nothing to show here: a text can't be changed.
    """

    @pytest.fixture
    def mutable_value(self, d: AnyDict) -> list[Any]:
        """Return a value that can be changed in place."""
        if d.serialization_format not in ("pkl", "json"):
            pytest.skip(f"values of format {d.serialization_format!r} can't be changed in place")
        return [1, {"inner": [2]}]

    def test_changing_an_object_after_storing_it_changes_nothing(
        self, d: AnyDict, mutable_value: list[Any]
    ) -> None:
        before = copy.deepcopy(mutable_value)
        d["a"] = mutable_value
        mutable_value[1]["inner"].append(3)
        assert d["a"] == before

    def test_changing_an_object_after_storing_it_on_a_condition_changes_nothing(
        self, d: AnyDict, mutable_value: list[Any]
    ) -> None:
        before = copy.deepcopy(mutable_value)
        result = d.set_item_if(
            "a",
            value=mutable_value,
            condition=ETAG_IS_THE_SAME,
            expected_etag=ITEM_NOT_AVAILABLE,
        )
        result.new_value[1]["inner"].append(3)
        assert d["a"] == before

    def test_changing_what_setdefault_returns_changes_nothing(
        self, d: AnyDict, mutable_value: list[Any]
    ) -> None:
        before = copy.deepcopy(mutable_value)
        d.setdefault("a", mutable_value)[1]["inner"].append(3)
        d.setdefault("a", mutable_value)[1]["inner"].append(3)
        assert d["a"] == before

    def test_changing_an_object_that_was_read_changes_nothing(
        self, d: AnyDict, mutable_value: list[Any]
    ) -> None:
        d["a"] = mutable_value
        readings = [
            d["a"],
            d.get("a"),
            d.get_with_etag("a").new_value,
            *d.values(),
            *dict(d.items()).values(),
            *d.newest_values(),
        ]
        for value in readings:
            value[1]["inner"].append(3)
        assert d["a"] == mutable_value

    def test_changing_what_a_transformer_was_given_changes_nothing(
        self, d: AnyDict, mutable_value: list[Any]
    ) -> None:
        d["a"] = mutable_value
        d.transform_item("a", transformer=_change_but_keep)
        assert d["a"] == mutable_value


def _change_but_keep(current: Any) -> Any:
    """Change the object in place, but tell the dictionary to keep what it has."""
    current[1]["inner"].append(3)
    return KEEP_CURRENT
