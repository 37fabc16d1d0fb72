"""A dictionary that keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from persidict.construction import names_its_arguments
from persidict.contract.conditional import check_transformer
from persidict.exceptions import ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import (
    ITEM_NOT_AVAILABLE,
    ETagIfExists,
    ETagValue,
    ItemNotAvailableFlag,
    OperationResult,
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


class EmptyDict(PersiDict[ValueType]):
    """A dictionary that takes every write, keeps nothing and is always empty.

    Useful to switch persistence off. The arguments of operations that write or compare are
    checked, and conditions evaluated against absence, as everywhere; ``in`` and `get` answer
    for anything.

    Args:
        append_only: See PersiDict; deleting operations are refused if it is set.
        base_class_for_values: See PersiDict.
        serialization_format: See PersiDict.
        read_only: See PersiDict; what writes is refused if it is set.

    Examples:
        >>> d = EmptyDict()
        >>> d["a"] = 1
        >>> len(d)
        0
    """

    def _load(
        self, key: NonEmptySafeStrTuple, *, if_none_match: ETagValue | None = None
    ) -> NoReturn:
        raise ObjectNotFound(key)

    def _head(self, key: NonEmptySafeStrTuple) -> NoReturn:
        raise ObjectNotFound(key)

    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ItemNotAvailableFlag:
        if isinstance(expected, str):
            raise PreconditionFailed(actual_etag=ITEM_NOT_AVAILABLE)
        return ITEM_NOT_AVAILABLE

    def _remove(self, key: NonEmptySafeStrTuple, expected: ETagValue | None) -> NoReturn:
        raise ObjectNotFound(key)

    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        return iter(())

    def _items(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        return iter(())

    def _subdict(self: SelfType, prefix: SafeStrTuple) -> SelfType:
        return self.__copy__()

    def _become_raw(self) -> None:
        """Change nothing more: there are no bytes to be seen."""

    def _open(self, key: NonEmptySafeStrTuple) -> NoReturn:
        raise ObjectNotFound(key)

    # ------------------------------------------------------------------ what needs no key

    def __contains__(self, key: object) -> bool:
        return False

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the default, whatever the key."""
        return default

    def setdefault(self, key: NonEmptyPersiDictKey, default: Any = None) -> Any:
        """Check the arguments and return the default."""
        self._check_value(default, "default")
        as_key(key)
        self._refuse_if_read_only()
        return default

    @names_its_arguments
    def transform_item(
        self,
        key: NonEmptyPersiDictKey,
        *,
        transformer: Callable[[Any], Any],
        n_retries: int | None = 6,
        default: Any = ITEM_NOT_AVAILABLE,
    ) -> OperationResult:
        """Check the arguments; the transformer is not called.

        Returns:
            ITEM_NOT_AVAILABLE as ETag and as value.

        Raises:
            TypeError: `transformer` cannot be called, or `n_retries` is no int.
            ValueError: `n_retries` is negative.
        """
        as_key(key)
        check_transformer(transformer)
        self._check_n_retries(n_retries)
        self._refuse_if_read_only()
        return OperationResult(ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE)
