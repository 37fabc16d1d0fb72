"""A dictionary that keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import (
    IF_ETAG_CHANGED,
    ITEM_NOT_AVAILABLE,
    ConditionalOperationResult,
    ETagConditionFlag,
    ETagIfExists,
    ETagValue,
    Joker,
    OperationResult,
    RetrieveValueFlag,
    TransformingFunction,
    ValueType,
)
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import (
    NonEmptyPersiDictKey,
    NonEmptySafeStrTuple,
    SafeStrTuple,
    as_key,
)

SelfType = TypeVar("SelfType", bound="EmptyDict[Any]")

_NEVER_KEPT = ETagValue("")


class EmptyDict(PersiDict[ValueType]):
    """A dictionary that takes every write, keeps nothing and is always empty.

    Arguments are checked as everywhere. Useful to switch persistence off.

    Args:
        append_only: See PersiDict; deleting operations are refused if it is set.
        base_class_for_values: See PersiDict.
        serialization_format: See PersiDict.

    Example:
        >>> d = EmptyDict()
        >>> d["a"] = 1
        >>> len(d)
        0
    """

    def _absent(self, key: NonEmptySafeStrTuple) -> NoReturn:
        raise ObjectNotFound(key)

    def _load(
        self, key: NonEmptySafeStrTuple, *, if_none_match: ETagValue | None = None
    ) -> tuple[Any, ETagValue]:
        self._absent(key)

    def _head(self, key: NonEmptySafeStrTuple) -> NoReturn:
        self._absent(key)

    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ETagValue:
        return _NEVER_KEPT

    def _remove(self, key: NonEmptySafeStrTuple, expected: ETagValue | None) -> None:
        self._absent(key)

    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        return iter(())

    def _items(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        return iter(())

    def _subdict(self: SelfType, prefix: SafeStrTuple) -> SelfType:
        return self.__copy__()

    def set_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        value: ValueType | Joker,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """Check the arguments, evaluate the condition on an absent item, keep nothing."""
        return _nothing_kept(
            super().set_item_if(
                key,
                value=value,
                condition=condition,
                expected_etag=expected_etag,
                retrieve_value=retrieve_value,
            )
        )

    def setdefault_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        default_value: ValueType,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """Check the arguments, evaluate the condition on an absent item, keep nothing."""
        return _nothing_kept(
            super().setdefault_if(
                key,
                default_value=default_value,
                condition=condition,
                expected_etag=expected_etag,
                retrieve_value=retrieve_value,
            )
        )

    def setdefault(self, key: NonEmptyPersiDictKey, default: Any = None) -> Any:
        """Check the arguments and return the default."""
        self._check_value(default, "default")
        as_key(key)
        return default

    def transform_item(
        self,
        key: NonEmptyPersiDictKey,
        *,
        transformer: TransformingFunction,
        n_retries: int | None = 6,
    ) -> OperationResult:
        """Check the arguments; the transformer is not called.

        Returns:
            ITEM_NOT_AVAILABLE as ETag and as value.
        """
        as_key(key)
        self._check_n_retries(n_retries)
        return OperationResult(ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE)


def _nothing_kept(result: ConditionalOperationResult) -> ConditionalOperationResult:
    return ConditionalOperationResult(
        result.condition_was_satisfied, ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE
    )
