"""A dictionary whose items are gone some time after they were written."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

from persidict.checks import check_number
from persidict.contract.primitives import KeyRange, Version, raise_key_error
from persidict.contract.unreadable import UnreadableItems
from persidict.exceptions import ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import (
    ITEM_NOT_AVAILABLE,
    VALUE_NOT_RETRIEVED,
    ETagIfExists,
    ETagValue,
    ItemNotAvailableFlag,
    ValueType,
)
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptyPersiDictKey, NonEmptySafeStrTuple, as_key
from persidict.stores.shared.parallel import WorkerPool, map_in_order
from persidict.wrapper_dict import WrapperDict

_THREADS: Final = 16
"""How many items are deleted, or read, at once where that takes a network."""


def _now() -> float:
    return time.time()


class ExpiringDict(WrapperDict[ValueType]):
    """A dictionary in front of another one, in which items that are too old are absent.

    The age of an item is counted from its last writing, as the storage tells it: nothing is
    stored besides, and handles with other times to live see the same items. Expired items are
    absent in every operation and every listing. They stay in the storage until they are
    replaced or deleted; `purge` deletes them all. Conditional operations take them for
    ITEM_NOT_AVAILABLE, and replace them by version, so that of many callers one inserts.

    A clock that differs from the storage's shifts the moment, for S3 by seconds perhaps.

    Costs: what the wrapped dictionary does, with one look more for an item that is changed
    under an ETag, that is opened, and in place of which an expired one is met.

    Args:
        wrapped_dict: The dictionary that holds the items; not append-only.
        ttl: After how many seconds an item is expired.
        read_only: See WrapperDict.

    Raises:
        TypeError: `wrapped_dict` is no PersiDict or `ttl` no number.
        ValueError: `wrapped_dict` is append-only, or `ttl` not positive.

    Examples:
        >>> from persidict import LocalDict
        >>> sessions = ExpiringDict(wrapped_dict=LocalDict(), ttl=3600)
        >>> sessions["ann"] = "token"
        >>> sessions["ann"]
        'token'
    """

    ttl: float

    def __init__(
        self, *, wrapped_dict: PersiDict[ValueType], ttl: float, read_only: bool = False
    ) -> None:
        super().__init__(wrapped_dict=wrapped_dict, read_only=read_only)
        if wrapped_dict.append_only:
            raise ValueError("wrapped_dict must not be append-only: what expires is replaced")
        if not check_number("ttl", ttl) > 0:
            raise ValueError(f"ttl must be positive, it is {ttl}")
        self.ttl = ttl

    @property
    def wrapped_dict(self) -> PersiDict[ValueType]:
        """The dictionary that holds the items, also those that are expired."""
        return self._wrapped

    def _own_params(self) -> dict[str, Any]:
        return {"ttl": self.ttl}

    # ------------------------------------------------------------------ what it adds

    def expires_at(self, key: NonEmptyPersiDictKey) -> float:
        """Return when an item will be expired, in POSIX seconds.

        Raises:
            KeyError: There is no such item, or it is expired.
        """
        return self.info(key).last_modified + self.ttl

    def touch(self, key: NonEmptyPersiDictKey) -> None:
        """Begin the time to live of an item anew, by storing its value again as it is.

        Raises:
            KeyError: There is no such item, or it is expired.
            MutationPolicyError: The handle is read-only.
        """
        checked = as_key(key)
        self._refuse_if_read_only()
        raw = self.raw
        try:
            while True:
                stored, etag = raw._load(checked)
                try:
                    raw._write_settled(checked, stored, etag)
                    return
                except PreconditionFailed:
                    continue  # changed meanwhile, by which its time has begun anew, or deleted
        except ObjectNotFound as absent:
            raise_key_error(checked, absent)

    def purge(self) -> int:
        """Delete what is expired, each item by its version: what is written anew stays.

        Costs: a listing, and one deletion for each expired item, several at once where the
        storage gains from it.

        Returns:
            How many items were deleted by this call.

        Raises:
            Exception: The storage's own, for the first item that could not be deleted.
            MutationPolicyError: The handle is read-only.
        """
        self._refuse_if_read_only()
        expired = (
            (key, version.etag)
            for key, version in self._wrapped._versions()
            if self._is_expired(version)
        )
        if self._traits.reads_are_cheap:
            return sum(map(self._delete, expired))
        return sum(map_in_order(self._delete, expired, WorkerPool(_THREADS)))

    def _delete(self, item: tuple[NonEmptySafeStrTuple, ETagValue]) -> bool:
        key, etag = item
        try:
            self._wrapped._remove(key, etag)
        except (ObjectNotFound, PreconditionFailed):
            return False
        return True

    # ------------------------------------------------------------------ stored bytes

    @property
    def raw(self) -> PersiDict[bytes]:
        """The stored bytes of the items that are not expired; see PersiDict."""
        return PersiDict.raw.fget(self)  # type: ignore[attr-defined, no-any-return]

    def _become_raw(self) -> None:
        self._wrapped = self._wrapped.raw
        self._connect()

    def _open(self, key: NonEmptySafeStrTuple) -> Any:
        self._head(key)
        return self._wrapped._open(key)

    # ------------------------------------------------------------------ one item

    def _is_expired(self, version: Version) -> bool:
        return self._is_past(version.last_modified)

    def _is_past(self, last_modified: float) -> bool:
        """Tell whether what was written at a time is expired by now."""
        return _now() - last_modified >= self.ttl

    def _fresh(self, key: NonEmptySafeStrTuple, version: Version) -> Version:
        """Return the version of an item, or raise ObjectNotFound if it is expired."""
        if self._is_expired(version):
            raise ObjectNotFound(key)
        return version

    def _head(self, key: NonEmptySafeStrTuple) -> Version:
        return self._fresh(key, self._wrapped._head(key))

    def _load_version(self, key: NonEmptySafeStrTuple) -> tuple[Any, Version]:
        try:
            value, version = self._wrapped._load_version(key)
        except ObjectNotFound:
            raise
        except Exception:
            self._head(key)  # what is expired is absent, also if it cannot be decoded
            raise
        return value, self._fresh(key, version)

    def _load(
        self, key: NonEmptySafeStrTuple, *, if_none_match: ETagValue | None = None
    ) -> tuple[Any, ETagValue]:
        if if_none_match is not None and self._head(key).etag == if_none_match:
            return VALUE_NOT_RETRIEVED, if_none_match
        value, version = self._load_version(key)
        return value, version.etag

    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ETagIfExists:
        if expected is None:
            return self._wrapped._write(key, value, None)
        if not isinstance(expected, ItemNotAvailableFlag):
            self._require(key, expected)
            return self._wrapped._write(key, value, expected)
        while True:
            try:
                return self._wrapped._insert(key, value)
            except PreconditionFailed as refused:
                try:
                    found = self._wrapped._head(key)
                except ObjectNotFound:
                    continue  # deleted meanwhile
                if not self._is_expired(found):
                    raise PreconditionFailed(actual_etag=found.etag) from refused
            with suppress(PreconditionFailed):  # somebody else was faster: what is there now?
                return self._wrapped._write_settled(key, value, found.etag)

    def _require(self, key: NonEmptySafeStrTuple, expected: ETagValue) -> None:
        """Raise PreconditionFailed unless an item is a version, and not expired."""
        try:
            actual: ETagIfExists = self._head(key).etag
        except ObjectNotFound:
            actual = ITEM_NOT_AVAILABLE
        if actual != expected:
            raise PreconditionFailed(actual_etag=actual)

    def _remove(self, key: NonEmptySafeStrTuple, expected: ETagValue | None) -> None:
        while True:
            version = self._head(key)
            if expected is not None and version.etag != expected:
                raise PreconditionFailed(actual_etag=version.etag)
            try:
                self._wrapped._remove(key, version.etag)
                return
            except PreconditionFailed:
                if expected is not None:
                    raise

    def _copy(self, source: NonEmptySafeStrTuple, target: NonEmptySafeStrTuple) -> ETagIfExists:
        self._head(source)
        return self._wrapped._copy(source, target)

    # ------------------------------------------------------------------ many items

    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        for key, _ in self._versions():
            yield key

    def _keys_in(self, key_range: KeyRange) -> list[NonEmptySafeStrTuple]:
        return [key for key, _ in self._versions(key_range)]

    def _versions(
        self, key_range: KeyRange | None = None
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Version]]:
        for key, version in self._wrapped._versions(key_range):
            if not self._is_expired(version):
                yield key, version

    def _items(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        return self._wrapped._items_written(lambda time: not self._is_past(time))

    def _load_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        if self._traits.reads_are_cheap:
            yield from super()._load_many(keys)
            return
        unreadable = UnreadableItems()
        for key, value, error in map_in_order(self._read, keys, WorkerPool(_THREADS)):
            if error is None:
                yield key, value
            elif not isinstance(error, ObjectNotFound):
                unreadable.add(key, error)
        unreadable.raise_if_any()

    def _read(
        self, key: NonEmptySafeStrTuple
    ) -> tuple[NonEmptySafeStrTuple, Any, Exception | None]:
        """Return a key, its value, and what went wrong in the place of one."""
        try:
            return key, self._value(key), None
        except Exception as error:  # told when all others have been read
            return key, None, error

    def _write_many(
        self, items: Iterable[tuple[NonEmptySafeStrTuple, Any]], *, only_new: bool
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception | None]]:
        if only_new:
            return super()._write_many(items, only_new=True)
        return self._wrapped._write_many(items, only_new=False)

    def _remove_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception]]:
        return self._wrapped._remove_many(keys)
