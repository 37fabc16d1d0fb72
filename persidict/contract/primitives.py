"""The primitives that every persistent dictionary is built on, and the checks of its values."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from typing import Any, BinaryIO, ClassVar, Final, NamedTuple, NoReturn, Protocol, TypeVar

from persidict import log
from persidict.back_off import seconds_to_pause
from persidict.buffers import Buffer
from persidict.classes import is_typed_dict
from persidict.contract.unreadable import UnreadableItems
from persidict.exceptions import (
    MutationPolicyError,
    ObjectNotFound,
    PreconditionFailed,
    missing_key,
    without_frames,
)
from persidict.jokers_and_status_flags import (
    ITEM_NOT_AVAILABLE,
    ETagIfExists,
    ETagValue,
    ItemNotAvailableFlag,
    Joker,
    ValueNotRetrievedFlag,
)
from persidict.safe_str_tuple import (
    NonEmptySafeStrTuple,
    PersiDictKey,
    SafeStrTuple,
    as_prefix,
)
from persidict.traffic import Traffic
from persidict.traits import Traits

ORDINARY_TYPES = frozenset({dict, list, tuple, set, str, bytes, int, float, bool, type(None)})
"""Types whose instances need no closer look before they are stored."""


_TRAITS_OF_NOTHING_SPECIAL: Final = Traits()

SelfType = TypeVar("SelfType", bound="DictPrimitives")


class Version(Protocol):
    """What is known of one version of an item."""

    @property
    def etag(self) -> ETagValue:
        """The opaque name of the version."""

    @property
    def size(self) -> int:
        """How many bytes are stored."""

    @property
    def last_modified(self) -> float:
        """When it was written, in POSIX seconds."""


class KeyRange(NamedTuple):
    """Some of the keys: those with a prefix, from one key up to but not including another.

    Attributes:
        prefix: What the keys begin with.
        start: The first key that belongs to the range, None: no bound.
        stop: The first key behind it, None: no bound.
    """

    prefix: tuple[str, ...]
    start: tuple[str, ...] | None
    stop: tuple[str, ...] | None

    def contains(self, key: NonEmptySafeStrTuple) -> bool:
        """Tell whether a key is in the range, by the order of tuples of strings."""
        strings = key.strings
        return (
            strings[: len(self.prefix)] == self.prefix
            and (self.start is None or strings >= self.start)
            and (self.stop is None or strings < self.stop)
        )


def key_range_of(
    prefix: PersiDictKey, start: PersiDictKey | None, stop: PersiDictKey | None
) -> KeyRange | None:
    """Check the bounds of a range of keys; None: all keys."""
    checked = as_prefix("prefix", prefix).strings
    if not checked and start is None and stop is None:
        return None
    first = None if start is None else as_prefix("start", start).strings
    behind = None if stop is None else as_prefix("stop", stop).strings
    if first is not None and behind is not None:
        # what both bounds begin with, all keys between them do: less has to be listed
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(first, behind, strict=False))
        common = tuple(part for part, _ in pairs)
        if common[: len(checked)] == checked:
            checked = common
    return KeyRange(checked, first, behind)


def raise_key_error(key: NonEmptySafeStrTuple, absent: ObjectNotFound) -> NoReturn:
    """Turn a storage's absence into the dict's, chained from the storage's own error."""
    raise missing_key(key) from (absent.__cause__ or absent)


