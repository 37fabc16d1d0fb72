"""A record of what each operation on a dictionary found and left, for the checker."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from persidict import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    VALUE_NOT_RETRIEVED,
    ConditionalOperationResult,
    ETagConditionFlag,
    MutationPolicyError,
    OperationResult,
    PersiDict,
)
from tests.linearizability import (
    ABSENT,
    ANYTHING,
    UNCHANGED,
    UNKNOWN,
    Found,
    Left,
    Operation,
    State,
    Version,
)

Answer = TypeVar("Answer")


def is_satisfied(condition: ETagConditionFlag, expected: Any, actual: Any) -> bool:
    """Evaluate a condition as the contract's table does."""
    if condition is ANY_ETAG:
        return True
    return bool((expected == actual) is (condition is ETAG_IS_THE_SAME))


def _state(etag: Any, value: Any = UNKNOWN) -> State:
    if etag is ITEM_NOT_AVAILABLE or value is ITEM_NOT_AVAILABLE:
        return ABSENT
    return Version(etag, UNKNOWN if value is VALUE_NOT_RETRIEVED else value)


def _seen_in(result: ConditionalOperationResult) -> tuple[Found, Left]:
    """Read off a result what the operation found and left."""
    if result.value_was_mutated:
        return _state(result.actual_etag), _state(result.resulting_etag, result.new_value)
    return _state(result.actual_etag, result.new_value), UNCHANGED


