"""What dictionaries with a cache in front of them have in common."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, TypeVar

from persidict.contract.primitives import Version
from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import (
    IF_ETAG_CHANGED,
    VALUE_NOT_RETRIEVED,
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
from persidict.wrapper_dict import WrapperDict

SelfType = TypeVar("SelfType", bound="CachedDict[Any]")
Answer = TypeVar("Answer")

MISS: Final[Any] = object()
"""What a cache answers that has nothing, or nothing that can be read."""


def check_apart(name: str, cache: PersiDict[Any], main_dict: PersiDict[Any]) -> None:
    """Raise ValueError if a cache is where the main dictionary is: it would write over it."""
    if cache is main_dict or (
        type(cache) is type(main_dict) and cache.get_params() == main_dict.get_params()
    ):
        raise ValueError(f"{name} must not be the main dictionary itself")


class CachedDict(WrapperDict[ValueType]):
    """A dictionary that keeps the values of another one at hand, in a third one.

    Every operation goes to the main dictionary first, once; then the cache is brought in
    step with its result. What goes wrong in a cache never fails an operation.

    A subclass says how a value is remembered, forgotten and looked up.

    Args:
        main_dict: The dictionary that holds the items.
        data_cache: The dictionary that holds copies of their values.
    """

    _wrapped_name = "main_dict"
    _is_transparent = True

    def __init__(self, main_dict: PersiDict[ValueType], data_cache: PersiDict[ValueType]) -> None:
        super().__init__(wrapped_dict=main_dict)
        self._data = data_cache
        self._has_warned = False

    @property
    def main_dict(self) -> PersiDict[ValueType]:
        """The dictionary that holds the items."""
        return self._wrapped

    @property
    def data_cache(self) -> PersiDict[ValueType]:
        """The dictionary that holds copies of the values."""
        return self._data

    def _own_params(self) -> dict[str, Any]:
        return {"data_cache": self._data}

    def _subdict(self: SelfType, prefix: SafeStrTuple) -> SelfType:
        sub = super()._subdict(prefix)
        sub._data = self._data.get_subdict(prefix)
        return sub

    # ------------------------------------------------------------------ the caches

    @abstractmethod
    def _remember(self, key: NonEmptySafeStrTuple, value: Any, etag: ETagValue) -> None:
        """Cache a value and the version of the main dictionary that it is."""

    @abstractmethod
    def _forget(self, key: NonEmptySafeStrTuple) -> None:
        """Cache nothing under a key."""

    @abstractmethod
    def _forget_other_versions(self, key: NonEmptySafeStrTuple, etag: ETagValue) -> None:
        """Forget what is cached under a key unless it is a certain version."""

    def _keep_in_step(self, key: NonEmptySafeStrTuple, etag: ETagIfExists, value: Any) -> None:
        """Update the cache after an operation that has told what is there now."""
        if not isinstance(etag, str):
            self._forget(key)
        elif value is VALUE_NOT_RETRIEVED:
            self._forget_other_versions(key, etag)
        else:
            self._remember(key, value, etag)

    def _is_instance(self, value: Any) -> bool:
        """Tell whether a cached value is one that this handle may return."""
        expected = self.base_class_for_values
        return expected is None or isinstance(value, expected)

    def _ask_cache(self, question: Callable[[], Answer]) -> Answer | Any:
        """Return the answer of a cache; MISS if it has none or fails."""
        try:
            return question()
        except ObjectNotFound:
            return MISS
        except Exception as error:  # whatever ails a cache: the main dictionary has the value
            self._warn(error)
            return MISS

    def _warn(self, error: Exception) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            f"a cache of {type(self._wrapped).__name__} fails and is done without where it does:"
            f" {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )

    def _write_to_cache(
        self, cache: PersiDict[Any], key: NonEmptySafeStrTuple, value: Any
    ) -> ETagIfExists | Any:
        """Write into a cache; return the version written, MISS if it was not."""

        def write() -> ETagIfExists:
            cache._check_value(value)
            return cache._write(key, value, None)

        return self._ask_cache(write)

    def _remove_from_cache(self, cache: PersiDict[Any], key: NonEmptySafeStrTuple) -> None:
        self._ask_cache(lambda: cache._remove(key, None))

    # ------------------------------------------------------------------ delegated operations

    def set_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        value: ValueType | Joker,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """Store a value if a condition on the item's version holds; see PersiDict."""
        checked = as_key(key)
        result = self._wrapped.set_item_if(
            checked,
            value=value,
            condition=condition,
            expected_etag=expected_etag,
            retrieve_value=retrieve_value,
        )
        self._keep_in_step(checked, result.resulting_etag, result.new_value)
        return result

    def setdefault_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        default_value: ValueType,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """Insert a value if the key is absent and a condition holds; see PersiDict."""
        checked = as_key(key)
        result = self._wrapped.setdefault_if(
            checked,
            default_value=default_value,
            condition=condition,
            expected_etag=expected_etag,
            retrieve_value=retrieve_value,
        )
        self._keep_in_step(checked, result.resulting_etag, result.new_value)
        return result

    # ------------------------------------------------------------------ primitives

    def _head(self, key: NonEmptySafeStrTuple) -> Version:
        try:
            return self._wrapped._head(key)
        except ObjectNotFound:
            self._forget(key)
            raise

    def _value(self, key: NonEmptySafeStrTuple) -> Any:
        return self._load(key)[0]

    def _fetch(
        self, key: NonEmptySafeStrTuple, if_none_match: ETagValue | None
    ) -> tuple[Any, ETagValue]:
        """Load from the main dictionary, and cache what comes."""
        try:
            value, etag = self._wrapped._load(key, if_none_match=if_none_match)
        except ObjectNotFound:
            self._forget(key)
            raise
        if value is not VALUE_NOT_RETRIEVED:
            self._remember(key, value, etag)
        return value, etag

    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ETagIfExists:
        etag = self._wrapped._write(key, value, expected)
        self._keep_in_step(key, etag, value)
        return etag
