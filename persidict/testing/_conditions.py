"""Conformance: conditional operations, every row of every table, against the model.

Each test goes through all the combinations of what the item went through, which ETag the
caller expects, and what the caller wants to be told, each on a key of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import pytest

from persidict.jokers_and_status_flags import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    IF_ETAG_CHANGED,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    NEVER_RETRIEVE,
    VALUE_NOT_RETRIEVED,
    ConditionalOperationResult,
    ETagConditionFlag,
    ETagIfExists,
    ETagValue,
)
from persidict.testing._base import AnyDict, ConformanceBase, content_of, model_of
from persidict.testing.model import DictModel, Key, outcome_of

CONDITIONS = (ANY_ETAG, ETAG_IS_THE_SAME, ETAG_HAS_CHANGED)
RETRIEVALS = (ALWAYS_RETRIEVE, NEVER_RETRIEVE, IF_ETAG_CHANGED)
EXPECTATIONS = ("current", "stale", "of another item", "absent")
HISTORIES = ("never written", "written", "overwritten", "deleted", "written again")

NO_ETAGS = ("", "0", "00", "9" * 5000, "*", '"*"', 'W/"a"', '"a", "b"', '"a\nb"', '"\u2603"', "\0")
"""Texts that are no version's ETag, though some are a condition of their own to a service."""

Operation = Callable[..., ConditionalOperationResult]


class Case(NamedTuple):
    """One combination, on a key of its own.

    Attributes:
        key: The item's key.
        arguments: `condition`, `expected_etag`, and `retrieve_value` where it is taken.
        description: The combination in words, for messages.
    """

    key: Key
    arguments: dict[str, Any]
    description: str


