"""How items get from one dictionary into another: as the bytes they are, if both read them."""

from __future__ import annotations

import hashlib
import pickle
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from persidict.contract.sameness import same_content
from persidict.exceptions import (
    ObjectNotFound,
    ProtectionError,
    UnreadableItemsError,
    without_frames,
)
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.stored_dict import StoredDict
from persidict.stores.object_store import ObjectInfo, ObjectStore
from persidict.stores.optional import CopiesInside, LeavesPartsBehind, TellsMD5, layers
from persidict.wrapper_dict import innermost

_AFTER_A_FAILURE: Final = 64
"""How many items are read one by one after the first that could not be read."""


class Item(NamedTuple):
    """An item to be copied, and what listings told of it.

    Attributes:
        key: Its key on both sides.
        info: The object in the source, None if nothing is known of it.
        target_info: The object in the target, None if nothing is known of it.
        is_in_target: Whether the target is known to have it.
    """

    key: NonEmptySafeStrTuple
    info: ObjectInfo | None = None
    target_info: ObjectInfo | None = None
    is_in_target: bool = False

    @property
    def size(self) -> int:
        """How many bytes it has, as far as that is known."""
        return max(info.size if info else 0 for info in (self.info, self.target_info))

    @property
    def sizes_differ(self) -> bool:
        """Whether the two objects are known to be of different sizes."""
        if self.info is None or self.target_info is None:
            return False
        return self.info.size != self.target_info.size


class Reading(NamedTuple):
    """What came of reading an item; ObjectNotFound as the error: there is none."""

    key: NonEmptySafeStrTuple
    value: Any = None
    error: Exception | None = None


def read_many(
    dictionary: PersiDict[Any], keys: Iterable[NonEmptySafeStrTuple]
) -> Iterator[Reading]:
    """Read many items, as `_load_many` does; tell of each key what came of it."""
    remaining = deque(keys)
    passed_over = []
    while remaining:
        try:
            for key, value in dictionary._load_many(list(remaining)):
                while (first := remaining.popleft()) != key:
                    passed_over.append(first)
                yield Reading(key, value)
        except UnreadableItemsError:  # some of those that did not come, the others are absent
            for key in (*passed_over, *remaining):
                yield _read_one(dictionary, key)
            return
        except Exception:  # met again, by the item that it is about, one by one
            for key in list(islice(remaining, _AFTER_A_FAILURE)):
                remaining.popleft()
                yield _read_one(dictionary, key)
        else:
            passed_over += remaining
            break
    yield from (Reading(key, error=ObjectNotFound(key)) for key in passed_over)


def _read_one(dictionary: PersiDict[Any], key: NonEmptySafeStrTuple) -> Reading:
    try:
        return Reading(key, dictionary._load(key)[0])
    except Exception as error:  # reported to the caller, item by item
        return Reading(key, error=without_frames(error))


