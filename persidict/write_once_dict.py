"""A dictionary in which the first value stays."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from persidict.checks import check_number
from persidict.construction import names_its_arguments
from persidict.contract.primitives import raise_key_error
from persidict.contract.sameness import same_content
from persidict.exceptions import (
    MutationPolicyError,
    NoBytesError,
    ObjectNotFound,
    PreconditionFailed,
)
from persidict.file_dir_dict import FileDirDict
from persidict.jokers_and_status_flags import (
    DELETE_CURRENT,
    IF_ETAG_CHANGED,
    KEEP_CURRENT,
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
    and now and then a later value is compared with the first one, as both are stored: values
    count as equal whose bytes are, numbers as numbers (``5`` and ``np.int64(5)``, ``0.0`` and
    ``-0.0``, NaN is NaN), arrays by dtype, shape and elements, dicts without regard to order,
    tables by labels, types and elements. What cannot be compared counts as different.

    Args:
        wrapped_dict: An append-only dictionary that holds the items. None: an append-only
            FileDirDict with default parameters.
        p_consistency_checks: The probability, from 0 to 1, that a later write is compared
            with what is stored. None: 0, never.
        read_only: See WrapperDict.

    Raises:
        TypeError: `wrapped_dict` is no PersiDict or `p_consistency_checks` no number.
        ValueError: `wrapped_dict` is not append-only, or the probability is out of range.

    Attributes:
        consistency_checks_attempted: How many later writes this handle has compared.
        consistency_checks_passed: How many of them were equal.
        consistency_checks_failed: How many were not.

    Examples:
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
        read_only: bool = False,
    ) -> None:
        if wrapped_dict is None:
            wrapped_dict = FileDirDict(append_only=True)
        super().__init__(wrapped_dict=wrapped_dict, read_only=read_only)
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
        what = "a number, None or KEEP_CURRENT"
        if not 0 <= check_number("p_consistency_checks", probability, what) <= 1:
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
            MutationPolicyError: A comparison showed a difference or failed, or the value is
                DELETE_CURRENT.
            TypeError: The value is not of the class that the dictionary holds.
        """
        checked = as_key(key)
        self._refuse_if_read_only()
        if value is KEEP_CURRENT:
            return
        if value is DELETE_CURRENT:
            self._refuse_deletion()
        self._check_value(value)
        is_compared = self._draws_a_check()
        if not is_compared and self._traits.reads_are_cheap and self._wrapped._contains(checked):
            return
        stored = self._encode_once(checked, value)
        try:
            self._stored._insert(checked, stored)
        except PreconditionFailed:
            if is_compared:
                self._check_consistency(checked, stored)

    def _draws_a_check(self) -> bool:
        return random.random() < self.p_consistency_checks

    def _check_consistency(self, key: NonEmptySafeStrTuple, stored: Any) -> None:
        """Compare what was to be stored with what is.

        Args:
            key: The key.
            stored: A value in the form in which it would have been stored.

        Raises:
            MutationPolicyError: They differ, or cannot be compared.
            KeyError: Somebody has deleted the item beneath.
        """
        self.consistency_checks_attempted += 1
        try:
            values = self._values_unless_same(key, stored)
        except ObjectNotFound as absent:
            raise_key_error(key, absent)
        if values is None:
            self.consistency_checks_passed += 1
            return
        trouble = None
        try:
            if same_content(*values):
                self.consistency_checks_passed += 1
                return
        except Exception as error:  # a comparison that fails shows no equality
            trouble = error
        self.consistency_checks_failed += 1
        what = "was stored with another value" if trouble is None else "could not be compared"
        raise MutationPolicyError(self._policy, f"item {key!r} {what}") from trouble

    def _values_unless_same(self, key: NonEmptySafeStrTuple, stored: Any) -> tuple[Any, Any] | None:
        """Return the first value and a later one, None if they are the same bytes."""
        try:
            first = self._stored._load(key)[0]
        except NoBytesError:
            return self._wrapped._load(key)[0], self._value_of(key, stored)
        if self._has_bytes and first == stored:
            return None
        return self._value_of(key, first), self._value_of(key, stored)

    @names_its_arguments
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
        self._refuse_if_read_only()
        raise MutationPolicyError(self._policy, "set_item_if is not supported")

    # ------------------------------------------------------------------ many items

    def _write_many(
        self, items: Iterable[tuple[NonEmptySafeStrTuple, Any]], *, only_new: bool
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception | None]]:
        to_compare: dict[NonEmptySafeStrTuple, Any] = {}
        failed: list[tuple[NonEmptySafeStrTuple, Exception]] = []

        def note(key: NonEmptySafeStrTuple, stored: Any) -> None:
            if self._draws_a_check():
                to_compare[key] = stored

        encoded = self._encode_each_once(items, note, failed)
        for key, error in self._stored._write_many(encoded, only_new=True):
            is_compared = key in to_compare
            stored = to_compare.pop(key, None)
            if isinstance(error, PreconditionFailed):
                error = self._inconsistency(key, stored) if is_compared else None
            yield key, error
        yield from failed

    def _inconsistency(self, key: NonEmptySafeStrTuple, stored: Any) -> Exception | None:
        try:
            self._check_consistency(key, stored)
        except Exception as error:  # reported to the caller, item by item
            return error
        return None