class Bench:
    """A dictionary and its model side by side, with items of every history.

    Args:
        d: An empty dictionary.
        values: Distinct values that it can hold.
    """

    def __init__(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        self.d = d
        self.model: DictModel = model_of(d)
        self._values = values
        self._other = self._put(("other",), values[3])
        self._histories = HISTORIES[:2] if d.append_only else HISTORIES

    def _put(self, key: Key, value: Any) -> ETagIfExists:
        self.d[key] = value
        self.model.setitem(key, value)
        return self.model.etag(key)

    def _remove(self, key: Key) -> None:
        del self.d[key]
        self.model.delitem(key)

    def _give_history(self, key: Key, history: str) -> None:
        if history == "never written":
            return
        self._put(key, self._values[0])
        if history == "overwritten":
            self._put(key, self._values[1])
        if history in ("deleted", "written again"):
            self._remove(key)
        if history == "written again":
            self._put(key, self._values[2])

    def _expected(self, key: Key, expectation: str) -> ETagIfExists:
        match expectation:
            case "current":
                return self.model.etag(key)
            case "stale":
                return self.model.history.get(key, [ITEM_NOT_AVAILABLE])[0]
            case "of another item":
                return self._other
            case _:
                return ITEM_NOT_AVAILABLE

    def cases(self, condition: ETagConditionFlag, *, retrieving: bool) -> Iterator[Case]:
        """Prepare and yield an item for every combination."""
        retrievals = RETRIEVALS if retrieving else RETRIEVALS[:1]
        combinations = product(self._histories, EXPECTATIONS, retrievals)
        for number, (history, expectation, retrieval) in enumerate(combinations):
            key = ("item", str(number))
            self._give_history(key, history)
            arguments: dict[str, Any] = {
                "condition": condition,
                "expected_etag": self._expected(key, expectation),
            }
            if retrieving:
                arguments["retrieve_value"] = retrieval
            yield Case(key, arguments, f"{history}, expecting {expectation}, {retrieval!r}")

    def compare(
        self,
        condition: ETagConditionFlag,
        operation: Operation,
        oracle: Operation,
        *,
        retrieving: bool = True,
        **value: Any,
    ) -> None:
        """Run all the cases on both, and check results and content after each."""
        for case in self.cases(condition, retrieving=retrieving):
            arguments = {**case.arguments, **value}
            found = outcome_of(partial(operation, case.key, **arguments))
            expected = outcome_of(partial(oracle, case.key, **arguments))
            assert found == expected, case.description
            stored, modelled = self.d.get_with_etag(case.key), self.model.get_with_etag(case.key)
            assert stored == modelled, f"afterwards: {case.description}"


class ConditionalReadTests(ConformanceBase):
    """Conditional operations that read or insert: for every dictionary that takes insertions."""

    @pytest.fixture
    def bench(self, d: AnyDict, values: tuple[Any, ...]) -> Bench:
        """Return the dictionary beside its model."""
        return Bench(d, values)

    def test_get_with_etag_always_fetches_the_current_version(self, bench: Bench) -> None:
        for case in bench.cases(ANY_ETAG, retrieving=False):
            found = bench.d.get_with_etag(case.key)
            assert found == bench.model.get_with_etag(case.key), case.description

    @pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
    def test_get_item_if_answers_by_the_tables(
        self, bench: Bench, condition: ETagConditionFlag
    ) -> None:
        bench.compare(condition, bench.d.get_item_if, bench.model.get_item_if)

    @pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
    def test_setdefault_if_answers_by_the_tables(
        self, bench: Bench, values: tuple[Any, ...], condition: ETagConditionFlag
    ) -> None:
        bench.compare(
            condition, bench.d.setdefault_if, bench.model.setdefault_if, default_value=values[3]
        )

    def test_get_item_if_retrieves_if_the_etag_changed_when_not_told_otherwise(
        self, bench: Bench
    ) -> None:
        bench.compare(ANY_ETAG, bench.d.get_item_if, bench.model.get_item_if, retrieving=False)

    def test_setdefault_if_retrieves_if_the_etag_changed_when_not_told_otherwise(
        self, bench: Bench, values: tuple[Any, ...]
    ) -> None:
        bench.compare(
            ANY_ETAG,
            bench.d.setdefault_if,
            bench.model.setdefault_if,
            retrieving=False,
            default_value=values[3],
        )

    def test_setdefault_if_inserts_if_absent(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        result = d.setdefault_if(
            "a",
            default_value=values[0],
            condition=ETAG_IS_THE_SAME,
            expected_etag=ITEM_NOT_AVAILABLE,
        )
        assert result == ConditionalOperationResult(
            True, ITEM_NOT_AVAILABLE, d.etag("a"), values[0]
        )
        assert result.value_was_mutated

    @pytest.mark.parametrize("joker", [KEEP_CURRENT, DELETE_CURRENT], ids=repr)
    @pytest.mark.parametrize("present", [False, True], ids=["absent", "present"])
    def test_setdefault_if_refuses_a_joker(
        self, d: AnyDict, values: tuple[Any, ...], joker: object, present: bool
    ) -> None:
        if present:
            d["a"] = values[0]
        with pytest.raises(TypeError):
            d.setdefault_if(
                "a",
                default_value=joker,
                condition=ANY_ETAG,
                expected_etag=ITEM_NOT_AVAILABLE,
            )
        assert content_of(d) == ({("a",): values[0]} if present else {})

    @pytest.mark.parametrize(
        "condition", [None, "ANY_ETAG", True, ETagConditionFlag(), type(ANY_ETAG)], ids=repr
    )
    @pytest.mark.parametrize("operation", ["get_item_if", "setdefault_if"])
    def test_an_unknown_condition_is_refused(
        self, d: AnyDict, values: tuple[Any, ...], operation: str, condition: Any
    ) -> None:
        d["a"] = values[0]
        default = {"default_value": values[1]} if operation == "setdefault_if" else {}
        with pytest.raises(ValueError):
            getattr(d, operation)("a", condition=condition, expected_etag=d.etag("a"), **default)

    @pytest.mark.parametrize("retrieve_value", [None, True, "ALWAYS_RETRIEVE"], ids=repr)
    @pytest.mark.parametrize("operation", ["get_item_if", "setdefault_if"])
    def test_an_unknown_retrieve_value_is_refused(
        self, d: AnyDict, values: tuple[Any, ...], operation: str, retrieve_value: Any
    ) -> None:
        d["a"] = values[0]
        default = {"default_value": values[1]} if operation == "setdefault_if" else {}
        with pytest.raises(TypeError):
            getattr(d, operation)(
                "a",
                condition=ANY_ETAG,
                expected_etag=d.etag("a"),
                retrieve_value=retrieve_value,
                **default,
            )


class ConditionalChangeTests(ConformanceBase):
    """Conditional operations that change or delete: for every mutable dictionary."""

    @pytest.fixture
    def bench(self, d: AnyDict, values: tuple[Any, ...]) -> Bench:
        """Return the dictionary beside its model."""
        return Bench(d, values)

    @pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
    @pytest.mark.parametrize(
        "what", ["another value", "an equal value", *map(repr, (KEEP_CURRENT, DELETE_CURRENT))]
    )
    def test_set_item_if_answers_by_the_tables(
        self, bench: Bench, values: tuple[Any, ...], condition: ETagConditionFlag, what: str
    ) -> None:
        value = {
            "another value": values[3],
            "an equal value": values[0],
            "KEEP_CURRENT": KEEP_CURRENT,
            "DELETE_CURRENT": DELETE_CURRENT,
        }[what]
        bench.compare(condition, bench.d.set_item_if, bench.model.set_item_if, value=value)

    @pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
    def test_discard_if_answers_by_the_tables(
        self, bench: Bench, condition: ETagConditionFlag
    ) -> None:
        bench.compare(condition, bench.d.discard_if, bench.model.discard_if, retrieving=False)

    def test_set_item_if_retrieves_if_the_etag_changed_when_not_told_otherwise(
        self, bench: Bench, values: tuple[Any, ...]
    ) -> None:
        bench.compare(
            ETAG_IS_THE_SAME,
            bench.d.set_item_if,
            bench.model.set_item_if,
            retrieving=False,
            value=values[3],
        )

    def test_set_item_if_inserts_if_absent(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        result = d.set_item_if(
            "a",
            value=values[0],
            condition=ETAG_IS_THE_SAME,
            expected_etag=ITEM_NOT_AVAILABLE,
        )
        assert result == ConditionalOperationResult(
            True, ITEM_NOT_AVAILABLE, d.etag("a"), values[0]
        )
        assert content_of(d) == {("a",): values[0]}

    def test_set_item_if_swaps_the_version_it_was_told(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        first = d.etag("a")
        result = d.set_item_if(
            "a", value=values[1], condition=ETAG_IS_THE_SAME, expected_etag=first
        )
        assert result == ConditionalOperationResult(True, first, d.etag("a"), values[1])
        assert content_of(d) == {("a",): values[1]}

    def test_set_item_if_leaves_a_version_it_was_not_told(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        first = d.etag("a")
        d["a"] = values[1]
        result = d.set_item_if(
            "a", value=values[2], condition=ETAG_IS_THE_SAME, expected_etag=first
        )
        assert result == ConditionalOperationResult(False, d.etag("a"), d.etag("a"), values[1])
        assert content_of(d) == {("a",): values[1]}

    @pytest.mark.parametrize("present", [False, True], ids=["absent", "present"])
    def test_a_text_that_is_no_etag_is_that_of_no_version(
        self, d: AnyDict, values: tuple[Any, ...], present: bool
    ) -> None:
        if present:
            d["a"] = values[0]
        actual = d.etag("a") if present else ITEM_NOT_AVAILABLE
        operations: list[Operation] = [
            d.get_item_if,
            partial(d.set_item_if, value=values[1]),
            d.discard_if,
        ]
        for text, operation in product(NO_ETAGS, operations):
            result = operation("a", condition=ETAG_IS_THE_SAME, expected_etag=ETagValue(text))
            assert not result.condition_was_satisfied, text
            assert (result.actual_etag, result.resulting_etag) == (actual, actual), text

    def test_discard_if_never_retrieves(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["a"] = values[0]
        result = d.discard_if("a", condition=ETAG_HAS_CHANGED, expected_etag=d.etag("a"))
        assert result.new_value is VALUE_NOT_RETRIEVED

    @pytest.mark.parametrize(
        "condition", [None, "ANY_ETAG", True, ETagConditionFlag(), type(ANY_ETAG)], ids=repr
    )
    @pytest.mark.parametrize("operation", ["set_item_if", "discard_if"])
    def test_a_change_under_an_unknown_condition_is_refused(
        self, d: AnyDict, values: tuple[Any, ...], operation: str, condition: Any
    ) -> None:
        d["a"] = values[0]
        value = {"value": values[1]} if operation == "set_item_if" else {}
        with pytest.raises(ValueError):
            getattr(d, operation)("a", condition=condition, expected_etag=d.etag("a"), **value)
        assert content_of(d) == {("a",): values[0]}

    @pytest.mark.parametrize("retrieve_value", [None, True, "ALWAYS_RETRIEVE"], ids=repr)
    def test_a_change_with_an_unknown_retrieve_value_is_refused(
        self, d: AnyDict, values: tuple[Any, ...], retrieve_value: Any
    ) -> None:
        d["a"] = values[0]
        with pytest.raises(TypeError):
            d.set_item_if(
                "a",
                value=values[1],
                condition=ANY_ETAG,
                expected_etag=d.etag("a"),
                retrieve_value=retrieve_value,
            )
        assert content_of(d) == {("a",): values[0]}