class Recorder:
    """Calls the operations of a dictionary and writes down what each found and left.

    Args:
        dictionary: The dictionary; its values must be hashable.
        who: Who calls, for messages.

    Attributes:
        operations: What was recorded. An operation that raised stands there as one that may
            or may not have taken effect; the exception goes on to the caller.
    """

    def __init__(self, dictionary: PersiDict[Any], who: str = "") -> None:
        self.dictionary = dictionary
        self.who = who
        self.operations: list[Operation] = []

    def _record(
        self,
        name: str,
        key: Any,
        call: Callable[[], Answer],
        seen: Callable[[Answer], tuple[Found, Left]],
        attempted: Callable[[], tuple[Found, Left]] = lambda: (ANYTHING, UNCHANGED),
    ) -> Answer:
        what = f"{self.who}: {name}" if self.who else name
        invoked = time.monotonic_ns()
        try:
            answer = call()
        except BaseException:
            self.operations.append(Operation(plain(key), *attempted(), invoked, None, what))
            raise
        returned = time.monotonic_ns()
        self.operations.append(Operation(plain(key), *seen(answer), invoked, returned, what))
        return answer

    def read(self, key: Any) -> ConditionalOperationResult:
        """Read value and ETag."""
        return self._record("read", key, lambda: self.dictionary.get_with_etag(key), _seen_in)

    def get(self, key: Any) -> Any:
        """Read the value alone; ITEM_NOT_AVAILABLE for an absent item."""
        return self._record(
            "get",
            key,
            lambda: self.dictionary.get(key, ITEM_NOT_AVAILABLE),
            lambda value: (_state(UNKNOWN, value), UNCHANGED),
        )

    def contains(self, key: Any) -> bool:
        """Ask whether there is an item."""
        return self._record(
            "in",
            key,
            lambda: key in self.dictionary,
            lambda present: (Version() if present else ABSENT, UNCHANGED),
        )

    def assign(self, key: Any, value: Any) -> None:
        """Store a value, whatever was there."""
        written: tuple[Found, Left] = ANYTHING, Version(UNKNOWN, value)
        self._record(
            "assign",
            key,
            lambda: self.dictionary.__setitem__(key, value),
            lambda _: written,
            lambda: written,
        )

    def insert_append_only(self, key: Any, value: Any) -> bool:
        """Store a value in an append-only dictionary; tell whether it was accepted."""

        def insert() -> bool:
            try:
                self.dictionary[key] = value
            except MutationPolicyError:
                return False
            return True

        inserted: tuple[Found, Left] = ABSENT, Version(UNKNOWN, value)
        return self._record(
            "append-only insertion",
            key,
            insert,
            lambda accepted: inserted if accepted else (Version(), UNCHANGED),
            lambda: inserted,
        )

    def set_item_if(
        self, key: Any, value: Any, condition: ETagConditionFlag, expected: Any
    ) -> ConditionalOperationResult:
        """Store a value under a condition."""
        result = self._record(
            f"set_item_if({condition!r}, {expected!r})",
            key,
            lambda: self.dictionary.set_item_if(
                key,
                value=value,
                condition=condition,
                expected_etag=expected,
                retrieve_value=ALWAYS_RETRIEVE,
            ),
            _seen_in,
            lambda: (
                _state(expected) if condition is ETAG_IS_THE_SAME else ANYTHING,
                ABSENT if value is DELETE_CURRENT else Version(UNKNOWN, value),
            ),
        )
        self._check_verdict(result, condition, expected)
        return result

    def discard_if(
        self, key: Any, condition: ETagConditionFlag, expected: Any
    ) -> ConditionalOperationResult:
        """Delete an item under a condition."""
        result = self._record(
            f"discard_if({condition!r}, {expected!r})",
            key,
            lambda: self.dictionary.discard_if(key, condition=condition, expected_etag=expected),
            _seen_in,
            lambda: (_state(expected) if condition is ETAG_IS_THE_SAME else ANYTHING, ABSENT),
        )
        self._check_verdict(result, condition, expected)
        return result

    def setdefault_if(self, key: Any, value: Any) -> ConditionalOperationResult:
        """Insert a value if there is none, by setdefault_if."""
        result = self._record(
            "setdefault_if",
            key,
            lambda: self.dictionary.setdefault_if(
                key,
                default_value=value,
                condition=ETAG_IS_THE_SAME,
                expected_etag=ITEM_NOT_AVAILABLE,
            ),
            _seen_in,
            lambda: (ABSENT, Version(UNKNOWN, value)),
        )
        self._check_verdict(result, ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE)
        return result

    def setdefault(self, key: Any, value: Any) -> Any:
        """Insert a value, which must be unique, if there is none."""
        inserted: tuple[Found, Left] = ABSENT, Version(UNKNOWN, value)
        return self._record(
            "setdefault",
            key,
            lambda: self.dictionary.setdefault(key, value),
            lambda held: inserted if held == value else (Version(UNKNOWN, held), UNCHANGED),
            lambda: inserted,
        )

    def discard(self, key: Any) -> bool:
        """Delete an item if there is one."""
        deleted: tuple[Found, Left] = Version(), ABSENT
        return self._record(
            "discard",
            key,
            lambda: self.dictionary.discard(key),
            lambda found: deleted if found else (ABSENT, UNCHANGED),
            lambda: deleted,
        )

    def clear(self, *keys: Any) -> None:
        """Clear the dictionary; what comes to these keys meanwhile, it may delete or not."""
        invoked = time.monotonic_ns()
        self.dictionary.clear()
        for key in keys:
            self.operations.append(Operation(plain(key), ANYTHING, ABSENT, invoked, None, "clear"))

    def pop(self, key: Any) -> Any:
        """Take an item out; ITEM_NOT_AVAILABLE if there is none."""
        return self._record(
            "pop",
            key,
            lambda: self.dictionary.pop(key, ITEM_NOT_AVAILABLE),
            lambda value: (
                (ABSENT, UNCHANGED)
                if value is ITEM_NOT_AVAILABLE
                else (Version(UNKNOWN, value), ABSENT)
            ),
            lambda: (Version(), ABSENT),
        )

    def transform(self, key: Any, transformer: Callable[[Any], Any]) -> OperationResult:
        """Transform an item, however many attempts it takes."""
        attempts: list[tuple[Any, Any]] = []

        def transform(current: Any) -> Any:
            attempts.append((current, transformer(current)))
            return attempts[-1][1]

        def seen(result: OperationResult) -> tuple[Found, Left]:
            current, wanted = attempts[-1]
            if wanted is KEEP_CURRENT:
                return _state(result.resulting_etag, current), UNCHANGED
            return _state(UNKNOWN, current), _state(result.resulting_etag, result.new_value)

        def attempted() -> tuple[Found, Left]:
            current, wanted = attempts[-1] if attempts else (UNKNOWN, KEEP_CURRENT)
            if wanted is KEEP_CURRENT:
                return ANYTHING, UNCHANGED
            left: Left = ABSENT if wanted is DELETE_CURRENT else Version(UNKNOWN, wanted)
            return _state(UNKNOWN, current), left

        return self._record(
            "transform_item",
            key,
            lambda: self.dictionary.transform_item(key, transformer=transform, n_retries=None),
            seen,
            attempted,
        )

    @staticmethod
    def _check_verdict(
        result: ConditionalOperationResult, condition: ETagConditionFlag, expected: Any
    ) -> None:
        verdict = is_satisfied(condition, expected, result.actual_etag)
        assert result.condition_was_satisfied is verdict, (result, condition, expected)


def plain(key: Any) -> Hashable:
    """Return a key as a tuple of strings, so that all spellings of it are one."""
    return (key,) if isinstance(key, str) else tuple(key)