def md5(data: Any) -> str:
    """Return the MD5 of some bytes, as stores tell it."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _listing(
    dictionary: PersiDict[Any],
) -> Iterable[tuple[NonEmptySafeStrTuple, ObjectInfo | None]]:
    if isinstance(dictionary, StoredDict):
        return dictionary._listing()
    return ((key, None) for key in dictionary._keys())


def _read_each_other(source: StoredDict[Any], target: StoredDict[Any]) -> bool:
    """Tell whether the bytes of one are, in the other, the same value."""
    is_same_format = source.serialization_format == target.serialization_format
    # one of the two may be raw
    is_same_codec = type(source._codec) is type(target._codec) and source.codec == target.codec
    return is_same_format and is_same_codec and source.protection == target.protection


def _md5_of(store: ObjectStore, info: ObjectInfo) -> str | None:
    for layer in layers(store):
        if isinstance(layer, TellsMD5):
            return layer.md5_of(info)
    return None


class Route:
    """The way from one dictionary to another.

    What is wanted in the target, what is present there, and what is written is all in one
    form: the target's stored bytes where it has a store, else values.

    Args:
        source: Where the items come from.
        target: Where they go.
    """

    def __init__(self, source: PersiDict[Any], target: PersiDict[Any]) -> None:
        self._source = innermost(source)
        self._target = innermost(target)
        self._reader: PersiDict[Any] = self._source
        self._writer: PersiDict[Any] = self._target
        if isinstance(self._target, StoredDict):
            self._writer = self._target.raw
        self._stores: tuple[StoredDict[Any], StoredDict[Any]] | None = None
        if (
            isinstance(self._source, StoredDict)
            and isinstance(self._target, StoredDict)
            and _read_each_other(self._source, self._target)
        ):
            self._stores = self._source, self._target
            self._reader = self._source.raw
        known, expected = source.base_class_for_values, target.base_class_for_values
        self._has_classes_to_check = expected is not None and not (
            known is not None and issubclass(known, expected)
        )

    @property
    def moves_bytes(self) -> bool:
        """Whether the items are copied as the bytes they are."""
        return self._stores is not None

    def list_source(self) -> Iterable[tuple[NonEmptySafeStrTuple, ObjectInfo | None]]:
        """Iterate over the keys of the source and what listing tells of its objects."""
        return _listing(self._source)

    def list_target(self) -> Iterable[tuple[NonEmptySafeStrTuple, ObjectInfo | None]]:
        """Iterate over the keys of the target and what listing tells of its objects."""
        return _listing(self._target)

    def interrupted_writes(
        self, items: Iterable[Item]
    ) -> Callable[[Collection[NonEmptySafeStrTuple]], None]:
        """Look for writes in the target that killed processes may have left.

        Returns:
            A function to be called with the keys of the items that have been written anew.
        """
        if not isinstance(self._target, StoredDict):
            return lambda written: None
        name_of = self._target._naming.name_of
        for store in layers(self._target._store):
            if isinstance(store, LeavesPartsBehind):
                end = store.interrupted_writes({name_of(item.key): item.size for item in items})
                return lambda written: end({name_of(key) for key in written})
        return lambda written: None

    # ------------------------------------------------------------------ reading and writing

    def read_wanted(self, keys: Iterable[NonEmptySafeStrTuple]) -> Iterator[Reading]:
        """Read items of the source, in the form in which the target keeps them."""
        for reading in read_many(self._reader, keys):
            if reading.error is None:
                try:
                    reading = reading._replace(value=self._converted(reading.key, reading.value))
                except Exception as error:  # reported to the caller, item by item
                    reading = Reading(reading.key, error=without_frames(error))
            yield reading

    def _converted(self, key: NonEmptySafeStrTuple, value: Any) -> Any:
        if self._stores is not None:
            if self._has_classes_to_check:
                source, target = self._stores
                target._check_value(source._decode(key, value))
            return value
        self._target._check_value(value)
        return self._target._encode(key, value) if isinstance(self._target, StoredDict) else value

    def read_present(self, keys: Iterable[NonEmptySafeStrTuple]) -> Iterator[Reading]:
        """Read items of the target, in the form in which it keeps them."""
        return read_many(self._writer, keys)

    def write(
        self, wanted: Iterable[tuple[NonEmptySafeStrTuple, Any]], *, only_new: bool
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception | None]]:
        """Store items, each atomically; yield what went wrong with each, None if nothing did."""
        return self._writer._write_many(wanted, only_new=only_new)

    @property
    def leads_through_the_storage(self) -> bool:
        """Whether the storage can copy the items without sending their bytes."""
        return self._copier() is not None

    def _copier(self) -> tuple[CopiesInside, ObjectStore] | None:
        """Return the store that copies objects of the source, and what it takes that for."""
        if self._stores is None or self._has_classes_to_check:
            return None
        source, target = self._stores
        *_, source_store = layers(source._store)
        for store in layers(target._store):
            if isinstance(store, CopiesInside) and store.can_copy_from(source_store):
                return store, source_store
        return None

    def copy_inside(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, bool | Exception]]:
        """Have the storage copy items; yield whether it did, or what went wrong with each."""
        copier = self._copier()
        assert self._stores is not None
        assert copier is not None
        source, target = self._stores
        asked: dict[str, NonEmptySafeStrTuple] = {}

        def names() -> Iterator[tuple[str, str]]:
            for key in keys:
                name = target._naming.name_of(key)
                asked[name] = key
                yield source._naming.name_of(key), name

        store, source_store = copier
        for name, outcome in store.copy_many(source_store, names()):
            did = outcome if isinstance(outcome, Exception) else outcome is not None
            yield asked.pop(name), did

    # ------------------------------------------------------------------ comparing

    def source_md5(self, item: Item) -> str | None:
        """Return what proves bytes to be those that are wanted, if the listing told."""
        if self._stores is None or item.info is None:
            return None
        return _md5_of(self._stores[0]._store, item.info)

    def target_md5(self, item: Item) -> str | None:
        """Return what proves bytes to be those that are present, if the listing told."""
        if not isinstance(self._target, StoredDict) or item.target_info is None:
            return None
        return _md5_of(self._target._store, item.target_info)

    def is_same(
        self, key: NonEmptySafeStrTuple, wanted: Any, present: Any, *, by_value: bool
    ) -> bool:
        """Tell whether what is present need not be replaced.

        Args:
            key: The key of both.
            wanted: What `read_wanted` gave.
            present: What `read_present` gave.
            by_value: Whether different bytes that encode equal values are the same, too.
        """
        if not isinstance(self._target, StoredDict):
            return same_content(wanted, present) if by_value else _same_pickle(wanted, present)
        if wanted == present:
            return True
        if self._target.protection is not None and not by_value:
            try:  # of the same value, each encryption is another one
                plain = [self._target._unprotected(key, data) for data in (wanted, present)]
            except ProtectionError:
                return False
            return plain[0] == plain[1]
        if not by_value:
            return False
        try:
            return same_content(
                self._target._decode(key, wanted), self._target._decode(key, present)
            )
        except Exception:  # what cannot be decoded is equal to nothing
            return False


def _same_pickle(one: Any, other: Any) -> bool:
    """Compare values without being fooled by an == that takes 1 for True."""
    try:
        return pickle.dumps(one) == pickle.dumps(other)
    except Exception:  # what cannot be pickled is copied again
        return False
