"""An append-only dictionary with a cache in front of it that never asks twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, NoReturn

from persidict.cached_dict import MISS, CachedDict, check_apart, check_takes_copies
from persidict.construction import names_its_arguments
from persidict.contract.unreadable import UnreadableItems
from persidict.exceptions import (
    BackendError,
    MutationPolicyError,
    NoBytesError,
    ObjectNotFound,
)
from persidict.jokers_and_status_flags import (
    ITEM_NOT_AVAILABLE,
    VALUE_NOT_RETRIEVED,
    ETagConditionFlag,
    ETagIfExists,
    ETagValue,
    ValueType,
)
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptyPersiDictKey, NonEmptySafeStrTuple, as_key

_WINDOW: Final = 1000
"""How many keys are looked up in the cache before the missing ones are asked for."""


class AppendOnlyDictCached(CachedDict[ValueType]):
    """An append-only dictionary with its values cached in a second one.

    An item that exists never changes, so what is cached is never asked for again; only its
    version and time are. The cache may be shared by threads and processes, be emptied,
    damaged or full.

    Why no read is wrong: a value is cached only after `main_dict` has said that it is the
    one under its key, and that stays so for ever. That holds for this main dictionary, so a
    cache must not be shared by several.

    Args:
        main_dict: The append-only dictionary that holds the items.
        data_cache: An append-only dictionary that holds copies of values.
        read_only: Whether `main_dict` is taken as a read-only handle. What is read is still
            cached.

    Raises:
        TypeError: One of the two is no PersiDict.
        ValueError: One of the two is not append-only, their `base_class_for_values` differ,
            the cache is read-only, or they lie in one place.

    Examples:
        >>> from persidict import LocalDict
        >>> main = LocalDict(append_only=True)
        >>> d = AppendOnlyDictCached(main_dict=main, data_cache=LocalDict(append_only=True))
        >>> d["a"] = 1
        >>> d.data_cache["a"]
        1
    """

    def __init__(
        self,
        *,
        main_dict: PersiDict[ValueType],
        data_cache: PersiDict[ValueType],
        read_only: bool = False,
    ) -> None:
        for name, part in (("main_dict", main_dict), ("data_cache", data_cache)):
            if not isinstance(part, PersiDict):
                raise TypeError(f"{name} must be a PersiDict, not {type(part).__name__}")
            if not part.append_only:
                raise ValueError(f"{name} must be append-only")
        check_apart(main_dict=main_dict, data_cache=data_cache)
        if main_dict.base_class_for_values is not data_cache.base_class_for_values:
            raise ValueError("main_dict and data_cache must have the same base_class_for_values")
        check_takes_copies(data_cache=data_cache)
        super().__init__(main_dict, data_cache, read_only=read_only)

    # ------------------------------------------------------------------ the cache

    def _recall(self, key: NonEmptySafeStrTuple) -> Any:
        """Return the cached value, or MISS."""
        found = self._ask_cache(lambda: self._data._value(key))
        return found if found is not MISS and self._is_instance(found) else MISS

    def _remember(
        self, key: NonEmptySafeStrTuple, stored: Any, etag: ETagValue, value: Any = MISS
    ) -> None:
        # written over what may lie there: if that could be read, nobody would have asked
        if self._write_copy(key, stored, value) is None:
            self._forget(key)

    def _forget(self, key: NonEmptySafeStrTuple) -> None:
        self._remove_from_cache(self._data, key)

    def _forget_other_versions(self, key: NonEmptySafeStrTuple, etag: ETagValue) -> None:
        """Do nothing: there are no other versions."""

    # ------------------------------------------------------------------ the policy

    def _refuse(self, what: str) -> NoReturn:
        self._refuse_if_read_only()
        raise MutationPolicyError(self._policy, f"{what} is not supported")

    @names_its_arguments
    def discard_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
    ) -> NoReturn:
        """Refuse.

        Raises:
            MutationPolicyError: Always.
        """
        self._refuse("discard_if")

    @names_its_arguments
    def transform_item(
        self,
        key: NonEmptyPersiDictKey,
        *,
        transformer: Callable[[Any], Any],
        n_retries: int | None = 6,
        default: Any = ITEM_NOT_AVAILABLE,
    ) -> NoReturn:
        """Refuse.

        Raises:
            MutationPolicyError: Always.
        """
        self._refuse("transform_item")

    # ------------------------------------------------------------------ primitives

    def setdefault(self, key: NonEmptyPersiDictKey, default: Any = None) -> Any:
        """Return the value under a key, after inserting `default` if there was none."""
        self._refuse_if_read_only()
        self._check_no_flag(default, "default_value")
        cached = self._recall(as_key(key))
        return super().setdefault(key, default) if cached is MISS else cached

    def _value(self, key: NonEmptySafeStrTuple) -> Any:
        cached = self._recall(key)
        return self._fetch(key, None)[0] if cached is MISS else cached

    def _load(
        self, key: NonEmptySafeStrTuple, *, if_none_match: ETagValue | None = None
    ) -> tuple[Any, ETagValue]:
        cached = self._recall(key)
        if cached is MISS:
            return self._fetch(key, if_none_match)
        etag = self._head(key).etag
        return (VALUE_NOT_RETRIEVED if etag == if_none_match else cached), etag

    def _contains(self, key: NonEmptySafeStrTuple) -> bool:
        return bool(self._holds(key)) or self._wrapped._contains(key)

    def _holds(self, key: NonEmptySafeStrTuple) -> bool:
        """Tell whether something is cached under a key, readable or not."""
        return self._ask_cache(lambda: self._data._contains(key)) is True

    def _remove(self, key: NonEmptySafeStrTuple, expected: ETagValue | None) -> NoReturn:
        self._refuse("deleting")

    # ------------------------------------------------------------------ many items

    def _items(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        times: dict[NonEmptySafeStrTuple, float] = {}
        for key, value in self._load_many(self._noting_times(times)):
            yield key, value, times.pop(key)

    def _noting_times(
        self, times: dict[NonEmptySafeStrTuple, float]
    ) -> Iterator[NonEmptySafeStrTuple]:
        for key, last_modified in self._wrapped._dated_keys():
            times[key] = last_modified
            yield key

    def _load_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        unreadable = UnreadableItems()
        remaining = iter(keys)
        while window := list(islice(remaining, _WINDOW)):
            missing = {key for key in window if not self._holds(key)}
            fetched = unreadable.set_aside(
                self._fetch_many([key for key in window if key in missing], unreadable)
            )
            pending = next(fetched, None)
            for key in window:
                if key not in missing:
                    try:
                        yield key, self._value(key)
                    except ObjectNotFound:
                        continue
                elif pending is not None and pending[0] == key:
                    yield pending
                    pending = next(fetched, None)
        unreadable.raise_if_any()

    def _fetch_many(
        self, keys: list[NonEmptySafeStrTuple], unreadable: UnreadableItems
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        """Load many items from the main dictionary, and cache what comes."""
        remaining = deque(keys)
        try:
            for key, stored in self._stored._load_many(keys):
                while remaining.popleft() != key:
                    continue
                try:
                    value = self._value_of(key, stored)
                except BackendError as error:  # raised when all others have been read
                    unreadable.add(key, error)
                    continue
                self._write_copy(key, stored, value)
                yield key, value
        except NoBytesError:
            yield from self._wrapped._load_many(remaining)

    def _write_many(
        self, items: Iterable[tuple[NonEmptySafeStrTuple, Any]], *, only_new: bool
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception | None]]:
        under_way: dict[NonEmptySafeStrTuple, Any] = {}
        failed: list[tuple[NonEmptySafeStrTuple, Exception]] = []
        encoded = self._encode_each_once(items, under_way.__setitem__, failed)
        for key, error in self._stored._write_many(encoded, only_new=only_new):
            stored = under_way.pop(key)
            if error is None and self._has_bytes:
                self._write_copy(key, stored)
            yield key, error
        yield from failed
