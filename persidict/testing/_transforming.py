"""Conformance: `transform_item`, alone and against others who change the item meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from persidict import back_off
from persidict.exceptions import ConcurrencyConflictError
from persidict.jokers_and_status_flags import (
    DELETE_CURRENT,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    OperationResult,
)
from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.testing._base import AnyDict, ConformanceBase, NewDict, content_of


class Interference:
    """A transformer during whose first calls somebody else changes the item.

    Args:
        change: What somebody else does.
        times: During how many calls.
        answer: What the transformer returns.

    Attributes:
        seen: What the transformer was given, call by call.
    """

    def __init__(self, change: Callable[[], object], times: int, answer: Any) -> None:
        self.seen: list[Any] = []
        self._change = change
        self._times = times
        self._answer = answer

    def __call__(self, current: Any) -> Any:
        self.seen.append(current)
        if len(self.seen) <= self._times:
            self._change()
        return self._answer


class TransformInsertTests(ConformanceBase):
    """What `transform_item` does where nothing that exists is changed."""

    def test_a_transformer_gets_the_default_where_there_is_no_item(self, d: AnyDict) -> None:
        given: list[Any] = []
        default = ["default"]

        def transformer(value: Any) -> Any:
            given.append(value)
            value.append("changed")
            return KEEP_CURRENT

        result = d.transform_item("a", transformer=transformer, default=default)
        assert given == [["default", "changed"]]
        assert default == ["default"]
        assert result.new_value is ITEM_NOT_AVAILABLE

    def test_transforming_an_absent_item_inserts_what_is_returned(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        transformer = Interference(lambda: None, 0, values[0])
        result = d.transform_item("a", transformer=transformer)
        assert result == OperationResult(d.etag("a"), values[0])
        assert transformer.seen == [ITEM_NOT_AVAILABLE]
        assert content_of(d) == {("a",): values[0]}

    def test_keeping_an_absent_item_leaves_it_absent(self, d: AnyDict) -> None:
        result = d.transform_item("a", transformer=lambda _: KEEP_CURRENT)
        assert result == OperationResult(ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE)
        assert content_of(d) == {}

    def test_keeping_a_present_item_leaves_its_version(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        before = d.etag("a")
        result = d.transform_item("a", transformer=lambda _: KEEP_CURRENT)
        assert result == OperationResult(before, values[0])
        assert d.get_with_etag("a").actual_etag == before

    def test_an_error_of_the_transformer_passes_through_and_changes_nothing(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]

        def fail(current: Any) -> Any:
            raise ZeroDivisionError(current)

        with pytest.raises(ZeroDivisionError):
            d.transform_item("a", transformer=fail)
        assert content_of(d) == {("a",): values[0]}

    @pytest.mark.parametrize(
        ("n_retries", "error"), [(-1, ValueError), ("3", TypeError), (1.5, TypeError)]
    )
    def test_a_bad_number_of_retries_is_refused_before_the_transformer_is_called(
        self, d: AnyDict, n_retries: Any, error: type[Exception]
    ) -> None:
        transformer = Interference(lambda: None, 0, KEEP_CURRENT)
        with pytest.raises(error):
            d.transform_item("a", transformer=transformer, n_retries=n_retries)
        assert transformer.seen == []

    def test_a_dictionary_is_no_result_of_a_transformer(
        self, d: AnyDict, new_dict: NewDict
    ) -> None:
        other = new_dict()
        with pytest.raises(TypeError):
            d.transform_item("a", transformer=lambda _: other)
        assert content_of(d) == {}


class TransformChangeTests(ConformanceBase):
    """What `transform_item` does to items that exist, and how it wins races or gives up."""

    @pytest.fixture(autouse=True)
    def without_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let rivals that this process plays itself be tried again at once."""
        monkeypatch.setattr(back_off, "_LONGEST_PAUSE_SECONDS", 0.0)

    def test_transforming_replaces_the_value(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["a"] = values[0]
        transformer = Interference(lambda: None, 0, values[1])
        result = d.transform_item("a", transformer=transformer)
        assert result == OperationResult(d.etag("a"), values[1])
        assert transformer.seen == [values[0]]
        assert content_of(d) == {("a",): values[1]}

    @pytest.mark.parametrize("present", [False, True], ids=["absent", "present"])
    def test_a_transformer_can_delete(
        self, d: AnyDict, values: tuple[Any, ...], present: bool
    ) -> None:
        if present:
            d["a"] = values[0]
        result = d.transform_item("a", transformer=lambda _: DELETE_CURRENT)
        assert result == OperationResult(ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE)
        assert content_of(d) == {}

    def test_a_transformer_is_called_again_with_what_others_wrote_meanwhile(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        transformer = Interference(lambda: d.update({"a": values[1]}), 1, values[2])
        result = d.transform_item("a", transformer=transformer)
        assert transformer.seen == [values[0], values[1]]
        assert result == OperationResult(d.etag("a"), values[2])

    def test_a_transformer_is_called_again_when_others_inserted_meanwhile(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        transformer = Interference(lambda: d.update({"a": values[1]}), 1, values[2])
        d.transform_item("a", transformer=transformer)
        assert transformer.seen == [ITEM_NOT_AVAILABLE, values[1]]
        assert content_of(d) == {("a",): values[2]}

    @pytest.mark.parametrize("answer", ["value", "DELETE_CURRENT"])
    def test_a_transformer_is_called_again_when_others_deleted_meanwhile(
        self, d: AnyDict, values: tuple[Any, ...], answer: str
    ) -> None:
        d["a"] = values[0]
        returned = values[2] if answer == "value" else DELETE_CURRENT
        transformer = Interference(lambda: d.discard("a"), 1, returned)
        d.transform_item("a", transformer=transformer)
        assert transformer.seen == [values[0], ITEM_NOT_AVAILABLE]
        assert content_of(d) == ({("a",): values[2]} if answer == "value" else {})

    def test_a_deletion_that_lost_the_race_is_decided_again(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        transformer = Interference(lambda: d.update({"a": values[1]}), 1, DELETE_CURRENT)
        d.transform_item("a", transformer=transformer)
        assert transformer.seen == [values[0], values[1]]
        assert content_of(d) == {}

    @pytest.mark.parametrize("n_retries", [0, 2])
    def test_after_the_last_retry_a_conflict_is_an_error(
        self, d: AnyDict, values: tuple[Any, ...], n_retries: int
    ) -> None:
        written = iter(values)
        transformer = Interference(lambda: d.update({"a": next(written)}), 99, values[0])
        with pytest.raises(ConcurrencyConflictError) as caught:
            d.transform_item("a", transformer=transformer, n_retries=n_retries)
        assert caught.value.key == NonEmptySafeStrTuple("a")
        assert caught.value.attempts == len(transformer.seen) == n_retries + 1
        assert content_of(d) == {("a",): values[n_retries]}

    def test_six_retries_are_made_when_not_told_otherwise(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        transformer = Interference(self.alternating(d, values), 99, values[0])
        with pytest.raises(ConcurrencyConflictError):
            d.transform_item("a", transformer=transformer)
        assert len(transformer.seen) == 7

    def test_without_a_number_of_retries_it_never_gives_up(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        transformer = Interference(self.alternating(d, values), 9, values[2])
        result = d.transform_item("a", transformer=transformer, n_retries=None)
        assert len(transformer.seen) == 10
        assert result == OperationResult(d.etag("a"), values[2])

    @staticmethod
    def alternating(d: AnyDict, values: tuple[Any, ...]) -> Callable[[], None]:
        """Return a change that makes a version with other content each time."""
        counter = iter(range(100))

        def change() -> None:
            d["a"] = values[next(counter) % 2]

        return change