class DictPrimitives(ABC):
    """What a kind of storage supplies, and what all operations check with."""

    append_only: bool
    base_class_for_values: type | None
    serialization_format: str

    _is_read_only: bool = False
    """Whether operations of this handle that may change items are refused."""

    _policy: ClassVar[str] = "append-only"
    """The policy that a refused change is reported under."""

    @property
    def _traits(self) -> Traits:
        """What the storage tells of itself."""
        return _TRAITS_OF_NOTHING_SPECIAL

    def _traffic(self) -> Traffic:
        """Return what has passed between this dictionary and a service."""
        return Traffic()

    # ------------------------------------------------------------------ checks

    def _check_is_instance(self, value: Any) -> None:
        expected = self.base_class_for_values
        if is_typed_dict(expected):
            expected = dict  # what its instances are; isinstance refuses to ask
        if expected is not None and not isinstance(value, expected):
            raise TypeError(
                f"value must be an instance of {expected.__name__}"
                f" (base_class_for_values), not {type(value).__name__}"
            )

    def _check_value(self, value: Any, name: str = "value") -> None:
        """Refuse what can never be a value of this dictionary."""
        if type(value) not in ORDINARY_TYPES:
            if isinstance(value, DictPrimitives):
                raise TypeError(f"{name}: a persistent dictionary cannot be stored as a value")
            self._check_no_flag(value, name)
        if self.base_class_for_values is not None:
            self._check_is_instance(value)

    @staticmethod
    def _check_no_flag(value: Any, name: str) -> None:
        if isinstance(value, (Joker, ItemNotAvailableFlag, ValueNotRetrievedFlag)):
            raise TypeError(f"{name}: {value!r} cannot be stored as a value")

    def _refuse_if_read_only(self) -> None:
        """Raise MutationPolicyError if this handle cannot change items."""
        if self._is_read_only:
            raise MutationPolicyError("read-only", "this handle cannot change items")

    def _refuse_deletion(self) -> None:
        """Raise MutationPolicyError if this dictionary's policy forbids deleting."""
        self._refuse_if_read_only()
        if self.append_only:
            raise MutationPolicyError(self._policy, "items cannot be deleted")

    def _refuse_change(self, key: NonEmptySafeStrTuple) -> NoReturn:
        raise MutationPolicyError(self._policy, f"item {key!r} exists and cannot be changed")

    def _pause(self, attempt: int, began: float) -> float:
        """Wait for a random time that grows with the attempts, so that rivals get out of step.

        Args:
            attempt: How many attempts have been made.
            began: When the first one began, by `time.perf_counter`; for later ones, what the
                pause before returned.

        Returns:
            When the first attempt would have begun if there had been no pauses.
        """
        log.debug("attempt %d came to nothing: somebody else was faster", attempt)
        refused = time.perf_counter()
        time.sleep(self._seconds_to_pause(attempt, refused - began))
        return began + time.perf_counter() - refused

    def _seconds_to_pause(self, attempt: int, took: float) -> float:
        """Return how long to wait after a number of attempts that took so many seconds."""
        if not self._traits.back_off_seconds:
            return 0.0
        unit = max(took / attempt, self._traits.back_off_seconds)
        # four times as long each time: sixteen rivals are not out of step after some doublings
        return seconds_to_pause(2 * attempt, unit)

    # ------------------------------------------------------------------ primitives

    @abstractmethod
    def _load(
        self, key: NonEmptySafeStrTuple, *, if_none_match: ETagValue | None = None
    ) -> tuple[Any, ETagValue]:
        """Return a value and its version, both of one moment.

        Where the item still is the version `if_none_match`, the value is
        VALUE_NOT_RETRIEVED. Raises ObjectNotFound for absence.
        """

    @abstractmethod
    def _head(self, key: NonEmptySafeStrTuple) -> Version:
        """Return the version of an item without its value, or raise ObjectNotFound."""

    @abstractmethod
    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ETagIfExists:
        """Store a value in one atomic step if the item is the version `expected`.

        None: whatever it is; ITEM_NOT_AVAILABLE: only if there is none. Returns the new
        version, ITEM_NOT_AVAILABLE where nothing is kept. Raises PreconditionFailed, having
        changed nothing.
        """

    @abstractmethod
    def _remove(self, key: NonEmptySafeStrTuple, expected: ETagValue | None) -> None:
        """Delete an item in one atomic step if it is the version `expected` (None: any).

        Raises ObjectNotFound if there is none and PreconditionFailed if it is another one.
        """

    @abstractmethod
    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        """Iterate over all keys; `page_size` hints how many the caller will look at."""

    @abstractmethod
    def _subdict(self: SelfType, prefix: SafeStrTuple) -> SelfType:
        """Return the dictionary below a prefix that is not empty."""

    # ------------------------------------------------------------------ primitives with defaults

    def _insert(self, key: NonEmptySafeStrTuple, value: Any) -> ETagIfExists:
        """Insert an item, or raise PreconditionFailed if there is one."""
        return self._write_settled(key, value, ITEM_NOT_AVAILABLE)

    def _write_settled(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists
    ) -> ETagIfExists:
        """Do what `_write` does; a refusal that it raises has been asked whether it is one."""
        try:
            return self._write(key, value, expected)
        except PreconditionFailed as refused:
            made: ETagIfExists | None = refused.written_after_all(None)
            if made is None:
                raise
            return made

    def _value(self, key: NonEmptySafeStrTuple) -> Any:
        """Return a value for a reader who needs no version, or raise ObjectNotFound."""
        return self._load(key)[0]

    @property
    def _byte_form(self) -> object:
        """What tells whether bytes that are stored here mean the same value elsewhere.

        They do where this is equal. None: values are not kept as bytes here.
        """
        return None

    def _encode(self, key: NonEmptySafeStrTuple, value: Any) -> Buffer:
        """Return the bytes that a value is stored as."""
        self._refuse_bytes()

    def _decode(self, key: NonEmptySafeStrTuple, data: Buffer) -> Any:
        """Return the value that bytes stored under a key are; see `_encode`."""
        self._refuse_bytes()

    def _open(self, key: NonEmptySafeStrTuple) -> BinaryIO:
        """Open the stored bytes of an item, or raise ObjectNotFound."""
        self._refuse_bytes()

    def _become_raw(self) -> None:
        """Make this handle, which nobody has yet, one whose values are the stored bytes."""
        self._refuse_bytes()

    def _refuse_bytes(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} does not keep its values as bytes")

    @property
    def _listed(self) -> object:
        """Whose entries `_keys` and `_items` list: another dictionary's, if this wraps one."""
        return self

    def _contains(self, key: NonEmptySafeStrTuple) -> bool:
        try:
            self._head(key)
        except ObjectNotFound:
            return False
        return True

    def _load_version(self, key: NonEmptySafeStrTuple) -> tuple[Any, Version]:
        """Return a value and what is known of its version, both of one moment."""
        while True:
            version = self._head(key)
            value, etag = self._load(key)
            if etag == version.etag:
                return value, version

    def _count(self) -> int:
        """Return how many keys there are."""
        return sum(1 for _ in self._keys())

    def _versions(
        self, key_range: KeyRange | None = None
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Version]]:
        """Iterate over the keys, those in a range in its order, and what is known of each."""
        for key in self._keys() if key_range is None else self._keys_in(key_range):
            try:
                yield key, self._head(key)
            except ObjectNotFound:
                continue

    def _dated_keys(self) -> Iterator[tuple[NonEmptySafeStrTuple, float]]:
        """Iterate over keys and times of last writing."""
        for key, version in self._versions():
            yield key, version.last_modified

    @abstractmethod
    def _items(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        """Iterate over keys, values and times of last writing, each of one version."""

    def _items_written(
        self, is_wanted: Callable[[float], bool]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        """Iterate over the items that were written at a time that is wanted.

        What was not is not decoded, where that can be helped.
        """
        return (item for item in self._items() if is_wanted(item[2]))

    def _keys_in(self, key_range: KeyRange) -> list[NonEmptySafeStrTuple]:
        """Return the keys in a range, in the order of tuples of strings."""
        return sorted(key for key in self._keys() if key_range.contains(key))

    def _load_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        """Read many items, in the order given; those that do not exist are left out."""
        unreadable = UnreadableItems()
        for key in keys:
            try:
                value = self._load(key)[0]
            except ObjectNotFound:
                continue
            except Exception as error:  # raised when all others have been read
                unreadable.add(key, error)
                continue
            yield key, value
        unreadable.raise_if_any()

    def _write_many(
        self, items: Iterable[tuple[NonEmptySafeStrTuple, Any]], *, only_new: bool
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception | None]]:
        """Store many items, each atomically; no key occurs twice among those under way.

        Yields each key with what went wrong, None if nothing did.
        """
        for key, value in items:
            try:
                if only_new:
                    self._insert(key, value)
                else:
                    self._write(key, value, None)
            except Exception as error:  # reported to the caller, item by item
                yield key, without_frames(error)
            else:
                yield key, None

    def _remove_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception]]:
        """Delete many items; yield those that could not be deleted, and why."""
        for key in keys:
            try:
                self._remove(key, None)
            except ObjectNotFound:
                continue
            except Exception as error:  # reported to the caller, item by item
                yield key, without_frames(error)

    def _first_parts(self) -> set[str]:
        """Return the first string of every key."""
        return {key.strings[0] for key in self._keys()}
