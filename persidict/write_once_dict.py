"""A dictionary in which the first value stays."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

from persidict.contract.sameness import same_content
from persidict.exceptions import MutationPolicyError, PreconditionFailed
from persidict.file_dir_dict import FileDirDict
from persidict.jokers_and_status_flags import (
    ANY_ETAG,
    DELETE_CURRENT,
    IF_ETAG_CHANGED,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    NEVER_RETRIEVE,
    ConditionalOperationResult,
    ETagConditionFlag,
    ETagIfExists,
    Joker,
    KeepCurrentFlag,
    RetrieveValueFlag,
    ValueType,
)
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import (
    NonEmptyPersiDictKey,
    NonEmptySafeStrTuple,
    SafeStrTuple,
    as_key,
)
from persidict.wrapper_dict import WrapperDict

SelfType = TypeVar("SelfType", bound="WriteOnceDict[Any]")


class WriteOnceDict(WrapperDict[ValueType]):
    """A dictionary in which the first value stays and later writes are ignored.

    For results that are the same whoever computes them: all may write, the first one wins,
    and now and then a later value is compared with the first one.

    Args:
        wrapped_dict: An append-only dictionary that holds the items. None: an append-only
            FileDirDict with default parameters.
        p_consistency_checks: The probability, from 0 to 1, that a later write is compared
            with what is stored. None: 0, never.

    Raises:
        TypeError: `wrapped_dict` is no PersiDict or `p_consistency_checks` no number.
        ValueError: `wrapped_dict` is not append-only, or the probability is out of range.

    Attributes:
        consistency_checks_attempted: How many later writes this handle has compared.
        consistency_checks_passed: How many of them were equal.
        consistency_checks_failed: How many were not.

    Example:
        >>> from persidict import LocalDict
        >>> d = WriteOnceDict(wrapped_dict=LocalDict(append_only=True))
        >>> d["a"] = 1
        >>> d["a"] = 2
        >>> d["a"]
        1
    """

    _policy = "write-once"
    _p_consistency_checks: float = 0.0

    def __init__(
        self,
        *,
        wrapped_dict: PersiDict[ValueType] | None = None,
        p_consistency_checks: float | KeepCurrentFlag | None = None,
    ) -> None:
        if wrapped_dict is None:
            wrapped_dict = FileDirDict(append_only=True)
        super().__init__(wrapped_dict=wrapped_dict)
        if not wrapped_dict.append_only:
            raise ValueError("wrapped_dict must be append-only")
        self.p_consistency_checks = p_consistency_checks
        self._reset_counters()

    def _reset_counters(self) -> None:
        self.consistency_checks_attempted = 0
        self.consistency_checks_passed = 0
        self.consistency_checks_failed = 0

    @property
    def wrapped_dict(self) -> PersiDict[ValueType]:
        """The append-only dictionary that holds the items."""
        return self._wrapped

    @property
    def p_consistency_checks(self) -> float:
        """The probability that a later write is compared with what is stored.

        Assigning None means 0; assigning KEEP_CURRENT changes nothing.
        """
        return self._p_consistency_checks

    @p_consistency_checks.setter
    def p_consistency_checks(self, probability: float | KeepCurrentFlag | None) -> None:
        if isinstance(probability, KeepCurrentFlag):
            return
        if probability is None:
            probability = 0.0
        if isinstance(probability, bool) or not isinstance(probability, (int, float)):
            raise TypeError(
                "p_consistency_checks must be a number, None or KEEP_CURRENT,"
                f" not {type(probability).__name__}"
            )
        if not 0 <= probability <= 1:
            raise ValueError(f"p_consistency_checks must be from 0 to 1, it is {probability}")
        self._p_consistency_checks = probability

    def _own_params(self) -> dict[str, Any]:
        return {"p_consistency_checks": self.p_consistency_checks}

    def _subdict(self: SelfType, prefix: SafeStrTuple) -> SelfType:
        sub = super()._subdict(prefix)
        sub._reset_counters()
        return sub

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    # ------------------------------------------------------------------ the policy

    def __setitem__(self, key: NonEmptyPersiDictKey, value: ValueType | Joker) -> None:
        """Store the first value under a key; ignore later ones, or compare them.

        Raises:
            MutationPolicyError: A comparison showed a difference, or the value is
                DELETE_CURRENT.
            TypeError: The value is not of the class that the dictionary holds.
        """
        checked = as_key(key)
        if value is KEEP_CURRENT:
            return
        if value is DELETE_CURRENT:
            self._refuse_deletion()
        self._check_value(value)
        result = self._wrapped.setdefault_if(
            checked,
            default_value=cast("ValueType", value),
            condition=ANY_ETAG,
            expected_etag=ITEM_NOT_AVAILABLE,
            retrieve_value=NEVER_RETRIEVE,
        )
        if result.value_was_mutated:
            return
        if random.random() < self.p_consistency_checks:
            self._check_consistency(checked, value)

    def _check_consistency(self, key: NonEmptySafeStrTuple, value: Any) -> None:
        self.consistency_checks_attempted += 1
        if same_content(self._wrapped[key], value):
            self.consistency_checks_passed += 1
            return
        self.consistency_checks_failed += 1
        raise MutationPolicyError(self._policy, f"item {key!r} was stored with another value")

    def set_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        value: ValueType | Joker,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """Refuse: whether an item may be written is not a question of its version here.

        Raises:
            MutationPolicyError: Always.
        """
        raise MutationPolicyError(self._policy, "set_item_if is not supported")

    # ------------------------------------------------------------------ many items

    def _write_many(
        self, items: Iterable[tuple[NonEmptySafeStrTuple, Any]], *, only_new: bool
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception | None]]:
        to_compare: dict[NonEmptySafeStrTuple, Any] = {}

        def noted() -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
            for key, value in items:
                if random.random() < self.p_consistency_checks:
                    to_compare[key] = value
                yield key, value

        for key, error in self._wrapped._write_many(noted(), only_new=True):
            is_compared = key in to_compare
            value = to_compare.pop(key, None)
            if isinstance(error, PreconditionFailed):
                error = None
                if is_compared:
                    try:
                        self._check_consistency(key, value)
                    except MutationPolicyError as difference:
                        error = difference
            yield key, error
