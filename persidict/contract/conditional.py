"""Conditional operations: changing an item only if it is still the version one saw."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Generic, cast

from persidict.checks import check_int_or_none
from persidict.construction import names_its_arguments
from persidict.contract.primitives import ORDINARY_TYPES, DictPrimitives
from persidict.exceptions import (
    ConcurrencyConflictError,
    ObjectNotFound,
    PreconditionFailed,
    without_frames,
)
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
    ItemNotAvailableFlag,
    Joker,
    OperationResult,
    RetrieveValueFlag,
    ValueType,
)
from persidict.safe_str_tuple import NonEmptyPersiDictKey, NonEmptySafeStrTuple, as_key

_MOST_CONTRADICTIONS = 20

_Change = Callable[[ETagIfExists], tuple[ETagIfExists, Any]]


def is_satisfied(
    condition: ETagConditionFlag, expected_etag: Any, actual_etag: ETagIfExists
) -> bool:
    """Evaluate a condition: the decision table of all conditional operations."""
    if condition is ETAG_IS_THE_SAME:
        return bool(expected_etag == actual_etag)
    if condition is ETAG_HAS_CHANGED:
        return bool(expected_etag != actual_etag)
    return True


def _is_value_wanted(retrieve: RetrieveValueFlag, expected: Any, actual: ETagIfExists) -> bool:
    if actual is ITEM_NOT_AVAILABLE or retrieve is NEVER_RETRIEVE:
        return False
    return retrieve is ALWAYS_RETRIEVE or expected != actual


def check_condition(condition: Any, expected_etag: Any) -> None:
    """Raise ValueError or TypeError unless both are what conditional operations take."""
    if condition not in (ANY_ETAG, ETAG_IS_THE_SAME, ETAG_HAS_CHANGED):
        raise ValueError(
            "condition must be ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED,"
            f" not {condition!r:.80}"
        )
    if condition is not ANY_ETAG and not isinstance(expected_etag, (str, ItemNotAvailableFlag)):
        raise TypeError(
            f"expected_etag must be an ETag or ITEM_NOT_AVAILABLE, not {expected_etag!r:.80}"
        )


def _check_retrieve(retrieve_value: Any) -> None:
    if not isinstance(retrieve_value, RetrieveValueFlag):
        raise TypeError(
            "retrieve_value must be ALWAYS_RETRIEVE, NEVER_RETRIEVE or IF_ETAG_CHANGED,"
            f" not {retrieve_value!r:.80}"
        )


def check_transformer(transformer: Any) -> None:
    """Raise TypeError unless the argument of `transform_item` can be called."""
    if not callable(transformer):
        raise TypeError(f"transformer must be callable, not {type(transformer).__name__}")


def _left_behind(etag: ETagIfExists, value: Any) -> tuple[ETagIfExists, Any]:
    """Return what a write left: nothing, where nothing is kept."""
    return etag, (ITEM_NOT_AVAILABLE if etag is ITEM_NOT_AVAILABLE else value)


def _check_contradictions(key: NonEmptySafeStrTuple, count: int) -> None:
    """Give up on an item that is always there to be inserted over, and never there to be seen.

    Rivals that insert and delete all the time make it so, or credentials that may not read.
    So does a storage that shows one version and says, again and again, that it is another.
    """
    if count >= _MOST_CONTRADICTIONS:
        raise ConcurrencyConflictError(key, count)


def _stand_in(actual: ETagIfExists) -> Any:
    """Return what stands for a value that was not fetched."""
    return ITEM_NOT_AVAILABLE if actual is ITEM_NOT_AVAILABLE else VALUE_NOT_RETRIEVED


def _written_after_all(
    refused: PreconditionFailed | None, seen: ETagIfExists | None
) -> ETagValue | None:
    """Ask a refusal whether the write took place after all, and for the version that it made.

    `seen`: the version seen since; None: nobody has looked.
    """
    if refused is None or isinstance(seen, ItemNotAvailableFlag):
        return None
    return refused.written_after_all(seen)


class ConditionalOperations(DictPrimitives, Generic[ValueType]):
    """The conditional operations of every dictionary, written once on its primitives."""

    def get_with_etag(self, key: NonEmptyPersiDictKey) -> ConditionalOperationResult[ValueType]:
        """Read an item together with its version.

        Returns:
            As `get_item_if` under ANY_ETAG with ALWAYS_RETRIEVE.
        """
        return self.get_item_if(
            key,
            condition=ANY_ETAG,
            expected_etag=ITEM_NOT_AVAILABLE,
            retrieve_value=ALWAYS_RETRIEVE,
        )

    @names_its_arguments
    def get_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult[ValueType]:
        """Look at an item and evaluate a condition on its version, in one step.

        Args:
            key: The key.
            condition: ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED.
            expected_etag: The version to compare with; ITEM_NOT_AVAILABLE for absence.
            retrieve_value: Whether to fetch the value of an existing item.

        Returns:
            What was found; nothing changes. The value and the ETag are of one version.

        Raises:
            ValueError: The condition is none of the three.
            TypeError: `retrieve_value` is no RetrieveValueFlag.
        """
        checked = as_key(key)
        check_condition(condition, expected_etag)
        _check_retrieve(retrieve_value)
        return self._report_unchanged(checked, condition, expected_etag, retrieve_value)

    @names_its_arguments
    def set_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        value: ValueType | Joker,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult[ValueType]:
        """Store a value if a condition on the item's version holds, in one atomic step.

        Args:
            key: The key.
            value: The value; KEEP_CURRENT writes nothing, DELETE_CURRENT deletes.
            condition: ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED.
            expected_etag: The version to compare with; ITEM_NOT_AVAILABLE for absence, so
                that ETAG_IS_THE_SAME with it means: insert if absent.
            retrieve_value: Whether to fetch the stored value where nothing is written.

        Returns:
            What was found and what was left behind. An unmet condition is a result.

        Raises:
            ValueError: The condition is none of the three.
            TypeError: The value, or `retrieve_value`, is of a wrong type.
            MutationPolicyError: The dictionary is append-only, and the condition holds for
                an existing item, or the value is DELETE_CURRENT.
        """
        checked = as_key(key)
        check_condition(condition, expected_etag)
        _check_retrieve(retrieve_value)
        self._refuse_if_read_only()
        if value is KEEP_CURRENT:
            return self._report_unchanged(checked, condition, expected_etag, retrieve_value)
        if value is DELETE_CURRENT:
            self._refuse_deletion()
            return self._delete_if(checked, condition, expected_etag, retrieve_value)
        self._check_value(value)

        def write(actual: ETagIfExists) -> tuple[ETagIfExists, Any]:
            if self.append_only and actual is not ITEM_NOT_AVAILABLE:
                self._refuse_change(checked)
            return _left_behind(self._write(checked, value, actual), value)

        is_insert = expected_etag is ITEM_NOT_AVAILABLE
        return self._change_if(
            checked,
            condition,
            expected_etag,
            retrieve_value,
            change=write,
            presume=is_insert or not self.append_only,
            written=value,
        )

    @names_its_arguments
    def setdefault_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        default_value: ValueType,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult[ValueType]:
        """Insert a value if the key is absent and a condition holds, in one atomic step.

        An existing item is never touched, whatever the condition.

        Args:
            key: The key.
            default_value: What to insert; of an existing item's default, nothing is asked but
                that it is no joker.
            condition: ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED.
            expected_etag: The version to compare with; ITEM_NOT_AVAILABLE for absence.
            retrieve_value: Whether to fetch the value of an existing item.

        Returns:
            What was found and what was left behind.

        Raises:
            ValueError: The condition is none of the three.
            TypeError: The value is a joker, or about to be inserted and of a wrong type, or
                `retrieve_value` is.
            ConcurrencyConflictError: Again and again the item was there when it was to be
                inserted, and absent when it was looked at.
        """
        checked = as_key(key)
        check_condition(condition, expected_etag)
        _check_retrieve(retrieve_value)
        self._refuse_if_read_only()
        if type(default_value) not in ORDINARY_TYPES:
            self._check_no_flag(default_value, "default_value")
        unfit: TypeError | None = None
        try:
            self._check_value(default_value, "default_value")
        except TypeError as error:  # only of interest if there is no item
            unfit = error
        may_insert = is_satisfied(condition, expected_etag, ITEM_NOT_AVAILABLE)
        look = self._traits.reads_are_cheap or not may_insert or unfit is not None
        refused: PreconditionFailed | None = None
        made: ETagIfExists | None = None
        began = time.perf_counter()
        for attempt in itertools.count(1):
            if look:
                value, actual, made = self._observe(checked, expected_etag, retrieve_value, refused)
                if made is not None:
                    break
                if actual is not ITEM_NOT_AVAILABLE or not may_insert:
                    satisfied = is_satisfied(condition, expected_etag, actual)
                    return ConditionalOperationResult(satisfied, actual, actual, value)
            if unfit is not None:
                raise unfit
            try:
                made = self._write(checked, default_value, ITEM_NOT_AVAILABLE)
                break
            except PreconditionFailed as failed:
                refused = without_frames(failed)
            _check_contradictions(checked, attempt)
            if look:
                began = self._pause(attempt, began)
            look = True
        assert made is not None
        return ConditionalOperationResult(
            True, ITEM_NOT_AVAILABLE, *_left_behind(made, default_value)
        )

    @names_its_arguments
    def discard_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
    ) -> ConditionalOperationResult[ValueType]:
        """Delete an item if a condition on its version holds, in one atomic step.

        Args:
            key: The key.
            condition: ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED.
            expected_etag: The version to compare with; ITEM_NOT_AVAILABLE for absence.

        Returns:
            What was found and what was left behind; the value is never fetched.

        Raises:
            ValueError: The condition is none of the three.
            MutationPolicyError: The dictionary is append-only and the condition holds for
                an existing item.
        """
        checked = as_key(key)
        check_condition(condition, expected_etag)
        self._refuse_if_read_only()
        return self._delete_if(checked, condition, expected_etag, NEVER_RETRIEVE)

    @names_its_arguments
    def transform_item(
        self,
        key: NonEmptyPersiDictKey,
        *,
        transformer: Callable[[Any], Any],
        n_retries: int | None = 6,
        default: Any = ITEM_NOT_AVAILABLE,
    ) -> OperationResult[ValueType]:
        """Read an item, compute a new value from it and write it back; nobody's update is lost.

        Args:
            key: The key.
            transformer: Called with the current value, or with `default`. Returns the new
                value, KEEP_CURRENT or DELETE_CURRENT. May be called more than once.
            n_retries: How often to start again when the item was changed meanwhile; None:
                never give up.
            default: What stands for the value of an item that does not exist; the transformer
                gets a deep copy each time, as it may change what it is given.

        Returns:
            The version and the value left behind; after KEEP_CURRENT, the object that the
            transformer was given, with whatever the transformer did to it.

        Raises:
            ConcurrencyConflictError: The item was changed by others in every attempt.
            ValueError: `n_retries` is negative.
            TypeError: `n_retries` is no int, or the new value is of a wrong type.
            MutationPolicyError: The dictionary is append-only and the transformer wants to
                change an existing item, or to delete.
        """
        checked = as_key(key)
        self._check_n_retries(n_retries)
        check_transformer(transformer)
        self._refuse_if_read_only()
        new_value: Any = None
        refused: PreconditionFailed | None = None
        began = time.perf_counter()
        for attempt in itertools.count(1):
            current, etag, made = self._observe(checked, None, ALWAYS_RETRIEVE, refused)
            if made is None:
                is_absent = current is ITEM_NOT_AVAILABLE
                new_value = transformer(deepcopy(default) if is_absent else current)
                try:
                    return self._replace(checked, etag, current, new_value)
                except PreconditionFailed as failed:
                    refused = without_frames(failed)
                if n_retries is None or attempt <= n_retries:
                    began = self._pause(attempt, began)
                    continue
                made = _written_after_all(refused, None)
            if made is None:
                raise ConcurrencyConflictError(checked, attempt)
            return OperationResult(made, new_value)
        raise AssertionError("unreachable")

    @staticmethod
    def _check_n_retries(n_retries: int | None) -> None:
        check_int_or_none("n_retries", n_retries, at_least=0)

    def _replace(
        self, key: NonEmptySafeStrTuple, etag: ETagIfExists, current: Any, new_value: Any
    ) -> OperationResult[ValueType]:
        """Do what a transformer wants done to the version that it was given."""
        if new_value is KEEP_CURRENT:
            return OperationResult(etag, current)
        if new_value is DELETE_CURRENT:
            self._refuse_deletion()
            self._remove_version(key, etag)
            return OperationResult(ITEM_NOT_AVAILABLE, cast("Any", ITEM_NOT_AVAILABLE))
        self._check_value(new_value, "the transformer's result")
        if self.append_only and etag is not ITEM_NOT_AVAILABLE:
            self._refuse_change(key)
        return OperationResult(*_left_behind(self._write(key, new_value, etag), new_value))

    # ------------------------------------------------------------------ how conditions work

    def _look_up(
        self, key: NonEmptySafeStrTuple, if_none_match: ETagValue | None
    ) -> tuple[Any, ETagIfExists]:
        """Load, with absence as ITEM_NOT_AVAILABLE."""
        try:
            return self._load(key, if_none_match=if_none_match)
        except ObjectNotFound:
            return ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE

    def _current_etag(self, key: NonEmptySafeStrTuple) -> ETagIfExists:
        try:
            return self._head(key).etag
        except ObjectNotFound:
            return ITEM_NOT_AVAILABLE

    def _observe(
        self,
        key: NonEmptySafeStrTuple,
        expected: Any,
        retrieve: RetrieveValueFlag,
        refused: PreconditionFailed | None = None,
    ) -> tuple[Any, ETagIfExists, ETagValue | None]:
        """Return value and version in one look, the value only as far as it is wanted.

        And, if a write was refused before, the version that it made after all, else None.
        """
        if refused is None:
            return *self._look(key, expected, retrieve), None
        try:
            value, actual = self._look(key, expected, retrieve)
        except Exception:
            # a write that took place is the answer, even where nothing can be looked at
            made = _written_after_all(refused, None)
            if made is None:
                raise
            return VALUE_NOT_RETRIEVED, made, made
        return value, actual, _written_after_all(refused, actual)

    def _look(
        self, key: NonEmptySafeStrTuple, expected: Any, retrieve: RetrieveValueFlag
    ) -> tuple[Any, ETagIfExists]:
        if retrieve is NEVER_RETRIEVE:
            actual = self._current_etag(key)
            return _stand_in(actual), actual
        if retrieve is ALWAYS_RETRIEVE or not isinstance(expected, str):
            return self._look_up(key, None)
        return self._look_up(key, cast("ETagValue", expected))

    def _report_unchanged(
        self,
        key: NonEmptySafeStrTuple,
        condition: ETagConditionFlag,
        expected: ETagIfExists,
        retrieve: RetrieveValueFlag,
    ) -> ConditionalOperationResult[ValueType]:
        value, actual = self._look(key, expected, retrieve)
        satisfied = is_satisfied(condition, expected, actual)
        return ConditionalOperationResult(satisfied, actual, actual, value)

    def _change_if(
        self,
        key: NonEmptySafeStrTuple,
        condition: ETagConditionFlag,
        expected: ETagIfExists,
        retrieve: RetrieveValueFlag,
        *,
        change: _Change,
        presume: bool,
        written: Any = ITEM_NOT_AVAILABLE,
    ) -> ConditionalOperationResult[ValueType]:
        """Make a change to the version that satisfies a condition; start again if it moves.

        `change` gets that version and raises PreconditionFailed if it is not the current one
        any more. `presume`: under ETAG_IS_THE_SAME, try at once instead of looking first.
        `written`: the value that the change leaves behind.
        """
        presume = presume and condition is ETAG_IS_THE_SAME
        known: ETagIfExists | None = None
        replaced: ETagIfExists = ITEM_NOT_AVAILABLE
        refused: PreconditionFailed | None = None
        made: ETagValue | None = None
        contradictions = stuck = 0
        began = time.perf_counter()
        for attempt in itertools.count(1):
            if presume:
                known = expected
            elif known is None:
                _, known, made = self._observe(key, expected, NEVER_RETRIEVE, refused)
            if made is None and is_satisfied(condition, expected, known):
                _check_contradictions(key, max(contradictions, stuck))
                try:
                    return ConditionalOperationResult(True, known, *change(known))
                except PreconditionFailed as failed:
                    stuck = stuck + 1 if refused is not None and replaced == known else 0
                    refused, replaced, known = without_frames(failed), known, failed.actual_etag
                    contradictions += replaced is ITEM_NOT_AVAILABLE
                if known is not None:
                    made = _written_after_all(refused, known)
            if made is not None:
                break
            if presume if known is None else not is_satisfied(condition, expected, known):
                value: Any = None if known is None else _stand_in(known)
                if known is None or _is_value_wanted(retrieve, expected, known):
                    value, known, made = self._observe(key, expected, retrieve, refused)
                if made is not None:
                    break
                if not is_satisfied(condition, expected, known):
                    return ConditionalOperationResult(False, known, known, value)
                known = None
            began = self._pause(attempt, began)
        return ConditionalOperationResult(True, replaced, cast("ETagIfExists", made), written)

    def _delete_if(
        self,
        key: NonEmptySafeStrTuple,
        condition: ETagConditionFlag,
        expected: ETagIfExists,
        retrieve: RetrieveValueFlag,
    ) -> ConditionalOperationResult[ValueType]:
        def delete(actual: ETagIfExists) -> tuple[ETagIfExists, Any]:
            if actual is not ITEM_NOT_AVAILABLE:
                self._refuse_deletion()
            self._remove_version(key, actual)
            return ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE

        return self._change_if(
            key,
            condition,
            expected,
            retrieve,
            change=delete,
            presume=expected is not ITEM_NOT_AVAILABLE and not self.append_only,
        )

    def _remove_version(self, key: NonEmptySafeStrTuple, etag: ETagIfExists) -> None:
        """Delete one version; raise PreconditionFailed if it is not the current one."""
        if isinstance(etag, ItemNotAvailableFlag):
            return
        try:
            self._remove(key, etag)
        except ObjectNotFound:
            raise PreconditionFailed(actual_etag=ITEM_NOT_AVAILABLE) from None
