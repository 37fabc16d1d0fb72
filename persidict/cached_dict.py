"""What dictionaries with a cache in front of them have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from itertools import combinations
from typing import Any, Final, TypeVar, cast

from persidict.buffers import settled
from persidict.contract.primitives import Version
from persidict.contract.sameness import is_replica
from persidict.exceptions import NoBytesError, ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import (
    VALUE_NOT_RETRIEVED,
    ETagIfExists,
    ETagValue,
    ValueType,
)
from persidict.overlap import overlap
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple
from persidict.stores.shared.complaint import complain
from persidict.wrapper_dict import WrapperDict

SelfType = TypeVar("SelfType", bound="CachedDict[Any]")
Answer = TypeVar("Answer")

MISS: Final[Any] = object()
"""What a cache answers that has nothing, or nothing that can be read."""


def check_apart(**parts: PersiDict[Any]) -> None:
    """Raise ValueError if a part lies where another one does: they would write over each other.

    Args:
        **parts: The dictionaries by the names of the parameters.
    """
    for (name, part), (other_name, other) in combinations(parts.items(), 2):
        if overlap(part, other):
            raise ValueError(
                f"{other_name} must not be in the place of {name}: what is written into one"
                f" would be an item of the other"
            )


def check_takes_copies(**caches: PersiDict[Any]) -> None:
    """Raise ValueError if a cache is read-only; its main dictionary may well be.

    Args:
        **caches: The caches by the names of the parameters.
    """
    for name, cache in caches.items():
        if cache.is_read_only:
            raise ValueError(f"{name} must not be read-only: it takes copies of what is read")


class CachedDict(WrapperDict[ValueType]):
    """A dictionary that keeps the values of another one at hand, in a third one.

    Every operation goes to the main dictionary first, once; then the cache is brought in
    step with its result. What goes wrong in a cache never fails an operation.

    A value is encoded once, for the main dictionary, and a cache that keeps values in the
    same form gets the very bytes. One of another form gets what those bytes are decoded to,
    and only if it gives back the same.

    A subclass says how a copy is remembered, forgotten and looked up.

    Args:
        main_dict: The dictionary that holds the items.
        data_cache: The dictionary that holds copies of their values.
        read_only: See WrapperDict. What is read is still cached.
    """

    _wrapped_name = "main_dict"
    _is_transparent = True

    def __init__(
        self,
        main_dict: PersiDict[ValueType],
        data_cache: PersiDict[ValueType],
        *,
        read_only: bool = False,
    ) -> None:
        self._data = data_cache
        super().__init__(wrapped_dict=main_dict, read_only=read_only)
        self._has_warned = False

    def _connect(self) -> None:
        super()._connect()
        self._shares_bytes = self._has_bytes and self._wrapped._byte_form == self._data._byte_form
        keeps_bytes = self._data._byte_form is not None
        self._copies: PersiDict[Any] = self._data.raw if keeps_bytes else self._data

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
        sub._connect()
        return sub

    # ------------------------------------------------------------------ bytes and values

    @property
    def raw(self) -> PersiDict[bytes]:
        """The same dictionary with the stored bytes as its values; see PersiDict.

        A cache whose form of values is another one is left out.
        """
        return super(WrapperDict, self).raw if self._shares_bytes else self._wrapped.raw

    def _become_raw(self) -> None:
        self._wrapped = cast("PersiDict[ValueType]", self._wrapped.raw)
        self._data = cast("PersiDict[ValueType]", self._data.raw)
        self._connect()

    def _write_copy(
        self, key: NonEmptySafeStrTuple, stored: Any, value: Any = MISS
    ) -> ETagValue | None:
        """Write into the data cache what the main dictionary has stored.

        Args:
            key: The key.
            stored: The value as the main dictionary stores it.
            value: What the main dictionary gives for it, if that is known already and
                nobody else has it.

        Returns:
            The version written, None if none was.
        """

        def write() -> ETagIfExists:
            if self._shares_bytes:
                return self._copies._write(key, stored, None)
            held = self._value_of(key, stored) if value is MISS else value
            return self._copies._write(key, self._converted(key, held), None)

        etag = self._ask_cache(write)
        return ETagValue(etag) if isinstance(etag, str) else None

    def _converted(self, key: NonEmptySafeStrTuple, value: Any) -> Any:
        """Return a value in the cache's form, or raise ValueError if it does not survive that."""
        self._data._check_value(value)
        if self._data._byte_form is None:
            return value
        copy = settled(self._data._encode(key, value))
        if not is_replica(self._data._decode(key, copy), value):
            raise ValueError(
                f"item {key!r} would not come back as it is from the format"
                f" {self._data.serialization_format!r}"
            )
        return copy

    # ------------------------------------------------------------------ the caches

    @abstractmethod
    def _remember(
        self, key: NonEmptySafeStrTuple, stored: Any, etag: ETagValue, value: Any = MISS
    ) -> None:
        """Cache what is stored as some version of the main dictionary; see `_write_copy`."""

    @abstractmethod
    def _forget(self, key: NonEmptySafeStrTuple) -> None:
        """Cache nothing under a key."""

    @abstractmethod
    def _forget_other_versions(self, key: NonEmptySafeStrTuple, etag: ETagValue) -> None:
        """Forget what is cached under a key unless it is a certain version."""

    def _is_instance(self, value: Any) -> bool:
        """Tell whether a cached value is one that this handle may return."""
        if self.base_class_for_values is None:
            return True
        try:
            self._check_is_instance(value)
        except TypeError:
            return False
        return True

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
        complain(
            f"a cache of {type(self._wrapped).__name__} fails and is done without where it does:"
            f" {type(error).__name__}: {error}"
        )

    def _remove_from_cache(self, cache: PersiDict[Any], key: NonEmptySafeStrTuple) -> None:
        self._ask_cache(lambda: cache._remove(key, None))

    # ------------------------------------------------------------------ one item

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
            stored, etag = self._stored._load(key, if_none_match=if_none_match)
        except ObjectNotFound:
            self._forget(key)
            raise
        except NoBytesError:
            return self._wrapped._load(key, if_none_match=if_none_match)
        if stored is VALUE_NOT_RETRIEVED:
            return stored, etag
        value = self._value_of(key, stored)
        self._remember(key, stored, etag, value)
        return value, etag

    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ETagIfExists:
        stored = self._encode_once(key, value)
        try:
            etag = self._stored._write(key, stored, expected)
        except PreconditionFailed as failed:
            self._note_version(key, failed.actual_etag)
            raise
        if isinstance(etag, str) and self._has_bytes:
            self._remember(key, stored, etag)
        else:  # what the main dictionary made of the value, it alone can tell
            self._forget(key)
        return etag

    def _note_version(self, key: NonEmptySafeStrTuple, actual: ETagIfExists | None) -> None:
        """Forget what is known not to be there any more."""
        if isinstance(actual, str):
            self._forget_other_versions(key, actual)
        elif actual is not None:
            self._forget(key)
