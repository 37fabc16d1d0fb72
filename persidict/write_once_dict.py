"""A dictionary in which the first value stays."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, TypeVar, cast

from persidict.contract.primitives import KeyRange, Version
from persidict.contract.sameness import same_content
from persidict.exceptions import MutationPolicyError, ObjectNotFound, PreconditionFailed
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
    ETagValue,
    Joker,
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

SelfType = TypeVar("SelfType", bound="WriteOnceDict[Any]")


class WriteOnceDict(PersiDict[ValueType]):
    """A dictionary in which the first value stays and later writes are ignored.

    For results that are the same whoever computes them: all may write, the first one wins,
    and now and then a later value is compared with the first one.

    Args:
        wrapped_dict: An append-only dictionary that holds the items. None: an append-only
            FileDirDict with default parameters.
        p_consistency_checks: The probability, from 0 to 1, that a later write is compared
            with what is stored. None: never.

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

    def __init__(
        self,
        *,
        wrapped_dict: PersiDict[ValueType] | None = None,
        p_consistency_checks: float | None = None,
    ) -> None:
        if wrapped_dict is None:
            wrapped_dict = FileDirDict(append_only=True)
        if not isinstance(wrapped_dict, PersiDict):
            raise TypeError(
                f"wrapped_dict must be a PersiDict or None, not {type(wrapped_dict).__name__}"
            )
        if not wrapped_dict.append_only:
            raise ValueError("wrapped_dict must be append-only")
        # set first: attributes that are missing here are looked up on the wrapped dictionary
        self._wrapped = wrapped_dict
        self.p_consistency_checks = p_consistency_checks
        self.consistency_checks_attempted = 0
        self.consistency_checks_passed = 0
        self.consistency_checks_failed = 0
        super().__init__(
            append_only=True,
            base_class_for_values=wrapped_dict.base_class_for_values,
            serialization_format=wrapped_dict.serialization_format,
        )

    def _holds_objects(self, serialization_format: str) -> bool:
        return True  # the wrapped dictionary has checked its format

    @property
    def wrapped_dict(self) -> PersiDict[ValueType]:
        """The append-only dictionary that holds the items."""
        return self._wrapped

    @property
    def p_consistency_checks(self) -> float | None:
        """The probability that a later write is compared with what is stored."""
        return self._p_consistency_checks

    @p_consistency_checks.setter
    def p_consistency_checks(self, probability: float | None) -> None:
        if probability is not None:
            if isinstance(probability, bool) or not isinstance(probability, (int, float)):
                raise TypeError(
                    "p_consistency_checks must be a number or None,"
                    f" not {type(probability).__name__}"
                )
            if not 0 <= probability <= 1:
                raise ValueError(f"p_consistency_checks must be from 0 to 1, it is {probability}")
        self._p_consistency_checks = probability

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's parameters, sorted by name."""
        return {
            "p_consistency_checks": self.p_consistency_checks,
            "wrapped_dict": self.wrapped_dict,
        }

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
        if random.random() < (self.p_consistency_checks or 0):
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

    # ------------------------------------------------------------------ primitives

    def _load(
        self, key: NonEmptySafeStrTuple, *, if_none_match: ETagValue | None = None
    ) -> tuple[Any, ETagValue]:
        return self._wrapped._load(key, if_none_match=if_none_match)

    def _head(self, key: NonEmptySafeStrTuple) -> Version:
        return self._wrapped._head(key)

    def _contains(self, key: NonEmptySafeStrTuple) -> bool:
        return self._wrapped._contains(key)

    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ETagValue:
        return self._wrapped._write(key, value, expected)

    def _write_many(
        self, items: Iterable[tuple[NonEmptySafeStrTuple, Any]], *, only_new: bool
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception | None]]:
        to_compare: dict[NonEmptySafeStrTuple, Any] = {}

        def noted() -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
            for key, value in items:
                if random.random() < (self.p_consistency_checks or 0):
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

    def _load_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        return self._wrapped._load_many(keys)

    def _keys_in(self, key_range: KeyRange) -> list[NonEmptySafeStrTuple]:
        return self._wrapped._keys_in(key_range)

    def _remove(self, key: NonEmptySafeStrTuple, expected: ETagValue | None) -> NoReturn:
        raise ObjectNotFound(key)  # never reached: every deletion is refused before

    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        return self._wrapped._keys(page_size=page_size)

    def _dated_keys(self) -> Iterator[tuple[NonEmptySafeStrTuple, float]]:
        return self._wrapped._dated_keys()

    @property
    def _listed(self) -> object:
        return self._wrapped._listed

    def _items(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        return self._wrapped._items()

    def _first_parts(self) -> set[str]:
        return self._wrapped._first_parts()

    def _subdict(self: SelfType, prefix: SafeStrTuple) -> SelfType:
        return type(self)(
            wrapped_dict=self._wrapped.get_subdict(prefix),
            p_consistency_checks=self.p_consistency_checks,
        )
