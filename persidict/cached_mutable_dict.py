"""A dictionary with a cache in front of it that is asked for nothing but current values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Self

from persidict.cached_dict import MISS, CachedDict, check_apart, check_takes_copies
from persidict.exceptions import ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import (
    VALUE_NOT_RETRIEVED,
    ETagIfExists,
    ETagValue,
    ValueType,
)
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import (
    NonEmptySafeStrTuple,
    SafeStrTuple,
)
from persidict.wrapper_dict import WrapperDict


class _Record(NamedTuple):
    """Which version of the main dictionary a cached value is, and which version of the cache.

    Kept as a text, which every format can hold.
    """

    main_etag: ETagValue
    data_etag: ETagValue

    @staticmethod
    def parse(text: Any) -> _Record:
        """Read a record.

        Raises:
            ValueError: It is none; 0.309 kept bare ETags there.
        """
        fields = json.loads(text) if isinstance(text, str) else None
        match fields:
            case [str(main_etag), str(data_etag)]:
                return _Record(ETagValue(main_etag), ETagValue(data_etag))
        raise ValueError(f"no record of versions: {text!r:.80}")

    def text(self) -> str:
        """Return the record in the form in which it is kept."""
        return json.dumps(self)


class MutableDictCached(CachedDict[ValueType]):
    """A dictionary with its values cached in a second one and their versions in a third one.

    A read asks `main_dict` for the value unless it still is the version that is cached: one
    conditional read, which moves no value if it is. All else is asked of `main_dict`. The
    caches may be shared by threads and processes, be emptied, damaged or full: reading gives
    the current value or the main dictionary's error.

    Why no read is wrong: ``etag_cache[key]`` says which version of `data_cache` holds the
    value of which version of `main_dict`, and is written by whoever wrote that very version
    of `data_cache`, last of all. So it is true for ever, whatever others do in between and
    wherever a writer dies; at worst it speaks of versions that are no longer there, and
    counts for nothing. This needs ETags of `data_cache` that never name two values.

    Costs, beside those of `main_dict`: a hit reads each cache once, a miss and a write
    write each cache once, a deletion deletes in both. Iterating and reading many items asks
    `main_dict` alone.

    Args:
        main_dict: The dictionary that holds the items.
        data_cache: Holds copies of values; for this main dictionary only.
        etag_cache: Holds what is known of them, as texts; for this main dictionary only.
        read_only: Whether `main_dict` is taken as a read-only handle. What is read is still
            cached: the caches take writes.

    Raises:
        TypeError: One of the three is no PersiDict, or `etag_cache` cannot hold texts.
        ValueError: One of the three is append-only, a cache is read-only, or two of them lie in
            one place, whatever their classes and parameters are.

    Examples:
        >>> from persidict import LocalDict
        >>> main = LocalDict()
        >>> d = MutableDictCached(main_dict=main, data_cache=LocalDict(), etag_cache=LocalDict())
        >>> d["a"] = 1
        >>> main["a"] = 2
        >>> d["a"]
        2
    """

    def __init__(
        self,
        *,
        main_dict: PersiDict[ValueType],
        data_cache: PersiDict[ValueType],
        etag_cache: PersiDict[Any],
        read_only: bool = False,
    ) -> None:
        for name, part in (
            ("main_dict", main_dict),
            ("data_cache", data_cache),
            ("etag_cache", etag_cache),
        ):
            if not isinstance(part, PersiDict):
                raise TypeError(f"{name} must be a PersiDict, not {type(part).__name__}")
            if part.append_only:
                raise ValueError(f"{name} must not be append-only")
        check_apart(main_dict=main_dict, data_cache=data_cache, etag_cache=etag_cache)
        check_takes_copies(data_cache=data_cache, etag_cache=etag_cache)
        super().__init__(main_dict, data_cache, read_only=read_only)
        self._records = etag_cache
        record_class = etag_cache.base_class_for_values or str
        if issubclass(str, record_class):
            record_class = str
        elif not issubclass(record_class, str):
            raise TypeError(
                "etag_cache must be able to hold texts; its base_class_for_values is"
                f" {record_class.__name__}"
            )
        self._record_class: type[str] = record_class

    @property
    def etag_cache(self) -> PersiDict[Any]:
        """The dictionary that holds which versions the copies are of."""
        return self._records

    def _own_params(self) -> dict[str, Any]:
        return super()._own_params() | {"etag_cache": self._records}

    def _subdict(self, prefix: SafeStrTuple) -> Self:
        sub = super()._subdict(prefix)
        sub._records = self._records.get_subdict(prefix)
        return sub

    # ------------------------------------------------------------------ the caches

    def _recall(self, key: NonEmptySafeStrTuple) -> tuple[Any, ETagValue | None]:
        """Return the cached value and the version of the main dictionary that it is."""
        record = self._recall_record(key)
        if record is None:
            return MISS, None
        found = self._ask_cache(lambda: self._data._load(key))
        if found is MISS or found[1] != record.data_etag or not self._is_instance(found[0]):
            return MISS, None
        return found[0], record.main_etag

    def _recall_record(self, key: NonEmptySafeStrTuple) -> _Record | None:
        found = self._ask_cache(lambda: self._records._value(key))
        if found is MISS:
            return None
        try:
            return _Record.parse(found)
        except ValueError:
            return None

    def _remember(
        self, key: NonEmptySafeStrTuple, stored: Any, etag: ETagValue, value: Any = MISS
    ) -> None:
        data_etag = self._write_copy(key, stored, value)
        if data_etag is None or not self._write_record(key, _Record(etag, data_etag)):
            self._forget(key)

    def _write_record(self, key: NonEmptySafeStrTuple, record: _Record) -> bool:
        text = self._record_class(record.text())

        def write() -> ETagIfExists:
            self._records._check_value(text)
            return self._records._write(key, text, None)

        return isinstance(self._ask_cache(write), str)

    def _forget(self, key: NonEmptySafeStrTuple) -> None:
        self._remove_from_cache(self._records, key)
        self._remove_from_cache(self._data, key)

    def _forget_other_versions(self, key: NonEmptySafeStrTuple, etag: ETagValue) -> None:
        record = self._recall_record(key)
        if record is not None and record.main_etag != etag:
            self._forget(key)

    # ------------------------------------------------------------------ primitives

    def _load(
        self, key: NonEmptySafeStrTuple, *, if_none_match: ETagValue | None = None
    ) -> tuple[Any, ETagValue]:
        cached, cached_etag = self._recall(key)
        value, etag = self._fetch(key, if_none_match if cached is MISS else cached_etag)
        if etag == if_none_match:
            return VALUE_NOT_RETRIEVED, etag
        return (cached if value is VALUE_NOT_RETRIEVED else value), etag

    def _remove(self, key: NonEmptySafeStrTuple, expected: ETagValue | None) -> None:
        try:
            self._wrapped._remove(key, expected)
        except ObjectNotFound:
            self._forget(key)
            raise
        except PreconditionFailed as failed:
            self._note_version(key, failed.actual_etag)
            raise
        self._forget(key)

    def _write_many(
        self, items: Iterable[tuple[NonEmptySafeStrTuple, Any]], *, only_new: bool
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception | None]]:
        for key, error in self._wrapped._write_many(items, only_new=only_new):
            self._forget(key)  # what is written in bulk comes back without its version
            yield key, error

    def _remove_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception]]:
        return self._wrapped._remove_many(self._forgetting(keys))

    def _remove_all(self) -> None:
        super(WrapperDict, self)._remove_all()  # one by one, so that each is forgotten

    def _forgetting(self, keys: Iterable[NonEmptySafeStrTuple]) -> Iterator[NonEmptySafeStrTuple]:
        for key in keys:
            self._forget(key)
            yield key
