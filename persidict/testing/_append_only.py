"""Conformance: the append-only policy, operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from persidict.exceptions import MutationPolicyError
from persidict.jokers_and_status_flags import (
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    ETagConditionFlag,
    OperationResult,
)
from persidict.testing._base import AnyDict, ConformanceBase, content_of
from persidict.testing._conditions import CONDITIONS, Bench

ON_ABSENCE: dict[str, Any] = {"condition": ETAG_IS_THE_SAME, "expected_etag": ITEM_NOT_AVAILABLE}
ON_PRESENCE: dict[str, Any] = {"condition": ETAG_HAS_CHANGED, "expected_etag": ITEM_NOT_AVAILABLE}

INSERTIONS: dict[str, Callable[[AnyDict, Any, Any], object]] = {
    "assignment": lambda d, key, value: d.__setitem__(key, value),
    "setdefault": lambda d, key, value: d.setdefault(key, value),
    "update": lambda d, key, value: d.update({key: value}),
    "set_item_if": lambda d, key, value: d.set_item_if(key, value=value, **ON_ABSENCE),
    "setdefault_if": lambda d, key, value: d.setdefault_if(key, default_value=value, **ON_ABSENCE),
}

CHANGES: dict[str, Callable[[AnyDict, Any, Any], object]] = {
    "assignment": lambda d, key, value: d.__setitem__(key, value),
    "update": lambda d, key, value: d.update({key: value}),
    "update operator": lambda d, key, value: d.__ior__({key: value}),
    "set_item_if": lambda d, key, value: d.set_item_if(key, value=value, **ON_PRESENCE),
}

DELETIONS: dict[str, Callable[[AnyDict, Any], object]] = {
    "del": lambda d, key: d.__delitem__(key),
    "assignment": lambda d, key: d.__setitem__(key, DELETE_CURRENT),
    "update": lambda d, key: d.update({key: DELETE_CURRENT}),
    "discard": lambda d, key: d.discard(key),
    "delete_if_exists": lambda d, key: d.delete_if_exists(key),
    "pop": lambda d, key: d.pop(key),
    "pop with a default": lambda d, key: d.pop(key, None),
    "popitem": lambda d, key: d.popitem(),
    "clear": lambda d, key: d.clear(),
}


class AppendOnlyTests(ConformanceBase):
    """An append-only dictionary takes new items, and never changes or removes one."""

    def test_an_append_only_dictionary_says_so(self, append_only_d: AnyDict) -> None:
        assert append_only_d.append_only is True

    @pytest.mark.parametrize("operation", list(INSERTIONS))
    def test_inserting_is_allowed(
        self, append_only_d: AnyDict, values: tuple[Any, ...], operation: str
    ) -> None:
        INSERTIONS[operation](append_only_d, "a", values[0])
        assert content_of(append_only_d) == {("a",): values[0]}

    @pytest.mark.parametrize("operation", list(CHANGES))
    @pytest.mark.parametrize("same", [False, True], ids=["another value", "an equal value"])
    def test_changing_an_item_is_refused(
        self, append_only_d: AnyDict, values: tuple[Any, ...], operation: str, same: bool
    ) -> None:
        append_only_d["a"] = values[0]
        with pytest.raises(MutationPolicyError) as caught:
            CHANGES[operation](append_only_d, "a", values[0 if same else 1])
        assert caught.value.policy == "append-only"
        assert content_of(append_only_d) == {("a",): values[0]}

    @pytest.mark.parametrize("operation", list(DELETIONS))
    @pytest.mark.parametrize("present", [True, False], ids=["present", "absent"])
    def test_deleting_is_refused_before_the_key_is_looked_for(
        self, append_only_d: AnyDict, values: tuple[Any, ...], operation: str, present: bool
    ) -> None:
        if present:
            append_only_d["a"] = values[0]
        with pytest.raises(MutationPolicyError) as caught:
            DELETIONS[operation](append_only_d, "a")
        assert caught.value.policy == "append-only"
        assert content_of(append_only_d) == ({("a",): values[0]} if present else {})

    def test_setdefault_returns_what_is_present_in_an_append_only_dictionary(
        self, append_only_d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        append_only_d["a"] = values[0]
        assert append_only_d.setdefault("a", values[1]) == values[0]

    def test_assigning_keep_current_is_no_change(
        self, append_only_d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        append_only_d["a"] = values[0]
        append_only_d["a"] = KEEP_CURRENT
        assert content_of(append_only_d) == {("a",): values[0]}

    def test_a_sub_dictionary_of_an_append_only_dictionary_refuses_changes(
        self, append_only_d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        append_only_d["g", "a"] = values[0]
        with pytest.raises(MutationPolicyError):
            append_only_d.get_subdict("g")["a"] = values[1]
        assert append_only_d.get_subdict("g").append_only is True

    def test_reading_conditionally_follows_the_tables_in_an_append_only_dictionary(
        self, append_only_d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        bench = Bench(append_only_d, values)
        bench.compare(ETAG_HAS_CHANGED, bench.d.get_item_if, bench.model.get_item_if)

    @pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
    def test_setdefault_if_follows_the_tables_in_an_append_only_dictionary(
        self, append_only_d: AnyDict, values: tuple[Any, ...], condition: ETagConditionFlag
    ) -> None:
        bench = Bench(append_only_d, values)
        bench.compare(
            condition, bench.d.setdefault_if, bench.model.setdefault_if, default_value=values[1]
        )

    @pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
    @pytest.mark.parametrize("what", ["value", "KEEP_CURRENT", "DELETE_CURRENT"])
    def test_set_item_if_reports_unmet_conditions_and_refuses_met_ones_that_change(
        self,
        append_only_d: AnyDict,
        values: tuple[Any, ...],
        condition: ETagConditionFlag,
        what: str,
    ) -> None:
        jokers = {"KEEP_CURRENT": KEEP_CURRENT, "DELETE_CURRENT": DELETE_CURRENT}
        bench = Bench(append_only_d, values)
        bench.compare(
            condition,
            bench.d.set_item_if,
            bench.model.set_item_if,
            value=jokers.get(what, values[1]),
        )


class AppendOnlyTransformTests(ConformanceBase):
    """`discard_if` and `transform_item` of storages that are append-only by a parameter."""

    @pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
    def test_discard_if_reports_unmet_conditions_and_refuses_met_ones(
        self, append_only_d: AnyDict, values: tuple[Any, ...], condition: ETagConditionFlag
    ) -> None:
        bench = Bench(append_only_d, values)
        bench.compare(condition, bench.d.discard_if, bench.model.discard_if, retrieving=False)

    def test_transforming_an_absent_item_inserts_it(
        self, append_only_d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        result = append_only_d.transform_item("a", transformer=lambda _: values[0])
        assert result == OperationResult(append_only_d.etag("a"), values[0])

    def test_transforming_to_keep_current_is_no_change(
        self, append_only_d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        append_only_d["a"] = values[0]
        result = append_only_d.transform_item("a", transformer=lambda _: KEEP_CURRENT)
        assert result == OperationResult(append_only_d.etag("a"), values[0])

    @pytest.mark.parametrize("what", ["value", "DELETE_CURRENT"])
    def test_transforming_a_present_item_to_something_else_is_refused(
        self, append_only_d: AnyDict, values: tuple[Any, ...], what: str
    ) -> None:
        append_only_d["a"] = values[0]
        answer = values[1] if what == "value" else DELETE_CURRENT
        with pytest.raises(MutationPolicyError) as caught:
            append_only_d.transform_item("a", transformer=lambda _: answer)
        assert caught.value.policy == "append-only"
        assert content_of(append_only_d) == {("a",): values[0]}
